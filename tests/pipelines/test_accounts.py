"""Every profile has one status per account type: whose account it is, or why it is nobody's."""

import unicodedata
from typing import Any

import pyarrow as pa
import pytest

from connectors.tencent_push.protocol import AccountType
from pipelines import accounts
from pipelines.accounts import Status
from pipelines.engine import Engine
from tests.pipelines.frame_cases import Row, sync_of

DEVICE = "379C2F0D-290D-47AE-94D1-919058C39C77"
SCHEMA = pa.schema([("user", pa.string()), ("device", pa.string()), ("kind", pa.string()), ("flag", pa.bool_())])


def sync(user: dict[str, Any] | None, device: dict[str, Any] | None) -> dict[str, Any]:
    user = user and {"attributes": {"city": "city"}, **user}
    device = device and {"attributes": {"device_city": "city"}, **device}
    return {"accounts": {"user_id": user, "registration_id": device}}


TWO_COLUMNS = sync({"column": "user"}, {"column": "device", "where": {"flag": True}})
MIXED_BY_WHERE = sync({"column": "user", "where": {"kind": "user"}}, {"column": "user", "where": {"kind": "device"}})
MIXED_BY_MATCHES = sync({"column": "user", "matches": "[a-z0-9]+"}, {"column": "user", "matches": "[0-9A-F-]{1,40}"})


def statuses(engine: Engine, wanted: dict[str, Any], *rows: Row, schema: pa.Schema = SCHEMA) -> list[tuple[str, ...]]:
    """Per row, the status of each account type, UserIDs first."""
    mapping = sync_of(wanted)
    numbered = [{"number": number, **row} for number, row in enumerate(rows)]
    profiles = engine.register(
        "profiles_here", pa.Table.from_pylist(numbered, schema=schema.append(pa.field("number", pa.int64())))
    )
    columns = {kind.value: accounts.status(profiles, mapping, kind) for kind in mapping.account_types()}
    return [
        tuple(row[kind] for kind in columns)
        for row in engine.rows(profiles.select("number", **columns).order_by("number"))
    ]


def status(engine: Engine, wanted: dict[str, Any], row: Row, *, schema: pa.Schema = SCHEMA) -> tuple[str, ...]:
    (found,) = statuses(engine, wanted, row, schema=schema)
    return found


def test_each_type_looks_at_its_own_column(engine: Engine) -> None:
    rows: list[Row] = [
        {"user": "u1", "device": DEVICE, "flag": True},
        {"user": "u1", "device": DEVICE, "flag": False},
        {"user": "u1", "device": DEVICE, "flag": None},
        {"user": None, "device": DEVICE, "flag": True},
        {"user": "u1", "device": " ", "flag": True},
    ]
    assert statuses(engine, TWO_COLUMNS, *rows) == [
        (Status.CANDIDATE, Status.CANDIDATE),
        (Status.CANDIDATE, Status.WITHOUT_ACCOUNT),
        (Status.CANDIDATE, Status.WITHOUT_ACCOUNT),
        (Status.WITHOUT_ACCOUNT, Status.CANDIDATE),
        (Status.CANDIDATE, Status.WITHOUT_ACCOUNT),
    ]


def test_the_same_text_claimed_by_both_columns_is_ambiguous_for_both(engine: Engine) -> None:
    row = {"user": DEVICE, "device": DEVICE, "flag": True}
    assert status(engine, TWO_COLUMNS, row) == (Status.ACCOUNT_TYPE_AMBIGUOUS,) * 2
    assert status(engine, TWO_COLUMNS, {**row, "flag": False}) == (Status.ACCOUNT_TOO_LONG, Status.WITHOUT_ACCOUNT)


def test_the_same_blank_in_both_columns_is_no_account(engine: Engine) -> None:
    row = {"user": " ", "device": " ", "flag": True}
    assert status(engine, TWO_COLUMNS, row) == (Status.WITHOUT_ACCOUNT,) * 2


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("user", (Status.CANDIDATE, Status.WITHOUT_ACCOUNT)),
        ("device", (Status.WITHOUT_ACCOUNT, Status.CANDIDATE)),
        ("robot", (Status.ACCOUNT_TYPE_AMBIGUOUS,) * 2),
        (None, (Status.ACCOUNT_TYPE_AMBIGUOUS,) * 2),
    ],
)
def test_a_mixed_column_is_told_apart_by_another_column(
    engine: Engine, kind: str | None, expected: tuple[str, ...]
) -> None:
    assert status(engine, MIXED_BY_WHERE, {"user": "abc", "kind": kind}) == expected
    assert status(engine, MIXED_BY_WHERE, {"user": " ", "kind": kind}) == (Status.WITHOUT_ACCOUNT,) * 2


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        ("u1", (Status.CANDIDATE, Status.WITHOUT_ACCOUNT)),
        (DEVICE, (Status.WITHOUT_ACCOUNT, Status.CANDIDATE)),
        (DEVICE + "-00", (Status.WITHOUT_ACCOUNT, Status.ACCOUNT_TOO_LONG)),
        ("42", (Status.ACCOUNT_TYPE_AMBIGUOUS,) * 2),  # both
        ("u 1", (Status.ACCOUNT_TYPE_AMBIGUOUS,) * 2),  # neither
        ("u1\n", (Status.ACCOUNT_TYPE_AMBIGUOUS,) * 2),  # a full match leaves no line break over
    ],
)
def test_a_mixed_column_is_told_apart_by_a_pattern(engine: Engine, account: str, expected: tuple[str, ...]) -> None:
    assert status(engine, MIXED_BY_MATCHES, {"user": account}) == expected


