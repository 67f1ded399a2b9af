"""What the columns of a BigQuery answer are in Arrow.

Pure: a column's description in, an Arrow field out. The answer's batches are brought into these types on arrival.
"""

from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa

from connectors.profiles.arrow_types import MAX_DECIMAL_DIGITS, TYPE_NAME

_REFUSED = pa.binary()  # which no column of a source may be: refused by its name later
_NUMERIC = pa.decimal128(38, 9)
_TYPES: Mapping[str, pa.DataType] = {
    "STRING": pa.string(),
    "INTEGER": pa.int64(),
    "INT64": pa.int64(),
    "FLOAT": pa.float64(),
    "FLOAT64": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "BOOL": pa.bool_(),
    "DATE": pa.date32(),
    "DATETIME": pa.timestamp("us"),
    "TIMESTAMP": pa.timestamp("us", tz="UTC"),
}


class Described(Protocol):
    """A column as the service describes it."""

    @property
    def name(self) -> str: ...
    @property
    def field_type(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def precision(self) -> int | None: ...
    @property
    def scale(self) -> int | None: ...


def field_of(column: Described) -> pa.Field:
    """Arrays, structs, JSON, bytes, times of day and a BIGNUMERIC of any digits get a type that is refused later."""
    repeated = column.mode == "REPEATED"
    kind = _REFUSED if repeated else _type_of(column)
    name = f"ARRAY<{column.field_type}>" if repeated else column.field_type
    return pa.field(column.name, kind, metadata={TYPE_NAME: name.encode()} if kind == _REFUSED else None)


def _type_of(column: Described) -> pa.DataType:
    if column.field_type not in ("NUMERIC", "BIGNUMERIC"):
        return _TYPES.get(column.field_type, _REFUSED)
    if column.precision is not None and column.precision <= MAX_DECIMAL_DIGITS:
        return pa.decimal128(column.precision, column.scale or 0)
    return _NUMERIC if column.field_type == "NUMERIC" and column.precision is None else _REFUSED
