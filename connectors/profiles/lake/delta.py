"""A Delta table: deltalake reads its log, and the files that the log names are read here one by one, in order.

What the log says of a file (its columns' names, its partition's values, its deleted rows) comes from deltalake. Its own
scan promises no order of rows, and refuses tables whose types were widened or that vacuum's check guards.
"""

import importlib
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.profiles.errors import (
    ProfilesError,
    SourceColumnError,
    SourceNotFoundError,
    SourceTableError,
    SourceUnreadableError,
)
from connectors.profiles.lake.data_files import Positions, live_rows, open_data_file
from connectors.profiles.lake.delta_storage import log_address, log_options
from connectors.profiles.lake.lake_table import TableVersion
from connectors.profiles.storage.filesystems import is_address, read_address
from connectors.profiles.storage.object_storage import ObjectStorage
from connectors.profiles.storage.storage_faults import meaning

# What a reader must know (Delta's protocol, "Reader Features"), as far as it is known here. Variants fit no attribute.
_READER_FEATURES = {
    "columnMapping",
    "deletionVectors",
    "timestampNtz",
    "typeWidening",
    "typeWidening-preview",
    "v2Checkpoint",
    "vacuumProtocolCheck",
    "variantType",
    "variantType-preview",
    "variantShredding",
    "variantShredding-preview",
}
_BYTES_OF_COMMIT = 1024 * 1024  # of which its first line mostly is what the writer says of it
_PHYSICAL_NAME, _FIELD_ID = b"delta.columnMapping.physicalName", b"delta.columnMapping.id"


def current_delta_version(address: str, *, base: Path, storage: ObjectStorage) -> TableVersion:
    """The newest version, by a look at the log alone."""
    return DeltaTable(address, base=base, storage=storage).version


@dataclass(frozen=True, slots=True)
class _DataFile:
    path: str  # absolute, or an address
    rows: int | None  # with the deleted ones, where the log tells it
    partition: Mapping[str, Any]  # by logical name
    modified_at: int


