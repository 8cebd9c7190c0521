"""What a run may replace and remove in its folder: its own files, and nobody else's."""

import json
import os
import signal
import subprocess
import sys

import ase.io
import pytest
import yaml
from cli_tools import bcc, exit_code_of, in_a_copy, mmace_sim, names_in, summary_of, write_tiny_model
from training_toys import TINY_MODEL, write_toys

from mmace_sim import files
from mmace_sim.engine.folder import open_folder
from mmace_sim.errors import OutputError
from mmace_sim.files import Manifest, append, replacing, write_text
from mmace_sim.files.manifest import FILE_NAME as LIST


def make_run(folder, *, command="relax", names=("summary.json", "sub/table.csv"), text="ours\n"):
    """A folder as a run leaves it."""
    with open_folder(folder, command, resume=None, force=False):
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            files.write_text(folder / name, text)
    return folder


def force(folder, command="relax", inputs=(), name="summary.json"):
    with open_folder(folder, command, resume=None, force=True, inputs=inputs) as (manifest, _):
        files.write_text(folder / name, "new\n")
    return manifest


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LIST
    }


def test_force_removes_what_the_run_wrote_and_nothing_else(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "notes.txt").write_text("mine")
    (run / "sub" / "relaxed.extxyz").write_text("mine")  # a name that some command uses
    force(run)
    assert content(run) == {"summary.json": "new\n", "notes.txt": "mine", "sub/relaxed.extxyz": "mine"}


