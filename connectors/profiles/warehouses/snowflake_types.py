"""What the columns of a Snowflake answer are in Arrow.

Pure: a column's description in, an Arrow field out. The driver's batches differ in type from piece to piece (integers
as narrow as the piece's values allow), so that the description decides, and the batches are brought into its types.
"""

from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa

from connectors.profiles.arrow_types import TYPE_NAME

_MOST_INT64_DIGITS = 18
_MOMENT = pa.timestamp("us", tz="UTC")
_REFUSED = pa.binary()  # which no column of a source may be: refused by its name later

_FIXED = 0
_TYPES: Mapping[int, pa.DataType] = {
    1: pa.float64(),
    2: pa.string(),  # also an untyped NULL
    3: pa.date32(),
    6: _MOMENT,  # in the session's zone
    7: _MOMENT,  # with a zone of its own
    8: pa.timestamp("us"),
    13: pa.bool_(),
}
_NAMES: Mapping[int, str] = {
    _FIXED: "DECFLOAT", 5: "VARIANT", 9: "OBJECT", 10: "ARRAY", 11: "BINARY", 12: "TIME", 14: "GEOGRAPHY",
    15: "GEOMETRY", 16: "VECTOR", 17: "MAP", 18: "FILE", 19: "INTERVAL", 20: "INTERVAL",
}  # fmt: skip


class Described(Protocol):
    """A column as the server describes it."""

    name: str
    type_code: int
    precision: int | None
    scale: int | None


def field_of(column: Described) -> pa.Field:
    """Semi-structured values, times of day, bytes and geographies get a type that is refused later, by their name."""
    if column.type_code == _FIXED and column.precision is not None and column.scale is not None:
        return pa.field(column.name, _number(column.precision, column.scale))
    kind = _TYPES.get(column.type_code, _REFUSED)
    name = _NAMES.get(column.type_code, f"type {column.type_code}")
    return pa.field(column.name, kind, metadata={TYPE_NAME: name.encode()} if kind == _REFUSED else None)


def _number(digits: int, scale: int) -> pa.DataType:
    return pa.int64() if scale == 0 and digits <= _MOST_INT64_DIGITS else pa.decimal128(digits, scale)
