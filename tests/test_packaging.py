"""The package as an installed thing: metadata, entry points, light imports, the search for a Python, the demo."""

import os
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml

import mmace_sim
from mmace_sim.graph.atoms import get_magmoms, has_magmoms
from mmace_sim.io.collection import load_structures
from mmace_sim.structures.magnetic_order import MagneticOrder, classify_order

ROOT = Path(__file__).parents[1]


def test_version_is_the_one_of_the_project_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert mmace_sim.__version__ == version("mmace-sim") == project["version"]
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {project['version']}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("group", "name"),
    [("console_scripts", "mmace-sim"), ("ase.plugins", "mmace_sim"), ("mmace_sim.models", "default")],
)
def test_entry_points_load(group, name):
    (entry,) = entry_points(group=group, name=name)
    assert entry.load() is not None


def test_public_names_exist():
    for name in mmace_sim.__all__:
        assert getattr(mmace_sim, name) is not None


@pytest.fixture(scope="module")
def setup_script():
    spec = spec_from_file_location("setup_script", ROOT / "setup.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_of_the_readme_lead_to_files(setup_script):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = [match[3].partition("#")[0] for match in setup_script.LINK.finditer(readme)]
    assert len(targets) > 5
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.parametrize("repository", ["", "https://example.org/mmace-sim"])
def test_long_description_has_no_relative_links(setup_script, repository):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = setup_script.long_description(readme, repository, "v1.2.3")
    assert setup_script.LINK.search(text) is None
    assert (f"({repository}/blob/v1.2.3/LICENSE)" in text) == bool(repository)
    assert "![" not in text or repository or "https://" in text
    assert set(setup_script.addresses(repository)) == (
        {"Repository", "Issues", "Changelog", "Documentation"} if repository else set()
    )


def test_a_release_is_refused_until_everything_names_its_version(tmp_path):
    spec = spec_from_file_location("check_release", ROOT / "tools" / "check_release.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    files = {
        "pyproject.toml": '[project]\nversion = "1.2.0"\n[tool.mmace_sim]\nrepository = "https://example.org/m"\n',
        "CHANGELOG.md": "# Changelog\n\n## [Unreleased]\n\n## [1.2.0] - 2030-01-02\n\n- One.\n",
        "CITATION.cff": (
            "title: m\nversion: 1.2.0\ndate-released: 2030-01-02\nrepository-code: https://example.org/m\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert module.faults("v1.2.0", tmp_path) == []
    assert any("says 1.2.0" in fault for fault in module.faults("v1.3.0", tmp_path))
    spoiled = {
        "pyproject.toml": ("https://example.org/m", "", "is empty"),
        "CHANGELOG.md": ("## [Unreleased]\n", "## [Unreleased]\n\n- Two.\n", "under [Unreleased]"),
        "CITATION.cff": ("version: 1.2.0", "version: 1.1.0", "does not say version 1.2.0"),
    }
    for name, (old, new, message) in spoiled.items():
        (tmp_path / name).write_text(files[name].replace(old, new), encoding="utf-8")
        assert any(message in fault for fault in module.faults("v1.2.0", tmp_path))
        (tmp_path / name).write_text(files[name], encoding="utf-8")


def test_address_of_the_repository_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    address = project["tool"]["mmace_sim"]["repository"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    if address:
        assert f"repository-code: {address}" in citation.replace('"', "")
    else:
        assert "repository-code" not in citation


GITHUB = ROOT / ".github"
in_a_clone = pytest.mark.skipif(
    not GITHUB.is_dir(), reason="the sources are no clone: .github is not part of an sdist"
)


@in_a_clone
def test_forms_of_github_offer_no_word_that_github_keeps_for_itself():
    """A dropdown adds "None" by itself, and a form that has it too is not shown."""
    for form in GITHUB.glob("ISSUE_TEMPLATE/*.yml"):
        fields = yaml.safe_load(form.read_text(encoding="utf-8")).get("body", [])
        offered = [option for field in fields for option in field.get("attributes", {}).get("options", [])]
        assert {str(option).lower() for option in offered}.isdisjoint({"none", "true", "false"}), form


@in_a_clone
def test_every_workflow_that_makes_an_environment_leaves_gpu_libraries_out():
    flows = {path.name: path.read_text(encoding="utf-8") for path in GITHUB.glob("workflows/*.yml")}
    arguments = {
        yaml.safe_load(text).get("env", {}).get("PIP_ARGS") for text in flows.values() if "run: make " in text
    }
    assert len(arguments) == 1
    assert "download.pytorch.org/whl/cpu" in arguments.pop()


@pytest.mark.parametrize("module", ["mmace_sim", "mmace_sim.ase_plugin", "mmace_sim.cli.app"])
def test_import_is_light(module):
    code = f"import sys, {module}; sys.exit(' '.join({{'torch', 'pymatgen', 'lightning'}} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{module} imports {done.stderr.strip()}"


def run_python(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=False)


def test_hosts_are_imported_without_their_warnings_and_gpu_kernels():
    code = """
import sys, mmace_sim, mmace_sim.torchsim, mmace_sim.properties.relax.structures
mmace_sim.load_model("default")
mmace_sim.MMACECalculator(model="default")
print({"mace", "e3nn", "warp", "nvalchemiops", "lightning", "pymatgen", "beartype"} & set(sys.modules) or "none")
"""
    done = run_python(code, "-W", "error")
    assert done.returncode == 0, done.stderr
    assert (done.stdout.strip(), done.stderr) == ("none", "")


def test_neighbour_kernels_are_the_real_ones_when_they_are_called():
    code = """
import torch
from mmace_sim.base.hosts import ts
assert ts.neighbors.ALCHEMIOPS_AVAILABLE
arguments = (torch.tensor([[0.0, 0, 0], [1.4, 1.4, 1.5]]), 2.8 * torch.eye(3)[None], torch.ones(1, 3).bool(), 3.0)
lists = [f(*arguments, torch.zeros(2).long())[0] for f in (ts.neighbors.torchsim_nl, ts.neighbors.torch_nl_linked_cell)]
import sys
assert "warp" in sys.modules
print(*(sorted(map(tuple, x.T.tolist())) == sorted(map(tuple, lists[0].T.tolist())) for x in lists), lists[0].shape[1] > 20)
"""
    done = run_python(code)
    assert done.stdout.split()[-3:] == ["True", "True", "True"], done.stderr


def test_module_runs_as_the_command_and_names_its_versions():
    command = [sys.executable, "-m", "mmace_sim"]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"mmace-sim {version('mmace-sim')}\n")
    for package in ("torch", "torch-sim-atomistic", "ase"):
        assert f"{package} {version(package)}" in done.stdout
    assert "CPU" in done.stdout or "NVIDIA" in done.stdout
    named = os.environ | {
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"
    }  # else that of the parent process
    shown = subprocess.run(
        [*command, "--show-completion", "bash"], capture_output=True, text=True, check=False, env=named
    )
    assert "complete" in shown.stdout
    assert "mmace-sim" in shown.stdout


def find_python(path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(ROOT / "tools" / "find_python.sh"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False
    )


@pytest.fixture
def tools(tmp_path):
    """A PATH with what the script needs and no Python."""
    for name in ("cat", "env", "grep", "sort"):
        source = next(p for d in ("/bin", "/usr/bin") if (p := Path(d) / name).exists())
        (tmp_path / name).symlink_to(source)
    return tmp_path


def fake_python(path: Path, version: str) -> None:
    path.write_text(f'#!/bin/sh\ncase "$2" in *print*) echo "{version} {path}";; *exit*) exit 1;; esac\n')
    path.chmod(0o755)


def test_no_python_says_what_to_install(tools):
    done = find_python(str(tools))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "needs Python >= 3.12" in done.stderr
    assert "no python3.12" in done.stderr
    assert "apt install python3" in done.stderr


def test_old_python_is_named(tools):
    fake_python(tools / "python3", "3.11.2")
    done = find_python(str(tools))
    assert done.returncode == 1
    assert "python3 is Python 3.11.2, too old" in done.stderr


def test_running_python_is_found(tools):
    (tools / "python3.12").symlink_to(sys.executable)
    done = find_python(str(tools))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).exists()


def test_named_python_is_the_only_one_tried(tools):
    (tools / "python3.12").symlink_to(sys.executable)
    done = find_python(str(tools), str(tools / "missing"))
    assert done.returncode == 1
    assert "missing cannot be run" in done.stderr


def test_demo_structures_are_what_the_script_writes(tmp_path):
    script = ROOT / "examples" / "make_structures.py"
    subprocess.run([sys.executable, "-W", "ignore", str(script), str(tmp_path)], check=True)
    for folder in ("structures", "alloys"):
        written = {p.name: p.read_text(encoding="utf-8") for p in (tmp_path / folder).iterdir()}
        kept = {p.name: p.read_text(encoding="utf-8") for p in (ROOT / "examples" / folder).iterdir()}
        assert written.keys() == kept.keys()
        for name in written:
            assert_same_but_for_rounding(written[name], kept[name])


def assert_same_but_for_rounding(a: str, b: str) -> None:
    for x, y in zip(a.split(), b.split(), strict=True):
        try:
            assert float(x) == pytest.approx(float(y), abs=1e-7)
        except ValueError:
            assert x == y


def test_demo_structures_are_read_with_their_moments():
    loaded = {entry.name: entry.atoms for entry in load_structures([ROOT / "examples" / "structures"])}
    assert len(loaded) >= 12
    assert not has_magmoms(loaded["bcc_fm.cif"])
    assert not has_magmoms(loaded["bcc_strained.POSCAR"])
    assert classify_order(get_magmoms(loaded["fcc_afmd.mcif"])) == MagneticOrder.AFM
    assert classify_order(get_magmoms(loaded["fcc_spiral.mcif"])) == MagneticOrder.NON_COLLINEAR
    assert classify_order(get_magmoms(loaded["fcc_fm.json"])) == MagneticOrder.FM
    assert classify_order(get_magmoms(loaded["bcc_nm.extxyz"])) == MagneticOrder.NON_MAGNETIC
