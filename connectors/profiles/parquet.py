"""Profiles in Parquet: which files a source means, and what their footers promise.

Nothing is copied and no row is read here; reading rows is the engine's work. Which files there are says files.py; of
this module only `_read_footer` touches the file system, or the object storage that an address leads to
(object_storage.py).
"""

import difflib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.profiles.errors import (
    SourceChangedError,
    SourceColumnError,
    SourceNotFoundError,
    SourceUnreadableError,
)
from connectors.profiles.files import distinct_files, stat
from connectors.profiles.lake.lake_table import TableVersion
from connectors.profiles.storage.filesystems import is_address
from connectors.profiles.storage.object_storage import ObjectStorage, in_order
from connectors.profiles.widening import common_type

_NEAREST_NAMES = 3


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One Parquet file as it stood when its manifest was made; `path` is absolute, `modified_ns` since 1970.

    `schema` has those of the asked-for columns that the file has, in the file's own types. A file in object storage has
    its address as `path`, the storage's mark of its content as `version`, and is read from its local `copy`, whose
    modification time is then the one that is given.
    """

    path: str
    rows: int
    bytes: int
    modified_ns: int
    schema: pa.Schema
    version: str | None = None
    copy: str | None = None

    @property
    def local_path(self) -> str:
        """Where its rows are read; the path itself for a local file."""
        return self.copy or self.path


@dataclass(frozen=True, slots=True)
class MissingColumn:
    """A column that some files lack, and how many `rows` stand in these; they are read as nulls."""

    column: str
    files: int
    rows: int
    first_file: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a source in the order in which their rows count, and the columns that were asked for.

    `schema` holds for each column the type in which the values of all files can be read (widening.py); every other
    difference of types was refused, and so was a column that no file has. Columns that the
    folders' names give are in `folder_columns`, a row per file; `partition` and `passed_over` tell which partition was
    chosen (see partitions.py). `table` tells what the files are an extract of, where that is a Delta or Iceberg table.
    """

    files: tuple[SourceFile, ...]
    schema: pa.Schema
    folder_columns: pa.Table | None = None
    partition: str | None = None
    passed_over: tuple[str, ...] = ()
    table: TableVersion | None = None

    @property
    def rows(self) -> int:
        """Rows of all files together, as their footers say."""
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        """Bytes of all files together, compressed as they are."""
        return sum(file.bytes for file in self.files)

    @property
    def own_columns(self) -> list[str]:
        """The columns that files have themselves, and not by the names of their folders."""
        above = self.folder_columns.column_names if self.folder_columns is not None else []
        return [name for name in self.schema.names if name not in above]

    def missing(self) -> list[MissingColumn]:
        """The columns that some files lack, in the schema's order."""
        lacking = {name: [file for file in self.files if name not in file.schema.names] for name in self.own_columns}
        return [
            MissingColumn(name, len(files), sum(file.rows for file in files), files[0].path)
            for name, files in lacking.items()
            if files
        ]


def read_manifest(
    source: str | Sequence[str],
    *,
    columns: Sequence[str] | None,
    base: Path,
    elsewhere: Collection[str] = (),
    storage: ObjectStorage | None = None,
) -> Manifest:
    """The manifest of a file, a glob (`**` included), a folder (its `*.parquet`, recursively) or a list of these.

    Each is a local path or an address in `storage`.

    A list keeps its order, globs and folders are sorted within it, and a file that is named twice counts once. Relative
    paths start at `base`. `columns` None means all columns of the first file; those of `elsewhere` may be in no file,
    and are then not in the manifest's schema either. Every footer is read, no row is: SourceNotFoundError,
    SourceUnreadableError and SourceColumnError are raised before any work on the data.
    """
    storage = storage or ObjectStorage()
    sources = [source] if isinstance(source, str) else source
    paths = [place.path for place in distinct_files(sources, base, storage=storage)]
    files: list[SourceFile] = []
    names: list[str] = []
    first_schema = pa.schema([])
    respelled: list[SourceColumnError] = []
    shared: dict[pa.Schema, pa.Schema] = {}  # thousands of files have few schemas
    for path, (size_bytes, modified_ns), footer in _looked_at(paths, storage):
        if not files:
            first_schema = footer.schema
            names = list(dict.fromkeys(footer.schema.names if columns is None else columns))
        schema = _select(footer.schema, names, where=path)
        respelled += _respelled(footer.schema, names, where=path)
        schema = shared.setdefault(schema, schema)
        files.append(SourceFile(path, footer.rows, size_bytes, modified_ns, schema, version=footer.version))
    somewhere = {name for schema in shared for name in schema.names}
    nowhere = [name for name in names if name not in somewhere and name not in elsewhere]
    if nowhere:
        require_columns(first_schema, nowhere, where=files[0].path)
    if respelled:
        raise respelled[0]
    return Manifest(
        files=tuple(files),
        schema=pa.schema([(name, _type_in_all(name, files)) for name in names if name in somewhere]),
    )


