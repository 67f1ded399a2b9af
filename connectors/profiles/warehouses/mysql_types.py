"""What the columns of a MySQL answer are in Arrow, and how their text becomes such values.

Pure: the description that the server sends before the rows in, Arrow fields and arrays out. The rows are cut up in
mysql_rows.py.
"""

from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from connectors.profiles.arrow_types import MAX_DECIMAL_DIGITS, ColumnFault, column_error

_BINARY_CHARSET = 63
_UNSIGNED = 0x20
_TINY, _FLOAT, _NULL, _TIMESTAMP, _BIT, _JSON = 1, 4, 6, 7, 16, 245
_DECIMALS = (0, 246)
_DATES = (10, 14)
_DATETIME = 12
_TIME = 11
_TEXTS = (15, 247, 248, 249, 250, 251, 252, 253, 254)  # varchar, enum, set, the texts; also blobs, told by the charset
_INTEGERS: Mapping[int, tuple[pa.DataType, pa.DataType]] = {
    1: (pa.int8(), pa.uint8()),
    2: (pa.int16(), pa.uint16()),
    9: (pa.int32(), pa.uint32()),
    3: (pa.int32(), pa.uint32()),
    8: (pa.int64(), pa.uint64()),
    13: (pa.int16(), pa.int16()),  # a year
}
_MOMENT = pa.timestamp("us", tz="UTC")
_ZERO_DATE = "0000-00-00"

# What the text of a value does not tell in full: a float has six digits there, a bit is a byte.
REWRITTEN: Mapping[int, str] = {_FLOAT: "({0} + 0e0)", _BIT: "({0} + 0)"}


class Described(Protocol):
    """A column as the server describes it."""

    name: str
    type_code: int
    flags: int
    length: int  # of the longest text; tinyint(1) has 1
    scale: int
    charsetnr: int


def field_of(column: Described) -> pa.Field:
    """Binary, times and geometries keep a type that is refused later, by the column's name."""
    return pa.field(column.name, _type_of(column))


def _type_of(column: Described) -> pa.DataType:
    code, is_unsigned = column.type_code, bool(column.flags & _UNSIGNED)
    if column.length == 1 and (code == _BIT or (code == _TINY and not is_unsigned)):
        return pa.bool_()  # tinyint(1) is what BOOL is short for; other numbers in it are refused by value
    if code in _INTEGERS:
        return _INTEGERS[code][is_unsigned]
    if code in _DECIMALS:
        return _decimal(column.length - (not is_unsigned) - (column.scale > 0), column.scale)
    if code in _TEXTS and column.charsetnr == _BINARY_CHARSET:
        return pa.binary() if column.length else pa.null()  # a bare NULL inside another query has no length
    return pa.string() if code in _TEXTS else _OTHERS.get(code, pa.binary())


_OTHERS: Mapping[int, pa.DataType] = {
    _FLOAT: pa.float32(),
    5: pa.float64(),
    _BIT: pa.uint64(),
    _NULL: pa.null(),
    _JSON: pa.string(),
    _TIME: pa.time64("us"),
    _TIMESTAMP: _MOMENT,
    _DATETIME: pa.timestamp("us"),
    **dict.fromkeys(_DATES, pa.date32()),
}


def _decimal(digits: int, scale: int) -> pa.DataType:
    """Text where the digits are too many for a decimal128."""
    return pa.decimal128(digits, scale) if 0 < digits <= MAX_DECIMAL_DIGITS and scale <= digits else pa.string()


def values_of(column: pa.Array, field: pa.Field, *, where: str) -> pa.Array:
    """The column's values out of their text, a zero date as null. Raises SourceColumnError, which quotes no value.

    MySQL itself takes a zero date for null (`IS NULL` finds it in a column that is NOT NULL).
    """
    kind = field.type
    text = column.view(pa.string())  # whether it is UTF-8 is looked at when it becomes a text's target
    if pa.types.is_string(kind):
        return text
    if pa.types.is_null(kind):
        return pa.nulls(len(column), pa.null())
    try:
        return _cast(text, kind)
    except pa.ArrowInvalid:
        pass
    if pa.types.is_temporal(kind):
        is_zero = pc.starts_with(text, _ZERO_DATE)
        try:
            return _cast(pc.if_else(is_zero, pa.scalar(None, pa.string()), text), kind)
        except pa.ArrowInvalid:
            raise column_error(field.name, _PARTIAL_DATE, where=where) from None
    raise column_error(field.name, _MORE_THAN_TRUTH if pa.types.is_boolean(kind) else _misfit(kind), where=where)


def _cast(text: pa.Array, kind: pa.DataType) -> pa.Array:
    if kind == _MOMENT:  # the session's time zone is UTC, and the text says none
        return text.cast(pa.timestamp("us")).cast(kind)
    return text.cast(kind)


_PARTIAL_DATE = ColumnFault("holds a date without day, month or year", "cast {0} to char, or nullif it")
_MORE_THAN_TRUTH = ColumnFault("is a tinyint(1) and holds other numbers than 0 and 1", "cast({0} as signed) as {0}")


def _misfit(kind: pa.DataType) -> ColumnFault:
    return ColumnFault(f"does not fit {kind}", "cast {0} to char")
