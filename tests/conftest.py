"""Annotated shapes are checked in every test; runs are reproducible and use one thread."""

import os
import warnings

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import HealthCheck, settings
from typechecking import install

install("mmace_sim")

with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore"
    )  # mace, e3nn and torch_sim warn on import about things that we cannot change
    import mace  # noqa: F401
    import torch
    import torch_sim  # noqa: F401
    from e3nn import o3  # noqa: F401

torch.set_num_threads(1)

settings.register_profile(
    "mmace_sim",
    derandomize=True,  # the same examples in every run
    deadline=None,
    database=None,
    max_examples=10,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
settings.load_profile("mmace_sim")

HOST_WARNINGS = (
    # ASE 3.29 sets array.shape, which NumPy 2.5 deprecates
    "ignore:Setting the shape on a NumPy array:DeprecationWarning",
    # beartype draws at random which item of a list it checks, also inside of strategies
    "ignore:Do not use the `random` module inside strategies",
    # e3nn 0.4.4 and torch_sim 0.6 still use TorchScript
    "ignore:.*torch.jit.*is deprecated:FutureWarning",
    "ignore:.*torch.jit.*is deprecated:DeprecationWarning",
)


def pytest_configure(config):
    for line in HOST_WARNINGS:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A file of a tiny model with random weights; test files that need another one make their own."""
    from cli_tools import write_tiny_model  # here, because it imports the command line

    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):  # noqa: ARG001 - the names that pytest gives
    """Names of files that are no text stand in captured logs; workers of xdist cannot send them as they are."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report
