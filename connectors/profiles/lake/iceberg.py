"""An Iceberg table: pyiceberg reads its catalog and metadata, and the data files are read here one by one, in order.

Its own scan holds whole files in memory, several at once. Which column of a file is which, what a file lacks and which
rows are deleted is decided by pyiceberg all the same, through functions that are no public interface of it: hence the
upper bound of its version.
"""

from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from connectors.profiles.errors import (
    ProfilesError,
    SourceNotFoundError,
    SourceTableError,
    SourceUnreadableError,
)
from connectors.profiles.lake.data_files import Positions, live_rows, open_data_file
from connectors.profiles.lake.iceberg_catalog import IcebergName, load_table, part
from connectors.profiles.lake.lake_table import TableVersion
from connectors.profiles.storage.object_storage import ObjectStorage
from connectors.profiles.storage.storage_faults import meaning


def current_iceberg_version(name: IcebergName, *, base: Path, storage: ObjectStorage) -> TableVersion:
    """The newest snapshot, by a look at the metadata alone."""
    return IcebergTable(name, base=base, storage=storage).version


@dataclass(frozen=True, slots=True)
class _DataFile:
    task: Any  # pyiceberg's FileScanTask: the file, and the files of deletes that may concern it
    sequence_number: int

    @property
    def path(self) -> str:
        path: str = self.task.file.file_path
        return path


