"""Chains of samples: who they are, their random numbers, blocks of sweeps that survive a killed process."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mmace_sim.errors import OutputError
from mmace_sim.files import replacing

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chain:
    """One chain of samples.

    Attributes:
        temperature: In K.
        seed: Of the random numbers.
        replica: Number among chains at the same temperature; each has random numbers of its own.
        name: Of the system, so that two systems with the same seed have different random numbers.
    """

    temperature: float
    seed: int = 0
    name: str = ""
    replica: int = 0


def block_generator(chain: Chain, n_atoms: int, block: int, device: torch.device) -> torch.Generator:
    """Random numbers of a chain in one block; they do not depend on other chains, and need no memory of earlier blocks.

    Args:
        chain: The chain.
        n_atoms: Size of its system.
        block: Number of the block.
        device: Where they are drawn.

    Returns:
        A generator.
    """
    milli = round(1000 * chain.temperature)
    identity = repr((chain.seed, chain.replica, chain.name, n_atoms, milli, block))
    word = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "little")
    return torch.Generator(device=device).manual_seed(word >> 1)


class Sampler:
    """What makes samples: a heat bath, or one of those of the model's own energy.

    Attributes:
        records: Names of what it observes.
    """

    records: tuple[str, ...]

    def advance(self, block: int, n_sweeps: int) -> dict[str, Float[np.ndarray, "n_sweeps n_sizes n_chains"]]:
        """Run one block of sweeps (trajectories) and observe after each.

        Args:
            block: Number of the block, from 0; it decides the random numbers.
            n_sweeps: How many.

        Returns:
            What was observed, by its name.
        """
        observed = self._advance(block, n_sweeps)
        return dict(zip(self.records, np.moveaxis(observed, 1, 0), strict=True))

    def _advance(self, block: int, n_sweeps: int) -> Float[np.ndarray, "n_sweeps n_records n_sizes n_chains"]:
        raise NotImplementedError

    def state(self) -> dict[str, np.ndarray]:
        """What is needed to go on."""
        raise NotImplementedError

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` gave.

        Args:
            state: The same arrays.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Series:
    """What the chains of one system did, sweep by sweep.

    Attributes:
        values: Observations of shape (n_sweeps, n_sizes, n_chains), equilibration included.
        n_equilibration: Sweeps that do not count.
    """

    values: dict[str, Float[np.ndarray, "n_sweeps n_sizes n_chains"]]
    n_equilibration: int

    @property
    def counted(self) -> dict[str, Float[np.ndarray, "n_sweeps n_sizes n_chains"]]:
        """Observations that count."""
        return {key: value[self.n_equilibration :] for key, value in self.values.items()}


def run_blocks(
    sampler: Sampler,
    n_equilibration: int,
    n_sweeps: int,
    *,
    block_sweeps: int = 200,
    checkpoint: Path | None = None,
    identity: str = "",
    renew: bool = False,
    on_block: Callable[[int], None] | None = None,
) -> Series:
    """Run a sampler in blocks; after each, all that is needed to go on is on disk.

    Args:
        sampler: What makes samples.
        n_equilibration: Sweeps that do not count.
        n_sweeps: Sweeps that count.
        block_sweeps: Sweeps between two checkpoints.
        checkpoint: File that keeps state and observations; an existing one is gone on with.
        identity: What the file must belong to. The number of sweeps is no part of it: a longer run goes on.
        renew: Start over where the file belongs to something else.
        on_block: Called with the number of sweeps of each block, those read from the file included.

    Returns:
        All observations. A run that was killed and goes on gives the same numbers as one that was not (on a CPU, to
        the last bit).

    Raises:
        OutputError: If the file belongs to another run, or cannot be written.
    """
    total = n_equilibration + n_sweeps
    done, blocks, parts = 0, 0, []
    content = None if checkpoint is None else _content(checkpoint, identity, renew=renew)
    if checkpoint is not None and content is not None:
        done = int(content["done"])
        blocks = int(content.get("blocks", -(-done // block_sweeps)))  # older files do not say
        sampler.load_state({key[6:]: content[key] for key in content if key.startswith("state_")})
        parts.append({key[6:]: content[key] for key in content if key.startswith("value_")})
        _log.info("%s: going on after %d of %d sweeps", checkpoint.name, done, total)
        if on_block:
            on_block(done)
    while done < total:
        n = min(block_sweeps, total - done)
        parts.append(sampler.advance(blocks, n))
        done, blocks = done + n, blocks + 1  # no block twice: runs that are made longer have short ones
        if checkpoint is not None:
            parts = [_joined(parts)]
            counts = {"done": np.array(done), "blocks": np.array(blocks), "identity": np.array(identity)}
            _save(sampler, checkpoint, counts, parts[0])
        if on_block:
            on_block(n)
    return Series(_joined(parts), n_equilibration)


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _save(sampler: Sampler, path: Path, counts: dict[str, np.ndarray], values: dict[str, np.ndarray]) -> None:
    content: dict[str, Any] = counts | {f"state_{key}": value for key, value in sampler.state().items()}
    content |= {f"value_{key}": value for key, value in values.items()}
    with replacing(path) as temporary:
        np.savez(temporary, **content)


def _content(path: Path, identity: str, *, renew: bool) -> dict[str, np.ndarray] | None:
    """What a file of samples holds; None if there is none, or one that is to be renewed."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as file:
        content = {key: file[key] for key in file.files}
    if str(content["identity"]) == identity:
        return content
    if renew:
        return None
    raise OutputError(
        f"{path}: belongs to another run. --resume takes more --sweeps with the same --equilibration (a fifth of the "
        "sweeps by default), and nothing else. Start over with --force."
    )


def replicas(temperatures: Sequence[float], seed: int, n_replicas: int, name: str) -> list[Chain]:
    """Chains of all temperatures, several of each.

    Args:
        temperatures: In K.
        seed: Of the random numbers; those of a replica are no others' of another seed.
        n_replicas: Chains of each temperature.
        name: Of the system.

    Returns:
        All replicas of the first temperature, then of the second, ….
    """
    return [Chain(float(t), seed, name, k) for t in temperatures for k in range(n_replicas)]
