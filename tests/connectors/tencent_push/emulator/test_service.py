"""The table of error codes (1047/34348): each can be shown for a call and for a row.

Also what holds for every answer: HTTP 200, the three fields, nothing stored by a refused call.
"""

import logging
from pathlib import Path
from typing import Any

import pytest

from connectors.tencent_push.emulator import Emulator, RefuseCall, RefuseRows
from connectors.tencent_push.protocol import AccountType, Command

# Every code of 1047/34348, older ones of the same page included; 90056 and the commands' own are in 1047/74196.
CODES_34348 = [
    *(60002, 60003, 60004, 60005, 60006, 60007, 60008, 60009, 60010, 60011, 60012, 60013, 60014, 60015, 60016, 60017),
    *(60018, 60019, 60020, 60021, 60025, 60026, 60027, 60028),
    *(70001, 70002, 70003, 70005, 70009, 70013, 70014, 70016, 70020, 70050, 70051, 70052, 70107, 70114, 70169, 70202),
    *(70206, 70398, 70399, 70402, 70403, 70404, 70500),
    *(71000, 72000, 72001, 72002, 72010, 72011, 72012),
    *(80002, 80005),
    *(90001, 90003, 90009, 90012, 90018, 90030, 90033, 90035, 90045, 90048, 90992, 90994, 90995, 91000, 93000),
]
CODES_74196 = [90056]
ALL_CODES = [pytest.param(code, id=f"1047/34348-{code}") for code in CODES_34348] + [
    pytest.param(code, id=f"1047/74196-{code}") for code in CODES_74196
]
ONE_USER = {"UserAttrs": [{"To_Account": "user0", "Attrs": {"city": "x"}}]}


@pytest.mark.parametrize("code", ALL_CODES)
def test_a_call_can_be_refused_with_every_code_and_then_stores_nothing(
    call: Any, emulator: Emulator, code: int
) -> None:
    emulator.faults.add(RefuseCall(code, "info"))
    assert call("set_attr", ONE_USER) == {"ActionStatus": "FAIL", "ErrorInfo": "info", "ErrorCode": code}
    assert list(emulator.attributes()) == []
    assert emulator.calls[-1].code == code


@pytest.mark.parametrize("code", ALL_CODES)
def test_a_row_can_be_refused_with_every_code_while_the_others_are_stored(
    call: Any, emulator: Emulator, code: int
) -> None:
    emulator.faults.add(RefuseRows({"user0": code}))
    rows = [{"To_Account": f"user{number}", "Attrs": {"city": "x"}} for number in range(3)]
    reply = call("set_attr", {"UserAttrs": rows})
    assert (reply["ErrorCode"], reply["ErrorList"]) == (0, [{"To_Account": "user0", "ErrorCode": code}])
    assert [account for account, _ in emulator.attributes()] == ["user1", "user2"]


@pytest.mark.parametrize("code", [60999, 79999, 99999])
def test_a_call_can_be_refused_with_a_code_that_no_page_knows(call: Any, emulator: Emulator, code: int) -> None:
    """1047/34348"""
    emulator.faults.add(RefuseCall(code))
    assert call("set_attr", ONE_USER) == {"ActionStatus": "FAIL", "ErrorInfo": "", "ErrorCode": code}


PRIVATE_CODES = {
    "set_attr_name-1047/60563": ("set_attr_name", [90001, 90009, 90033, 91000]),
    "get_attr_name-1047/67815": ("get_attr_name", [90001, 90009, 90018, 91000]),
    "set_attr-1047/60565": ("set_attr", [90001, 90009, 90018, 90033, 90035, 91000]),
    "get_attr-1047/60564": ("get_attr", [90001, 90018, 91000]),
    "remove_attr-1047/60566": ("remove_attr", [90001, 90009, 90018, 90033, 91000]),
}


@pytest.mark.parametrize(("command", "codes"), PRIVATE_CODES.values(), ids=PRIVATE_CODES)
def test_each_command_can_show_the_codes_of_its_page(
    call: Any, emulator: Emulator, command: str, codes: list[int]
) -> None:
    for code in codes:
        emulator.faults.add(RefuseCall(code), command=Command(command))
    assert [call.code(command) for _ in codes] == codes


