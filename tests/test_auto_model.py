"""The right model for each structure of a mixed folder, by itself."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from cli_tools import csv_rows, mmace_sim, summary_of, write_tiny_model
from embedded import IRON_MODEL

import mmace_sim as package
from mmace_sim.errors import ModelFileError, UnsupportedElementError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.hub.store import model_folder
from mmace_sim.interop import install
from mmace_sim.model.checkpoint import load_model, save_model
from mmace_sim.model.registry import DEFAULT_MODEL
from mmace_sim.structures.model_choice import choose_model, which_model


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of models."""
    monkeypatch.setenv("MMACE_SIM_CACHE", str(tmp_path / "cache"))
    model_folder().mkdir(parents=True)
    return model_folder()


@pytest.fixture
def fe_cu(cache):
    """A tiny model of Fe and Cu, installed; the default model does not know Cu."""
    return write_tiny_model(cache / "fe-cu.safetensors", elements=[26, 29])


@pytest.fixture
def folder(tmp_path):
    """Iron, FeCu, and EuO, which no model at hand knows."""
    found = tmp_path / "structures"
    found.mkdir()
    bulk("Fe", "bcc", a=2.83, cubic=True).write(found / "a_iron.cif")
    Atoms("FeCu", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.9] * 3, pbc=True).write(
        found / "b_fecu.cif"
    )
    bulk("EuO", "rocksalt", a=5.14).write(found / "c_euo.cif")
    bulk("Fe", "bcc", a=2.80).write(found / "d_iron.cif")
    return found


@pytest.mark.usefixtures("fe_cu")
def test_the_default_model_first_then_the_one_with_the_fewest_elements(cache):
    assert choose_model([26]) == DEFAULT_MODEL
    assert choose_model([26, 29, 29]) == "fe-cu"
    shutil.copy(cache / "fe-cu.safetensors", cache / "aaa.safetensors")
    assert choose_model([29]) == "aaa"  # alphabetical among equals
    (cache / "broken.safetensors").write_bytes(b"nonsense")
    assert choose_model([29]) == "aaa"
    write_tiny_model(cache / "0-with-zinc.safetensors", elements=[26, 29, 30])
    assert choose_model([29]) == "aaa"  # before a name that comes first and has more elements
    with pytest.raises(UnsupportedElementError, match=r"models get mmace-matpes-pbe.*84 MB, CC-BY-4\.0"):
        choose_model([8, 63])
    assert "aaa, fe-cu, 0-with-zinc (--model NAME)" in which_model([29])


def test_files_with_fewer_elements_are_not_taken_over_the_default(cache, tmp_path):
    """Not the embedded model of iron, nor what a user has installed, for iron and for alloys; they are named after it."""
    write_tiny_model(cache / "aaa.safetensors", elements=[26])
    write_tiny_model(cache / "bbb.safetensors", elements=[13, 26])
    known = load_model(DEFAULT_MODEL).elements
    for elements in ([26], [13, 26], known, *([z] for z in known)):
        assert choose_model(elements) == DEFAULT_MODEL
    assert f"{DEFAULT_MODEL}, aaa, {IRON_MODEL}, bbb (--model NAME)" in which_model([26])
    assert f"{DEFAULT_MODEL}, bbb (--model NAME)" in which_model([13, 26])
    bulk("Fe", "bcc", a=2.83).write(tmp_path / "iron.cif")
    out = tmp_path / "out"
    run = mmace_sim(
        "relax", tmp_path / "iron.cif", "-o", out, "--fixed-cell", "--max-steps", "1", "--no-stability"
    )
    assert run.exit_code in (0, 3), run.output
    assert [entry["model"] for entry in summary_of(out)["structures"]] == [DEFAULT_MODEL]


