"""The fault matrix: what each fault at the wire comes to, row by row, in the emulator and on record.

The real client, sink and ledger over loopback: against the emulator (the table is fault_table.py), against a scripted
server for replies that no emulator would give, against hosts that cannot be reached, and over a restart.
"""

import socket
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from connectors.tencent_push.client import CallResult, Fault, RequestsTransport
from connectors.tencent_push.emulator import CloseAfterAnswer, Emulator
from connectors.tencent_push.errors import CATALOGUE, CatalogueEntry, Reason, lookup
from connectors.tencent_push.outcomes import Outcome, OutcomeKind
from connectors.tencent_push.pacing import Backoff
from tests.connectors.tencent_push.fault_cases import (
    SETTINGS,
    Case,
    Planned,
    Pushed,
    Row,
    WatchedClient,
    account,
    changes_of,
    declare,
    error_list,
    errored,
    plan,
    push,
    refuse_calls_with,
    rejected,
    reply,
    stored_numbers,
)
from tests.connectors.tencent_push.fault_table import HTML, MATRIX, NO_CONNECTION, UNKNOWN_CODE, UNREADABLE_ROW


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(tmp_path / "emulator.sqlite", calls_per_second=None) as emulator:
        declare(emulator)
        yield emulator


def run(case: Case, emulator: Emulator, folder: Path, *, in_flight: int) -> tuple[Pushed, WatchedClient]:
    for planned in case.plan:
        plan(emulator, planned)
    transport = RequestsTransport(read_timeout_seconds=case.read_timeout_seconds)
    with closing(WatchedClient(emulator.base_url, transport=transport)) as client:
        settings = replace(case.settings, max_in_flight=in_flight)
        return push(client, folder / "ledger", changes_of(range(case.size)), settings=settings), client


def check(case: Case, pushed: Pushed, client: WatchedClient, stored: list[int]) -> None:
    """Every row's outcome, the emulator's state and the record, all three."""
    expected = case.by_row()
    fine = [number for number in range(case.size) if number not in expected]
    assert pushed.refused() == expected
    assert pushed.numbers(OutcomeKind.ACKNOWLEDGED) == fine
    assert len(pushed.outcomes) == case.size, "one outcome per row"
    assert stored == sorted({*fine, *case.stored})
    assert pushed.acknowledged_on_record == fine
    assert pushed.uncertain_on_record == [number for number in sorted(expected) if expected[number].maybe_written]
    assert pushed.refused_on_record == case.rejected()
    assert pushed.ledger.unsettled_calls == 0
    stop = pushed.report.stop
    assert (stop and (stop.code, stop.reason)) == case.stop
    assert bool(pushed.report.slow_downs) == case.slowed
    assert pushed.report.refusals == Counter((row.reason, row.code) for row in expected.values())
    assert Counter((call.fault, call.code, call.http_status) for call in pushed.calls) == client.ended()
    assert sum(call.rows - call.refused_rows for call in pushed.calls) == len(fine)
    assert {case.fault, case.call_code} - {None} <= client.met()
    assert {case.row_code} - {None} <= client.met_rows()
    assert client.renewals == (case.call_code == 70001), "a new signature is made once, and only for that"


@pytest.mark.parametrize("case", MATRIX, ids=lambda case: case.name)
def test_each_fault_comes_to_what_the_matrix_says(case: Case, emulator: Emulator, tmp_path: Path) -> None:
    pushed, client = run(case, emulator, tmp_path, in_flight=1)
    check(case, pushed, client, stored_numbers(emulator))
    assert pushed.report.calls.total() == len(client.results) == emulator.calls.total == case.calls
    assert case.resent_rows in (None, pushed.report.resent_rows)


@pytest.mark.parametrize("case", [case for case in MATRIX if case.parallel], ids=lambda case: case.name)
def test_the_same_with_several_calls_in_flight(case: Case, emulator: Emulator, tmp_path: Path) -> None:
    pushed, client = run(case, emulator, tmp_path, in_flight=8)
    check(case, pushed, client, stored_numbers(emulator))


def test_a_connection_that_ends_after_each_answer_costs_no_row(emulator: Emulator, tmp_path: Path) -> None:
    """Whether the client sees the end in time or a call breaks on it is the network's choice; the rows do not mind."""
    plan(emulator, Planned(CloseAfterAnswer(), times=None))
    settings = replace(SETTINGS, batch_size=20, backoff=Backoff(attempts=20, first_seconds=0.001))
    with closing(WatchedClient(emulator.base_url)) as client:
        pushed = push(client, tmp_path / "ledger", changes_of(range(2000)), settings=settings)
    assert pushed.numbers(OutcomeKind.ACKNOWLEDGED) == pushed.acknowledged_on_record == list(range(2000))
    assert stored_numbers(emulator) == list(range(2000))
    assert client.met() <= {Fault.BROKEN_CONNECTION}


