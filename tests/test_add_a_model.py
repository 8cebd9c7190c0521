"""The pages that show how to add a model and a loss: their examples are a model and a loss."""

import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_tools import bcc
from pydantic import ValidationError

import mmace_sim
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.model import architectures
from mmace_sim.model.derivatives import evaluate
from mmace_sim.testing.identities import IDENTITIES, structure_for
from mmace_sim.testing.probe import ModelProbe
from mmace_sim.training.config_loss import LossConfig
from mmace_sim.training.loss import LOSSES, build_loss

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "package" / "exchange_net"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    for text in blocks("add-a-model.md"):
        name = re.match(r"# exchange_net/(\w+\.py)\n", text)
        (folder / name[1]).write_text(text, "utf-8")
    monkeypatch.syspath_prepend(folder.parent)
    known = architectures._entries()
    entry = EntryPoint("ExchangeNet", "exchange_net.model:ARCHITECTURE", architectures.ENTRY_POINT_GROUP)
    monkeypatch.setattr(architectures, "_entries", lambda: known | {"ExchangeNet": entry})
    yield __import__("exchange_net.test_model")
    architectures._load.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "exchange_net"]:
        del sys.modules[name]


def test_the_model_of_the_page_is_an_architecture(package, tmp_path):
    model = package.test_model.TestExchangeNet.model.__wrapped__.__func__(None)
    mmace_sim.save_model(model, tmp_path / "exchange.safetensors")
    loaded = mmace_sim.load_model(tmp_path / "exchange.safetensors")
    assert type(loaded).__name__ == "ExchangeNet"
    ferro, antiferro = (bcc(m) for m in ([2.2, 2.2], [2.2, -2.2]))
    energies = [
        evaluate(loaded, graph_from_atoms(a, loaded.r_max))["energy"].item() for a in (ferro, antiferro)
    ]
    assert abs(energies[0] - energies[1]) > 1e-6
    ferro.calc = mmace_sim.MMACECalculator(model=str(tmp_path / "exchange.safetensors"))
    assert ferro.get_potential_energy() == pytest.approx(energies[0], abs=1e-9)


def test_the_model_of_the_page_obeys_the_identities(package):
    suite = package.test_model.TestExchangeNet
    model = suite.model.__wrapped__.__func__(None)
    suite().test_moments_matter(model)
    probe, rng = ModelProbe(model), np.random.default_rng(0)
    applied = [identity for identity in IDENTITIES.values() if identity.applies_to(probe)]
    assert len(applied) > 10
    for identity in applied:
        violation = identity.measure(probe, structure_for(probe, rng, n_atoms=3), rng).relative
        assert violation <= identity.tolerance, identity.statement


@pytest.fixture
def logcosh(monkeypatch):
    monkeypatch.setattr("mmace_sim.training.loss.LOSSES", dict(LOSSES))
    (text,) = blocks("add-a-loss.md")
    space = {}
    exec(text, space)
    return space["LogCoshLoss"]


def test_the_loss_of_the_page_is_a_loss(logcosh):
    loss = build_loss(LossConfig(kind="logcosh"))
    assert {type(term) for term in loss.terms} == {logcosh}
    x = torch.linspace(-30, 30, 121, dtype=torch.float64, requires_grad=True)
    penalty = loss.terms[0].penalty(x)
    torch.testing.assert_close(penalty, x.cosh().log(), atol=1e-12, rtol=0)
    (slope,) = torch.autograd.grad(penalty.sum(), x)
    torch.testing.assert_close(slope, x.tanh(), atol=1e-12, rtol=0)


def test_a_loss_that_is_not_there_is_refused():
    with pytest.raises(ValidationError, match="known are huber, mse"):
        LossConfig(kind="logcosh")
