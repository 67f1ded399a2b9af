"""What does not fit is told before the first row is read: the column or attribute, the YAML's line, what to do."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from connectors.profiles.errors import SourceColumnError
from connectors.profiles.parquet import Manifest, SourceFile
from connectors.tencent_push.protocol import AccountType
from pipelines.errors import ConfigurationError
from pipelines.mapping import SyncMapping, mapping_from
from pipelines.preflight import check_declared, check_files, check_source, missing_columns

YAML = """\
type: pipelines.attribute_sync.AttributeSync
attributes:
  source: {parquet: p.parquet}
  updated_at: moment
  accounts:
    user_id:
      column: user
      where: {flag: true}
      attributes:
        city: town
        note: {column: note}
    registration_id:
      column: device
      attributes:
        device_city: town
"""
TYPES: dict[str, pa.DataType] = {
    "moment": pa.timestamp("us", "UTC"),
    "user": pa.string(),
    "flag": pa.bool_(),
    "town": pa.string(),
    "note": pa.string(),
    "device": pa.string(),
}
USER, DEVICE = AccountType.USER_ID, AccountType.REGISTRATION_ID


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "defs.yaml"
    path.write_text(YAML, encoding="utf-8")
    return path


def mapping(**note: Any) -> SyncMapping:
    attributes = yaml.safe_load(YAML)["attributes"]
    attributes["accounts"]["user_id"]["attributes"]["note"] |= note
    return mapping_from(attributes)


def complaint(file: Path, sync: SyncMapping, **types: pa.DataType) -> list[str]:
    """The lines of what is said, without the file's name; none if all fits."""
    try:
        check_source(sync, pa.schema(list((TYPES | types).items())), yaml_file=file)
    except ConfigurationError as error:
        return [line.removeprefix(f"{file}:") for line in str(error).splitlines()]
    return []


# Types --------------------------------------------------------------------------------------------------------------

SENDABLE = [
    pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()), pa.bool_(), pa.int8(),
    pa.uint64(), pa.decimal128(38, 10), pa.decimal256(38, 2), pa.date32(), pa.date64(), pa.timestamp("ns"),
    pa.timestamp("ms", "Asia/Shanghai"), pa.null(),
]  # fmt: skip
NOT_SENDABLE = [
    pa.list_(pa.string()), pa.struct([("a", pa.string())]), pa.map_(pa.string(), pa.string()), pa.binary(),
    pa.time64("us"), pa.duration("s"), pa.decimal256(39, 2), pa.dictionary(pa.int8(), pa.binary()),
]  # fmt: skip


@pytest.mark.parametrize("kind", SENDABLE, ids=str)
def test_a_type_that_has_a_canonical_text_is_an_attribute(file: Path, kind: pa.DataType) -> None:
    assert complaint(file, mapping(), note=kind) == []


@pytest.mark.parametrize("kind", NOT_SENDABLE, ids=str)
def test_a_type_without_canonical_text_names_its_column_and_line(file: Path, kind: pa.DataType) -> None:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    assert complaint(file, mapping(), note=kind) == [
        f"11: column 'note' is {value}, which has no canonical text; "
        "map a text, boolean, number, date or timestamp column, or convert it in the source"
    ]


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()], ids=str)
def test_a_float_needs_decimals(file: Path, kind: pa.DataType) -> None:
    (said,) = complaint(file, mapping(), note=kind)
    assert said == "11: column 'note' is " + str(kind) + (
        ": say how many digits follow the point, with `decimals: 2` for example"
    )
    assert complaint(file, mapping(decimals=0), note=kind) == []


@pytest.mark.parametrize("kind", [pa.string(), pa.int64(), pa.decimal128(5, 2)], ids=str)
def test_decimals_are_for_floats_alone(file: Path, kind: pa.DataType) -> None:
    (said,) = complaint(file, mapping(decimals=2), note=kind)
    assert said == f"11: `decimals` is for floating-point columns; column 'note' is {kind}"