def test_two_poison_rows_in_different_halves_of_the_last_call_cost_no_other_row(
    emulator: Emulator, tmp_path: Path
) -> None:
    """Nothing else passes while the call is narrowed down: both halves are refused, and each has good rows in it."""
    plan(emulator, refuse_calls_with(91000, {200, 249}))
    with closing(WatchedClient(emulator.base_url)) as client:
        pushed = push(client, tmp_path / "ledger", changes_of(range(250)))
    assert pushed.numbers(OutcomeKind.ERRORED) == [200, 249]


# Replies that only a script gives -------------------------------------------------------------------------------------

SCRIPTED_ROWS = 5


@dataclass(frozen=True, slots=True)
class Scripted:
    """One reply to a call with five rows, then successes. `calls` 2: the first reply was no answer to any row."""

    name: str
    content: bytes
    rows: dict[int, Row] = field(default_factory=dict)
    calls: int = 2
    status: str = "200 OK"
    headers: str = ""
    infos: tuple[str | None, ...] = ()


def entry(number: int, code: object, **more: Any) -> dict[str, Any]:
    return {"To_Account": account(number), "ErrorCode": code, **more}


UNKNOWN_ACCOUNT = rejected(Reason.ACCOUNT_UNKNOWN, 70107)
UNDECIDED = {"ActionStatus": "FAIL", "ErrorCode": 90033}

SCRIPTED = [
    Scripted("an account that was not sent", error_list(entry(99, 70107))),
    Scripted("an account that was not sent, beside one that was", error_list(entry(1, 70107), entry(99, 70107))),
    Scripted("an account twice, alike", error_list(entry(1, 70107), entry(1, 70107)), {1: UNKNOWN_ACCOUNT}, calls=1),
    Scripted("an account twice, the graver last", error_list(entry(1, 91000), entry(1, 70107)), {1: UNKNOWN_ACCOUNT},
             calls=1),
    Scripted("an account twice, the graver first", error_list(entry(1, 70107), entry(1, 91000)), {1: UNKNOWN_ACCOUNT},
             calls=1),
    Scripted("all accounts", error_list(*(entry(n, 70107) for n in range(5))), dict.fromkeys(range(5), UNKNOWN_ACCOUNT),
             calls=1),
    Scripted("without To_Account", error_list({"ErrorCode": 70107})),
    Scripted("To_Account is null", error_list({"To_Account": None, "ErrorCode": 70107})),
    Scripted("without ErrorInfo", error_list(entry(1, 70107)), {1: UNKNOWN_ACCOUNT}, calls=1, infos=(None,)),
    Scripted("with ErrorInfo", error_list(entry(1, 70107, ErrorInfo="why")), {1: UNKNOWN_ACCOUNT}, calls=1,
             infos=("why",)),
    Scripted("with code 0", error_list(entry(1, 0), entry(2, 70107)), {2: UNKNOWN_ACCOUNT}, calls=1),
    Scripted("with a code as text", error_list(entry(1, "70107"))),
    Scripted("without a code", error_list({"To_Account": account(1)})),
    Scripted("a row's code beyond 32 bits", error_list(entry(1, 2**31))),
    Scripted("an unknown code", error_list(entry(1, UNKNOWN_CODE)),
             {1: rejected(Reason.UNKNOWN_CODE, UNKNOWN_CODE, maybe=True)}, calls=1),
    Scripted("an ErrorList of null", reply(ErrorList=None), calls=1),
    Scripted("an empty ErrorList", reply(ErrorList=[]), calls=1),
    Scripted("an ErrorList that is none", reply(ErrorList={account(1): 70107})),
    Scripted("an ErrorList of texts", reply(ErrorList=[account(1)])),
    Scripted("a call's code as text", reply(ErrorCode="0")),
    Scripted("a call's code that is true or false", reply(ErrorCode=False)),
    Scripted("no code at all", b'{"ActionStatus":"OK"}'),
    Scripted("a failure with code 0", reply(ActionStatus="FAIL")),
    Scripted("a refused call with an ErrorList", reply(**UNDECIDED, ErrorList=[entry(1, 70107)]), calls=3),
    Scripted("JSON, but no object", b"[]"),
    Scripted("JSON that ends too soon", reply()[:-5]),
    Scripted("no UTF-8", reply(ErrorInfo="x").replace(b"x", b"\xff")),
    Scripted("an empty body", b""),
    Scripted("HTML", HTML),
    Scripted("HTTP 204", b"", status="204 No Content"),
    Scripted("HTTP 206, although it reads like a success", reply(), status="206 Partial Content"),
    Scripted("not compressed as it says", reply(), headers="Content-Encoding: gzip\r\n"),
]  # fmt: skip


