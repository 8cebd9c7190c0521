"""What ``mmace-sim exchange`` is: settings, columns, files."""

from typing import Annotated, Any, Literal

from pydantic import Field

from mmace_sim.base.settings import Flag
from mmace_sim.engine.declaration import Column, OutputFile, Property, fixed, head
from mmace_sim.engine.settings import (
    FigureSettings,
    GivenOrderSettings,
    MagforceTol,
    MaxSteps,
    run_settings,
)

PANEL = "Exchange"
MAX_SHELLS = 8
"""Shells of each structure that are shown on the terminal."""

CONVENTION = (
    "E = E0 - sum_{i<j} [J' e_i.e_j + D.(e_i x e_j) + e_i.G.e_j] + sum_i e_i.A_i.e_i, each pair once, unit vectors, "
    "J' > 0 ferromagnetic"
    " (LKAG/TB2J: J = J'/2)"
)
"""Sign, factor and normalisation of every exchange constant, as each output file states it."""

ROUTE_COLUMNS: dict[str, str] = {
    "derivatives": "J_derivatives",
    "four-state": "J_four_state",
    "spirals": "J_spirals",
}
"""Key of J' by each route."""


class ExchangeSettings(GivenOrderSettings):
    """Settings of exchange constants."""

    cutoff: Annotated[float, Flag(PANEL, unit="Å")] = Field(default=6.0, gt=0)
    """Largest distance of a pair."""
    routes: Annotated[list[Literal["derivatives", "four-state", "spirals"]], Flag(PANEL)] = Field(
        default=["derivatives", "four-state", "spirals"], min_length=1
    )
    """Separated by commas. **derivatives**: second derivatives of the energy. **four-state**: energies of tilted pairs.
    **spirals**: E(q), isotropic exchange only. The first gives magnons and exports."""
    angle: Annotated[float, Flag(PANEL, unit="degrees")] = Field(default=10.0, gt=0, le=90)
    """Tilt of four states and spirals (90: how far from a Heisenberg model?)."""
    lengths: Annotated[Literal["rigid", "relaxed"], Flag(PANEL)] = "rigid"
    """Lengths of the moments while they turn."""
    symmetrize: bool = True
    """Average tensors over the symmetry of the crystal."""
    supercell: Annotated[list[int] | None, Field(min_length=3, max_length=3)] = None
    """Three multiples of the vectors of the magnetic primitive cell, instead of the smallest that will do."""
    magforce_tol: MagforceTol = 1e-5
    """Largest magnetic force −∂E/∂m of relaxed moments."""
    max_steps: MaxSteps = 500
    """Largest number of steps of the moments."""


def _of_shells(key: str, form: str) -> Any:
    """Shows a quantity of the first shells, one below the other."""

    def show(row: dict[str, Any]) -> str:
        shells = row.get("shells", [])[:MAX_SHELLS]
        return "\n".join(fixed(shell.get(key), form) for shell in shells) or "–"

    return show


def _pairs(row: dict[str, Any]) -> str:
    return "\n".join(f"{s['first']}–{s['second']}" for s in row.get("shells", [])[:MAX_SHELLS])


def _spread(row: dict[str, Any]) -> str:
    return fixed(row.get("symmetry_spread"), "{:.2g}") + (" !" if row.get("breaks_symmetry") else "")


