"""What the columns of a ClickHouse answer are in Arrow, and what is written in the query so that they arrive as that.

Pure: names of types in, Arrow types and expressions out. Several types leave the server in another shape from version
to version (a DateTime as a number, a Date as days in 16 bits, a FixedString with its padding), or as bytes (UUID, IPv6,
128-bit integers); those are converted where they are read.
"""

import re
from typing import NamedTuple

import pyarrow as pa

from connectors.profiles.arrow_types import MAX_DECIMAL_DIGITS, TYPE_NAME
from connectors.profiles.warehouses.sql_text import quoted

_WRAPPED = re.compile(r"(?:LowCardinality\(|Nullable\(|SimpleAggregateFunction\(\w+, )(.*)\)", re.DOTALL)
_DECIMAL = re.compile(r"Decimal\((\d+), (\d+)\)")
_MOMENT = re.compile(r"DateTime64\((\d)(?:, .*)?\)|DateTime(?:\(.*\))?")
_AS_TEXT = re.compile(r"(?:Enum(?:8|16)\(.*\)|UUID|IPv[46]|U?Int(?:128|256))", re.DOTALL)
_FIXED_TEXT = re.compile(r"FixedString\(\d+\)")


class _Reading(NamedTuple):
    """The Arrow type, and how the column is written in the query; None: as it is."""

    type: pa.DataType
    expression: str | None = None


_PLAIN = {
    "String": _Reading(pa.string()),
    "Bool": _Reading(pa.bool_()),
    "Float32": _Reading(pa.float32()),
    "Float64": _Reading(pa.float64()),
    "Nothing": _Reading(pa.null()),
    "Date": _Reading(pa.date32(), "toDate32({0})"),
    "Date32": _Reading(pa.date32()),
    **{f"Int{bits}": _Reading(getattr(pa, f"int{bits}")()) for bits in (8, 16, 32, 64)},
    **{f"UInt{bits}": _Reading(getattr(pa, f"uint{bits}")()) for bits in (8, 16, 32, 64)},
}
_TEXT = _Reading(pa.string(), "toString({0})")
_REFUSED = _Reading(pa.binary())  # which no column of a source may be: refused by its name later


def field_of(name: str, declared: str) -> pa.Field:
    """Arrays, tuples, maps, JSON, intervals, times of day and states of aggregates get a type that is refused later."""
    return pa.field(name, _reading(declared).type, metadata={TYPE_NAME: declared.encode()})


def quoted_name(name: str) -> str:
    """As ClickHouse wants it, where a backslash in a quoted name hides the character behind it."""
    return quoted(name.replace("\\", "\\\\"), "`")


def column_of(field: pa.Field) -> str:
    """How the column of `field_of` is written in a query, under its own name."""
    name = quoted_name(field.name)
    expression = _reading(field.metadata[TYPE_NAME].decode()).expression
    return f"{expression.format(name)} AS {name}" if expression else name


def plain_type(declared: str) -> str:
    """The type without what says how it is stored: LowCardinality(Nullable(String)) is String."""
    while wrapped := _WRAPPED.fullmatch(declared):
        declared = wrapped[1]
    return declared


def _reading(declared: str) -> _Reading:
    name = plain_type(declared)
    if plain := _PLAIN.get(name):
        return plain
    if decimal := _DECIMAL.fullmatch(name):
        digits, scale = int(decimal[1]), int(decimal[2])
        return _Reading(pa.decimal128(digits, scale)) if digits <= MAX_DECIMAL_DIGITS else _TEXT
    if moment := _MOMENT.fullmatch(name):
        return _moment(int(moment[1] or 0))
    if _FIXED_TEXT.fullmatch(name):
        return _Reading(pa.string(), "toStringCutToZero({0})")
    return _TEXT if _AS_TEXT.fullmatch(name) else _REFUSED


def _moment(digits: int) -> _Reading:
    """Seconds since 1970 in whatever zone the column shows them: a moment."""
    unit = next(unit for unit, most in (("s", 0), ("ms", 3), ("us", 6), ("ns", 9)) if digits <= most)
    return _Reading(pa.timestamp(unit, tz="UTC"), f"toDateTime64({{0}}, {digits}, 'UTC')")
