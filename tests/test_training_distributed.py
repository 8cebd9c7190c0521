"""Two processes that share every batch take the steps of one."""

import csv
import os
import signal
import socket
import subprocess
import sys

import pytest
import torch
import yaml
from ase.io import write
from cli_tools import exit_code_of, in_a_copy, mmace_sim
from training_toys import TINY_MODEL, toy_frames

from mmace_sim.io.frames import read_frames
from mmace_sim.model.checkpoint import load_model
from mmace_sim.training.config import load_train_config
from mmace_sim.training.data.dataset import GraphDataset
from mmace_sim.training.data.sampling import ShareSampler, share_loader
from mmace_sim.training.trainer import train


def uneven_frames():
    """Structures of different sizes, some of which lack labels."""
    frames = toy_frames(12)
    for k, atoms in enumerate(frames):
        energy = atoms.info["REF_energy"]
        if k % 3 == 0:
            frames[k] = atoms = atoms.repeat((1, 1, 2))
            atoms.info["REF_energy"] = 2 * energy
        if k % 4 == 1:
            del atoms.arrays["REF_magforces"], atoms.info["REF_stress"]
        if k % 5 == 2:
            del atoms.arrays["REF_forces"]
    del frames[7].info["REF_energy"]
    return frames


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as stream:
        return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]


def by_torchrun(config, folder):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = ["-m", "mmace_sim.cli.app", "train", str(config), "-o", str(folder)]
    done = subprocess.run([*launch, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_copies(config, folder):
    """Copies of this process, which hear of one another as `torchrun` tells it: they need no imports."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    said = [folder.with_name(f"{rank}.txt") for rank in range(2)]

    def run(rank):
        signal.alarm(300)  # the end of the other one may never come
        told = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2,
                "TORCHELASTIC_RUN_ID": "test"}  # fmt: skip
        os.environ.update(address | {key: str(value) for key, value in told.items()})
        done = mmace_sim("train", config, "-o", folder)
        said[rank].write_text(f"{done.output}{done.exception}")
        return done.exit_code

    codes = [exit_code_of(child) for child in [in_a_copy(run, rank) for rank in range(2)]]
    assert codes == [0, 0], [file.read_text() for file in said if file.exists()]
    return "".join(file.read_text() for file in said)


# copies of a process with threads are safe on Linux only
LAUNCHES = [by_torchrun]
if sys.platform.startswith("linux"):
    LAUNCHES = [by_copies, pytest.param(by_torchrun, marks=pytest.mark.stress)]


@pytest.mark.parametrize("launch", LAUNCHES)
def test_two_processes_give_the_numbers_of_one(tmp_path, launch):
    frames = uneven_frames()
    write(tmp_path / "valid.extxyz", frames[:3], format="extxyz")
    write(tmp_path / "train.extxyz", frames[3:] + toy_frames(1, seed=5), format="extxyz")
    config = {
        "data": {"train_file": str(tmp_path / "train.extxyz"), "valid_file": str(tmp_path / "valid.extxyz")},
        "model": TINY_MODEL,
        "loss": {"config_type_weights": {"odd": 0.5}},
        "optimizer": {"schedule": "plateau"},
        "augment": {"rotation": "moments"},
        # of ten structures, three per step: shares of two and one, and at last of one and none
        "trainer": {
            "max_epochs": 3,
            "batch_size": 3,
            "valid_batch_size": 2,
            "device": "cpu",
            "dtype": "float64",
            "stability_test": False,
        },
        "stage_two": {"start_epoch": 2},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert launch(tmp_path / "config.yaml", tmp_path / "two").count("Use it") == 1

    (tmp_path / "one").mkdir()
    train(load_train_config(tmp_path / "config.yaml"), tmp_path / "one")
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert len(one) == len(two) == 3
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-6)
    a, b = (load_model(tmp_path / f / "model.safetensors").state_dict() for f in ("one", "two"))
    for name, weights in a.items():
        torch.testing.assert_close(b[name], weights, rtol=1e-6, atol=1e-8)
    assert {p.name for p in (tmp_path / "two").iterdir()} == {
        p.name for p in (tmp_path / "one").iterdir()
    } | {"log.txt", ".mmace-sim.jsonl"}
    assert (tmp_path / "two" / "log.txt").read_text().count("epoch 2") == 1


def processes(monkeypatch, rank, world):
    monkeypatch.setattr("mmace_sim.training.data.sampling.rank", lambda: rank)
    monkeypatch.setattr("mmace_sim.training.data.sampling.world_size", lambda: world)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_make_up_the_batches_of_one_process(monkeypatch, world):
    alone = [share.indices for share in ShareSampler(10, 4, seed=3, epoch=2)]
    shares = []
    for rank in range(world):
        processes(monkeypatch, rank, world)
        sampler = ShareSampler(10, 4, seed=3, epoch=2)
        shares.append([share.indices if share.counts else () for share in sampler])
        assert len(sampler) == 3
    for step, batch in enumerate(alone):
        assert sorted(i for part in shares for i in part[step]) == sorted(batch)


def test_a_process_without_a_share_gets_a_structure_that_does_not_count(tmp_path, monkeypatch):
    write(tmp_path / "toys.extxyz", toy_frames(3), format="extxyz")
    samples = GraphDataset(read_frames([tmp_path / "toys.extxyz"]).frames, 3.0)
    processes(monkeypatch, 1, 2)
    batches = list(share_loader(samples, ShareSampler(3, 2)))
    assert [batch.n_labelled for batch in batches] == [1, 0]
    assert batches[1].graph.n_systems == 1


def test_a_resumed_epoch_leaves_out_what_is_done():
    sampler = ShareSampler(10, 3, seed=1, epoch=4, start=2)
    rest = [share.indices for share in sampler]
    assert len(rest) == 2
    fresh = ShareSampler(10, 3, seed=1)
    fresh.set_epoch(4)
    assert [share.indices for share in fresh][2:] == rest
    sampler.set_epoch(5)
    assert len(list(sampler)) == 4
