"""A name in the data folder stands for a whole file, and nothing is left behind but what a later run needs."""

import errno
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from connectors.tencent_push.protocol import AccountType
from pipelines.errors import DataFolderError
from pipelines.store import Store, disk_error_text, disk_errors, make_folder, whole_file
from tests.memory_objects import MemoryObjects


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Whole files --------------------------------------------------------------------------------------------------------


def test_a_file_appears_whole_under_its_name_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "below" / "file.txt"
    with whole_file(path) as beside:
        beside.write_text("new", encoding="utf-8")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "new"
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [RuntimeError(), KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(DataFolderError if isinstance(error, OSError) else type(error)), whole_file(path) as beside:
        beside.write_text("half", encoding="utf-8")
        raise error
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_writer_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataFolderError), whole_file(tmp_path / "file.txt"):
        pass
    assert names(tmp_path) == []


def test_a_full_disk_is_told_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with pytest.raises(DataFolderError) as caught, whole_file(path) as beside:
        beside.symlink_to("/dev/full")
        beside.write_text("x" * 100_000, encoding="utf-8")
    assert str(caught.value) == (
        f"{path}: No space left on device; free space or point ATTRIBUTE_SYNC_DATA at a larger disk, then run again"
    )
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "larger disk"),
        (errno.EDQUOT, "raise the quota"),
        (errno.EROFS, "read-only; point ATTRIBUTE_SYNC_DATA at a writable folder"),
        (errno.EACCES, "give this user the right to write there"),
        (errno.EIO, "see that the data folder's disk is whole and writable"),
    ],
)
def test_every_error_of_the_disk_names_the_file_and_a_remedy(number: int, remedy: str) -> None:
    path = Path("/data/state.json")
    with pytest.raises(DataFolderError) as caught, disk_errors(path):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith(f"{path}: {os.strerror(number)}; ")
    assert remedy in str(caught.value)


def test_an_error_of_the_disk_without_a_number_is_told_too() -> None:
    assert disk_error_text(Path("/data"), OSError("odd")).startswith("/data: odd; see that")


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(ValueError, match="mine"), disk_errors(Path("/data")):
        raise ValueError("mine")


def test_a_folder_in_the_way_of_which_a_file_stands_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file", encoding="utf-8")
    with pytest.raises(DataFolderError, match="data"):
        make_folder(tmp_path / "data" / "frames")


# Temporary folders --------------------------------------------------------------------------------------------------


def test_a_temporary_folder_is_there_for_as_long_as_it_is_used(store: Store) -> None:
    with store.temporary("run-1") as folder:
        (folder / "spill").mkdir()
        assert folder.parent == store.root / "temporary"
    assert names(store.root / "temporary") == []
    with pytest.raises(RuntimeError), store.temporary("run-1"):
        raise RuntimeError
    assert names(store.root / "temporary") == []


def number_of_a_dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_dead_process_left_goes_and_what_a_living_one_has_stays(store: Store) -> None:
    area = store.root / "temporary"
    abandoned = area / f"2f0c-44-run-{number_of_a_dead_process()}-abc123"
    (abandoned / "spill").mkdir(parents=True)
    own, others, foreign = area / f"run-{os.getpid()}-abc", area / f"run-{os.getppid()}-abc", area / "notes"
    for folder in (own, others, foreign):
        folder.mkdir()
    with store.temporary("run-2") as mine:
        assert names(area) == sorted([own.name, others.name, foreign.name, mine.name])


# What lives where ---------------------------------------------------------------------------------------------------


def test_every_kind_of_file_has_its_place_below_the_root(store: Store) -> None:
    places = {
        store.profiles("s", "r"): "profiles/sync=s/run=r",
        store.frames("s", "r"): "frames/sync=s/run=r",
        store.acknowledged("t", "s", AccountType.USER_ID): "acknowledged/target=t/sync=s/account_type=user_id",
        store.failed_rows_of("s", date(2026, 1, 2), "r"): "failed_rows/sync=s/date=2026-01-02/r.parquet",
        store.report_of("s", "r"): "reports/sync=s/r.html",
        store.emulator_file("small"): "emulator/small.sqlite",
    }
    assert {str(path.relative_to(store.root)) for path in places} == set(places.values())
    assert all(str(path.relative_to(store.root)) == place for path, place in places.items())
    assert not store.root.exists()


def old_runs(store: Store, sync: str, count: int) -> None:
    for number in range(count):
        for folder in (store.profiles(sync, f"r{number}"), store.frames(sync, f"r{number}")):
            folder.mkdir(parents=True)
            (folder / "part.parquet").touch()
            os.utime(folder, (number, number))


def test_only_the_newest_runs_of_a_sync_are_kept(store: Store) -> None:
    old_runs(store, "s", 5)
    old_runs(store, "other", 5)
    store.prune("s", keep=2)
    assert names(store.root / "frames" / "sync=s") == names(store.root / "profiles" / "sync=s") == ["run=r3", "run=r4"]
    assert len(names(store.root / "frames" / "sync=other")) == 5