class DeltaTable:
    """One version of a table, the newest where none is named. `address` is a folder or an address in `storage`."""

    def __init__(self, address: str, *, base: Path, storage: ObjectStorage, version: int | None = None) -> None:
        deltalake = _reader()
        self._storage = storage
        self._root = _root(address, base, storage)
        self._table = self._opened(deltalake, version)
        number = self._table.version()
        self.version = TableVersion("Delta", self._root, str(number), self._committed_at(number))
        _require_known_features(self._table.protocol(), self.version)
        self.schema = pa.schema(self._table.schema().to_arrow())

    def read(self, columns: Sequence[str]) -> Generator[pa.RecordBatch, None, None]:
        """Files in the order in which they were written, then by name."""
        partitions = self._table.metadata().partition_columns
        deleted = self._deleted()
        files = self._files(partitions)
        if set(deleted) - {file.path for file in files}:
            raise SourceTableError(f"{self.version.as_subject} tells of deleted rows in a file that it does not have.")
        own = [name for name in columns if name not in partitions]
        for file in files:
            with self._open(file) as parquet:
                names = self._names_in(parquet, own, path=file.path)
                with closing(live_rows(parquet, list(names.values()), deleted=deleted.get(file.path))) as batches:
                    for batch in batches:
                        yield self._as_table(batch, columns, names, file.partition)

    def _as_table(
        self, batch: pa.RecordBatch, columns: Sequence[str], names: Mapping[str, str], partition: Mapping[str, Any]
    ) -> pa.RecordBatch:
        """The file's columns under the table's names; those that the file is too old to have are null."""

        def array(name: str) -> pa.Array:
            if name in names:
                return batch.column(names[name])
            return pa.repeat(pa.scalar(partition.get(name), self.schema.field(name).type), batch.num_rows)

        return pa.RecordBatch.from_arrays([array(name) for name in columns], names=list(columns))

    def _names_in(self, parquet: pq.ParquetFile, columns: Sequence[str], *, path: str) -> dict[str, str]:
        """The table's name -> the file's, of those that the file has: by ids or names, as the table's mapping says."""
        configuration = self._table.metadata().configuration
        by_id = configuration.get("delta.columnMapping.mode") == "id"
        physical = parquet.schema_arrow
        ids = {(field.metadata or {}).get(b"PARQUET:field_id"): field.name for field in physical}
        folded = {name.casefold(): name for name in physical.names}
        found: dict[str, str] = {}
        for column in columns:
            metadata = self.schema.field(column).metadata or {}
            name = metadata.get(_PHYSICAL_NAME, column.encode()).decode()
            if by_id and (in_file := ids.get(metadata.get(_FIELD_ID))) is not None:
                found[column] = in_file
            elif name in physical.names:
                found[column] = name
            elif name.casefold() in folded:
                raise SourceColumnError(
                    f"{path} has a column {folded[name.casefold()]!r} where {self.version} has {name!r}: which is "
                    "meant cannot be told. Write the file again.",
                    columns=[column],
                    where=path,
                )
        return found

    def _files(self, partitions: Sequence[str]) -> list[_DataFile]:
        with self._faults():
            actions = pa.table(self._table.get_add_actions(flatten=True))
        told = ["path", "modification_time", "num_records", *(f"partition.{name}" for name in partitions)]
        files = [
            _DataFile(
                path=_place(self._root, unquote(action["path"])),
                rows=action.get("num_records"),
                partition={name: action[f"partition.{name}"] for name in partitions},
                modified_at=action["modification_time"],
            )
            for action in actions.select([name for name in told if name in actions.column_names]).to_pylist()
        ]
        return sorted(files, key=lambda file: (file.modified_at, file.path))

    def _deleted(self) -> dict[str, Positions]:
        """The positions of deleted rows by file."""
        if "deletionVectors" not in (self._table.protocol().reader_features or ()):
            return {}
        with self._faults("record of deleted rows"):
            vectors = pa.table(self._table.deletion_vectors())
        local_root = self._root if not is_address(self._root) else None
        found = {}
        for address, is_live in zip(vectors["filepath"], vectors["selection_vector"], strict=True):
            path = (
                unquote(urlsplit(address.as_py()).path) if local_root else self._in_our_words(unquote(address.as_py()))
            )
            found[path] = np.flatnonzero(~is_live.values.to_numpy(zero_copy_only=False)).astype(np.int64)
        return found

    def _in_our_words(self, address: str) -> str:
        """COS is S3 to deltalake, and other storages have several names too."""
        theirs = f"{log_address(read_address(self._root)).rstrip('/')}/"
        return f"{self._root}/{address.removeprefix(theirs)}" if address.startswith(theirs) else address

    @contextmanager
    def _open(self, file: _DataFile) -> Generator[pq.ParquetFile, None, None]:
        gone = SourceNotFoundError(
            f"{file.path}, a file of {self.version}, is not there any more: it was vacuumed or deleted. Read a newer "
            "version, or restore the file."
        )
        try:
            handle = self._storage.open(file.path) if is_address(file.path) else pa.OSFile(file.path)
        except FileNotFoundError:
            raise gone from None
        except OSError as error:
            fault = meaning(error, file.path)
            raise gone if isinstance(fault, SourceNotFoundError) else fault from None
        with handle:
            try:
                parquet = open_data_file(handle)
                if file.rows is not None and file.rows != parquet.metadata.num_rows:
                    raise SourceTableError(
                        f"{file.path} is not the file that {self.version} describes: it has another number of rows. "
                        "Something wrote it besides Delta; restore the file or the table."
                    )
                yield parquet
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(error, file.path, self.version) from None

    def _committed_at(self, version: int) -> datetime | None:
        """As the commit itself tells it; deltalake's history holds the interpreter while it asks the storage."""
        path = f"{self._root}/_delta_log/{version:020}.json"
        try:
            with self._storage.open(path) if is_address(path) else pa.OSFile(path) as handle:
                lines = handle.read(_BYTES_OF_COMMIT).splitlines()
        except OSError:
            return None  # a checkpoint has taken its place
        for line in lines:
            with suppress(orjson.JSONDecodeError):
                told = orjson.loads(line).get("commitInfo") or {}
                milliseconds = told.get("inCommitTimestamp", told.get("timestamp"))
                if isinstance(milliseconds, int):
                    return datetime.fromtimestamp(milliseconds / 1000, UTC)
        return None

    def _opened(self, deltalake: Any, version: int | None) -> Any:
        if not is_address(self._root):
            address, options = self._root, None
        else:
            where = read_address(self._root)
            address = log_address(where)
            options = log_options(where, self._storage.options, self._storage.environ)
        with self._faults():
            try:
                return deltalake.DeltaTable(address, version=version, storage_options=options)
            except Exception as error:
                if version is None or not isinstance(error, deltalake.exceptions.DeltaError):
                    raise
                newest = deltalake.DeltaTable(address, storage_options=options).version()
        told = "is not in its log any more" if version < newest else f"does not exist: the newest is {newest}"
        raise SourceTableError(f"The Delta table {self._root}: version {version} {told}. Name another one, or none.")

    @contextmanager
    def _faults(self, what: str = "log") -> Generator[None, None, None]:
        """What deltalake raises, in our words; its own may quote what a storage answered."""
        exceptions = _reader().exceptions
        try:
            yield
        except exceptions.TableNotFoundError:
            raise _no_table(self._root) from None
        except exceptions.DeltaError as error:
            raise _log_fault(error, what, self._root) from None
        except OSError as error:
            raise meaning(error, self._root) from None


