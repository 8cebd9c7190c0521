"""What the fuzz tests and `tools/fuzz.py` share: one check for each kind of input, each taking hypothesis' data.

Every check either passes quietly or raises: an error of another kind than the package promises, an unreadable output.
"""

import contextlib
import gzip
import io
import json
import os
import random
import struct
import warnings
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian, FixCom, FixedPlane
from cli_tools import bcc, csv_rows, mmace_sim
from hypothesis import strategies as st

from mmace_sim.base.labels import LabelKeys
from mmace_sim.engine import inputs
from mmace_sim.engine.folder import finished_records
from mmace_sim.engine.journal import Journal, atoms_from_record, atoms_to_record
from mmace_sim.errors import DataError, ModelFileError, OutputError, StructureError
from mmace_sim.io import read_labelled
from mmace_sim.io.collection import FailedStructure, LoadedStructure, read_structures
from mmace_sim.io.extxyz import frame_text
from mmace_sim.model.checkpoint import load_model
from mmace_sim.structures.checks import check_structure
from mmace_sim.structures.initial_moments import initial_magmoms
from mmace_sim.structures.magnetic_order import magnetic_operations, magnetic_symmetry

HERE = Path(__file__).parent


def seeds_in(*folders):
    """Structure files to mutate."""
    return tuple(
        path
        for folder in folders
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and path.stat().st_size < 100_000 and path.suffix not in (".txt", ".md", ".yaml")
    )


SEEDS = seeds_in(HERE.parent / "examples" / "structures", HERE / "cases")

NUMBERS: tuple[float, ...] = (
    0.0,
    -0.0,
    1e-300,
    -1.0,
    0.1,
    2.87,
    1e6,
    1e10,
    1e200,
    1e308,
    np.inf,
    -np.inf,
    np.nan,
)
TOKENS: tuple[bytes, ...] = (
    b"nan", b"1e400", b"-1", b"0", b"999999999999", b"1e9", b"inf", b"*", b"?", b".", b'"', b"'", b"\n", b"\n\n", b"\t", b"{",
    b"}", b"[", b"]", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"Xx", b"T T F", b"_JSON {", b"null", b"1/0", b"(((", b"e" * 50,
)  # fmt: skip
KEYS: tuple[str, ...] = (
    "energy", "stress", "free_energy", "magmoms", "magmom", "forces", "dipole", "name", "status", "pbc", "Lattice",
    "Properties", "occupancy", "spacegroup", "comment", "virial", "uid", "charge", "config_type", "a b", "a=b", "a\nb", "",
    "__ndarray__", "info", "key_value_pairs", "data", "µ", "\udcff",
)  # fmt: skip
ARRAYS: tuple[str, ...] = (
    "forces", "magforces", "energies", "stresses", "charges", "magmoms", "magmom", "tags", "momenta", "masses", "species",
    "pos", "move_mask", "initial_charges", "label", "a:b", "a b", "a0", "a", "", "castep_labels", "occupancy",
)  # fmt: skip

FLAGS: tuple[tuple[str, ...], ...] = (
    (), ("--fixed-cell",), ("--magmoms", "afm"), ("--magmoms", "adiabatic"), ("--initial-magmoms", "random:1"),
    ("--write", "mcif", "--write", "cif", "--write", "poscar"), ("--perturb",), ("--report",), ("--dtype", "float32"),
)  # fmt: skip

words = st.text(max_size=12) | st.sampled_from(
    ["_JSON [1,", '_JSON {"__ndarray__": [[9], "float64", [1]]}', "T", "1 2", ""]
)
numbers = st.sampled_from(NUMBERS) | st.floats(-10, 10)
leaves = st.none() | st.booleans() | st.integers() | numbers | words
plain_values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
odd_values = st.sampled_from(
    [object(), b"bytes", {1}, 1j, np.float32(0.1), np.array([1j]), np.array([object()]), np.zeros((2, 3, 3)), 10**400,
     np.datetime64("2020"), Atoms("H"), {5: "x"}, (1, 2), np.array(["x", "y"]), range(3), ..., np.array([]), type]
)  # fmt: skip
file_names = st.binary(min_size=1, max_size=12).map(os.fsdecode) | st.text(max_size=12).map(
    lambda text: text.encode("utf-8", "replace").decode()
)
file_names = file_names.map(lambda name: name.translate({0: "0", ord("/"): "-"})).filter(
    lambda name: name.strip(".")
)


