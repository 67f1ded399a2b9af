"""Columns of remote files on local disk: the same rows, little of the rest, and one state of the source or none."""

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.profiles.errors import (
    ExtractNotWrittenError,
    SourceChangedError,
    SourceUnreachableError,
    SourceUnreadableError,
)
from connectors.profiles.parquet import Manifest, SourceFile, check_unchanged, read_manifest
from connectors.profiles.partitions import Wanted, read_partitions
from connectors.profiles.storage import filesystems, staging
from connectors.profiles.storage.filesystems import StorageOptions
from connectors.profiles.storage.object_storage import ObjectStorage
from connectors.profiles.storage.staging import stage
from tests.object_storage import S3, Answer, Request, Wire, parquet_bytes
from tests.staged_columns import ASKED, COLUMNS, ROWS, staged_file


@pytest.fixture(scope="module")
def large() -> bytes:
    return staged_file()


@pytest.fixture
def bucket(s3: S3, large: bytes, request: pytest.FixtureRequest) -> Iterator[str]:
    """A bucket of the test's own with two large files."""
    name = s3.bucket(f"staged-{abs(hash(request.node.name)) % 10**9}")
    for part in ("a", "b"):
        s3.put(name, f"p/{part}.parquet", large)
    yield name


class Source:
    """One source, from its listing to its copies."""

    def __init__(self, endpoint: str, bucket: str, folder: Path) -> None:
        self.address = f"s3://{bucket}/p/*.parquet"
        self.destination = folder / "run" / "profiles"
        self.storage = ObjectStorage(StorageOptions(endpoint=endpoint))
        self.manifest = read_manifest(self.address, columns=ASKED, base=folder, storage=self.storage)

    def stage(self, on_rows: Callable[[int], object] | None = None) -> Manifest:
        return stage(self.manifest, self.destination, sources=[self.address], storage=self.storage, on_rows=on_rows)

    def assert_nothing_left(self) -> None:
        assert not self.destination.exists()
        assert not list(self.destination.parent.iterdir())


def test_copies_hold_the_asked_columns_byte_for_byte_and_are_read_by_any_reader(
    s3: S3, bucket: str, large: bytes, tmp_path: Path
) -> None:
    heard: list[int] = []
    staged = Source(s3.endpoint, bucket, tmp_path).stage(heard.append)
    assert heard == [ROWS, 2 * ROWS]
    for file in staged.files:
        assert file.path.startswith(f"s3://{bucket}/p/")
        assert pq.read_table(file.local_path, columns=ASKED) == pa.table(COLUMNS).select(ASKED)
        assert Path(file.local_path).stat().st_size == file.bytes == len(large)
    check_unchanged(staged)


def test_other_columns_take_neither_network_nor_disk(
    wire: Wire, bucket: str, large: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "_BYTES_WORTH_A_REQUEST", 0)
    source = Source(wire.endpoint, bucket, tmp_path)
    wire.requests.clear()
    staged = source.stage()
    on_disk = sum(Path(file.local_path).stat().st_blocks * 512 for file in staged.files)
    over_the_wire = sum(length_of(request) for request in wire.requests if request.reads_rows)
    assert over_the_wire < 0.5 * 2 * len(large)
    assert on_disk < 0.5 * 2 * len(large)
    content = Path(staged.files[0].local_path).read_bytes()
    group = pq.read_metadata(staged.files[0].local_path).row_group(1)
    (blob,) = (group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == "blob")
    middle = blob.data_page_offset + blob.total_compressed_size // 2
    assert content[middle : middle + 4096] == bytes(4096)


def length_of(request: Request) -> int:
    start, _, stop = request.headers["range"].removeprefix("bytes=").partition("-")
    return int(stop) - int(start) + 1


def test_memory_is_bounded_by_the_requests_under_way(
    s3: S3, bucket: str, large: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "_BYTES_PER_REQUEST", 16 * 1024)
    under_way, most_bytes, requests = [0], [0], [0]
    lock = threading.Lock()
    copy_span = staging._copy_span

    def count(handle: pa.NativeFile, descriptor: int, span: tuple[int, int], **named: Any) -> None:
        size_bytes = span[1] - span[0]
        with lock:
            under_way[0] += size_bytes
            requests[0] += 1
            most_bytes[0] = max(most_bytes[0], under_way[0])
        copy_span(handle, descriptor, span, **named)
        with lock:
            under_way[0] -= size_bytes

    monkeypatch.setattr(staging, "_copy_span", count)
    Source(s3.endpoint, bucket, tmp_path).stage()
    assert requests[0] > 50
    assert most_bytes[0] <= 8 * 16 * 1024


