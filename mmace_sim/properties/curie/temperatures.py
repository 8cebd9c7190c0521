"""Ordering temperatures of many magnets, from a Heisenberg model or from the energy of the model itself."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, override

import numpy as np
import torch
from ase import Atoms

from mmace_sim.base.text import listed
from mmace_sim.engine.journal import fingerprint, weights_hash
from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.model.checkpoint import load_model
from mmace_sim.properties.curie.declaration import AUTO_TEMPERATURES, CurieSettings
from mmace_sim.properties.curie.estimators import CurieTemperature, estimate
from mmace_sim.properties.exchange import Exchange
from mmace_sim.properties.relax.relaxation import Status, as_atoms
from mmace_sim.properties.singlepoint import SinglePoint
from mmace_sim.properties.workflow import Workflow
from mmace_sim.sampling.chains import Chain, Sampler, replicas, run_blocks
from mmace_sim.sampling.hamiltonian import SpinHamiltonian
from mmace_sim.sampling.heatbath import HeatBath
from mmace_sim.sampling.hmc import HybridMonteCarlo
from mmace_sim.sampling.local import LocalMoves
from mmace_sim.sampling.statistics import CurieStatus, Point, points
from mmace_sim.sampling.surface import Supercells, reference_signs

AUTO_FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.2)
_REFINED = (0.92, 0.95, 0.97, 0.985, 1.0, 1.015, 1.03, 1.05, 1.08)

_log = logging.getLogger(__name__)


@dataclass
class CurieResult:
    """Finite-temperature magnetism of one crystal.

    Attributes:
        atoms: The structure.
        method: "heisenberg" or "direct".
        status: CONVERGED if all points are in equilibrium.
        message: What to know or do.
        points: For each size, points at ascending temperatures.
        temperature: Ordering temperature by each estimator.
        mean_field: Mean-field temperature of the exchange constants in K; None for the direct method.
        n_sweeps: Counted sweeps (trajectories) of each chain.
        quantum_factor: T_C of quantum spins over that of classical ones, if asked for.
        ordered: The crystal with the moments that exchange or supercells started from; None if exchange was given.
        ends: Of the direct method, for each of the points (by size, then temperature) its chains' last samples.
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
    ordered: Atoms | None = None
    ends: list[list[Atoms]] = field(default_factory=list)


