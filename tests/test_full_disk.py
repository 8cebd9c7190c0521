"""A disk that is really full: a small file system in memory. Runs stop with what to do, and go on when there is room."""

import contextlib
import subprocess

import ase.io
import pytest
import yaml
from cli_tools import bcc, mmace_sim, summary_of, write_tiny_model
from test_cli_resume import COMMANDS
from training_toys import TINY_MODEL, write_toys

from mmace_sim.engine import folder as run_folder

KB_ENOUGH = 50_000


@pytest.fixture
def disk(tmp_path):
    """Makes the disk of a size in kB, and gives more to one that is there; skips without the right to mount."""
    path = tmp_path / "disk"
    path.mkdir()

    def resize(kb, *, again=False):
        options = ("remount," if again else "") + f"size={kb}k"
        command = (
            ["mount", "-o", options, path]
            if again
            else ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path]
        )
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            pytest.skip(f"no small file system can be mounted: {error}")
        if done.returncode:
            pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")
        return path

    yield resize
    unmount(path)


def unmount(path):
    with contextlib.suppress(OSError):
        subprocess.run(["umount", path], capture_output=True, check=False)


def size_and_files(path):
    kb = int(
        subprocess.run(["du", "-sk", path], capture_output=True, text=True, check=True).stdout.split()[0]
    )
    return kb, sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Arguments of every command, without its folder."""
    folder = tmp_path_factory.mktemp("sources")
    model = write_tiny_model(folder / "tiny.safetensors")
    (folder / "in").mkdir()
    frames = [bcc(a=a) for a in (2.80, 2.83, 2.86)]
    for k, frame in enumerate(frames):
        ase.io.write(folder / "in" / f"{k}.extxyz", frame)
        frame.arrays["REF_magmom"] = frame.arrays.pop("initial_magmoms")
        frame.info["REF_energy"] = -16.0
    ase.io.write(folder / "data.extxyz", frames)
    of_structures = {
        name: (name, folder / "in", "-m", model, *options)
        for name, options in COMMANDS.items()
        if name in ("relax", "eos", "md", "phonons", "curie", "elastic")
    }
    config = {"data": {"valid_fraction": 0.2}, "model": TINY_MODEL, "trainer": {"stability_test": False}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    toys = write_toys(folder / "toys.extxyz")
    return of_structures | {
        "check": ("check", model, "--structures", folder / "in" / "0.extxyz"),
        "evaluate": ("evaluate", model, folder / "data.extxyz", "--batch-size", "1", "--no-figures"),
        "train": ("train", folder / "config.yaml", "--train-file", toys, "--max-epochs", "3", "--batch-size", "4",
                  "--device", "cpu"),
    }  # fmt: skip


def without_noise(value):
    """Numbers to ten digits: sums of another batch differ in the last ones."""
    if isinstance(value, dict):
        return {key: without_noise(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_noise(item) for item in value]
    return float(f"{value:.9e}") + 0.0 if isinstance(value, float) else value


@pytest.mark.parametrize(
    "command", ["relax", "eos", "md", "phonons", "curie", "elastic", "check", "evaluate", "train"]
)
def test_a_full_disk_stops_a_run_that_goes_on_when_there_is_room(command, sources, disk, monkeypatch):
    monkeypatch.setattr(run_folder, "_check_writable", lambda _: None)  # another process fills the disk later
    arguments = (*sources[command], "-o")
    path = disk(KB_ENOUGH)
    whole = mmace_sim(*arguments, path / "run")
    assert whole.exit_code in (0, 3), whole.output
    needed, files = size_and_files(path)
    results = summary_of(path / "run").get("structures")
    unmount(path)
    for part in (0.9,) if command == "check" else (0.4, 0.9):
        disk(max(round(needed * part) // 4 * 4, 8))
        result = mmace_sim(*arguments, path / "run")
        assert result.exit_code == 2, result.output
        assert isinstance(result.exception, SystemExit), result.exception
        said = result.stderr.strip().splitlines()[-1]
        assert "cannot be written (No space left on device)." in said
        disk(KB_ENOUGH, again=True)
        if command == "train" and not (path / "run" / "checkpoints" / "last.ckpt").exists():
            assert "no checkpoint to go on from" in said
            unmount(path)
            continue
        assert "--resume" in said
        again = (
            ("train", "-o", path / "run", "--resume")
            if command == "train"
            else (*arguments, path / "run", "--resume")
        )
        result = mmace_sim(*again)
        assert result.exit_code == whole.exit_code, result.output
        assert size_and_files(path)[1] == files
        assert without_noise(summary_of(path / "run").get("structures")) == without_noise(results)
        unmount(path)


def test_what_is_finished_when_the_disk_is_full_is_counted_and_not_computed_again(sources, disk, monkeypatch):
    monkeypatch.setattr(run_folder, "_check_writable", lambda _: None)
    arguments = (*sources["eos"], "-o")
    path = disk(KB_ENOUGH)
    mmace_sim(*arguments, path / "run")
    lines = (path / "run" / "finished.jsonl").read_bytes().splitlines()
    unmount(path)
    for kb in range(8, 80, 4):
        disk(kb)
        result = mmace_sim(*arguments, path / "run")
        disk(KB_ENOUGH, again=True)
        n = len((path / "run" / "finished.jsonl").read_bytes().splitlines()) - 1
        if result.exit_code == 2 and 0 < n < len(lines) - 1:
            break
        unmount(path)
    else:
        pytest.fail("the disk was never full in the middle")
    assert f"{n} of {len(lines) - 1} structures are finished and safe in {path / 'run'}" in result.stderr
    result = mmace_sim(*arguments, path / "run", "--resume")
    assert f"{n} from the earlier run" in result.output


def test_no_room_is_told_before_anything_is_computed(sources, disk):
    path = disk(500)
    result = mmace_sim(*sources["relax"], "-o", path / "run")
    assert result.exit_code == 2
    assert "No space left on device" in result.stderr
    assert not (path / "run" / "finished.jsonl").exists()
