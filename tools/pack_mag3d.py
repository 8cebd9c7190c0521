"""Pack finished frames of the GPAW campaign into `examples/data`: without copies, in a split that stays as they grow.

    python tools/pack_mag3d.py RAW.extxyz... [--wait] [--out examples/data/mag3d-gpaw]
    python tools/pack_mag3d.py RAW.extxyz --restore

RAW is what the campaign's generator and `mmace-sim label` write; `--restore` writes it again from what is packed, so
that the campaign goes on elsewhere. Ids that are reserved for an independent test are refused.
"""

import argparse
import hashlib
import json
import lzma
from io import StringIO
from pathlib import Path

import numpy as np
from ase.io import read, write

VALID, TEST = 0.08, 0.12
"""Parts for the choice of the best weights and for the errors of the card."""
SAME_ENERGY, SAME_MOMENT = 5e-4, 0.02
"""Two calculations of one crystal are the same state if energies (eV/atom) and moments (μB) differ by less."""
THROUGH = frozenset({"Fe", "Co", "Ni", "Al", "Mn", "Cr", "Pt", "N", "O"})
"""Elements that the shipped model knows; frames with others wait in a file of their own."""
PARTS = ("train", "valid", "test", "unfinished")
COPIES = "copies.txt"
"""Ids of calculations that are left out since another one found the same state."""
KEPT = ("config_id", "config_type", "constrained", "constrained_species", "cpu_s")


def reserved(config_id):
    """A fifth of the plan is an independent test: never computed for training."""
    return hashlib.sha256(config_id.encode()).digest()[0] % 5 == 0


def role(config_id, symbols=THROUGH):
    """Where a frame belongs, by its id alone, once its elements are through."""
    if not THROUGH.issuperset(symbols):
        return "unfinished"
    u = int.from_bytes(hashlib.sha256(f"split {config_id}".encode()).digest()[:8]) / 2**64
    return "valid" if u < VALID else "test" if u < VALID + TEST else "train"


def same_state(one, other):
    """Whether two frames are one crystal in one magnetic state, all moments reversed or not."""
    if one.get_chemical_formula() != other.get_chemical_formula() or len(one) != len(other):
        return False
    if not (
        np.allclose(one.cell, other.cell, atol=1e-4)
        and np.allclose(one.positions, other.positions, atol=1e-4)
    ):
        return False
    if abs(one.info["REF_energy"] - other.info["REF_energy"]) > SAME_ENERGY * len(one):
        return False
    a, b = one.arrays["REF_magmom"], other.arrays["REF_magmom"]
    return min(np.abs(a - b).max(), np.abs(a + b).max()) < SAME_MOMENT


def packed(out, parts=PARTS):
    """Frames of some parts."""
    paths = [path for part in parts if (path := out / f"{part}.extxyz.xz").is_file()]
    return [frame for path in paths for frame in read(path, ":", format="extxyz")]


def pack(raws, out, *, wait=False):
    """Write the parts. With `wait`, those of the shipped model stay as they are, and what is new is unfinished."""
    shipped = {f.info["config_id"] for f in packed(out, PARTS[:-1])} if wait else set()
    read_frames = (frame for raw in raws for frame in read(raw, ":", format="extxyz"))
    frames = list({frame.info["config_id"]: frame for frame in read_frames}.values())  # each once
    held_back = [f.info["config_id"] for f in frames if reserved(f.info["config_id"])]
    if held_back:
        raise SystemExit(f"reserved ids: {', '.join(held_back[:5])}")
    kept, copies = [], []
    for frame in sorted(frames, key=lambda f: (f.info["config_id"] not in shipped, f.info["config_id"])):
        twin = next((other for other in kept if same_state(frame, other)), None)
        (copies if twin is not None else kept).append(frame)
    hours = sum(float(f.info.get("cpu_s", 0)) for f in frames) / 3600
    parts = {name: [] for name in PARTS}
    for frame in kept:
        frame.info = {k: v for k, v in frame.info.items() if k in KEPT or k.startswith("REF_")}
        frame.arrays = {
            k: v for k, v in frame.arrays.items() if k in ("numbers", "positions") or k.startswith("REF_")
        }
        config_id = frame.info["config_id"]
        waits = wait and config_id not in shipped
        parts["unfinished" if waits else role(config_id, frame.get_chemical_symbols())].append(frame)
    for name, members in parts.items():
        path = out / f"{name}.extxyz.xz"
        if wait and name != "unfinished":
            continue
        path.unlink(missing_ok=True)
        if not members:
            continue
        text = StringIO()
        write(text, members, format="extxyz")
        path.write_bytes(lzma.compress(text.getvalue().encode(), preset=9))
        print(f"{path}: {len(members)} frames, {path.stat().st_size / 1e3:.0f} kB")
    # a restored campaign has no copies
    before = (out / COPIES).read_text().split() if (out / COPIES).is_file() else []
    ids = sorted({*before, *(f.info["config_id"] for f in copies)})
    (out / COPIES).write_text("".join(f"{config_id}\n" for config_id in ids))
    print(
        f"{len(kept) + len(ids)} calculations, {len(ids)} copies left out, {hours:.2f} CPU hours of what is here"
    )


def restore(out, raw):
    """Write what the generator and `mmace-sim label` need to go on: frames, and copies as if they had failed."""
    frames = packed(out)
    write(raw, frames, format="extxyz")
    lines = [
        json.dumps({"id": config_id, "error": "a copy"}) for config_id in (out / COPIES).read_text().split()
    ]
    raw.with_name("failures.jsonl").write_text("".join(f"{line}\n" for line in lines))
    print(f"{raw}: {len(frames)} frames; {len(lines)} copies are not to be computed again")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("examples/data/mag3d-gpaw"))
    parser.add_argument(
        "--restore", action="store_true", help="write RAW from what is packed, to go on with the campaign"
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="leave the parts of the shipped model alone; what is new is unfinished",
    )
    arguments = parser.parse_args()
    if arguments.restore:
        restore(arguments.out, arguments.raw[0])
    else:
        pack(arguments.raw, arguments.out, wait=arguments.wait)
