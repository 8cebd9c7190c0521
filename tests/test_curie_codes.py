"""Spin models of UppASD and VAMPIRE: read in the convention of each code, and sampled."""

import time

import numpy as np
import pytest
from cli_tools import csv_rows, mmace_sim, summary_of
from test_curie import J, lattice
from test_exchange_exports import BIAXIAL, exchange_of
from test_exchange_files import EV, MRY

from mmace_sim.errors import StructureError
from mmace_sim.io.uppasd import read_uppasd
from mmace_sim.io.vampire import read_vampire
from mmace_sim.properties.curie.spin_codes import hamiltonian_of
from mmace_sim.properties.exchange.files import uppasd_files, vampire_files
from mmace_sim.sampling.hamiltonian import SpinHamiltonian
from mmace_sim.units import BOLTZMANN_EV_PER_K

NEAR = np.array(np.meshgrid(*[[-0.5, 0.5]] * 3)).reshape(3, -1).T
NEXT = np.concatenate([np.eye(3), -np.eye(3)])
SHELLS = ((NEAR, 1.2), (NEXT, -0.35))
BCC = np.array([[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]])
EXPECTED = 2e3 * MRY * 1e-3 * (8 * 1.2 - 6 * 0.35) / 3 / BOLTZMANN_EV_PER_K
"""Mean-field temperature of the shells, J' = 2 J."""