@pytest.mark.parametrize(
    "kind", [pa.float64(), pa.bool_(), pa.date32(), pa.binary(), pa.null(), pa.decimal128(12, 2)], ids=str
)
def test_an_account_is_text_or_a_whole_number(file: Path, kind: pa.DataType) -> None:
    assert complaint(file, mapping(), device=kind) == [
        f"13: column 'device' is {kind}; an account is text or a whole number"
    ]
    for fit in (pa.uint32(), pa.large_string(), pa.decimal128(38, 0)):
        assert complaint(file, mapping(), device=fit) == []


def test_where_compares_with_its_columns_type(file: Path) -> None:
    assert complaint(file, mapping(), flag=pa.int8()) == [
        "8: `where` compares column 'flag', which is int8, with True; "
        "quote text, write true, false and whole numbers without quotes, and dates as 2026-11-20"
    ]


@pytest.mark.parametrize(
    ("wanted", "fit", "unfit"),
    [
        (3, pa.int16(), pa.string()),
        (3, pa.decimal128(38, 0), pa.decimal128(12, 2)),
        ("3", pa.string(), pa.int16()),
        ("2026-11-20", pa.date32(), pa.timestamp("us")),
        ("20.11.2026", pa.string(), pa.date32()),
        (date(2026, 11, 20), pa.date32(), pa.int32()),
    ],
)
def test_where_takes_a_number_for_numbers_and_a_text_for_texts(
    file: Path, wanted: int | str | date, fit: pa.DataType, unfit: pa.DataType
) -> None:
    attributes = yaml.safe_load(YAML)["attributes"]
    attributes["accounts"]["user_id"]["where"] = {"flag": wanted}
    assert complaint(file, mapping_from(attributes), flag=fit) == []
    (said,) = complaint(file, mapping_from(attributes), flag=unfit)
    assert f"is {unfit}, with {wanted.isoformat() if isinstance(wanted, date) else wanted!r}; quote text" in said


@pytest.mark.parametrize("kind", [pa.bool_(), pa.binary(), pa.list_(pa.int8())], ids=str)
def test_the_newest_is_told_by_something_that_has_an_order(file: Path, kind: pa.DataType) -> None:
    assert complaint(file, mapping(), moment=kind) == [
        f"4: column 'moment' is {kind}; the newest profile is told by a timestamp, a date, a number or text"
    ]
    for fit in (pa.date32(), pa.int64(), pa.string(), pa.decimal128(10, 2)):
        assert complaint(file, mapping(), moment=fit) == []


def test_all_types_that_do_not_fit_are_told_at_once(file: Path) -> None:
    said = complaint(
        file, mapping(), user=pa.bool_(), flag=pa.string(), town=pa.binary(), note=pa.float64(), moment=pa.binary()
    )
    assert [line.split(":")[0] for line in said] == ["7", "8", "10", "11", "15", "4"]


# Columns ------------------------------------------------------------------------------------------------------------


def test_a_missing_column_gives_every_line_that_names_it(file: Path) -> None:
    error = SourceColumnError("p.parquet has no column 'town'.", columns=["town"], where="p.parquet")
    told = missing_columns(error, mapping(), yaml_file=file)
    assert isinstance(told, ConfigurationError)
    assert str(told) == f"p.parquet has no column 'town'. Named in {file}:10, {file}:15."


def test_several_missing_columns_give_each_line_once(file: Path) -> None:
    error = SourceColumnError("No columns.", columns=["flag", "moment", "flag"], where="p.parquet")
    assert str(missing_columns(error, mapping(), yaml_file=file)) == f"No columns. Named in {file}:8, {file}:4."


# Files --------------------------------------------------------------------------------------------------------------


def lacking(file: Path, sync: SyncMapping, *columns: str, rows: int = 3) -> list[tuple[str, str]]:
    """(line, column) of what is said of a second file that lacks `columns`."""
    whole = pa.schema(list(TYPES.items()))
    part = pa.schema([field for field in whole if field.name not in columns])
    files = [SourceFile(path, number, 1, 1, schema) for path, number, schema in (("a", 9, whole), ("b", rows, part))]
    try:
        check_files(sync, Manifest((*files, files[1]), whole), yaml_file=file)
    except ConfigurationError as error:
        lines = [line.removeprefix(f"{file}:") for line in str(error).splitlines()]
        assert all(": b has no column " in line and "take it out of the source." in line for line in lines)
        return [(line.split(":")[0], line.split("'")[1]) for line in lines]
    return []


