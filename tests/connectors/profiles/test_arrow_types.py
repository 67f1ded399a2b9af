import datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from connectors.profiles.arrow_types import target_schema, to_target
from connectors.profiles.errors import SourceColumnError

NUMERIC = pa.opaque(pa.string(), "numeric", "PostgreSQL")


def target(data_type: pa.DataType, metadata: dict[str, str] | None = None) -> pa.DataType:
    return target_schema(pa.schema([pa.field("c", data_type, metadata=metadata)]), where="here").field("c").type


def converted(array: pa.Array, metadata: dict[str, str] | None = None) -> list[object]:
    schema = pa.schema([pa.field("c", array.type, metadata=metadata)])
    batch = pa.RecordBatch.from_arrays([array], schema=schema)
    values: list[object] = to_target(batch, target_schema(schema, where="here"), where="here").column(0).to_pylist()
    return values


def numeric(*values: str | None) -> pa.Array:
    return pa.ExtensionArray.from_storage(NUMERIC, pa.array(values, pa.string()))


def modifier(precision: int, scale: int) -> dict[str, str]:
    return {"POSTGRESQL:typmod": str((precision << 16 | scale & 0x7FF) + 4)}


@pytest.mark.parametrize(
    "data_type",
    [
        pa.string(), pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64(), pa.float32(),
        pa.float64(), pa.date32(), pa.decimal128(38, 10), pa.timestamp("us"), pa.timestamp("ns"),
        pa.timestamp("us", tz="UTC"),
    ],
    ids=str,
)  # fmt: skip
def test_plain_types_stay_as_they_are(data_type: pa.DataType) -> None:
    assert target(data_type) == data_type


@pytest.mark.parametrize(
    ("data_type", "expected"),
    [
        (pa.large_string(), pa.string()),
        (pa.string_view(), pa.string()),
        (pa.dictionary(pa.uint8(), pa.string()), pa.string()),
        (pa.json_(), pa.string()),
        (pa.null(), pa.string()),
        (pa.date64(), pa.date32()),
        (pa.decimal32(5, 2), pa.decimal128(5, 2)),
        (pa.timestamp("s"), pa.timestamp("ms")),
        (pa.timestamp("us", tz="Asia/Shanghai"), pa.timestamp("us", tz="UTC")),
    ],
    ids=str,
)
def test_other_layouts_of_the_same_values_become_one_type(data_type: pa.DataType, expected: pa.DataType) -> None:
    assert target(data_type) == expected


@pytest.mark.parametrize(
    "data_type",
    [
        pa.list_(pa.string()), pa.struct([("a", pa.int32())]), pa.map_(pa.string(), pa.string()), pa.binary(),
        pa.uuid(), pa.time64("us"), pa.duration("us"), pa.month_day_nano_interval(), pa.decimal256(50, 2), pa.float16(),
        pa.opaque(pa.binary(), "inet", "PostgreSQL"), pa.dictionary(pa.int8(), pa.binary()),
    ],
    ids=str,
)  # fmt: skip
def test_types_without_a_canonical_text_are_refused_by_name(data_type: pa.DataType) -> None:
    with pytest.raises(SourceColumnError, match=r"here: a value of the column 'c' \(") as caught:
        target(data_type)
    assert caught.value.columns == ("c",)


def test_all_unfit_columns_are_named_at_once_in_the_warehouse_s_words() -> None:
    schema = pa.schema(
        [
            pa.field("a", pa.list_(pa.string()), metadata={"POSTGRESQL:type": "_text"}),
            ("b", pa.int8()),
            ("c", pa.binary()),
        ]
    )
    with pytest.raises(SourceColumnError, match=r"'a' \(_text\), 'c' \(binary\)"):
        target_schema(schema, where="here")


