"""Parquet files in object storage: which an address means, what they are like, and whether they are still the same.

Opens a filesystem once per bucket. Columns are fetched in staging.py, addresses are read in filesystems.py.
"""

import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from connectors.profiles.errors import SourceChangedError, SourceNotFoundError, SourceUnreadableError
from connectors.profiles.storage.filesystems import Address, StorageOptions, open_filesystem, read_address
from connectors.profiles.storage.storage_faults import meaning, storage_faults

FILES_AT_ONCE = 8  # requests under way: what hides a round trip, and what bounds the memory

SUCCESS_FILE = "_SUCCESS"  # what Hadoop's committers write last

_MAGIC = re.compile(r"[*?[]")
_VERSION_FACTS = ("ETag", "etag", "VersionId", "generation")  # what storages call it
_SET_ASIDE = ("_", ".")  # what Spark and others write beside their results

Item = TypeVar("Item")
Result = TypeVar("Result")


class Found(NamedTuple):
    """What a listing says of one file."""

    bytes: int
    modified_ns: int


class Matched(NamedTuple):
    """The files that one address means, sorted and never none, and the fixed folder that they were looked for in."""

    root: str
    paths: list[str]


class RemoteFooter(NamedTuple):
    """`version` is the storage's own mark of the object's content (ETag, generation), empty where it has none."""

    metadata: pq.FileMetaData
    schema: pa.Schema
    version: str


