"""set_attr_name, get_attr_name and declarations without a call, against 1047/60563 and 1047/67815."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.tencent_push.emulator import Emulator
from connectors.tencent_push.protocol import AccountType


@pytest.fixture
def empty(tmp_path: Path, make_call: Any, clock: Any) -> Any:
    """A caller of an emulator in which nothing is declared."""
    with Emulator(tmp_path / "empty.sqlite", calls_per_second=None, clock=clock) as running:
        yield make_call(running)


def declare(call: Any, names: object, types: object = None) -> Any:
    return call("set_attr_name", {"AttrNames": names} | ({} if types is None else {"AttrTypes": types}))


def slots(call: Any) -> tuple[object, object]:
    reply = call("get_attr_name")
    return reply["AttrNames"], reply["AttrTypes"]


def test_get_attr_name_answers_names_and_types_by_slot(call: Any) -> None:
    """1047/67815"""
    assert call("get_attr_name") == {
        "ActionStatus": "OK",
        "ErrorInfo": "",
        "ErrorCode": 0,
        "AttrNames": {"0": "sex", "1": "city", "2": "device_city"},
        "AttrTypes": {"0": 0, "1": 0, "2": 1},
    }


def test_before_any_declaration_there_are_no_names(empty: Any) -> None:
    """1047/67815"""
    assert slots(empty) == ({}, {})


def test_set_attr_name_declares_names_and_types(empty: Any) -> None:
    """1047/60563: 0 is UserID, 1 is RegistrationID"""
    assert declare(empty, {"0": "sex", "9": "device"}, {"0": 0, "9": 1})["ErrorCode"] == 0
    assert slots(empty) == ({"0": "sex", "9": "device"}, {"0": 0, "9": 1})


def test_a_type_that_is_not_given_is_user_id(empty: Any) -> None:
    """1047/60563: default 0"""
    declare(empty, {"0": "sex", "1": "device"}, {"1": 1})
    assert slots(empty)[1] == {"0": 0, "1": 1}


def test_an_app_has_ten_slots(empty: Any) -> None:
    """1047/60563"""
    assert declare(empty, {str(slot): f"name{slot}" for slot in range(10)})["ErrorCode"] == 0
    assert len(slots(empty)[0]) == 10  # type: ignore[arg-type]  # the reply is untyped JSON


@pytest.mark.parametrize("slot", ["10", "-1", "00", "", "a", "٣"])
def test_another_slot_than_0_to_9_is_refused_with_90033(empty: Any, slot: str) -> None:
    """1047/60563"""
    assert declare(empty, {"0": "sex", slot: "city"})["ErrorCode"] == 90033
    assert slots(empty) == ({}, {})


@pytest.mark.parametrize(("name", "code"), [("x", 0), ("x" * 50, 0), ("性" * 16, 0), ("", 90033), ("性" * 17, 90033)])
def test_a_name_has_up_to_50_bytes(empty: Any, name: str, code: int) -> None:
    """1047/60563"""
    assert declare(empty, {"0": name})["ErrorCode"] == code


def test_the_types_keys_must_also_be_keys_of_the_names(empty: Any) -> None:
    """1047/60563"""
    assert declare(empty, {"0": "sex"}, {"0": 0, "1": 0})["ErrorCode"] == 90033
    assert slots(empty) == ({}, {})


def test_one_name_in_two_slots_fails_the_call_with_the_documented_info(empty: Any) -> None:
    """1047/60563"""
    reply = declare(empty, {"0": "sex", "1": "city", "2": "city"})
    assert reply == {
        "ActionStatus": "FAIL",
        "ErrorCode": 90033,
        "ErrorInfo": "attrName:city already exists at index:1",
    }
    assert slots(empty) == ({}, {})


def test_a_name_that_another_slot_has_from_before_is_refused_as_well(call: Any) -> None:
    """1047/60563"""
    assert declare(call, {"5": "city"})["ErrorInfo"] == "attrName:city already exists at index:1"


@pytest.mark.parametrize("types", [{"1": 1}, {"1": 1, "5": 0}])
def test_a_type_cannot_be_changed_later(call: Any, types: dict[str, int]) -> None:
    """1047/60563"""
    before = slots(call)
    assert declare(call, {"1": "city", "5": "more"}, types)["ErrorCode"] == 90033
    assert slots(call) == before


def test_leaving_out_the_type_of_a_registration_id_attribute_is_a_type_change(call: Any) -> None:
    """1047/60563: the default is 0"""
    assert declare(call, {"2": "device_city"})["ErrorCode"] == 90033
    assert declare(call, {"2": "device_city"}, {"2": 1})["ErrorCode"] == 0


def test_declaring_the_same_again_succeeds(call: Any) -> None:
    """1047/60563; not documented"""
    before = slots(call)
    assert declare(call, {"0": "sex", "1": "city"})["ErrorCode"] == 0
    assert slots(call) == before


def test_slots_that_are_not_named_stay_as_they_are(call: Any) -> None:
    """1047/60563; not documented"""
    assert declare(call, {"3": "level"})["ErrorCode"] == 0
    assert slots(call)[0] == {"0": "sex", "1": "city", "2": "device_city", "3": "level"}


def test_a_slot_cannot_be_renamed(call: Any) -> None:
    """1047/60563; not documented: the strict reading"""
    assert declare(call, {"0": "gender"})["ErrorCode"] == 90033


@pytest.mark.parametrize("wire_type", [2, -1])
def test_a_type_that_is_not_0_or_1_is_refused_with_90033(empty: Any, wire_type: int) -> None:
    """1047/60563"""
    assert declare(empty, {"0": "sex"}, {"0": wire_type})["ErrorCode"] == 90033


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"AttrNames": {}},
        {"AttrNames": ["sex"]},
        {"AttrNames": {"0": 7}},
        {"AttrNames": {"0": "sex"}, "AttrTypes": [0]},
        {"AttrNames": {"0": "sex"}, "AttrTypes": {"0": "0"}},
        {"AttrNames": {"0": "sex"}, "AttrTypes": {"0": True}},
        {"AttrTypes": {"0": 0}},
    ],
)
def test_a_declaration_of_another_form_is_refused_with_90001(empty: Any, body: object) -> None:
    """1047/60563"""
    assert empty.code("set_attr_name", body) == 90001


def test_a_declared_name_can_be_set_at_once(empty: Any) -> None:
    """1047/60563"""
    assert "ErrorList" in empty.set("user", city="x")
    declare(empty, {"0": "city"})
    assert "ErrorList" not in empty.set("user", city="x")


# Declarations without a call, for whoever embeds the emulator.


def test_declare_puts_missing_names_into_free_slots_and_leaves_the_others(emulator: Emulator, call: Any) -> None:
    emulator.declare({"city": AccountType.REGISTRATION_ID, "level": AccountType.REGISTRATION_ID})
    assert emulator.declared() == {
        "sex": AccountType.USER_ID,
        "city": AccountType.USER_ID,
        "device_city": AccountType.REGISTRATION_ID,
        "level": AccountType.REGISTRATION_ID,
    }
    assert slots(call)[1] == {"0": 0, "1": 0, "2": 1, "3": 1}


def test_declare_fills_gaps(empty: Any, tmp_path: Path) -> None:
    with Emulator(tmp_path / "gaps.sqlite") as emulator:
        call = type(empty)(emulator)
        declare(call, {"1": "city"})
        emulator.declare({"sex": AccountType.USER_ID, "level": AccountType.USER_ID})
        assert slots(call)[0] == {"0": "sex", "1": "city", "2": "level"}


@pytest.mark.parametrize("name", ["", "x" * 51])
def test_declare_refuses_a_name_that_no_slot_takes(emulator: Emulator, name: str) -> None:
    with pytest.raises(ValueError, match="1 to 50"):
        emulator.declare({"fine": AccountType.USER_ID, name: AccountType.USER_ID})
    assert "fine" not in emulator.declared()


@settings(deadline=None, max_examples=13)  # files
@given(extra=st.integers(min_value=0, max_value=12))
def test_declare_declares_all_or_nothing(extra: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    emulator = Emulator(tmp_path_factory.mktemp("slots") / "emulator.sqlite")
    try:
        wanted = {f"name{number}": AccountType.USER_ID for number in range(extra)}
        if extra > 10:
            with pytest.raises(ValueError, match="10 slots are free"):
                emulator.declare(wanted)
            wanted = {}
        else:
            emulator.declare(wanted)
        assert emulator.declared() == wanted
    finally:
        emulator.close()