def check_unchanged(manifest: Manifest) -> None:
    """Raises SourceChangedError if a file vanished, or has another size or modification time than in the manifest.

    To be called before and after the rows are read: a source that changes in between would give rows of two versions.
    Of a file in object storage it is the copy that must stay; what the copy was made of was looked at then.
    """
    for file in manifest.files:
        try:
            now = stat(file.local_path)
        except SourceNotFoundError:
            now = None
        if now != (file.bytes, file.modified_ns):
            what = "vanished" if now is None else "changed"
            raise SourceChangedError(
                f"{file.local_path} {what} while the run was reading it. Run again when its writer has finished."
            )


def require_columns(schema: pa.Schema, columns: Sequence[str], *, where: str) -> None:
    """Raises SourceColumnError naming every one of `columns` that `schema` lacks, with the nearest names it has.

    A column whose name differs from another one by case alone is refused too: SQL engines cannot tell the two apart.
    """
    missing = [column for column in columns if column not in schema.names]
    if missing:
        hints = "; ".join(f"{column!r} ({_nearest(column, schema.names)})" for column in missing)
        raise SourceColumnError(
            f"{where} has no column {hints}. Correct the sync's mapping, or add the column to the source.",
            columns=missing,
            where=where,
        )
    _refuse_doubled(schema, columns, where=where)


def _refuse_doubled(schema: pa.Schema, columns: Sequence[str], *, where: str) -> None:
    spellings = Counter(name.casefold() for name in schema.names)
    doubled = [column for column in columns if spellings[column.casefold()] > 1]
    if doubled:
        raise SourceColumnError(
            f"{where} has the column {', '.join(map(repr, doubled))} more than once (upper and lower case count as the "
            "same). Rename one of them in the source.",
            columns=doubled,
            where=where,
        )


class _Footer(NamedTuple):
    rows: int
    schema: pa.Schema
    version: str | None = None


def _looked_at(paths: Sequence[str], storage: ObjectStorage) -> Iterator[tuple[str, tuple[int, int], _Footer]]:
    """Each with its status and footer; several at a time where a round trip lies between."""

    def look(path: str) -> tuple[str, tuple[int, int], _Footer]:
        return path, stat(path, storage), _read_footer(path, storage)

    yield from in_order(look, paths) if any(map(is_address, paths)) else map(look, paths)


def _read_footer(path: str, storage: ObjectStorage) -> _Footer:
    if is_address(path):
        remote = storage.read_footer(path)
        return _Footer(remote.metadata.num_rows, remote.schema, remote.version)
    try:
        with pq.ParquetFile(path) as file:
            return _Footer(rows=file.metadata.num_rows, schema=file.schema_arrow)
    except FileNotFoundError:
        raise SourceNotFoundError(f"{path} does not exist (any more). Correct the path, or run again.") from None
    except PermissionError:
        raise SourceUnreadableError(f"{path} may not be read by this user. Correct its permissions.") from None
    except (pa.ArrowException, OSError) as error:
        raise SourceUnreadableError(
            f"{path} is not a readable Parquet file ({_first_line(error)}). "
            "Write it again, or take it out of the source; a file that is still being written looks the same."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _select(schema: pa.Schema, names: Sequence[str], *, where: str) -> pa.Schema:
    """The part of the schema that is in `names`, each column once, without the file's own metadata."""
    found = [name for name in names if name in schema.names]
    _refuse_doubled(schema, found, where=where)
    return pa.schema([schema.field(name).remove_metadata() for name in found])


def _respelled(schema: pa.Schema, names: Sequence[str], *, where: str) -> Iterator[SourceColumnError]:
    """Columns that the file has in other letters: they are not missing there, and their values would be passed over."""
    by_folded = {name.casefold(): name for name in schema.names}
    for name in names:
        if name not in schema.names and name.casefold() in by_folded:
            yield SourceColumnError(
                f"{where} has a column {by_folded[name.casefold()]!r} where other files have {name!r}. "
                "Write both with the same upper and lower case letters.",
                columns=[name],
                where=where,
            )


def _type_in_all(name: str, files: Sequence[SourceFile]) -> pa.DataType:
    """Raises SourceColumnError naming the first two files whose types are not one in two widths."""
    seen: dict[pa.DataType, str] = {}  # type -> the first file with it
    common: pa.DataType | None = None
    for file in files:
        if name not in file.schema.names:
            continue
        found = file.schema.field(name).type
        if found not in seen:
            for earlier, first in seen.items():
                if common_type(earlier, found) is None:
                    raise SourceColumnError(
                        f"Column {name!r} is {earlier} in {first} and {found} in {file.path}. "
                        "Write both files with the same type, or give them to two syncs.",
                        columns=[name],
                        where=file.path,
                    )
            seen[found] = file.path
            common = found if common is None else common_type(common, found)
    return common


def _nearest(column: str, names: Sequence[str]) -> str:
    by_folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(column.casefold(), list(by_folded), n=_NEAREST_NAMES, cutoff=0.5)
    if near:
        return "nearest: " + ", ".join(by_folded[name] for name in near)
    return "its columns: " + ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
