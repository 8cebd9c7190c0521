"""Whatever is wrong with a model file, there is one clear error before any memory is taken."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from embedded import IRON_MODEL
from model_mutations import encode, mutations, read_embedded
from typer.testing import CliRunner

from mmace_sim.cli.app import app
from mmace_sim.errors import ModelFileError
from mmace_sim.model.checkpoint import load_all_heads, load_model
from mmace_sim.model.registry import resolve_model

CASES = list(mutations())


def test_the_source_of_the_mutations_is_right(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(encode(*read_embedded()))
    assert load_model(path).elements == [26]
    assert len(CASES) > 220


@pytest.mark.parametrize("content", [c for _, c in CASES], ids=[name for name, _ in CASES])
def test_a_mutated_file_is_refused(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for load in (load_model, load_all_heads):
        with pytest.raises(ModelFileError) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 700


def test_refusing_takes_no_memory(tmp_path):
    code = """
        import resource, sys, pathlib
        sys.path.insert(0, sys.argv[2])
        from embedded import IRON_MODEL
        from model_mutations import mutations
        from mmace_sim.errors import ModelFileError
        from mmace_sim.model.checkpoint import load_model
        load_model(IRON_MODEL)
        used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
        path = pathlib.Path(sys.argv[1])
        for name, content in mutations():
            path.write_bytes(content)
            try:
                load_model(path)
            except ModelFileError:
                continue
            sys.exit(name)
    """
    arguments = [str(tmp_path / "model.safetensors"), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


SAMPLE = [CASES[k] for k in range(20, len(CASES), 130)]


@pytest.mark.parametrize("content", [c for _, c in SAMPLE], ids=[name for name, _ in SAMPLE])
@pytest.mark.parametrize(
    "command",
    [
        "convert FILE out.safetensors",
        "check FILE -o out",
        "evaluate FILE data.extxyz -o out",
        "finetune FILE data.extxyz -o out",
        "relax fe.cif -m FILE -o out",
    ],
    ids=lambda command: command.split()[0],
)
def test_every_command_refuses_it(command, content, tmp_path, monkeypatch):
    from ase.build import bulk
    from training_toys import write_toys

    monkeypatch.chdir(tmp_path)
    write_toys(tmp_path / "data.extxyz", n=4)
    bulk("Fe").write("fe.cif")
    (tmp_path / "m.safetensors").write_bytes(content)
    result = CliRunner().invoke(app, command.replace("FILE", "m.safetensors").split())
    assert result.exit_code == 2, result.output
    assert "m.safetensors" in result.output
    assert "Traceback" not in result.output


def test_the_list_of_models_names_what_is_wrong(tmp_path, monkeypatch):
    from mmace_sim.model import registry

    for k, (_, content) in enumerate(SAMPLE):
        (tmp_path / f"bad{k}.safetensors").write_bytes(content)
    monkeypatch.setattr(registry, "MODEL_FOLDER", tmp_path)
    result = CliRunner().invoke(app, ["models", "--json"])
    assert result.exit_code == 0, result.output
    spoiled = sum("inf" in name or "nan" in name for name, _ in SAMPLE)  # weights are not read
    assert result.output.count('"problem"') >= len(SAMPLE) - spoiled
    assert CliRunner().invoke(app, ["models"]).exit_code == 0


def test_names_that_no_file_can_have():
    for name in ("x" * 5000, "nul\0byte", "", "#", ".", "/"):
        with pytest.raises(ModelFileError):
            resolve_model(name)


def test_the_list_survives_strange_descriptions(tmp_path, monkeypatch):
    from mmace_sim.model import registry
    from mmace_sim.model.checkpoint import save_model

    strange = {
        "license": ["MIT"],
        "citation": "[/red]",
        "errors": {"test": {"energy": {"mae": "small"}}, "x": 3},
    }
    save_model(load_model(IRON_MODEL), tmp_path / "[bold].safetensors", strange)
    monkeypatch.setattr(registry, "MODEL_FOLDER", tmp_path)
    result = CliRunner().invoke(app, ["models"])
    assert result.exit_code == 0, result.output
    assert "[bold]" in result.output
