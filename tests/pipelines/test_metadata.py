"""What the UI plots of a push: plain numbers under names that stay, whatever the run was like."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from connectors.tencent_push.errors import Reason
from connectors.tencent_push.outcomes import StopCause
from connectors.tencent_push.protocol import AccountType, Command
from connectors.tencent_push.report import SinkReport, WaitCause
from pipelines import metadata
from pipelines.changes import PlannedCalls
from pipelines.push_result import FrameSet, PushResult
from pipelines.tally import Tally
from pipelines.target import Target

USER, DEVICE = AccountType.USER_ID, AccountType.REGISTRATION_ID
FOLDERS = {USER: "/data/user_id", DEVICE: "/data/registration_id"}


def report() -> SinkReport:
    made = SinkReport(seconds=4.0, quota=100)
    made.calls = Counter({Command.SET_ATTR: 390, Command.REMOVE_ATTR: 110})
    made.refusals = Counter({(Reason.ACCOUNT_UNKNOWN, 70107): 100, (Reason.TIMEOUT, None): 3})
    made.resent_rows, made.slow_downs = 300, 2
    made.waits_seconds[WaitCause.QUOTA] = 3.21
    for latency_seconds in [0.05] * 90 + [0.1] * 8 + [0.4] * 2:
        made.latencies.add(latency_seconds)
    return made


def result(**reports: SinkReport) -> PushResult:
    frames = FrameSet(
        run_id="run-1",
        target="emulator-1",
        computed_at=datetime(2026, 11, 20, tzinfo=UTC),
        frames=(),
        invalid_rows=Path("/data/invalid_rows.parquet"),
        invalid_by_reason={},
        invalid_found=0,
        generations={},
        rules={},
    )
    return PushResult(
        frames,
        tallies={kind: Tally(10, 9, 1, 0, 0) for kind in (USER, DEVICE)},
        reports={AccountType(kind): each for kind, each in reports.items()},
        planned={USER: PlannedCalls(380, 20), DEVICE: PlannedCalls()},
        withheld={USER: 5, DEVICE: 1},
        unsettled_calls=4,
    )


def facts(**reports: SinkReport) -> dict[str, Any]:
    return metadata.of_acknowledged(result(**reports), FOLDERS)


def test_a_push_is_told_in_numbers() -> None:
    told = facts(user_id=report(), registration_id=SinkReport(quota=100))
    assert {name: told[name] for name in told if name.startswith("user_id_") and "ms" not in name} == {
        "user_id_changed": 10,
        "user_id_acknowledged": 9,
        "user_id_rejected": 1,
        "user_id_errored": 0,
        "user_id_not_attempted": 0,
        "user_id_seconds": 4.0,
        "user_id_calls_per_second": 125.0,
        "user_id_quota_use": 0.975,
        "user_id_planned_calls": 400,
        "user_id_planned_seconds": 3.8,
    }
    assert told["planned_calls"] == 400
    assert told["dagster/row_count"] == 18
    assert (told["calls"], told["calls_set_attr"], told["calls_remove_attr"]) == (500, 390, 110)
    assert (told["resent_rows"], told["slow_downs"], told["calls_taken_over"]) == (300, 2, 4)
    assert told["withheld"] == 6
    assert (told["refused_account_unknown_70107"], told["refused_timeout"]) == (100, 3)


def test_latencies_are_told_in_milliseconds() -> None:
    told = facts(user_id=report())
    assert told["user_id_latency_p50_ms"] == pytest.approx(50, rel=0.05)
    assert told["user_id_latency_p95_ms"] == pytest.approx(100, rel=0.05)
    assert told["user_id_latency_p99_ms"] == pytest.approx(400, rel=0.05)


def test_the_account_types_are_added_up() -> None:
    told = facts(user_id=report(), registration_id=report())
    assert (told["calls"], told["calls_set_attr"], told["resent_rows"], told["slow_downs"]) == (1000, 780, 600, 4)
    assert told["waits_seconds_quota"] == 6.42
    assert told["refused_account_unknown_70107"] == 200


def test_every_cause_of_waiting_is_there_in_every_run() -> None:
    waits = {name for name in facts(user_id=SinkReport(quota=100)) if name.startswith("waits_seconds_")}
    assert waits == {f"waits_seconds_{cause}" for cause in WaitCause}


def test_where_there_was_no_call_there_is_no_rate() -> None:
    told = facts(user_id=SinkReport(quota=100))
    assert [name for name in told if "latency" in name or "quota_use" in name or "per_second" in name] == []
    assert (told["calls"], told["calls_set_attr"]) == (0, 0)


def test_all_but_places_and_texts_are_numbers_that_can_be_plotted() -> None:
    told = facts(user_id=report(), registration_id=report())
    assert [name for name, value in told.items() if not isinstance(value, int | float)] == ["folders"]


def test_why_the_push_stopped_is_told() -> None:
    stopped = result(user_id=report())
    stopped.stop = StopCause(60021, Reason.CALL_REFUSED, "The app is suspended.")
    assert metadata.of_acknowledged(stopped, FOLDERS)["stopped"] == "The app is suspended."


def test_the_quota_and_what_was_made_of_it_have_names_of_their_own() -> None:
    """The quota is told of every asset, the rates of the push beside it."""
    told = facts(user_id=report())
    about = metadata.of_target(Target(None, 100))
    assert about["quota_calls_per_second"] == 100
    assert not set(about) & set(told)