@dataclass(slots=True)
class ObjectStorage:
    """The storages that one source's addresses lead to. Safe to use from several threads once files are listed."""

    options: StorageOptions = field(default_factory=StorageOptions)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    _filesystems: dict[str, fs.FileSystem] = field(default_factory=dict)
    _listed: dict[str, Found] = field(default_factory=dict)
    _success_ns: dict[str, int | None] = field(default_factory=dict)  # by folder, as far as it was looked for

    def files_at(self, source: str) -> Matched:
        """The addresses of the files that a file's, a folder's or a glob's address means."""
        address = read_address(source)
        if str(address) in self._listed:
            return Matched(str(address).rpartition("/")[0], [str(address)])
        filesystem = self._filesystem(address)
        with storage_faults(str(address)):
            info = _look(filesystem, address.path)
            if info.type == fs.FileType.File:
                return Matched(str(address).rpartition("/")[0], self._keep(address, [info]))
            if info.type == fs.FileType.Directory:
                return self._matching(address, "", "**/*.parquet", wanted=f"no *.parquet file stands below {address}")
            parts = address.key.split("/")
            fixed = next((index for index, part in enumerate(parts) if _MAGIC.search(part)), None)
            if fixed is None:
                self._require_bucket(filesystem, address)
                raise SourceNotFoundError(f"{address}: nothing stands there. Correct the address.")
            below, pattern = "/".join(parts[:fixed]), "/".join(parts[fixed:])
            return self._matching(address, below, pattern, wanted=f"no Parquet file matches {address}")

    def stat(self, path: str) -> Found:
        """Size in bytes and modification time in nanoseconds, as the file was listed."""
        return self._listed[path]

    def success_ns(self, folder: str) -> int | None:
        """When the folder's `_SUCCESS` was written, None without one: as its files were listed, else as it is now."""
        if folder not in self._success_ns:
            address = read_address(f"{folder}/{SUCCESS_FILE}")
            with storage_faults(str(address)):
                info = _look(self._filesystem(address), address.path)
            self._success_ns[folder] = (info.mtime_ns or 0) if info.type == fs.FileType.File else None
        return self._success_ns[folder]

    def has_folder(self, path: str) -> bool:
        """Whether something stands below the address. Raises SourceNotFoundError where the bucket is not there."""
        address = read_address(path)
        filesystem = self._filesystem(address)
        with storage_faults(str(address)):
            if _look(filesystem, address.path).type == fs.FileType.Directory:
                return True
            self._require_bucket(filesystem, address)
            return False

    def open(self, path: str) -> pa.NativeFile:
        """For reading at any place; one request. Its errors are the storage's: use it within storage_faults."""
        address = read_address(path)
        return self._filesystem(address).open_input_file(address.path)

    def read_footer(self, path: str) -> RemoteFooter:
        """Raises SourceChangedError if the file is not as it was listed, SourceUnreadableError if it is no Parquet."""
        with vanished(path), storage_faults(path), self.open(path) as handle:
            if handle.size() != self._listed[path].bytes:
                raise changed(path)
            file = _as_parquet(handle, path)
            return RemoteFooter(file.metadata, file.schema_arrow, _version(handle))

    def version(self, path: str) -> str:
        """The version now. Raises SourceNotFoundError."""
        with storage_faults(path), self.open(path) as handle:
            return _version(handle)

    def listed_again(self, sources: Sequence[str]) -> dict[str, Found]:
        """What stands there now."""
        again = ObjectStorage(self.options, self.environ, self._filesystems)
        for source in sources:
            again.files_at(source)
        return again._listed

    def _filesystem(self, address: Address) -> fs.FileSystem:
        if address.root not in self._filesystems:
            self._filesystems[address.root] = open_filesystem(address, self.options, self.environ)
        return self._filesystems[address.root]

    def _matching(self, address: Address, below: str, pattern: str, *, wanted: str) -> Matched:
        """A match that is a folder stands for the `*.parquet` files below it, as it does on a local disk."""
        folder = Address(
            address.scheme, address.authority, below or ("" if _MAGIC.search(address.key) else address.key)
        )
        filesystem = self._filesystem(address)
        fits = glob_matcher(pattern)
        infos = _infos(filesystem, folder.path, recursive="/" in pattern or pattern == "**")
        start = len(folder.path.rstrip("/")) + 1
        if "/" not in pattern:  # one level alone is listed, so that what lies deeper costs nothing
            folders = [info.path for info in infos if info.type == fs.FileType.Directory and fits(info.path[start:])]
            infos = [*infos, *(info for path in folders for info in _infos(filesystem, path, recursive=True))]
        keeps_all = any(part.startswith(_SET_ASIDE) for part in pattern.split("/"))
        files = [
            info
            for info in infos
            if info.type == fs.FileType.File
            and fits(info.path[start:])
            and (keeps_all or not any(part.startswith(_SET_ASIDE) for part in info.path[start:].split("/")))
        ]
        if not files:
            self._require_bucket(filesystem, address)
            raise SourceNotFoundError(f"{address}: {wanted}. Correct the address.")
        root, paths = str(folder).removesuffix("/"), self._keep(address, files)
        written = {_address_of(info, address).rpartition("/")[0]: info for info in infos if _is_success(info)}
        for path in paths:
            for each in folders_up_to(root, path):
                if each not in self._success_ns:
                    self._success_ns[each] = (written[each].mtime_ns or 0) if each in written else None
        return Matched(root, paths)

    def _keep(self, address: Address, infos: Iterable[fs.FileInfo]) -> list[str]:
        found = {_address_of(info, address): Found(info.size, info.mtime_ns or 0) for info in infos}
        self._listed |= found
        return sorted(found)

    def _require_bucket(self, filesystem: fs.FileSystem, address: Address) -> None:
        """Storages tell neither an object nor its bucket from what is not there; which of them lacks is told here."""
        if not address.bucket:
            return
        try:
            (info,) = filesystem.get_file_info([address.bucket])
        except (pa.ArrowException, OSError):
            return  # to look at a bucket takes a right of its own
        if info.type == fs.FileType.NotFound:
            raise meaning(OSError("NO_SUCH_BUCKET"), str(address))


