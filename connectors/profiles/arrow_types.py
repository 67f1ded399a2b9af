"""The Arrow types in which the columns of warehouses and tables leave for Parquet, so that all give the same values.

Pure: decides the type of a column, and brings a batch into it. Nothing here knows a driver, a file or a sync.
Text, booleans, integers, decimals, floats, dates and timestamps pass; the rest is refused before a row is read.
"""

from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from connectors.profiles.errors import SourceColumnError

TYPE_NAME = b"warehouse:type"  # metadata of a field: what the warehouse calls its type
MAX_DECIMAL_DIGITS = 38  # of decimal128; wider ones are read as floats by SQL engines
_NOT_A_NUMBER = pa.array(["nan", "NaN", "inf", "-inf", "Infinity", "-Infinity"])
_FIRST_DAY = -719_162  # 0001-01-01 in days since 1970
_LAST_DAY = 2_932_896  # 9999-12-31
_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
_UTC_OFFSET_FREE = "UTC"


class ColumnFault(NamedTuple):
    """Why the values of one column cannot be taken, as the end of a sentence, and what to write in the query."""

    what: str
    remedy: str


def column_error(column: str, fault: ColumnFault, *, where: str) -> SourceColumnError:
    """The error for the first value of `column` that cannot be taken; the value stays unsaid."""
    remedy = f"In the query: {fault.remedy.format(column)}" if fault.remedy else "Correct it where the table is written"
    return SourceColumnError(
        f"{where}: the column {column!r} {fault.what}. {remedy}.",
        columns=[column],
        where=where,
    )


def target_schema(schema: pa.Schema, *, where: str, is_query: bool = True) -> pa.Schema:
    """The Parquet schema for a query's or a table's. SourceColumnError names every column of an unfit type."""
    fields = [(field.name, _target_type(field)) for field in schema]
    unfit = [name for name, target in fields if target is None]
    if unfit:
        named = ", ".join(f"{name!r} ({_type_name(schema.field(name))})" for name in unfit)
        raise SourceColumnError(
            f"{where}: a value of the column {named} is no single text, number, truth value, date or timestamp. "
            f"{'Cast it in the query' if is_query else 'Convert it in the table'}, or take it out of the mapping.",
            columns=unfit,
            where=where,
        )
    return pa.schema(fields)


def to_target(batch: pa.RecordBatch, schema: pa.Schema, *, where: str, is_query: bool = True) -> pa.RecordBatch:
    """`batch` in the types of `schema`, values unchanged.

    Raises SourceColumnError for values that Parquet cannot hold as what they are: a numeric NaN, an infinite date,
    bytes that are no UTF-8. The message names the column, never the value.
    """
    columns = []
    for field, column in zip(schema, batch.columns, strict=True):
        array = _cast(column, field.type)
        fault = array if isinstance(array, ColumnFault) else _fault(array, batch.schema.field(field.name))
        if fault is not None:
            raise column_error(field.name, fault if is_query else ColumnFault(fault.what, ""), where=where)
        columns.append(array)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _target_type(field: pa.Field) -> pa.DataType | None:
    if _is_numeric_text(field):
        return _declared_decimal(field) or pa.string()
    data_type = field.type.storage_type if _is_json(field.type) else field.type
    if pa.types.is_dictionary(data_type):
        data_type = data_type.value_type
    if pa.types.is_decimal(data_type):
        fits = data_type.precision <= MAX_DECIMAL_DIGITS
        return pa.decimal128(data_type.precision, data_type.scale) if fits else None
    if pa.types.is_timestamp(data_type):
        unit = "ms" if data_type.unit == "s" else data_type.unit  # Parquet has no seconds
        return pa.timestamp(unit, tz=None if data_type.tz is None else _UTC_OFFSET_FREE)
    for fits_type, target in _TARGETS:
        if fits_type(data_type):
            return target or data_type
    return None


