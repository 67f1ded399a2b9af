"""One pusher per app and machine, and per data folder; and a quiet second between two of them.

So their calls never meet in one sliding second, and nobody takes the ledger of a living push for a leftover. The kernel
frees a lock when its holder dies. Runs on several hosts are kept apart by Dagster's pool (sharing.py), and by a lease
where their data folder is in object storage (lease.py).
"""

import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from pipelines.errors import AppBusyError, DataFolderError
from pipelines.lease import Lease
from pipelines.store import Store, disk_error_text, make_folder
from pipelines.target import Target

QUIET_SECONDS = 1.0  # the quota counts calls in any sliding second, whoever sent them
FOR_ALL = 0o666  # locks hold nothing to read, and every user of the machine has to open them
FOLDER_FOR_ALL = 0o1777
SENDING = "calls are being sent"


@contextmanager
def locked(store: Store, target: Target, *, patience_seconds: float = 0.0) -> Iterator[Lease | None]:
    """Holds the app's locks, and the lease of a data folder in object storage. Raises AppBusyError when another holder
    keeps one for `patience_seconds`.
    """
    deadline = time.monotonic() + patience_seconds
    _make_folders(store, target)
    with ExitStack() as held:
        for path in _lock_files(store, target):  # the machine's first, by everybody: so no two wait for each other
            lock = _acquire(path, target, patience_seconds=max(0.0, deadline - time.monotonic()))
            held.callback(lock.release)
            since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
            _write(path.with_suffix(".holder"), f"process {os.getpid()} on {socket.gethostname()}, since {since}")
        if store.objects is None:
            yield None
        else:
            lease = Lease(store.objects, f"locks/{target.name}")
            yield held.enter_context(lease.held(patience_seconds=max(0.0, deadline - time.monotonic())))


@contextmanager
def idle_here(store: Store, target: Target) -> Iterator[bool]:
    """Whether no run of this machine works in the data folder; while this lasts, none does."""
    _make_folders(store, target)
    path = target.data_lock(store)
    lock = FileLock(path, mode=FOR_ALL)
    try:
        lock.acquire(timeout=0)
    except Timeout:  # an OSError itself, so it comes first
        yield False
        return
    except OSError as error:
        raise DataFolderError(disk_error_text(path, error)) from error
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def sending(store: Store, target: Target, *, wait: Callable[[float], object] = time.sleep) -> Iterator[None]:
    """For the holder of the locks, while it sends: begins a second after the last holder's calls ended.

    A holder that died may have had calls on their way: then a whole second passes. So it does before and after a push
    that could not leave its mark: the next holder cannot know of it. Nor does another machine see the marks of a
    folder that is but a copy.
    """
    marks = [path.with_suffix(".sending") for path in _lock_files(store, target)]
    is_seen_by_all = store.objects is None or target.is_emulator
    quiet_seconds_left = max(_quiet_seconds_left(mark) for mark in marks) if is_seen_by_all else QUIET_SECONDS
    written = [_write(mark, SENDING) for mark in marks]
    is_marked = all(written)
    wait(quiet_seconds_left if is_marked else QUIET_SECONDS)
    try:
        yield
    finally:
        for mark in marks:
            _write(mark, socket.gethostname())
        if not is_marked:
            wait(QUIET_SECONDS)


def _lock_files(store: Store, target: Target) -> list[Path]:
    machine, data = target.machine_lock(), target.data_lock(store)
    return [data] if machine is None else [machine, data]


def _make_folders(store: Store, target: Target) -> None:
    machine = target.machine_lock()
    if machine is not None:
        _make_folder_for_all(machine.parent)
    make_folder(target.data_lock(store).parent)


def _make_folder_for_all(folder: Path) -> None:
    try:
        with suppress(FileExistsError):
            folder.mkdir()
        found = folder.lstat().st_mode  # what a link of another user's points to is not to be trusted
        if not stat.S_ISDIR(found):
            raise NotADirectoryError(0, "it is no folder")
        if stat.S_IMODE(found) != FOLDER_FOR_ALL:
            with suppress(PermissionError):  # another user's; if it is open to this one, it will do
                folder.chmod(FOLDER_FOR_ALL)
    except OSError as error:
        raise DataFolderError(_unusable(folder, error)) from error


def _acquire(path: Path, target: Target, *, patience_seconds: float) -> FileLock:
    lock = FileLock(path, mode=FOR_ALL)
    try:
        lock.acquire(timeout=patience_seconds, poll_interval=1.0)
    except Timeout:  # an OSError itself, so it comes first
        raise AppBusyError(
            f"another run pushes to app {target.sdkappid} at {target.host} right now ({_holder(path)}); "
            "start again when it has ended"
        ) from None
    except OSError as error:
        is_machines = path == target.machine_lock()
        raise DataFolderError(_unusable(path, error) if is_machines else disk_error_text(path, error)) from error
    with suppress(OSError):
        os.utime(path)  # what looks old is swept away where temporary files are
    return lock


def _unusable(path: Path, error: OSError) -> str:
    return (
        f"{path}: {error.strerror or error}; the pushes of all users of this machine meet there: "
        f"have the administrator remove it, or open it to all (a folder: mode {FOLDER_FOR_ALL:o}, a file: {FOR_ALL:o})"
    )


def _write(path: Path, text: str) -> bool:
    """Whether it could be written; a push does not fail for want of a mark."""
    try:
        with os.fdopen(_open_to_write(path), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        return False
    return True


def _open_to_write(path: Path) -> int:
    """Where everybody may make files, the kernel opens another user's only for those who do not ask to create it."""
    flags = os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
    with suppress(FileNotFoundError):
        return os.open(path, flags | os.O_TRUNC)
    descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, FOR_ALL)
    path.chmod(FOR_ALL)  # whatever this user's umask
    return descriptor


def _quiet_seconds_left(mark: Path) -> float:
    try:
        text, age_seconds = mark.read_text(encoding="utf-8"), time.time() - mark.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    except (OSError, UnicodeError):
        return QUIET_SECONDS
    if text != socket.gethostname():  # cut off while it sent, or of another machine, whose clock is not this one's
        return QUIET_SECONDS
    return min(max(0.0, QUIET_SECONDS - age_seconds), QUIET_SECONDS)


def _holder(path: Path) -> str:
    try:
        return path.with_suffix(".holder").read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        return "its process is not known"