def write_all(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def bcc_files(*, maptype=2, sym=0, kind="C", **changes):
    """Bcc with one atom in the cell, as UppASD takes it."""
    rows = []
    for vectors, value in SHELLS:
        for v in vectors if sym == 0 else vectors[:1]:
            given = np.rint(v @ np.linalg.inv(BCC)) if maptype == 2 or kind == "D" else v
            rows.append("1 1 " + " ".join(f"{x:g}" for x in given) + f" {value} 0.0")
    control = (
        "simid test # a comment\nncell 4 4 4\nBC P P P\ncell "
        + "\n".join(" ".join(map(str, row)) for row in BCC.tolist())
        + f"\nSym {sym} cubic\nposfile ./pos\nposfiletype {kind}\nmomfile ./mom\nexchange ./jfile\nmaptype {maptype}\n"
        "alat 2.87e-10\nmode M\ntemp TEMP\n"
    )
    files = {
        "inpsd.dat": control,
        "pos": "1 1 0 0 0\n",
        "mom": "1 1 2.25D0 0 0 1\n",
        "jfile": "\n".join(rows),
    }
    return files | changes


@pytest.mark.parametrize("maptype", [1, 2])
@pytest.mark.parametrize("sym", [0, 1])
@pytest.mark.parametrize("kind", ["C", "D"])
def test_uppasd_in_every_way_of_writing_it(tmp_path, maptype, sym, kind):
    file = read_uppasd(write_all(tmp_path, bcc_files(maptype=maptype, sym=sym, kind=kind)))
    assert len(file.exchange) == 14
    assert file.notes == []
    spins = hamiltonian_of(file)
    assert spins.mean_field_temperature == pytest.approx(EXPECTED, rel=1e-6)
    vectors = file.shifts @ file.cell
    np.testing.assert_allclose(
        file.exchange, np.where(np.linalg.norm(vectors, axis=1) < 2.6, 2.4 * MRY, -0.7 * MRY), rtol=1e-6
    )
    np.testing.assert_allclose(spins.lengths, 2.25)
    # a second way to the same number: energy of the ordered supercell
    energy = -(8 * 1.2 - 6 * 0.35) * MRY
    assert spins.network(3).ordered_energy == pytest.approx(energy, rel=1e-6)


def test_uppasd_types_of_several_sites_share_their_bonds(tmp_path):
    """CsCl as two sites of one type, bonds given for the first alone; hexagonal layers by Sym 3."""
    files = bcc_files(maptype=1)
    files["inpsd.dat"] = files["inpsd.dat"].replace(
        "\n".join(" ".join(map(str, row)) for row in BCC.tolist()), "1 0 0\n0 1 0\n0 0 1"
    )
    files |= {"pos": "1 1 0 0 0\n2 1 .5 .5 .5\n", "mom": "2 1 2 0 0 1\n1 1 2 0 0 1\n"}
    file = read_uppasd(write_all(tmp_path / "cscl", files))
    assert len(file.exchange) == 28
    assert hamiltonian_of(file).mean_field_temperature == pytest.approx(EXPECTED, rel=1e-6)
    cell = "1 0 0\n-0.5 0.866025403784 0\n0 0 1.6"
    files = bcc_files(maptype=1, sym=3) | {"jfile": "1 1 1 0 0 2.0\n1 1 0 0 1.6 0.5\n"}
    files["inpsd.dat"] = files["inpsd.dat"].replace(
        "\n".join(" ".join(map(str, r)) for r in BCC.tolist()), cell
    )
    file = read_uppasd(write_all(tmp_path / "hexagonal", files))
    assert sorted(np.round(file.exchange / MRY, 5).tolist()) == [1.0, 1.0] + [4.0] * 6
    flat = files | {"jfile": "1 1 1 0 0 2.0\n"}
    flat["inpsd.dat"] = flat["inpsd.dat"].replace("Sym 3", "Sym 2").replace(cell, "1 0 0\n0 1 0\n0 0 1")
    assert len(read_uppasd(write_all(tmp_path / "square", flat)).exchange) == 4


def test_what_uppasd_has_and_we_have_not_is_told(tmp_path):
    files = bcc_files()
    files["inpsd.dat"] += "anisotropy ./kfile\ndm ./dmfile\nhfield 0 0 1.5\n"
    (note,) = read_uppasd(write_all(tmp_path, files)).notes
    assert note == "left out: anisotropy, Dzyaloshinskii–Moriya vectors, the magnetic field."


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("jfile", "", "holds no row"),
        ("jfile", "1 1 1 0 0 1.0\n", "one end only"),
        ("jfile", "1 2 1 0 0 1.0\n1 2 -1 0 0 1.0", "names site 2"),
        ("jfile", "1 1 1 0 0\n", "5 columns, expected 6"),
        ("jfile", "1 1 1 0 0 x\n", "expected numbers"),
        ("jfile", "1 1 1 0 0 1\n1 1 -1 0 0 2\n", "J_ij must be J_ji"),
        ("jfile", "1 1 1 0 0 nan\n1 1 -1 0 0 nan\n", "not finite"),
        ("jfile", None, "jfile: no such file"),
        ("mom", "1 1 2 0 0 0\n", "a direction is zero"),
        ("mom", "1 1 0 0 0 1\n", "no pair of sites with a moment"),
        ("mom", "2 1 2 0 0 1\n", "one row for each of the 1 sites"),
        ("pos", "1 1 0 0\n", "4 columns"),
        ("pos", "2 1 0 0 0\n", "numbered 1, 2"),
        ("inpsd.dat", "exchange ./jfile\n", "no cell"),
        ("inpsd.dat", None, "inpsd.dat: no such file"),
    ],
)
def test_faulty_uppasd_files_are_refused(tmp_path, name, text, message):
    write_all(tmp_path, bcc_files())
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(text)
    with pytest.raises(StructureError, match=message):
        read_uppasd(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("do_ralloy 1", "alloys"),
        ("BC P P 0", "only crystals"),
        ("Sym 5", "expected 0, 1, 2 or 3"),
        ("aunits Y", "units"),
    ],
)
def test_uppasd_settings_that_cannot_be_sampled_are_refused(tmp_path, line, message):
    files = bcc_files()
    files["inpsd.dat"] += line + "\n"
    with pytest.raises(StructureError, match=message):
        read_uppasd(write_all(tmp_path, files))


def test_moments_that_are_not_collinear_are_refused(tmp_path):
    files = bcc_files(maptype=1) | {"pos": "1 1 0 0 0\n2 2 .5 .5 .5\n", "mom": "1 1 2 0 0 1\n2 1 2 0 1 1\n"}
    files["jfile"] = "1 2 .5 .5 .5 1.0\n2 1 -.5 -.5 -.5 1.0\n"
    with pytest.raises(StructureError, match="not collinear"):
        read_uppasd(write_all(tmp_path, files))