def test_a_pattern_of_several_branches_matches_in_full(engine: Engine) -> None:
    wanted = sync({"column": "user", "matches": "u|vw"}, None)
    assert statuses(engine, wanted, {"user": "u"}, {"user": "vw"}, {"user": "uw"}, {"user": "xvw"}) == [
        (Status.CANDIDATE,),
        (Status.CANDIDATE,),
        (Status.ACCOUNT_TYPE_AMBIGUOUS,),
        (Status.ACCOUNT_TYPE_AMBIGUOUS,),
    ]


def test_where_is_asked_before_matches(engine: Engine) -> None:
    wanted = sync({"column": "user", "matches": "u.*", "where": {"flag": True}}, None)
    assert status(engine, wanted, {"user": "x", "flag": False}) == (Status.WITHOUT_ACCOUNT,)
    assert status(engine, wanted, {"user": "x", "flag": True}) == (Status.ACCOUNT_TYPE_AMBIGUOUS,)


def test_several_equalities_have_to_hold_together(engine: Engine) -> None:
    wanted = sync({"column": "user", "where": {"flag": True, "kind": "user"}}, None)
    rows = [{"user": "u", "flag": flag, "kind": kind} for flag in (True, False, None) for kind in ("user", "x", None)]
    assert [found == (Status.CANDIDATE,) for found in statuses(engine, wanted, *rows)] == [True] + [False] * 8


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        ("x" * 32, Status.CANDIDATE),
        ("x" * 33, Status.ACCOUNT_TOO_LONG),
        ("é" * 16, Status.CANDIDATE),
        ("é" * 16 + "x", Status.ACCOUNT_TOO_LONG),
        ("u\x00", Status.ACCOUNT_INVALID),
        ("u\x85", Status.ACCOUNT_INVALID),
        ("x" * 40 + "\r", Status.ACCOUNT_INVALID),
        (" u ", Status.CANDIDATE),
    ],
)
def test_a_user_id_has_32_bytes_and_no_control_character(engine: Engine, account: str, expected: Status) -> None:
    assert status(engine, sync({"column": "user"}, None), {"user": account}) == (expected,)


def test_a_registration_id_has_36_bytes(engine: Engine) -> None:
    wanted = sync(None, {"column": "device"})
    assert statuses(engine, wanted, {"device": DEVICE}, {"device": DEVICE + "0"}) == [
        (Status.CANDIDATE,),
        (Status.ACCOUNT_TOO_LONG,),
    ]


def test_blank_is_white_space_of_any_script_and_nothing_else(engine: Engine) -> None:
    """Characters of Unicode's categories Z*, and the six that Python and C call white space."""
    characters = [chr(code) for code in range(0x11000) if not 0xD800 <= code <= 0xDFFF]
    blank = {char for char in characters if unicodedata.category(char)[0] == "Z" or char in " \t\n\r\f\v"}
    found = statuses(engine, sync({"column": "user"}, None), *({"user": char} for char in characters))
    without = {char for char, each in zip(characters, found, strict=True) if each == (Status.WITHOUT_ACCOUNT,)}
    assert without == blank
    assert status(engine, sync({"column": "user"}, None), {"user": "".join(sorted(blank))}) == (Status.WITHOUT_ACCOUNT,)


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.int8(), pa.decimal128(38, 0)], ids=str)
def test_a_whole_number_is_an_account_in_decimal(engine: Engine, kind: pa.DataType) -> None:
    schema = pa.schema([("user", kind)])
    table = engine.register("numbers", pa.Table.from_pylist([{"user": 7}, {"user": None}], schema=schema))
    text = accounts.account_text(table, "user")
    assert [row["text"] for row in engine.rows(table.select(text=text))] == ["7", None]
    assert statuses(engine, sync({"column": "user"}, None), {"user": 7}, {"user": None}, schema=schema) == [
        (Status.CANDIDATE,),
        (Status.WITHOUT_ACCOUNT,),
    ]


@pytest.mark.parametrize("level", [pa.int32(), pa.decimal128(38, 0)], ids=str)
def test_where_compares_numbers_and_text_of_their_own_type(engine: Engine, level: pa.DataType) -> None:
    schema = pa.schema([("user", pa.string()), ("level", level), ("kind", pa.string())])
    rows = [{"user": "u", "level": one, "kind": kind} for one in (1, 2, None) for kind in ("1", "01")]
    by_number = sync({"column": "user", "where": {"level": 1}}, None)
    by_text = sync({"column": "user", "where": {"kind": "1"}}, None)
    assert [found == (Status.CANDIDATE,) for found in statuses(engine, by_number, *rows, schema=schema)] == [
        True, True, False, False, False, False,
    ]  # fmt: skip
    assert [found == (Status.CANDIDATE,) for found in statuses(engine, by_text, *rows, schema=schema)] == [
        True, False, True, False, True, False,
    ]  # fmt: skip


def test_claims_and_statuses_are_never_null(engine: Engine) -> None:
    rows = [{"user": user, "kind": kind} for user in (None, "", "u") for kind in (None, "user")]
    mapping = sync_of(MIXED_BY_WHERE)
    table = engine.register("claimed", pa.Table.from_pylist(rows, schema=SCHEMA))
    found = engine.rows(
        table.select(
            one=accounts.claims(table, mapping.account_types()[AccountType.USER_ID]),
            both=accounts.is_claimed_by_both(table, mapping),
        )
    )
    assert all(isinstance(value, bool) for row in found for value in row.values())
    assert None not in {each for row in statuses(engine, MIXED_BY_WHERE, *rows) for each in row}