# Sources that do not stand still ------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[S3, str, bytes], None]] = {
    "changed": lambda s3, bucket, large: s3.put(bucket, "p/b.parquet", large[:1000] + b"?" + large[1001:]),
    "vanished": lambda s3, bucket, large: s3.delete(bucket, "p/b.parquet"),
    "appeared": lambda s3, bucket, large: s3.put(bucket, "p/c.parquet", large),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_file_that_changes_between_the_listing_and_the_copy_is_noticed(
    what: str, s3: S3, bucket: str, large: bytes, tmp_path: Path
) -> None:
    source = Source(s3.endpoint, bucket, tmp_path)
    CHANGES[what](s3, bucket, large)
    name = "c" if what == "appeared" else "b"
    with pytest.raises(SourceChangedError, match=rf"s3://{bucket}/p/{name}\.parquet {what} while the run"):
        source.stage()
    source.assert_nothing_left()


@pytest.mark.parametrize("what", CHANGES)
def test_a_file_that_changes_while_it_is_copied_is_noticed(  # noqa: PLR0917  fixtures come by name
    what: str, s3: S3, wire: Wire, bucket: str, large: bytes, tmp_path: Path
) -> None:
    """The same size and, to the second, the same time: the version tells it."""
    source = Source(wire.endpoint, bucket, tmp_path)
    acted = threading.Event()

    def act() -> None:
        acted.set()
        CHANGES[what](s3, bucket, large)

    wire.once(lambda request: request.reads_rows and length_of(request) > 200_000, act)
    name = "c" if what == "appeared" else "b"
    with pytest.raises(SourceChangedError, match=rf"s3://{bucket}/p/{name}\.parquet {what} while the run"):
        source.stage()
    assert acted.is_set()
    source.assert_nothing_left()


