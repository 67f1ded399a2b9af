"""Which files a source means, and how they stand: names, sizes, times. No file is opened here.

Only the functions below the line touch the file system, or the object storage that an address leads to
(object_storage.py).
"""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from connectors.profiles.errors import SourceNotFoundError, SourceUnreadableError
from connectors.profiles.storage.filesystems import is_address
from connectors.profiles.storage.object_storage import SUCCESS_FILE, ObjectStorage, folders_up_to

_SET_ASIDE = ("_", ".")  # what Spark and others write beside their results: _temporary/, _SUCCESS, .part.crc


class Place(NamedTuple):
    """A file, and the fixed folder of the source's entry that led to it: both absolute paths, or both addresses."""

    path: str
    root: str

    @property
    def folders(self) -> list[str]:
        """From the file's own folder up to the root, both included."""
        return [folder or "/" for folder in folders_up_to(self.root, self.path)]


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file as it stood when it was looked at; `modified_ns` since 1970."""

    place: Place
    bytes: int
    modified_ns: int

    @property
    def path(self) -> str:
        return self.place.path


def found_files(source: str | Sequence[str], base: Path, *, storage: ObjectStorage | None = None) -> list[FoundFile]:
    """The files of a source in the order in which their rows count. Raises SourceNotFoundError where there are none.

    Addresses lead to `storage`, and its errors are raised too.
    """
    storage = storage or ObjectStorage()
    return [
        FoundFile(place, *stat(place.path, storage))
        for place in distinct_files([source] if isinstance(source, str) else source, base, storage=storage)
    ]


def distinct_files(sources: Sequence[str], base: Path, *, storage: ObjectStorage) -> Iterator[Place]:
    if not sources:
        raise SourceNotFoundError("The source's list of Parquet files is empty. Name at least one path.")
    seen: set[str] = set()
    for source in sources:
        for place in _files_at(source, base, storage):
            identity = place.path if is_address(place.path) else os.path.realpath(place.path)
            if identity not in seen:
                seen.add(identity)
                yield place


# What touches the file system ---------------------------------------------------------------------------------------


def stat(path: str, storage: ObjectStorage | None = None) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds; of a file in `storage`, as it was listed there."""
    if storage is not None and is_address(path):
        return storage.stat(path)
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        raise SourceNotFoundError(f"{path} does not exist (any more). Correct the path, or run again.") from None
    except OSError as error:
        raise SourceUnreadableError(f"{path} cannot be looked at: {error.strerror}. Check its permissions.") from None
    return status.st_size, status.st_mtime_ns


def success_file_ns(folder: str, storage: ObjectStorage | None = None) -> int | None:
    """When the folder's `_SUCCESS` was written; None where there is none. In `storage`, as it was listed there."""
    if storage is not None and is_address(folder):
        return storage.success_ns(folder)
    try:
        return (Path(folder) / SUCCESS_FILE).stat().st_mtime_ns
    except OSError:
        return None


def _files_at(source: str, base: Path, storage: ObjectStorage) -> list[Place]:
    """What one entry of the source means; never empty."""
    if not source.strip():
        raise SourceNotFoundError("A Parquet path of the source is empty. Name a file, a glob or a folder.")
    if is_address(source):
        found = storage.files_at(source)
        return [Place(path, found.root) for path in found.paths]
    pattern = os.path.normpath(base.absolute() / Path(source).expanduser())
    if Path(pattern).exists():  # first, so that a name with brackets in it can be given as it is
        root = pattern if Path(pattern).is_dir() else str(Path(pattern).parent)
        return [Place(file, root) for file in _expand(pattern, source)]
    if not glob.has_magic(pattern):
        raise SourceNotFoundError(f"{source}: nothing stands at {pattern}. Correct the path; it starts at {base}.")
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root = str(Path(*parts[:fixed]))
    matches = _matching(Path(root), str(Path(*parts[fixed:])))
    files = [Place(file, root) for match in matches for file in _expand(match, source, may_be_empty=True)]
    if not files:
        raise SourceNotFoundError(f"{source}: no Parquet file matches {pattern}. Correct the pattern.")
    return files


def _expand(path: str, source: str, *, may_be_empty: bool = False) -> list[str]:
    """A file stands for itself, a folder for the `*.parquet` files below it."""
    if not Path(path).is_dir():
        return [path]
    files = [match for match in _matching(Path(path), "**/*.parquet") if Path(match).is_file()]
    if not files and not may_be_empty:
        raise SourceNotFoundError(f"{source}: no *.parquet file stands in the folder {path} or below it.")
    return files


def _matching(folder: Path, pattern: str) -> list[str]:
    """Sorted matches below `folder`, without a writer's own files (`_temporary/`) unless the pattern names them."""
    found = glob.glob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207 - Path.glob passes over linked folders
    if not any(part.startswith(_SET_ASIDE) for part in Path(pattern).parts):
        found = [match for match in found if not any(part.startswith(_SET_ASIDE) for part in Path(match).parts)]
    return [str(folder / match) for match in sorted(found)]
