"""``finetune --foundation NAME#HEAD``: fetched once from a server on this machine into mace-torch's cache."""

import json
import threading
import warnings

import pytest
from cli_tools import mmace_sim
from foundation_tools import write_mace
from test_hub import Server
from training_toys import write_toys

from mmace_sim.hub import download as transfer


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A server with a small MACE of two heads, which mace-torch's table gives as `medium-mpa-0`."""
    from mace.calculators import foundations_models

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mace-torch compiles a part of itself to save it
        path, _ = write_mace(
            tmp_path / "tiny.model", max_ell=1, r_max=3.2, hidden_irreps="4x0e", heads=["pt_head", "tuned"]
        )
    server = Server()
    server.body = path.read_bytes()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setitem(foundations_models.mace_mp_urls, "medium-mpa-0", f"{server.url}/mpa-0.model")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "theirs"))
    monkeypatch.setenv("MMACE_SIM_CACHE", str(tmp_path / "ours"))
    monkeypatch.setattr(transfer, "PAUSE", 0.001)
    yield server
    server.shutdown()
    server.server_close()


def finetune(tmp_path, name, out):
    config = tmp_path / "c.yaml"
    config.write_text(
        "magnetic: {spin_channels: 2, spin_max_ell: 1, freeze_backbone: true}\n"
        "trainer: {max_epochs: 1, device: cpu, dtype: float64, stability_test: false}\n"
        "data: {valid_fraction: 0.2}\n"
    )
    toys = write_toys(tmp_path / "toys.extxyz", n=8)
    return mmace_sim("finetune", "--foundation", name, toys, "-c", config, "-o", tmp_path / out)


def test_a_name_is_fetched_once_and_a_head_chosen(served, tmp_path):
    served.n_drops, served.drop_after = 1, 500
    several = finetune(tmp_path, "medium-mpa-0", "a")
    assert several.exit_code == 2
    said = " ".join(several.output.split())
    assert "heads pt_head, tuned; choose one as in" in said
    assert served.requests == [None, "bytes=500-"]
    chosen = finetune(tmp_path, "medium-mpa-0#tuned", "b")
    assert chosen.exit_code == 0, chosen.output
    assert len(served.requests) == 2  # from the cache
    summary = json.loads((tmp_path / "b" / "summary.json").read_text())
    assert summary["started_from"] == "medium-mpa-0#tuned"
    wrong = finetune(tmp_path, "medium-mpa-0#other", "c")
    assert wrong.exit_code == 2
    assert "no head 'other'; the foundation has pt_head, tuned" in " ".join(wrong.output.split())
