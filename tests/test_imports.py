"""The layout of the package: imports go downward only, files and functions stay short."""

import ast
from pathlib import Path

import pytest

import mmace_sim

ROOT = Path(mmace_sim.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MAX_LINES = 400

BASE = {"base", "errors", "files", "plots", "units"}
_MODEL = BASE | {"nn", "graph", "hub", "model", "architectures"}
_TORCHSIM = _MODEL | {"io", "torchsim", "calculator", "testing"}
_PROPERTIES = _TORCHSIM | {"executors", "interop", "structures", "engine", "sampling", "properties"}
MAY_IMPORT = {
    **dict.fromkeys(BASE, BASE),
    "nn": BASE,
    "graph": BASE,
    "io": BASE | {"graph"},
    "hub": BASE,
    "executors": BASE,
    "model": BASE | {"nn", "graph", "hub"},
    "architectures": BASE | {"nn", "graph", "model"},
    "calculator": BASE | {"nn", "graph", "model"},
    "ase_plugin": BASE,
    "torchsim": BASE | {"nn", "graph", "model", "io"},
    "testing": _MODEL - {"hub", "architectures"} | {"torchsim", "calculator"},
    "interop": _MODEL | {"testing"},
    "structures": BASE | {"graph", "hub", "io", "model", "torchsim"},
    "engine": BASE | {"executors", "graph", "interop", "io", "model", "structures", "torchsim"},
    "sampling": BASE | {"graph", "model", "structures", "torchsim"},
    "properties": _PROPERTIES - {"interop", "architectures"},
    "training": _MODEL | {"engine", "executors", "io", "interop"},
    "quality": _PROPERTIES - {"interop", "architectures"},
    "report": BASE | {"graph", "io", "structures", "engine"},
    "data": _PROPERTIES | {"training", "quality", "report"},
    "cli": _PROPERTIES | {"training", "quality", "report", "data"},
    "__main__": {"cli"},
}
"""Layer: the layers below it (each layer may import itself)."""

MAX_ARGUMENTS = 8
MANY_ARGUMENTS = {
    "magnetic_fire_step": "ts.optimize passes the parameters of FIRE one by one, under TorchSim's names",
    "spin_lattice_step": "ts.integrate passes what an integrator takes one by one, under TorchSim's names",
    "check_model": "what is checked, how strictly, and where a model given by name is loaded",
    "HeisenbergModel.__init__": "the terms of its energy, each zero or known by default",
    "SingleIonModel.__init__": "the terms of its energy, each zero or known by default",
}
"""Functions that take more than `MAX_ARGUMENTS`, and why."""

MACE_FILES = {"nn", "interop/from_mace.py"}
"""Where mace-torch may be imported, so that it can be replaced in one place."""


FOLDERS = {
    "base": "quantities, units, settings, text, signals, hosts: what computes nothing",
    "files": "writing, locking, removing what a run wrote",
    "nn": "blocks of networks: tensors in, tensors out",
    "graph": "a batch of structures as a graph, neighbour lists, moments of `Atoms`",
    "io": "the only readers and writers of structures and labels",
    "hub": "the catalogue of models, downloads, the cache",
    "model": "energy model, reference energies, derivatives, model file, registry",
    "architectures": "further energy models",
    "calculator": "ASE's calculator",
    "torchsim": "TorchSim model, state, solvers, dynamics",
    "testing": "models with known answers, identities, conformance (public)",
    "interop": "checkpoints of other codes",
    "structures": "starting moments, symmetry, checks, which model for which structure",
    "executors": "who computes: this process, or Parsl's workers",
    "engine": "batches, journal, resume, signals, tables: the life of a run",
    "sampling": "Monte Carlo on one batched state",
    "properties": "one folder for each property",
    "training": "configuration, data, loss, run, fine-tuning, evaluation",
    "quality": "preflight of data, checks of models",
    "report": "a run as one page",
    "data": "propose, select, label, learn",
    "cli": "commands",
}
"""What each folder (or module) has room for, as the page on the architecture says it."""


def layers_of_the_page():
    """The table of docs/architecture.md; `python tests/test_imports.py` writes it there."""
    known = sorted(BASE)
    lines = ["| Folder | Room for | May import |", "|---|---|---|"]
    for name, text in FOLDERS.items():
        further = sorted(MAY_IMPORT[name] - BASE - {name})
        allowed = "only these" if name in BASE else ", ".join(f"`{other}`" for other in further) or "the base"
        lines.append(f"| `{name}` | {text} | {allowed} |")
    base = ", ".join(f"`{name}`" for name in known)
    return "\n".join(lines) + f"\n\nAll may import the base: {base}.\n"


PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
BEGIN, END = "<!-- table of tests/test_imports.py -->\n\n", "\n<!-- end of the table -->"


def test_the_page_on_the_architecture_says_what_is_tested():
    page = PAGE.read_text(encoding="utf-8")
    assert page.partition(BEGIN)[2].partition(END)[0] == layers_of_the_page(), "python tests/test_imports.py"


def test_every_folder_has_a_place_on_the_page():
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert folders <= set(FOLDERS)
    assert set(FOLDERS) <= set(MAY_IMPORT)


def layer_of(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported_modules(path):
    """Yield the full name of every module that a file imports, at any depth of the code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "mmace_sim":
                yield from (f"mmace_sim.{alias.name}" for alias in node.names)
            else:
                yield node.module


def host_modules(path):
    """Modules of other packages that a file imports, ``from ase import io`` among them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downward(path):
    layer = layer_of(path)
    if layer == "__init__":
        return
    assert layer in MAY_IMPORT, f"{layer} has no place in the layout: add it to MAY_IMPORT"
    imported = {name.split(".")[1] for name in imported_modules(path) if name.startswith("mmace_sim.")}
    imported.discard("__version__")
    upward = imported - MAY_IMPORT[layer] - {layer}
    assert not upward, f"{path.relative_to(ROOT)} imports {sorted(upward)} from above"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_short(path):
    n_lines = len(path.read_text().splitlines())
    assert n_lines <= MAX_LINES, f"{path.relative_to(ROOT)} has {n_lines} lines: split it by concept"


def arguments_of(path):
    """Name of each function or method of a file with the number of its arguments, without ``self`` and ``**rest``."""

    def visit(node, owner):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                taken = child.args.posonlyargs + child.args.args + child.args.kwonlyargs
                yield owner + child.name, len([one for one in taken if one.arg not in ("self", "cls")])
            inner = f"{child.name}." if isinstance(child, ast.ClassDef) else owner
            yield from visit(child, inner)

    yield from visit(ast.parse(path.read_text()), "")


def test_functions_take_few_arguments():
    many = {name for path in FILES for name, count in arguments_of(path) if count > MAX_ARGUMENTS}
    assert many - set(MANY_ARGUMENTS) == set(), "make a settings object of what belongs together"
    assert set(MANY_ARGUMENTS) <= many, "these need no exception any more"


def test_mace_is_imported_in_one_place():
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(name.split(".")[0] == "mace" for name in imported_modules(path))
    }
    assert {
        user for user in users if user not in MACE_FILES and user.split("/")[0] not in MACE_FILES
    } == set()


def test_torch_sim_is_imported_with_its_kernels_late():
    """Through `base.hosts`, or below `mmace_sim.torchsim`, whose ``__init__`` imports that first."""
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(name.split(".")[0] == "torch_sim" for name in imported_modules(path))
    }
    assert {user for user in users if not user.startswith("torchsim/")} == {"base/hosts.py"}


