"""The parts that take an ordinary MACE of the same size as yardstick: apart, as importing mace-torch takes as long as all else."""

import time
from importlib.util import find_spec

import model_sizes as sizes
import torch
from mace.cli import convert_e3nn_cueq
from mace.modules import wrapper_ops

from mmace_sim.model.derivatives import evaluate


def evaluation(machine):
    """One evaluation against mace-torch's model of the same size."""
    for size in "a" if machine.quick else "abc":
        for n_atoms in (16,) if machine.quick else (54, 250):
            images = [sizes.iron(n_atoms)]
            model, graph = _ours(machine, size, images)
            row = {"size": size, "atoms": n_atoms}
            yield row | {"model": "ours", "ms": machine.ms(sizes.inference(model, graph))}
            moments = machine.ms(
                lambda m=model, g=graph: evaluate(m, g, compute_forces=False, compute_stress=False)
            )
            yield row | {"model": "ours, magforces only", "ms": moments}
            yield from _yardstick(machine, size, images, sizes.yardstick_inference, row)


def training(machine):
    """One step of training on eight structures against mace-torch's model of the same size."""
    for size in "a" if machine.quick else "abc":
        for n_atoms in (2,) if machine.quick else (2, 16):
            images = [sizes.iron(n_atoms, seed) for seed in range(8)]
            row = {"size": size, "structures": len(images), "atoms": n_atoms}
            yield row | {"model": "ours", "ms": machine.ms(sizes.training(*_ours(machine, size, images)))}
            yield from _yardstick(machine, size, images, sizes.yardstick_training, row)


def _ours(machine, size, images):
    """Our model and the structures in float32, on the device."""
    graph = sizes.graph(images, sizes.SIZES[size]["r_max"], torch.float32)
    model = sizes.ours(size, torch.float32).to(machine.device)
    return model, graph.map(lambda tensor: tensor.to(machine.device))


def _yardstick(machine, size, images, how, row):
    """Rows of the yardstick, plain and with cuEquivariance; what cannot be had says why."""
    try:
        batch = sizes.yardstick_batch(images, sizes.SIZES[size]["r_max"], torch.float32)
        batch = {k: v.to(machine.device) if torch.is_tensor(v) else v for k, v in batch.items()}
        other = sizes.yardstick(size, torch.float32).to(machine.device)
        found = {"ms": machine.ms(how(other, batch))}
    except Exception as error:
        yield row | {"model": "mace", "failed": _short(error)}
        return
    yield row | {"model": "mace"} | found
    yield row | {"model": "mace, cuEquivariance"} | _with_cuequivariance(machine, other, batch, how)


def _with_cuequivariance(machine, other, batch, how):
    if not (convert_e3nn_cueq.CUEQQ_AVAILABLE and wrapper_ops.CUET_AVAILABLE):
        return {"missing": "cuequivariance or cuequivariance-torch is not installed"}
    without = {} if find_spec("cuequivariance_ops_torch") else {"without": "cuequivariance-ops-torch"}
    before = torch.get_default_dtype()
    try:
        fast = convert_e3nn_cueq.run(other, device=machine.device.type)
        return {"ms": machine.ms(how(fast, batch))} | without
    except Exception as error:
        return {"failed": _short(error)} | without
    finally:
        torch.set_default_dtype(before)


def _short(error):
    return f"{type(error).__name__}: {error}"[:300]


def compiled(machine):
    """torch.compile of the energy of a size, with the time that it takes to compile."""
    size, n_atoms = ("a", 16) if machine.quick else ("b", 54)
    model, graph = _ours(machine, size, [sizes.iron(n_atoms)])
    vectors = graph.edge_vectors()
    row = {"size": size, "atoms": n_atoms}
    yield row | {"energy_ms": machine.ms(lambda: model(graph, vectors))}
    if machine.quick:
        return  # it takes a minute
    start = time.perf_counter()
    faster = torch.compile(lambda v: model(graph, v)["energy"], dynamic=False)
    faster(vectors)
    machine.wait()
    yield row | {"first_s": time.perf_counter() - start}
    yield row | {"compiled_ms": machine.ms(lambda: faster(vectors))}
