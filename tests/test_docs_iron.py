"""Pages of iron and the cards of the embedded models: what scripts write into them is what the JSON files say."""

import importlib
import json
import sys
from pathlib import Path

import pytest

import mmace_sim
from mmace_sim import load_model
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.model.registry import DEFAULT_MODEL

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "docs" / "models"
IRON = json.loads((MODELS / "iron.json").read_text(encoding="utf-8"))


@pytest.fixture
def refresh(monkeypatch):
    """The script that writes the pages; its neighbours can be imported."""
    monkeypatch.syspath_prepend(str(MODELS))
    yield importlib.import_module("refresh")
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(MODELS)):
            del sys.modules[name]


def test_generated_parts_are_what_the_script_writes(refresh):
    assert {page.PAGE.name for page in refresh.PAGES} == {"iron.md", "mmace-3d-pbe.md", "mmace-fe-pbe.md"}
    for page in refresh.PAGES:
        text = page.PAGE.read_text(encoding="utf-8")
        assert page.anew(text) == text, "python docs/models/refresh.py --pages"


@pytest.mark.parametrize("name", IRON)
def test_iron_is_that_of_the_weights_of_the_package(refresh, name):
    measured, model = IRON[name], load_model(name)
    bcc = refresh.iron.cell("bcc_fm", measured["states"]["bcc_fm"]["volume"])
    (result,) = mmace_sim.relax([bcc], model, **refresh.iron.TIGHT)
    again = f"python docs/models/refresh.py {name}"
    assert result.atoms.cell.lengths()[0] == pytest.approx(measured["lattice_constant"], abs=2e-4), again
    assert get_magmoms(result.atoms)[0, 2] == pytest.approx(measured["moment"], abs=2e-3), again


def test_bold_is_what_lies_far_from_the_literature(refresh):
    bold = refresh.iron_page.bold
    assert bold("95", 95, 100, 110) == "95"
    assert bold("84", 84, 100, 110) == "**84**"
    assert bold("127", 127, 100, 110) == "**127**"
    assert bold("−4.3", -4.3, 20.6, 20.6, 5.5) == "**−4.3**"
    assert bold("−1.0", -1.0, -1.6, -1.6, 5.5) == "−1.0"


@pytest.mark.usefixtures("refresh")
def test_marks_stay_and_zero_has_no_sign():
    tables = importlib.import_module("page_tables")
    text = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n"
    once = tables.filled(text, "x", "new\n")
    assert once == "a\n<!-- x -->\n\nnew\n\n<!-- end of x -->\nb\n"
    assert tables.filled(once, "x", "new\n") == once
    assert [tables.number(x, 1) for x in (-0.04, -1.26, 2)] == ["0.0", "−1.3", "2.0"]


def test_the_figure_of_the_readme_is_of_the_model_that_its_caption_names(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    drawn = importlib.import_module("readme_figure").MODEL
    caption = next(
        line
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if "`docs/readme_figure.py`" in line
    )
    named = (
        DEFAULT_MODEL if "the default model" in caption else next(name for name in IRON if name in caption)
    )
    assert drawn == named


def test_errors_of_the_card_of_iron_are_those_of_the_weights_of_the_package(refresh):
    card = json.loads((MODELS / "mmace-fe-pbe.json").read_text(encoding="utf-8"))
    model, again = load_model("mmace-fe-pbe"), "python docs/models/refresh.py mmace-fe-pbe"
    for name, errors in refresh.measure.test_errors(model).items():
        assert errors == pytest.approx(card["test_errors"][name], rel=1e-4), again
    assert card["calibration"] == model.metadata["uncertainty"]["calibration"], again


def test_an_unknown_model_is_named(refresh, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["refresh.py", "mmace-none"])
    with pytest.raises(
        SystemExit, match="no embedded model: mmace-none; there are mmace-3d-pbe, mmace-fe-pbe"
    ):
        refresh.main()