@st.composite
def structures(draw):
    """Anything that is an `ase.Atoms`: most of them could be computed if it were not for what they carry."""
    if draw(st.integers(0, 3)):
        atoms = bcc(None, a=draw(st.floats(2.6, 3.2)))
        if draw(st.booleans()):
            atoms = atoms[[0]]
    else:
        n = draw(st.integers(0, 4))
        atoms = Atoms(
            draw(st.lists(st.sampled_from([26, 26, 26, 13, 0, 92, 118]), min_size=n, max_size=n)),
            positions=draw(st.lists(st.tuples(*[st.floats(-9, 9)] * 3), min_size=n, max_size=n)) or None,
            cell=draw(
                st.sampled_from([None, np.eye(3) * 3, np.zeros((3, 3)), -np.eye(3) * 3, np.diag([3, 3, 0]), np.ones((3, 3))])
                | st.lists(st.floats(-5, 5), min_size=9, max_size=9).map(lambda values: np.reshape(values, (3, 3)))
            ),
            pbc=draw(st.lists(st.booleans(), min_size=3, max_size=3)),
        )  # fmt: skip
    n = len(atoms)
    if n and draw(st.integers(0, 7)) == 7:
        target = draw(st.sampled_from([atoms.positions, atoms.cell.array]))
        target[draw(st.integers(0, len(target) - 1)), 0] = draw(numbers)
    if n and draw(st.integers(0, 15)) == 15:
        atoms.numbers[0] = draw(st.sampled_from([-26, 119, 300, 10**15]))
    moments = draw(st.sampled_from(["none", "z", "vectors", "vectors", "odd"]))
    if moments in ("z", "vectors"):
        shape = (n,) if moments == "z" else (n, 3)
        atoms.arrays["initial_magmoms"] = np.full(shape, draw(st.floats(-3, 3)))
    elif moments == "odd":
        value = draw(
            st.sampled_from([np.full(n, np.nan), np.full((n, 3), 1e200), np.ones((n, 2)), np.full(n, 101.0)])
        )
        atoms.arrays["initial_magmoms"] = value
    atoms.info = draw(st.dictionaries(st.sampled_from(KEYS) | words, plain_values | odd_values, max_size=4))
    for name in draw(st.lists(st.sampled_from(ARRAYS), max_size=3, unique=True)):
        kind = draw(st.sampled_from([float, int, bool, object, complex, "U4", "u8"]))
        shape = draw(st.sampled_from([(n,), (n, 1), (n, 3), (n, 3, 3)]))
        atoms.arrays[name] = np.full(shape, draw(numbers | st.integers(0, 3)) if kind is float else 1).astype(
            kind
        )
    if n and draw(st.booleans()):
        kinds = [
            FixAtoms([0]),
            FixAtoms([0]),
            FixCom(),
            FixCartesian(0, [True, False, True]),
            FixedPlane(0, (0, 0, 1)),
        ]
        atoms.set_constraint(draw(st.sampled_from(kinds)))
    if draw(st.booleans()):
        atoms.calc = SinglePointCalculator(atoms, energy=draw(numbers), forces=np.full((n, 3), draw(numbers)))
    return atoms


