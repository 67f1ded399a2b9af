"""What the columns of a Trino answer are in Arrow, and how the values that arrive as JSON become such columns.

Pure: names of types and lists of values in, Arrow types and arrays out. Numbers with decimal places, dates and times
arrive as text, which is exact.
"""

import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from connectors.profiles.arrow_types import TYPE_NAME, ColumnFault, column_error
from connectors.profiles.warehouses.sql_text import quoted

_REFUSED = pa.binary()  # which no column of a source may be: refused by its name later
_TYPES: Mapping[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "tinyint": pa.int8(),
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "real": pa.float32(),
    "double": pa.float64(),
    "date": pa.date32(),
    "varchar": pa.string(),
    "uuid": pa.string(),
    "ipaddress": pa.string(),
    "unknown": pa.null(),
}
_TEXT = re.compile(r"(?:var)?char\(\d+\)")
_DECIMAL = re.compile(r"decimal\((\d+), ?(\d+)\)")
_TIME = re.compile(r"timestamp(?:\((\d+)\))?( with time zone)?")
_DEFAULT_DIGITS = 3
_UTC = r" (?:UTC|\+00:00|Z)$"
_NOT_UTC = ColumnFault("holds moments in other zones than UTC", "{0} at time zone 'UTC' as {0}")
_MISFIT = ColumnFault("holds a value that does not fit its own type", "cast {0} to varchar")


def field_of(name: str, declared: str) -> pa.Field:
    """Arrays, maps, rows, JSON, bytes, times of day, intervals and picoseconds get a type that is refused later."""
    return pa.field(name, _type_of(declared), metadata={TYPE_NAME: declared.encode()})


def column_of(field: pa.Field) -> str:
    """How the column of `field_of` is written in a query, under its own name."""
    name = quoted(field.name)
    has_zone = pa.types.is_timestamp(field.type) and field.type.tz is not None
    return f"{name} AT TIME ZONE 'UTC' AS {name}" if has_zone else name


def _type_of(declared: str) -> pa.DataType:
    if _TEXT.fullmatch(declared):
        return pa.string()
    if decimal := _DECIMAL.fullmatch(declared):
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    if time := _TIME.fullmatch(declared):
        digits = int(time[1] or _DEFAULT_DIGITS)
        unit = next((unit for unit, most in (("s", 0), ("ms", 3), ("us", 6), ("ns", 9)) if digits <= most), None)
        return _REFUSED if unit is None else pa.timestamp(unit, tz="UTC" if time[2] else None)
    return _TYPES.get(declared, _REFUSED)


def values_of(values: Sequence[object], field: pa.Field, *, where: str) -> pa.Array:
    """One column's values as they stand in the JSON. Raises SourceColumnError, which quotes no value."""
    kind = field.type
    try:
        if pa.types.is_floating(kind):  # NaN and the infinities arrive as text
            return pa.array([None if value is None else float(str(value)) for value in values], kind)
        if not (pa.types.is_decimal(kind) or pa.types.is_temporal(kind)):
            return pa.array(values, kind)
        text = pa.array(values, pa.string())
        if not pa.types.is_timestamp(kind) or kind.tz is None:
            return text.cast(kind)
        if not pc.all(pc.match_substring_regex(text, _UTC), min_count=0).as_py():
            raise column_error(field.name, _NOT_UTC, where=where)
        return pc.replace_substring_regex(text, _UTC, "").cast(pa.timestamp(kind.unit)).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError):
        raise column_error(field.name, _MISFIT, where=where) from None
