"""Sphinx configuration. Build with ``make docs``."""

import sys
import tomllib
import warnings
from pathlib import Path

import mmace_sim

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "mmace_sim"
author = "The mmace_sim developers"
copyright = "The mmace_sim developers"
release = version = mmace_sim.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "docstrings",
    "mathml",
]
exclude_patterns = ["_build", "reference/*.md", "auto_examples/*.ipynb"]
default_role = "code"
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

smartquotes = False  # `--no-report` must stay what it is
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"mmace_sim {release}"
repository = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mmace_sim"][
    "repository"
]
if repository:
    html_theme_options = {
        "source_repository": f"{repository}/",
        "source_branch": "main",
        "source_directory": "docs/",
    }

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Only links within the documentation are checked: other projects' inventories would need the network.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!mmace_sim).*"),
    (r"py:.*", r"mmace_sim\.(nn|properties\.\w+\.declaration)\..*"),
]
suppress_warnings = ["toc.empty_glob", "config.cache"]

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/\d\d_",
    "within_subsection_order": "FileNameSortKey",
    "ignore_pattern": r"(make_structures|__init__)\.py",
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "min_reported_time": 1,
    "abort_on_example_error": True,
}
warnings.filterwarnings("ignore", category=FutureWarning)
