"""The pages of the documentation that follow from the code are those that are committed."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_committed_pages_are_those_of_the_code():
    pages = runpy.run_path(str(ROOT / "tools" / "reference_pages.py"))["all_pages"]()
    folder = ROOT / "docs" / "reference"
    committed = {str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*.md")}
    assert sorted(committed) == sorted(pages)
    stale = [name for name, text in pages.items() if committed[name] != text]
    assert not stale, f"{stale} do not say what the code does: run `make reference`"
