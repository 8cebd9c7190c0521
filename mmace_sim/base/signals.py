"""Signals that end a process, as exceptions that leave time to keep what is under way.

Batch systems send SIGTERM, or SIGUSR1 where one asks for it, before they kill a job; a terminal that closes sends
SIGHUP. Whatever ignores a signal from the start on (``nohup``) goes on ignoring it.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS: tuple[str, ...] = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
"""Signals that end a run; Windows lacks some of them."""


class Interrupted(KeyboardInterrupt):
    """A signal has come."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Handling:
    """What becomes of a signal now."""

    depth = 0
    waiting: int | None = None


def handled() -> list[int]:
    """Numbers of the signals that exist here and that nobody told this process to ignore."""
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` where a signal comes, or where `deferred` ends; only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _on_signal) for number in handled()}
    try:
        yield
    finally:
        _Handling.waiting = None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred(keep: Callable[[], None] = lambda: None) -> Iterator[Callable[[], None]]:
    """Let a signal wait until it suits; a second one does not.

    Args:
        keep: Called before the exception is raised, to save what is under way.

    Yields:
        What to call where it suits, such as after each step; the end of the block does too.

    Raises:
        Interrupted: There, if a signal has come.
    """

    def raise_waiting() -> None:
        number, _Handling.waiting = _Handling.waiting, None
        if number is not None:
            keep()
            raise Interrupted(number)

    _Handling.depth += 1
    try:
        yield raise_waiting
        raise_waiting()
    finally:
        _Handling.depth -= 1


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """The code that a process exits with after a signal, as shells count it.

    Returns:
        128 plus the number of the signal: 130 for Ctrl-C, 143 for SIGTERM.
    """
    return 128 + getattr(interrupt, "number", signal.SIGINT)


def told(interrupt: KeyboardInterrupt) -> str:
    """How a message about it begins."""
    name = signal.Signals(getattr(interrupt, "number", signal.SIGINT)).name
    return "Interrupted." if name == "SIGINT" else f"Interrupted by {name}."


def _on_signal(number: int, _frame: FrameType | None) -> None:
    if _Handling.depth and _Handling.waiting is None:
        _Handling.waiting = number
        return
    _Handling.waiting = None
    raise Interrupted(number)