def test_a_changed_file_is_kept_and_named(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    (run / "sub" / "table.csv").write_text("ours!\n")  # as long as before
    force(run)
    assert "table.csv: changed since" in capsys.readouterr().err
    assert content(run) == {"summary.json": "new\n", "sub/table.csv": "ours!\n"}
    force(run, name="sub/table.csv")  # what is in the way of a result is set aside
    assert "it is now table.csv.kept" in capsys.readouterr().err
    assert content(run) == {"sub/table.csv": "new\n", "sub/table.csv.kept": "ours!\n"}
    (run / "sub" / "table.csv").write_text("mine again")
    (run / "sub" / "table.csv.kept").chmod(0o600)
    force(run, name="sub/table.csv")
    assert (run / "sub" / "table.csv.kept2").read_text() == "mine again"


def test_a_changed_file_that_would_be_written_again_stops_everything(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "summary.json").write_text("mine")
    before = content(run)
    with pytest.raises(OutputError, match=r"summary.json changed since.*Nothing was removed"):
        force(run)
    assert content(run) == before


def test_nothing_goes_before_the_first_write(tmp_path):
    run = make_run(tmp_path / "run")
    before = content(run) | {LIST: (run / LIST).read_text()}
    with open_folder(run, "relax", resume=None, force=True):  # and then an option that the model lacks
        pass
    assert content(run) | {LIST: (run / LIST).read_text()} == before
    with pytest.raises(ZeroDivisionError), open_folder(tmp_path / "new", "eos", resume=None, force=False):
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()


def test_links_lead_nowhere(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "table.csv").write_text("ours\n")  # the very bytes of the run
    (outside / "summary.json").write_text("ours\n")
    run = make_run(tmp_path / "run")
    (run / "summary.json").unlink()
    (run / "summary.json").symlink_to(outside / "summary.json")
    with pytest.raises(OutputError, match=r"summary\.json changed since"):
        force(run)
    (run / "summary.json").unlink()
    (run / "sub" / "table.csv").unlink()
    (run / "sub").rmdir()
    (run / "sub").symlink_to(outside)
    (run / "other.txt").write_text("x")
    force(run)
    force(run, name="sub/table.csv")  # written into a folder of the run, the link is set aside
    assert (run / "sub.kept").is_symlink()
    assert not (run / "sub").is_symlink()
    assert content(outside) == {"table.csv": "ours\n", "summary.json": "ours\n"}
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(OutputError, match=r"is a symbolic link.*--output"):
        force(tmp_path / "link")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    with pytest.raises(OutputError, match=r"dangling: is a link to .*gone, which is not there"):
        make_run(tmp_path / "dangling")
    (run / LIST).rename(outside / "list")
    (run / LIST).symlink_to(outside / "list")
    with pytest.raises(OutputError, match="it is a symbolic link"):
        force(run)


@pytest.mark.parametrize(
    "line",
    [
        *(
            f'{{"file": "{name}", "size": 5, "sha256": "HASH"}}'
            for name in ("../x", "OUTSIDE", "sub/../../x", "")
        ),
        '{"file": 3, "size": 5, "sha256": "HASH"}',
        '{"file": "x", "size": true, "sha256": "HASH"}',
        '{"file": "x", "size": 5, "sha256": null}',
        '{"holder": "../.mmace-0123456789abcdef"}',
        '{"holder": "sub"}',
        '{"command": "relax", "version": 99}',
        '["x"]',
        "nonsense",
        "[" * 10**5,
        "\x00",
    ],
)
def test_a_list_that_was_tampered_with_removes_nothing(tmp_path, line):
    run = make_run(tmp_path / "run")
    (tmp_path / "x").write_text("ours\n")
    size_and_hash = json.loads((run / LIST).read_text().splitlines()[2])["sha256"]
    line = line.replace("HASH", size_and_hash).replace("OUTSIDE", str(tmp_path / "x"))
    with (run / LIST).open("a") as file:
        file.write(line + "\n")
    before = content(tmp_path)
    with pytest.raises(OutputError, match=r"line \d+ of .* is damaged.*Nothing was removed"):
        force(run)
    assert content(tmp_path) == before


def test_a_half_written_line_is_no_damage(tmp_path):
    run = make_run(tmp_path / "run")
    with (run / LIST).open("a") as file:
        file.write('{"file": "summ')
    force(run)
    assert content(run) == {"summary.json": "new\n"}


def test_other_runs_and_old_runs_are_refused(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(OutputError, match="holds a run of mmace-sim relax, which eos does not overwrite"):
        force(run, command="eos")
    with pytest.raises(OutputError, match=r"Overwrite it \(--force\)"):
        make_run(run)
    with pytest.raises(OutputError, match="which this run reads"):
        force(run, inputs=[run / "summary.json"])
    old = tmp_path / "old"
    old.mkdir()
    for name in ("summary.json", "config.yaml"):
        (old / name).write_text("{}")
    with pytest.raises(OutputError, match=r"earlier version of mmace-sim.*Nothing was removed"):
        force(old)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "summary.json").write_text("{}")
    with pytest.raises(OutputError, match="holds no run of mmace-sim"):
        force(theirs)
    assert [content(folder) for folder in (old, theirs)] == [
        {"summary.json": "{}", "config.yaml": "{}"},
        {"summary.json": "{}"},
    ]
    assert not (theirs / LIST).exists()


def test_what_killed_processes_leave_does_not_matter(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in (".probe-123", ".lock", LIST):
        (run / name).touch()
    make_run(run)
    assert content(run) == {
        ".probe-123": "",
        ".lock": "",
        "summary.json": "ours\n",
        "sub/table.csv": "ours\n",
    }


def test_two_processes_cannot_write_one_folder(tmp_path):
    with open_folder(tmp_path / "run", "eos", resume=None, force=False):
        for command in ("eos", "relax", "train"):
            with pytest.raises(OutputError, match="another process is writing this folder"):
                make_run(tmp_path / "run", command=command)
    make_run(tmp_path / "run")


def killed(folder):
    with open_folder(folder, "relax", resume=None, force=False):
        write_text(folder / "summary.json", "first")
        append(folder / "log.txt", "one\n")
        append(folder / "log.txt", "two\n")
        with replacing(folder / "big.npz") as temporary:
            temporary.write_text("half of it")
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_run_is_removed_whole(tmp_path):
    run = tmp_path / "run"
    assert exit_code_of(in_a_copy(killed, run)) == -signal.SIGKILL
    (holder,) = run.glob(".mmace-*[0-9a-f]")
    assert (holder / "big.npz").read_text() == "half of it"
    assert holder.stat().st_mode & 0o777 == 0o700
    force(run)
    assert content(run) == {"summary.json": "new\n"}


def test_a_log_that_somebody_went_on_with_is_theirs(tmp_path):
    run = tmp_path / "run"
    with open_folder(run, "relax", resume=False, force=False, resumes_from="log.txt"):
        append(run / "log.txt", "one\n")
    append(run / "log.txt", "my remark\n")
    with open_folder(run, "relax", resume=True, force=False, resumes_from="log.txt"):
        append(run / "log.txt", "two\n")
    assert content(run) == {"log.txt": "one\nmy remark\ntwo\n"}
    with pytest.raises(OutputError, match=r"log\.txt changed since"):
        force(run)


def test_planted_links_are_not_followed(tmp_path):
    """Neither names of unfinished files, which are random, nor the target."""
    target = tmp_path / "precious"
    target.write_text("mine")
    for name in (
        ".out.json",
        "out.json.tmp",
        "part-out.json",
        f".probe-{os.getpid()}",
        ".out.json." + str(os.getpid()),
    ):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "out.json").symlink_to(target)
    files.write_text(tmp_path / "out.json", "new")
    assert target.read_text() == "mine"
    assert (tmp_path / "out.json").read_text() == "new"
    (tmp_path / "log.txt").symlink_to(target)
    with pytest.raises(OSError, match=r"symbolic|links"):
        append(tmp_path / "log.txt", "line")
    assert target.read_text() == "mine"


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    run = make_run(tmp_path / "run")

    def fail():
        with replacing(run / "summary.json") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    going_on = open_folder(run, "relax", resume=True, force=False, resumes_from="summary.json")
    with going_on, pytest.raises(ZeroDivisionError):
        fail()
    assert content(run) == {"summary.json": "ours\n", "sub/table.csv": "ours\n"}
    assert names_in(run) == {"summary.json", "sub"}
    force(run)


def test_a_full_disk_is_an_error_and_the_list_stays_whole(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    write = os.write

    def full(fd, data):
        return write(fd, data[: len(data) // 2])  # half of it, as a full disk does

    with open_folder(run, "relax", resume=True, force=False, resumes_from="summary.json"):
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OutputError, match="No space left"):
            files.write_text(run / "summary.json", "more")
        monkeypatch.undo()
    assert Manifest(run, "relax").problem == ""
    assert content(run) == {"summary.json": "ours\n", "sub/table.csv": "ours\n"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", spin_orbit=True)


@pytest.mark.parametrize("command", ["relax", "eos", "curie", "md"])
def test_refused_options_remove_nothing(command, model, tmp_path):
    """A run that fails before it computes anything leaves the earlier one alone."""
    ase.io.write(tmp_path / "iron.extxyz", bcc())
    out = tmp_path / "out"
    quick = {
        "relax": ("--max-steps", "1"),
        "eos": ("--n-volumes", "3", "--no-figures", "--max-steps", "1"),
        "curie": (
            *("--method", "direct", "--sizes", "1"),
            *("--temperatures", "300", "--sweeps", "10", "--no-figures"),
        ),
        "md": ("--ensemble", "nve", "--steps", "2", "--no-figures"),
    }[command]
    arguments = (command, tmp_path / "iron.extxyz", "-m", model, "-o", out, *quick)
    assert mmace_sim(*arguments).exit_code in (0, 3)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for bad in (("-m", tmp_path / "none.safetensors"), ("--device", "nonsense"), (tmp_path / "none.cif",)):
        assert mmace_sim(*arguments, *bad, "--force").exit_code == 2
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    (out / "mine.txt").write_text("mine")
    assert mmace_sim(*arguments, "--force").exit_code in (0, 3)
    assert (out / "mine.txt").read_text() == "mine"
    assert summary_of(out)["command"] == command
    if command == "md":  # not appended to the earlier ones
        assert (out / "iron" / "thermo.csv").read_bytes() == before[out / "iron" / "thermo.csv"]


def test_one_file_is_replaced_if_the_same_command_wrote_it(tmp_path):
    source, output = tmp_path / "toys.extxyz", tmp_path / "out.extxyz"
    write_toys(source, n=2)
    arguments = ("data", "convert", source, "-o", output)
    assert mmace_sim(*arguments).exit_code == 0
    assert mmace_sim(*arguments).exit_code == 2
    assert mmace_sim(*arguments, "--force").exit_code == 0
    for text in ("mine", output.read_text() + "1\n\nFe 0 0 0\n"):
        output.write_text(text)
        refused = mmace_sim(*arguments, "--force")
        assert refused.exit_code == 2
        assert "was changed since, and is not replaced" in " ".join(refused.output.split())
        assert output.read_text() == text
    output.unlink()
    output.symlink_to(source)
    before = source.read_bytes()
    for bad in (arguments, ("data", "convert", source, "-o", source)):
        assert mmace_sim(*bad, "--force").exit_code == 2
    assert source.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {
        "toys.extxyz", "out.extxyz", ".mmace-sim-data-convert.jsonl",
    }  # fmt: skip


def test_a_training_is_overwritten_by_the_same_rule(tmp_path):
    write_toys(tmp_path / "toys.extxyz", n=6)
    config = {
        "data": {"valid_fraction": 0.3},
        "model": TINY_MODEL,
        "trainer": {"figures": False, "stability_test": False},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    out = tmp_path / "out"
    arguments = ("train", tmp_path / "config.yaml", "--train-file", tmp_path / "toys.extxyz", "-o", out)
    arguments += ("--max-epochs", "1", "--device", "cpu", "-q")
    assert mmace_sim(*arguments).exit_code == 0
    (out / "checkpoints" / "mine.ckpt").write_text("mine")
    (out / "one_body_mine.png").write_text("mine")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (tmp_path / "bad.extxyz").write_text("1\nREF_energy=1\nFe 0 0 0\n")
    bad = ("train", tmp_path / "config.yaml", "--train-file", tmp_path / "bad.extxyz", "-o", out, "--force")
    assert mmace_sim(*bad).exit_code == 2  # no moments
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert mmace_sim(*arguments, "--force").exit_code == 0
    assert (out / "checkpoints" / "mine.ckpt").read_text() == "mine"
    assert (out / "one_body_mine.png").read_text() == "mine"
    (out / "model.safetensors").write_bytes(b"mine")
    assert mmace_sim(*arguments, "--force").exit_code == 2
    assert (out / "model.safetensors").read_bytes() == b"mine"


def test_a_page_made_later_belongs_to_the_run(model, tmp_path):
    ase.io.write(tmp_path / "iron.extxyz", bcc())
    out = tmp_path / "out"
    arguments = ("relax", tmp_path / "iron.extxyz", "-m", model, "-o", out, "--max-steps", "1")
    assert mmace_sim(*arguments).exit_code == 3
    assert mmace_sim("report", out).exit_code == 0
    assert (out / "report.html").is_file()
    assert mmace_sim(*arguments, "--force").exit_code == 3
    assert not (out / "report.html").exists()


def test_commands_start_without_a_word(model, tmp_path):
    """Neither the hosts' warnings nor anything else is on stdout or stderr of a quiet run."""
    ase.io.write(tmp_path / "iron.extxyz", bcc())
    command = [
        sys.executable,
        "-m",
        "mmace_sim.cli.app",
        "relax",
        tmp_path / "iron.extxyz",
        "-m",
        model,
        "-q",
    ]
    done = subprocess.run(
        [*command, "-o", tmp_path / "out", "--max-steps", "1"], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")