@pytest.mark.parametrize(
    ("precision", "scale", "expected"),
    [
        (12, 2, pa.decimal128(12, 2)),
        (38, 0, pa.decimal128(38, 0)),
        (38, 38, pa.decimal128(38, 38)),
        (39, 2, pa.string()),
        (5, -2, pa.string()),
        (2, 4, pa.string()),
        (1000, 1000, pa.string()),
    ],
)
def test_a_numeric_is_a_decimal_where_it_was_declared_as_one_that_fits(
    precision: int, scale: int, expected: pa.DataType
) -> None:
    assert target(NUMERIC, modifier(precision, scale)) == expected


def test_numerics_keep_every_digit() -> None:
    assert target(NUMERIC, {"POSTGRESQL:typmod": "-1"}) == target(NUMERIC) == pa.string()
    assert converted(numeric("12.50", "-0.05", None), modifier(12, 2)) == [Decimal("12.50"), Decimal("-0.05"), None]
    assert converted(numeric("1.5", "0.00", "9" * 60, None)) == ["1.5", "0.00", "9" * 60, None]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("metadata", [modifier(12, 2), None])
def test_a_numeric_that_is_no_number_is_refused_by_column(value: str, metadata: dict[str, str] | None) -> None:
    with pytest.raises(SourceColumnError, match=r"column 'c' holds NaN or an infinity.*nullif\(c, 'NaN'\)"):
        converted(numeric("1.00", value), metadata)


def test_text_that_reads_nan_is_text() -> None:
    assert converted(pa.array(["nan", "inf"])) == ["nan", "inf"]


MICROSECONDS = 86_400_000_000


@pytest.mark.parametrize(
    ("data_type", "first", "last"),
    [
        (pa.date32(), -719_162, 2_932_896),
        (pa.date64(), -719_162 * 86_400_000, 2_932_896 * 86_400_000),
        (pa.timestamp("s"), -719_162 * 86_400, 2_932_897 * 86_400 - 1),
        (pa.timestamp("us"), -719_162 * MICROSECONDS, 2_932_897 * MICROSECONDS - 1),
        (pa.timestamp("us", tz="UTC"), -719_162 * MICROSECONDS, 2_932_897 * MICROSECONDS - 1),
    ],
    ids=str,
)
def test_dates_run_from_the_year_1_to_the_year_9999(data_type: pa.DataType, first: int, last: int) -> None:
    def stored(number: int) -> pa.Array:
        width = pa.int32() if pa.types.is_date32(data_type) else pa.int64()
        return pa.array([None, number], width).view(data_type)

    for number, year in ((first, 1), (last, 9999)):
        _, value = converted(stored(number))
        assert isinstance(value, datetime.date)
        assert value.year == year
    step = 86_400_000 if pa.types.is_date64(data_type) else 1
    for number in (first - step, last + step):
        with pytest.raises(SourceColumnError, match="'c' holds an infinite date, or one outside the years 1 to 9999"):
            converted(stored(number))


def test_empty_and_null_columns_pass() -> None:
    for data_type in (pa.string(), pa.date32(), pa.timestamp("us", tz="UTC"), pa.null()):
        assert converted(pa.array([], data_type)) == []
        assert converted(pa.nulls(2, data_type)) == [None, None]


def test_a_moment_stays_the_same_moment_in_utc() -> None:
    moment = datetime.datetime(2024, 2, 29, 23, 59, tzinfo=datetime.UTC)
    assert converted(pa.array([moment], pa.timestamp("us", tz="Asia/Shanghai"))) == [moment]


def test_bytes_that_are_no_utf8_are_refused_by_column() -> None:
    with pytest.raises(SourceColumnError, match="'c' holds bytes that are not UTF-8"):
        converted(pa.array([b"fine", b"caf\xe9"], pa.binary()).view(pa.string()))


def test_batches_that_are_slices_keep_their_rows() -> None:
    assert converted(numeric("1.00", "2.00", "3.00").slice(1, 1), modifier(4, 2)) == [Decimal("2.00")]
    assert converted(pa.array(["a", "b", "a"]).dictionary_encode().slice(1)) == ["b", "a"]
