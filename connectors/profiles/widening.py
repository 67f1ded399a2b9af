"""Which types of one column in several files are one type in different widths, and the type that holds them all.

Pure: decides about types, and reads no file. Whatever could lose or change a value, or make one text of two, is no
widening; only times of nanoseconds beside coarser ones are cut, to the microsecond.
"""

from collections.abc import Callable

import pyarrow as pa

_UNITS = ("s", "ms", "us", "ns")  # from coarse to fine
_MOST_BITS = 64  # of a whole number
_MOST_DECIMAL128_DIGITS = 38


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type in which the values of both can be read, or None where there is none that is beyond doubt.

    A column of nothing but nulls (Arrow's null) fits every other.
    """
    if layout_free(one) == layout_free(other):
        return one
    if pa.types.is_null(one) or pa.types.is_null(other):
        return other if pa.types.is_null(one) else one
    for is_kind, widened in _WIDENED:
        if is_kind(one) and is_kind(other):
            return widened(one, other)
    return None


def layout_free(data_type: pa.DataType) -> pa.DataType:
    """The type without how Arrow lays it out in memory: Parquet stores the text of all four alike."""
    if pa.types.is_dictionary(data_type):
        return layout_free(data_type.value_type)
    if pa.types.is_large_string(data_type) or pa.types.is_string_view(data_type):
        return pa.string()
    if pa.types.is_large_binary(data_type) or pa.types.is_binary_view(data_type):
        return pa.binary()
    return data_type


def _whole_number(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The wider one; beside a signed type an unsigned one needs a bit more, which nothing has beside 64."""
    signed = [pa.types.is_signed_integer(each) for each in (one, other)]
    if signed[0] == signed[1]:
        return one if one.bit_width > other.bit_width else other
    bits = max(each.bit_width * (1 if is_signed else 2) for each, is_signed in zip((one, other), signed, strict=True))
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[bits] if bits <= _MOST_BITS else None


def _decimal(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Of one scale: with another one a value would have another text (1.5 and 1.50)."""
    if one.scale != other.scale:
        return None
    digits = max(one.precision, other.precision)
    return pa.decimal128(digits, one.scale) if digits <= _MOST_DECIMAL128_DIGITS else pa.decimal256(digits, one.scale)


def _timestamp(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """A time without a zone is no moment, so that it is never one type with a time that has one.

    Not nanoseconds beside coarser units: they end in the year 2262, and 9999-12-31 is a value that sources have.
    """
    if (one.tz is None) != (other.tz is None):
        return None
    finer = max(one.unit, other.unit, key=_UNITS.index)
    unit = "us" if one.unit != other.unit and finer == "ns" else finer
    return pa.timestamp(unit, one.tz if one.tz == other.tz else "UTC")


_WIDENED: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType, pa.DataType], pa.DataType | None]], ...] = (
    (pa.types.is_integer, _whole_number),
    (pa.types.is_floating, lambda one, other: max(one, other, key=lambda each: each.bit_width)),
    (pa.types.is_decimal, _decimal),
    (pa.types.is_date, lambda _one, _other: pa.date32()),
    (pa.types.is_timestamp, _timestamp),
)
