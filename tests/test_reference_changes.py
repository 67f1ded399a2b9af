"""What is sent for an account and what the target answers: the contract in hand-computed cases."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from tests.reference import FailedByPolicyError, Target
from tests.reference_cases import DEVICE, TWO_COLUMNS, Rows, counts, expect_rows, one_user, reasons


def test_a_truncated_value_is_sent_and_reported_as_a_notice(tmp_path: Path) -> None:
    expected = expect_rows(
        tmp_path, one_user({"column": "city", "too_long": "truncate"}), [{"user_id": "u1", "city": "x" * 60}]
    )
    assert expected.attributes == {"u1": {"city": "x" * 50}}
    (row,) = expected.failed_rows
    assert (row["severity"], row["outcome"], row["reason"]) == ("notice", None, "value_truncated")
    assert (row["value"], row["sent_value"], row["value_bytes"]) == ("x" * 60, "x" * 50, 60)
    assert (row["account"], row["account_type"], row["attribute"], row["column"]) == ("u1", "user_id", "city", "city")


def test_a_value_that_is_too_long_for_fail_stops_the_run(tmp_path: Path) -> None:
    sync = one_user({"column": "city", "too_long": "fail"})
    with pytest.raises(FailedByPolicyError):
        expect_rows(tmp_path, sync, [{"user_id": "u1", "city": "x" * 51}])


def test_a_truncated_value_is_reported_every_night_and_sent_once(tmp_path: Path) -> None:
    sync = one_user({"column": "city", "too_long": "truncate"})
    before = {"u1": {"city": "x" * 50}}
    expected = expect_rows(tmp_path, sync, [{"user_id": "u1", "city": "x" * 60}], acknowledged=before)
    assert (expected.changes["user_id"], reasons(expected)) == ({}, [("value_truncated", "user_id")])


def test_a_left_out_value_neither_sets_nor_removes_and_the_others_go_on(tmp_path: Path) -> None:
    schema = pa.schema([("user_id", pa.string()), ("city", pa.string()), ("level", pa.int32())])
    sync = one_user({"column": "city", "null": "remove"})
    sync["accounts"]["user_id"]["attributes"]["level"] = "level"
    rows: Rows = [{"user_id": "u1", "city": "x" * 51, "level": 3}]
    expected = expect_rows(tmp_path, sync, rows, schema=schema, acknowledged={"u1": {"city": "Berlin", "level": "2"}})
    assert expected.attributes == {"u1": {"city": "Berlin", "level": "3"}}
    assert expected.changes["user_id"]["u1"].set == {"level": "3"}
    assert expected.changes["user_id"]["u1"].remove == []
    assert [(row["reason"], row["severity"], row["outcome"]) for row in expected.failed_rows] == [
        ("value_too_long", "error", "invalid")
    ]


@pytest.mark.parametrize("empty", [None, ""])
@pytest.mark.parametrize(
    ("policy", "before", "after"),
    [
        ("leave", {"city": "Berlin"}, {"u1": {"city": "Berlin"}}),
        ("remove", {"city": "Berlin"}, {}),
        ("remove", {"other": "x"}, {"u1": {"other": "x"}}),
    ],
)
def test_null_and_empty_are_left_or_removed(
    tmp_path: Path, empty: str | None, policy: str, before: dict[str, str], after: dict[str, dict[str, str]]
) -> None:
    sync = one_user({"column": "city", "null": policy})
    expected = expect_rows(tmp_path, sync, [{"user_id": "u1", "city": empty}], acknowledged={"u1": before})
    assert expected.attributes == after
    removed = policy == "remove" and "city" in before
    assert [change.remove for change in expected.changes["user_id"].values()] == ([["city"]] if removed else [])
    assert counts(expected, "user_id")["changed" if removed else "unchanged"] == 1


def test_the_null_key_of_yaml_is_the_null_policy(tmp_path: Path) -> None:
    sync = one_user(yaml.safe_load("{column: city, null: remove}"))
    assert expect_rows(tmp_path, sync, [{"user_id": "u1"}], acknowledged={"u1": {"city": "x"}}).attributes == {}


def test_blank_text_is_a_value(tmp_path: Path) -> None:
    assert expect_rows(tmp_path, one_user(), [{"user_id": "u1", "city": " "}]).attributes == {"u1": {"city": " "}}


def test_only_what_differs_from_the_acknowledged_is_sent(tmp_path: Path) -> None:
    rows: Rows = [{"user_id": "u1", "city": "Berlin"}, {"user_id": "u2", "city": "Bonn"}]
    before = {"u1": {"city": "Berlin"}, "u2": {"city": "bonn"}, "u3": {"city": "gone from the source"}}
    expected = expect_rows(tmp_path, one_user(), rows, acknowledged=before)
    assert set(expected.changes["user_id"]) == {"u2"}
    assert expected.attributes == {**before, "u2": {"city": "Bonn"}}
    assert counts(expected, "user_id") == {"profiles": 2, "unchanged": 1, "changed": 1, "acknowledged": 1}


def test_an_unknown_account_is_rejected_once_for_each_stage(tmp_path: Path) -> None:
    schema = pa.schema([("user_id", pa.string()), ("city", pa.string()), ("vip", pa.string())])
    sync: dict[str, Any] = one_user()
    sync["accounts"]["user_id"]["attributes"]["vip"] = {"column": "vip", "null": "remove"}
    rows: Rows = [{"user_id": "u1", "city": "a"}, {"user_id": "new-1", "city": "a"}]
    before = {"new-1": {"vip": "yes"}}
    expected = expect_rows(tmp_path, sync, rows, schema=schema, acknowledged=before)
    assert expected.attributes == {"u1": {"city": "a"}, "new-1": {"vip": "yes"}}
    assert [(row["stage"], row["outcome"], row["error_code"]) for row in expected.failed_rows] == [
        ("push", "rejected", 70107),
        ("remove", "rejected", 70107),
    ]
    row = expected.failed_rows[0]
    assert (row["reason"], row["account"], row["attribute"], row["column"]) == (
        "account_unknown",
        "new-1",
        None,
        "user_id",
    )
    assert (row["severity"], row["source_row"]) == ("error", 1)
    assert counts(expected, "user_id") == {"profiles": 2, "changed": 2, "acknowledged": 1, "rejected": 1}


def test_an_unknown_account_without_change_is_not_sent(tmp_path: Path) -> None:
    expected = expect_rows(tmp_path, one_user(), [{"user_id": "new-1", "city": None}])
    assert (expected.failed_rows, counts(expected, "user_id")) == ([], {"profiles": 1, "unchanged": 1})


def test_the_target_says_whom_it_knows(tmp_path: Path) -> None:
    rows: Rows = [{"user_id": user, "city": "x"} for user in ("new-1", "new-2", "guest")]
    target = Target(unknown_accounts={"user_id": "new-|guest"}, known=frozenset({"new-2"}))
    assert set(expect_rows(tmp_path, one_user(), rows, target=target).attributes) == {"new-2"}


@pytest.mark.parametrize("account", ["renew-1", "New-1", "00000000-0000"])
def test_unknown_user_ids_begin_with_the_prefix(tmp_path: Path, account: str) -> None:
    assert set(expect_rows(tmp_path, one_user(), [{"user_id": account, "city": "x"}]).attributes) == {account}


def test_unknown_registration_ids_begin_with_zeros(tmp_path: Path) -> None:
    row = {"device_id": "00000000" + DEVICE[8:], "push_enabled": True, "city": "x"}
    assert reasons(expect_rows(tmp_path, TWO_COLUMNS, [row])) == [("account_unknown", "registration_id")]


# Departed accounts --------------------------------------------------------------------------------------------------


def test_a_departed_account_loses_what_is_acknowledged_of_its_type_where_the_sync_says_so(tmp_path: Path) -> None:
    before = {"u1": {"city": "Bonn"}, "u2": {"city": "上海", "device_city": "上海"}}
    rows: Rows = [{"user_id": "u1", "city": "Bonn"}]
    leaving = expect_rows(tmp_path, TWO_COLUMNS, rows, acknowledged=before)
    assert (leaving.attributes, counts(leaving, "user_id")) == (before, {"profiles": 1, "unchanged": 1})
    removing = expect_rows(tmp_path, {**TWO_COLUMNS, "departed": "remove"}, rows, acknowledged=before)
    assert removing.attributes == {"u1": {"city": "Bonn"}}
    assert removing.changes["user_id"]["u2"].remove == ["city"]
    assert removing.changes["registration_id"]["u2"].remove == ["device_city"]
    assert counts(removing, "user_id") == {
        "profiles": 1, "unchanged": 1, "changed": 1, "acknowledged": 1, "departed": 1,
    }  # fmt: skip


def test_an_account_that_a_profile_names_wrongly_has_not_departed(tmp_path: Path) -> None:
    before = {"u1": {"city": "Bonn"}, "u2": {"city": "Bonn"}}
    rows: Rows = [{"user_id": "u1", "device_id": "u1", "push_enabled": True}, {"user_id": "u3"}]
    expected = expect_rows(tmp_path, {**TWO_COLUMNS, "departed": "remove"}, rows, acknowledged=before)
    assert list(expected.changes["user_id"]) == ["u2"]


def test_a_departed_account_that_the_target_has_forgotten_is_a_failed_row_without_a_place(tmp_path: Path) -> None:
    sync = {**one_user(), "departed": "remove"}
    rows: Rows = [{"user_id": "u1"}]
    expected = expect_rows(tmp_path, sync, rows, acknowledged={"new-1": {"city": "Bonn"}})
    (row,) = expected.failed_rows
    assert (row["reason"], row["stage"], row["source_file"], row["source_row"]) == (
        "account_unknown", "remove", None, None,
    )  # fmt: skip