def test_typed_modules_evaluate_their_annotations():
    """With postponed annotations, shapes would be strings that nobody checks."""
    lazy = [p for p in FILES if "from __future__ import annotations" in p.read_text()]
    assert lazy == []


OPENS_FILES = ("ase.io", "ase.db", "pymatgen.io", "phonopy.interface", "phonopy.file_IO")
"""Modules of other packages that read or write structures: for `mmace_sim.io` alone."""

MAY_OPEN_FILES = {
    "properties/phonons/output.py": "writes phonopy's own FORCE_SETS and FORCE_CONSTANTS",
}


def test_structure_files_are_opened_in_one_folder():
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        if layer_of(path) != "io"
        and any(f"{name}.".startswith(f"{known}.") for name in host_modules(path) for known in OPENS_FILES)
    }
    assert users - set(MAY_OPEN_FILES) == set(), "read and write structures through mmace_sim.io"
    assert set(MAY_OPEN_FILES) <= users, "these need no exception any more"


def test_importing_the_package_is_light():
    """Heavy libraries are loaded on first use: `mmace-sim --help` and ASE's plugin must stay fast."""
    import subprocess
    import sys

    code = (
        "import sys, mmace_sim; print([m for m in ('torch', 'ase', 'pymatgen', 'e3nn') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + layers_of_the_page() + END + rest.partition(END)[2], encoding="utf-8")