def push_five(base_url: str, folder: Path, **transport: Any) -> tuple[Pushed, WatchedClient]:
    with closing(WatchedClient(base_url, transport=RequestsTransport(**transport))) as client:
        return push(client, folder / "ledger", changes_of(range(SCRIPTED_ROWS))), client


@pytest.mark.parametrize("case", SCRIPTED, ids=lambda case: case.name)
def test_each_reply_of_a_script_counts_for_what_it_says(
    case: Scripted, wire_server: Any, steps: Any, tmp_path: Path
) -> None:
    first = steps.answer(case.content, status=case.status, headers=case.headers)
    wire_server.script = [first, *(steps.answer(reply()) for _ in range(case.calls - 1))]
    pushed, client = push_five(wire_server.base_url, tmp_path)
    assert pushed.refused() == case.rows
    assert len(pushed.outcomes) == SCRIPTED_ROWS
    assert len(client.results) == len(wire_server.seen) == case.calls
    assert pushed.acknowledged_on_record == [number for number in range(SCRIPTED_ROWS) if number not in case.rows]
    infos = tuple(refusal.info for outcome in pushed.outcomes for refusal in outcome.refusals)
    assert infos[: len(case.infos)] == case.infos


def test_replies_about_other_accounts_for_ever_make_no_row_a_success(
    wire_server: Any, steps: Any, tmp_path: Path
) -> None:
    wire_server.script = [steps.answer(error_list(entry(99, 70107)))] * 3
    pushed, _ = push_five(wire_server.base_url, tmp_path)
    assert pushed.refused() == dict.fromkeys(range(5), UNREADABLE_ROW)
    assert pushed.uncertain_on_record == list(range(5))


def test_a_redirect_is_not_followed_and_stops_the_run(wire_server: Any, steps: Any, tmp_path: Path) -> None:
    elsewhere = f"Location: {wire_server.base_url}/elsewhere\r\n"
    wire_server.script = [steps.answer(b"", status="301 Moved Permanently", headers=elsewhere)]
    pushed, _ = push_five(wire_server.base_url, tmp_path)
    assert pushed.refused() == dict.fromkeys(range(5), errored(Reason.CALL_REFUSED, status=301, calls=1))
    assert len(wire_server.seen) == 1


# Hosts that cannot be reached -----------------------------------------------------------------------------------------

NEVER_SENT = errored(Reason.CONNECTION_FAILED, status=None)


@pytest.fixture
def refused(closed_port: int) -> str:
    return f"http://127.0.0.1:{closed_port}"


@pytest.fixture
def unanswered(full_port: int) -> str:
    return f"http://127.0.0.1:{full_port}"