# The quota: 100 calls a second, per command and app (1047/60565, 1047/60256).


@pytest.fixture
def limited(tmp_path: Path, make_call: Any, clock: Any) -> Any:
    """A caller of an emulator with the documented quota, whose seconds pass by hand."""
    with Emulator(tmp_path / "limited.sqlite", monotonic=clock) as running:
        running.declare({"city": AccountType.USER_ID})
        yield make_call(running)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("set_attr_name", id="1047/60563"),
        pytest.param("get_attr_name", id="1047/67815"),
        pytest.param("set_attr", id="1047/60565"),
        pytest.param("get_attr", id="1047/60564"),
        pytest.param("remove_attr", id="1047/60566"),
    ],
)
def test_the_101st_call_in_a_second_is_refused_with_60007(limited: Any, clock: Any, command: str) -> None:
    codes = [limited.code(command) for _ in range(101)]
    assert codes[:100] == [codes[0]] * 100
    assert codes[0] != 60007
    assert codes[100] == 60007
    clock.now += 1.0
    assert limited.code(command) != 60007


def test_the_quota_is_counted_for_each_command_by_itself(limited: Any) -> None:
    """1047/60256"""
    for _ in range(100):
        limited.code("get_attr_name")
    assert limited.code("get_attr_name") == 60007
    assert limited("set_attr", ONE_USER)["ErrorCode"] == 0


def test_a_call_over_the_quota_is_refused_whole(limited: Any) -> None:
    """1047/60565; not documented"""
    for _ in range(100):
        limited("set_attr", ONE_USER)
    assert limited.set("user0", city="late")["ErrorCode"] == 60007
    assert limited.get("user0") == {"city": "x"}


def test_the_signature_is_looked_at_before_the_quota_and_the_quota_before_the_body(limited: Any) -> None:
    """1047/60256: calls are counted per app, so the app must be known"""
    for _ in range(100):
        limited.code("get_attr_name")
    assert limited.code("get_attr_name", usersig="none") == 70003
    assert limited.code("get_attr_name", b"not json") == 60007


# Every answer.


@pytest.mark.parametrize("command", Command)
def test_an_answer_always_has_status_200_and_the_three_fields(call: Any, command: Command) -> None:
    """1047/34620"""
    for replaced in ({}, {"usersig": ""}):
        reply = call(command, **replaced)
        assert (reply["ActionStatus"] == "OK") == (reply["ErrorCode"] == 0)
        assert isinstance(reply["ErrorInfo"], str)


def test_a_fault_inside_is_answered_with_91000_and_logged_without_its_text(
    call: Any, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """1047/34348"""

    def fail(_: object) -> bool:
        raise RuntimeError("user0 had x")

    emulator.faults.add(RefuseCall(1), when=fail)
    with caplog.at_level(logging.ERROR):
        assert call.code("set_attr", ONE_USER) == 91000
    assert "RuntimeError" in caplog.text
    assert "user0" not in caplog.text
    emulator.faults.clear()
    assert call.code("set_attr", ONE_USER) == 0


def test_error_infos_quote_no_account_and_no_value(call: Any) -> None:
    rows = [{"To_Account": "planted-account", "Attrs": attrs} for attrs in ({"city": ""}, {"no": "planted-value"})]
    replies = [call("set_attr", {"UserAttrs": [row]}) for row in rows]
    infos = [reply["ErrorInfo"] + str(row.get("ErrorInfo")) for reply in replies for row in reply["ErrorList"]]
    assert not any("planted" in info for info in infos)


def test_records_and_requests_show_no_account_value_or_signature(call: Any, emulator: Emulator) -> None:
    emulator.faults.add(RefuseRows({"planted-account": 70500}))
    call.set("planted-account", city="planted-value")
    shown = repr(list(emulator.calls)) + repr(emulator.faults.add(RefuseRows({"planted-account": 1})))
    assert "planted" not in shown
