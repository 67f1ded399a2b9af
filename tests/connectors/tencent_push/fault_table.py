"""The fault matrix's table: what the API, and the way to it, does to a call or a row, and what each row comes to.

Against the emulator, whose faults happen at the wire. A case here says what must be; test_fault_matrix.py looks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from connectors.tencent_push.client import Fault
from connectors.tencent_push.emulator import (
    HalfBody,
    NotJson,
    RefuseCall,
    RefuseRows,
    ResetAfterWrite,
    ResetBeforeWrite,
    Slow,
    Status,
)
from connectors.tencent_push.errors import Reason
from connectors.tencent_push.settling import BLIND_LEVELS
from tests.connectors.tencent_push.fault_cases import (
    ALL,
    ATTEMPTS,
    FIRST,
    NARROWED_ATTEMPTS,
    NOT_ATTEMPTED,
    SECOND,
    SETTINGS,
    THIRD,
    THROTTLED_ATTEMPTS,
    Case,
    Planned,
    Row,
    account,
    always,
    errored,
    halving_calls,
    halving_calls_of,
    once,
    refuse_calls_with,
    rejected,
)

UNKNOWN_CODE = 12345
HTML = b"<html><body>please log in</body></html>"
BROKEN, UNREADABLE, STATUS = Fault.BROKEN_CONNECTION, Fault.UNREADABLE_REPLY, Fault.HTTP_STATUS
SHORT = 0.25  # seconds, as the read time-out of the cases that are about one
LONG = 30.0  # seconds that an answer takes, or until the emulator is closed

NO_ANSWER = errored(Reason.TIMEOUT, status=None, maybe=True)
NO_CONNECTION = errored(Reason.CONNECTION_FAILED, status=None, maybe=True)
UNREADABLE_ROW = errored(Reason.UNREADABLE_REPLY, maybe=True)


def status_row(status: int, reason: Reason, **row: Any) -> Row:
    return errored(reason, status=status, **row)


def stopped_by_status(status: int) -> Case:
    """The API never answers so: whatever does, does it to every call."""
    return Case(
        f"HTTP {status}",
        (Planned(Status(status), times=None),),
        calls=1,
        rows={FIRST: status_row(status, Reason.CALL_REFUSED, calls=1), range(100, 250): NOT_ATTEMPTED},
        fault=STATUS,
        stop=(None, Reason.CALL_REFUSED),
    )


NETWORK = [
    once("time-out before the write", Slow(LONG, late_write=True), fault=Fault.TIMEOUT, read_timeout_seconds=SHORT),
    once("time-out after the write", Slow(LONG), fault=Fault.TIMEOUT, read_timeout_seconds=SHORT),
    always(
        "time-out before the write", Slow(LONG, late_write=True), NO_ANSWER, fault=Fault.TIMEOUT,
        read_timeout_seconds=SHORT, size=100, calls=3, rows={FIRST: NO_ANSWER},
    ),
    always(
        "time-out after the write", Slow(LONG), NO_ANSWER, fault=Fault.TIMEOUT,
        read_timeout_seconds=SHORT, size=100, calls=3, rows={FIRST: NO_ANSWER}, stored=FIRST,
    ),
    once("reset before the write", ResetBeforeWrite(), fault=BROKEN),
    once("reset after the write", ResetAfterWrite(), fault=BROKEN),
    always("reset before the write", ResetBeforeWrite(), NO_CONNECTION, fault=BROKEN),
    always("reset after the write", ResetAfterWrite(), NO_CONNECTION, fault=BROKEN, stored=ALL),
    once("half a body", HalfBody(), fault=BROKEN),
    always("half a body", HalfBody(), NO_CONNECTION, fault=BROKEN, stored=ALL),
    once("garbage", NotJson(b"\x00\xff\x17"), fault=UNREADABLE),
    always("garbage", NotJson(b"\x00\xff\x17"), UNREADABLE_ROW, fault=UNREADABLE),
    once("an empty body", NotJson(b""), fault=UNREADABLE),
    always("an empty body", NotJson(b"", carried_out=True), UNREADABLE_ROW, fault=UNREADABLE, stored=ALL),
    once("HTML", NotJson(HTML, carried_out=True), fault=UNREADABLE),
    always("HTML", NotJson(HTML), UNREADABLE_ROW, fault=UNREADABLE),
    once("HTTP 429", Status(429), fault=STATUS, slowed=True),
    always(
        "HTTP 429", Status(429), status_row(429, Reason.THROTTLED, calls=THROTTLED_ATTEMPTS), fault=STATUS, slowed=True
    ),
    once("HTTP 408", Status(408, carried_out=True), fault=STATUS),
    always("HTTP 408", Status(408), status_row(408, Reason.TIMEOUT, maybe=True), fault=STATUS),
    *(once(f"HTTP {status}", Status(status, carried_out=True), fault=STATUS) for status in (500, 502, 503)),
    *(
        always(
            f"HTTP {status}", Status(status, carried_out=status == 503),
            status_row(status, Reason.UNREADABLE_REPLY, maybe=True), fault=STATUS, stored=ALL if status == 503 else (),
        )
        for status in (500, 502, 503)
    ),
    *map(stopped_by_status, (301, 404)),
]  # fmt: skip

THROTTLED = errored(Reason.THROTTLED, 60007, calls=THROTTLED_ATTEMPTS)


def stopped_for_good(code: int, reason: Reason, *, attempts: int, maybe: bool = False, slowed: bool = False) -> Case:
    """Sent again until the attempts of the first call are used up; then the run stops, whatever the second has left.

    What waits to be sent again goes before what is new, so the third one never leaves.
    """
    rest = errored(reason, code, calls=attempts - 1, maybe=maybe)
    return Case(
        f"{code} for every call",
        (Planned(RefuseCall(code), times=None),),
        calls=2 * (attempts - 1) + 1,
        rows={FIRST: errored(reason, code, calls=attempts, maybe=maybe), SECOND: rest, THIRD: NOT_ATTEMPTED},
        call_code=code,
        stop=(code, reason),
        slowed=slowed,
    )


CALL_CODES = [
    *(
        once(f"{code} for the call", RefuseCall(code), call_code=code, slowed=True)
        for code in (60007, 60011, 60018, 60019)
    ),
    always("60007 for the call", RefuseCall(60007), THROTTLED, call_code=60007, slowed=True),
    once("91000 for the call", RefuseCall(91000), call_code=91000),
    Case(
        "91000 for every call",
        (Planned(RefuseCall(91000), times=None),),
        calls=21,  # three attempts each; the last one is narrowed for two levels, as nothing is left to tell it apart
        rows={
            range(200): errored(Reason.INTERNAL_ERROR, 91000, maybe=True),
            THIRD: errored(Reason.INTERNAL_ERROR, 91000, calls=ATTEMPTS + BLIND_LEVELS * NARROWED_ATTEMPTS, maybe=True),
        },
        call_code=91000,
        in_turn=True,
    ),
    once("an unknown code for the call", RefuseCall(UNKNOWN_CODE), call_code=UNKNOWN_CODE),
    stopped_for_good(UNKNOWN_CODE, Reason.UNKNOWN_CODE, attempts=ATTEMPTS, maybe=True),
    stopped_for_good(60004, Reason.INTERNAL_ERROR, attempts=ATTEMPTS, maybe=True),
    stopped_for_good(70114, Reason.THROTTLED, attempts=THROTTLED_ATTEMPTS, slowed=True),
    once("an expired signature", RefuseCall(70001), call_code=70001),
    Case("an expired signature in mid-run", (Planned(RefuseCall(70001), skip=1),), calls=4, call_code=70001),
    Case(
        "a signature that is never taken, from mid-run on",
        (Planned(RefuseCall(70001), times=None, skip=1),),
        calls=3,
        rows={range(100, 250): errored(Reason.CALL_REFUSED, 70001, calls=1)},
        call_code=70001,
        stop=(70001, Reason.CALL_REFUSED),
    ),
    once("60003 for the call", RefuseCall(60003), call_code=60003, calls=5),
    Case(
        "60003 for every call",
        (Planned(RefuseCall(60003), times=None),),
        calls=3,  # halved once: if a half cannot be read either, it is this program and not a row
        rows={
            range(50): errored(Reason.CALL_REFUSED, 60003, calls=2),
            range(50, 200): errored(Reason.CALL_REFUSED, 60003, calls=1),
            THIRD: NOT_ATTEMPTED,
        },
        call_code=60003,
        stop=(60003, Reason.CALL_REFUSED),
    ),
    Case(
        "calls of more than 25 rows are too large",
        (Planned(RefuseCall(80002), times=None, only_above=25),),
        calls=14,  # 7 and 5 for the two calls of a hundred, 2 for the last: calls are made smaller from then on
        call_code=80002,
    ),
    Case(
        "the app is disabled",
        (Planned(RefuseCall(60016), skip=1, times=None),),
        calls=2,
        rows={SECOND: errored(Reason.CALL_REFUSED, 60016, calls=1), THIRD: NOT_ATTEMPTED},
        call_code=60016,
        stop=(60016, Reason.CALL_REFUSED),
    ),
]


def row_once(code: int, **case: Any) -> Case:
    return once(f"{code} for a row", RefuseRows({account(3): code}), row_code=code, resent_rows=1, **case)


def row_always(code: int, row: Row, **case: Any) -> Case:
    given = {"calls": 2 + row.calls, "rows": {(3,): row}, "row_code": code, **case}
    return Case(f"{code} for a row, always", (Planned(RefuseRows({account(3): code}), times=None),), **given)


ROW_CODES = [
    row_once(91000),
    row_always(91000, errored(Reason.INTERNAL_ERROR, 91000, maybe=True)),
    row_once(60007, slowed=True),
    row_always(60007, THROTTLED, slowed=True),
    row_always(70107, rejected(Reason.ACCOUNT_UNKNOWN, 70107)),
    row_always(70051, rejected(Reason.CALL_REFUSED, 70051)),
    row_always(90033, rejected(Reason.ATTRIBUTE_UNDECLARED, 90033, maybe=True)),
    row_always(UNKNOWN_CODE, rejected(Reason.UNKNOWN_CODE, UNKNOWN_CODE, maybe=True)),
    row_always(
        70398,
        errored(Reason.CALL_REFUSED, 70398, calls=1),
        rows={(3,): errored(Reason.CALL_REFUSED, 70398, calls=1), range(100, 250): NOT_ATTEMPTED},
        calls=1,
        stop=(70398, Reason.CALL_REFUSED),
    ),
    Case(
        "all rows are refused one by one",
        (Planned(RefuseRows(dict.fromkeys(map(account, ALL), 70107)), times=None),),
        calls=3,
        rows={ALL: rejected(Reason.ACCOUNT_UNKNOWN, 70107)},
        row_code=70107,
    ),
    Case(
        "all rows are refused with a code that points at the app",
        (Planned(RefuseRows(dict.fromkeys(map(account, ALL), 90035)), times=None),),
        calls=2,
        rows={
            range(200): rejected(Reason.ATTRIBUTE_WRONG_ACCOUNT_TYPE, 90035, maybe=True),
            THIRD: NOT_ATTEMPTED,
        },
        row_code=90035,
        stop=(90035, Reason.ATTRIBUTE_WRONG_ACCOUNT_TYPE),
        settings=replace(SETTINGS, all_refused_rows=150),
    ),
]

POISON = {
    "the first": frozenset({0}),
    "one in the middle": frozenset({150}),
    "the last": frozenset({249}),
    "three": frozenset({7, 8, 199}),
    "a hundred": frozenset(SECOND),
}


def poison_cases(name: str, poison: frozenset[int]) -> Iterator[Case]:
    """The same poison rows, named in ErrorList, and as the reason for refusing each call that holds one."""
    numbers = tuple(sorted(poison))
    yield Case(
        f"poison: {name}, by ErrorList",
        (Planned(RefuseRows(dict.fromkeys(map(account, numbers), 90012)), times=None),),
        calls=3,
        rows={numbers: rejected(Reason.ACCOUNT_UNKNOWN, 90012)},
        row_code=90012,
        resent_rows=0,
    )
    halved = {number: halving_calls_of(number) for number in numbers}
    yield Case(
        f"poison: {name}, by 90033 for the call",
        (refuse_calls_with(90033, numbers),),
        calls=sum(halving_calls(len(batch), poison, first=batch[0]) for batch in (FIRST, SECOND, THIRD)),
        rows={(n,): rejected(Reason.ATTRIBUTE_UNDECLARED, 90033, calls=halved[n], maybe=True) for n in numbers},
        call_code=90033,
    )


def narrowed(
    name: str, poison: frozenset[int], *, calls: int, attempts: Mapping[int, int] | None = None, found: bool = True
) -> Case:
    """Refused with an error of the API's own: after all attempts the call is narrowed down, with few for each half."""
    halved = {number: ATTEMPTS + NARROWED_ATTEMPTS * (halving_calls_of(number) - 1) for number in sorted(poison)}
    return Case(
        f"poison: {name}, by 91000 for the call",
        (refuse_calls_with(91000, poison),),
        calls=calls,
        rows={
            (number,): errored(Reason.INTERNAL_ERROR, 91000, calls=calls_of_row, maybe=True)
            for number, calls_of_row in {**halved, **(attempts or {})}.items()
        },
        call_code=91000,
        left_alone=poison if found else frozenset(),
        in_turn=True,  # it is narrowed while other calls pass, and which do so depends on their order
    )


POISONED = [case for name, poison in POISON.items() for case in poison_cases(name, poison)]
NARROWED = [
    narrowed("the first", POISON["the first"], calls=23),
    narrowed("one in the middle", POISON["one in the middle"], calls=23),
    narrowed("the last", POISON["the last"], calls=23),
    narrowed("three of a batch", frozenset({7, 8, 99}), calls=46),
    # Where no half passes it is an outage, not a row: a hundred in one call are given up some levels after the first.
    narrowed(
        "a hundred",
        POISON["a hundred"],
        calls=33,
        attempts=dict.fromkeys(SECOND, ATTEMPTS + (1 + BLIND_LEVELS) * NARROWED_ATTEMPTS),
        found=False,
    ),
]
MATRIX = [*NETWORK, *CALL_CODES, *ROW_CODES, *POISONED, *NARROWED]
