"""What the sink tells while it works."""

from pathlib import Path

import pytest

from connectors.tencent_push.client import Fault
from connectors.tencent_push.errors import Reason
from connectors.tencent_push.protocol import RowError
from connectors.tencent_push.report import Progress, PushCall, SinkReport
from tests.connectors.tencent_push.simulation import (
    ACKNOWLEDGED,
    REJECTED,
    REMOVE,
    SET,
    TODAY,
    Push,
    accepted,
    changes_of,
    faulty,
    kinds,
    refused,
    scripted,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def test_progress_is_told_every_two_seconds_and_at_the_end(path: Path) -> None:
    told: list[Progress] = []
    push = Push(path, on_progress=told.append)
    push.run(changes_of(50_000))
    assert 3 <= len(told) <= 4
    assert told[-1].changes == {ACKNOWLEDGED: 50_000}
    assert told[-1].calls == 500
    assert all(progress.calls_per_second <= 100 for progress in told)


def test_progress_tells_failures_by_code_the_share_of_the_quota_and_how_often_it_was_too_fast(path: Path) -> None:
    told: list[Progress] = []
    script = scripted(
        _0=lambda call: accepted(call, [RowError("user-1", 70107), RowError("user-2", 90012)]),
        _1=lambda call: accepted(call, [RowError("user-150", 70107)]),
        _400=refused(60007),
    )
    Push(path, script, on_progress=told.append).run(changes_of(60_000))
    failures = {(Reason.ACCOUNT_UNKNOWN, 70107): 2, (Reason.ACCOUNT_UNKNOWN, 90012): 1}
    assert [progress.failures for progress in told] == [failures] * len(told)
    assert told[0].slow_downs == 0
    assert told[-1].slow_downs == 1
    assert told[0].quota_use == pytest.approx(0.99, abs=0.01)
    assert told[-2].quota_use < 0.9, "of this period alone, after it was too fast"


def test_the_quotas_use_is_that_of_the_busiest_command(path: Path) -> None:
    push = Push(path)
    push.run(changes_of(50_000))
    report = push.sink.report
    assert report.quota_use == pytest.approx(500 / (100 * report.seconds))
    report.calls[REMOVE] += 499
    assert report.quota_use == pytest.approx(500 / (100 * report.seconds)), "limits are counted per command"
    assert SinkReport().quota_use == 0
    report.calls[REMOVE] += 499
    assert report.quota_use == 1


def test_every_call_that_has_ended_is_told_once_after_it_was_settled(path: Path) -> None:
    told: list[PushCall] = []
    settled: list[int] = []

    def on_call(call: PushCall) -> None:
        told.append(call)
        settled.append(push.sink._backlog.unsettled)

    script = scripted(
        _0=refused(91000),
        _1=lambda call: faulty(call, Fault.HTTP_STATUS, http_status=502),
        _2=lambda call: accepted(call, [RowError("user-3", 70107)]),
    )
    push = Push(path, script, on_call=on_call)
    assert kinds(push.run(changes_of(5))) == {ACKNOWLEDGED: 4, REJECTED: 1}
    assert [(c.attempt, c.rows, c.http_status, c.fault, c.code, c.refused_rows) for c in told] == [
        (1, 5, 200, None, 91000, 5),
        (2, 5, 502, "http_status", None, 5),
        (3, 5, 200, None, 0, 1),
    ]
    assert {(call.command, call.sent_at, call.latency_seconds) for call in told} == {(SET, TODAY, 0.05)}
    assert len({call.batch_id for call in told}) == 3
    assert settled == [5, 5, 0]


def test_as_many_calls_are_told_as_were_sent_with_an_interruption_too(path: Path) -> None:
    told: list[PushCall] = []
    push = Push(path, on_call=told.append)
    with push.sink as sink:
        for _outcomes in sink.push(changes_of(100_000)):
            break
    assert len(told) == len(push.calls.seen) > 1


def test_a_fault_of_the_teller_ends_the_push_and_leaves_its_calls_on_record(path: Path) -> None:
    def on_call(call: PushCall) -> None:
        if call.batch_id.endswith("000007"):
            full.append(call)
        if full:
            raise OSError("No space left on device")

    full: list[PushCall] = []
    push = Push(path, on_call=on_call, latency=lambda: 0.5)
    with pytest.raises(OSError, match="No space"):
        push.run(changes_of(100_000))
    contents = push.contents
    assert push.calls.in_flight == 0
    assert contents.unsettled_calls == 0
    assert contents.acknowledged[SET].size == 100 * len(push.calls.seen), "the one that was told is settled once"
