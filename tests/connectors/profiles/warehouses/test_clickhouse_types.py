import pyarrow as pa
import pytest

from connectors.profiles.arrow_types import TYPE_NAME
from connectors.profiles.warehouses.clickhouse_types import column_of, field_of, plain_type


@pytest.mark.parametrize(
    ("declared", "arrow", "written"),
    [
        ("UInt64", pa.uint64(), "`a``b`"),
        ("Nullable(Int8)", pa.int8(), "`a``b`"),
        ("LowCardinality(Nullable(String))", pa.string(), "`a``b`"),
        ("SimpleAggregateFunction(anyLast, Nullable(String))", pa.string(), "`a``b`"),
        ("Bool", pa.bool_(), "`a``b`"),
        ("Float32", pa.float32(), "`a``b`"),
        ("Nullable(Nothing)", pa.null(), "`a``b`"),
        ("Decimal(38, 4)", pa.decimal128(38, 4), "`a``b`"),
        ("Nullable(Decimal(39, 4))", pa.string(), "toString(`a``b`) AS `a``b`"),
        ("UInt256", pa.string(), "toString(`a``b`) AS `a``b`"),
        ("Enum8('a, \\'(b)' = 1, 'c' = 2)", pa.string(), "toString(`a``b`) AS `a``b`"),
        ("Nullable(UUID)", pa.string(), "toString(`a``b`) AS `a``b`"),
        ("IPv6", pa.string(), "toString(`a``b`) AS `a``b`"),
        ("LowCardinality(FixedString(2))", pa.string(), "toStringCutToZero(`a``b`) AS `a``b`"),
        ("Date", pa.date32(), "toDate32(`a``b`) AS `a``b`"),
        ("Date32", pa.date32(), "`a``b`"),
        ("DateTime", pa.timestamp("s", "UTC"), "toDateTime64(`a``b`, 0, 'UTC') AS `a``b`"),
        ("DateTime('Asia/Shanghai')", pa.timestamp("s", "UTC"), "toDateTime64(`a``b`, 0, 'UTC') AS `a``b`"),
        ("DateTime64(2)", pa.timestamp("ms", "UTC"), "toDateTime64(`a``b`, 2, 'UTC') AS `a``b`"),
        ("DateTime64(6, 'UTC')", pa.timestamp("us", "UTC"), "toDateTime64(`a``b`, 6, 'UTC') AS `a``b`"),
        ("DateTime64(9)", pa.timestamp("ns", "UTC"), "toDateTime64(`a``b`, 9, 'UTC') AS `a``b`"),
    ],
)
def test_a_type_is_read_as(declared: str, arrow: pa.DataType, written: str) -> None:
    field = field_of("a`b", declared)
    assert (field.type, column_of(field)) == (arrow, written)


def test_a_backslash_in_a_name_hides_nothing() -> None:
    field = field_of("a\\", "String")
    assert column_of(field) == "`a\\\\`"


@pytest.mark.parametrize(
    "declared",
    ["Array(String)", "Tuple(a UInt8)", "Map(String, UInt8)", "JSON", "Object('json')", "Variant(String, UInt8)",
     "Dynamic", "IntervalDay", "Time", "Time64(3)", "BFloat16", "Point", "AggregateFunction(sum, UInt8)",
     "Nested(a UInt8)", "Int512"],
)  # fmt: skip
def test_what_is_no_single_value_keeps_a_type_that_is_refused_and_its_name(declared: str) -> None:
    field = field_of("a", declared)
    assert (field.type, field.metadata[TYPE_NAME].decode()) == (pa.binary(), declared)


def test_wrappers_are_taken_off_however_deep_they_are() -> None:
    assert plain_type("LowCardinality(Nullable(FixedString(3)))") == "FixedString(3)"
    assert plain_type("Array(Nullable(String))") == "Array(Nullable(String))"
