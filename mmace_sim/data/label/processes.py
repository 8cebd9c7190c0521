"""Programs that engines start: one thread each, ended with their children when they take too long, and with us."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mmace_sim.data.label.engine import EngineError, Limits

THREADS: dict[str, str] = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Without these, codes of small cells take two to three times as much CPU time."""

_TOLD = 400


def _ends_with_its_parent() -> Callable[[], None] | None:
    """What a new process does first so that it ends when this one is killed; None where that is not possible."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None, use_errno=True)  # loaded here: little may be done between fork and exec
    set_death_signal = 1
    return lambda: library.prctl(set_death_signal, signal.SIGKILL)


_END_WITH_US = _ends_with_its_parent()


def run_program(
    command: Sequence[str],
    folder: Path,
    limits: Limits,
    *,
    log: str,
    environment: Mapping[str, str | None] | None = None,
) -> None:
    """Run a program in a folder until it ends.

    Args:
        command: Program and arguments.
        folder: Where it runs.
        limits: What it may use.
        log: Name of the file for what it prints.
        environment: Variables beside our own and `THREADS`; None: without it.

    Raises:
        EngineError: If it cannot be started, fails, or takes longer than it may.
    """
    path = folder / log
    given = {**os.environ, **THREADS, **(environment or {})}
    variables = {name: value for name, value in given.items() if value is not None}
    with path.open("wb") as file:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,
                preexec_fn=_END_WITH_US,  # noqa: PLW1509 - one call into libc, which is loaded
            )
        except OSError as error:
            raise EngineError(f"{command[0]} cannot be started ({error.strerror}).") from error
        try:
            code = process.wait(timeout=limits.timeout)
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"took longer than {limits.timeout:g} s (--timeout).") from error
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code != 0:
        raise EngineError(f"{Path(command[0]).name} ended with code {code}: {last_words(path)}")


def run_script(folder: Path, command: str, output: str = "> run.log 2>&1") -> None:
    """Write ``run.sh``, which computes what is in a folder.

    Args:
        folder: Folder of the calculation.
        command: What it runs.
        output: Where the shell puts what it prints.
    """
    exports = "\n".join(f"export {name}=${{{name}:-{value}}}" for name, value in THREADS.items())
    text = f'#!/bin/sh\nset -e\ncd "$(dirname "$0")"\n{exports}\n{command} {output}\n'
    (folder / "run.sh").write_text(text)
    (folder / "run.sh").chmod(0o755)


def last_words(path: Path) -> str:
    """The end of what a program printed, in one line."""
    with contextlib.suppress(OSError):
        return " ".join(path.read_text(errors="replace").split())[-_TOLD:] or "it printed nothing"
    return "it printed nothing"
