"""Neighbour lists of a batch in pure torch: boxes of the size of the cutoff, on any device, in linear time and memory.

Atoms are sorted by the box that they are in, so that there is no table of boxes (empty space costs nothing) and no room
that could overflow (dense cells take what they need, a bounded number of candidates at a time).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

CANDIDATES: int = 4_000_000
"""Pairs that are measured at once."""

_ROWS = 1_000_000
_SLACK = 1e-9
"""Boxes are larger than the cutoff by this part, so that rounding loses no pair."""


@dataclass
class _Boxes:
    """Atoms of a batch in their boxes.

    Attributes:
        positions: Within the cell along periodic directions, in Å.
        cell: Cell vectors as rows, in Å.
        images: How many cell vectors each atom was moved by.
        system_idx: Structure of each atom.
        box: Box of each atom, three numbers.
        n_boxes: Boxes of each structure along its vectors.
        reach: How many boxes away a neighbour may be.
        first: Number before the first box of each structure.
        pbc: Periodic directions.
        order: Atoms sorted by the number of their box.
        numbers: These numbers, ascending.
    """

    positions: Float[Tensor, "n_atoms 3"]
    cell: Float[Tensor, "n_systems 3 3"]
    images: Int[Tensor, "n_atoms 3"]
    system_idx: Int[Tensor, " n_atoms"]
    box: Int[Tensor, "n_atoms 3"]
    n_boxes: Int[Tensor, "n_systems 3"]
    reach: Int[Tensor, "n_systems 3"]
    first: Int[Tensor, " n_systems"]
    pbc: Bool[Tensor, "n_systems 3"]
    order: Int[Tensor, " n_atoms"]
    numbers: Int[Tensor, " n_atoms"]


def cell_list(
    positions: Float[Tensor, "n_atoms 3"],
    cell: Float[Tensor, "n_systems 3 3"],
    pbc: Bool[Tensor, "n_systems 3"],
    system_idx: Int[Tensor, " n_atoms"],
    r_max: float,
) -> tuple[Int[Tensor, "2 n_edges"], Int[Tensor, "n_edges 3"]]:
    """All ordered pairs closer than `r_max`.

    Args:
        positions: Cartesian positions, in Å; they need not lie in the cell.
        cell: Cell vectors as rows, in Å: three independent ones, in open directions too.
        pbc: Periodic directions.
        system_idx: Structure of each atom, ascending.
        r_max: Cutoff radius, in Å.

    Returns:
        The pairs (sender, receiver), sorted by receiver, and the shift of the sender in cell vectors.
    """
    boxes = _sorted_into_boxes(positions.double(), cell.double(), pbc, system_idx, r_max * (1.0 + _SLACK))
    widths = 2 * boxes.reach + 1
    n_rows = widths.prod(dim=1)[system_idx]
    ends = n_rows.cumsum(0).tolist()
    edges, shifts, start = [], [], 0
    while start < len(ends):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(torch.searchsorted(torch.tensor(ends), done + _ROWS, right=True)))
        for pairs, moved in _of_atoms(
            boxes, torch.arange(start, stop, device=positions.device), n_rows, widths, r_max
        ):
            edges.append(pairs)
            shifts.append(moved)
        start = stop
    return torch.cat(edges, dim=1), torch.cat(shifts)


def _sorted_into_boxes(
    positions: Tensor, cell: Tensor, pbc: Tensor, system_idx: Tensor, r_max: float
) -> _Boxes:
    inverse = torch.linalg.inv_ex(cell).inverse
    heights = 1.0 / torch.linalg.norm(inverse, dim=1)
    scaled = torch.einsum("na,nab->nb", positions, inverse[system_idx])
    lowest = torch.full_like(heights, torch.inf)
    lowest = lowest.scatter_reduce(0, system_idx[:, None].expand(-1, 3), scaled, "amin")
    images = torch.where(pbc[system_idx], scaled.floor(), 0.0)
    inside = scaled - torch.where(pbc[system_idx], images, lowest[system_idx])
    n_boxes = (heights / r_max).floor().clamp(1, 2**20).long()
    reach = (r_max * n_boxes / heights).ceil().long()
    reach = torch.where(pbc, reach, torch.minimum(reach, n_boxes - 1))
    box = torch.minimum((inside * n_boxes[system_idx]).floor().long().clamp(min=0), n_boxes[system_idx] - 1)
    total = n_boxes.prod(dim=1)
    first = total.cumsum(0) - total
    numbers, order = torch.sort(_number(box, n_boxes[system_idx], first[system_idx]), stable=True)
    where = positions - torch.einsum("na,nab->nb", images, cell[system_idx])
    return _Boxes(where, cell, images.long(), system_idx, box, n_boxes, reach, first, pbc, order, numbers)


def _number(box: Tensor, n_boxes: Tensor, first: Tensor) -> Int[Tensor, " n"]:
    """Number of a box among those of all structures."""
    return first + (box[:, 0] * n_boxes[:, 1] + box[:, 1]) * n_boxes[:, 2] + box[:, 2]


def _of_atoms(
    boxes: _Boxes, atoms: Tensor, n_rows: Tensor, widths: Tensor, r_max: float
) -> list[tuple[Int[Tensor, "2 n"], Int[Tensor, "n 3"]]]:
    """Pairs of some centres: all boxes around each, all atoms of each box."""
    counts = n_rows[atoms]
    atom, number = _repeated(atoms, counts)
    system = boxes.system_idx[atom]
    width, n_boxes = widths[system], boxes.n_boxes[system]
    steps = torch.stack(
        [number // (width[:, 1] * width[:, 2]), number // width[:, 2] % width[:, 1], number % width[:, 2]], 1
    )
    target = boxes.box[atom] + steps - boxes.reach[system]
    shift = torch.div(target, n_boxes, rounding_mode="floor")
    there = (boxes.pbc[system] | (shift == 0)).all(dim=1)
    wanted = _number(target - shift * n_boxes, n_boxes, boxes.first[system])
    low = torch.searchsorted(boxes.numbers, wanted)
    high = torch.searchsorted(boxes.numbers, wanted, right=True)
    inside = torch.where(there, high - low, 0)
    ends = inside.cumsum(0)
    bounds = torch.arange(CANDIDATES, int(ends[-1]) + CANDIDATES, CANDIDATES, device=ends.device)
    stops = {*torch.searchsorted(ends, bounds, right=True).tolist(), len(ends)} - {0}
    found, start = [], 0
    for stop in sorted(stops):
        rows = slice(start, stop)
        found.append(_near(boxes, atom[rows], shift[rows], low[rows], inside[rows], r_max))
        start = stop
    return found


def _near(
    boxes: _Boxes, atom: Tensor, shift: Tensor, low: Tensor, counts: Tensor, r_max: float
) -> tuple[Int[Tensor, "2 n"], Int[Tensor, "n 3"]]:
    """The pairs of some centres and boxes that are close enough."""
    row, within = _repeated(torch.arange(len(atom), device=atom.device), counts)
    centre, sender, moved = atom[row], boxes.order[low[row] + within], shift[row]
    cell = boxes.cell[boxes.system_idx[centre]]
    vectors = (
        boxes.positions[sender]
        - boxes.positions[centre]
        + torch.einsum("na,nab->nb", moved.to(cell.dtype), cell)
    )
    itself = (centre == sender) & (moved == 0).all(dim=1)
    kept = torch.nonzero((vectors.square().sum(dim=1) < r_max * r_max) & ~itself)[:, 0]
    centre, sender = centre[kept], sender[kept]
    return torch.stack([sender, centre]), moved[kept] + boxes.images[centre] - boxes.images[sender]


def _repeated(values: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Each value as often as its count says, and the number of each repetition."""
    repeated = torch.repeat_interleave(torch.arange(len(values), device=values.device), counts)
    starts = counts.cumsum(0) - counts
    return values[repeated], torch.arange(len(repeated), device=values.device) - starts[repeated]
