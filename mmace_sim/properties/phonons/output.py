"""Phonons as a run: phonopy's own files, a figure, the entry of the summary."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, override

import numpy as np
from ase import Atoms, units

from mmace_sim.engine.computation import Computed, Entry, Part
from mmace_sim.engine.declaration import GOOD
from mmace_sim.engine.outcomes import StructureResult
from mmace_sim.engine.output import entry_head, finite_or_none
from mmace_sim.engine.run import Run
from mmace_sim.files import cannot_write, replacing
from mmace_sim.graph.cells import has_volume
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.plots import COLORS, REFERENCE, add_legend, new_figure, save_figure
from mmace_sim.properties.phonons.bands import IMAGINARY_TOL
from mmace_sim.properties.phonons.finite_displacements import PhononResult, Phonons
from mmace_sim.properties.relax.output import output_atoms, summary_entry, write_stored
from mmace_sim.properties.results import known
from mmace_sim.properties.workflow import WorkflowComputation
from mmace_sim.structures.supercells import choose_supercell, parse_supercell
from mmace_sim.units import BOLTZMANN_EV_PER_K

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from phonopy import Phonopy
    from phonopy.phonon.band_structure import BandStructure

_KJ_PER_MOL: float = units.kJ / units.mol
"""phonopy's unit, in eV."""

_J_PER_K_MOL: float = units.J / units.mol / BOLTZMANN_EV_PER_K
"""phonopy's unit, in k_B."""

ROOM_TEMPERATURE: float = 300.0


class PhononsComputation(WorkflowComputation[PhononResult]):
    """Phonons of the structures of a run."""

    verb = "Phonons"
    workflow = Phonons
    keeps = ("crystals", StructureResult)

    @override
    def evaluations(self, item: LoadedStructure) -> int:
        if self.settings.supercell is not None:
            growth = float(np.linalg.det(parse_supercell(self.settings.supercell)))
        elif has_volume(item.atoms):
            growth = float(np.linalg.det(choose_supercell(item.atoms.cell.array, self.settings.min_length)))
        else:
            return 1
        n_cells = 1 + len(item.atoms)  # symmetry leaves about one displacement of each atom
        return round(growth * n_cells * self._steps) + (100 if self.settings.relax else 1)

    @property
    def _steps(self) -> int:
        """Of the moments of a displaced cell."""
        return 30 if self.settings.magmoms == "relaxed" else 1

    @override
    def rounds(self, item: LoadedStructure) -> int:
        return self._steps + (100 if self.settings.relax else 1)

    @override
    def entry(self, item: LoadedStructure, result: PhononResult) -> Entry:
        if result.path is None:
            return entry_head(item, str(result.status), result.message)
        entry = summary_entry(item, result.crystal) | {
            "status": str(result.status),
            "message": result.message,
        }
        entry["notes"] = entry["notes"] + result.notes
        phonon = result.phonon
        special = phonon.run_qpoints(list(result.path.points.values())).frequencies
        along = np.concatenate([frequencies.ravel() for frequencies in phonon.band_structure.frequencies])
        mesh = phonon.mesh.frequencies
        return entry | {
            "supercell": phonon.supercell_matrix.tolist(),
            "n_atoms_primitive": len(phonon.primitive),
            "n_atoms_supercell": len(phonon.supercell),
            "n_displacements": len(phonon.supercells_with_displacements),
            "stable": not result.imaginary,
            "min_frequency": float(min(along.min(), mesh.min())),
            "max_frequency": float(max(along.max(), mesh.max())),
            "frequencies": dict(zip(result.path.points, special.tolist(), strict=True)),
            "imaginary_modes": [vars(mode) | {"q": list(mode.q)} for mode in result.imaginary],
            "shift_by_moments": result.largest_shift,
            **_thermal(phonon),
        }

    @override
    def finish(self, item: LoadedStructure, result: PhononResult, part: Part) -> tuple[Entry, Atoms | None]:
        if result.path is None:
            return self.entry(item, result), None
        self._write(part.folders[item.name], result)
        return self.entry(item, result), output_atoms(item, result.crystal)

    @override
    def is_good(self, row: Entry) -> bool:
        return row["status"] in GOOD and bool(row.get("stable"))

    @override
    def write(self, run: Run, entries: list[Entry], computed: Computed[PhononResult]) -> list[str]:
        return [*write_stored(run, entries), "NAME/band.yaml, ..."]

    def _write(self, folder: Path, result: PhononResult) -> None:
        """Write everything about one crystal into its folder."""
        from phonopy.file_IO import write_FORCE_CONSTANTS, write_FORCE_SETS

        phonon = result.phonon
        writers: dict[str, Callable[[Path], Any]] = {
            "phonopy_params.yaml": phonon.save,
            "band.yaml": lambda path: phonon.write_yaml_band_structure(filename=path),
            "total_dos.dat": phonon.write_total_dos,
            "thermal_properties.yaml": phonon.write_yaml_thermal_properties,
        }
        if "force_sets" in self.settings.write:
            writers["FORCE_SETS"] = lambda path: write_FORCE_SETS(phonon.dataset, path)
        if "force_constants" in self.settings.write:
            writers["FORCE_CONSTANTS"] = lambda path: write_FORCE_CONSTANTS(phonon.force_constants, path)
        try:
            folder.mkdir(exist_ok=True)
            for name, write in writers.items():
                with replacing(folder / name) as temporary:
                    write(temporary)
        except OSError as error:
            raise cannot_write(folder, error) from error
        if self.settings.figures:
            save_figure(_figure(result), folder / "bands")


