"""A source column as the text that Tencent gets: canonical form, limits, and what becomes of values that break them.

Expressions only: they compile for any engine and are evaluated by none here.
"""

from dataclasses import dataclass

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from connectors.tencent_push.protocol import MAX_VALUE_BYTES
from pipelines.mapping import AttributeMapping, TooLong
from pipelines.reasons import Reason

CONTROL_CHARACTER = r"\p{Cc}"
# ISO 8601 as it is without an agreement: years 0001 to 9999; what is infinite has no year.
FOUR_DIGIT_YEAR = r"\A(\d{3}[1-9]|\d{2}[1-9]\d|\d[1-9]\d{2}|[1-9]\d{3})-\d\d-\d\d(T|\z)"
_MOST_CHARACTER_BYTES = 4  # of UTF-8
_MAYBE_TOO_LONG = 1e30  # a number below, with its sign and 15 decimals, has 48 characters at most
TIMESTAMP_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@ibis.udf.scalar.builtin(name="strlen")
def utf8_bytes(text: str) -> int:
    """Bytes, not characters."""
    raise NotImplementedError


@ibis.udf.scalar.builtin(name="substring_grapheme")
def _first_graphemes(text: str, start: int, count: int) -> str:
    """`count` extended grapheme clusters from `start`, counted from 1."""
    raise NotImplementedError


@ibis.udf.scalar.builtin(name="length_grapheme")
def _graphemes(text: str) -> int:
    """Extended grapheme clusters."""
    raise NotImplementedError


@ibis.udf.scalar.builtin(name="printf")
def _printf(template: str, number: float) -> str:
    """C's printf: never an exponent with %f, correctly rounded below 1e28."""
    raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ValueExpressions:
    """One attribute of one row. `text` is null for a null; `reason` is null where nothing is to be reported.

    `value` is what may be sent: null for nulls, empty texts and values that were left out.
    `is_absent` is true for nulls and empty texts only, so that a value left out is never taken for a removal.
    """

    text: ir.StringValue
    value: ir.StringValue
    reason: ir.StringValue
    is_absent: ir.BooleanValue


def value_expressions(column: ir.Value, mapping: AttributeMapping) -> ValueExpressions:
    """Canonical text of `column` under the policies of `mapping`."""
    text = canonical_text(column, decimals=mapping.decimals)
    kind: dt.DataType = column.type()
    is_over = utf8_bytes(text) > MAX_VALUE_BYTES
    if kind.is_string():
        is_absent, is_invalid = text.isnull() | (text == ""), text.re_search(CONTROL_CHARACTER)
    elif kind.is_floating():  # told without the text as far as that goes, which is dear to make
        number = column.cast("float64")
        is_absent, is_invalid = column.isnull(), _is_no_number(number)
        is_over = (number.abs() >= _MAYBE_TOO_LONG) & is_over
    elif kind.is_date() or kind.is_timestamp():
        is_absent, is_invalid, is_over = column.isnull(), ~text.re_search(FOUR_DIGIT_YEAR), ibis.literal(False)
    else:
        return ValueExpressions(text=text, value=text, reason=ibis.null(str), is_absent=text.isnull())
    limits = _Limits(is_absent=is_absent, is_invalid=is_invalid, is_over=is_over)
    return _limited(text, limits, too_long=mapping.too_long)


def _is_no_number(number: ir.FloatingValue) -> ir.BooleanValue:
    """NaN and the infinities; never null for a number.

    DuckDB 2.0 answers isnan() from a Parquet file's minimum and maximum, which leave NaN out: it finds none.
    """
    return (number - number) != 0


@dataclass(frozen=True, slots=True)
class _Limits:
    """What a text may break; `is_absent` comes before the others, and is never null."""

    is_absent: ir.BooleanValue
    is_invalid: ir.BooleanValue
    is_over: ir.BooleanValue


def _limited(text: ir.StringValue, limits: _Limits, *, too_long: TooLong) -> ValueExpressions:
    """For types whose text can be invalid or pass the limit: text, floating-point numbers, dates and times."""
    null = ibis.null(str)
    is_absent = limits.is_absent
    over_reason: ir.StringValue = ibis.literal(Reason.VALUE_TOO_LONG.value)
    if too_long is TooLong.TRUNCATE:
        fits_none = utf8_bytes(_first_graphemes(text, 1, 1)) > MAX_VALUE_BYTES
        over_reason = ibis.ifelse(fits_none, Reason.VALUE_TOO_LONG.value, Reason.VALUE_TRUNCATED.value)
    reason = ibis.cases(
        (is_absent, null),
        (limits.is_invalid, Reason.VALUE_INVALID.value),
        (limits.is_over, over_reason),
        else_=null,
    )
    # By way of the reason, which the engine then computes once for both.
    value = ibis.ifelse(reason.isnull(), text.nullif(""), null)
    if too_long is TooLong.TRUNCATE:
        is_shortened = reason == Reason.VALUE_TRUNCATED.value
        value = ibis.cases((reason.isnull(), text.nullif("")), (is_shortened, truncated(text)), else_=null)
    return ValueExpressions(text=text, value=value, reason=reason, is_absent=is_absent)


def truncated(text: ir.StringValue) -> ir.StringValue:
    """The longest run of whole grapheme clusters from the start that fits the limit; empty when not even one fits.

    For text over the limit. The characters that fit and the one after them are looked at: whether that one begins a
    cluster or belongs to the one before it, the last cluster of these is the first that does not fit.
    """
    counts = ibis.array(list(range(MAX_VALUE_BYTES // _MOST_CHARACTER_BYTES, MAX_VALUE_BYTES + 1)))
    fitting = counts.filter(lambda count: utf8_bytes(text.substr(0, count)) <= MAX_VALUE_BYTES)
    # Lists of one, since a name is all that a list's function can give to what is used twice.
    heads = ibis.array([fitting.maxs()]).map(lambda most: text.substr(0, most + 1))
    return heads.map(lambda head: _first_graphemes(head, 1, _graphemes(head) - 1))[0]


def canonical_text(column: ir.Value, *, decimals: int | None) -> ir.StringValue:
    """Text as it is, true/false, plain decimals, ISO 8601 dates and UTC timestamps cut to the second."""
    kind: dt.DataType = column.type()
    if kind.is_floating():
        text = _printf(f"%.{decimals or 0}f", column.cast("float64"))
        return ibis.ifelse(text.re_search(r"\A-0(\.0*)?\z"), text.substr(1), text)
    if kind.is_timestamp():
        return column.strftime(TIMESTAMP_FORMAT)
    text = column if kind.is_string() else column.cast(str)
    return _with_leading_zero(text) if kind.is_decimal() else text


def orderable(column: ir.Value) -> ir.Value:
    """`column` with what is no finite number or time as null: NaN and infinity are not newer than everything."""
    kind: dt.DataType = column.type()
    # A case without an alternative: Ibis would write the type of a null, and knows no nanoseconds with a zone.
    if kind.is_floating():
        return ibis.cases((~_is_no_number(column), column))
    if kind.is_date() or kind.is_timestamp():
        return ibis.cases((~column.cast(str).re_search(r"inf"), column))
    return column


def _with_leading_zero(text: ir.StringValue) -> ir.StringValue:
    """DuckDB writes a decimal that is all fraction, such as DECIMAL(4, 4), without the zero before the point."""
    return ibis.cases(
        (text.startswith("."), ibis.literal("0") + text),
        (text.startswith("-."), ibis.literal("-0") + text.substr(1)),
        else_=text,
    )