@pytest.mark.usefixtures("fe_cu")
def test_a_mixed_folder_is_relaxed_group_by_group(folder, tmp_path):
    out = tmp_path / "out"
    result = mmace_sim("relax", folder, "-o", out, "--fixed-cell", "--max-steps", "2", "--device", "cpu")
    assert result.exit_code == 3
    summary = summary_of(out)
    entries = summary["structures"]
    assert [entry["name"][0] for entry in entries] == ["a", "b", "c", "d"]
    assert [entry["model"] for entry in entries] == [DEFAULT_MODEL, "fe-cu", None, DEFAULT_MODEL]
    assert list(summary["models"]) == [DEFAULT_MODEL, "fe-cu"]
    assert entries[0]["energy_per_atom"] == pytest.approx(-9.05, abs=0.05)
    assert "mmace-sim models get mmace-matpes-pbe" in entries[2]["message"]
    models = [row["model"] for row in csv_rows(out / "summary.csv")]
    assert models == [DEFAULT_MODEL, "fe-cu", "", DEFAULT_MODEL]
    said = " ".join(result.output.split())
    assert "Energies of different models are on different zeros" in said
    assert "fe-cu knows all these elements: --model fe-cu" in said
    alone = mmace_sim(
        "relax", folder / "b_fecu.cif", "-o", tmp_path / "alone", "--model", "fe-cu", "--fixed-cell",
        "--max-steps", "2", "--device", "cpu",
    )  # fmt: skip
    assert alone.exit_code == 3, alone.output  # two steps are not enough
    assert summary_of(tmp_path / "alone")["structures"][0]["energy"] == pytest.approx(
        entries[1]["energy"], rel=1e-10
    )


