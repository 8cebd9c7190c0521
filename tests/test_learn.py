"""The loop: budget, test set, resume at any stage, known labels, batches that are not trusted, limits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from cli_tools import csv_rows, mmace_sim, summary_of
from embedded import IRON_MODEL

from mmace_sim.data.candidates import ID, held, load_candidates
from mmace_sim.data.label.engine import load_engine
from mmace_sim.data.label.engines.model import ModelEngine
from mmace_sim.data.label.settings import LabelSettings
from mmace_sim.data.learn import loop
from mmace_sim.data.learn.rounds import Round
from mmace_sim.data.learn.run import learn
from mmace_sim.data.learn.settings import LearnSettings
from mmace_sim.data.recipes import snapshots
from mmace_sim.errors import ConfigError, DataError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.graph.magnetic_order import MagneticOrder, classify_order
from mmace_sim.io.frames import read_frames
from mmace_sim.model.checkpoint import load_model

LABEL = {"label": {"engine": f"model:{IRON_MODEL}"}}
TINY = {
    "first": 10,
    "batch": 3,
    "test": 4,
    "fresh": 0,
    "max_calculations": 18,
    "steps": 10,
    "propose": {"recipe": ["volumes:5", "mixed:16"], "max_atoms": 2},
    **LABEL,
    "train": {"model": {"hidden_irreps": "4x0e", "r_max": 3.5, "num_interactions": 1}},
}


@pytest.fixture(scope="module")
def iron(tmp_path_factory):
    file = tmp_path_factory.mktemp("iron") / "Fe.cif"
    bulk("Fe", a=2.84, cubic=True).write(file)
    return file


def settings(iron, folder, **changes):
    return LearnSettings.model_validate(TINY | {"structures": [str(iron)], "output": str(folder)} | changes)


@pytest.fixture(scope="module")
def whole(iron, tmp_path_factory):
    """A loop that ran without interruption."""
    return learn(settings(iron, tmp_path_factory.mktemp("loop") / "whole"))


def curve(folder):
    rows = csv_rows(folder / "curve.csv")
    return [{k: v for k, v in row.items() if k != "train_seconds"} for row in rows]


def ids(*files):
    return [frame.atoms.info[ID] for file in files for frame in read_frames([file]).frames]


def test_the_budget_ends_the_loop_and_the_test_is_never_trained_on(whole):
    assert "budget of 18 calculations" in whole.reason
    assert [r.n_calculations for r in whole.rounds] == [15, 18]  # 4 of the test, the structure and 10, then 3
    folder = whole.folder
    trained = ids(*sorted(folder.glob("rounds/*/label/labelled.extxyz")))
    test = ids(folder / "test" / "labelled.extxyz")
    assert len(test) == 4
    assert len(trained) == len(set(trained)) == 14
    assert not set(trained) & set(test)
    assert any(name.startswith("Fe-start") for name in trained)
    config = (folder / "rounds" / "01" / "train" / "config.yaml").read_text()
    assert "test/" not in config


def test_the_model_and_its_curve_are_kept(whole):
    model = load_model(whole.folder / "model.safetensors")
    assert model.elements == [26]
    summary = json.loads((whole.folder / "summary.json").read_text())
    last = summary["rounds"][-1]
    assert last["errors"].keys() >= {"energy", "forces", "magforces"}
    rows = curve(whole.folder)
    assert float(rows[-1]["test_energy_mae"]) == pytest.approx(last["errors"]["energy"], rel=1e-4)
    assert (whole.folder / "figures" / "curve.svg").is_file()
    assert last["uncertainty"]["forces"] > 0
    assert last["worst"]


def test_a_loop_that_is_killed_again_and_again_ends_alike(whole, iron, tmp_path, monkeypatch):
    """Each time it goes on and is killed a stage later; of the first round, the errors are not computed again."""
    stages = [("label", 1), ("train_round", 0), ("write_curve", 0), ("label", 2), ("evaluate_frames", 0)]
    for k, (stage, call) in enumerate(stages):
        original, calls = getattr(loop, stage), []

        def interrupted(*arguments, original=original, calls=calls, call=call, **keywords):
            calls.append(1)
            if len(calls) == call + 1:
                raise KeyboardInterrupt
            return original(*arguments, **keywords)

        with monkeypatch.context() as patch:
            patch.setattr(loop, stage, interrupted)
            with pytest.raises(KeyboardInterrupt):
                learn(settings(iron, tmp_path / "run"), resume=k > 0)
    again = learn(settings(iron, tmp_path / "run"), resume=True)
    assert again.reason == whole.reason
    assert curve(again.folder) == curve(whole.folder)


def test_nothing_is_computed_twice(whole, iron, monkeypatch):
    def fail(*_arguments):
        raise AssertionError("computed again")

    monkeypatch.setattr(ModelEngine, "compute", fail)
    monkeypatch.setattr("mmace_sim.data.learn.training.train", fail)
    again = learn(settings(iron, whole.folder), resume=True)
    assert curve(again.folder) == curve(whole.folder)


def test_a_larger_budget_goes_on(iron, tmp_path):
    folder = tmp_path / "run"
    learn(settings(iron, folder, max_calculations=15))
    assert len(learn(settings(iron, folder, max_calculations=17), resume=True).rounds) == 2
    with pytest.raises(Exception, match="steps"):
        learn(settings(iron, folder, steps=13), resume=True)


def test_labels_of_another_run_are_not_computed_again(whole, iron, tmp_path, monkeypatch):
    computed = []
    original = ModelEngine.compute

    def watch(self, calculations, store):
        computed.extend(c.config_id for c in calculations)
        return original(self, calculations, store)

    monkeypatch.setattr(ModelEngine, "compute", watch)
    files = [str(whole.folder / "test" / "labelled.extxyz")]
    files += [str(file) for file in sorted(whole.folder.glob("rounds/*/label/labelled.extxyz"))]
    other = learn(settings(iron, tmp_path / "run", labels=files))
    assert computed == []
    assert other.rounds[-1].n_calculations == 18  # they count: the comparison is by calculations
    assert curve(other.folder)[-1]["test_energy_mae"] == curve(whole.folder)[-1]["test_energy_mae"]


def test_a_batch_that_the_check_refuses_is_not_trained_on(iron, tmp_path, monkeypatch):
    original, batches = loop.label, []

    def doubtful(chosen, *arguments, **keywords):
        outcome = original(chosen, *arguments, **keywords)
        batches.append(outcome)
        if len(batches) == 3:  # after the test and the first set
            outcome.trainable = False
            outcome.findings = [{"severity": "error", "message": "forces have the wrong sign"}]
        return outcome

    monkeypatch.setattr(loop, "label", doubtful)
    done = learn(settings(iron, tmp_path / "run"))
    assert [r.trusted for r in done.rounds] == [True, False]
    assert [r.n_training for r in done.rounds] == [11, 0]  # not trained again
    assert not done.complete
    assert "wrong sign" in done.problems[0]


def test_failed_calculations_cost_time_too(iron, tmp_path, monkeypatch):
    original = loop.label

    def costly(chosen, *arguments, **keywords):
        outcome = original(chosen, *arguments, **keywords)
        entries = outcome.summary["structures"]
        for entry in entries:
            entry["cpu_s"] = 10.0
        entries[0]["status"] = "failed"
        return outcome

    monkeypatch.setattr(loop, "label", costly)
    done = learn(settings(iron, tmp_path / "run", max_calculations=15))
    counts = done.summary["computed"].values()
    n_batches = 1 + len(done.rounds)
    assert sum(count["failed"] for count in counts) == n_batches
    assert sum(count["cpu_s"] for count in counts) == pytest.approx(150.0)


@pytest.mark.parametrize("engine", ["vasp", "qe", "abacus"])
def test_an_engine_that_is_not_here_says_which_ways_there_are(iron, tmp_path, engine):
    label = {"engine": engine, "command": "no_such_program_of_dft"}
    with pytest.raises(ConfigError, match=r"no_such_program_of_dft: .*--executor.*by hand") as caught:
        learn(settings(iron, tmp_path / "run", label=label))
    assert "--write-only, compute" not in str(caught.value)
    pool = tmp_path / "cluster.yaml"
    pool.write_text("provider: slurm\n")
    assert load_engine(LabelSettings(executor=str(pool), **label)).name == engine
    pool.write_text("provider: local\n")
    with pytest.raises(ConfigError, match="no such program here"):
        load_engine(LabelSettings(executor=str(pool), **label))


def test_two_batches_that_are_not_trusted_end_the_loop(iron, tmp_path, monkeypatch):
    original, calls = loop.label, []

    def refused(*arguments, **keywords):
        outcome = original(*arguments, **keywords)
        calls.append(1)
        outcome.trainable = len(calls) == 1  # the test
        return outcome

    monkeypatch.setattr(loop, "label", refused)
    done = learn(settings(iron, tmp_path / "run"))
    assert "2 batches in a row" in done.reason
    assert done.model is None
    assert not done.complete


def test_a_test_that_cannot_be_used_is_an_error(iron, tmp_path, monkeypatch):
    original = loop.label

    def refused(*arguments, **keywords):
        outcome = original(*arguments, **keywords)
        outcome.trainable = False
        return outcome

    monkeypatch.setattr(loop, "label", refused)
    with pytest.raises(DataError, match="the test cannot be used"):
        learn(settings(iron, tmp_path / "run"))


def test_force_begins_anew_and_a_label_folder_without_a_journal_is_no_obstacle(iron, tmp_path):
    folder = tmp_path / "run"
    learn(settings(iron, folder, max_calculations=15))
    done = learn(settings(iron, folder, max_calculations=15, seed=1), force=True)
    assert len(done.rounds) == 1
    (folder / "test" / "finished.jsonl").unlink()  # killed after its log was opened
    again = learn(settings(iron, folder, max_calculations=15, seed=1), resume=True)
    assert again.rounds[0].errors == done.rounds[0].errors


def test_known_structures_are_neither_computed_again_nor_the_test(whole, iron, tmp_path):
    known = [str(whole.folder / "rounds" / "00" / "label" / "labelled.extxyz")]
    done = learn(settings(iron, tmp_path / "run", seed=1, known=known, max_calculations=9))
    new = ids(*done.folder.glob("rounds/*/label/labelled.extxyz"), done.folder / "test" / "labelled.extxyz")
    assert not set(ids(*map(Path, known))) & set(new)
    assert done.rounds[-1].n_training == 11 + done.rounds[-1].n_chosen


def test_a_labelled_set_can_be_learned_from_without_structures_and_without_an_engine(whole, tmp_path):
    pool = [str(file) for file in sorted(whole.folder.glob("**/labelled.extxyz"))]
    own = {"candidates": pool, "labels": pool, "structures": [], "label": {"engine": "nobody"}, "first": 5}
    done = learn(
        LearnSettings.model_validate(TINY | own | {"output": str(tmp_path / "run"), "max_calculations": 12})
    )
    assert [r.n_training for r in done.rounds] == [6, 8]  # the structure itself, and 5
    assert not done.problems
    assert done.rounds[0].errors["energy"] > 0
    assert not list((tmp_path / "run").glob("**/calculations"))
    with pytest.raises(ConfigError, match="nobody"):
        learn(
            LearnSettings.model_validate(TINY | own | {"labels": pool[:1], "output": str(tmp_path / "other")})
        )


def test_a_budget_that_the_test_eats_is_refused(iron, tmp_path):
    with pytest.raises(ConfigError, match="leave nothing to learn from"):
        learn(settings(iron, tmp_path / "run", max_calculations=5))


def test_small_uncertainties_end_the_loop(iron, tmp_path):
    loose = dict.fromkeys(("energy_limit", "forces_limit", "magforces_limit"), 1e3)
    done = learn(settings(iron, tmp_path / "run", **loose))
    assert "knows enough" in done.reason
    assert len(done.rounds) == 1


def test_a_model_that_is_surer_than_it_should_be_does_not_end_the_loop():
    sure = {"energy": 0.001, "forces": 0.01, "magforces_length": 0.01}
    good = {"energy": 2.0, "forces": 20.0, "magforces": 10.0, "stress": 1e9}
    limits = LearnSettings()
    assert Round(0, uncertainty=sure, errors=good).enough(limits)
    assert Round(0, uncertainty=sure).enough(limits)  # without a test the uncertainties alone count
    assert not Round(0, errors=good).enough(limits)
    for label in ("energy", "forces", "magforces"):
        assert not Round(0, uncertainty=sure, errors=good | {label: 1e3}).enough(limits)
    for name in sure:
        assert not Round(0, uncertainty=sure | {name: 1.0}, errors=good).enough(limits)


def test_new_candidates_come_from_the_model(iron, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "EVERY", 4)
    monkeypatch.setattr(snapshots, "STEPS", (5, 10))
    done = learn(settings(iron, tmp_path / "run", fresh=2, max_calculations=20))
    made = load_candidates([done.folder / "rounds" / "01" / "proposed.extxyz"])[0]
    assert {atoms.info["config_type"] for atoms in made} <= {"Fe-md", "Fe-relax"}
    assert done.rounds[1].n_candidates > done.rounds[0].n_candidates - 11


def test_engines_without_non_collinear_states_get_none(iron, tmp_path, monkeypatch):
    def refuse(_self, calculation):
        return "non-collinear: not with this engine" if str(calculation.mode) == "nc" else ""

    monkeypatch.setattr(ModelEngine, "refuse", refuse)
    done = learn(settings(iron, tmp_path / "run", max_calculations=15))
    pool = load_candidates([done.folder / "candidates.extxyz"])[0]
    assert len(pool) > 15
    assert all(classify_order(get_magmoms(a)) != MagneticOrder.NON_COLLINEAR for a in pool)
    assert any(held(a).any() for a in pool)


def test_random_and_varied_choices_differ(iron, tmp_path, whole):
    chosen = {"informative": set(ids(whole.folder / "rounds" / "00" / "label" / "labelled.extxyz"))}
    for how in ("random", "varied"):
        done = learn(settings(iron, tmp_path / how, choose=how))
        chosen[how] = set(ids(done.folder / "rounds" / "01" / "label" / "labelled.extxyz"))
        assert ids(done.folder / "test" / "labelled.extxyz") == ids(whole.folder / "test" / "labelled.extxyz")
    assert chosen["random"] != chosen["varied"]


def test_the_command(iron, tmp_path):
    config = tmp_path / "learn.yaml"
    config.write_text(json.dumps(TINY | {"structures": [str(iron)]}))
    done = mmace_sim("learn", config, "--max-calculations", 15, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "Ended: the budget of 15 calculations is spent." in done.output
    assert summary_of(tmp_path / "run")["config"]["max_calculations"] == 15
    again = mmace_sim("learn", "--resume", "--max-calculations", 16, "-o", tmp_path / "run", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["rounds"][-1]["n_calculations"] == 16


@pytest.mark.parametrize(
    ("content", "told"),
    [({}, "--structures"), ({"structures": ["nowhere.cif"]} | LABEL, "no structure"),
     ({"structuers": []}, "Did you mean 'structures'"), ({"train": {"data": {"train_file": ["x"]}}}, "use `known`"),
     ({"label": {"engine": "vapour"}}, "vapour")],
)  # fmt: skip
def test_wrong_configurations_are_refused_before_anything_is_written(iron, tmp_path, content, told):
    config = tmp_path / "learn.yaml"
    some = {"structures": [str(iron)]} if set(content) in ({"train"}, {"label"}) else {}
    config.write_text(json.dumps(some | content))
    done = mmace_sim("learn", config, "-o", tmp_path / "run")
    assert done.exit_code == 2
    assert told in done.output
    assert not (tmp_path / "run" / "summary.json").exists()


def test_structures_must_be_named(tmp_path):
    with pytest.raises(ConfigError, match="name structures"):
        learn(LearnSettings(output=str(tmp_path / "run")))


def test_warm_start_takes_the_network_and_fits_the_rest(whole):
    from mmace_sim.training.config import load_train_config
    from mmace_sim.training.trainer import prepare

    files = [str(file) for file in sorted(whole.folder.glob("rounds/*/label/labelled.extxyz"))]
    start = whole.folder / "rounds" / "00" / "train" / "model.safetensors"
    options = {
        "data": {"train_file": files},
        "model": TINY["train"]["model"],
        "trainer": {"dtype": "float64"},
    }
    other, model = (
        load_model(start),
        prepare(load_train_config(None, options | {"warm_start": str(start)})).model,
    )
    for (name, ours), (_, theirs) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)
    cold = prepare(load_train_config(None, options)).model
    torch.testing.assert_close(model.reference.atomic_energies, cold.reference.atomic_energies)
    wide = options | {
        "model": {"hidden_irreps": "6x0e", "radial_mlp": [5], "MLP_irreps": "3x0e", "num_interactions": 1}
    }
    assert np.isfinite(float(prepare(load_train_config(None, wide | {"warm_start": str(start)})).model.scale))


def test_weights_of_other_elements_are_not_taken(whole, tmp_path, caplog):
    """They stand by the place of their element: a table of cobalt would begin as that of iron."""
    from mmace_sim.training.config import load_train_config
    from mmace_sim.training.trainer import prepare

    text = next(whole.folder.glob("rounds/*/label/labelled.extxyz")).read_text()
    (data := tmp_path / "cobalt.extxyz").write_text(text.replace("Fe ", "Co "))
    options = {
        "data": {"train_file": [str(data)], "valid_fraction": 0},
        "model": TINY["train"]["model"],
        "trainer": {"dtype": "float64"},
    }
    start = {"warm_start": str(whole.folder / "rounds" / "00" / "train" / "model.safetensors")}
    cold = prepare(load_train_config(None, options)).model
    assert cold.elements == [27]
    for (name, ours), (_, theirs) in zip(
        prepare(load_train_config(None, options | start)).model.named_parameters(),
        cold.named_parameters(),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, msg=name)
    assert "weights start anew" in caplog.text