@pytest.mark.parametrize("code", ["uppasd", "vampire"])
def test_what_exchange_writes_is_what_curie_reads(tmp_path, code):
    """Every J' comes back through the files of the other codes; tensors by their isotropic part."""
    for name, couplings in (("plain", {}), ("tensors", {"dmi": (0.003, 0.002)})):
        _, result = exchange_of(BIAXIAL if couplings else {}, **couplings)
        known = result.spin_model()
        folder = tmp_path / name
        write_all(folder, (uppasd_files if code == "uppasd" else vampire_files)(result))
        file = {"uppasd": read_uppasd, "vampire": read_vampire}[code](folder / code)
        spins = hamiltonian_of(file)
        assert spins.mean_field_temperature == pytest.approx(known.mean_field_temperature, rel=1e-5)
        assert len(spins.exchange) / len(spins.signs) == len(known.exchange) / len(known.signs)
        assert sorted(set(spins.signs.tolist())) == [-1.0, 1.0]
        assert spins.network(2).ordered_energy == pytest.approx(known.network(2).ordered_energy, rel=1e-5)
        assert ("left out" in " ".join(file.notes)) == bool(couplings)
        if code == "vampire":
            assert set(file.symbols) == {"Fe", "Co"}


VAMPIRE = {
    "input": "create:periodic-boundaries-x\nmaterial:file = m.mat\nmaterial:unit-cell-file = \"cell.ucf\" # here\n",
    "m.mat": "material:num-materials=2\nmaterial[1]:atomic-spin-moment=2.2 !muB\nmaterial[1]:material-element=Fe\n"
    "material[2]:atomic-spin-moment=9.2740100783e-24 !J/T\nmaterial[2]:initial-spin-direction=0,0,-1\n"
    "material[1]:exchange-matrix[2]=-2.0e-21\nmaterial[2]:exchange-matrix[1]=-2.0e-21\n",
}  # fmt: skip


def vampire_cscl(value="-1.5e-21", kind="isotropic"):
    rows = [(0, 1, v - 0.5) for v in NEAR] + [(1, 0, v + 0.5) for v in NEAR]
    lines = [
        f"{n} {i} {j} {' '.join(str(round(x)) for x in shift)} {value}"
        for n, (i, j, shift) in enumerate(rows)
    ]
    head = "# size\n3 3 3\n1 0 0\n0 1 0\n0 0 1\n# atoms\n2 2\n0 0 0 0 0 0 0\n1 0.5 0.5 0.5 1 0 0\n# pairs\n"
    return VAMPIRE | {"cell.ucf": head + f"{len(lines)} {kind}\n" + "\n".join(lines) + "\n"}


def test_vampire_links_units_and_materials(tmp_path):
    file = read_vampire(write_all(tmp_path / "a", vampire_cscl()))
    assert file.symbols == ["Fe", "X"]
    np.testing.assert_allclose(file.moments[:, 2], [2.2, -1.0])
    np.testing.assert_allclose(file.exchange, -1.5e-21 / EV)
    spins = hamiltonian_of(file)  # antiparallel and antiferromagnetic: a ferrimagnet
    assert spins.mean_field_temperature == pytest.approx(8 * 1.5e-21 / EV / 3 / BOLTZMANN_EV_PER_K)
    scaled = read_vampire(write_all(tmp_path / "b", vampire_cscl("0.75", "normalised-isotropic")))
    np.testing.assert_allclose(scaled.exchange, file.exchange)
    three = read_vampire(write_all(tmp_path / "c", vampire_cscl("-1e-21 -2e-21 -1.5e-21", "vectorial")))
    np.testing.assert_allclose(three.exchange, file.exchange)
    assert "anisotropic" in three.notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": "material:file=m.mat\n"}, "no material:unit-cell-file"),
        ({"m.mat": "nothing\n"}, "no line of a material"),
        ({"m.mat": "material[1]:atomic-spin-moment=2 !muB\n"}, "material 2 is not in"),
        ({"cell.ucf": "3 3 3\n1 0 0\n"}, "ends early"),
        ({"cell.ucf": vampire_cscl()["cell.ucf"].replace("16 iso", "17 iso")}, "announces 17"),
        ({"cell.ucf": vampire_cscl()["cell.ucf"].replace("isotropic", "magic")}, "type 'magic'"),
        ({"cell.ucf": vampire_cscl()["cell.ucf"].replace("15 1 0", "15 1 7")}, "outside of 0 to 1"),
    ],
)
def test_faulty_vampire_files_are_refused(tmp_path, change, message):
    with pytest.raises(StructureError, match=message):
        read_vampire(write_all(tmp_path, vampire_cscl() | change))


