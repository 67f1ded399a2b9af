"""Scripted faults as a client at the wire meets them, and when they are due."""

import http.client
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests

from connectors.tencent_push.emulator import (
    CloseAfterAnswer,
    Emulator,
    HalfBody,
    NotJson,
    RefuseCall,
    RefuseRows,
    ResetAfterWrite,
    ResetBeforeWrite,
    Slow,
    Status,
)
from connectors.tencent_push.protocol import AccountType, Command


def body(*accounts: str) -> bytes:
    return orjson.dumps({"UserAttrs": [{"To_Account": account, "Attrs": {"city": "x"}} for account in accounts]})


def post(call: Any, *accounts: str) -> tuple[int, bytes]:
    status, content = call.response(call.target("set_attr"), body(*accounts))
    return int(status), bytes(content)


def stored(emulator: Emulator) -> list[str]:
    return [account for account, _ in emulator.attributes()]


@pytest.mark.parametrize("status", [502, 500, 503, 504, 408, 429, 404, 301, 599])
def test_a_status_comes_with_a_page_and_nothing_is_stored(call: Any, emulator: Emulator, status: int) -> None:
    """1047/34620: 502 is the documented network-level failure"""
    emulator.faults.add(Status(status))
    got, content = post(call, "a")
    assert got == status
    assert content.startswith(b"<html>")
    assert stored(emulator) == []
    assert (emulator.calls[-1].http_status, emulator.calls[-1].code) == (status, None)


def test_a_status_can_come_although_the_call_was_carried_out(call: Any, emulator: Emulator) -> None:
    emulator.faults.add(Status(502, carried_out=True))
    assert post(call, "a")[0] == 502
    assert stored(emulator) == ["a"]


def test_a_reset_before_the_write_breaks_the_connection_and_stores_nothing(call: Any, emulator: Emulator) -> None:
    emulator.faults.add(ResetBeforeWrite())
    with pytest.raises(ConnectionResetError):
        post(call, "a")
    assert stored(emulator) == []


def test_a_reset_after_the_write_breaks_the_connection_and_stores_the_call(call: Any, emulator: Emulator) -> None:
    emulator.faults.add(ResetAfterWrite())
    with pytest.raises(ConnectionResetError):
        post(call, "a")
    assert stored(emulator) == ["a"]
    assert (emulator.calls[-1].http_status, emulator.calls[-1].code) == (None, 0)


def test_half_a_body_is_shorter_than_its_head_says_and_the_call_is_stored(call: Any, emulator: Emulator) -> None:
    emulator.faults.add(HalfBody())
    with pytest.raises(http.client.IncompleteRead):
        post(call, "a")
    assert stored(emulator) == ["a"]


@pytest.mark.parametrize("carried_out", [False, True])
def test_not_json_comes_with_status_200(call: Any, emulator: Emulator, carried_out: bool) -> None:
    emulator.faults.add(NotJson(carried_out=carried_out))
    status, content = post(call, "a")
    assert status == 200
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(content)
    assert stored(emulator) == ["a"] * carried_out


def test_not_json_can_be_any_bytes(call: Any, emulator: Emulator) -> None:
    forged = orjson.dumps({"ActionStatus": "OK", "ErrorCode": 0, "ErrorList": [{"To_Account": "b", "ErrorCode": 1}]})
    emulator.faults.add(NotJson(forged))
    assert post(call, "a") == (200, forged)


def test_a_connection_can_end_after_an_answer_that_promised_keep_alive(call: Any, emulator: Emulator) -> None:
    emulator.faults.add(CloseAfterAnswer())
    connection = http.client.HTTPConnection(call.host, timeout=10)
    connection.request("POST", call.target("set_attr"), body("a"))
    response = connection.getresponse()
    assert (response.getheader("Connection"), orjson.loads(response.read())["ErrorCode"]) == ("keep-alive", 0)
    assert connection.sock.recv(1) == b""
    connection.close()


@pytest.mark.parametrize(
    ("fault", "stored_while_waiting"),
    [(Slow(30), ["a"]), (Slow(30, late_write=True), [])],
)
def test_a_slow_answer_waits_as_injected_and_is_stored_before_or_after(
    data_file: Path, make_call: Any, fault: Slow, stored_while_waiting: list[str]
) -> None:
    waits: list[tuple[float, list[str]]] = []
    with Emulator(data_file, wait=lambda seconds: waits.append((seconds, stored(emulator)))) as emulator:
        emulator.declare({"city": AccountType.USER_ID})
        emulator.faults.add(fault)
        assert post(make_call(emulator), "a")[0] == 200
        assert waits == [(30, stored_while_waiting)]
        assert stored(emulator) == ["a"]


