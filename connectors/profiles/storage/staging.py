"""Files of object storage, copied to local disk without the columns that nobody asked for.

The engine reads its source several times, and the network would bear each of them. A copy has the length of its
original, and every byte of it but those of other columns' pages, which are holes: values, types and rows' places are
the original's, nothing is decoded, and what was not asked for takes neither network nor disk. Other columns cannot be
read from it.
"""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.profiles.errors import SourceNotFoundError
from connectors.profiles.extract_folder import disk_faults, folder_in_the_making
from connectors.profiles.parquet import Manifest, SourceFile
from connectors.profiles.partitions import in_partition
from connectors.profiles.storage.object_storage import FILES_AT_ONCE, ObjectStorage, changed, in_order, vanished
from connectors.profiles.storage.storage_faults import storage_faults

_BYTES_PER_REQUEST = 8 * 1024 * 1024
_REQUESTS_AT_ONCE = 8  # times the bytes of one: what is in memory
_BYTES_WORTH_A_REQUEST = 256 * 1024  # shorter holes are read over

Span = tuple[int, int]  # from, up to


def stage(
    manifest: Manifest,
    destination: Path,
    *,
    sources: Sequence[str],
    storage: ObjectStorage,
    on_rows: Callable[[int], object] | None = None,
) -> Manifest:
    """Copies the manifest's remote files to `destination/part-00000.parquet`, ... and says in it where they stand.

    `destination` appears whole or not at all, and an earlier copy there is replaced. `sources` are the addresses that
    the manifest was made of: SourceChangedError is raised if a file changed, vanished or appeared there, in the
    manifest's partition if it is of one, since it was listed. Then the copies are one state of the source, and nothing
    that happens to it later counts. `on_rows` hears the rows of the files so far. Also raises SourceUnreachableError
    and the like, and ExtractNotWrittenError.
    """
    remote = [file for file in manifest.files if file.version is not None]
    if not remote:
        return manifest
    staged: dict[str, SourceFile] = {}
    rows = 0
    with folder_in_the_making(destination) as folder:
        with _Copying(folder, destination.absolute(), columns=manifest.schema.names, storage=storage) as copying:
            for original, copied in copying.all_of(remote):
                staged[original.path] = copied
                rows += original.rows
                if on_rows is not None:
                    on_rows(rows)
        _require_same(remote, sources=sources, partition=manifest.partition, storage=storage)
    return replace(manifest, files=tuple(staged.get(file.path, file) for file in manifest.files))


class _Copying:
    """Files side by side, and the requests of all of them in one pool, whose size bounds the memory.

    After a fault or an interrupt nothing is asked of the storage but what was under way.
    """

    def __init__(self, folder: Path, destination: Path, *, columns: Collection[str], storage: ObjectStorage) -> None:
        self._folder = folder
        self._destination = destination
        self._columns = columns
        self._storage = storage
        self._files = ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="object-storage-files")
        self._requests = ThreadPoolExecutor(_REQUESTS_AT_ONCE, thread_name_prefix="object-storage")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._requests.shutdown(wait=False, cancel_futures=True)  # first: copies wait for their requests
        self._files.shutdown(wait=True, cancel_futures=True)
        self._requests.shutdown(wait=True)

    def all_of(self, files: Sequence[SourceFile]) -> Iterator[tuple[SourceFile, SourceFile]]:
        """(original, copied) as they are finished; the first fault is raised at once, whichever file has it."""
        copies = {self._files.submit(self._copy, number, file): file for number, file in enumerate(files)}
        for copy in as_completed(copies):
            yield copies[copy], copy.result()

    def _copy(self, number: int, file: SourceFile) -> SourceFile:
        name = f"part-{number:05}.parquet"
        modified_ns = _copy(
            file, self._folder / name, columns=self._columns, storage=self._storage, requests=self._requests
        )
        return replace(file, copy=str(self._destination / name), modified_ns=modified_ns)


