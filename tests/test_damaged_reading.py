"""Files of killed runs, damaged databases, names in capitals, and moments where no reader looks for them."""

import gzip
import json
import pickle
import re
import zlib

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.db import connect
from format_files import MAGMOMS, outcar, vasprun

from mmace_sim.errors import DataError
from mmace_sim.io.collection import FailedStructure, load_structures
from mmace_sim.io.frames import read_frames
from mmace_sim.io.lmdb_file import LmdbFile
from mmace_sim.training.data.conversion import convert_files


def dimer():
    return Atoms("Fe2", positions=[[0, 0, 0], [1.4, 1.4, 1.4]], cell=[2.8] * 3, pbc=True)


def two_steps():
    """A vasprun.xml with two ionic steps, the second with other energies."""
    text = vasprun()
    step = re.search(r"<calculation>.*</calculation>\n", text, re.DOTALL)[0]
    return text.replace(step, step + step.replace("-12.5 ", "-12.6 "))


def test_a_vasprun_of_a_killed_run_gives_its_complete_steps(tmp_path):
    """Wherever the file is cut off: one step from the end of the first on, before that a sentence."""
    text, path = two_steps(), tmp_path / "vasprun.xml"
    (tmp_path / "OUTCAR").write_text(outcar(MAGMOMS))
    first = text.index("</calculation>") + len("</calculation>")
    for length in range(60, len(text) - len("</modeling>\n"), 37):
        path.write_text(text[:length])
        n_steps = text[:length].count("</calculation>")
        if n_steps == 0:
            (item,) = load_structures([path])
            assert isinstance(item, FailedStructure), length
            assert re.search("no complete ionic step|no output of VASP", item.message), item.message
        elif n_steps == 1:
            (frame,) = read_frames([path]).frames
            assert frame.labels["energy"] == -12.5
    assert first < length


@pytest.mark.parametrize("ending", ["db", "json", "aselmdb"])
def test_moments_under_other_names_in_a_row_are_told(tmp_path, ending):
    path = tmp_path / f"rows.{ending}"
    data = {"dft_spin_moments": [2.2, -2.2], "spins_of_bands": [[1.0], [1.0, 2.0]], "other": [1.0, 2.0]}
    if ending == "aselmdb":
        from mmace_sim.io.database import write_database

        row = {
            "numbers": [26, 26],
            "positions": dimer().positions,
            "cell": dimer().cell.array,
            "pbc": [True] * 3,
        }
        write_database(path, [row | {"data": data}])
    else:
        with connect(path) as database:
            database.write(dimer(), data=data | {"spins_of_bands": "x"})
    (item,) = load_structures([path])
    assert any("dft_spin_moments in the file is not read as moments" in note for note in item.notes), (
        item.notes
    )
    assert not any("other" in note for note in item.notes)
    assert not set(item.atoms.info) & set(data)


@pytest.mark.parametrize("ending", ["db", "json"])
def test_a_guess_in_the_data_of_a_row_is_read(tmp_path, ending):
    with connect(tmp_path / f"rows.{ending}") as database:
        database.write(dimer(), data={"initial_magmoms": [2.0, -1.0]})
        database.write(dimer(), data={"magmoms": [1.0, -2.0]})
    moments = [item.atoms.arrays["initial_magmoms"][:, 2].tolist() for item in load_structures([tmp_path])]
    assert moments == [[2.0, -1.0], [1.0, -2.0]]


@pytest.mark.parametrize(
    "name", ["A.CIF", "A.XYZ", "A.EXTXYZ", "A.VASP", "A.JSON", "A.TRAJ", "A.XSF", "A.RES"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_names_in_capitals(tmp_path, name, packed):
    plain = tmp_path / name.lower()
    ase.io.write(plain, dimer(), format="extxyz" if "XYZ" in name else None)
    content = plain.read_bytes()
    plain.unlink()
    path = tmp_path / (f"{name}.GZ" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    for door in (path, tmp_path):
        (item,) = load_structures([door])
        assert item.atoms.get_chemical_formula() == "Fe2"


def test_a_converted_file_with_a_name_in_capitals_is_compressed(tmp_path):
    atoms = dimer()
    atoms.arrays["initial_magmoms"] = np.array([2.0, -2.0])
    atoms.info["REF_energy"] = -1.0
    ase.io.write(tmp_path / "a.extxyz", atoms)
    convert_files([tmp_path / "a.extxyz"], tmp_path / "B.EXTXYZ.GZ")
    assert (tmp_path / "B.EXTXYZ.GZ").read_bytes()[:2] == b"\x1f\x8b"
    assert len(load_structures([tmp_path / "B.EXTXYZ.GZ"])) == 1


def values_of(n, seed=0):
    """Values of all sizes by their keys: within a page, and on pages of their own."""
    rng = np.random.default_rng(seed)
    return {
        str(k).encode(): rng.bytes(int(rng.integers(20_000 if k % 20 == 0 else 60))) for k in range(1, n + 1)
    }


def write_values(path, values, deleted=()):
    lmdb = pytest.importorskip("lmdb")
    environment = lmdb.open(str(path), subdir=False, map_size=2**27)
    with environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key, value)
    with environment.begin(write=True) as transaction:
        for key in deleted:
            transaction.delete(key)
    environment.close()


@pytest.mark.parametrize("n", [0, 1, 30, 3000])
def test_values_of_lmdb_are_those_of_the_library(tmp_path, n):
    values = values_of(n)
    gone = list(values)[::7]
    write_values(tmp_path / "a.lmdb", values, gone)
    file = pickle.loads(pickle.dumps(LmdbFile(tmp_path / "a.lmdb")))
    assert file.entries == n - len(gone)
    for key, value in values.items():
        assert file.get(key) == (None if key in gone else value)
    assert file.get(b"") is file.get(b"0") is file.get(b"zzz") is None


def test_damaged_lmdb_gives_errors_only(tmp_path):
    """Bytes changed where pages say how they are made: values are found, or a sentence says that there are none."""
    values = values_of(400)
    write_values(tmp_path / "a.lmdb", values)
    whole = (tmp_path / "a.lmdb").read_bytes()
    rng = np.random.default_rng(3)
    found = {"value": 0, "error": 0}
    for _ in range(150):
        content = bytearray(whole)
        for page in range(0, len(whole), 4096):
            content[page + int(rng.integers(150))] = int(rng.integers(256))
        (tmp_path / "b.lmdb").write_bytes(content)
        for key in list(values)[::40]:
            try:
                LmdbFile(tmp_path / "b.lmdb").get(key)
                found["value"] += 1
            except DataError as error:
                assert re.search("damaged|cut off|no LMDB|no ASE database", str(error))  # noqa: PT017
                found["error"] += 1
    assert found["error"] > 100
    assert found["value"] > 10


def test_a_command_that_reads_a_damaged_database_says_so(tmp_path):
    row = {"numbers": [26], "positions": [[0, 0, 0]], "magmoms": [2.2]}
    values = {str(k).encode(): zlib.compress(json.dumps(row).encode()) for k in range(1, 301)}
    write_values(tmp_path / "a.aselmdb", values | {b"nextid": zlib.compress(b"301")})
    content = bytearray((tmp_path / "a.aselmdb").read_bytes())
    for page in range(2 * 4096, len(content), 4096):
        content[page + 16 : page + 60] = b"\xff" * 44
    (tmp_path / "a.aselmdb").write_bytes(content)
    (item,) = load_structures([tmp_path / "a.aselmdb"])
    assert "is damaged" in item.message
    with pytest.raises(DataError, match="is damaged"):
        read_frames([tmp_path / "a.aselmdb"])