def folders_up_to(root: str, path: str) -> list[str]:
    """The folders of a path or address from its own up to `root`, both included; a local disk's own root is empty."""
    folder, root = path.rpartition("/")[0], "" if root == "/" else root
    folders = [folder]
    while folder != root and folder.startswith(f"{root}/"):
        folder = folder.rpartition("/")[0]
        folders.append(folder)
    return folders


def _address_of(info: fs.FileInfo, source: Address) -> str:
    """Of a file in the bucket that `source` leads to."""
    return f"{source.root}{info.path[len(source.bucket) + 1 :]}"


def _is_success(info: fs.FileInfo) -> bool:
    return bool(info.type == fs.FileType.File and info.base_name == SUCCESS_FILE)


def _look(filesystem: fs.FileSystem, path: str) -> fs.FileInfo:
    """A refusal to tell about one object has no words (it answers a HEAD request); a listing's has."""
    try:
        return filesystem.get_file_info([path])[0]
    except (pa.ArrowException, OSError) as error:
        if re.search(r"HTTP status [34]\d\d|ACCESS_DENIED", str(error)):
            _infos(filesystem, path, recursive=False)
        raise


def _infos(filesystem: fs.FileSystem, folder: str, *, recursive: bool) -> list[fs.FileInfo]:
    infos: list[fs.FileInfo] = filesystem.get_file_info(
        fs.FileSelector(folder, allow_not_found=True, recursive=recursive)
    )
    return infos


def glob_matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a path below the pattern's folder matches: `*`, `?` and `[..]` within a name, `**` for any folders.

    What matches a folder matches the `*.parquet` files below it.
    """
    parts = [r"(?:[^/]+/)*" if part == "**" else _name_pattern(part) + "/" for part in pattern.split("/")]
    whole = "".join(parts)
    file = whole[:-1] if whole.endswith("/") else whole + "[^/]+"
    below = rf"{whole}(?:[^/]+/)*[^/]*\.parquet" if whole.endswith("/") else file
    compiled = re.compile(rf"(?:{file}|{below})\Z", re.DOTALL)
    return lambda path: compiled.match(path) is not None


def _name_pattern(part: str) -> str:
    """The expression for one name, in which no wildcard reaches over a slash."""
    pieces = re.split(r"(\[[!^]?\]?[^\]]*\]|\*|\?)", part)
    return "".join(
        "[^/]*"
        if piece == "*"
        else "[^/]"
        if piece == "?"
        else _class(piece)
        if piece.startswith("[")
        else re.escape(piece)
        for piece in pieces
    )


def _class(piece: str) -> str:
    expression = re.match(r"\(\?s:(.*)\)\\[zZ]", fnmatch.translate(piece), re.DOTALL)
    return rf"(?!/){expression[1]}" if expression else re.escape(piece)


def changed(path: str, what: str = "changed") -> SourceChangedError:
    return SourceChangedError(f"{path} {what} while the run was reading it. Run again when its writer has finished.")


@contextmanager
def vanished(path: str) -> Iterator[None]:
    """For what was there when it was listed."""
    try:
        yield
    except SourceNotFoundError:
        raise changed(path, "vanished") from None


def _as_parquet(handle: pa.NativeFile, path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(handle)
    except (pa.ArrowException, OSError) as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        if not isinstance(error, pa.ArrowInvalid) and "thrift" not in words:
            raise  # the storage's
        raise SourceUnreadableError(
            f"{path} is not a readable Parquet file ({words}). "
            "Write it again, or take it out of the source; a file that is still being written looks the same."
        ) from None


def _version(handle: pa.NativeFile) -> str:
    try:
        facts = handle.metadata()
    except (pa.ArrowException, NotImplementedError):
        return ""
    return " ".join(facts[name].decode(errors="replace") for name in _VERSION_FACTS if name in facts)


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, at_once: int = FILES_AT_ONCE
) -> Iterator[Result]:
    """The results in the items' order, computed by several threads; nothing more is begun after an error."""
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="object-storage")
    try:
        yield from (future.result() for future in [pool.submit(function, item) for item in items])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