def test_networks_of_many_pairs_take_seconds():
    """27 sites and 46,000 pairs, as in Fe3Y: it took more than twelve minutes when the block was computed for each pair."""
    rng = np.random.default_rng(0)
    shifts = np.array(np.meshgrid(*[range(-2, 3)] * 3)).reshape(3, -1).T
    first, second, cell = (
        x.ravel() for x in np.meshgrid(range(27), range(27), range(len(shifts)), indexing="ij")
    )
    kept = ((shifts[cell] != 0).any(axis=1) | (first != second)) & (rng.random(len(cell)) < 0.51)
    spins = SpinHamiltonian(
        np.diag([5.0, 5.5, 6.0]), np.ones(27), np.ones(27), first[kept], second[kept], shifts[cell[kept]],
        np.full(int(kept.sum()), 0.001),
    )  # fmt: skip
    assert len(spins.exchange) > 46000
    start = time.process_time()
    network = spins.network(3)
    assert time.process_time() - start < 20
    assert network.ordered_energy == pytest.approx(-0.5 * spins.exchange.sum() / 27)


def test_quantum_factor():
    """(S + 1)/S for one kind of spin; the larger eigenvalue of two sublattices by hand."""
    spins = SpinHamiltonian.from_shells(lattice(moments=(2.0,)), [(2.5, J)])
    assert spins.quantum_factor == pytest.approx(2.0)  # S = 1
    spins = SpinHamiltonian.from_shells(lattice(moments=(4.0,)), [(2.5, J)])
    assert spins.quantum_factor == pytest.approx(1.5)  # S = 2
    ends = (
        np.array([0, 1, 0, 1]),
        np.array([1, 0, 0, 1]),
        np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0]]),
    )
    two = SpinHamiltonian(np.eye(3), np.ones(2), np.array([2.0, 1.0]), *ends, np.array([1.0, 1.0, 0.5, 0.0]))
    q = np.array([2.0, 3.0])
    classical, quantum = np.array([[0.5, 1], [1, 0]]), np.array([[0.5 * q[0], 6**0.5], [6**0.5, 0]])
    ratio = np.linalg.eigvalsh(quantum).max() / np.linalg.eigvalsh(classical).max()
    assert two.quantum_factor == pytest.approx(ratio)


def test_curie_from_folders_of_uppasd(tmp_path):
    """From files to files without a model; a faulty folder does not stop the others; other constants do not resume."""
    write_all(tmp_path / "all" / "iron", bcc_files())
    write_all(tmp_path / "all" / "broken", bcc_files(jfile="1 1 1 0 0 1.0\n"))
    out = tmp_path / "run"
    arguments = (
        "curie", tmp_path / "all", "--from", "uppasd", "-o", out, "--sizes", "3,4", "--sweeps", 150, "--quantum",
        "--temperatures", ",".join(f"{f * EXPECTED:.0f}" for f in (0.3, 0.5, 0.6, 0.65, 0.7, 0.8, 0.9, 1.1)),
        "--no-figures",
    )  # fmt: skip
    result = mmace_sim(*arguments)
    assert result.exit_code == 3, result.output
    entries = {entry["name"]: entry for entry in summary_of(out)["structures"]}
    assert "one end only" in entries["broken"]["message"]
    entry = entries["iron"]
    assert entry["mean_field_temperature"] == pytest.approx(EXPECTED, rel=1e-5)
    assert 0.6 * EXPECTED < entry["curie_temperature"] < 0.9 * EXPECTED
    assert entry["quantum_factor"] == pytest.approx((2.25 / 2 + 1) / (2.25 / 2))
    for end in ("", "_error"):
        classical, quantum = entry[f"curie_temperature{end}"], entry[f"curie_temperature_quantum{end}"]
        assert quantum == pytest.approx(entry["quantum_factor"] * classical)
    assert summary_of(out)["models"]["given"]["kind"] == "exchange constants that were read"
    assert len(csv_rows(out / "iron" / "points.csv")) == 16
    write_all(tmp_path / "all" / "iron", bcc_files(jfile=bcc_files()["jfile"].replace("1.2", "1.3")))
    other = mmace_sim(*arguments, "--resume")
    assert other.exit_code == 2
    assert "differ" in other.output
    assert mmace_sim("curie", tmp_path / "nothing", "--from", "vampire", "-o", tmp_path / "b").exit_code == 2
    wrong = mmace_sim(
        "curie", tmp_path / "all", "--from", "uppasd", "--method", "direct", "-o", tmp_path / "c"
    )
    assert wrong.exit_code == 2
    assert "needs --method heisenberg" in wrong.output