class IcebergTable:
    """One snapshot of a table, the newest of its main branch where none is named."""

    def __init__(self, name: IcebergName, *, base: Path, storage: ObjectStorage) -> None:
        self._name = name
        self._table = load_table(name, base=base, options=storage.options, environ=storage.environ)
        self._scan = self._table.scan(snapshot_id=self._chosen_snapshot())
        self._fields = self._scan.projection()
        self._deletes: dict[str, dict[str, Positions]] = {}  # by the file of deletes and the data file
        self.version = _version(name, self._scan.snapshot())
        self.schema = part("io.pyarrow").schema_to_pyarrow(self._fields, include_field_ids=False)

    def read(self, columns: Sequence[str]) -> Generator[pa.RecordBatch, None, None]:
        """Files in the order of their commits, then by name. Their metadata is looked at before a row is read."""
        wanted = part("schema").Schema(*(field for field in self._fields.fields if field.name in columns))
        for file in self._files():
            with closing(self._rows(file, wanted)) as batches:
                for batch in batches:
                    yield batch.select(list(columns))

    def _chosen_snapshot(self) -> int | None:
        """None for the newest, which is read with the table's newest schema."""
        name, metadata = self._name, self._table.metadata
        if name.ref is not None:
            snapshot = metadata.snapshot_by_name(name.ref)
            known = f"It has {', '.join(sorted(metadata.refs)) or 'none'}."
            what = f"branch or tag {name.ref!r}"
        elif name.snapshot is not None:
            snapshot = metadata.snapshot_by_id(name.snapshot)
            known = "It may have expired."
            what = f"snapshot {name.snapshot}"
        else:
            return None
        if snapshot is None:
            raise SourceTableError(f"The Iceberg table {name} has no {what}. {known} Name another one, or none.")
        snapshot_id: int = snapshot.snapshot_id
        return snapshot_id

    def _files(self) -> list[_DataFile]:
        """Raises SourceTableError for what cannot be read without doubt."""
        snapshot = self._scan.snapshot()
        if snapshot is None:
            return []
        numbers: dict[str, int] = {}
        with self._metadata_faults():
            for manifest in snapshot.manifests(self._table.io):
                for entry in manifest.fetch_manifest_entry(self._table.io):
                    self._require_readable(entry.data_file)
                    numbers[entry.data_file.file_path] = entry.sequence_number or 0
            tasks = list(self._scan.plan_files())
        files = [_DataFile(task, numbers.get(task.file.file_path, 0)) for task in tasks]
        return sorted(files, key=lambda file: (file.sequence_number, file.path))

    def _require_readable(self, data_file: Any) -> None:
        contents, formats = part("manifest").DataFileContent, part("manifest").FileFormat
        if data_file.content == contents.EQUALITY_DELETES:
            raise self._unfit(
                "has rows deleted by their values (equality deletes, as Flink writes them), which pyiceberg does not "
                "read. Compact it (in Spark: CALL system.rewrite_data_files with delete-file-threshold 1)"
            )
        if data_file.key_metadata:
            raise self._unfit("is encrypted, which pyiceberg does not read. Read it through a warehouse")
        if data_file.content == contents.DATA and data_file.file_format != formats.PARQUET:
            raise self._unfit(f"has files of {data_file.file_format.value}. Write it with Parquet files")

    def _rows(self, file: _DataFile, wanted: Any) -> Generator[pa.RecordBatch, None, None]:
        reader, metadata = part("io.pyarrow"), self._table.metadata
        deleted = self._deleted(file)
        with self._open(file) as handle:
            parquet = open_data_file(handle)
            if parquet.metadata.num_rows != file.task.file.record_count:
                raise SourceTableError(
                    f"{file.path} is not the file that {self.version} describes: it has another number of rows. "
                    "Something wrote it besides Iceberg; restore the file or the table."
                )
            with self._file_faults(file):
                to_microseconds = metadata.format_version <= 2
                in_file = reader.pyarrow_to_schema(
                    parquet.schema_arrow, metadata.name_mapping(), to_microseconds, metadata.format_version
                )
                partition = metadata.specs().get(file.task.file.spec_id)
                constants = reader._get_column_projection_values(
                    file.task.file, wanted, metadata.schema(), partition, in_file.field_ids
                )
                stored = part("schema").prune_columns(in_file, wanted.field_ids, select_full_types=False)
            names = [field.name for field in stored.fields]
            with closing(live_rows(parquet, names, deleted=deleted)) as batches:
                for batch in batches:
                    with self._file_faults(file):
                        yielded = reader._to_requested_schema(
                            wanted,
                            stored,
                            batch,
                            downcast_ns_timestamp_to_us=to_microseconds,
                            projected_missing_fields=constants,
                            allow_timestamp_tz_mismatch=True,
                        )
                    yield yielded

    def _deleted(self, file: _DataFile) -> Positions | None:
        """Of the files of deletes that were committed after the file and may concern it, each read once."""
        positions = []
        for deletes in file.task.delete_files:
            if deletes.file_path not in self._deletes:
                with self._metadata_faults():
                    found = part("io.pyarrow")._read_deletes(self._table.io, deletes)
                    self._deletes[deletes.file_path] = {path: array.to_numpy() for path, array in found.items()}
            if file.path in self._deletes[deletes.file_path]:
                positions.append(self._deletes[deletes.file_path][file.path])
        return np.unique(np.concatenate(positions)).astype(np.int64) if positions else None

    @contextmanager
    def _open(self, file: _DataFile) -> Generator[pa.NativeFile, None, None]:
        try:
            with self._table.io.new_input(file.path).open() as handle:
                yield handle
        except FileNotFoundError:
            raise SourceNotFoundError(
                f"{file.path}, a file of {self.version}, is not there any more: it was deleted, or its snapshot has "
                "expired. Read a newer snapshot, or restore the file."
            ) from None
        except pa.ArrowInvalid:
            raise SourceUnreadableError(
                f"{file.path}, a file of {self.version}, cannot be read as Parquet: it is damaged. Restore the file."
            ) from None
        except (pa.ArrowException, OSError) as error:
            raise meaning(error, file.path) from None

    @contextmanager
    def _file_faults(self, file: _DataFile) -> Generator[None, None, None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - no storage is asked here: whatever it is, the columns do not fit
            raise SourceTableError(
                f"The columns of {file.path}, a file of {self.version}, do not fit the table's "
                f"({type(error).__name__}): a type or a field id differs. Write the file again."
            ) from None

    @contextmanager
    def _metadata_faults(self) -> Generator[None, None, None]:
        try:
            yield
        except ProfilesError:
            raise
        except FileNotFoundError:
            raise SourceNotFoundError(
                f"A file of the metadata of {self.version} is not there any more: its snapshot has expired, or it was "
                "deleted. Read a newer snapshot."
            ) from None
        except OSError as error:
            raise meaning(error, self.version.as_subject) from None
        except Exception as error:  # noqa: BLE001 - of damaged metadata pyiceberg's decoders make anything, SystemError too
            raise SourceTableError(
                f"The metadata of {self.version} cannot be read ({type(error).__name__}): they are damaged, or of a "
                "kind that pyiceberg does not know. Restore them, or read another snapshot."
            ) from None

    def _unfit(self, what: str) -> SourceTableError:
        return SourceTableError(f"The Iceberg table {self._name} {what}.")


def _version(name: IcebergName, snapshot: Any) -> TableVersion:
    if snapshot is None:
        return TableVersion("Iceberg", str(name), "", None)
    at = datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC)
    return TableVersion("Iceberg", str(name), str(snapshot.snapshot_id), at)