def test_a_file_that_is_cut_while_it_is_copied_is_noticed(
    s3: S3, wire: Wire, bucket: str, large: bytes, tmp_path: Path
) -> None:
    """Requests behind its new end are refused; one over that end is answered in part, which pyarrow does not tell."""
    for length in (1_000, len(large) // 2):
        s3.put(bucket, "p/b.parquet", large)
        source = Source(wire.endpoint, bucket, tmp_path)
        wire.once(
            lambda request: "b.parquet" in request.path and request.reads_rows and length_of(request) > 200_000,
            partial(s3.put, bucket, "p/b.parquet", large[:length]),
        )
        with pytest.raises(SourceChangedError, match=r"b\.parquet.* changed while the run"):
            source.stage()
        source.assert_nothing_left()


def test_fewer_bytes_than_were_asked_for_are_noticed(tmp_path: Path) -> None:
    file = SourceFile("s3://lake/a.parquet", 1, 100, 0, pa.schema([]))
    handle = SimpleNamespace(read_at=lambda length, start: b"x" * (length - 1))
    with pytest.raises(SourceChangedError, match=r"s3://lake/a\.parquet changed"):
        staging._copy_span(handle, -1, (10, 20), file=file, to=tmp_path / "part")


def test_without_the_versions_a_quick_change_would_pass(
    s3: S3, bucket: str, large: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard broken on purpose: sizes are the same, and times are when the second is."""
    source = Source(s3.endpoint, bucket, tmp_path)
    CHANGES["changed"](s3, bucket, large)
    monkeypatch.setattr(ObjectStorage, "version", lambda _self, path: version_of(source.manifest, path))
    listed = ObjectStorage.listed_again
    monkeypatch.setattr(
        ObjectStorage,
        "listed_again",
        lambda self, sources: listed(self, sources) and dict(self._listed),
    )
    assert source.stage().rows == 2 * ROWS


def of_the_newest(endpoint: str, bucket: str, folder: Path, large: bytes, s3: S3) -> tuple[Manifest, ObjectStorage]:
    """`dt=20` of a source with two partitions, where both are complete."""
    for day in (19, 20):
        s3.put(bucket, f"lake/dt=2026-11-{day}/country=de/a.parquet", large)
    storage = ObjectStorage(StorageOptions(endpoint=endpoint))
    source, wanted = f"s3://{bucket}/lake", Wanted(latest=("dt",))
    return read_partitions(source, columns=[*ASKED, "dt"], base=folder, wanted=wanted, storage=storage), storage


@pytest.mark.parametrize("place", ["dt=2026-11-19/country=de/b", "dt=2026-11-21/country=de/a", "dt=2026-11-19/a"])
def test_a_file_that_appears_in_another_partition_does_not_matter(
    place: str, s3: S3, bucket: str, large: bytes, tmp_path: Path
) -> None:
    manifest, storage = of_the_newest(s3.endpoint, bucket, tmp_path, large, s3)
    s3.put(bucket, f"lake/{place}.parquet", large)
    staged = stage(manifest, tmp_path / "copy", sources=[f"s3://{bucket}/lake"], storage=storage)
    assert [file.path for file in staged.files] == [f"s3://{bucket}/lake/dt=2026-11-20/country=de/a.parquet"]
    assert staged.folder_columns == manifest.folder_columns
    assert staged.partition == "dt=2026-11-20"


@pytest.mark.parametrize("place", ["country=de/b", "country=cn/a", "a"])
def test_a_file_that_appears_in_the_partition_that_is_read_is_noticed(
    place: str, s3: S3, bucket: str, large: bytes, tmp_path: Path
) -> None:
    manifest, storage = of_the_newest(s3.endpoint, bucket, tmp_path, large, s3)
    s3.put(bucket, f"lake/dt=2026-11-20/{place}.parquet", large)
    with pytest.raises(SourceChangedError, match=rf"dt=2026-11-20/{place}\.parquet appeared while the run"):
        stage(manifest, tmp_path / "copy", sources=[f"s3://{bucket}/lake"], storage=storage)
    assert not (tmp_path / "copy").exists()


def version_of(manifest: Manifest, path: str) -> str | None:
    return next(file.version for file in manifest.files if file.path == path)


def test_what_happens_to_the_source_after_the_copy_does_not_matter_but_the_copy_must_stay(
    s3: S3, bucket: str, tmp_path: Path
) -> None:
    staged = Source(s3.endpoint, bucket, tmp_path).stage()
    s3.delete(bucket, "p/a.parquet")
    check_unchanged(staged)
    copy = Path(staged.files[1].local_path)
    copy.write_bytes(copy.read_bytes())
    with pytest.raises(SourceChangedError, match=r"part-00001\.parquet changed"):
        check_unchanged(staged)
    copy.unlink()
    with pytest.raises(SourceChangedError, match=r"part-00001\.parquet vanished"):
        check_unchanged(staged)


# Faults -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, "CONNECT_SECONDS", 1)
    monkeypatch.setattr(filesystems, "REQUEST_SECONDS", 1)
    monkeypatch.setattr(filesystems, "ATTEMPTS", 2)


@pytest.mark.usefixtures("impatient")
def test_a_connection_that_breaks_in_the_middle_leaves_nothing(wire: Wire, bucket: str, tmp_path: Path) -> None:
    source = Source(wire.endpoint, bucket, tmp_path)

    def cut(request: Request) -> Answer | None:
        if not (request.reads_rows and length_of(request) > 200_000):
            return None
        return Answer(206, b"x" * 1000, length=length_of(request))

    wire.spoil = cut
    with pytest.raises(SourceUnreachableError, match=r"\.parquet: .* the connection broke"):
        source.stage()
    source.assert_nothing_left()


def test_rights_that_are_taken_away_in_the_middle_leave_nothing(wire: Wire, bucket: str, tmp_path: Path) -> None:
    source = Source(wire.endpoint, bucket, tmp_path)
    body = b"<Error><Code>AccessDenied</Code></Error>"
    wire.spoil = lambda request: Answer(403, body) if request.reads_rows else None
    with pytest.raises(SourceUnreadableError, match="access is denied"):
        source.stage()
    source.assert_nothing_left()


def test_an_interrupt_leaves_nothing_and_asks_for_nothing_more(
    s3: S3, wire: Wire, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small file is copied while a large one's requests, a hundred and more, are held."""
    monkeypatch.setattr(staging, "_BYTES_PER_REQUEST", 16 * 1024)
    s3.put(bucket, "p/a.parquet", parquet_bytes({name: COLUMNS[name][:3] for name in ASKED}))
    source = Source(wire.endpoint, bucket, tmp_path)
    reads_of_small: list[Request] = []
    small_read, large_begun, interrupted = threading.Event(), threading.Event(), threading.Event()

    def hold(request: Request) -> None:
        if "a.parquet" in request.path and request.reads_rows:
            reads_of_small.append(request)
            if len(reads_of_small) == 2:  # the footer, then all of it
                small_read.set()
        elif "b.parquet" in request.path and request.method == "HEAD":
            small_read.wait(20)
        elif "b.parquet" in request.path and length_of(request) == 16 * 1024:
            large_begun.set()
            interrupted.wait(20)

    def interrupt(_rows: int) -> None:
        assert large_begun.wait(20)
        wire.requests.clear()
        interrupted.set()
        raise KeyboardInterrupt

    wire.spoil = hold
    with pytest.raises(KeyboardInterrupt):
        source.stage(interrupt)
    assert interrupted.is_set()
    assert len(wire.requests) < 20
    source.assert_nothing_left()


def test_an_earlier_copy_gives_way_and_anything_else_stays(s3: S3, bucket: str, tmp_path: Path) -> None:
    source = Source(s3.endpoint, bucket, tmp_path)
    source.stage()
    s3.put(bucket, "p/c.parquet", parquet_bytes({name: COLUMNS[name][:3] for name in ASKED}))
    assert Source(s3.endpoint, bucket, tmp_path).stage().rows == 2 * ROWS + 3
    (source.destination / "notes.txt").write_text("mine")
    with pytest.raises(ExtractNotWrittenError, match="is no earlier extract"):
        Source(s3.endpoint, bucket, tmp_path).stage()
    assert (source.destination / "notes.txt").read_text() == "mine"


def test_a_full_disk_is_told_as_one(s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(s3.endpoint, bucket, tmp_path)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ExtractNotWrittenError, match="No space left on device"):
        source.stage()
    source.assert_nothing_left()