def test_a_frame_that_a_ledger_still_needs_is_kept_however_old(store: Store) -> None:
    old_runs(store, "s", 5)
    folder = store.acknowledged("t", "s", AccountType.REGISTRATION_ID)
    folder.mkdir(parents=True)
    (folder / "r0.ledger").touch()
    store.prune("s", keep=2)
    assert names(store.root / "frames" / "sync=s") == ["run=r0", "run=r3", "run=r4"]


def test_what_this_run_needs_is_kept_whatever_the_clock_says(store: Store) -> None:
    old_runs(store, "s", 5)
    store.prune("s", keep=2, needed={"run=r0"})
    assert names(store.root / "profiles" / "sync=s") == ["run=r0", "run=r3", "run=r4"]


def test_pruning_a_sync_that_never_ran_does_nothing(store: Store) -> None:
    store.prune("s")
    assert not store.root.exists()


def elsewhere(store: Store, objects: MemoryObjects, host: str) -> Store:
    """The same data folder, on another machine."""
    return Store(store.root.with_name(host), objects)


def test_what_is_published_is_fetched_elsewhere_once(store: Store) -> None:
    objects = MemoryObjects()
    here, there = elsewhere(store, objects, "here"), elsewhere(store, objects, "there")
    file = here.frames("s", "r1") / "user_id.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"rows")
    here.publish(file)
    copy = there.frames("s", "r1") / "user_id.parquet"
    there.fetch(copy, there.frames("s", "r2") / "user_id.parquet")
    assert copy.read_bytes() == b"rows"
    assert names(there.root / "frames" / "sync=s") == ["run=r1"], "what is nowhere is not made"
    copy.write_bytes(b"mine")
    there.fetch(copy)
    assert copy.read_bytes() == b"mine"


def test_people_are_told_where_others_find_a_file(store: Store) -> None:
    shared = elsewhere(store, MemoryObjects(), "here")
    failed = shared.failed_rows("s")
    assert shared.address(failed) == f"{shared}/failed_rows/sync=s"
    assert shared.address(shared.plan("s", "r1")) == str(shared.plan("s", "r1")), "plans stay where they are made"
    assert store.address(store.failed_rows("s")) == str(store.failed_rows("s"))


def test_the_newest_days_are_fetched_until_one_has_what_is_wanted(store: Store) -> None:
    objects = MemoryObjects()
    shared = elsewhere(store, objects, "here")
    folder = shared.failed_rows("s")
    for day in ("2026-11-18", "2026-11-19", "2026-11-20", "2026-11-21"):
        objects.put(f"failed_rows/sync=s/date={day}/{day}.parquet", b"")
    (folder / "date=2026-11-18").mkdir(parents=True)
    (folder / "date=2026-11-18/2026-11-18.parquet").write_bytes(b"")  # known here already, and older than another's

    def of_this_app() -> Path | None:
        mine = ("2026-11-18", "2026-11-20")
        return max((path for path in folder.glob("date=*/*.parquet") if path.stem in mine), default=None)

    found = shared.fetch_days(folder, until=of_this_app)
    assert found == folder / "date=2026-11-20/2026-11-20.parquet"
    assert names(folder) == ["date=2026-11-18", "date=2026-11-20", "date=2026-11-21"], "what is older stays there"
    assert shared.fetch_days(shared.failed_rows("other"), until=lambda: None) is None


def test_a_new_host_does_not_fetch_the_history_of_years(store: Store) -> None:
    objects = MemoryObjects()
    shared = elsewhere(store, objects, "here")
    for year in range(1900, 2000):
        objects.put(f"failed_rows/sync=s/date={year}-01-01/run.parquet", b"")
    assert shared.fetch_days(shared.failed_rows("s"), until=lambda: None) is None
    assert names(shared.failed_rows("s")) == [f"date={year}-01-01" for year in range(1970, 2000)]


def test_frames_of_old_runs_go_elsewhere_too_but_for_those_that_a_ledger_needs(store: Store) -> None:
    objects = MemoryObjects()
    shared = elsewhere(store, objects, "here")
    for number in range(6):
        objects.put(f"frames/sync=s/run=r{number}/user_id.parquet", b"")
        objects.put(f"frames/sync=other/run=r{number}/user_id.parquet", b"")
        objects.times[f"frames/sync=s/run=r{number}/user_id.parquet"] = number
    objects.put("acknowledged/target=another/sync=s/account_type=user_id/r0.a1b2.ledger/00000001", b"")
    shared.prune("s", keep=2, needed={"run=r2"})
    kept = {key.split("/")[2] for key in objects.contents if key.startswith("frames/sync=s/")}
    assert kept == {"run=r0", "run=r2", "run=r4", "run=r5"}
    assert len([key for key in objects.contents if key.startswith("frames/sync=other/")]) == 6