def _copy(
    file: SourceFile, to: Path, *, columns: Collection[str], storage: ObjectStorage, requests: ThreadPoolExecutor
) -> int:
    """The copy's own modification time, which is the original's as far as the local disk can hold it."""
    with vanished(file.path), storage_faults(file.path), storage.open(file.path) as handle:
        if handle.size() != file.bytes:
            raise changed(file.path)
        spans = wanted_spans(pq.read_metadata(handle), columns=columns, size_bytes=file.bytes)
        with disk_faults(to):
            descriptor = os.open(to, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        try:
            with disk_faults(to):
                os.ftruncate(descriptor, file.bytes)
            futures: list[Future[None]] = [
                requests.submit(_copy_span, handle, descriptor, span, file=file, to=to) for span in _pieces(spans)
            ]
            try:
                for future in futures:
                    future.result()
            finally:
                for future in futures:
                    future.cancel()
                _wait_for(futures)  # a descriptor must not be closed under one that writes
        finally:
            os.close(descriptor)
    with disk_faults(to):
        os.utime(to, ns=(file.modified_ns, file.modified_ns))
        return to.stat().st_mtime_ns


def _copy_span(handle: pa.NativeFile, descriptor: int, span: Span, *, file: SourceFile, to: Path) -> None:
    start, stop = span
    with storage_faults(file.path):
        content = handle.read_at(stop - start, start)
    if len(content) != stop - start:
        raise changed(file.path)
    with disk_faults(to):
        written = 0
        while written < len(content):
            written += os.pwrite(descriptor, memoryview(content)[written:], start + written)


def _wait_for(futures: Sequence[Future[None]]) -> None:
    for future in futures:
        if not future.cancelled():
            future.exception()


def wanted_spans(metadata: pq.FileMetaData, *, columns: Collection[str], size_bytes: int) -> list[Span]:
    """All of the file but the pages of other columns; short stretches of these too, where that saves a request."""
    kept: list[Span] = []
    dropped: list[Span] = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for position in range(group.num_columns):
            chunk = group.column(position)
            starts = [chunk.data_page_offset]
            if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                starts.append(chunk.dictionary_page_offset)
            span = (min(starts), min(starts) + chunk.total_compressed_size)
            is_wanted = any(
                chunk.path_in_schema == name or chunk.path_in_schema.startswith(f"{name}.") for name in columns
            )
            (kept if is_wanted else dropped).append(span)
    return _joined([*_between(_joined(dropped), size_bytes), *kept], worth=_BYTES_WORTH_A_REQUEST)


def _between(spans: Sequence[Span], size_bytes: int) -> Iterator[Span]:
    """What the spans leave of the file."""
    position = 0
    for start, stop in spans:
        if start > position:
            yield position, start
        position = max(position, stop)
    if position < size_bytes:
        yield position, size_bytes


def _joined(spans: Sequence[Span], *, worth: int = 0) -> list[Span]:
    """Sorted, and one where they touch or less than `worth` bytes stand between them."""
    joined: list[Span] = []
    for start, stop in sorted(spans):
        if joined and start - joined[-1][1] <= worth:
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop))
        else:
            joined.append((start, stop))
    return joined


def _pieces(spans: Sequence[Span]) -> Iterator[Span]:
    for start, stop in spans:
        for begin in range(start, stop, _BYTES_PER_REQUEST):
            yield begin, min(begin + _BYTES_PER_REQUEST, stop)


def _require_same(
    files: Sequence[SourceFile], *, sources: Sequence[str], partition: str | None, storage: ObjectStorage
) -> None:
    """The versions, which tell more than a time of whole seconds; then the listing, for files that are new.

    Writers may be busy in every partition but the one that is read.
    """

    def version(file: SourceFile) -> str | None:
        try:
            return storage.version(file.path)
        except SourceNotFoundError:
            return None

    for file, now in zip(files, in_order(version, files), strict=True):
        if now != file.version:
            raise changed(file.path, "vanished" if now is None else "changed")
    try:
        listed = storage.listed_again(sources)
    except SourceNotFoundError:
        raise changed(files[0].path, "vanished") from None
    for file in files:
        now_listed = listed.pop(file.path, None)
        if now_listed is None or tuple(now_listed) != (file.bytes, file.modified_ns):
            raise changed(file.path, "vanished" if now_listed is None else "changed")
    for path in listed:
        if partition is None or in_partition(path, partition):
            raise changed(path, "appeared")
