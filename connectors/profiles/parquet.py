"""Profiles in Parquet: which files a source means, and what their footers promise.

Nothing is copied and no row is read here; reading rows is the engine's work. Which files there are says files.py; of
this module only `_read_footer` touches the file system.
"""

import difflib
from collections import Counter
from collections.abc import Sequence
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

_NEAREST_NAMES = 3


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One Parquet file as it stood when its manifest was made; `path` is absolute, `modified_ns` since 1970."""

    path: str
    rows: int
    bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a source in the order in which their rows count, and the columns that were asked for.

    `schema` holds the types of the first file. Another file may keep the same text in another layout (large_string,
    string_view, dictionary); every other difference of types was refused. Columns that the folders' names give are in
    `folder_columns`, a row per file; `partition` and `passed_over` tell which partition was chosen (see partitions.py).
    """

    files: tuple[SourceFile, ...]
    schema: pa.Schema
    folder_columns: pa.Table | None = None
    partition: str | None = None
    passed_over: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of all files together, as their footers say."""
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        """Bytes of all files together, compressed as they are."""
        return sum(file.bytes for file in self.files)


def read_manifest(source: str | Sequence[str], *, columns: Sequence[str] | None, base: Path) -> Manifest:
    """The manifest of a file, a glob (`**` included), a folder (its `*.parquet`, recursively) or a list of these.

    A list keeps its order, globs and folders are sorted within it, and a file that is named twice counts once. Relative
    paths start at `base`. `columns` None means all columns of the first file. Every footer is read, no row is:
    SourceNotFoundError, SourceUnreadableError and SourceColumnError are raised before any work on the data.
    """
    paths = [place.path for place in distinct_files([source] if isinstance(source, str) else source, base)]
    files: list[SourceFile] = []
    schema: pa.Schema | None = None
    for path in paths:
        size_bytes, modified_ns = stat(path)
        footer = _read_footer(path)
        if schema is None:
            schema = _select(footer.schema, columns=columns, where=path)
        else:
            _require_same_types(schema, footer.schema, first=files[0].path, path=path)
        files.append(SourceFile(path=path, rows=footer.rows, bytes=size_bytes, modified_ns=modified_ns))
    return Manifest(files=tuple(files), schema=schema if schema is not None else pa.schema([]))


def check_unchanged(manifest: Manifest) -> None:
    """Raises SourceChangedError if a file vanished, or has another size or modification time than in the manifest.

    To be called before and after the rows are read: a source that changes in between would give rows of two versions.
    """
    for file in manifest.files:
        try:
            now = stat(file.path)
        except SourceNotFoundError:
            now = None
        if now != (file.bytes, file.modified_ns):
            what = "vanished" if now is None else "changed"
            raise SourceChangedError(
                f"{file.path} {what} while the run was reading it. Run again when its writer has finished."
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
    spellings = Counter(name.casefold() for name in schema.names)
    doubled = [column for column in columns if spellings[column.casefold()] > 1]
    if doubled:
        raise SourceColumnError(
            f"{where} has the column {', '.join(map(repr, doubled))} more than once (upper and lower case count as the "
            "same). Rename one of them in the source.",
            columns=doubled,
            where=where,
        )


def column_names(path: str) -> list[str]:
    """The columns of one file, as its footer says."""
    return list(_read_footer(path).schema.names)


class _Footer(NamedTuple):
    rows: int
    schema: pa.Schema


def _read_footer(path: str) -> _Footer:
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


def _select(schema: pa.Schema, *, columns: Sequence[str] | None, where: str) -> pa.Schema:
    """The asked-for part of the schema, each column once, without the file's own metadata."""
    names = list(dict.fromkeys(schema.names if columns is None else columns))
    require_columns(schema, names, where=where)
    return pa.schema([schema.field(name).remove_metadata() for name in names])


def _require_same_types(expected: pa.Schema, schema: pa.Schema, *, first: str, path: str) -> None:
    require_columns(schema, expected.names, where=path)
    for field in expected:
        found = schema.field(field.name).type
        if _layout_free(found) != _layout_free(field.type):
            raise SourceColumnError(
                f"Column {field.name!r} is {field.type} in {first} and {found} in {path}. "
                "Write both files with the same type, or give them to two syncs.",
                columns=[field.name],
                where=path,
            )


def _layout_free(data_type: pa.DataType) -> pa.DataType:
    """The type without how Arrow lays it out in memory: Parquet stores the text of all four alike."""
    if pa.types.is_dictionary(data_type):
        return _layout_free(data_type.value_type)
    if pa.types.is_large_string(data_type) or pa.types.is_string_view(data_type):
        return pa.string()
    if pa.types.is_large_binary(data_type) or pa.types.is_binary_view(data_type):
        return pa.binary()
    return data_type


def _nearest(column: str, names: Sequence[str]) -> str:
    by_folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(column.casefold(), list(by_folded), n=_NEAREST_NAMES, cutoff=0.5)
    if near:
        return "nearest: " + ", ".join(by_folded[name] for name in near)
    return "its columns: " + ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