class Curie(Workflow[CurieSettings]):
    """Ordering temperatures: settings here, structures in :meth:`run`.

    "heisenberg": exact heat bath of E = −Σ_{i<j} J'_ij e_i·e_j, with J' from `Exchange` or given to `run`. Temperatures
    are multiples of the mean-field temperature, then more around the transition. "direct": the energy of the model
    itself.

    The model is one of the energy of this package, its name or path. Spins of the Heisenberg model are on the device.

    Its settings are :class:`~mmace_sim.properties.curie.declaration.CurieSettings`.
    """

    kind = CurieSettings

    @override
    def set_up(self, model: Any, **where: Any) -> None:
        named, dtype = isinstance(model, str | Path), where["dtype"] or torch.float64
        self.model = load_model(model, dtype=dtype) if named else model
        self.device, self.max_batch_atoms = where["device"] or self.model.device, where["max_batch_atoms"]
        given = self.settings.temperatures
        self.temperatures = None if given is None else sorted(set(given))

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
                if self.settings.method == "direct":
                    results.append(self._direct(atoms, name, where, on_sweeps))
                else:
                    spins, ordered = (spin_models[k], None) if spin_models else self._spin_model(atoms)
                    results.append(self._heisenberg(atoms, spins, name, where, on_sweeps))
                    results[-1].ordered = ordered
            except (StructureError, RuntimeError, np.linalg.LinAlgError) as error:  # must not stop the others
                results.append(CurieResult(atoms, self.settings.method, CurieStatus.FAILED, str(error)))
            if on_finished is not None:
                on_finished(k, results[-1])
        return results

    def _spin_model(self, atoms: Atoms) -> tuple[SpinHamiltonian, Atoms]:
        settings = {name: getattr(self.settings, name) for name in ("magmoms", "cutoff")}
        settings |= {"routes": [self.settings.route], "max_batch_atoms": self.max_batch_atoms}
        (result,) = Exchange(self.model, **settings).run([atoms])
        return result.spin_model(), result.atoms

    def _heisenberg(
        self, atoms: Atoms, spins: SpinHamiltonian, name: str, folder: Path | None, on_sweeps: Callable | None
    ) -> CurieResult:
        mean_field = spins.mean_field_temperature
        if not mean_field > 0:
            raise StructureError(
                "the exchange constants do not favour the order of the moments: no transition."
            )
        networks = [spins.network(size) for size in self.settings.all_sizes]

        def sample(temperatures: Sequence[float], stage: str) -> list[list[Point]]:
            chains = replicas(temperatures, self.settings.seed, self.settings.replicas, name)
            sampler = HeatBath(networks, chains, n_over=self.settings.over_relaxation, device=self.device)
            found = self._sample(sampler, chains, stage, folder, on_sweeps, spins.exchange.tobytes())
            return points(found, chains, sampler.sizes)

        rows = sample(self.temperatures or [f * mean_field for f in AUTO_FRACTIONS], "1")
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
        (point,) = SinglePoint(
            self.model,
            magmoms=self.settings.magmoms,
            collinear=True,
            max_batch_atoms=self.max_batch_atoms,
        ).run([atoms])
        if point.status is not Status.CONVERGED:
            raise StructureError(f"the moments do not relax: {point.message}")
        chains = replicas(
            self.temperatures or AUTO_TEMPERATURES, self.settings.seed, self.settings.replicas, name
        )
        cells = Supercells(self.model, [point.atoms.repeat(size) for size in self.settings.all_sizes], chains)
        sampler: Sampler
        if self.settings.moves == "local":
            sampler = LocalMoves(cells, lengths=self.settings.lengths, n_adapt=self.settings.n_equilibration)
        else:
            sampler = HybridMonteCarlo(
                cells,
                lengths=self.settings.lengths,
                lattice=self.settings.lattice,
                n_steps=self.settings.n_steps,
                n_adapt=self.settings.n_equilibration,
            )
        found = self._sample(sampler, chains, "1", folder, on_sweeps, fingerprint(atoms).encode())
        lengths = np.linalg.norm(get_magmoms(point.atoms)[reference_signs(point.atoms) != 0], axis=1)
        result = self._result(
            atoms, points(found, chains, cells.n_spins), None, 1 + 2 / float(lengths.mean())
        )
        images, each = cells.images(), self.settings.replicas
        result.ordered = point.atoms
        result.ends = [images[k : k + each] for k in range(0, len(images), each)]
        return result

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
        known = self.settings
        kept = CurieSettings.model_fields.keys() - {"quantum", "sweeps"}
        settings = {key: getattr(known, key) for key in kept}
        settings |= {"temperatures": self.temperatures, "sizes": known.all_sizes}
        settings["equilibration"] = known.n_equilibration
        parts = repr((sorted(settings.items()), chains, weights_hash(self.model)))
        identity = hashlib.sha256(parts.encode() + content).hexdigest()[:16]
        return run_blocks(
            sampler,
            self.settings.n_equilibration,
            self.settings.n_sweeps,
            block_sweeps=200 if self.settings.method == "heisenberg" else 5,
            checkpoint=None if folder is None else folder / f"samples-{stage}.npz",
            identity=identity,
            renew=stage != "1",  # whose temperatures follow from those before
            on_block=on_sweeps,
        )

    def _result(
        self, atoms: Atoms, rows: list[list[Point]], mean_field: float | None, quantum_factor: float
    ) -> CurieResult:
        bad = [p for row in rows for p in row if p.status is not CurieStatus.CONVERGED]
        found = estimate(rows, seed=self.settings.seed)
        notes = list(found.notes)
        if bad:
            where = listed([f"{p.temperature:.0f} K ({p.n_spins} spins)" for p in bad], 4)
            notes.append(
                f"not in equilibrium, or too short: {where}; raise --sweeps; the chains go on with "
                f"--resume --equilibration {self.settings.n_equilibration}."
            )
        status = CurieStatus.NOT_EQUILIBRATED if bad else CurieStatus.CONVERGED
        notes += too_short(rows)
        factor = quantum_factor if self.settings.quantum else None
        message = " ".join(notes)
        return CurieResult(
            atoms,
            self.settings.method,
            status,
            message,
            rows,
            found,
            mean_field,
            self.settings.n_sweeps,
            factor,
        )


def too_short(rows: list[list[Point]]) -> list[str]:
    """Which errors are not given, and why.

    Args:
        rows: For each size, points at ascending temperatures.

    Returns:
        One sentence, or none.
    """
    short = [(key, p) for row in rows for p in row for key, value in p.values.items() if not value.is_known]
    if not short:
        return []
    named = ", ".join(sorted({key.replace("_", " ") for key, _ in short}))
    where = ", ".join(sorted({f"{p.temperature:.0f} K" for _, p in short}, key=len)[:4])
    n_points = len({(p.temperature, p.n_spins) for _, p in short})
    points = "point" if n_points == 1 else "points"
    more = ", …" if n_points > 4 else ""
    return [
        f"no error of {named} at {n_points} {points} ({where}{more}): the series are too short for an error bar; "
        "T_C counts it as small as it may be. Raise --sweeps or --replicas."
    ]
