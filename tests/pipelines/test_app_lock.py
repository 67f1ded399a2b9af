"""One pusher per app and machine, one per data folder, and a quiet second between two of them."""

import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, Emulator
from connectors.tencent_push.protocol import AccountType
from pipelines import app_lock, target
from pipelines.app_lock import QUIET_SECONDS, idle_here, locked, sending
from pipelines.errors import AppBusyError, DataFolderError
from pipelines.resources import Environment, environment_from
from tests.memory_objects import MemoryObjects
from tests.project import Project
from tests.running import write_profiles

LIVE = {
    "TENCENT_PUSH_SDKAPPID": "1400000001",
    "TENCENT_PUSH_IDENTIFIER": "administrator",
    "TENCENT_PUSH_SECRET_KEY": "not-a-real-key",
}


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return environment_from({"ATTRIBUTE_SYNC_DATA": str(tmp_path / "data")})


def lock_file(environment: Environment) -> Path:
    path = environment.target.data_lock(environment.store)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """A live app, on a machine of its own."""
    another_machine(tmp_path / "machine", monkeypatch)
    return environment_from({**LIVE, "ATTRIBUTE_SYNC_DATA": str(tmp_path / "data")})


def another_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(target, "MEETING_PLACES", [folder])


def machine_lock(environment: Environment) -> Path:
    path = environment.target.machine_lock()
    assert path is not None
    return path


def is_busy(environment: Environment) -> bool:
    try:
        with locked(environment.store, environment.target):
            return False
    except AppBusyError:
        return True


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
    assert mark.read_text(encoding="utf-8") == socket.gethostname(), "an exception is no death"
    for left in (app_lock.SENDING, ""):  # the last: the disk was full
        mark.write_text(left, encoding="utf-8")
        os.utime(mark, (0, 0))
        assert waits(environment) == [QUIET_SECONDS]


def test_after_the_push_of_another_host_a_whole_second_passes(live: Environment) -> None:
    """Its mark lies on its own disk, where the data folder is in object storage."""
    waits(live)
    for path in (lock_file(live).with_suffix(".sending"), machine_lock(live).with_suffix(".sending")):
        os.utime(path, (0, 0))
    assert waits(live) == [0.0]
    of_hosts = replace(live, store=replace(live.store, objects=MemoryObjects()))
    assert waits(of_hosts) == [QUIET_SECONDS]


def test_the_clock_of_another_machine_is_not_asked(live: Environment) -> None:
    waits(live)
    mark = lock_file(live).with_suffix(".sending")
    for path in (mark, machine_lock(live).with_suffix(".sending")):
        os.utime(path, (0, 0))
    assert waits(live) == [0.0]
    mark.write_text("another-host", encoding="utf-8")
    os.utime(mark, (0, 0))
    assert waits(live) == [QUIET_SECONDS]


def as_a_folder(mark: Path) -> None:
    """Root reads and writes what its mode forbids, but nobody a folder."""
    mark.unlink()
    mark.mkdir()


def as_bytes(mark: Path) -> None:
    mark.write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    ("damage", "waited"),
    [(as_a_folder, [QUIET_SECONDS, QUIET_SECONDS]), (as_bytes, [QUIET_SECONDS])],
    ids=["not readable, not writable", "no text"],
)
def test_a_mark_that_cannot_be_used_costs_quiet_seconds_and_no_push(
    live: Environment, damage: Callable[[Path], None], waited: list[float]
) -> None:
    """Nobody after a push without a mark knows of it: it waits after its calls as well."""
    waits(live)
    for path in (lock_file(live), machine_lock(live)):
        for suffix in (".sending", ".holder"):
            damage(path.with_suffix(suffix))
    assert waits(live) == waited


def test_who_holds_the_lock_is_told_even_if_nobody_knows(live: Environment) -> None:
    with locked(live.store, live.target):
        with pytest.raises(AppBusyError, match=f"process {os.getpid()} on {socket.gethostname()}, since "):
            hold(live)
        as_bytes(machine_lock(live).with_suffix(".holder"))
        with pytest.raises(AppBusyError, match="its process is not known"):
            hold(live)


def hold(environment: Environment) -> None:
    with locked(environment.store, environment.target):
        pass


