"""What a table of a lake is to the rest: one version of it, its columns, its rows. Nothing here knows a format."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class TableVersion:
    """One state of a table: a version of Delta, a snapshot of Iceberg. `table` holds no secret.

    `id` is empty for a table that never had a row, `committed_at` (UTC) None where the table does not tell it.
    """

    format: str
    table: str
    id: str
    committed_at: datetime | None

    def __str__(self) -> str:
        name = "version" if self.format == "Delta" else "snapshot"
        return f"the {self.format} table {self.table}" + (f", {name} {self.id}" if self.id else "")

    @property
    def as_subject(self) -> str:
        """For the beginning of a sentence."""
        text = str(self)
        return f"{text[0].upper()}{text[1:]}"


class LakeTable(Protocol):
    """One version of a table, opened: what is read of it does not change under the reader.

    Raises SourceTableError and the errors of files and storages (errors.py), before a row is read where that can be.
    """

    @property
    def version(self) -> TableVersion: ...

    @property
    def schema(self) -> pa.Schema:
        """The table's columns, in its own types."""

    def read(self, columns: Sequence[str]) -> Generator[pa.RecordBatch, None, None]:
        """The rows with these columns, older files first, in the same order at every reading.

        Batches are of bounded size; their types may be narrower than the schema's, as files are older than it.
        """
