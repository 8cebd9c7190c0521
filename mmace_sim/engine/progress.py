"""How far a run is: a bar where there is a terminal, and a line every minute in the log and where there is none."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mmace_sim.base.signals import told
from mmace_sim.errors import OutputError
from mmace_sim.files import begin_all

INTERVAL_VARIABLE = "MMACE_SIM_PROGRESS_SECONDS"
"""Environment variable with the seconds between two lines."""

INTERVAL: float = 60.0

_log = logging.getLogger(__name__)


class Heartbeat:
    """Says every minute how far a run is: in its log, and on stderr where that is no terminal.

    Args:
        describe: Says it.
        quiet: Only in the log.
        seconds: Between two lines; None: as `INTERVAL_VARIABLE` says, else `INTERVAL`.
    """

    def __init__(self, describe: Callable[[], str], *, quiet: bool, seconds: float | None = None) -> None:
        self._describe = describe
        self._seconds = _interval() if seconds is None else seconds
        self._console = None if quiet or Console(stderr=True).is_terminal else Console(stderr=True)
        self._started = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def _beat(self) -> None:
        while not self._over.wait(self._seconds):
            self.say()

    def say(self, *, log: bool = True) -> None:
        """Say how far the run is.

        Args:
            log: Also in the log.
        """
        text = self.text
        if log:
            _log.info("%s", text)
        if self._console is not None:
            self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    @property
    def text(self) -> str:
        """What there is to say now."""
        elapsed = timedelta(seconds=round(time.monotonic() - self._started))
        return f"{self._describe()} after {elapsed}"

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()


class Tally:
    """How many of how many are finished.

    Args:
        what: What is being done, such as "Relaxing".
        total: How many there are; None if that is not known yet.
        unit: Of what, such as "structures".
    """

    def __init__(self, what: str, total: int | None, unit: str) -> None:
        self.what, self.total, self.unit, self.done, self.detail = what, total, unit, 0, ""

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total}"
        return f"{self.what}: {self.done}{of} {self.unit}{f', {self.detail}' if self.detail else ''}"


@contextmanager
def progress(what: str, total: int | None, unit: str, *, quiet: bool) -> Iterator[Callable[..., None]]:
    """Show how far a run is; with it, the runs under way begin to write.

    Args:
        what: What is being done, such as "Relaxing".
        total: How many there are; None if that is not known yet.
        unit: Of what, such as "structures".
        quiet: Show nothing.

    Yields:
        What to call with how many more are finished, a text to show beside the bar (``detail=``) and, once it is
        known, their number (``total=``).
    """
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
        TimeElapsedColumn(), TextColumn("{task.fields[detail]}"),
    )  # fmt: skip
    begin_all()
    console, tally = Console(stderr=True), Tally(what, total, unit)
    shown = console.is_terminal and not quiet
    beat = Heartbeat(tally.__str__, quiet=quiet)
    try:
        bar = Progress(*columns, console=console)
        shown_bar = (
            bar if shown else nullcontext()
        )  # old versions of rich write an empty line for a disabled bar
        with shown_bar, beat:
            task = bar.add_task(what, total=total, detail="")

            def advance(n: int = 1, *, detail: str | None = None, total: int | None = None) -> None:
                tally.done += n
                tally.total = tally.total if total is None else total
                tally.detail = tally.detail if detail is None else detail
                bar.update(task, advance=n, total=total, detail=tally.detail)

            yield advance
            beat.say(log=False)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(beat.text)
        raise


@contextmanager
def says_what_is_finished(describe: Callable[[], str]) -> Iterator[None]:
    """Say in the log what is finished if a signal or a full disk ends a run, and in the exception for the user.

    Args:
        describe: What is finished and how to go on.

    Yields:
        Nothing.

    Raises:
        KeyboardInterrupt: If a signal has come; its `told` is what was said.
        OutputError: If a file cannot be written.
    """
    try:
        yield
    except OutputError as error:
        text = f"{error} {describe()}"
        _log.error("%s", text)
        raise OutputError(text) from error
    except KeyboardInterrupt as interrupt:
        text = " ".join(
            [told(interrupt), *(f"{note}." for note in getattr(interrupt, "__notes__", ())), describe()]
        )
        _log.warning("%s", text)
        interrupt.told = text  # type: ignore[attr-defined]
        raise


def _interval() -> float:
    try:
        return max(float(os.environ.get(INTERVAL_VARIABLE, INTERVAL)), 0.01)
    except ValueError:
        return INTERVAL
