"""The page about a run: complete, safe, small, and without anything from outside."""

import json
from html.parser import HTMLParser

import ase.io
import numpy as np
import pytest
from cli_tools import bcc, mmace_sim, molecule, summary_of
from embedded import IRON_MODEL

from mmace_sim.errors import OutputError
from mmace_sim.report import MAX_BYTES, write_report
from mmace_sim.report.pictures import MAX_ATOMS, structure_svg
from mmace_sim.report.values import nested_tables, show, show_text, unit_of

EVIL = '<script>alert("x")</script>&.extxyz'
VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Collects elements and text, and checks that tags are closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.text = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def check_page(path, names):
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open
    assert path.stat().st_size < 2_000_000
    assert text.startswith("<!DOCTYPE html>")
    assert page.all("html")[0]["lang"] == "en"
    assert not {"script", "iframe", "object", "link", "form"} & {name for name, _ in page.elements}
    for tag, attrs in page.elements:
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href"):
            assert attrs.get(name, "#").startswith(("#", "data:image/")), (tag, attrs[name])
        assert attrs.get("xmlns", "http://www.w3.org/2000/svg") == "http://www.w3.org/2000/svg"
    assert "url(" not in text.split("</style>")[0]
    assert "@import" not in text.split("</style>")[0]
    assert all(attrs.get("alt") for attrs in page.all("img"))
    assert all(attrs.get("aria-label") and attrs["role"] == "img" for attrs in page.all("svg"))
    assert all("scope" in attrs for attrs in page.all("th"))
    targets = {attrs["id"] for _, attrs in page.elements if "id" in attrs}
    assert {attrs["href"][1:] for attrs in page.all("a")} <= targets
    for name in names:
        assert name in page.words
    return page


@pytest.fixture(scope="module")
def relaxed(tmp_path_factory, model):
    """A run with a good structure, a hostile name and info, one without moments in the file, and a broken file."""
    folder = tmp_path_factory.mktemp("relax")
    inputs = folder / "in"
    inputs.mkdir()
    ase.io.write(inputs / "afm.extxyz", bcc((2.0, -2.0), displacement=0.05))
    hostile = bcc()
    hostile.info["config_type"] = "<img src=x onerror=alert(1)>"
    ase.io.write(inputs / "a.extxyz", hostile)
    (inputs / "a.extxyz").rename(inputs / EVIL.replace("/", "∕"))
    ase.io.write(inputs / "bare.cif", bcc(None))
    (inputs / "broken.extxyz").write_text("<b>this is</b> no structure")
    out = folder / "run"
    result = mmace_sim("relax", inputs, "-m", model, "--max-steps", "3", "-o", out, "--report")
    assert result.exit_code == 3, result.output
    assert f"{out}/report.html, summary.json" in result.output
    return out


def test_a_relaxation(relaxed):
    names = [entry["name"] for entry in summary_of(relaxed)["structures"]]
    assert len(names) == 4
    page = check_page(relaxed / "report.html", names)
    assert len(page.all("article")) == 4
    assert len(page.all("svg")) == 3
    assert "moments initialised ferromagnetic" in page.words
    assert "max_steps" in page.words
    assert "torch-sim-atomistic" in page.words
    assert "Largest force of a converged structure" in page.words
    assert "above lowest" in page.words


def test_text_of_users_is_escaped(relaxed):
    text = (relaxed / "report.html").read_text()
    assert "<script" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;" in text


def test_the_command_writes_the_page_of_an_earlier_run(relaxed, tmp_path):
    before = (relaxed / "report.html").read_text()
    (relaxed / "report.html").unlink()
    result = mmace_sim("report", relaxed)
    assert result.exit_code == 0, result.output
    assert (relaxed / "report.html").read_text() == before
    result = mmace_sim("report", tmp_path)
    assert result.exit_code == 2
    assert "--output" in result.output


def test_figures_states_and_numbers_of_curves(tmp_path):
    ase.io.write(tmp_path / "iron.extxyz", bcc(a=2.83))
    ase.io.write(tmp_path / "iron_2.extxyz", bcc(a=2.83))
    out = tmp_path / "run"
    result = mmace_sim(
        "eos", tmp_path, "-m", IRON_MODEL, "--states", "fm,nm", "--n-volumes", "7", "-o", out, "--report"
    )
    assert result.exit_code in (0, 3), result.output
    page = check_page(out / "report.html", ["iron.extxyz", "iron_2.extxyz"])
    assert len(page.all("img")) == 4
    assert {attrs["alt"] for attrs in page.all("img")} == {
        f"Figure: {what} of {name}"
        for what in ("energy", "moment")
        for name in ("iron.extxyz", "iron_2.extxyz")
    }
    assert len(page.all("svg")) == 4
    assert "state fm" in page.words
    volume = summary_of(out)["structures"][0]["states"][0]["minima"][0]["volume"]
    assert f"{volume:.3f}" in page.words