EXCHANGE = Property(
    name="exchange",
    help="""Exchange constants of every collinear magnet in PATHS, by up to three routes, and what follows from them.

    J', DMI and anisotropic exchange for E = E₀ − Σ over pairs of J' e·e, unit vectors, J' > 0 ferromagnetic; magnons,
    spin stiffness, mean-field ordering temperature. In the folder of the run, for each structure: `shells.csv`,
    `pairs.csv`, `magnons.csv`, figures, and input for VAMPIRE, UppASD and Spirit and TB2J's listing; beside them
    `summary.json`, `summary.csv`, `config.yaml` and `log.txt`.

    Examples: `mmace-sim exchange iron.cif`; `mmace-sim exchange folder/ --cutoff 5 --routes derivatives`.
    """,
    settings=run_settings("exchange", ExchangeSettings, FigureSettings),
    columns=(
        *head("name", "file", "index", "formula"),
        Column(key="shells", text="sets of equivalent pairs", heading="pair", show=_pairs, left=True, in_csv=False),
        Column(
            key="distance", text="of the pair", unit="Å", heading="r\nÅ", show=_of_shells("distance", "{:.3f}"),
            in_csv=False,
        ),
        Column(
            key="n_neighbors", text="how many such pairs an atom has", heading="n",
            show=_of_shells("n_neighbors", "{}"), in_csv=False,
        ),
        *(
            Column(
                key=key, text=f"J' by the route {route}", unit="meV per pair", heading=f"J' (meV)\n{route}",
                show=_of_shells(key, "{:.3f}"), in_csv=False,
            )
            for route, key in ROUTE_COLUMNS.items()
        ),
        Column(key="magnetic_order", text="FM, AFM or ferri"),
        Column(key="moment", text="mean length of the moments", unit="μB, mean length of the magnetic atoms"),
        Column(
            key="exchange_sum", text="exchange of a magnetic atom with all others",
            unit="meV per magnetic atom: sum_j s_i s_j J'_ij, each pair from both ends",
        ),
        Column(
            key="stiffness", text="spin stiffness of a ferromagnet",
            unit="meV Å², D of ħω = D q², mean over the directions that the exchange couples in",
            heading="D\nmeV Å²", form="{:.0f}",
        ),
        Column(
            key="mean_field_temperature", text="mean-field ordering temperature",
            unit="K, classical spins: k T = (1/3) sum_j J'_0j", heading="mean-field T\nK", form="{:.0f}",
        ),
        Column(key="difference_of_routes", text="largest difference of J' by two routes", unit="meV, largest"),
        Column(
            key="symmetry_spread", text="what averaging over symmetry has changed",
            unit="meV, largest change by averaging over symmetry", heading="symmetry\nspread meV", show=_spread,
        ),
        *head("status", "message"),
    ),
    quantities=(
        Column(key="convention", text="sign, factor and normalisation of all constants", unit=CONVENTION),
        Column(key="exchange", text="J'", unit=f"J', meV per pair: {CONVENTION}"),
        Column(key="dmi", text="length of the Dzyaloshinskii–Moriya vector",
               unit="|D|, meV per pair, same convention"),
        Column(key="anisotropic", text="symmetric anisotropic exchange",
               unit="largest |G|, meV per pair, same convention"),
        Column(
            key="stiffness_tensor", text="spin stiffness as a tensor",
            unit="meV Å², D of ħω = q.D.q, Cartesian; 0 across layers and chains",
        ),
        Column(
            key="stiffness_dimensions", text="dimensions of the stiffness",
            unit="dimensions that the exchange couples in: 3 crystal, 2 layers, 1 chains",
        ),
        Column(
            key="single_ion", text="anisotropy of each site itself",
            unit="meV, second derivatives of each site's own anisotropy perpendicular to its moment",
        ),
        Column(
            key="anisotropy", text="the same as a tensor",
            unit="meV, symmetric traceless A of each site: E = sum_i e_i.A_i.e_i",
        ),
        Column(
            key="anisotropy_error", text="what the tensor does not give",
            unit="meV, largest part of the second derivatives that A does not give (higher orders)",
        ),
        Column(key="sum_rule_error", text="error of the sum rule",
               unit="meV; 0 where turning all moments costs nothing"),
        Column(key="beyond_cutoff", text="what the cutoff leaves out",
               unit="meV, largest |J'| of the supercell beyond the cutoff"),
        Column(key="breaks_symmetry", text="whether the energy has not the symmetry of the structure",
               unit="whether that is more than 5 % of the largest J'"),
    ),
    files=(
        OutputFile("NAME/shells.csv", "one line for each set of equivalent pairs, with J' by each route"),
        OutputFile("NAME/pairs.csv", "every pair with its tensor"),
        OutputFile("NAME/magnons.csv", "magnon energies along the path through the Brillouin zone"),
        OutputFile("NAME/exchange.png, .svg", "J' against distance"),
        OutputFile("NAME/magnons.png, .svg", "magnons"),
        OutputFile("NAME/vampire/, NAME/uppasd/, NAME/spirit/", "input of spin-dynamics codes"),
        OutputFile("NAME/tb2j/exchange.out", "TB2J's listing"),
    ),
    python="""from ase.build import bulk

from mmace_sim.properties.exchange import Exchange

(result,) = Exchange(cutoff=3.0, routes=["derivatives"]).run([bulk("Fe", cubic=True)])
print(1000 * result.isotropic("derivatives"))  # J' of each pair, meV
""",
    computation="mmace_sim.properties.exchange.output:ExchangeComputation",
)  # fmt: skip
"""Exchange constants."""