@pytest.mark.parametrize("column", ["town", "note", "user", "device"])
def test_a_file_may_lack_an_account_or_what_is_left_as_it_is(file: Path, column: str) -> None:
    assert lacking(file, mapping(), column) == []


@pytest.mark.parametrize(("column", "line"), [("moment", "4"), ("flag", "8")])
def test_a_file_may_not_lack_what_decides(file: Path, column: str, line: str) -> None:
    assert lacking(file, mapping(), column) == [(line, column)]


def test_a_file_may_not_lack_what_would_then_be_removed(file: Path) -> None:
    removing = mapping(null="remove")
    assert lacking(file, removing, "note", "town") == [("11", "note")]
    assert lacking(file, removing, "note", "flag", "moment") == [("4", "moment"), ("8", "flag"), ("11", "note")]
    assert lacking(file, removing, "note", rows=0) == [], "nobody stands in it"


def test_a_file_of_devices_lacks_all_that_is_for_users_alone(file: Path) -> None:
    assert lacking(file, mapping(null="remove"), "user", "note", "flag") == []


def test_a_file_may_not_lack_every_account_column(file: Path) -> None:
    assert lacking(file, mapping(), "user", "device", "moment") == [("7", "user")]


# Attributes ---------------------------------------------------------------------------------------------------------


def test_attributes_declared_as_the_mapping_has_them_fit(file: Path) -> None:
    declared = {"city": USER, "note": USER, "device_city": DEVICE, "other": USER}
    check_declared(mapping(), declared, yaml_file=file)


def test_an_undeclared_attribute_is_told_with_the_command_and_what_there_is(file: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_declared(mapping(), {"town": USER, "city": USER, "note": USER}, yaml_file=file)
    assert str(caught.value) == (
        f"{file}:15: attribute 'device_city' is not declared in the app, which has city, note, town; declare it with "
        "`python -m connectors.tencent_push declare device_city:registration_id`, or correct the name"
    )


def test_an_attribute_of_the_other_account_type_needs_another_name(file: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_declared(mapping(), {"city": DEVICE, "note": USER, "device_city": DEVICE}, yaml_file=file)
    assert str(caught.value) == (
        f"{file}:10: attribute 'city' is declared for registration_id, not for user_id, which can never be changed; "
        "declare another name for this account type"
    )


def test_all_attributes_that_do_not_fit_are_told_at_once(file: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_declared(mapping(), {}, yaml_file=file)
    lines = str(caught.value).splitlines()
    assert [line.removeprefix(f"{file}:").split(":")[0] for line in lines] == ["10", "11", "15"]
    assert all("which has none;" in line for line in lines)


# Names --------------------------------------------------------------------------------------------------------------

TAKEN = [
    "__account", "__account_user_id", "__content", "__file", "__file_number", "__is_settled", "__key_user_id",
    "__known_0", "__known_content", "__open_user_id", "__Source_Row", "__status_user_id", "__uncertain",
    "file_row_number",
]  # fmt: skip


@pytest.mark.parametrize("column", TAKEN)
def test_a_column_with_a_name_of_the_transforms_own_is_refused(file: Path, column: str) -> None:
    """Its values would be taken for ours, or ours be sent in their place."""
    (line,) = complaint(file, mapping(column=column), **{column: pa.string()})
    assert line.startswith("11: ")
    assert repr(column) in line
    assert "rename it" in line


@pytest.mark.parametrize("column", ["__deleted", "__key", "__op", "account", "changed", "filename", "value_0"])
def test_other_names_are_the_sources_own(file: Path, column: str) -> None:
    assert complaint(file, mapping(column=column), **{column: pa.string()}) == []
