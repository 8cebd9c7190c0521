"""One file from the web: resumed where it broke off, checked by size and sha256."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from mmace_sim.errors import ModelFileError, OutputError
from mmace_sim.hub.catalogue import RemoteFile
from mmace_sim.hub.store import cache_folder, free_bytes, make_folder

TIMEOUT: float = 30.0
"""Longest silence of the server, in seconds."""
ATTEMPTS: int = 3
"""How often in a row a transfer may bring nothing new."""
PAUSE: float = 1.0
"""Seconds before such a transfer is tried again, twice as many each further time."""

_FINAL = frozenset({400, 401, 403, 404, 405, 410, 451})
"""Answers after which trying again is no use."""

Advance = Callable[[int], None]
"""Told how many bytes there are."""


def part_file(remote: RemoteFile) -> Path:
    """Where the bytes of a download are kept until they are all there."""
    key = hashlib.sha256(remote.url.encode()).hexdigest() if remote.sha256 is None else remote.sha256
    return cache_folder() / "downloads" / f"{key[:16]}-{remote.filename}.part"


def download(remote: RemoteFile, advance: Advance = lambda _: None) -> Path:
    """Fetch a file; bytes that an earlier attempt brought are kept.

    Must be called with the lock of the model (`store.locked`), so that two processes do not write one file.

    Args:
        remote: What to fetch.
        advance: Told how many bytes there are.

    Returns:
        The complete file, still called ``.part``; the caller moves or deletes it.

    Raises:
        ModelFileError: If the server cannot be reached, or what it sends is not what was announced.
        OutputError: If the file cannot be written.
    """
    part = part_file(remote)
    make_folder(part.parent)
    _check_space(part, remote)
    resumed = _length(part) > 0
    _complete(remote, part, advance)
    if resumed and remote.sha256 not in (
        None,
        file_hash(part),
    ):  # what lay there was something else: once anew
        part.unlink()
        _complete(remote, part, advance)
    _verify(part, remote)
    return part


def by_hand(remote: RemoteFile, problem: str) -> str:
    """What to do where there is no connection.

    Args:
        remote: What was to be fetched.
        problem: Why it was not.
    """
    known = ", ".join(
        [remote.filename]
        + ([f"{remote.size} bytes"] if remote.size else [])
        + ([f"sha256 {remote.sha256}"] if remote.sha256 else [])
    )
    use = f"`mmace-sim models add {remote.filename}`" if remote.sha256 else "the same command with this file"
    return (
        f"{remote.name} could not be fetched ({problem}). Fetch {remote.url} on a machine with a connection ({known}), "
        f"copy it here, and run {use}."
    )


def file_hash(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _complete(remote: RemoteFile, part: Path, advance: Advance) -> None:
    """Transfer until all bytes are there, going on where a connection breaks off."""
    total, failures = remote.size, 0
    while total is None or _length(part) < total:
        before = _length(part)
        try:
            announced = _transfer(remote, part, advance)
            total = total or announced or _length(part)
            problem = "the connection was closed early"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            problem = _reason(error)
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in _FINAL:
                raise ModelFileError(by_hand(remote, problem)) from error
        if total is not None and _length(part) >= total:
            break
        failures = 0 if _length(part) > before else failures + 1
        if failures >= ATTEMPTS:
            raise ModelFileError(by_hand(remote, problem))
        time.sleep(PAUSE * 2 ** (failures - 1))


def _transfer(remote: RemoteFile, part: Path, advance: Advance) -> int | None:
    """Append what is missing to the part file, anew if the server cannot send a rest; the length it announces."""
    have = _length(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with httpx.stream("GET", remote.url, headers=headers, follow_redirects=True, timeout=TIMEOUT) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
            return None
        answer.raise_for_status()
        if have and not _continues(answer, have):
            have = 0
        total = remote.size or _announced(answer)
        try:
            with part.open("ab" if have else "wb") as file:
                for chunk in answer.iter_raw():
                    have += len(chunk)
                    if total is not None and have > total:
                        break
                    file.write(chunk)
                    advance(have)
        except OSError as error:
            raise OutputError(f"{part}: cannot be written ({error.strerror or error}).") from error
    if total is not None and have > total:
        part.unlink(missing_ok=True)
        raise ModelFileError(by_hand(remote, f"the server sends more than the {total} bytes announced"))
    return total


def _continues(answer: httpx.Response, have: int) -> bool:
    """Whether the server sends the rest from where we are."""
    unit, _, span = answer.headers.get("Content-Range", "").partition(" ")
    return (
        answer.status_code == httpx.codes.PARTIAL_CONTENT and unit == "bytes" and span.startswith(f"{have}-")
    )


def _announced(answer: httpx.Response) -> int | None:
    """Length of the whole file, as the server says."""
    whole = answer.headers.get("Content-Range", "").rpartition("/")[2] or answer.headers.get(
        "Content-Length", ""
    )
    return int(whole) if whole.isdecimal() else None


def _verify(part: Path, remote: RemoteFile) -> None:
    if remote.sha256 is None:
        return
    size, found = _length(part), file_hash(part)
    if found == remote.sha256:
        return
    part.unlink(missing_ok=True)
    raise ModelFileError(
        f"{remote.name}: what {remote.url} sends is not what was announced ({size} bytes with sha256 {found}, expected "
        f"{remote.size} bytes with {remote.sha256}). It was deleted and is not used: the file was changed on the "
        "server or on the way."
    )


def _check_space(part: Path, remote: RemoteFile) -> None:
    needed = 2 * (remote.size or 0) - _length(part)  # the file, and the model that is made of it
    free = free_bytes(part.parent)
    if free < needed:
        raise OutputError(
            f"{part.parent}: {free / 1e6:.0f} MB are free, {needed / 1e6:.0f} MB needed for {remote.name}. Make "
            "room, or choose another cache with MMACE_SIM_CACHE=DIR."
        )


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"the server says {error.response.status_code} {error.response.reason_phrase}".strip()
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