def test_users_and_data_folders_of_one_machine_exclude_each_other(
    live: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_folder = environment_from({**LIVE, "ATTRIBUTE_SYNC_DATA": str(tmp_path / "other")})
    by_proxy = environment_from(
        {**LIVE, "TENCENT_PUSH_BASE_URL": "https://proxy.example", "ATTRIBUTE_SYNC_DATA": str(tmp_path / "third")}
    )
    other_app = environment_from(
        {**LIVE, "TENCENT_PUSH_SDKAPPID": "1400000002", "ATTRIBUTE_SYNC_DATA": str(tmp_path / "other")}
    )
    with locked(live.store, live.target):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
        assert [is_busy(each) for each in (live, other_folder, by_proxy, other_app)] == [True, True, True, False]
    assert not is_busy(other_folder)


def test_machines_that_share_a_data_folder_exclude_each_other(
    live: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_folder = environment_from({**LIVE, "ATTRIBUTE_SYNC_DATA": str(tmp_path / "other")})
    with locked(live.store, live.target):
        another_machine(tmp_path / "another machine", monkeypatch)
        assert [is_busy(live), is_busy(other_folder)] == [True, False]
        assert not is_busy(other_folder), "who is refused the second lock gives the first one back"
    assert not is_busy(live)


def test_a_machines_locks_are_for_every_user_whatever_the_umask(live: Environment) -> None:
    before = os.umask(0o077)
    try:
        waits(live)
    finally:
        os.umask(before)
    folder = machine_lock(live).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        ".lock": 0o666,
        ".holder": 0o666,
        ".sending": 0o666,
    }


def test_what_another_user_left_is_opened_without_asking_to_create_it(
    live: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel has it where everybody may make files (fs.protected_regular)."""
    waits(live)
    opened = os.open

    def protected(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and not flags & os.O_EXCL and Path(path).exists():
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", protected)
    (left,) = waits(live)
    assert left < QUIET_SECONDS, "the marks were written"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_of_the_machine_that_cannot_be_used_is_named(live: Environment, tmp_path: Path, kind: str) -> None:
    folder = machine_lock(live).parent
    if kind == "file":
        folder.touch()
    else:
        folder.symlink_to(tmp_path)
    with pytest.raises(DataFolderError, match=f"{folder}: .* meet there: have the administrator remove it"):
        is_busy(live)


def test_no_mark_is_written_through_a_link(live: Environment, tmp_path: Path) -> None:
    waits(live)
    mark, elsewhere = machine_lock(live).with_suffix(".holder"), tmp_path / "somebody's file"
    elsewhere.write_text("kept", encoding="utf-8")
    mark.unlink()
    mark.symlink_to(elsewhere)
    waits(live)
    assert elsewhere.read_text(encoding="utf-8") == "kept"


def test_a_folder_that_cannot_hold_the_lock_is_named(environment: Environment) -> None:
    lock_file(environment).mkdir()
    for asked in (locked, idle_here):
        with pytest.raises(DataFolderError, match="locks"), asked(environment.store, environment.target):
            pass


def test_whether_a_run_of_this_machine_is_at_work_is_told(environment: Environment) -> None:
    with idle_here(environment.store, environment.target) as is_idle:
        assert is_idle
    with (
        locked(environment.store, environment.target),
        idle_here(environment.store, environment.target) as is_idle,
    ):
        assert not is_idle


def test_a_push_from_another_machine_does_not_take_the_ledger_of_a_living_one(tmp_path: Path) -> None:
    """Two processes share one data folder, and nothing else: what counts as the machine is the temporary folder."""
    with Emulator(tmp_path / "app.sqlite", calls_per_second=None) as emulator:
        emulator.declare({"city": AccountType.USER_ID})
        project = one_city(tmp_path, emulator, "old")
        here = replace(project, environ={**project.environ, "TENCENT_PUSH_CALLS_PER_SECOND": "5"})
        machine = tmp_path / "another machine"
        machine.mkdir()
        there = replace(project, environ={**project.environ, "TMPDIR": str(machine)})
        first = here.start("-m", "pipelines", "run", "example")
        try:
            ledger = ledger_in_use(project)
            write_city(project, "new")
            refused = there.run("-m", "pipelines", "run", "example")
            assert refused.returncode == 75, refused.stderr
            assert "another run pushes to app" in refused.stderr
            assert ledger.exists()
        finally:
            first.kill()
            first.communicate()
        ran = there.run("-m", "pipelines", "run", "example")
        assert ran.returncode == 0, ran.stderr
        assert {values["city"] for values in dict(emulator.attributes()).values()} == {"new"}
        assert list(machine.rglob("*.lock")), "it had a lock of its own machine"


def one_city(folder: Path, emulator: Emulator, value: str) -> Project:
    """A project with one attribute of 4,000 accounts, to an app at the emulator's address."""
    app = EMULATOR_CREDENTIALS
    project = replace(
        Project.copy_to(folder / "project"),
        environ={
            "TENCENT_PUSH_BASE_URL": emulator.base_url,
            "TENCENT_PUSH_SDKAPPID": str(app.sdkappid),
            "TENCENT_PUSH_IDENTIFIER": app.identifier,
            "TENCENT_PUSH_SECRET_KEY": app.secret_key,
        },
    )
    attributes = {"city": {"column": "city"}}
    sync = {
        "source": {"parquet": str(project.folder / "profiles/*.parquet")},
        "accounts": {"user_id": {"column": "user_id", "attributes": attributes}},
    }
    document = {"type": "pipelines.attribute_sync.AttributeSync", "attributes": sync}
    project.yaml.write_text(yaml.safe_dump(document), encoding="utf-8")
    write_city(project, value)
    return project


def write_city(project: Project, value: str) -> None:
    accounts = [f"u{number:05d}" for number in range(4000)]
    write_profiles(project.folder / "profiles/one.parquet", {"user_id": accounts, "city": [value] * len(accounts)})


def ledger_in_use(project: Project) -> Path:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for ledger in (project.folder / "data").rglob("*.ledger"):
            if ledger.stat().st_size > 500:
                return ledger
        time.sleep(0.02)
    raise AssertionError("the first push wrote no ledger")