def test_a_full_page_says_what_is_left_out(tmp_path, relaxed):
    for file in ("summary.json", "summary.csv", "relaxed.extxyz", "config.yaml", "log.txt"):
        (tmp_path / file).write_bytes((relaxed / file).read_bytes())
    (tmp_path / "figures").mkdir()
    noise = np.random.default_rng(0).bytes(MAX_BYTES)
    (tmp_path / "figures" / "afm_large.png").write_bytes(b"\x89PNG" + noise)
    (tmp_path / "figures" / "overview.png").write_bytes(b"\x89PNG" + noise[:1000])
    page = check_page(write_report(tmp_path), ["afm.extxyz"])
    assert "1 figures not shown" in page.words
    assert [attrs["alt"] for attrs in page.all("img")] == ["Figure: overview"]


def test_runs_without_a_report(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"structures": [], "finished": None}))
    with pytest.raises(OutputError, match="not finished"):
        write_report(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps({"report": {}}))
    with pytest.raises(OutputError, match="list of structures"):
        write_report(tmp_path)


def test_numbers_have_the_digits_of_their_unit():
    units = {"energy": "eV", "bulk, shear": "GPa, Hill's average", "volume_change": "relative to the start"}
    assert show("energy", -1.23456, units) == "−1.2346"
    assert show("energy", -1e-9, units) == "0.0000"
    assert show("shear", 81.26, units) == "81.3"
    assert show("volume_change", 0.0123, units) == "+1.23"
    assert show("max_force", 0.00123456, units) == "0.0012"
    assert show("other", {"Fe": 2.25, "Al": 0.01}, units) == "Fe 2.25, Al 0.01"
    assert show("other", None, units) == "–"
    assert show_text("magmom_by_species", "Fe:2.2500 Al:0.0100", units) == "Fe 2.25, Al 0.01"
    assert show_text("magnetic_space_group", "139.10", units) == "139.10"
    assert unit_of("volume_change", units) == "%"


def test_matrices_records_and_lists_by_name_are_tables():
    entry = {
        "points": [{"x": k} for k in range(100)],
        "crossings": [{"below": "fm", "volume": 11.0}],
        "constants": {"fixed": {"c_gpa": [[1.0, 2.0], [3.0, 4.0]]}},
        "frequencies": {"H": [8.5, 8.5]},
    }
    tables = {table.caption: table for table in nested_tables(entry, {"volume": "Å³/atom", "c_gpa": "GPa"})}
    assert set(tables) == {"crossings", "fixed: c\n(GPa)", "frequencies"}
    assert tables["crossings"].header == ["below", "volume\n(Å³/atom)"]
    assert tables["frequencies"].rows == [["H", "8.5", "8.5"]]


def test_pictures_colour_signs_and_directions():
    afm = structure_svg(bcc((2.0, -2.0)), "t")
    assert afm.count("<polygon") == 9 + 2  # corners, centre, legend
    assert "along +z" in afm
    assert "along −z" in afm
    assert afm.count("<line") == 12
    turned = bcc(None)
    turned.set_initial_magnetic_moments(np.array([[2.0, 0, 0], [0, 0, 2.0]]))
    assert "from" in structure_svg(turned, "t")
    assert "no moments" in structure_svg(bcc((0.0, 0.0)), "t")
    assert "<line" not in structure_svg(molecule(), "t")
    assert "&quot;&lt;x" in structure_svg(bcc(), '"<x')


def test_what_cannot_be_drawn_is_not():
    large = bcc() * (6, 6, 6)
    assert len(large) > MAX_ATOMS
    assert structure_svg(large, "t") is None
    broken = bcc()
    broken.positions[0] = np.nan
    assert structure_svg(broken, "t") is None


def test_several_lines_for_a_structure(tmp_path, relaxed):
    """As `order` writes: one entry, many lines with energies of their own."""
    summary = json.loads((relaxed / "summary.json").read_text())
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    lines = (relaxed / "summary.csv").read_text().splitlines()
    (tmp_path / "summary.csv").write_text("\n".join([*lines, lines[-1]]) + "\n")
    page = check_page(write_report(tmp_path), ["afm.extxyz"])
    assert "above lowest" not in page.words