def test_a_slow_answer_makes_a_real_client_time_out_and_others_are_served(data_file: Path, make_call: Any) -> None:
    gate = threading.Event()
    with Emulator(data_file, wait=lambda _: gate.wait(60)) as emulator:
        emulator.declare({"city": AccountType.USER_ID})
        call = make_call(emulator)
        emulator.faults.add(Slow(30))
        with pytest.raises(requests.ReadTimeout):
            requests.post(emulator.base_url + call.target("set_attr"), body("a"), timeout=(10, 0.02))
        assert post(call, "b")[0] == 200
        gate.set()
        assert stored(emulator) == ["a", "b"]


def test_closing_the_emulator_ends_a_slow_answer(data_file: Path, make_call: Any) -> None:
    with Emulator(data_file) as emulator:
        emulator.declare({"city": AccountType.USER_ID})
        arrived = threading.Event()

        def note(_: object) -> bool:
            arrived.set()
            return True

        def wait_long() -> None:
            with suppress(OSError, http.client.HTTPException):  # answered or broken off: either ends the waiting
                post(make_call(emulator), "a")

        emulator.faults.add(Slow(3600, late_write=True), when=note)
        client = threading.Thread(target=wait_long)
        client.start()
        assert arrived.wait(10)
    client.join(5)
    assert not client.is_alive()


# When a fault is due.


def test_faults_befall_calls_one_after_another_each_once(call: Any, emulator: Emulator) -> None:
    emulator.faults.add(Status(502))
    emulator.faults.add(RefuseCall(70500))
    assert [post(call, "a")[0], call.code("set_attr", body("a")), call.code("set_attr", body("a"))] == [502, 70500, 0]
    assert [record.fault for record in emulator.calls] == ["Status", "RefuseCall", None]


@pytest.mark.parametrize(
    ("when", "hit"),
    [
        ({"times": 2}, [1, 2]),
        ({"times": None}, [1, 2, 3, 4, 5, 6, 7]),
        ({"skip": 3}, [4]),
        ({"every": 3, "times": None}, [3, 6]),
        ({"every": 2, "skip": 1, "times": 2}, [3, 5]),
        ({"command": Command.GET_ATTR}, []),
        ({"when": lambda seen: seen.number == 5}, [5]),
        ({"when": lambda seen: "user6" in seen.accounts}, [6]),
        ({"accounts": ["user2", "user4"], "times": None}, [2, 4]),
    ],
)
def test_a_fault_befalls_the_calls_of_its_script(
    call: Any, emulator: Emulator, when: dict[str, Any], hit: list[int]
) -> None:
    planned = emulator.faults.add(RefuseCall(70500), **when)
    codes = [call.code("set_attr", body(f"user{number}")) for number in range(1, 8)]
    assert [number for number, code in enumerate(codes, start=1) if code] == hit
    assert planned.fired == len(hit)


def test_refused_rows_wait_for_a_call_that_names_one_of_them(call: Any, emulator: Emulator) -> None:
    emulator.faults.add(RefuseRows({"b": 70500, "c": 70107}, "busy"))
    assert "ErrorList" not in call("set_attr", body("a"))
    assert call("set_attr", body("a", "b"))["ErrorList"] == [
        {"To_Account": "b", "ErrorCode": 70500, "ErrorInfo": "busy"}
    ]
    assert "ErrorList" not in call("set_attr", body("b", "c"))


def test_refused_rows_of_a_get_attr_are_not_among_its_users(call: Any, emulator: Emulator) -> None:
    emulator.faults.add(RefuseRows({"a": 70500}))
    reply = call("get_attr", {"To_Account": ["a", "b"]})
    assert [user["To_Account"] for user in reply["UserAttrs"]] == ["b"]


def test_cleared_faults_befall_nobody(call: Any, emulator: Emulator) -> None:
    emulator.faults.add(Status(502), times=None)
    emulator.faults.clear()
    assert post(call, "a")[0] == 200


@pytest.mark.parametrize("wrong", [{"every": 0}, {"skip": -1}, {"times": 0}])
def test_a_script_that_could_never_be_due_is_refused(emulator: Emulator, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="from"):
        emulator.faults.add(Status(502), **wrong)


def test_a_fault_with_a_count_befalls_exactly_so_many_of_many_calls_at_once(
    call: Any, emulator: Emulator, in_threads: Callable[[Callable[[int], object], int], list[Any]]
) -> None:
    emulator.faults.add(RefuseCall(70500), times=7)
    codes = in_threads(lambda number: call.code("set_attr", body(f"user{number}")), 20)
    assert sorted(codes) == [0] * 13 + [70500] * 7
