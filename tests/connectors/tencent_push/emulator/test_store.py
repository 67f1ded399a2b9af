"""Which accounts exist and of which type (1047/34953, 1047/76551, 1047/34381), and that the state lasts."""

import sqlite3
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.tencent_push.emulator import EmulatorDataError
from connectors.tencent_push.emulator.store import Declared, Store
from connectors.tencent_push.protocol import AccountType

REGISTRATION_ID = "379C2F0D-290D-47AE-94D1-919058C39C77"
DECLARED = [Declared(slot, name, AccountType.USER_ID) for slot, name in [(0, "sex"), (4, "city"), (9, "level")]]


@pytest.fixture
def store(data_file: Path) -> Iterator[Store]:
    opened = Store(data_file)
    opened.declare(DECLARED)
    yield opened
    opened.close()


# 1. Accounts.


@pytest.mark.parametrize(
    ("account", "account_type"),
    [
        pytest.param(REGISTRATION_ID, AccountType.REGISTRATION_ID, id="1047/76551-upper-case-uuid-of-36-bytes"),
        pytest.param(REGISTRATION_ID.lower(), AccountType.REGISTRATION_ID, id="1047/76551-lower-case"),
        pytest.param(REGISTRATION_ID[:-1], AccountType.USER_ID, id="1047/76551-35-characters"),
        pytest.param(REGISTRATION_ID.replace("-", ""), AccountType.USER_ID, id="1047/76551-32-without-dashes"),
        pytest.param(REGISTRATION_ID + "\n", AccountType.USER_ID, id="1047/76551-newline-after-it"),
        pytest.param("xiaojun012", AccountType.USER_ID, id="1047/34953-user-id"),
    ],
)
def test_what_looks_like_a_uuid_is_a_registration_id(store: Store, account: str, account_type: AccountType) -> None:
    assert store.account_type(account) is account_type


@pytest.mark.parametrize(
    ("account", "is_known"),
    [
        pytest.param("a" * 32, True, id="1047/34953-32-bytes"),
        pytest.param("a" * 33, False, id="1047/34953-33-bytes"),
        pytest.param("张" * 10 + "ab", True, id="1047/34953-32-bytes-not-characters"),
        pytest.param("张" * 11, False, id="1047/34953-33-bytes-in-11-characters"),
        pytest.param(REGISTRATION_ID, True, id="1047/76551-36-bytes"),
        pytest.param("", False, id="1047/34953-empty"),
        pytest.param("小明 _-", True, id="1212/45937-any-characters"),
        pytest.param("new-user", False, id="default-unknown-user-id"),
        pytest.param("renew-user", True, id="default-unknown-at-the-beginning-only"),
        pytest.param("New-user", True, id="1047/34620-case-sensitive"),
        pytest.param("00000000-290D-47AE-94D1-919058C39C77", False, id="default-unknown-registration-id"),
    ],
)
def test_every_account_that_can_exist_is_known_but_for_those_that_begin_as_unknown(
    store: Store, account: str, is_known: bool
) -> None:
    assert store.is_known(account) is is_known


def test_accounts_are_told_apart_by_case(store: Store) -> None:
    """1047/34620: parameter values are case-sensitive"""
    store.merge({"Anna": {"city": "x"}, "anna": {"city": "y"}})
    assert store.read(["Anna", "anna"]) == {"Anna": {"city": "x"}, "anna": {"city": "y"}}


def test_the_patterns_of_unknown_accounts_can_be_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path / "all.sqlite", unknown_accounts=["a+b", r"\d"])
    assert [store.is_known(account) for account in ("aab", "7", "x7", "new-user")] == [False, False, True, True]
    store.close()


def test_without_patterns_every_account_is_known(tmp_path: Path) -> None:
    store = Store(tmp_path / "all.sqlite", unknown_accounts=())
    assert store.is_known("new-user")
    store.close()


@pytest.mark.parametrize("account", ["new-user", "a" * 40, "plain", REGISTRATION_ID])
def test_an_exception_overrules_knowledge_and_type_and_lasts(data_file: Path, store: Store, account: str) -> None:
    """1047/76551: the kind cannot be told from the string"""
    other = Store(data_file)
    other.set_exception(account, known=True, account_type=AccountType.REGISTRATION_ID)
    other.close()
    again = Store(data_file)
    assert (again.is_known(account), again.account_type(account)) == (True, AccountType.REGISTRATION_ID)
    again.set_exception(account, known=False, account_type=None)
    assert not again.is_known(account)
    again.close()


