"""One pusher per app and machine, and a quiet second between two: their calls never meet in one sliding second.

The kernel frees the lock when its holder dies. Runs on several hosts are kept apart by Dagster's pool (see runs.py).
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from pipelines.errors import AppBusyError, DataFolderError
from pipelines.store import Store, disk_error_text, disk_errors, make_folder
from pipelines.target import Target

QUIET_SECONDS = 1.0  # the quota counts calls in any sliding second, whoever sent them


@contextmanager
def locked(store: Store, target: Target, *, patience_seconds: float = 0.0) -> Iterator[None]:
    """Holds the app's lock. Raises AppBusyError when another holder keeps it for `patience_seconds`."""
    path = target.lock_file(store)
    make_folder(path.parent)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience_seconds, poll_interval=1.0)
    except Timeout:  # an OSError itself, so it comes first
        raise AppBusyError(
            f"another run pushes to app {target.sdkappid} at {target.host} right now ({_holder(path)}); "
            "start again when it has ended"
        ) from None
    except OSError as error:
        raise DataFolderError(disk_error_text(path, error)) from error
    try:
        with disk_errors(path):
            path.with_suffix(".holder").write_text(
                f"process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC", encoding="utf-8"
            )
        yield
    finally:
        lock.release()


@contextmanager
def sending(store: Store, target: Target, *, wait: Callable[[float], object] = time.sleep) -> Iterator[None]:
    """For the holder of the lock, while it sends: begins a second after the last holder's calls ended.

    A holder that died may have had calls on their way: then a whole second passes.
    """
    mark = target.lock_file(store).with_suffix(".sending")
    with disk_errors(mark):
        wait(_quiet_seconds_left(mark))
        mark.write_text("calls are being sent", encoding="utf-8")
    try:
        yield
    finally:
        with suppress(OSError):
            mark.write_text("", encoding="utf-8")


def _quiet_seconds_left(mark: Path) -> float:
    if not mark.exists():
        return 0.0
    if mark.stat().st_size:
        return QUIET_SECONDS
    return min(max(0.0, QUIET_SECONDS - (time.time() - mark.stat().st_mtime)), QUIET_SECONDS)


def _holder(path: Path) -> str:
    try:
        return path.with_suffix(".holder").read_text(encoding="utf-8")
    except OSError:
        return "its process is not known"
