"""Pictures of structures with their moments as SVG: atoms, cell edges, one arrow for each moment, a legend."""

import colorsys
import html
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from jaxtyping import Float, Int

from mmace_sim.graph.atoms import get_magmoms, has_magmoms
from mmace_sim.plots import COLORS
from mmace_sim.structures.magnetic_order import MOMENT_TOL, MagneticOrder, classify_order

MAX_ATOMS: int = 300
"""Larger structures are not drawn: one would see nothing, and the file would be large."""

WIDTH, MAX_HEIGHT, MARGIN, LEGEND_LINE = 320.0, 300.0, 10.0, 21.0
"""Sizes in pixels: of the picture, of its border, of a line of the legend."""

_AZIMUTH, _ELEVATION = np.radians(-20.0), np.radians(14.0)
_RIGHT = np.array([np.cos(_AZIMUTH), np.sin(_AZIMUTH), 0.0])
_TOWARD = np.array(
    [np.sin(-_AZIMUTH) * np.cos(_ELEVATION), -np.cos(_AZIMUTH) * np.cos(_ELEVATION), np.sin(_ELEVATION)]
)
_TOWARD -= (_TOWARD @ _RIGHT) * _RIGHT
_TOWARD /= np.linalg.norm(_TOWARD)
VIEW: Float[np.ndarray, "3 3"] = np.stack([_RIGHT, np.cross(_TOWARD, _RIGHT), _TOWARD])
"""Directions to the right, up and towards the viewer, as rows: z is up, x to the right and y into the picture."""

_EDGES = [
    (corner, corner + step)
    for step in np.eye(3)
    for corner in np.array(list(np.ndindex(2, 2, 2)), dtype=float)
    if corner @ step == 0
]
"""Edges of a cell in fractional coordinates."""


@dataclass
class _Drawn:
    """What is drawn: atoms and their images on the faces of the cell."""

    points: Float[np.ndarray, "n 3"]
    numbers: Int[np.ndarray, " n"]
    magmoms: Float[np.ndarray, "n 3"]
    edges: Float[np.ndarray, "n_edges 2 3"]

    @property
    def spacing(self) -> float:
        """Smallest distance between atoms, in Å."""
        distances = np.linalg.norm(self.points[:, None] - self.points[None], axis=-1)
        apart = distances[distances > 0.3]
        return float(apart.min()) if len(apart) else 2.5