def _reader() -> Any:
    try:
        return importlib.import_module("deltalake")
    except ImportError:
        raise SourceTableError(
            "The reader of Delta tables is not installed. Install it: pip install '.[delta]'."
        ) from None


def _root(address: str, base: Path, storage: ObjectStorage) -> str:
    """The table's folder, absolute; asked of the storage in our own way first, whose errors are told well."""
    if not is_address(address):
        root = os.path.realpath(base.absolute() / Path(address).expanduser())  # as deltalake calls it, too
        if not (Path(root) / "_delta_log").is_dir():
            raise _no_table(root)
        return root
    root = str(read_address(address))
    if not storage.has_folder(f"{root}/_delta_log"):
        raise _no_table(root)
    return root


def _place(root: str, path: str) -> str:
    """Of a file, as the log names it: below the table, or anywhere for a shallow clone."""
    if path.startswith("file:"):  # decoded already: a `#` or `?` belongs to the name
        return path.removeprefix("file:").removeprefix("//")
    return path if is_address(path) or path.startswith("/") else f"{root}/{path}"


def _require_known_features(protocol: Any, version: TableVersion) -> None:
    unknown = sorted(set(protocol.reader_features or ()) - _READER_FEATURES)
    if unknown:
        raise _unknown_features(version.table, ", ".join(unknown))


def _unknown_features(table: str, features: str) -> SourceTableError:
    return SourceTableError(
        f"The Delta table {table} has features that cannot be read here: {features}. Switch them off, or read the "
        "table through a warehouse."
    )


def _no_table(root: str) -> SourceNotFoundError:
    return SourceNotFoundError(f"No Delta table stands at {root}: it has no _delta_log. Correct the address.")


def _log_fault(error: BaseException, what: str, root: str) -> ProfilesError:
    words = str(error)
    if "nsupported" in words or "catalog-managed" in words or "not supported" in words:
        return _unknown_features(root, "those that its log names in the protocol")
    return SourceUnreadableError(
        f"The {what} of the Delta table {root} cannot be read: it is damaged, or a part of it is missing. Restore it."
    )


def _unreadable(error: BaseException, path: str, version: TableVersion) -> ProfilesError:
    if is_address(path) and isinstance(error, OSError):
        return meaning(error, path)
    return SourceUnreadableError(
        f"{path}, a file of {version}, cannot be read as Parquet: it is damaged or encrypted. Restore the file."
    )