def test_an_imported_account_is_known_on_the_wire_and_a_forgotten_one_is_not(call: Any, emulator: Any) -> None:
    """1047/34348: 70107, account not imported"""
    assert call.set("new-user", city="x")["ErrorList"][0]["ErrorCode"] == 70107
    emulator.know("new-user")
    assert "ErrorList" not in call.set("new-user", city="x")
    emulator.forget("new-user")
    assert call.set("new-user", city="y")["ErrorList"][0]["ErrorCode"] == 70107


def test_a_registration_id_of_the_clients_own_choice_can_be_imported_as_one(call: Any, emulator: Any) -> None:
    """269/111826: setRegistrationID"""
    emulator.know("my-device", AccountType.REGISTRATION_ID)
    assert "ErrorList" not in call.set("my-device", device_city="x")
    assert call.set("my-device", city="x")["ErrorList"][0]["ErrorCode"] == 90035


# 2. Values.


TEXT = st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=8)
ROWS = st.dictionaries(st.sampled_from("abc"), st.dictionaries(st.sampled_from(["sex", "city", "level"]), TEXT))
STEPS = st.lists(st.tuples(st.booleans(), ROWS), max_size=6)


@settings(deadline=None)  # files
@given(steps=STEPS)
def test_merging_and_removing_agree_with_dictionaries(
    steps: list[tuple[bool, dict[str, dict[str, str]]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = Store(tmp_path_factory.mktemp("store") / "emulator.sqlite")
    store.declare(DECLARED)
    expected: dict[str, dict[str, str]] = {}
    for is_merge, rows in steps:
        if is_merge:
            store.merge(rows)
        else:
            store.remove({account: names for account, names in rows.items() if names})
        for account, attributes in rows.items():
            kept = {name: value for name, value in expected.get(account, {}).items() if name not in attributes}
            expected[account] = kept | attributes if is_merge else kept
    store.close()
    assert dict(store.attributes()) == {account: attrs for account, attrs in expected.items() if attrs}


def test_accounts_are_streamed_in_order_from_one_moment(store: Store) -> None:
    store.merge({"b": {"city": "x"}, "a": {"city": "y"}})
    stream = store.attributes()
    assert next(stream) == ("a", {"city": "y"})
    store.merge({"c": {"city": "z"}, "b": {"city": "later"}})
    assert list(stream) == [("b", {"city": "x"})]


def test_200_000_accounts_are_streamed_in_little_memory(store: Store) -> None:
    for first in range(0, 200_000, 1000):
        store.merge({f"user{number}": {"city": "x" * 50} for number in range(first, first + 1000)})
    tracemalloc.start()
    try:
        count = sum(1 for _ in store.attributes())
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 200_000
    assert peak_bytes < 1_000_000


# 3. The file.


def test_the_state_is_there_again_after_closing_and_stands_in_a_single_file(data_file: Path) -> None:
    store = Store(data_file)
    store.declare(DECLARED)
    store.merge({"a": {"city": "x"}})
    store.close()
    assert [path.name for path in data_file.parent.iterdir()] == [data_file.name]
    again = Store(data_file)
    assert again.read(["a"]) == {"a": {"city": "x"}}
    assert [row.name for row in again.declared().values()] == ["sex", "city", "level"]
    again.close()


def test_a_transaction_that_fails_leaves_nothing_behind(store: Store) -> None:
    store.merge({"a": {"city": "x", "sex": "f"}})
    with pytest.raises(KeyError):
        store.remove({"a": ["city"], "b": ["undeclared"]})
    assert store.read(["a"]) == {"a": {"city": "x", "sex": "f"}}
    store.remove({"a": ["city"]})
    assert store.read(["a"]) == {"a": {"sex": "f"}}


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    Store(tmp_path / "deep" / "er" / "emulator.sqlite").close()
    assert (tmp_path / "deep" / "er" / "emulator.sqlite").is_file()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes " * 200)
    with pytest.raises(EmulatorDataError, match=r"notes\.txt"):
        Store(path)
    assert path.read_text() == "my notes " * 200


def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("create table account (name text)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(EmulatorDataError, match="not the emulator's"):
        Store(path)
    assert path.read_bytes() == before


def test_a_folder_in_the_files_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmulatorDataError, match="cannot be opened"):
        Store(tmp_path)
