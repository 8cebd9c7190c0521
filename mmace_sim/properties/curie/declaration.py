"""What ``mmace-sim curie`` is: settings, columns, files."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, override

from pydantic import BeforeValidator, Field, model_validator

from mmace_sim.base.settings import Flag, Settings
from mmace_sim.engine.declaration import Column, OutputFile, Property, head
from mmace_sim.engine.settings import NOT_PHYSICS, FigureSettings, GivenOrderSettings, run_settings
from mmace_sim.properties.exchange.declaration import CONVENTION

SAMPLING = "Sampling"
DIRECT = "Direct method"
MAX_TEMPERATURES: int = 10_000

AUTO_SIZES: dict[str, tuple[int, ...]] = {"heisenberg": (6, 8, 12), "direct": (3, 4)}
AUTO_SWEEPS: dict[str, int] = {"heisenberg": 3000, "direct": 300}
AUTO_TEMPERATURES: tuple[int, ...] = tuple(range(100, 1501, 100))
"""Of the direct method; with exchange constants they follow from the mean-field temperature."""

_ONLY_DIRECT = ("lengths", "lattice", "moves", "n_steps")
_ONLY_HEISENBERG = ("over_relaxation", "cutoff")


def _expanded(value: Any) -> Any:
    """``100:1500:100`` includes both ends."""
    text = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(text, str) or ":" not in text:
        return value
    parts = text.split(":")
    if len(parts) != 3:
        raise ValueError("expected FIRST:LAST:STEP")
    first, last, step = map(float, parts)
    if not (step > 0 and last >= first):
        raise ValueError("expected FIRST:LAST:STEP with LAST above FIRST and a positive STEP")
    if (last - first) / step > MAX_TEMPERATURES:
        raise ValueError(f"more than {MAX_TEMPERATURES} temperatures")
    return [first + k * step for k in range(int((last - first) / step + 1e-6) + 1)]


def _either(values: dict[str, Any]) -> str:
    return f"{values['heisenberg']}; direct: {values['direct']}"


class CurieSettings(GivenOrderSettings):
    """Settings of ordering temperatures."""

    method: Annotated[Literal["heisenberg", "direct"], Flag(SAMPLING)] = "heisenberg"
    """**heisenberg**: spins coupled by the exchange constants. **direct**: the energy of the model itself."""
    temperatures: Annotated[
        list[Annotated[float, Field(gt=0)]] | None,
        Flag(SAMPLING, shown="around the transition; direct: 100:1500:100"),
        BeforeValidator(_expanded),
    ] = Field(default=None, min_length=1)
    """K: `100:1500:100` (first, last, step) or `300,600,900`."""
    sizes: Annotated[
        list[Annotated[int, Field(ge=1)]] | None,
        Flag(SAMPLING, shown=_either({k: ",".join(map(str, v)) for k, v in AUTO_SIZES.items()})),
    ] = Field(default=None, min_length=1)
    """Multiples of the cell (heisenberg: of the most cubic block of primitive cells); two or more give the crossing of
    cumulants."""
    sweeps: Annotated[int | None, Flag(SAMPLING, shown=_either(AUTO_SWEEPS))] = Field(default=None, ge=10)
    """Sweeps (direct: trajectories) of each chain that count."""
    equilibration: Annotated[int | None, Flag(SAMPLING, shown="a fifth of the sweeps")] = Field(
        default=None, ge=0
    )
    """Sweeps before."""
    replicas: Annotated[int, Flag(SAMPLING)] = Field(default=1, ge=1)
    """Chains at each temperature."""
    seed: Annotated[int, Flag(SAMPLING)] = Field(default=0, ge=0)
    """Seed of the random numbers."""
    over_relaxation: Annotated[int, Flag(SAMPLING)] = Field(default=3, ge=0)
    """Over-relaxation sweeps after each heat bath."""
    cutoff: Annotated[float, Flag(SAMPLING, unit="Å")] = Field(default=6.0, gt=0)
    """Largest distance of exchange."""
    route: Literal["derivatives", "four-state", "spirals"] = "derivatives"
    """Route of the exchange."""
    quantum: Annotated[bool, Flag(SAMPLING, names=("--quantum",))] = False
    """Give T_C of quantum spins as well: (S+1)/S times that of classical ones, S = |m|/2."""
    lengths: Annotated[Literal["fixed", "variable"], Flag(DIRECT)] = "fixed"
    """Lengths of the moments."""
    lattice: Annotated[Literal["fixed", "moving", "free"], Flag(DIRECT)] = "fixed"
    """**moving**: atoms are sampled too. **free**: the volume too, at zero pressure."""
    moves: Annotated[Literal["hybrid", "local"], Flag(DIRECT)] = "hybrid"
    """**hybrid**: all moments at once by gradients. **local**: Metropolis moves of single moments."""
    n_steps: Annotated[int, Flag(DIRECT)] = Field(default=10, ge=1)
    """Steps of a hybrid move, one gradient each (an odd number counts as the next even one)."""

    @model_validator(mode="after")
    def _local_moves_keep_atoms(self) -> Any:
        if self.moves == "local" and self.lattice != "fixed":
            raise ValueError(
                f"lattice = {self.lattice!r} needs moves = 'hybrid': local moves keep the atoms where they are"
            )
        return self

    @property
    def all_sizes(self) -> list[int]:
        """Sizes in ascending order, each once."""
        return sorted(set(self.sizes or AUTO_SIZES[self.method]))

    @property
    def n_sweeps(self) -> int:
        """Sweeps of each chain that count."""
        return self.sweeps or AUTO_SWEEPS[self.method]

    @property
    def n_equilibration(self) -> int:
        """Sweeps before."""
        return self.n_sweeps // 5 if self.equilibration is None else self.equilibration

    @property
    def n_stages(self) -> int:
        """How often chains begin: once, and again around the transition if temperatures are to be found."""
        return 2 if self.method == "heisenberg" and self.temperatures is None else 1


class CurieRun(Settings):
    """What the command adds."""

    exchange_run: Annotated[
        str | None,
        Flag(SAMPLING, names=("--from",), metavar="DIR|uppasd|vampire", shown="computed"),
    ] = None
    """Exchange of an earlier `mmace-sim exchange`, by the names of the structures. **uppasd**, **vampire**: PATHS are
    folders with the files of that code."""
    max_batch_atoms: int | None = Field(default=None, ge=1)
    """Largest number of atoms computed at once for exchange; chains are one batch."""

    @model_validator(mode="after")
    def _constants_need_spins(self) -> Any:
        if self.exchange_run is not None and self.method == "direct":  # type: ignore[attr-defined]
            raise ValueError(
                f"--from {self.exchange_run} reads exchange constants: it needs --method heisenberg"
            )
        return self

    @override
    def check_given(self, given: frozenset[str]) -> None:
        """Refuse options of the other method, and of exchange that is not computed."""
        method = self.method  # type: ignore[attr-defined]
        idle = _ONLY_HEISENBERG if method == "direct" else _ONLY_DIRECT
        self.refuse_idle(idle, f"with --method {method}", given)
        if self.exchange_run is not None:
            self.refuse_idle(["cutoff"], "with --from", given)


def _with_error(key: str, style: str) -> Callable[[dict[str, Any]], str]:
    """Shows a value, the last one of a list, with its error."""

    def show(row: dict[str, Any]) -> str:
        value = row.get(key) or {}
        value = value[-1] if isinstance(value, list) else value
        if value.get("mean") is None:
            return "–"
        return f"{style.format(value['mean'])} ± {style.format(value['error'])}"

    return show


CURIE = Property(
    name="curie",
    help="""Ordering temperature of every collinear magnet in PATHS by Monte Carlo: M(T), χ, heat capacity, Binder
    cumulant.

    All temperatures and sizes are one batch. T_C by the crossing of cumulants, the peak of the susceptibility and a fit
    of (T_C − T)^β, each with its error. Chains that are not in equilibrium are named (exit code 3). In the folder of
    the run, for each structure: `points.csv`, figures, and `samples-*.npz`, from which `--resume` goes on; beside them
    `summary.json`, `summary.csv`, `config.yaml` and `log.txt`.

    Examples: `mmace-sim curie iron.cif`; `mmace-sim curie iron.cif --from exchange --sizes 8,12,16`;
    `mmace-sim curie Fe3Y/ --from uppasd --quantum`;
    `mmace-sim curie iron.cif --method direct --temperatures 200:1400:200 --lengths variable`.
    """,
    settings=run_settings("curie", CurieSettings, CurieRun, FigureSettings),
    columns=(
        *head("name", "file", "index", "formula"),
        Column(key="method", text="heisenberg or direct", heading="method", left=True),
        Column(key="curie_temperature", text="ordering temperature", unit="K"),
        Column(key="curie_temperature_error", text="its error", unit="K, one standard error"),
        Column(key="estimator", text="what it comes from"),
        Column(
            key="mean_field_temperature", text="mean-field temperature of the exchange constants", unit="K",
            heading="mean field\nK", form="{:.0f}", late=1,
        ),
        Column(
            key="n_spins", text="number of spins",
            unit="number of spins of each size; in summary.csv that of the largest", heading="spins",
        ),
        Column(
            key="binder_crossings", text="crossings of the cumulants of two sizes each", unit="K",
            heading="crossing\nK", show=_with_error("binder_crossings", "{:.0f}"), in_csv=False,
        ),
        Column(
            key="susceptibility_peaks", text="peak of the susceptibility of each size", unit="K",
            heading="χ peak\nK", show=_with_error("susceptibility_peaks", "{:.0f}"), in_csv=False,
        ),
        Column(
            key="power_law", text="T_C of the fit of M0 (1 - T/T_C)^β", unit="K", heading="power law\nK",
            show=_with_error("power_law", "{:.0f}"), in_csv=False,
        ),
        Column(
            key="exponent", text="exponent of the same fit", unit="β of M0 (1 - T/T_C)^β", heading="β",
            show=_with_error("exponent", "{:.2f}"), in_csv=False,
        ),
        *head("status", "message"),
    ),
    quantities=(
        Column(key="convention", text="sign and factor of exchange", unit=CONVENTION),
        Column(key="temperature", text="of a point", unit="K"),
        Column(key="spin", text="what is counted as one",
               unit="an atom with a moment of its own in the given order; only these count, with both methods"),
        Column(key="energy", text="energy", unit="eV per spin (heisenberg: without E0)"),
        Column(key="order", text="order parameter",
               unit="|sum_i s_i e_i|/n, unit vectors, s = +1, -1 of the given order; 0 to 1"),
        Column(key="magnetization", text="magnetization", unit="μB per spin"),
        Column(key="length", text="length of the moments", unit="μB, mean |m| of magnetic atoms (direct)"),
        Column(key="volume", text="volume", unit="Å³ per atom (direct)"),
        Column(key="heat_capacity", text="heat capacity",
               unit="k_B per spin, n var(E/n)/(kT)²: of what is sampled, without kinetic energy"),
        Column(
            key="susceptibility", text="susceptibility",
            unit="1/eV per spin, n var(order)/kT: of unit vectors, connected, of the length of the order",
        ),
        Column(key="binder", text="Binder cumulant",
               unit="U = 1 - <o⁴>/(3 <o²>²); 2/3 in the ordered, 4/9 in the disordered phase"),
        Column(
            key="autocorrelation", text="autocorrelation time",
            unit="sweeps (heisenberg: one heat bath and its over-relaxation; direct: one trajectory or sweep)",
        ),
        Column(key="drift", text="whether a chain is in equilibrium",
               unit="difference of the halves of a chain, standard errors"),
        Column(key="error", text="error of any value", unit="one standard error, same unit"),
        Column(
            key="curie_temperature_quantum", text="ordering temperature of quantum spins",
            unit="K, --quantum: curie_temperature times quantum_factor; all else is of classical spins",
        ),
        Column(
            key="quantum_factor", text="what makes it that",
            unit="(S+1)/S, S = |m|/2; several kinds of spins: the ratio of mean-field temperatures",
        ),
    ),
    files=(
        OutputFile("NAME/points.csv", "observables of each size at each temperature"),
        OutputFile("NAME/order.png, susceptibility.png, heat_capacity.png, binder.png, .svg",
                   "observables against temperature"),
        OutputFile("NAME/samples-1.npz, samples-2.npz", "samples and state after each block of sweeps"),
    ),
    python="""from ase.build import bulk

from mmace_sim.properties.curie import Curie

curie = Curie(method="heisenberg", temperatures=[300.0, 600.0], sizes=[4], sweeps=100, cutoff=3.0)
(result,) = curie.run([bulk("Fe", cubic=True)])
print(result.status, result.mean_field)  # K
""",
    computation="mmace_sim.properties.curie.output:CurieComputation",
    may_differ=NOT_PHYSICS | {"sweeps"},
)  # fmt: skip
"""Ordering temperatures."""