def _figure(result: PhononResult) -> "Figure":
    """Bands beside the density of states; frozen moments are drawn too if both are there."""
    figure, axes = new_figure("page", aspect=0.45)
    bands, dos = result.phonon.band_structure, result.phonon.total_dos
    if result.frozen_frequencies is not None:
        draw_bands(
            axes, bands, result.frozen_frequencies, color=COLORS[1], style="--", label="frozen moments"
        )
    label = "relaxed moments" if result.frozen_frequencies is not None else "fixed moments"
    draw_bands(axes, bands, bands.frequencies, color=COLORS[0], label=label)
    mark_path(axes, bands)
    axes.set_ylabel("frequency (THz)")
    add_legend(axes)
    side = axes.inset_axes((1.02, 0.0, 0.22, 1.0), sharey=axes)
    side.plot(dos.dos, dos.frequency_points, color=COLORS[0], linewidth=1.0)
    side.fill_betweenx(dos.frequency_points, dos.dos, color=COLORS[4], linewidth=0.0)
    side.axhline(0.0, color=REFERENCE, linewidth=0.6)
    side.set_xlim(left=0.0)
    side.locator_params(axis="x", nbins=2, prune="lower")
    drawn = np.concatenate(
        [values.ravel() for values in bands.frequencies + (result.frozen_frequencies or [])]
    )
    axes.set_ylim(1.05 * drawn.min() if drawn.min() < -IMAGINARY_TOL else 0.0, 1.05 * drawn.max())
    side.set_xlabel("states per THz\nand primitive cell", fontsize=8)
    side.tick_params(labelsize=7, labelleft=False)
    return figure


def draw_bands(
    axes: "Axes",
    bands: "BandStructure",
    frequencies: list[np.ndarray],
    *,
    color: str,
    style: str = "-",
    label: str = "",
) -> None:
    """Draw the branches along a path.

    Args:
        axes: Where to draw.
        bands: phonopy's ``BandStructure``, for the distances along the path.
        frequencies: Frequencies of each segment, in THz.
        color: Colour of all branches.
        style: Line style.
        label: Name in the legend.
    """
    for x, values in zip(bands.distances, frequencies, strict=True):
        lines = axes.plot(x, values, color=color, linestyle=style, linewidth=1.0)
        lines[0].set_label(label)
        label = ""  # one entry is enough


def mark_path(axes: "Axes", bands: "BandStructure") -> None:
    """Name the ends of the segments and draw a line at each, and one at zero.

    Args:
        axes: Where bands are drawn.
        bands: phonopy's ``BandStructure`` with labels.
    """
    names = list(known(bands.labels))
    ticks: dict[float, list[str]] = {}
    for x, goes_on in zip(bands.distances, bands.path_connections, strict=True):
        ticks.setdefault(float(x[0]), []).append(names.pop(0))
        if not goes_on:
            ticks.setdefault(float(x[-1]), []).append(names.pop(0))
    for position in ticks:
        axes.axvline(position, color=REFERENCE, linewidth=0.6)
    axes.axhline(0.0, color=REFERENCE, linewidth=0.6)
    axes.set_xticks(list(ticks), ["|".join(dict.fromkeys(here)) for here in ticks.values()])
    axes.set_xlim(min(ticks), max(ticks))


def _thermal(phonon: "Phonopy") -> dict[str, float | None]:
    """Zero-point energy, and the thermal properties at 300 K if they were asked for."""
    thermal, n_atoms = known(phonon.thermal_properties), len(phonon.primitive)

    def at_room(values: np.ndarray | None, unit: float) -> float | None:
        value = np.interp(
            ROOM_TEMPERATURE, known(thermal.temperatures), known(values), left=np.nan, right=np.nan
        )
        return finite_or_none(value * unit / n_atoms)

    return {
        "zero_point_energy": float(known(thermal.zero_point_energy)) * _KJ_PER_MOL / n_atoms,
        "free_energy_300K": at_room(thermal.free_energy, _KJ_PER_MOL),
        "entropy_300K": at_room(thermal.entropy, _J_PER_K_MOL),
        "heat_capacity_300K": at_room(thermal.heat_capacity, _J_PER_K_MOL),
    }
