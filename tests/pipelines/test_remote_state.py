"""What is acknowledged, in object storage and here: which of the two counts, and what a killed or a late run can do."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from connectors.object_store.faults import ObjectStoreError
from pipelines.errors import AppBusyError, DataFolderError
from pipelines.remote_state import RemoteState
from tests.memory_objects import MemoryObjects

PREFIX = "acknowledged/sync=nightly"


@dataclass(slots=True)
class Host:
    folder: Path
    objects: MemoryObjects
    require_held: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)

    @property
    def state(self) -> RemoteState:
        return RemoteState(self.objects, PREFIX, self.folder, require_held=self.require_held, writer=self.folder.name)

    def write(self, *parts: str, refused: str | None = None) -> tuple[bytes, list[Path]]:
        """The parts here, and the state that names them."""
        named = [*parts, *([refused] if refused else [])]
        for name in named:
            (self.folder / name).write_bytes(f"{name} of {self.folder.name}".encode())
        content = json.dumps({"parts": parts, "refused": refused}).encode()
        return content, [self.folder / name for name in named]

    def publish(self, *parts: str, refused: str | None = None) -> None:
        content, files = self.write(*parts, refused=refused)
        self.state.publish(content, files)

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def here(tmp_path: Path, objects: MemoryObjects) -> Host:
    return Host(tmp_path / "here", objects)


@pytest.fixture
def there(tmp_path: Path, objects: MemoryObjects) -> Host:
    return Host(tmp_path / "there", objects)


def test_what_one_host_publishes_another_one_has(here: Host, there: Host) -> None:
    here.publish("part-00000001-aa.parquet", refused="refused-run-1-bb.parquet")
    there.state.pull()
    assert there.files() == {**here.files(), "state.json": there.files()["state.json"]}
    assert set(there.files()) == {"part-00000001-aa.parquet", "refused-run-1-bb.parquet", "state.json"}


def test_before_anything_was_acknowledged_there_is_nothing(here: Host) -> None:
    (here.folder / "state.json").write_bytes(b"of another time")
    here.state.pull()
    assert here.files() == {}


def test_what_stands_in_the_storage_is_what_counts(here: Host, there: Host) -> None:
    here.publish("part-00000001-aa.parquet")
    there.state.pull()
    content, _ = here.write("part-00000001-aa.parquet", "part-00000002-bb.parquet")
    (here.folder / "state.json").write_bytes(content)  # and killed before it was published
    (here.folder / "run-1.ledger").write_bytes(b"never published")
    there.publish("part-00000001-aa.parquet", "part-00000002-cc.parquet")
    here.state.pull()
    assert set(here.files()) == {"part-00000001-aa.parquet", "part-00000002-cc.parquet", "state.json"}


def test_parts_that_are_here_are_not_fetched_again(here: Host) -> None:
    here.publish("part-00000001-aa.parquet")
    requests: list[str] = []
    here.objects.before = lambda verb, key: requests.append(verb)
    here.state.pull()
    assert "download" not in requests


def test_parts_that_no_state_names_go_and_old_states_after_them(here: Host) -> None:
    here.publish("part-00000001-aa.parquet")
    here.publish("part-00000001-aa.parquet", "part-00000002-bb.parquet")
    here.publish("part-00000003-cc.parquet", refused="refused-run-1-dd.parquet")
    parts = [key for key in here.objects.contents if "/part-" in key]
    assert parts == [f"{PREFIX}/part-00000003-cc.parquet"]
    for _ in range(30):
        here.publish("part-00000003-cc.parquet")
    assert not [key for key in here.objects.contents if "/refused-" in key]
    assert 2 <= len([key for key in here.objects.contents if "/state-" in key]) <= 12


def test_who_comes_late_changes_nothing(here: Host, there: Host) -> None:
    here.publish("part-00000001-aa.parquet")
    there.state.pull()
    there.publish("part-00000002-bb.parquet")
    with pytest.raises(DataFolderError, match="another run has changed"):
        here.publish("part-00000001-aa.parquet", "part-00000002-cc.parquet")
    assert there.objects.contents[f"{PREFIX}/part-00000002-bb.parquet"] == b"part-00000002-bb.parquet of there"
    here.state.pull()
    assert set(here.files()) == {"part-00000002-bb.parquet", "state.json"}


def test_who_slept_through_many_states_removes_nothing(here: Host, there: Host) -> None:
    """The number that it makes is free again, since old states go."""
    here.publish("part-00000001-aa.parquet")
    there.state.pull()
    for _ in range(30):
        there.publish("part-00000002-bb.parquet")
    with pytest.raises(DataFolderError, match="another run has changed"):
        here.publish("part-00000003-cc.parquet")
    there.state.pull()
    assert set(there.files()) == {"part-00000002-bb.parquet", "state.json"}
    assert f"{PREFIX}/part-00000002-bb.parquet" in there.objects.contents


def test_nothing_is_published_without_the_lease(here: Host) -> None:
    def lost() -> None:
        raise AppBusyError("another run has taken over")

    here.require_held = lost
    content, files = here.write("part-00000001-aa.parquet")
    acts: list[Callable[[], None]] = [
        lambda: here.state.publish(content, files),
        lambda: here.state.publish_segment("run-1.ledger", 1, b"x"),
        lambda: here.state.publish_ledger(files[0]),
    ]
    for act in acts:
        with pytest.raises(AppBusyError):
            act()
    assert here.objects.contents == {}


@pytest.mark.parametrize("failing", range(6))
def test_a_publication_that_is_cut_off_leaves_the_state_before_it(failing: int, here: Host, there: Host) -> None:
    here.publish("part-00000001-aa.parquet")
    requests = iter(range(100))

    def cut_off(verb: str, key: str) -> None:
        if next(requests) == failing:
            raise ObjectStoreError("cut off")

    here.objects.before = cut_off
    try:
        here.publish("part-00000001-aa.parquet", "part-00000002-bb.parquet")
        is_published = True
    except ObjectStoreError:
        is_published = any(key.endswith("state-00000002.json") for key in here.objects.contents)
    here.objects.before = lambda verb, key: None
    there.state.pull()
    assert ("part-00000002-bb.parquet" in there.files()) == is_published
    assert "part-00000001-aa.parquet" in there.files()
    there.publish("part-00000003-dd.parquet")


def test_a_reader_meets_parts_that_are_being_replaced(here: Host, there: Host) -> None:
    """It has no lease: between its listing and its reading another run publishes."""
    here.publish("part-00000001-aa.parquet")

    def replaced(verb: str, key: str) -> None:
        if verb == "download":
            here.objects.before = lambda verb, key: None
            here.publish("part-00000002-bb.parquet")

    here.objects.before = replaced
    there.state.pull()
    assert set(there.files()) == {"part-00000002-bb.parquet", "state.json"}


def test_a_ledger_is_put_together_from_its_segments(here: Host, there: Host) -> None:
    for number in range(1, 12):
        here.state.publish_segment("run-1.ledger", number, f"line {number}\n".encode())
    there.state.pull()
    assert there.files()["run-1.ledger"].decode() == "".join(f"line {number}\n" for number in range(1, 12))
    there.state.forget_ledger("run-1.ledger")
    here.state.pull()
    assert here.files() == {}


@pytest.mark.parametrize("left", range(5))
def test_a_ledger_that_is_half_forgotten_is_none(left: int, here: Host, there: Host) -> None:
    for number in range(1, 4):
        here.state.publish_segment("run-1.ledger", number, f"line {number}\n".encode())
    deletions = iter(range(100))

    def cut_off(verb: str, key: str) -> None:
        if verb == "delete" and next(deletions) == left:
            raise ObjectStoreError("cut off")

    here.objects.before = cut_off
    with contextlib.suppress(ObjectStoreError):
        here.state.forget_ledger("run-1.ledger")
    here.objects.before = lambda verb, key: None
    there.state.pull()
    assert "run-1.ledger" not in there.files()
    there.publish("part-00000001-aa.parquet")
    assert not [key for key in here.objects.contents if "run-1.ledger" in key], "what was left goes with the next state"


def test_a_segment_that_comes_after_its_ledger_was_forgotten_is_none(here: Host, there: Host) -> None:
    """One who slept in its write wakes when the next run has taken over."""
    for number in range(1, 4):
        here.state.publish_segment("run-1.ledger", number, b"line\n")
    there.state.pull()
    there.state.forget_ledger("run-1.ledger")
    here.state.publish_segment("run-1.ledger", 4, b"late\n")
    there.state.pull()
    assert there.files() == {}
    there.publish("part-00000001-aa.parquet")
    assert not [key for key in here.objects.contents if "run-1.ledger" in key], "it goes with the next state"


def test_who_only_reads_fetches_no_ledger(here: Host, there: Host) -> None:
    """That of a living push has segments by the ten thousand, which come and go."""
    here.publish("part-00000001-aa.parquet")
    here.state.publish_segment("run-1.ledger", 1, b"line\n")
    here.state.publish_segment("run-1.ledger", 3, b"line\n")
    RemoteState(there.objects, PREFIX, there.folder).pull()
    assert set(there.files()) == {"part-00000001-aa.parquet", "state.json"}


def test_two_who_write_the_same_segment_are_told(here: Host, there: Host) -> None:
    here.state.publish_segment("run-1.ledger", 1, b"mine\n")
    here.state.publish_segment("run-1.ledger", 1, b"mine\n")  # sent again, since the answer was lost
    with pytest.raises(DataFolderError, match="another run writes"):
        there.state.publish_segment("run-1.ledger", 1, b"theirs\n")


def test_a_segment_that_is_gone_is_told(here: Host, there: Host) -> None:
    for number in range(1, 4):
        here.state.publish_segment("run-1.ledger", number, b"line\n")
    del here.objects.contents[f"{PREFIX}/run-1.ledger/00000002"]
    with pytest.raises(DataFolderError, match=r"run-1\.ledger in the data folder lacks a segment"):
        there.state.pull()


def test_a_part_that_is_gone_is_told(here: Host, there: Host) -> None:
    here.publish("part-00000001-aa.parquet")
    del here.objects.contents[f"{PREFIX}/part-00000001-aa.parquet"]
    with pytest.raises(ObjectStoreError, match=r"part-00000001-aa\.parquet is gone from the data folder; restore it"):
        there.state.pull()


def test_a_state_that_cannot_be_read_is_told(here: Host) -> None:
    here.objects.put(f"{PREFIX}/state-00000004.json", b"[]")
    with pytest.raises(DataFolderError, match=r"state-00000004\.json in the data folder is damaged"):
        here.state.pull()


def test_what_an_adoption_notes_is_always_the_newest(here: Host, there: Host) -> None:
    for text in (b"first", b"second"):
        here.objects.put(f"{PREFIX}/adopted.json", text)
        there.state.pull()
        assert there.files()["adopted.json"] == text