def structure_svg(atoms: Atoms, title: str) -> str | None:
    """Draw a structure in parallel projection.

    Collinear moments have one colour for each sign, other moments the colour of their direction within the plane that
    holds most of them. Atoms on the faces of a periodic cell are drawn on every face.

    Args:
        atoms: Structure, with or without moments.
        title: What the picture shows, for those who cannot see it; any text.

    Returns:
        An ``<svg>`` element that needs nothing else, or None if there are more than `MAX_ATOMS` atoms or a coordinate
        is not finite.
    """
    magmoms = get_magmoms(atoms) if has_magmoms(atoms) else np.zeros((len(atoms), 3))
    finite = all(np.isfinite(array).all() for array in (atoms.positions, atoms.cell.array, magmoms))
    if not finite or not 0 < len(atoms) <= MAX_ATOMS:
        return None
    drawn = _with_images(atoms, magmoms)
    shades = _direction_colors(magmoms, drawn.magmoms)
    arrow = 0.95 * drawn.spacing / max(np.linalg.norm(magmoms, axis=1).max(), MOMENT_TOL)
    extent = np.concatenate([drawn.points, drawn.edges.reshape(-1, 3)]) @ VIEW.T
    border = 0.55 * drawn.spacing
    low, high = extent[:, :2].min(axis=0) - border, extent[:, :2].max(axis=0) + border
    scale = min((WIDTH - 2 * MARGIN) / (high - low)[0], (MAX_HEIGHT - 2 * MARGIN) / (high - low)[1])
    height = scale * (high - low)[1] + 2 * MARGIN
    left = 0.5 * (WIDTH - scale * (high - low)[0])

    def pixels(points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 2"]:
        seen = points @ VIEW.T
        return np.stack(
            [left + scale * (seen[..., 0] - low[0]), height - MARGIN - scale * (seen[..., 1] - low[1])],
            axis=-1,
        )

    depth = drawn.points @ VIEW[2]
    fog = 0.5 * (depth.max() - depth) / max(np.ptp(depth), 1e-9)
    parts = [_line(pixels(edge), "#8a8f98", 1.0) for edge in drawn.edges]
    for k in np.argsort(depth):
        number, vector = int(drawn.numbers[k]), arrow * drawn.magmoms[k]
        radius = scale * drawn.spacing * 0.17 * (covalent_radii[number] / 1.3) ** 0.5
        parts.append(_atom(pixels(drawn.points[k]), radius, _element_color(number), fog[k]))
        if np.linalg.norm(drawn.magmoms[k]) > MOMENT_TOL:
            ends = pixels(np.stack([drawn.points[k] - vector / 2, drawn.points[k] + vector / 2]))
            parts.append(
                _arrow(
                    ends, _mixed(shades[k], fog[k]), scale * drawn.spacing, toward=bool(vector @ VIEW[2] > 0)
                )
            )
    legend, total = _legend(atoms.numbers, magmoms, height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {WIDTH:.0f} {total:.0f}" '
        f'aria-label="{html.escape(title)}" font-family="sans-serif" font-size="14">'
        f"<title>{html.escape(title)}</title>{''.join(parts)}{legend}</svg>"
    )


def _element_color(number: int) -> str:
    """Light colour of an element, that arrows stand out from."""
    return _mixed(_hex(jmol_colors[number]), 0.35)


def _direction_colors(
    magmoms: Float[np.ndarray, "n_atoms 3"], vectors: Float[np.ndarray, "n 3"]
) -> list[str]:
    """Colours of directions; all moments of the structure decide between two colours and a circle of them."""
    first, second = _plane(magmoms)
    if _collinear(magmoms):
        return [COLORS[1] if vector @ first >= 0 else COLORS[0] for vector in vectors]
    angles = np.arctan2(vectors @ second, vectors @ first)
    return [_hex(colorsys.hls_to_rgb((angle / (2 * np.pi)) % 1.0, 0.4, 0.7)) for angle in angles]


def _collinear(magmoms: Float[np.ndarray, "n_atoms 3"]) -> bool:
    return classify_order(magmoms) is not MagneticOrder.NON_COLLINEAR


def _plane(magmoms: Float[np.ndarray, "n_atoms 3"]) -> tuple[np.ndarray, np.ndarray]:
    """The axis that most moments follow, its largest component positive, and the next one."""
    axes = np.linalg.eigh(magmoms.T @ magmoms + np.diag([0.0, 0.0, 1e-12]))[1][:, ::-1].T
    return tuple(axis * np.sign(axis[np.argmax(np.abs(axis))]) for axis in axes[:2])


def _with_images(atoms: Atoms, magmoms: Float[np.ndarray, "n_atoms 3"]) -> _Drawn:
    if atoms.cell.rank < 3:
        return _Drawn(atoms.positions, atoms.numbers, magmoms, np.zeros((0, 2, 3)))
    fractional = atoms.get_scaled_positions(wrap=False)
    fractional = np.where(atoms.pbc, (fractional + 1e-3) % 1.0 - 1e-3, fractional)
    points, source = [], []
    for k, point in enumerate(fractional):
        on_face = atoms.pbc & (np.abs(point) < 2e-3)
        for shift in np.ndindex(*(1 + on_face)):
            points.append((point + shift) @ atoms.cell.array)
            source.append(k)
    edges = np.array(_EDGES) @ atoms.cell.array
    return _Drawn(np.array(points), atoms.numbers[source], magmoms[source], edges)


def _legend(
    numbers: Int[np.ndarray, " n_atoms"], magmoms: Float[np.ndarray, "n_atoms 3"], top: float
) -> tuple[str, float]:
    """Elements, colours of the moments and the length of the longest; and where the picture ends."""
    parts, x, y = [], MARGIN + 6, top + LEGEND_LINE / 2
    for number in dict.fromkeys(numbers.tolist()):
        parts += [
            _atom(np.array([x, y]), 6.0, _element_color(number), 0.0),
            _text(x + 11, y, chemical_symbols[number]),
        ]
        x += 48
        if x > WIDTH - 48:
            x, y = MARGIN + 6, y + LEGEND_LINE
    y += LEGEND_LINE
    longest = float(np.linalg.norm(magmoms, axis=1).max())
    if longest <= MOMENT_TOL:
        return "".join([*parts, _text(MARGIN, y, "no moments")]), y + LEGEND_LINE
    first, second = _plane(magmoms)
    collinear = _collinear(magmoms)
    angles = [0.0, np.pi] if collinear else np.linspace(0, 2 * np.pi, 12, endpoint=False)
    directions = np.array([np.cos(a) * first + np.sin(a) * second for a in angles])
    shown = [v for v in directions if not collinear or (magmoms @ v).max() > MOMENT_TOL]
    for k, (vector, color) in enumerate(zip(shown, _direction_colors(magmoms, np.array(shown)), strict=True)):
        if collinear:
            x = MARGIN + 150.0 * k
            ends = np.array([[x, y], [x + 20, y]])
            parts += [_arrow(ends, color, 40.0, toward=True), _text(x + 25, y, f"along {_direction(vector)}")]
        else:
            parts.append(
                f'<rect x="{MARGIN + 8 * k:.0f}" y="{y - 5:.0f}" width="8" height="10" fill="{color}"/>'
            )
    if not collinear:
        named = all(np.abs(axis).max() > 0.995 for axis in (first, second))
        turn = (
            f"from {_direction(first)} to {_direction(second)} and on"
            if named
            else "turning in their main plane"
        )
        parts.append(_text(MARGIN + 104, y, turn))
    y += LEGEND_LINE
    return "".join([*parts, _text(MARGIN, y, f"longest moment {longest:.2f} μB")]), y + LEGEND_LINE


def _direction(vector: Float[np.ndarray, "3"]) -> str:
    """Name of a direction: ``+z``, or its components."""
    k = int(np.argmax(np.abs(vector)))
    if abs(vector[k]) > 0.995:
        return ("+" if vector[k] > 0 else "−") + "xyz"[k]
    return "(" + ", ".join(f"{round(value, 1) + 0.0:.1f}".replace("-", "−") for value in vector) + ")"


def _hex(rgb: tuple[float, float, float] | np.ndarray) -> str:
    return "#" + "".join(f"{round(255 * float(value)):02x}" for value in rgb)


def _mixed(color: str, white: float) -> str:
    """A colour with a share of white."""
    rgb = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return _hex((1 - white) * rgb + white)


def _atom(center: Float[np.ndarray, "2"], radius: float, color: str, fog: float) -> str:
    return (
        f'<circle cx="{center[0]:.1f}" cy="{center[1]:.1f}" r="{radius:.1f}" '
        f'fill="{_mixed(color, fog)}" stroke="{_mixed("#4a4f57", fog)}" stroke-width="0.8"/>'
    )


def _line(ends: Float[np.ndarray, "2 2"], color: str, width: float) -> str:
    (x1, y1), (x2, y2) = ends
    style = f'stroke="{color}" stroke-width="{width:.1f}"'
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def _arrow(ends: Float[np.ndarray, "2 2"], color: str, spacing: float, *, toward: bool) -> str:
    """An arrow, or, seen from its end, a point (towards the viewer) or a cross (away)."""
    along = ends[1] - ends[0]
    length, width = float(np.linalg.norm(along)), 0.075 * spacing
    if length < 2 * width:
        x, y = ends.mean(axis=0)
        mark = (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{0.7 * width:.1f}" fill="{color}"/>'
            if toward
            else _line(np.array([[x - width, y - width], [x + width, y + width]]), color, 2.0)
            + _line(np.array([[x - width, y + width], [x + width, y - width]]), color, 2.0)
        )
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{1.7 * width:.1f}" fill="#fff" stroke="{color}"/>{mark}'
    unit, head = along / length, min(0.22 * spacing, 0.5 * length)
    side = np.array([-unit[1], unit[0]])
    neck = ends[1] - head * unit
    outline = [
        ends[0] + side * width / 2, neck + side * width / 2, neck + side * 1.3 * width, ends[1],
        neck - side * 1.3 * width, neck - side * width / 2, ends[0] - side * width / 2,
    ]  # fmt: skip
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in outline)
    return f'<polygon points="{points}" fill="{color}" stroke="#fff" stroke-width="0.6"/>'


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y + 4:.1f}" fill="#1b1f24">{html.escape(text)}</text>'
