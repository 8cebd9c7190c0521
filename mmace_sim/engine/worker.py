"""What a worker does with a piece of a run: as a run of its own, whose journal another process reads."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmace_sim.engine.declaration import imported
from mmace_sim.engine.folder import log_to
from mmace_sim.engine.inputs import load_run_model
from mmace_sim.engine.journal import FILE_NAME, SIGN_OF_LIFE, Journal, weights_hash
from mmace_sim.engine.lifecycle import compute_part
from mmace_sim.engine.machine import quiet_imports, use_threads
from mmace_sim.engine.output import check_versions
from mmace_sim.engine.pieces import Piece, PieceEnd
from mmace_sim.engine.run import Run
from mmace_sim.engine.shards import Shard
from mmace_sim.errors import ModelFileError
from mmace_sim.files.workers import WorkerList

SIGN_INTERVAL: float = 5.0
"""Seconds between two signs of life."""


def compute_shard(shard: Shard) -> PieceEnd:
    """Compute a piece of a run of a property; each result is on disk as soon as it is there.

    Args:
        shard: The piece. Of one that was begun before, what is left.

    Raises:
        ModelFileError: If the model cannot be loaded here, or is another one.
        OutputError: If the disk is full.
    """
    arrive(shard)
    with quiet_imports():
        computation, model = _loaded(shard.property, json.dumps(shard.settings), shard.model, shard.weights)
    use_threads(computation.settings.threads)
    computation.context = shard.context
    run = Run(
        computation.declared,
        computation.settings,
        shard.folder,
        {shard.model: model},
        list(shard.items),
        identity=shard.identity,
        scratch=shard.own,
        places=shard.places,
        left=shard.checkpoints,
    )

    def work(journal: Journal) -> None:
        run.journal = journal
        compute_part(computation, run, lambda *_, **__: None)

    return at_work(shard, run.command, work, lambda: len(run.records))


def arrive(piece: Piece[Any]) -> None:
    """Be where the run was started, with the same packages.

    Args:
        piece: Of the run.

    Raises:
        UnsupportedOptionError: If results might differ.
    """
    os.chdir(piece.directory)
    check_versions(piece.versions)


def at_work(
    piece: Piece[Any], command: str, work: Callable[[Journal], None], n_done: Callable[[], int]
) -> PieceEnd:
    """Work on a piece in its own folder: a list of files, a log, a journal that the driver reads, signs of life.

    Args:
        piece: The piece.
        command: Of the run.
        work: Computes it and writes each result to the journal that it is given.
        n_done: How many results there are.

    Raises:
        OutputError: If the disk is full.
    """
    start = time.monotonic()
    files = WorkerList(piece.folder, command, piece.own, piece.known)
    with files.activated():
        files.begin()
        with (
            log_to(piece.own / "log.txt"),
            Journal(piece.own / FILE_NAME) as journal,
            alive(piece.own / SIGN_OF_LIFE, lambda: {"done": n_done(), "of": len(piece.items)}),
        ):
            if journal.path.stat().st_size == 0:
                journal.append({"identity": piece.identity})
            work(journal)
    n_lines = (piece.own / FILE_NAME).read_bytes().count(b"\n")
    return PieceEnd(n_lines, time.monotonic() - start)


@lru_cache(maxsize=4)
def _loaded(reference: str, settings: str, name: str, weights: str) -> tuple[Any, Any]:
    """The computation of a property and a model on its device: loaded once by each worker."""
    declared = imported(reference)
    given = declared.settings.model_validate(json.loads(settings))
    computation = declared.load()(declared, given)
    read = computation.read()
    model = load_run_model(given, name) if read is None else read[0][name]
    check_weights(model, name, weights)
    return computation, model


def check_weights(model: Any, name: str, weights: str) -> None:
    """Make sure that a model is that of the run.

    Args:
        model: As it was loaded here.
        name: Its name.
        weights: Hash of its weights, where the run was started.

    Raises:
        ModelFileError: If it is another one.
    """
    if weights_hash(model) != weights:
        raise ModelFileError(
            f"{name}: is another model on {socket.gethostname()} than where the run was started. Put the same file "
            "there."
        )


@contextlib.contextmanager
def alive(path: Path, far: Callable[[], dict[str, Any]]) -> Iterator[None]:
    """Tell every few seconds, in a file, who computes and how far it is.

    Args:
        path: The file.
        far: Says how far it is, in plain JSON.

    Yields:
        Nothing.
    """
    over = threading.Event()
    about = {"host": socket.gethostname(), "pid": os.getpid(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}

    def tell() -> None:
        while True:
            with contextlib.suppress(OSError):
                new = path.with_suffix(".new")
                new.write_text(json.dumps(about | far() | {"time": time.time()}))
                new.replace(path)
            if over.wait(SIGN_INTERVAL):
                return

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