@pytest.mark.usefixtures("fe_cu")
@pytest.mark.parametrize(
    "command",
    [
        ["eos", "--n-volumes", "5", "--states", "fm"],
        ["moments", "--starts", "1", "--max-steps", "2"],
        ["exchange", "--cutoff", "2.6", "--max-steps", "2"],
        ["md", "--steps", "2", "--timestep", "1"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_computes_a_mixed_folder(command, folder, tmp_path):
    out = tmp_path / "out"
    result = mmace_sim(command[0], folder, "-o", out, *command[1:], "--device", "cpu", "--threads", "1")
    assert result.exit_code in (0, 3), result.output
    entries = summary_of(out)["structures"]
    assert [entry["model"] for entry in entries] == [DEFAULT_MODEL, "fe-cu", None, DEFAULT_MODEL]


@pytest.mark.usefixtures("fe_cu")
def test_a_resumed_run_keeps_its_models(folder, tmp_path):
    arguments = [
        "relax",
        folder,
        "-o",
        tmp_path / "out",
        "--fixed-cell",
        "--max-steps",
        "1",
        "--device",
        "cpu",
    ]
    assert mmace_sim(*arguments).exit_code == 3
    again = mmace_sim(*arguments, "--resume")
    assert again.exit_code == 3
    assert "from the earlier run" in again.output


@pytest.mark.parametrize("way", ["--yes", "variable"])
def test_missing_models_are_fetched_if_that_is_allowed(way, cache, folder, tmp_path, monkeypatch):
    fetched = []

    def get(name, **_):
        fetched.append(name)
        write_tiny_model(cache / f"{name}.safetensors", elements=[8, 13, 26, 29, 47, 57, 58, 63, 64, 79])

    monkeypatch.setattr(install, "get_model", get)
    flags = [way] if way == "--yes" else []
    if way == "variable":
        monkeypatch.setenv("MMACE_SIM_AUTO_GET", "1")
    out = tmp_path / "out"
    result = mmace_sim(
        "relax", folder, "-o", out, *flags, "--fixed-cell", "--max-steps", "1", "--device", "cpu"
    )
    assert fetched == ["mmace-matpes-pbe"]
    assert "84 MB, CC-BY-4.0" in result.output
    assert [entry["model"] for entry in summary_of(out)["structures"]] == [
        DEFAULT_MODEL, "mmace-matpes-pbe", "mmace-matpes-pbe", DEFAULT_MODEL,
    ]  # fmt: skip


@pytest.mark.usefixtures("fe_cu")
def test_what_needs_no_download_is_computed_without_a_connection(folder, tmp_path, monkeypatch):
    asked = []

    def get(name, **_):
        asked.append(name)
        raise ModelFileError(f"{name} could not be fetched (no connection).")

    monkeypatch.setattr(install, "get_model", get)
    bulk("GdN", "rocksalt", a=5.0).write(folder / "e_gdn.cif")
    out = tmp_path / "out"
    result = mmace_sim(
        "relax", folder, "-o", out, "--yes", "--fixed-cell", "--max-steps", "1", "--device", "cpu"
    )
    assert result.exit_code == 3
    assert asked == ["mmace-matpes-pbe"]
    assert "could not be fetched" in result.output
    statuses = [entry["status"] for entry in summary_of(out)["structures"]]
    assert [status == "failed" for status in statuses] == [False, False, True, False, True]


@pytest.mark.usefixtures("cache")
def test_one_element_and_a_broken_catalogue_in_words(tmp_path, monkeypatch):
    with pytest.raises(UnsupportedElementError, match=r"no model at hand knows Og\. No model .* has it"):
        choose_model([118, 118])
    (tmp_path / "mine.yaml").write_text("nonsense")
    monkeypatch.setenv("MMACE_SIM_MODELS", str(tmp_path / "mine.yaml"))
    with pytest.raises(UnsupportedElementError, match=r"can be fetched is not known: .*mine\.yaml"):
        choose_model([8, 63])


def test_from_python(fe_cu):
    iron, mixed, unknown = bulk("Fe"), bulk("FeCu", "cesiumchloride", a=2.9), bulk("EuO", "rocksalt", a=5.14)
    for atoms in (iron, mixed, unknown):
        set_magmoms(atoms, np.ones(len(atoms)))
    seen = []
    result = package.relax(
        [unknown, mixed, iron],
        model="auto",
        relax_cell=False,
        max_steps=1,
        on_finished=lambda k, _: seen.append(k),
    )
    assert sorted(seen) == [0, 1, 2]
    assert str(result[0].status) == "failed"
    assert "models get" in result[0].message
    for atoms, found, model in ((iron, result[2], DEFAULT_MODEL), (mixed, result[1], fe_cu)):
        assert str(found.status) != "failed"
        alone = package.relax(atoms, model, relax_cell=False, max_steps=1)[0]
        assert found.energy == pytest.approx(alone.energy, rel=1e-10), model


@pytest.mark.usefixtures("cache")
@pytest.mark.filterwarnings("ignore::mmace_sim.errors.PhysicsWarning")
def test_magnets_of_any_elements_by_an_installed_model_of_89(tmp_path):
    """The benchmark's folder (Fe, NiO, FeAl, Mn3Pt, Cr2O3) and VO, with the shape of the published model but few channels."""
    path = Path(__file__).parent / "benchmarks" / "mixed_folder.py"
    spec = importlib.util.spec_from_file_location("mixed_folder", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    folder = tmp_path / "magnets"
    folder.mkdir()
    for name, atoms in benchmark.structures().items():
        atoms.write(folder / f"{name}.cif")
    bulk("VO", "rocksalt", a=4.06).write(folder / "VO.cif")
    file = save_model(benchmark.published_size(small=True), tmp_path / "any89.safetensors", {"name": "any89"})
    assert mmace_sim("models", "add", file).exit_code == 0
    result = mmace_sim(
        "relax", folder, "-o", tmp_path / "out", "--max-steps", "1", "--device", "cpu", "--no-stability"
    )
    assert result.exit_code in (0, 3), result.output
    entries = {Path(entry["file"]).stem: entry for entry in summary_of(tmp_path / "out")["structures"]}
    assert {name: entry["model"] for name, entry in entries.items()} == {
        "VO": "any89",
    } | dict.fromkeys(("Fe", "NiO", "FeAl", "Mn3Pt", "Cr2O3"), DEFAULT_MODEL)  # fmt: skip
    assert all(np.isfinite(entry["energy"]) for entry in entries.values())
    notes = {name: " ".join(entry["notes"]) for name, entry in entries.items()}
    assert "V 2 μB" in notes["VO"]
    assert "Mn 3" in notes["Mn3Pt"]
    assert "Compare with another model: --model any89" in notes["Cr2O3"]
    assert "outside" not in notes["NiO"]
