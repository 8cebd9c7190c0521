"""Functions and tasks on other processes: all results, whoever dies."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from executor_tasks import Sleep, sleep, square

from mmace_sim.errors import ConfigError, UnsupportedOptionError
from mmace_sim.executors import settings as executor_settings
from mmace_sim.executors.interface import ExecutorError, ThisProcess, open_executor
from mmace_sim.executors.settings import PoolSettings, pool_settings

HERE = str(Path(__file__).parent)


@pytest.fixture
def importable(monkeypatch):
    """Workers import the functions of the tests."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([HERE, *filter(None, [os.environ.get("PYTHONPATH")])]))


def run_all(executor, tasks):
    """Results by task, and what went wrong in order; a lost task is tried twice."""
    results, failures = {}, []

    def failed(task, failure):
        failures.append((task[0], failure))
        return [task] if failure.lost and [t for t, _ in failures].count(task[0]) < 2 else []

    executor.map(square, iter(tasks), lambda task, result: results.update({task[0]: result}), failed)
    return results, failures


def test_this_process(tmp_path):
    results, failures = run_all(
        ThisProcess(), [(k, "raises" if k == 3 else "", str(tmp_path)) for k in range(6)]
    )
    assert {k: value for k, (value, *_) in results.items()} == {k: k**2 for k in (0, 1, 2, 4, 5)}
    ((number, failure),) = failures
    assert (number, failure.lost, failure.reason) == (3, None, "ValueError: 3 is no good")


@pytest.mark.usefixtures("importable")
def test_workers_that_die_cost_only_their_task(tmp_path, capfd, monkeypatch):
    pytest.importorskip("parsl")
    monkeypatch.chdir(tmp_path)
    how = {7: "dies once", 11: "raises", 19: "dies"}
    tasks = [(k, how.get(k, ""), str(tmp_path)) for k in range(40)]
    with open_executor("local:2", tmp_path / "pool") as executor:
        assert executor.n_workers == 2
        results, failures = run_all(executor, tasks)
    assert {k: value for k, (value, *_) in results.items()} == {
        k: k**2 for k in range(40) if k not in (11, 19)
    }
    assert len({pid for _, pid, _ in results.values()}) >= 2
    assert os.getpid() not in {pid for _, pid, _ in results.values()}
    assert sorted((number, failure.lost) for number, failure in failures) == [
        (7, "worker"), (11, None), (19, "worker"), (19, "worker")
    ]  # fmt: skip
    assert "3 is no good" not in "".join(capfd.readouterr())
    assert {path.suffix for path in tmp_path.iterdir()} == {"", ".tried"}  # nothing of Parsl's where we are


@pytest.mark.slow
@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize("function", ["square", "large"])
def test_workers_end_with_a_killed_driver(function, tmp_path):
    """They notice it by the silence, after the shortest time that can be set."""
    pytest.importorskip("parsl")
    (tmp_path / "pool.yaml").write_text("provider: local\nworkers_per_node: 2\nlost_after: 10\n")
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom mmace_sim.executors.interface import open_executor\n"
        f"from executor_tasks import {function}\n"
        "with open_executor(sys.argv[1] + '/pool.yaml', Path(sys.argv[1]) / 'pool') as executor:\n"
        "    tasks = ((k, '', sys.argv[1]) for k in range(10**9))\n"
        f"    executor.map({function}, tasks, lambda task, result: print(result[1], flush=True), lambda *_: ())\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True)
    workers = set()
    while len(workers) < 2:
        workers.add(int(driver.stdout.readline()))
    status = Path(f"/proc/{min(workers)}/status").read_text(encoding="utf-8")
    workers.add(int(re.search(r"PPid:\s*(\d+)", status)[1]))  # the pool that started them
    driver.kill()
    driver.wait()
    driver.stdout.close()
    deadline = time.monotonic() + 120
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


@pytest.mark.usefixtures("importable")
def test_a_task_that_never_ends(tmp_path):
    pytest.importorskip("parsl")
    failures, results = [], []
    with open_executor("local:1", tmp_path / "pool") as executor:
        assert executor.patience == 20.0
        executor.map(
            sleep, [Sleep(0.0, 60.0), Sleep(1000.0, 2.0)], lambda task, _: results.append(task.seconds),
            lambda task, failure: failures.append((task.seconds, failure.lost)) or [],
        )  # fmt: skip
    assert (results, failures) == ([0.0], [(1000.0, "worker")])


def test_workers_without_a_sign_of_life(tmp_path, monkeypatch):
    parsl_pool = pytest.importorskip("mmace_sim.executors.parsl_pool")
    monkeypatch.setattr(parsl_pool, "LOOK", 0.0)
    monkeypatch.setattr(parsl_pool, "STALLED", 0.05)
    signs = parsl_pool.Signs(tmp_path)
    alive, ended, waits = signs.new(), signs.new(), signs.new()
    ended.touch()
    signs.forget(ended)
    for _ in range(4):
        alive.touch()
        signs.look()
        time.sleep(0.03)
    assert not waits.exists()
    time.sleep(0.1)
    with pytest.raises(ExecutorError, match="no sign of life"):
        signs.look()


