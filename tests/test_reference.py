"""Whom a profile is for, which profile wins, and the sums: the contract in hand-computed cases."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from tests.reference_cases import DEVICE, TWO_COLUMNS, Rows, counts, expect_mixed, expect_rows, one_user, reasons


def at(hour: int) -> datetime:
    return datetime(2026, 1, 1, hour, tzinfo=UTC)


def test_a_profile_with_both_accounts_is_a_change_for_each(tmp_path: Path) -> None:
    expected = expect_rows(
        tmp_path, TWO_COLUMNS, [{"user_id": "u1", "device_id": DEVICE, "push_enabled": True, "city": "Berlin"}]
    )
    assert expected.attributes == {"u1": {"city": "Berlin"}, DEVICE: {"device_city": "Berlin"}}
    assert expected.changes["user_id"]["u1"].set == {"city": "Berlin"}
    assert expected.failed_rows == []
    assert counts(expected, "registration_id") == {"profiles": 1, "changed": 1, "acknowledged": 1}


def test_an_account_stays_as_it_is_and_a_whole_number_is_decimal(tmp_path: Path) -> None:
    assert set(expect_rows(tmp_path, one_user(), [{"user_id": " Uß ", "city": "x"}]).attributes) == {" Uß "}
    numbers = pa.schema([("user_id", pa.int64()), ("city", pa.string())])
    assert set(expect_rows(tmp_path, one_user(), [{"user_id": -7, "city": "x"}], schema=numbers).attributes) == {"-7"}


@pytest.mark.parametrize("push_enabled", [False, None])
def test_where_that_is_false_or_null_leaves_the_type_without_account(tmp_path: Path, push_enabled: bool | None) -> None:
    row = {"user_id": "u1", "device_id": DEVICE, "push_enabled": push_enabled, "city": "Berlin"}
    expected = expect_rows(tmp_path, TWO_COLUMNS, [row])
    assert counts(expected, "registration_id") == {"profiles": 1, "without_account": 1}
    assert expected.failed_rows == []


def test_where_true_is_not_one(tmp_path: Path) -> None:
    schema = pa.schema([("user_id", pa.string()), ("flag", pa.int64()), ("city", pa.string())])
    rows: Rows = [{"user_id": "u1", "flag": 1, "city": "x"}]
    assert expect_rows(tmp_path, one_user(where={"flag": True}), rows, schema=schema).attributes == {}
    assert expect_rows(tmp_path, one_user(where={"flag": 1}), rows, schema=schema).attributes == {"u1": {"city": "x"}}


@pytest.mark.parametrize("blank", [None, "", " ", "\t\n\r\f\v", "\u3000\u00a0\u2028"])
def test_a_profile_with_blank_accounts_only_is_one_failed_row(tmp_path: Path, blank: str | None) -> None:
    expected = expect_rows(
        tmp_path, TWO_COLUMNS, [{"user_id": blank, "device_id": "  ", "push_enabled": False, "city": "x"}]
    )
    assert expected.failed_rows == [
        {
            "stage": "validate",
            "severity": "error",
            "outcome": "invalid",
            "account": None,
            "account_type": None,
            "attribute": None,
            "column": "user_id, device_id",
            "reason": "account_missing",
            "value": None,
            "sent_value": None,
            "value_bytes": None,
            "source_file": str(tmp_path / "0.parquet"),
            "source_row": 0,
            "error_code": None,
        }
    ]
    assert counts(expected, "user_id") == counts(expected, "registration_id") == {"profiles": 1, "without_account": 1}


@pytest.mark.parametrize("account", ["\u200b", "\ufeff", "\x85", "\x1c"])
def test_what_only_looks_blank_is_an_account(tmp_path: Path, account: str) -> None:
    """Format characters are text; control characters make the account invalid."""
    expected = expect_rows(tmp_path, one_user(), [{"user_id": account, "city": "x"}])
    assert ("account_missing", None) not in reasons(expected)


@pytest.mark.parametrize("account", ["u\r", "\x00u", "u\x7f", "u\x85"])
def test_a_control_character_makes_the_account_invalid(tmp_path: Path, account: str) -> None:
    expected = expect_rows(tmp_path, one_user(), [{"user_id": account, "city": "x"}])
    assert reasons(expected) == [("account_invalid", "user_id")]
    assert expected.failed_rows[0]["account"] == account
    assert expected.failed_rows[0]["column"] == "user_id"
    assert counts(expected, "user_id") == {"profiles": 1, "invalid": 1}


@pytest.mark.parametrize(("account", "fits"), [("x" * 32, True), ("x" * 33, False), ("é" * 16, True), (DEVICE, False)])
def test_a_user_id_has_at_most_32_bytes(tmp_path: Path, account: str, fits: bool) -> None:
    expected = expect_rows(tmp_path, one_user(), [{"user_id": account, "city": "x"}])
    assert reasons(expected) == ([] if fits else [("account_too_long", "user_id")])


def test_a_registration_id_has_at_most_36_bytes(tmp_path: Path) -> None:
    rows: Rows = [{"device_id": device, "push_enabled": True, "city": "x"} for device in (DEVICE, DEVICE + "0")]
    assert reasons(expect_rows(tmp_path, TWO_COLUMNS, rows)) == [("account_too_long", "registration_id")]


def test_a_control_character_is_reported_before_the_length(tmp_path: Path) -> None:
    expected = expect_rows(tmp_path, one_user(), [{"user_id": "x" * 40 + "\t", "city": "x"}])
    assert reasons(expected) == [("account_invalid", "user_id")]


def test_the_same_text_under_both_types_is_nobodys(tmp_path: Path) -> None:
    expected = expect_rows(
        tmp_path, TWO_COLUMNS, [{"user_id": DEVICE, "device_id": DEVICE, "push_enabled": True, "city": "x"}]
    )
    assert reasons(expected) == [("account_type_ambiguous", None)]
    assert expected.failed_rows[0]["account"] == DEVICE
    assert expected.failed_rows[0]["column"] == "user_id, device_id"
    assert counts(expected, "user_id") == counts(expected, "registration_id") == {"profiles": 1, "invalid": 1}


def test_the_same_text_is_no_conflict_where_only_one_type_claims_it(tmp_path: Path) -> None:
    expected = expect_rows(
        tmp_path, TWO_COLUMNS, [{"user_id": "abc", "device_id": "abc", "push_enabled": False, "city": "x"}]
    )
    assert expected.attributes == {"abc": {"city": "x"}}


def test_the_same_text_in_different_profiles_is_an_account_of_each_type(tmp_path: Path) -> None:
    rows: Rows = [{"user_id": "abc", "city": "x"}, {"device_id": "abc", "push_enabled": True, "city": "y"}]
    assert expect_rows(tmp_path, TWO_COLUMNS, rows).attributes == {"abc": {"city": "x", "device_city": "y"}}


@pytest.mark.parametrize("account", ["x1", "u1 ", "xu1"])
def test_matches_is_a_full_match_and_else_the_account_is_ambiguous(tmp_path: Path, account: str) -> None:
    expected = expect_rows(tmp_path, one_user(matches="u[0-9]"), [{"user_id": account, "city": "x"}])
    assert reasons(expected) == [("account_type_ambiguous", "user_id")]
    assert expected.failed_rows[0]["account"] == account


def test_where_is_asked_before_matches(tmp_path: Path) -> None:
    sync = one_user(matches="u[0-9]", where={"push_enabled": True})
    expected = expect_rows(tmp_path, sync, [{"user_id": "x1", "push_enabled": False, "city": "x"}])
    assert expected.failed_rows == []
    assert counts(expected, "user_id") == {"profiles": 1, "without_account": 1}


def test_a_mixed_column_gives_each_account_to_the_one_type_that_claims_it(tmp_path: Path) -> None:
    expected = expect_mixed(
        tmp_path, {"id": "u1", "kind": "user", "city": "x"}, {"id": DEVICE, "kind": "d", "city": "y"}
    )
    assert expected.attributes == {"u1": {"city": "x"}, DEVICE: {"device_city": "y"}}
    assert counts(expected, "user_id") == {"profiles": 2, "without_account": 1, "changed": 1, "acknowledged": 1}


@pytest.mark.parametrize(("account", "kind"), [(DEVICE, "user"), ("u1", None), ("u\t1", "robot")])
def test_an_account_of_a_mixed_column_that_both_or_neither_claim_is_invalid(
    tmp_path: Path, account: str, kind: str | None
) -> None:
    expected = expect_mixed(tmp_path, {"id": account, "kind": kind, "city": "x"})
    assert reasons(expected) == [("account_type_ambiguous", None)]
    assert expected.failed_rows[0]["column"] == "id"
    assert counts(expected, "user_id") == counts(expected, "registration_id") == {"profiles": 1, "invalid": 1}


def test_a_blank_of_a_mixed_column_is_missing(tmp_path: Path) -> None:
    expected = expect_mixed(tmp_path, {"id": " ", "kind": "user", "city": "x"})
    assert reasons(expected) == [("account_missing", None)]
    assert expected.failed_rows[0]["column"] == "id"


def test_the_newest_profile_wins_and_null_is_older_than_all(tmp_path: Path) -> None:
    rows: Rows = [
        {"user_id": "u1", "city": "old", "updated_at": at(1)},
        {"user_id": "u1", "city": "new", "updated_at": at(2)},
        {"user_id": "u1", "city": "undated", "updated_at": None},
    ]
    expected = expect_rows(tmp_path, TWO_COLUMNS, rows)
    assert expected.attributes == {"u1": {"city": "new"}}
    assert [(row["source_row"], row["severity"], row["outcome"]) for row in expected.failed_rows] == [
        (0, "notice", None),
        (2, "notice", None),
    ]
    assert reasons(expected) == [("superseded", "user_id")] * 2
    assert expected.failed_rows[0]["column"] == "user_id"
    assert counts(expected, "user_id") == {"profiles": 3, "superseded": 2, "changed": 1, "acknowledged": 1}


@pytest.mark.parametrize("updated_at", [at(1), None])
def test_of_equally_new_profiles_the_later_row_of_the_later_file_wins(
    tmp_path: Path, updated_at: datetime | None
) -> None:
    first = [{"user_id": "u1", "city": city, "updated_at": updated_at} for city in "abc"]
    second = [{"user_id": "u1", "city": city, "updated_at": updated_at} for city in "de"]
    expected = expect_rows(tmp_path, TWO_COLUMNS, first, second)
    assert expected.attributes == {"u1": {"city": "e"}}
    assert (expected.failed_rows[3]["source_file"], expected.failed_rows[3]["source_row"]) == (
        str(tmp_path / "1.parquet"),
        0,
    )


def test_without_updated_at_the_later_row_wins(tmp_path: Path) -> None:
    rows: Rows = [
        {"user_id": "u1", "city": "new", "updated_at": at(2)},
        {"user_id": "u1", "city": "old", "updated_at": at(1)},
    ]
    assert expect_rows(tmp_path, one_user(), rows).attributes == {"u1": {"city": "old"}}


def test_an_invalid_or_filtered_profile_does_not_supersede(tmp_path: Path) -> None:
    rows: Rows = [
        {"device_id": DEVICE, "push_enabled": True, "city": "a", "updated_at": at(1)},
        {"device_id": DEVICE, "push_enabled": False, "city": "b", "updated_at": at(2)},
        {"user_id": DEVICE, "device_id": DEVICE, "push_enabled": True, "city": "c", "updated_at": at(3)},
    ]
    assert expect_rows(tmp_path, TWO_COLUMNS, rows).attributes == {DEVICE: {"device_city": "a"}}


def test_the_winner_alone_counts_even_with_null_or_invalid_values(tmp_path: Path) -> None:
    rows: Rows = [
        {"user_id": "u1", "city": "Berlin", "updated_at": at(1)},
        {"user_id": "u1", "city": None, "updated_at": at(2)},
        {"user_id": "u2", "city": "a\x07" * 30, "updated_at": at(1)},
        {"user_id": "u2", "city": "Bonn", "updated_at": at(2)},
    ]
    expected = expect_rows(tmp_path, TWO_COLUMNS, rows)
    assert expected.attributes == {"u2": {"city": "Bonn"}}
    assert reasons(expected) == [("superseded", "user_id")] * 2
    assert counts(expected, "user_id")["unchanged"] == 1


def test_profiles_are_the_sum_of_what_became_of_them(tmp_path: Path) -> None:
    rows: Rows = [
        {"user_id": None, "city": "x"},
        {"user_id": "u1", "city": "x"},
        {"user_id": "u1", "city": "y"},
        {"user_id": "u\x01", "city": "y"},
        {"user_id": "u2", "city": None},
        {"user_id": "new-", "city": "x"},
    ]
    assert counts(expect_rows(tmp_path, one_user(), rows), "user_id") == {
        "profiles": 6,
        "without_account": 1,
        "superseded": 1,
        "invalid": 1,
        "unchanged": 1,
        "changed": 2,
        "acknowledged": 1,
        "rejected": 1,
    }


def test_an_empty_source_expects_nothing(tmp_path: Path) -> None:
    expected = expect_rows(tmp_path, TWO_COLUMNS, [])
    assert (expected.attributes, expected.failed_rows) == ({}, [])
    assert counts(expected, "user_id") == {}


def test_the_reference_knows_nothing_of_the_project() -> None:
    for name in ("reference.py", "reference_values.py"):
        text = Path(__file__).with_name(name).read_text(encoding="utf-8")
        imports = [line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))]
        assert not [name for name in imports if name.split(".")[0] in {"pipelines", "connectors", "pandas", "duckdb"}]
