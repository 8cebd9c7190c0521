"""The pages of the documentation that follow from the code are those that are committed."""

import runpy
from pathlib import Path

import pytest

import mmace_sim

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))


@pytest.mark.usefixtures("tools")
def test_committed_pages_are_those_of_the_code():
    pages = runpy.run_path(str(ROOT / "tools" / "reference_pages.py"))["all_pages"]()
    folder = ROOT / "docs" / "reference"
    committed = {str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*.md")}
    assert sorted(committed) == sorted(pages)
    stale = [name for name, text in pages.items() if committed[name] != text]
    assert not stale, f"{stale} do not say what the code does: run `make reference`"


@pytest.mark.usefixtures("tools")
def test_every_public_name_of_the_package_has_a_place():
    """What `import mmace_sim` offers, what packages of properties name, and what the documentation imports."""
    from api_reference import PAGES, found, shown

    names = [name for page in PAGES.values() for name in shown(page)]
    assert len(names) == len(set(names)), "an object stands on two pages"
    objects = {id(found(name)) for name in names if "." in name}
    missing = [
        name
        for name in mmace_sim.__all__
        if name != "__version__" and id(getattr(mmace_sim, name)) not in objects
    ]
    assert set(missing) <= {"torchsim", "testing"}  # modules, which have pages of their own
    packages = {package for page in PAGES.values() for package in page.packages}
    folders = {path.parent.name for path in (ROOT / "mmace_sim" / "properties").glob("*/__init__.py")}
    assert {f"mmace_sim.properties.{folder}" for folder in folders} <= packages