def strict_json(path):
    """Parse JSON without NaN and infinities."""

    def refuse(name):
        raise AssertionError(f"{path}: {name} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


# --- checks -------------------------------------------------------------------------------------------------------


def check_frame(data):
    """A structure with anything on it becomes text that ASE reads back, and goes through the journal."""
    images = [data.draw(structures()), bcc()]
    frames = [frame_text(atoms) for atoms in images]
    texts = [frame.text for frame in frames]
    again = ase.io.read(io.StringIO("".join(texts), newline=None), index=":", format="extxyz")
    assert len(again) == sum(bool(text) for text in texts)
    assert len(again[-1]) == 2
    for atoms in images:
        record = atoms_to_record(atoms)
        rebuilt = atoms_from_record(json.loads(json.dumps(record)))
        np.testing.assert_array_equal(rebuilt.positions, atoms.positions)
        assert set(rebuilt.info) <= set(atoms.info)


def check_symmetry(data):
    """Crystals with moments that are alike within about the tolerance have a magnetic space group, or none.

    spglib's own search ends the process for one in ten of them.
    """
    name, a = data.draw(st.sampled_from([("sc", 2.5), ("fcc", 3.5), ("bcc", 2.87), ("hcp", 2.5)]))
    atoms = bulk("Fe", name, a, cubic=name in ("fcc", "bcc"))
    atoms = atoms.repeat(data.draw(st.sampled_from([(1, 1, 1), (1, 1, 2), (2, 1, 1)])))
    atoms.numbers[:] = data.draw(
        st.lists(st.sampled_from([26, 26, 27]), min_size=len(atoms), max_size=len(atoms))
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    length = data.draw(st.sampled_from([0.0, 0.03, 0.06, 0.1, 0.5, 2.0]))
    noise = data.draw(st.sampled_from([0.0, 0.005, 0.05, 0.1]))
    axis = data.draw(st.sampled_from([*np.eye(3), np.ones(3) / 3**0.5, rng.normal(size=3)]))
    magmoms = length * np.outer(rng.choice([-1, 1], len(atoms)), axis) + noise * rng.normal(
        size=(len(atoms), 3)
    )
    found = magnetic_operations(atoms, magmoms)
    assert np.linalg.norm(found.magmoms - magmoms, axis=1).max() <= 0.1 + 1e-9
    assert found.rotations.shape[0] <= 96 * len(atoms)
    magnetic_symmetry(atoms, magmoms)


def check_relaxation(data, folder, model):
    """A folder of structures goes through `mmace-sim relax`, from files or as objects, and is resumed."""
    items = [(data.draw(file_names), data.draw(structures())) for _ in range(data.draw(st.integers(1, 3)))]
    source, output = folder / "in", folder / "out"
    source.mkdir()
    (source / "good.extxyz").write_text(frame_text(bcc()).text)
    loaded = None
    if data.draw(st.booleans()):
        form = data.draw(st.sampled_from(["extxyz", "traj", "json", "vasp", "cif", "xyz", "res"]))
        for name, atoms in items:
            _write(source / f"{name}.{form}", atoms, form)
    else:
        loaded = [LoadedStructure(name, k, f"{k}{name}", atoms) for k, (name, atoms) in enumerate(items)]
        loaded.append(FailedStructure("x", data.draw(words), name="x"))
    flags = data.draw(st.sampled_from(FLAGS))
    arguments = (
        "relax",
        source,
        "-m",
        model,
        "-o",
        output,
        "--max-steps",
        data.draw(st.sampled_from("012")),
        *flags,
    )
    real, used = inputs.load_structures, loaded
    try:
        if used is not None:
            inputs.load_structures = lambda *_, **__: [
                LoadedStructure(i.file, i.index, i.name, i.atoms.copy()) if isinstance(i, LoadedStructure) else i for i in used
            ]  # fmt: skip
        _check_run(mmace_sim(*arguments), output)
        if output.is_dir():
            _check_run(mmace_sim(*arguments, "--resume"), output)
    finally:
        inputs.load_structures = real


def _write(path, atoms, form):
    """Write what ASE can write; the rest of the structure is no business of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ase.io.write(path, atoms, format=form)
        except Exception:
            path.write_text("")


def _check_run(result, output):
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in (0, 2, 3), result.output
    if result.exit_code == 2:
        assert "Error" in result.output
        return
    entries = strict_json(output / "summary.json")["structures"]
    assert len(csv_rows(output / "summary.csv")) == len(entries)
    relaxed = output / "relaxed.extxyz"
    images = ase.io.read(relaxed, index=":") if relaxed.stat().st_size else []
    computed = [entry for entry in entries if entry["status"] in ("converged", "max_steps", "saddle")]
    lost = [entry for entry in computed if any("not written" in note for note in entry["notes"])]
    assert len(images) >= len(computed) - len(lost)
    assert {atoms.info["name"] for atoms in images} <= {entry["name"] for entry in entries}


def mutated(data, content):
    """Some bytes changed, removed, repeated or replaced by something evil; most of the file stays as it is."""
    rng, content = random.Random(data.draw(st.integers(0, 2**63))), bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        start = rng.randrange(len(content) + 1)
        length = rng.choice((1, 2, 8, rng.randrange(len(content) + 1)))
        kind = rng.choice(("flip", "drop", "insert", "repeat", "word", "word", "digit", "cut"))
        if kind == "flip" and start < len(content):
            content[start] ^= 1 << rng.randrange(8)
        elif kind == "cut" and rng.random() < 0.5:
            del content[start:]
        elif kind == "drop":
            del content[start : start + length]
        elif kind == "insert":
            content[start:start] = rng.choice((*TOKENS, rng.randbytes(3)))
        elif kind == "repeat":
            content[start:start] = content[start : start + length] * rng.randint(1, 3)
        elif kind == "word":
            _replace_word(content, start, rng.choice(TOKENS))
        elif kind == "digit":
            digits = [k for k, byte in enumerate(content) if 48 <= byte <= 57]
            if digits:
                content[rng.choice(digits)] = rng.choice(b"0123456789.-e")
    return bytes(content)


def _replace_word(content, start, token):
    """Replace the word at a position."""
    separators = b" \n\t,:[](){}\"'="
    begin = end = start
    while begin > 0 and content[begin - 1] not in separators:
        begin -= 1
    while end < len(content) and content[end] not in separators:
        end += 1
    content[begin:end] = token


def check_structure_file(data, folder, seeds=SEEDS):
    """A mutated file gives structures that can be checked and written, or a `StructureError`; so does training's door."""
    seed = data.draw(st.sampled_from(seeds))
    content = mutated(data, seed.read_bytes())
    path = folder / seed.name
    if data.draw(st.integers(0, 9)) == 0:
        path, content = path.with_name(seed.name + ".gz"), gzip.compress(content)
        if data.draw(st.booleans()):
            content = mutated(data, content)
    path.write_bytes(content)
    try:
        with contextlib.suppress(DataError):
            for _ in read_labelled(path, LabelKeys()):
                pass
        items = read_structures(path)
    except StructureError:
        return
    finally:
        path.unlink()
    assert items
    for item in items[:3]:
        try:
            check_structure(item.atoms, None)
        except StructureError:
            continue
        initial_magmoms(item.atoms, "high-spin")
        assert frame_text(item.atoms).text


def check_journal(data, path):
    """A mutated journal gives the records that were written, or an `OutputError`."""
    header = {"config": {"fmax": 0.01}, "inputs": {"a#0": "x"}}
    with Journal(path) as journal:
        journal.append(header)
        for k in range(2):
            journal.append({"key": f"a#{k}", "entry": {"energy": -1.5 * k}, "atoms": atoms_to_record(bcc())})
    content = path.read_bytes()
    lines = content.split(b"\n")
    if data.draw(st.booleans()):
        values = plain_values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20)
        lines[data.draw(st.integers(0, len(lines) - 1))] = data.draw(values)
        content = b"\n".join(lines)
    else:
        content = mutated(data, content)
    path.write_bytes(content)
    try:
        records = finished_records(path.parent, header)
    except OutputError:
        return
    for record in records.values():
        assert record["entry"]["energy"] <= 0
        assert len(atoms_from_record(record["atoms"])) == 2


def check_model_file(data, path, content):
    """A mutated model file gives a model or a `ModelFileError`."""
    change = _mutated_header if data.draw(st.integers(0, 3)) else mutated
    content = change(data, content)
    path.write_bytes(content)
    try:
        model = load_model(path)
    except ModelFileError:
        return
    assert model.elements


def _mutated_header(data, content):
    """Replace one value somewhere in the metadata of ours or of the tensors."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    (key,) = header["__metadata__"]
    ours = json.loads(header["__metadata__"][key])
    target, where = (ours, "ours") if data.draw(st.integers(0, 3)) else (header, "header")
    value = plain_values | st.sampled_from(
        [10**9, 10**30, -1, 1e308, "1000000000x0e", True, [], {}, [[]] * 99, "x" * 9999, 10**4000]
    )
    parent = target
    while True:
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        chosen = data.draw(st.sampled_from(keys))
        child = parent[chosen]
        if isinstance(child, dict | list) and child and data.draw(st.integers(0, 3)):
            parent = child
            continue
        if isinstance(parent, dict) and data.draw(st.integers(0, 4)) == 0:
            del parent[chosen]
        else:
            parent[chosen] = data.draw(value)
        break
    if where == "ours":
        header["__metadata__"][key] = json.dumps(ours)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]