@pytest.fixture
def unresolvable(monkeypatch: pytest.MonkeyPatch) -> str:
    """The resolver's answer for a name that nobody has; asking a real one would leave this machine."""

    def no_such_name(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", no_such_name)
    return "https://name.invalid"


@pytest.fixture
def untrusted(tls_server: Any) -> str:
    return str(tls_server.base_url)


@pytest.fixture
def without_tls(wire_server: Any) -> str:
    wire_server.greeting = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    return f"https://127.0.0.1:{wire_server.port}"


@pytest.fixture
def handshake_dropped() -> Iterator[str]:
    """A server that takes the first bytes of a handshake and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with suppress(OSError):  # the listener is closed at the end
                while True:
                    connection, _ = listener.accept()
                    connection.recv(1000)
                    connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"


# A dropped handshake cannot be told from a TLS connection that broke after the call had left: its rows stay uncertain.
UNREACHABLE = [
    ("refused", Fault.CONNECT_FAILED, NEVER_SENT),
    ("unanswered", Fault.CONNECT_FAILED, NEVER_SENT),
    ("unresolvable", Fault.CONNECT_FAILED, NEVER_SENT),
    ("untrusted", Fault.CONNECT_FAILED, NEVER_SENT),
    ("without_tls", Fault.CONNECT_FAILED, NEVER_SENT),
    ("handshake_dropped", Fault.BROKEN_CONNECTION, NO_CONNECTION),
]


@pytest.mark.parametrize(("host", "fault", "row"), UNREACHABLE, ids=[host for host, _, _ in UNREACHABLE])
def test_a_host_that_cannot_be_reached_costs_all_attempts_and_every_row(
    host: str, fault: Fault, row: Row, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    pushed, client = push_five(request.getfixturevalue(host), tmp_path, connect_timeout_seconds=0.05)
    assert pushed.refused() == dict.fromkeys(range(5), row)
    assert [result.fault for result in client.results] == [fault] * row.calls
    assert pushed.acknowledged_on_record == []
    assert pushed.uncertain_on_record == (list(range(5)) if row.maybe_written else [])


# In mid-run -----------------------------------------------------------------------------------------------------------


def test_a_server_that_is_restarted_in_mid_run_costs_no_row(tmp_path: Path) -> None:
    """It goes down while calls are in flight, stays down until one was refused, and comes back with its data."""
    data_file, reached, was_refused = tmp_path / "emulator.sqlite", threading.Event(), threading.Event()
    servers = [Emulator(data_file, calls_per_second=None)]
    servers[0].start()
    declare(servers[0])
    port = servers[0].port

    def restart() -> None:
        reached.wait(10)
        servers[0].close()
        was_refused.wait(10)
        servers.append(Emulator(data_file, port=port, calls_per_second=None))
        servers[1].start()

    def on_result(result: CallResult) -> None:
        if result.fault is Fault.CONNECT_FAILED:
            was_refused.set()

    def on_outcomes(_: list[Outcome]) -> None:
        reached.set()

    patient = Backoff(attempts=50, first_seconds=0.02, longest_seconds=0.1)
    settings = replace(SETTINGS, batch_size=20, max_in_flight=8, backoff=patient)
    restarting = threading.Thread(target=restart)
    restarting.start()
    with closing(WatchedClient(servers[0].base_url)) as client:
        client.on_result = on_result
        pushed = push(
            client, tmp_path / "ledger", changes_of(range(10_000)), settings=settings, on_outcomes=on_outcomes
        )
    restarting.join()
    assert was_refused.is_set()
    assert 0 < len(servers[0].calls) < 500, "the first server saw a part of the run"
    assert pushed.numbers(OutcomeKind.ACKNOWLEDGED) == pushed.acknowledged_on_record == list(range(10_000))
    assert pushed.uncertain_on_record == []
    assert stored_numbers(servers[1]) == list(range(10_000))
    servers[1].close()


# The table is whole ---------------------------------------------------------------------------------------------------


def on_call(entry: CatalogueEntry) -> tuple[object, ...]:
    """What the catalogue can do to a call: the action, and how it ends when the action does not help."""
    return "call", entry.on_call, entry.stops_when_exhausted, entry.split_levels


def on_row(entry: CatalogueEntry) -> tuple[object, ...]:
    return "row", entry.on_row, entry.retryable


def uncovered(cases: Iterable[Case], faults: Iterable[Fault]) -> set[object]:
    """Behaviours and faults that no case shows to their end: one that merely passes does not count."""
    lasting = [case for case in cases if case.rows]
    entries = [*CATALOGUE.values(), lookup(UNKNOWN_CODE)]
    wanted: set[object] = {on_call(entry) for entry in entries} | {on_row(entry) for entry in entries}
    wanted |= set(Fault)
    shown: set[object] = {on_call(lookup(case.call_code)) for case in lasting if case.call_code is not None}
    shown |= {on_row(lookup(case.row_code)) for case in lasting if case.row_code is not None}
    return wanted - shown - {case.fault for case in lasting} - set(faults)


REACHED = [fault for _, fault, _ in UNREACHABLE]


def test_every_behaviour_of_the_catalogue_and_every_fault_of_the_client_has_a_case() -> None:
    assert uncovered(MATRIX, REACHED) == set()


def test_a_case_that_is_missing_is_missed() -> None:
    behaviours = {on_call(entry) for entry in CATALOGUE.values()} | {on_row(entry) for entry in CATALOGUE.values()}
    for behaviour in behaviours:
        rest = [
            case
            for case in MATRIX
            if behaviour not in {f(lookup(c)) for f, c in ((on_call, case.call_code), (on_row, case.row_code)) if c}
        ]
        assert len(rest) < len(MATRIX)
        assert behaviour in uncovered(rest, REACHED)
    for fault in Fault:
        others = [other for other in REACHED if other is not fault]
        assert fault in uncovered([case for case in MATRIX if case.fault is not fault], others)