_TARGETS: tuple[tuple[Callable[[pa.DataType], bool], pa.DataType | None], ...] = (
    (pa.types.is_string, None),
    (pa.types.is_large_string, pa.string()),
    (pa.types.is_string_view, pa.string()),
    (pa.types.is_null, pa.string()),
    (pa.types.is_boolean, None),
    (pa.types.is_integer, None),
    (pa.types.is_float32, None),
    (pa.types.is_float64, None),
    (pa.types.is_date32, None),
    (pa.types.is_date64, pa.date32()),
)


def _is_json(data_type: pa.DataType) -> bool:
    return isinstance(data_type, pa.BaseExtensionType) and data_type.extension_name == "arrow.json"


def _is_numeric_text(field: pa.Field) -> bool:
    """PostgreSQL's numeric: its scale may differ from row to row, so ADBC hands it on as text under this mark."""
    data_type = field.type
    return isinstance(data_type, pa.OpaqueType) and data_type.type_name == "numeric"


def _declared_decimal(field: pa.Field) -> pa.DataType | None:
    """decimal128(p, s) where the column was declared numeric(p, s), from the type modifier that the server sends.

    The modifier is ((p << 16) | (s & 0x7ff)) + 4, -1 for a bare numeric; s is signed (PostgreSQL 15).
    """
    modifier = int((field.metadata or {}).get(b"POSTGRESQL:typmod", b"-1")) - 4
    if modifier < 0:
        return None
    precision = modifier >> 16 & 0xFFFF
    scale = (modifier & 0x7FF ^ 0x400) - 0x400
    return pa.decimal128(precision, scale) if 0 <= scale <= precision <= MAX_DECIMAL_DIGITS else None


def _type_name(field: pa.Field) -> str:
    """What the warehouse calls the type, where it says so; else what Arrow calls it."""
    metadata = field.metadata or {}
    name = metadata.get(TYPE_NAME) or metadata.get(b"POSTGRESQL:type")
    return name.decode() if name else str(field.type)


def _cast(column: pa.Array, target: pa.DataType) -> pa.Array | ColumnFault:
    array = column.storage if isinstance(column.type, pa.BaseExtensionType) else column
    if array.type == target:
        return array
    if pa.types.is_date32(target) or (pa.types.is_timestamp(target) and pa.types.is_timestamp(array.type)):
        fault = _out_of_calendar(array)
        if fault is not None:
            return fault
    try:
        return array.cast(target)
    except pa.ArrowInvalid:  # its message quotes the value
        return (
            _NOT_FINITE if pa.types.is_decimal(target) else ColumnFault(f"does not fit {target}", "cast {0!r} to text")
        )


_NOT_FINITE = ColumnFault("holds NaN or an infinity, which no decimal can", "nullif({0}, 'NaN')")


def _fault(array: pa.Array, source: pa.Field) -> ColumnFault | None:
    if pa.types.is_temporal(array.type):
        return _out_of_calendar(array)
    if pa.types.is_string(array.type):
        if _is_numeric_text(source) and pc.any(pc.is_in(array, value_set=_NOT_A_NUMBER)).as_py():
            return _NOT_FINITE
        try:
            array.validate(full=True)
        except pa.ArrowInvalid:
            return ColumnFault("holds bytes that are not UTF-8 text", "convert {0} to UTF-8")
    return None


def _out_of_calendar(array: pa.Array) -> ColumnFault | None:
    """Years 1 to 9999: outside lie infinities and overflows, which would turn into other dates without a word."""
    days = pa.types.is_date32(array.type)
    per_day = 1 if days else _PER_DAY[array.type.unit] if pa.types.is_timestamp(array.type) else _PER_DAY["ms"]
    bounds = pc.min_max(array.view(pa.int32() if days else pa.int64())).as_py()
    first, last = _FIRST_DAY * per_day, (_LAST_DAY + 1) * per_day - 1
    if bounds["min"] is None or (first <= bounds["min"] and bounds["max"] <= last):
        return None
    return ColumnFault("holds an infinite date, or one outside the years 1 to 9999", "nullif({0}, 'infinity')")
