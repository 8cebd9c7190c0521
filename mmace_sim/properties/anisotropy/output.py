"""Anisotropy as a run: entries of the summary, energies by direction, ranking, figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, override

import numpy as np
from ase import Atoms

from mmace_sim.engine.computation import Computed, Entry, Part, Told
from mmace_sim.engine.output import entry_head, finite_or_none, write_csv
from mmace_sim.engine.run import Run
from mmace_sim.graph.atoms import bare_copy
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.model.interface import Potential
from mmace_sim.properties.anisotropy.declaration import CONVENTION
from mmace_sim.properties.anisotropy.energies import Anisotropy, AnisotropyResult
from mmace_sim.properties.anisotropy.host import spin_orbit_host
from mmace_sim.properties.anisotropy.plots import FIGURES, ranking_figure, sensitivity_figure
from mmace_sim.properties.anisotropy.sensitivity import Sensitivity, SensitivityResult
from mmace_sim.properties.anisotropy.symmetry import crystal_direction
from mmace_sim.properties.results import known
from mmace_sim.properties.workflow import WorkflowComputation
from mmace_sim.properties.written import Figures, save_figures, some_folders
from mmace_sim.structures.magnetic_order import classify_order
from mmace_sim.units import EV_PER_A3_IN_GPA


class _Turning(WorkflowComputation[Any]):
    """What computes all structures of a part at once and ranks them."""

    ranked_by: ClassVar[str]

    @override
    def admit(self, model: Potential) -> None:
        spin_orbit_host(model, None)

    @override
    def table(self, entries: Sequence[Entry]) -> list[Entry]:
        return ranked(entries, self.ranked_by)

    def _ranking(
        self, run: Run, entries: Sequence[Entry], name: str, figure: Figures, least: int
    ) -> list[str]:
        """Draw all structures into one figure, if there are so many at least; the name of the file."""
        rows = ranked(entries, self.ranked_by)
        if not self.settings.figures or sum("rank" in row for row in rows) < least:
            return []
        (run.folder / "figures").mkdir(exist_ok=True)
        save_figures(rows, run.folder / "figures" / name, figure)
        return [f"figures/{name}.png"]


class AnisotropyComputation(_Turning):
    """Anisotropy of the structures of a run."""

    verb = "Turning"
    workflow = Anisotropy
    ranked_by = "mae"

    @override
    def evaluations(self, item: LoadedStructure) -> int:
        rest, steps = self._steps
        return rest + steps * (self.settings.directions + 3 * self.settings.curve_points + 3)

    @property
    def _steps(self) -> tuple[int, int]:
        """Of the moments, at rest and for each direction."""
        rest = 20 if self.settings.magmoms == "relaxed" else 0
        return rest, 20 if self.settings.lengths == "relaxed" else 1

    @override
    def rounds(self, item: LoadedStructure) -> int:
        return sum(self._steps)

    @override
    def finish(
        self, item: LoadedStructure, result: AnisotropyResult, part: Part
    ) -> tuple[Entry, Atoms | None]:
        _write(result, part.folders[item.name], figures=self.settings.figures)
        return self.entry(item, result), None

    @override
    def entry(self, item: LoadedStructure, result: AnisotropyResult) -> Entry:
        head = entry_head(item, str(result.status), result.message)
        if result.surface is None:
            return head
        atoms, symmetry, constants = result.atoms, known(result.symmetry), result.constants
        easy, hard = known(result.easy), known(result.hard)
        magmoms = atoms.arrays["initial_magmoms"]

        def small(energy: float | None) -> float | None:
            return _micro_ev_per_atom(energy, atoms)

        values, axes = np.linalg.eigh(result.surface.tensor())
        entry: dict[str, Any] = head | {
            "convention": CONVENTION,
            "magnetic_order": str(classify_order(magmoms)),
            "moment": _mean_length(magmoms),
            "symmetry": symmetry.system,
            "form": "general" if constants is None else constants.form,
            "n_directions": len(known(result.directions)),
        }
        for name, energy in (*((name, result.k(name)) for name in ("K1", "K2", "K3")), ("mae", result.mae)):
            entry[name] = small(energy)
            entry[f"{name}_mev_fu"] = milli_ev_per_formula(energy, atoms)
            entry[f"{name}_mj_m3"] = megajoule_per_m3(energy, atoms)
        return entry | {
            "easy": None if constants is None else constants.easy,
            "cone_angle": None if constants is None else constants.cone_angle,
            "easy_axis": easy.tolist(),
            "easy_crystal": crystal_direction(easy, symmetry.lattice),
            "hard_axis": hard.tolist(),
            "hard_crystal": crystal_direction(hard, symmetry.lattice),
            "constants": _constant_rows(result),
            "constants_order": None if constants is None else constants.order,
            "fit_residual": small(result.surface.residual if constants is None else constants.residual),
            "curve_error": small(result.curve_error),
            "time_reversal_error": small(result.time_reversal_error),
            "convergence": [
                {"n_directions": n, "K1": small(k1), "K2": small(k2), "mae": small(mae)}
                for n, k1, k2, mae in result.convergence
            ],
            "principal_values": [small(value) for value in values],
            "principal_axes": axes.T.tolist(),
            "tensor": (1e6 * result.surface.tensor() / len(atoms)).tolist(),
            "harmonics": [
                {"l": ell, "m": m, "coefficient": small(value)}
                for (ell, m), value in zip(
                    result.surface.degrees, result.surface.coefficients.tolist(), strict=True
                )
                if ell > 0
            ],
            "reference_axis": known(result.axis).tolist(),
            "frame": symmetry.frame.tolist(),
        }

    @override
    def stands_for(self, entry: Entry, result: AnisotropyResult) -> Told:
        """The structure that was turned: its surroundings are the same in every direction."""
        if result.symmetry is None:
            return []
        return [(entry, [bare_copy(result.atoms)])]

    @override
    def write(self, run: Run, entries: list[Entry], computed: Computed[Any]) -> list[str]:
        return [*some_folders(run), *self._ranking(run, entries, "ranking", {"": ranking_figure}, 2)]


class SensitivityComputation(_Turning):
    """Map of the structures of a run."""

    verb = "Rotating"
    workflow = Sensitivity
    ranked_by = "sensitivity"

    @override
    def evaluations(self, item: LoadedStructure) -> int:
        return 1 + self.settings.rotations

    @override
    def rounds(self, item: LoadedStructure) -> int:
        return 1

    @override
    def entry(self, item: LoadedStructure, result: SensitivityResult) -> Entry:
        head = entry_head(item, str(result.status), result.message)
        if result.changes is None:
            return head
        atoms, magmoms = result.atoms, result.atoms.arrays["initial_magmoms"]
        return head | {
            "group": str(atoms.info.get("config_type", ""))
            or atoms.symbols.formula.reduce()[0].format("metal"),
            "magnetic_order": str(classify_order(magmoms)),
            "moment": _mean_length(magmoms),
            "sensitivity": 1e6 * known(result.value),
            "spread": 1e6 * known(result.spread),
            "largest": _micro_ev_per_atom(float(np.abs(result.changes).max()), atoms),
        }

    @override
    def write(self, run: Run, entries: list[Entry], computed: Computed[Any]) -> list[str]:
        return self._ranking(run, entries, "sensitivity", {"": sensitivity_figure}, 1)


def _micro_ev_per_atom(energy: float | None, atoms: Atoms) -> float | None:
    """An energy per cell (eV) in μeV/atom."""
    return finite_or_none(energy, 1e6 / len(atoms))


def milli_ev_per_formula(energy: float | None, atoms: Atoms) -> float | None:
    """An energy per cell in meV per formula unit, such as NiO of Ni16O16.

    Args:
        energy: In eV per cell, or None.
        atoms: The cell.
    """
    return finite_or_none(energy, 1e3 / atoms.symbols.formula.reduce()[1])


def megajoule_per_m3(energy: float | None, atoms: Atoms) -> float | None:
    """An energy per cell in MJ/m³ (1 eV/Å³ = 160217.66 MJ/m³); None for what is no crystal.

    Args:
        energy: In eV per cell, or None.
        atoms: The cell.
    """
    return finite_or_none(energy, 1e3 * EV_PER_A3_IN_GPA / atoms.get_volume()) if atoms.pbc.all() else None


def _constant_rows(result: AnisotropyResult) -> list[Entry]:
    """Constants besides K0, which is the total energy."""
    if result.constants is None:
        return []
    found = result.constants
    return [
        {
            "name": name,
            "function": found.functions[name],
            "value": _micro_ev_per_atom(value, result.atoms),
            "error": _micro_ev_per_atom(found.errors[name], result.atoms),
        }
        for name, value in found.values.items()
        if name != "K0"
    ]


def _mean_length(magmoms: np.ndarray) -> float:
    """Mean length of moments that are not tiny, in μB."""
    lengths = np.linalg.norm(magmoms, axis=1)
    return float(lengths[lengths >= 0.1 * lengths.max()].mean())


def ranked(entries: Sequence[Entry], key: str) -> list[Entry]:
    """Entries by decreasing size of a quantity, with their rank; those without it last and without rank.

    Those of one model after those of another: their numbers are never compared.

    Args:
        entries: Entries of the summary.
        key: The quantity.
    """
    models = dict.fromkeys(entry.get("model") for entry in entries)
    rows = []
    for model in models:
        mine = [e for e in entries if e.get("model") == model and e.get(key) is not None]
        mine.sort(key=lambda entry: -abs(entry[key]))
        rows += [{"rank": k + 1} | entry for k, entry in enumerate(mine)]
    return rows + [entry for entry in entries if entry.get(key) is None]


def _write(result: AnisotropyResult, folder: Path, *, figures: bool) -> None:
    """Energies by direction and figures of one structure; nothing if it failed."""
    if result.surface is None:
        return
    folder.mkdir(exist_ok=True)
    computed, at = known(result.energies), known(result.directions)
    frame, base = known(result.symmetry).frame, float(computed.min())
    blocks = [("fit", at, computed, result.surface(at))]
    for curve in result.curves:
        directions = curve.directions()
        blocks.append(("plane", directions, curve.energies, result.surface(directions)))
    rows = []
    for kind, directions, energies, fitted in blocks:
        inside = directions @ frame.T
        theta = np.degrees(np.arccos(np.clip(inside[:, 2], -1, 1)))
        phi = np.degrees(np.arctan2(inside[:, 1], inside[:, 0]))
        for k, direction in enumerate(directions):
            row = dict(zip(("x", "y", "z"), direction.tolist(), strict=True))
            row |= {"theta": float(theta[k]), "phi": float(phi[k]), "used_for": kind}
            row |= {"energy": _micro_ev_per_atom(float(energies[k]) - base, result.atoms)}
            row |= {"harmonics": _micro_ev_per_atom(float(fitted[k]) - base, result.atoms)}
            rows.append(row | {"unit": "μeV/atom, degrees", "convention": CONVENTION})
    write_csv(folder / "directions.csv", tuple(rows[0]), rows)
    if figures:
        save_figures(result, f"{folder}/", FIGURES)
