"""Uncertainties: calibrated on errors of known size, invariant, independent of the batch, faithful in the file."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from cli_tools import csv_rows, mmace_sim, summary_of
from foundation_tools import write_mace
from paper_tools import random_paper_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mmace_sim.base.quantities import UNCERTAINTIES
from mmace_sim.errors import DataError, ModelFileError, UncalibratedModelError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.interop.foundation import from_foundation
from mmace_sim.io.frames import Frame
from mmace_sim.model.checkpoint import load_model, save_model
from mmace_sim.model.config import ModelConfig
from mmace_sim.model.derivatives import evaluate
from mmace_sim.model.magnetic_mace import MagneticMACE
from mmace_sim.model.uncertainty import FAR, TARGETS, Domain, evaluate_with_uncertainty
from mmace_sim.nn.surroundings import N_SURROUNDINGS, surroundings
from mmace_sim.structures.domain import domain_entries, domain_entry, farthest
from mmace_sim.testing.structures import random_rotation, random_structure
from mmace_sim.torchsim.model import MagneticMaceModel
from mmace_sim.torchsim.state import initialize_state
from mmace_sim.training.calibration.calibrate import calibrate, rank_correlation
from mmace_sim.training.calibration.files import judge_uncertainty

PER_STRUCTURE = ("energy_uncertainty", "stress_uncertainty", "distance")


def iron_model():
    torch.manual_seed(0)
    config = ModelConfig(
        atomic_numbers=["Fe", "Al"],
        hidden_irreps="4x0e",
        radial_mlp=[8],
        spin_channels=4,
        num_interactions=1,
        max_moment={"Fe": 3.0},
        r_max=3.6,
    )
    return MagneticMACE(config).eval().requires_grad_(requires_grad=False)


def rattled(rng, amplitude, a=2.87, *, collinear=False):
    atoms = bulk("Fe", cubic=True, a=a * (1 + 0.02 * rng.normal())).repeat((2, 1, 1))
    del atoms.arrays["initial_magmoms"]
    atoms.positions += amplitude * rng.normal(size=(len(atoms), 3))
    moments = np.zeros((len(atoms), 3)) if collinear else 0.3 * rng.normal(size=(len(atoms), 3))
    moments[:, 2] += 2.0 + 0.2 * rng.normal()
    set_magmoms(atoms, moments)
    return atoms


def labelled(model, structures, sizes, rng):
    """Frames whose labels are wrong by a normal error of given size (of energies per atom: a tenth of it)."""
    frames = []
    for atoms, size in zip(structures, sizes, strict=True):
        out = {k: v.numpy() for k, v in evaluate(model, graph_from_atoms(atoms, model.r_max)).items()}
        noise = {k: size * rng.normal(size=out[k].shape) for k in ("forces", "stress", "magforces")}
        labels = {k: out[k] + noise[k] for k in noise}
        labels["stress"] = labels["stress"][0]
        labels["energy"] = out["energy"][0] + 0.1 * size * len(atoms) * rng.normal()
        frames.append(Frame(atoms, "toy", get_magmoms(atoms), "toy", labels))
    return frames


def toy_set(model, n, seed, *, collinear=False):
    rng = np.random.default_rng(seed)
    amplitudes = rng.uniform(0.0, 0.25, n)
    structures = [rattled(rng, amplitude, collinear=collinear) for amplitude in amplitudes]
    return labelled(model, structures, 0.01 * np.exp(10 * amplitudes), rng), 0.01 * np.exp(10 * amplitudes)


@pytest.fixture(scope="module")
def calibrated():
    model = iron_model()
    model.uncertainty = calibrate(model, toy_set(model, 80, 1)[0])
    return model


def estimates(model, structures):
    return evaluate_with_uncertainty(model, graph_from_atoms(structures, model.r_max))


def test_sizes_are_those_of_errors_in_new_structures(calibrated):
    frames, sizes = toy_set(calibrated, 60, 2)
    found = estimates(calibrated, [f.atoms for f in frames])
    wrong = np.concatenate([f.labels["forces"] for f in frames]) - found["forces"].numpy()
    sigma = found["forces_uncertainty"].numpy()
    assert 0.60 < np.mean(np.abs(wrong) < sigma[:, None]) < 0.76
    true = np.repeat(sizes, 4)
    assert rank_correlation(torch.tensor(sigma), torch.tensor(true)) > 0.8
    assert abs(np.median(np.log(sigma / true))) < 0.25
    for name, factor, rank in (("energy", 0.1, 0.6), ("stress", 1.0, 0.6)):
        sigma = found[UNCERTAINTIES[name]].numpy() / factor
        assert rank_correlation(torch.tensor(sigma), torch.tensor(sizes)) > rank
        assert abs(np.median(np.log(sigma / sizes))) < 0.3
    for part in ("length", "transverse"):
        sigma = found[f"magforces_{part}_uncertainty"].numpy()
        assert abs(np.median(np.log(sigma / true))) < 0.25


def test_scale_is_that_of_the_structures_that_the_model_has_not_seen():
    model = iron_model()
    known, fresh = toy_set(model, 40, 1)[0], toy_set(model, 40, 3)[0]
    for frame in fresh:
        out = evaluate(model, graph_from_atoms(frame.atoms, model.r_max))["forces"].numpy()
        frame.labels["forces"] = out + 5.0 * (frame.labels["forces"] - out)
    alone, both = (calibrate(model, known, held_out) for held_out in ([], fresh))
    assert both.facts.n_held_out == 40
    ratio = both.facts.calibration["forces"]["median"] / alone.facts.calibration["forces"]["median"]
    assert 3.5 < ratio < 7.0


def test_known_forces_are_not_evaluated_again(calibrated, monkeypatch):
    atoms = rattled(np.random.default_rng(7), 0.1)
    expected = domain_entry(calibrated, atoms)
    (frame,) = labelled(calibrated, [atoms], [0.0], np.random.default_rng(0))
    atoms.calc = SinglePointCalculator(atoms, forces=frame.labels["forces"])
    atoms.arrays["magforces"] = frame.labels["magforces"]
    monkeypatch.setattr("mmace_sim.model.uncertainty.evaluate", pytest.fail)
    assert domain_entry(calibrated, atoms, computed=True) == expected
    assert expected["domain_distance"] > 0.0


def test_what_is_unlike_the_data_is_outside(calibrated):
    rng = np.random.default_rng(5)
    inside = estimates(calibrated, [rattled(rng, 0.1) for _ in range(20)])["distance"]
    assert (inside <= 1.0).sum() >= 18
    vacancy = rattled(rng, 0.05).repeat(2)
    del vacancy[3]
    surface = rattled(rng, 0.05)
    surface.cell[0] *= 1.8
    double = rattled(rng, 0.05)
    set_magmoms(double, 2 * get_magmoms(double))
    fcc = bulk("Fe", "fcc", a=3.6, cubic=True)
    set_magmoms(fcc, [[0, 0, 2.0]] * 4)
    found = estimates(calibrated, [vacancy, surface, double, fcc])
    assert all(Domain.at(d) != Domain.INSIDE for d in found["distance"].tolist()[1:3])
    assert float(found["distance"].min()) > float(inside.max())
    assert (found["forces_uncertainty"][-4:] > 0).all()


def test_collinear_data_do_not_make_rounding_of_directions_strange():
    """|m_i × m_j| is zero in all of the data; what the runs leave of it must not decide, true angles must."""
    model = iron_model()
    model.uncertainty = calibrate(model, toy_set(model, 80, 1, collinear=True)[0])
    rng = np.random.default_rng(5)
    straight = rattled(rng, 0.1, collinear=True)
    tilted = []
    for angle in (0.0, 1e-6, 1e-3, 1.0):
        tilted.append(straight.copy())
        moments = get_magmoms(straight)
        moments[:, 0] += angle * moments[:, 2] * [1, -1, 1, -1]
        set_magmoms(tilted[-1], moments)
    found = estimates(model, tilted)
    distance, sigma = found["distance"].numpy(), found["energy_uncertainty"].numpy()
    assert distance[0] <= 1.0
    np.testing.assert_allclose(distance[:3], distance[0], atol=0.05)
    np.testing.assert_allclose(sigma[:3], sigma[0], rtol=0.05)
    assert Domain.at(distance[3]) == Domain.OUTSIDE


def test_an_element_without_data_is_far(calibrated):
    atoms = rattled(np.random.default_rng(0), 0.05)
    atoms.numbers[0] = 13
    found = estimates(calibrated, atoms)
    assert float(found["distance"]) == FAR
    assert torch.isfinite(found["energy_uncertainty"]).all()


def test_batch_equals_singles_and_precisions_agree(calibrated):
    rng = np.random.default_rng(0)
    structures = [rattled(rng, 0.1), rattled(rng, 0.2).repeat((1, 2, 1)), random_structure(rng, n_atoms=1)]
    batch = estimates(calibrated, structures)
    singles = [estimates(calibrated, atoms) for atoms in structures]
    for name in (*UNCERTAINTIES.values(), "distance", "atom_distance"):
        assert torch.allclose(batch[name], torch.cat([s[name] for s in singles]), rtol=1e-6)
        assert len(batch[name]) == (3 if name in PER_STRUCTURE else sum(map(len, structures)))
    single = graph_from_atoms(structures, calibrated.r_max, dtype=torch.float32)
    low = calibrated.uncertainty.estimate(single, batch, calibrated.r_max)
    assert torch.allclose(low["distance"].double(), batch["distance"], rtol=1e-3)


def test_uncertainties_are_invariant(calibrated):
    rng = np.random.default_rng(1)
    atoms = random_structure(rng, n_atoms=4)
    before = estimates(calibrated, atoms)
    turn, turn_moments = random_rotation(rng, improper=True), random_rotation(rng)
    atoms.set_cell(atoms.cell.array @ turn.T)
    atoms.set_positions(atoms.positions @ turn.T)
    set_magmoms(atoms, -get_magmoms(atoms) @ turn_moments.T)
    after = estimates(calibrated, atoms)
    for name in (*UNCERTAINTIES.values(), "distance"):
        assert torch.allclose(before[name], after[name], rtol=1e-6)


def test_surroundings_are_smooth_at_the_cutoff():
    graph = graph_from_atoms(random_structure(np.random.default_rng(0), n_atoms=3), 4.0)
    rows = surroundings(graph.edge_vectors(), graph.edge_index, graph.atomic_numbers, graph.magmoms, 4.0)
    assert rows.shape == (3, N_SURROUNDINGS)
    longest = graph.edge_vectors().norm(dim=1).max()
    fewer = graph.edge_vectors().norm(dim=1) < longest - 1e-9
    cut = replace(graph, edge_index=graph.edge_index[:, fewer], edge_shifts=graph.edge_shifts[fewer])
    less = surroundings(cut.edge_vectors(), cut.edge_index, cut.atomic_numbers, cut.magmoms, float(longest))
    more = surroundings(
        graph.edge_vectors(), graph.edge_index, graph.atomic_numbers, graph.magmoms, float(longest)
    )
    assert torch.allclose(less, more, atol=1e-12)


def test_what_no_label_tells_is_not_said():
    model = iron_model()
    frames, _ = toy_set(model, 20, 1, collinear=True)
    for frame in frames:
        del frame.labels["stress"]
        frame.labels["magforces"][:, :2] = 0.0  # as symmetry has it in collinear states
    model.uncertainty = calibrate(model, frames)
    assert set(model.uncertainty.facts.known) == set(TARGETS) - {"stress", "magforces_transverse"}
    found = estimates(model, [frames[0].atoms, rattled(np.random.default_rng(0), 0.1)])
    assert torch.isnan(found["stress_uncertainty"]).all()
    assert (found["magforces_transverse_uncertainty"][:4] == 0.0).all()  # collinear: exactly zero
    assert torch.isnan(found["magforces_transverse_uncertainty"][4:]).all()
    assert (found["magforces_length_uncertainty"] > 0).all()


def test_too_little_data_is_refused():
    model = iron_model()
    with pytest.raises(DataError, match="too few"):
        calibrate(model, toy_set(model, 9, 1)[0])
    frames = toy_set(model, 12, 1)[0]
    for frame in frames:
        frame.labels.clear()
    with pytest.raises(DataError, match="label"):
        calibrate(model, frames)


def test_another_zero_of_energy_can_be_taken_off():
    model = iron_model()
    frames, sizes = toy_set(model, 40, 1)
    for frame in frames:
        frame.labels["energy"] += 7.0 * len(frame.atoms)
    shifted, fitted = (calibrate(model, frames, fit_zero=fit) for fit in (False, True))
    assert shifted.facts.calibration["energy"]["median"] > 5.0
    assert fitted.facts.calibration["energy"]["median"] < 0.2 * max(sizes)


@pytest.mark.parametrize("kind", ["published", "foundation"])
def test_every_architecture_can_be_calibrated(kind, tmp_path):
    if kind == "published":
        model = random_paper_model(max_moment={26: 4.0}, time_reversal=True).eval()
    else:
        path, _ = write_mace(tmp_path / "mace.model")
        model = from_foundation(
            path, elements=["Fe"], max_moment={"Fe": 3.0}, spin_channels=3, spin_max_ell=1
        ).eval()
    model.requires_grad_(requires_grad=False)
    model.uncertainty = calibrate(model, toy_set(model, 12, 1)[0])
    found = estimates(model, [rattled(np.random.default_rng(0), 0.1) for _ in range(2)])
    assert all((found[name] > 0).all() for name in UNCERTAINTIES.values())


def test_the_file_keeps_it(calibrated, tmp_path):
    path = save_model(calibrated, tmp_path / "m.safetensors")
    loaded = load_model(path)
    atoms = rattled(np.random.default_rng(0), 0.1)
    before, after = estimates(calibrated, atoms), estimates(loaded, atoms)
    assert all(torch.equal(before[name], after[name]) for name in (*UNCERTAINTIES.values(), "distance"))
    assert loaded.metadata["format_version"] == 4
    loaded.uncertainty = None
    plain = load_model(save_model(loaded, tmp_path / "plain.safetensors"))
    assert plain.uncertainty is None
    assert (plain.metadata["format_version"], "uncertainty" in plain.metadata) == (1, False)
    with pytest.raises(UncalibratedModelError, match="mmace-sim calibrate"):
        estimates(plain, atoms)


def test_torchsim_gets_it_for_each_atom(calibrated):
    rng = np.random.default_rng(0)
    structures = [random_structure(rng, n_atoms=1), rattled(rng, 0.1)]
    expected = estimates(calibrated, structures)
    model = MagneticMaceModel(calibrated, uncertainty=True)
    found = model(initialize_state(structures))
    assert torch.allclose(found["forces_uncertainty"], expected["forces_uncertainty"])
    assert torch.allclose(found["energy_uncertainty"], expected["energy_uncertainty"][[0, 1, 1, 1, 1]])
    assert found["atom_distance"].shape == (5,)
    assert "forces_uncertainty" not in MagneticMaceModel(calibrated)(initialize_state(structures))


def test_one_command_calibrates_a_file(calibrated, tmp_path):
    plain = tmp_path / "plain.safetensors"
    uncertainty, calibrated.uncertainty = calibrated.uncertainty, None
    save_model(calibrated, plain)
    calibrated.uncertainty = uncertainty
    known, fresh = (write_frames(tmp_path / f"{k}.extxyz", toy_set(calibrated, 12, k)[0]) for k in (1, 2))
    new = tmp_path / "new.safetensors"
    result = mmace_sim("calibrate", plain, known, "--held-out", fresh, "-o", new)
    assert result.exit_code == 0, result.output
    assert "24 structures of Fe, 12 of them held out" in result.output
    loaded = load_model(new)
    for (name, old), changed in zip(
        calibrated.state_dict().items(), loaded.state_dict().values(), strict=True
    ):
        assert torch.equal(old, changed), name
    assert loaded.uncertainty.facts.n_held_out == 12
    assert mmace_sim("calibrate", plain, known, "-o", new).exit_code == 2  # exists
    told = judge_uncertainty(loaded, toy_set(calibrated, 12, 3)[0])
    assert set(told) == {"domain", *TARGETS}
    assert sum(told["domain"].values()) == 12


def test_a_run_says_where_its_structures_lie(calibrated, tmp_path):
    path = save_model(calibrated, tmp_path / "m.safetensors")
    slab = rattled(np.random.default_rng(0), 0.05)
    slab.cell[0] *= 2.0
    write(tmp_path / "in.extxyz", [rattled(np.random.default_rng(1), 0.05), slab])
    arguments = (
        "relax",
        tmp_path / "in.extxyz",
        "-m",
        path,
        "--fixed-cell",
        "--max-steps",
        "0",
        "--no-stability",
    )
    result = mmace_sim(*arguments, "-o", tmp_path / "run")
    assert result.exit_code in (0, 3), result.output
    assert "domain" in result.output
    inside, outside = summary_of(tmp_path / "run")["structures"]
    assert (inside["domain"], outside["domain"]) != ("inside", "inside")
    assert inside["domain"] == "inside"
    assert outside["domain_distance"] > inside["domain_distance"]
    assert outside["forces_uncertainty"] > 0
    assert summary_of(tmp_path / "run")["units"]["energy_uncertainty"] == "eV/atom"
    header = (tmp_path / "run" / "summary.csv").read_text().splitlines()[0]
    assert "domain,domain_distance" in header
    calibration, calibrated.uncertainty = calibrated.uncertainty, None
    save_model(calibrated, tmp_path / "plain.safetensors")
    calibrated.uncertainty = calibration
    arguments = (*arguments[:3], tmp_path / "plain.safetensors", *arguments[4:])
    assert "domain" not in mmace_sim(*arguments, "-o", tmp_path / "plain").output
    assert summary_of(tmp_path / "plain")["structures"][0]["domain"] is None


@pytest.mark.parametrize(
    ("command", "options", "parts"),
    [
        ("order", ["--max-steps", 2, "--fixed-cell", "--max-orders", 3], "orders"),
        ("eos", ["--magmoms", "fixed", "--n-volumes", 5], "states"),
        ("moments", ["--starts", 2, "--magforce-tol", 50], "minima"),
    ],
)
def test_every_line_of_a_table_says_where_its_structure_lies(calibrated, tmp_path, command, options, parts):
    path = save_model(calibrated, tmp_path / "m.safetensors")
    atoms = rattled(np.random.default_rng(1), 0.02, collinear=True)
    atoms.arrays["magforces"] = np.full((len(atoms), 3), 9.0)  # of another model: must not count
    write(tmp_path / "in.extxyz", atoms)
    out = tmp_path / "run"
    result = mmace_sim(command, tmp_path / "in.extxyz", "-m", path, "-o", out, "--no-figures", *options)
    assert result.exit_code in (0, 3), result.output
    assert "domain" in result.output
    assert "±" in result.output
    (entry,) = summary_of(out)["structures"]
    lines = [part for part in entry[parts] if part["domain"] is not None]
    assert lines
    assert len({part["domain_distance"] for part in lines}) == len(lines)
    assert entry["domain_distance"] in [part["domain_distance"] for part in lines]
    rows = csv_rows(out / "summary.csv")
    told = {row["domain_distance"] for row in rows} - {""}
    assert told
    assert told <= {str(part["domain_distance"]) for part in lines}
    assert all(float(row["stress_uncertainty"]) > 0 for row in rows if row["domain"])
    if command == "order":
        images = read(out / "relaxed.extxyz", ":")
        for part, image in zip(entry["orders"], images, strict=True):
            image.arrays.pop("magforces", None)
            known = domain_entry(calibrated, image)
            assert part["magforces_length_uncertainty"] == pytest.approx(
                known["magforces_length_uncertainty"], rel=0.01
            )


def test_exchange_tells_the_domain_of_the_states_that_were_turned(calibrated, tmp_path):
    """With relaxed moments, not those of the file; nearest pairs that point against each other are farther off."""
    path = save_model(calibrated, tmp_path / "m.safetensors")
    atoms = bulk("Fe", "bcc", a=2.85)
    set_magmoms(atoms, [2.2])
    write(tmp_path / "in.extxyz", atoms)
    told = {}
    for name, options in {
        "derivatives": (),
        "four-state": ("--routes", "four-state", "--angle", 90),
        "spirals": ("--routes", "spirals", "--angle", 90),
    }.items():
        out = tmp_path / name
        arguments = (tmp_path / "in.extxyz", "-m", path, "-o", out, "--cutoff", 2.6, "--no-figures", *options)
        result = mmace_sim("exchange", *arguments, "--magforce-tol", 50)
        assert result.exit_code in (0, 3), result.output
        assert "domain" in result.output
        (told[name],) = summary_of(out)["structures"]
    known = domain_entry(calibrated, atoms)
    assert told["derivatives"]["domain_distance"] == pytest.approx(known["domain_distance"], rel=1e-3)
    assert told["four-state"]["domain_distance"] > told["derivatives"]["domain_distance"]
    assert told["spirals"]["domain_distance"] > told["derivatives"]["domain_distance"]


def test_every_temperature_of_direct_sampling_says_where_its_samples_lie(calibrated, tmp_path):
    """Disordered moments are not in data of ordered ones: hot points are farther than cold ones, and those count."""
    path = save_model(calibrated, tmp_path / "m.safetensors")
    atoms = bulk("Fe", "bcc", a=2.85)
    set_magmoms(atoms, [2.2])
    write(tmp_path / "in.extxyz", atoms)
    out = tmp_path / "run"
    arguments = ("-m", path, "-o", out, "--no-figures", "--method", "direct", "--sizes", 3, "--sweeps", 10)
    result = mmace_sim(
        "curie", tmp_path / "in.extxyz", *arguments, "--temperatures", "1,100000", "--magmoms", "fixed"
    )
    assert result.exit_code in (0, 3), result.output
    assert "domain" in result.output
    (entry,) = summary_of(out)["structures"]
    cold, hot = entry["points"]
    assert hot["domain_distance"] > cold["domain_distance"]
    assert entry["domain_distance"] == hot["domain_distance"]
    assert entry["domain"] == hot["domain"]


def test_a_result_stays_where_the_domain_cannot_be_told(calibrated, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("mmace_sim.structures.domain.evaluate_with_uncertainty", fails)
    path = save_model(calibrated, tmp_path / "m.safetensors")
    atoms = bulk("Fe", "bcc", a=2.85)
    set_magmoms(atoms, [2.2])
    write(tmp_path / "in.extxyz", atoms)
    out = tmp_path / "run"
    result = mmace_sim(
        "exchange", tmp_path / "in.extxyz", "-m", path, "-o", out, "--cutoff", 2.6, "--no-figures"
    )
    (entry,) = summary_of(out)["structures"]
    assert result.exit_code == 0, result.output
    assert entry["status"] == "converged"
    assert entry["domain"] is None
    assert "cannot be told: out of memory" in result.output


def test_the_farthest_of_several_structures_counts(calibrated):
    rng = np.random.default_rng(3)
    near, far = rattled(rng, 0.02), rattled(rng, 0.02)
    far.cell[0] *= 2.0
    lost = rattled(rng, 0.02)
    lost.positions[0] = np.nan
    told = domain_entries(calibrated, [near, None, far, lost] * 20)
    assert told[0]["domain_distance"] == domain_entry(calibrated, near)["domain_distance"]
    assert told[-2] == domain_entry(calibrated, far)
    assert (told[1], told[3]) == (domain_entry(None, None),) * 2
    assert told[2]["stress_uncertainty"] is None  # a slab has no volume
    assert told[0]["stress_uncertainty"] > 0
    both = farthest(told)
    assert (both["domain"], both["domain_distance"]) == (told[2]["domain"], told[2]["domain_distance"])
    assert both["domain"] != told[0]["domain"]
    assert both["stress_uncertainty"] is None  # not known of the slab
    assert both["forces_uncertainty"] == max(entry["forces_uncertainty"] or 0 for entry in told)
    assert farthest([]) == domain_entry(None, None)


def write_frames(path, frames):
    for frame in frames:
        frame.atoms.info["REF_energy"] = frame.labels["energy"]
        frame.atoms.info["REF_stress"] = frame.labels["stress"].ravel()
        frame.atoms.arrays["REF_magmom"] = frame.magmoms
        frame.atoms.arrays |= {f"REF_{k}": frame.labels[k] for k in ("forces", "magforces")}
    write(path, [frame.atoms for frame in frames], format="extxyz")
    return path


@pytest.mark.parametrize("fault", ["missing", "shape", "nan", "kind", "facts", "element", "unknown"])
def test_a_damaged_calibration_is_refused(calibrated, tmp_path, fault):
    path = save_model(calibrated, tmp_path / "m.safetensors")
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["mmace_sim"])
    name = "uncertainty.landmarks"
    if fault == "missing":
        del tensors[name]
    elif fault == "shape":
        tensors[name] = tensors[name].T.contiguous()
    elif fault == "nan":
        tensors[name][0, 0] = torch.nan
    elif fault == "kind":
        tensors[name] = tensors[name].double()
    elif fault == "facts":
        header["uncertainty"]["n_landmarks"] = True
    elif fault == "element":
        header["uncertainty"]["elements"] = [27]
    else:
        del header["uncertainty"]
    save_file(tensors, path, metadata={"mmace_sim": json.dumps(header)})
    with pytest.raises(ModelFileError, match=r"m\.safetensors"):
        load_model(path)


def test_commands_tell_what_a_file_says_of_its_uncertainties(tmp_path):
    import json

    from cli_tools import mmace_sim, write_tiny_model
    from embedded import BOTH

    for name in BOTH:
        told = json.loads(mmace_sim("models", "info", name, "--json").stdout)
        assert told["uncertainty"][0].startswith("calibrated with ")
        assert any(line.startswith("forces: typical σ ") for line in told["uncertainty"])
    write_tiny_model(tmp_path / "tiny.safetensors")
    write(tmp_path / "one.extxyz", rattled(np.random.default_rng(0), 0.05))
    structures = ("--structures", tmp_path / "one.extxyz")
    done = mmace_sim("check", tmp_path / "tiny.safetensors", *structures, "-o", tmp_path / "check")
    assert "Uncertainty: none: `mmace-sim calibrate" in done.output
    summary = json.loads((tmp_path / "check" / "summary.json").read_text())
    assert summary["uncertainty"] == ["none: `mmace-sim calibrate MODEL DATA -o NEW` adds them"]
