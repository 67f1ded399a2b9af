"""Which types are one type in two widths: what holds the values of both, and what is beyond doubt no such type."""

from datetime import datetime
from decimal import Decimal
from itertools import combinations, permutations
from typing import Any

import pyarrow as pa
import pytest

from connectors.profiles.widening import common_type

INTEGERS = [getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
DECIMALS = [pa.decimal32(5, 2), pa.decimal64(12, 2), pa.decimal128(38, 2), pa.decimal256(40, 2)]
NAIVE = [pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")]
ZONED = [pa.timestamp("ms", "UTC"), pa.timestamp("us", "Asia/Shanghai"), pa.timestamp("ns", "UTC")]
TEXTS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
DATES = [pa.date32(), pa.date64()]
FAMILIES = [INTEGERS, FLOATS, DECIMALS, NAIVE, ZONED, TEXTS, DATES, [pa.bool_()], [pa.binary()], [pa.time64("us")]]
FAMILIES += [[pa.decimal128(5, 3)], [pa.duration("s")], [pa.list_(pa.int8())], [pa.list_(pa.int16())]]


def edges(kind: pa.DataType) -> list[Any]:
    """The values at the ends of what a type holds."""
    if pa.types.is_integer(kind):
        bits, unsigned = kind.bit_width, pa.types.is_unsigned_integer(kind)
        return [0, 2**bits - 1] if unsigned else [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1]
    if pa.types.is_floating(kind):
        return [0.5, -65504.0, float("inf")] if kind == pa.float16() else [0.1, 1.5e38]
    if pa.types.is_decimal(kind):
        return [Decimal(10**kind.precision - 1).scaleb(-2, None)] if kind.precision <= 28 else []
    if pa.types.is_timestamp(kind):
        return [datetime(1900, 1, 1), datetime(2262, 1, 1)] if kind.unit == "ns" else [datetime(9999, 12, 31)]
    return []


@pytest.mark.parametrize("family", FAMILIES[:7], ids=lambda family: str(family[0]))
def test_the_common_type_holds_every_value_of_both(family: list[pa.DataType]) -> None:
    for one, other in permutations(family, 2):
        common = common_type(one, other)
        if common is None:
            assert "uint64" in (str(one), str(other))
            continue
        for kind in (one, other):
            if kind in DATES or kind in TEXTS or (kind == pa.timestamp("ns") and common != kind):
                continue  # a date64 is a date32 in Parquet, texts are the same text, and nanoseconds are cut
            values = pa.array(edges(kind), kind)
            assert values.cast(common).cast(kind).equals(values)


def test_an_unsigned_number_beside_a_signed_one_gets_the_bit_it_needs() -> None:
    assert common_type(pa.uint8(), pa.int8()) == pa.int16()
    assert common_type(pa.int64(), pa.uint32()) == pa.int64()
    assert common_type(pa.uint32(), pa.int8()) == pa.int64()
    assert [str(kind) for kind in INTEGERS if common_type(pa.uint64(), kind) is None] == [
        "int8", "int16", "int32", "int64",
    ]  # fmt: skip


def test_units_of_time_meet_in_the_finer_and_nanoseconds_in_microseconds() -> None:
    assert common_type(pa.timestamp("ms"), pa.timestamp("us")) == pa.timestamp("us")
    assert common_type(pa.timestamp("s"), pa.timestamp("ms")) == pa.timestamp("ms")
    assert common_type(pa.timestamp("ns"), pa.timestamp("s")) == pa.timestamp("us")
    assert common_type(pa.timestamp("ns"), pa.timestamp("ns")) == pa.timestamp("ns")
    zoned = common_type(pa.timestamp("ms", "Asia/Shanghai"), pa.timestamp("us", "Europe/Berlin"))
    assert zoned == pa.timestamp("us", "UTC")


def test_decimals_of_one_scale_take_the_more_digits() -> None:
    assert common_type(pa.decimal128(5, 2), pa.decimal128(12, 2)) == pa.decimal128(12, 2)
    assert common_type(pa.decimal256(10, 2), pa.decimal128(4, 2)) == pa.decimal128(10, 2)
    assert common_type(pa.decimal256(40, 2), pa.decimal128(4, 2)) == pa.decimal256(40, 2)


def test_what_is_of_another_kind_has_no_common_type() -> None:
    """Text and numbers, numbers and floats, dates and times, times with and without a zone, decimals of two scales."""
    for one, other in combinations(FAMILIES, 2):
        for left in one:
            for right in other:
                assert common_type(left, right) is common_type(right, left) is None


def test_which_of_the_two_comes_first_does_not_matter() -> None:
    for one, other in permutations([kind for family in FAMILIES[:5] for kind in family], 2):
        assert common_type(one, other) == common_type(other, one)


@pytest.mark.parametrize("kind", [kind for family in FAMILIES for kind in family], ids=str)
def test_nothing_but_nulls_fits_everything(kind: pa.DataType) -> None:
    assert common_type(kind, pa.null()) == common_type(pa.null(), kind) == common_type(kind, kind) == kind
