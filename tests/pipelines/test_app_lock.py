"""One pusher per app and machine, and a quiet second between two of them."""

import os
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from pipelines.app_lock import QUIET_SECONDS, locked, sending
from pipelines.errors import AppBusyError, DataFolderError
from pipelines.resources import Environment, environment_from


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return environment_from({"ATTRIBUTE_SYNC_DATA": str(tmp_path / "data")})


def lock_file(environment: Environment) -> Path:
    path = environment.target.lock_file(environment.store)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def waits(environment: Environment) -> list[float]:
    """What the next holder waits before it sends."""
    waited: list[float] = []
    with (
        locked(environment.store, environment.target),
        sending(environment.store, environment.target, wait=waited.append),
    ):
        pass
    return waited


def test_a_run_of_the_daemon_waits_for_the_app_and_one_from_a_shell_does_not(environment: Environment) -> None:
    holder = FileLock(lock_file(environment), thread_local=False)
    holder.acquire()
    with pytest.raises(AppBusyError), locked(environment.store, environment.target):
        pass
    threading.Timer(0.1, holder.release).start()
    with locked(environment.store, environment.target, patience_seconds=60):
        assert not holder.is_locked


def test_the_first_push_to_an_app_waits_for_nobody(environment: Environment) -> None:
    assert waits(environment) == [0.0]


def test_the_next_push_begins_a_second_after_the_last_calls_of_the_one_before(environment: Environment) -> None:
    waits(environment)
    mark = lock_file(environment).with_suffix(".sending")
    (soon,) = waits(environment)
    assert 0 < soon <= QUIET_SECONDS
    for age, wanted in (
        (0.25, 0.75),
        (1.0, 0.0),
        (3600.0, 0.0),
        (-3600.0, QUIET_SECONDS),
    ):  # the last: a clock set back
        os.utime(mark, (time.time() - age, time.time() - age))
        (left,) = waits(environment)
        assert left == pytest.approx(wanted, abs=0.2)


def test_after_a_push_that_died_a_whole_second_passes(environment: Environment) -> None:
    waits(environment)
    with pytest.raises(SystemExit), sending(environment.store, environment.target, wait=lambda _: None):
        raise SystemExit
    mark = lock_file(environment).with_suffix(".sending")
    assert mark.read_text(encoding="utf-8") == "", "an exception is no death"
    mark.write_text("calls are being sent", encoding="utf-8")
    os.utime(mark, (0, 0))
    assert waits(environment) == [QUIET_SECONDS]


def test_a_folder_that_cannot_hold_the_lock_is_named(environment: Environment) -> None:
    lock_file(environment).mkdir()
    with pytest.raises(DataFolderError, match="locks"), locked(environment.store, environment.target):
        pass
