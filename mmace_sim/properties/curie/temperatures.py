"""Ordering temperatures of many magnets, from a Heisenberg model or from the energy of the model itself."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from mmace_sim.engine.journal import fingerprint, weights_hash
from mmace_sim.errors import StructureError, UnsupportedOptionError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.properties.curie.estimators import CurieTemperature, estimate
from mmace_sim.properties.curie.from_exchange import spin_hamiltonian
from mmace_sim.properties.exchange import Exchange
from mmace_sim.properties.relax.relaxation import Status, as_atoms
from mmace_sim.properties.singlepoint import SinglePoint
from mmace_sim.sampling.chains import Chain, Sampler, replicas, run_blocks
from mmace_sim.sampling.hamiltonian import SpinHamiltonian
from mmace_sim.sampling.heatbath import HeatBath
from mmace_sim.sampling.hmc import HybridMonteCarlo
from mmace_sim.sampling.local import LocalMoves
from mmace_sim.sampling.statistics import CurieStatus, Point, points
from mmace_sim.sampling.surface import Supercells, reference_signs

METHODS: tuple[str, ...] = ("heisenberg", "direct")
MOVES: tuple[str, ...] = ("hybrid", "local")
AUTO_SIZES: dict[str, tuple[int, ...]] = {"heisenberg": (6, 8, 12), "direct": (3, 4)}
AUTO_SWEEPS: dict[str, int] = {"heisenberg": 3000, "direct": 300}
_AUTO_FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.2)
_AUTO_DIRECT = tuple(range(100, 1501, 100))
_REFINED = (0.92, 0.95, 0.97, 0.985, 1.0, 1.015, 1.03, 1.05, 1.08)

_log = logging.getLogger(__name__)


@dataclass
class CurieResult:
    """Finite-temperature magnetism of one crystal.

    Attributes:
        atoms: The structure.
        method: One of `METHODS`.
        status: CONVERGED if all points are in equilibrium.
        message: What to know or do.
        points: For each size, points at ascending temperatures.
        temperature: Ordering temperature by each estimator.
        mean_field: Mean-field temperature of the exchange constants in K; None for the direct method.
        n_sweeps: Counted sweeps (trajectories) of each chain.
        quantum_factor: T_C of quantum spins over that of classical ones, if asked for.
    """

    atoms: Atoms
    method: str
    status: CurieStatus
    message: str = ""
    points: list[list[Point]] = field(default_factory=list)
    temperature: CurieTemperature = field(default_factory=CurieTemperature)
    mean_field: float | None = None
    n_sweeps: int = 0
    quantum_factor: float | None = None


class Curie:
    """Ordering temperatures: settings here, structures in :meth:`run`.

    Args:
        model: Energy model of this package.
        method: "heisenberg": exact heat bath of E = −Σ_{i<j} J'_ij e_i·e_j, with J' from `Exchange` or given to
            `run`. "direct": the energy of the model itself.
        temperatures: In K. By default, heisenberg: multiples of the mean-field temperature, then more around the
            transition; direct: 100 to 1500 by 100.
        sizes: Multiples of the cell: of the most cubic block of primitive cells (heisenberg), or of the cell of the
            file (direct). By default `AUTO_SIZES`.
        n_sweeps: Sweeps (direct: trajectories) that count, of each chain; by default `AUTO_SWEEPS`.
        n_equilibration: Sweeps before; by default a fifth.
        n_over: Over-relaxation sweeps after each heat-bath sweep.
        seed: Of the random numbers.
        n_replicas: Chains at each temperature.
        magmoms: "relaxed": lengths relax in the given order first. "fixed": they are as given.
        cutoff: Largest distance of exchange, in Å.
        route: Route of the exchange.
        lengths: "fixed" or "variable" |m| (direct).
        lattice: "fixed", "moving" or "free" (direct).
        moves: "hybrid": all moments at once by gradients. "local": one by one, on a fixed lattice (direct).
        n_steps: Leapfrog steps of a hybrid trajectory.
        quantum: State the factor that makes classical temperatures those of quantum spins, (S + 1)/S with S = |m|/2.
        device: Where spins of the Heisenberg model are.

    Raises:
        UnsupportedOptionError: If a setting is impossible.
    """

    def __init__(
        self,
        model: Any,
        *,
        method: str = "heisenberg",
        temperatures: Sequence[float] | None = None,
        sizes: Sequence[int] | None = None,
        n_sweeps: int | None = None,
        n_equilibration: int | None = None,
        n_over: int = 3,
        seed: int = 0,
        n_replicas: int = 1,
        magmoms: str = "relaxed",
        cutoff: float = 6.0,
        route: str = "derivatives",
        lengths: str = "fixed",
        lattice: str = "fixed",
        moves: str = "hybrid",
        n_steps: int = 10,
        quantum: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        if method not in METHODS or moves not in MOVES:
            raise UnsupportedOptionError(
                f"method = {method!r}, moves = {moves!r}: expected one of {', '.join(METHODS)}, and one of "
                f"{', '.join(MOVES)}."
            )
        if moves == "local" and lattice != "fixed":
            raise UnsupportedOptionError(
                f"lattice = {lattice!r} needs moves = 'hybrid': local moves keep the atoms where they are."
            )
        self.model, self.method = model, method
        self.temperatures = None if temperatures is None else sorted(set(map(float, temperatures)))
        self.sizes = sorted(set(sizes or AUTO_SIZES[method]))
        self.n_sweeps = n_sweeps or AUTO_SWEEPS[method]
        self.n_equilibration = self.n_sweeps // 5 if n_equilibration is None else n_equilibration
        self.n_over, self.seed, self.n_replicas = n_over, seed, n_replicas
        self.magmoms, self.cutoff, self.route = magmoms, cutoff, route
        self.lengths, self.lattice, self.moves, self.n_steps = lengths, lattice, moves, n_steps
        self.device, self.quantum = device or model.device, quantum

    def run(
        self,
        structures: Any,
        *,
        names: Sequence[str] | None = None,
        spin_models: Sequence[SpinHamiltonian] | None = None,
        folder: Path | None = None,
        on_sweeps: Callable[[int], None] | None = None,
        on_finished: Callable[[int, CurieResult], None] | None = None,
    ) -> list[CurieResult]:
        """Sample each crystal; one that fails does not stop the others.

        Args:
            structures: ASE, pymatgen or phonopy structures with collinear moments.
            names: Of the structures: part of what random numbers depend on, and of the names of files.
            spin_models: Heisenberg models to use instead of computing exchange.
            folder: Where samples are kept in ``NAME/samples-*.npz``; a killed run goes on from these.
            on_sweeps: Called with how many sweeps are done.
            on_finished: Called with the number of a structure and its result.

        Returns:
            One result for each structure, in the same order.
        """
        images = as_atoms(structures)
        names = list(names or [f"structure-{k}" for k in range(len(images))])
        results = []
        for k, (atoms, name) in enumerate(zip(images, names, strict=True)):
            where = None if folder is None else folder / name
            try:
                if self.method == "direct":
                    results.append(self._direct(atoms, name, where, on_sweeps))
                else:
                    spins = spin_models[k] if spin_models else self._spin_model(atoms)
                    results.append(self._heisenberg(atoms, spins, name, where, on_sweeps))
            except (StructureError, RuntimeError, np.linalg.LinAlgError) as error:  # must not stop the others
                results.append(CurieResult(atoms, self.method, CurieStatus.FAILED, str(error)))
            if on_finished is not None:
                on_finished(k, results[-1])
        return results

    def _spin_model(self, atoms: Atoms) -> SpinHamiltonian:
        settings = {"magmoms": self.magmoms, "cutoff": self.cutoff, "routes": [self.route]}
        (result,) = Exchange(self.model, **settings).run([atoms])
        return spin_hamiltonian(result)

    def _heisenberg(
        self, atoms: Atoms, spins: SpinHamiltonian, name: str, folder: Path | None, on_sweeps: Callable | None
    ) -> CurieResult:
        mean_field = spins.mean_field_temperature
        if not mean_field > 0:
            raise StructureError(
                "the exchange constants do not favour the order of the moments: no transition."
            )
        networks = [spins.network(size) for size in self.sizes]

        def sample(temperatures: Sequence[float], stage: str) -> list[list[Point]]:
            chains = replicas(temperatures, self.seed, self.n_replicas, name)
            sampler = HeatBath(networks, chains, n_over=self.n_over, device=self.device)
            found = self._sample(sampler, chains, stage, folder, on_sweeps, spins.exchange.tobytes())
            return points(found, chains, sampler.sizes)

        rows = sample(self.temperatures or [f * mean_field for f in _AUTO_FRACTIONS], "1")
        guess = estimate(rows).best
        if self.temperatures is None and guess is not None:
            known = {point.temperature for point in rows[0]}
            more = [t for f in _REFINED if (t := f * guess[1].mean) not in known]
            refined = sample(more, "2")
            rows = [
                sorted(a + b, key=lambda point: point.temperature) for a, b in zip(rows, refined, strict=True)
            ]
        return self._result(atoms, rows, mean_field, spins.quantum_factor)

    def _direct(
        self, atoms: Atoms, name: str, folder: Path | None, on_sweeps: Callable | None
    ) -> CurieResult:
        (point,) = SinglePoint(self.model, magmoms=self.magmoms, collinear=True).run([atoms])
        if point.status is not Status.CONVERGED:
            raise StructureError(f"the moments do not relax: {point.message}")
        chains = replicas(self.temperatures or _AUTO_DIRECT, self.seed, self.n_replicas, name)
        cells = Supercells(self.model, [point.atoms.repeat(size) for size in self.sizes], chains)
        sampler: Sampler
        if self.moves == "local":
            sampler = LocalMoves(cells, lengths=self.lengths, n_adapt=self.n_equilibration)
        else:
            sampler = HybridMonteCarlo(
                cells,
                lengths=self.lengths,
                lattice=self.lattice,
                n_steps=self.n_steps,
                n_adapt=self.n_equilibration,
            )
        found = self._sample(sampler, chains, "1", folder, on_sweeps, fingerprint(atoms).encode())
        lengths = np.linalg.norm(get_magmoms(point.atoms)[reference_signs(point.atoms) != 0], axis=1)
        return self._result(atoms, points(found, chains, cells.n_spins), None, 1 + 2 / float(lengths.mean()))

    def _sample(
        self,
        sampler: Sampler,
        chains: list[Chain],
        stage: str,
        folder: Path | None,
        on_sweeps: Callable | None,
        content: bytes,
    ) -> Any:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        settings = {
            key: value for key, value in vars(self).items() if key not in ("model", "device", "quantum")
        }
        parts = repr((sorted(settings.items()), chains, weights_hash(self.model)))
        identity = hashlib.sha256(parts.encode() + content).hexdigest()[:16]
        return run_blocks(
            sampler,
            self.n_equilibration,
            self.n_sweeps,
            block_sweeps=200 if self.method == "heisenberg" else 5,
            checkpoint=None if folder is None else folder / f"samples-{stage}.npz",
            identity=identity,
            on_block=on_sweeps,
        )

    def _result(
        self, atoms: Atoms, rows: list[list[Point]], mean_field: float | None, quantum_factor: float
    ) -> CurieResult:
        bad = [p for row in rows for p in row if p.status is not CurieStatus.CONVERGED]
        found = estimate(rows, seed=self.seed)
        notes = list(found.notes)
        if bad:
            where = ", ".join(f"{p.temperature:.0f} K ({p.n_spins} spins)" for p in bad[:4])
            more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
            notes.append(f"not in equilibrium, or too short: {where}{more}; raise --sweeps.")
        status = CurieStatus.NOT_EQUILIBRATED if bad else CurieStatus.CONVERGED
        factor = quantum_factor if self.quantum else None
        message = " ".join(notes)
        return CurieResult(
            atoms, self.method, status, message, rows, found, mean_field, self.n_sweeps, factor
        )


def planned_sweeps(workflow: Curie, n_structures: int) -> int:
    """Sweeps of a run, for a progress bar.

    Args:
        workflow: Its settings.
        n_structures: Number of crystals.
    """
    stages = 2 if workflow.method == "heisenberg" and workflow.temperatures is None else 1
    return n_structures * stages * (workflow.n_equilibration + workflow.n_sweeps)