def test_claims_of_kubernetes(monkeypatch):
    providers = pytest.importorskip("parsl.providers")
    from mmace_sim.executors.parsl_pool import _provider

    monkeypatch.setattr(providers, "KubernetesProvider", dict)
    made = _provider(
        PoolSettings(
            provider="kubernetes", image="x", persistent_volumes=["data:/data", "models:/srv/models"]
        )
    )
    assert made["persistent_volumes"] == [("data", "/data"), ("models", "/srv/models")]
    with pytest.raises(ValueError, match="pattern"):
        PoolSettings(provider="kubernetes", image="x", persistent_volumes=["data"])


def test_choices(monkeypatch):
    assert pool_settings("local:3").most_workers == 3
    assert pool_settings("local:auto").most_workers == len(os.sched_getaffinity(0))
    for wrong in ("local", "local:0", "local:-1", "gpus:2", "slurm"):
        with pytest.raises(ConfigError, match="executor"):
            pool_settings(wrong)
    monkeypatch.setattr(executor_settings, "_count_gpus", lambda: 0)
    with pytest.raises(UnsupportedOptionError, match="no GPU"):
        pool_settings("gpu:auto")
    monkeypatch.setattr(executor_settings, "_count_gpus", lambda: 2)
    assert (pool_settings("gpu:auto").workers, pool_settings("gpu:1").gpus_per_node) == (2, 1)
    with pytest.raises(ConfigError, match="1 to 2"):
        pool_settings("gpu:3")


def test_a_file_of_settings(tmp_path):
    path = tmp_path / "slurm.yaml"
    path.write_text(
        "provider: slurm\npartition: gpu\ngpus_per_node: 4\nmax_blocks: 3\nwalltime: 2-00:00:00\n"
    )
    settings = pool_settings(str(path))
    assert (settings.workers, settings.most_workers) == (4, 12)
    path.write_text("provider: slurm\npartitions: gpu\n")
    with pytest.raises(ConfigError, match="Did you mean 'partition'"):
        pool_settings(str(path))
    path.write_text("provider: slurm\nwalltime: soon\n")
    with pytest.raises(ConfigError, match="walltime"):
        pool_settings(str(path))
    path.write_text("provider: kubernetes\n")
    with pytest.raises(ConfigError, match="image"):
        pool_settings(str(path))


SEVERAL = {"init_blocks": 0, "max_blocks": 2, "nodes_per_block": 2, "gpus_per_node": 2, "workers_per_node": 4}


@pytest.mark.parametrize("provider", ["local", "slurm", "pbs", "lsf"])
def test_settings_reach_the_provider(provider):
    pytest.importorskip("parsl")
    from mmace_sim.executors.parsl_pool import _provider

    settings = PoolSettings(
        provider=provider,
        partition="fast",
        account="me",
        walltime="00:30:00",
        worker_init="module load x",
        **SEVERAL,
    )
    made = _provider(settings)
    assert made.worker_init.rstrip().endswith("module load x")
    assert (made.nodes_per_block, made.max_blocks, made.init_blocks) == (2, 2, 0)
    assert "MMACE_SIM_GPUS=2" in made.worker_init
    if provider != "local":
        assert "fast" in (getattr(made, "queue", None), getattr(made, "partition", None))
        assert made.walltime == "00:30:00"


@pytest.mark.usefixtures("importable")
def test_a_batch_system_that_is_not_there(tmp_path, monkeypatch):
    pytest.importorskip("parsl")
    path = tmp_path / "slurm.yaml"
    path.write_text("provider: slurm\n")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    tasks = [(1, "", str(tmp_path))]
    with (
        pytest.raises(ExecutorError, match=r"no workers can be had.*sbatch|no workers can be had"),
        open_executor(str(path), tmp_path / "pool") as executor,
    ):
        run_all(executor, tasks)


@pytest.mark.parametrize(
    ("given", "seen"), [(None, ["0", "0", "1", "1"]), ("2,3", ["2", "2", "3", "3"]), ("5", ["5"] * 4)]
)
def test_workers_share_the_gpus_that_the_job_was_given(monkeypatch, given, seen):
    from mmace_sim.executors import worker

    found = []
    for rank in range(4):
        monkeypatch.setattr(worker, "_pinned", [])
        monkeypatch.setenv(worker.GPUS, "2")
        monkeypatch.setenv("PARSL_WORKER_RANK", str(rank))
        monkeypatch.setenv("PARSL_WORKER_COUNT", "4")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given or "")
        worker.pin_gpu()
        worker.pin_gpu()  # the second task changes nothing
        found.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert found == seen


def test_time_limits_reach_batch_systems_without_days():
    pytest.importorskip("parsl")
    from mmace_sim.executors.parsl_pool import _minutes

    assert [_minutes(t) for t in ("2-01:30:00", "00:30:00", "100:00:00")] == [
        "49:30:00",
        "00:30:00",
        "100:00:00",
    ]
