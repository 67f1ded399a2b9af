"""What a type that a SQLite table declares is in Arrow, and how Python's values of such a column become Arrow's.

Pure. SQLite takes any value in any column; here a value either is what its column says, or its column is refused.
"""

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal

import pyarrow as pa

from connectors.profiles.arrow_types import MAX_DECIMAL_DIGITS, ColumnFault, column_error

_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC|NUMBER)\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)")
_NOISE = 1e-12  # of a decimal that is kept as a binary fraction, relative and absolute

_KINDS: Sequence[tuple[str, pa.DataType]] = (
    (r"BOOL(EAN)?", pa.bool_()),
    (r"DATE", pa.date32()),
    (r"(TIMESTAMP|DATETIME) WITH TIME ZONE|TIMESTAMPTZ", pa.timestamp("us", tz="UTC")),
    (r"(TIMESTAMP|DATETIME)\b.*", pa.timestamp("us")),
    (r"TIME\b.*", pa.time64("us")),
    (r".*INT.*", pa.int64()),  # from here on, SQLite's own rules of affinity
    (r".*(REAL|FLOA|DOUB).*", pa.float64()),
    (r".*BLOB.*|.*BINARY.*", pa.binary()),
)


def declared_type(declared: str) -> pa.DataType:
    """Text for what is declared as text, as a number of any size, or as anything else."""
    name = " ".join(declared.upper().split())
    exact = _DECIMAL.fullmatch(name)
    if exact:
        digits, scale = int(exact[1]), int(exact[2] or 0)
        return pa.decimal128(digits, scale) if 0 < digits <= MAX_DECIMAL_DIGITS and scale <= digits else pa.string()
    return next((kind for pattern, kind in _KINDS if re.fullmatch(pattern, name)), pa.string())


def type_of_values(values: Sequence[object]) -> pa.DataType:
    """For a column that no table declares: what its first values are; text where they differ."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int}:
        return pa.int64()
    if kinds in ({float}, {int, float}):
        return pa.float64()
    return pa.binary() if bytes in kinds else pa.string()


def values_of(values: Sequence[object], field: pa.Field, *, where: str) -> pa.Array:
    """Raises SourceColumnError for a value that is not of its column's type; the message does not quote it."""
    try:
        return _CONVERT.get(field.type.id, _plain)(values, field.type)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        raise column_error(field.name, _misfit(field.type), where=where) from None


def _misfit(kind: pa.DataType) -> ColumnFault:
    return ColumnFault(f"is declared as {kind} and holds a value that is none", "cast({0} as text) as {0}")


def _plain(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind)


def _whole(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    if not set(map(type, values)) <= {int, type(None)}:  # Arrow itself would cut a fraction off
        raise ValueError
    return pa.array(values, kind)


def _text(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError):
        return pa.array([_number_as_text(value) for value in values], kind)


def _number_as_text(value: object) -> object:
    """Without exponent, as SQLite's own text of it would have one."""
    if isinstance(value, float):
        return f"{Decimal(repr(value)):f}"
    return str(value) if isinstance(value, int) else value


def _truth(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    if not set(values) <= {0, 1, None}:
        raise ValueError
    return pa.array([None if value is None else bool(value) for value in values], kind)


def _decimal(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    return pa.array([_digits(value, kind.scale) for value in values], pa.string()).cast(kind)


def _digits(value: object, scale: int) -> str | None:
    """A column of this kind keeps 12.34 as a binary fraction; its nearest decimal of that scale is what was meant."""
    if not isinstance(value, float):
        return None if value is None else str(value)
    text = f"{value:.{scale}f}"
    if not math.isclose(float(text), value, rel_tol=_NOISE, abs_tol=_NOISE):
        raise ValueError
    return text


def _from_text(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    return pa.array(values, pa.string()).cast(kind)


def _moment(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    """Texts of ISO 8601, all with an offset or all without one, which means UTC."""
    text = pa.array(values, pa.string())
    try:
        without_offset = text.cast(pa.timestamp("us"))
    except pa.ArrowInvalid:
        return text.cast(pa.timestamp("us", tz="UTC")).cast(kind)
    return without_offset.cast(kind)


_CONVERT: dict[int, Callable[[Sequence[object], pa.DataType], pa.Array]] = {
    pa.string().id: _text,
    pa.int64().id: _whole,
    pa.bool_().id: _truth,
    pa.decimal128(1).id: _decimal,
    pa.date32().id: _from_text,
    pa.timestamp("us").id: _moment,
}
