"""A run in words: what was counted, why rows failed, where the files are, and nobody's account or value."""

import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.tencent_push.errors import Reason
from connectors.tencent_push.outcomes import StopCause
from connectors.tencent_push.protocol import AccountType, Command
from connectors.tencent_push.report import SinkReport
from pipelines.changes import PlannedCalls
from pipelines.engine import Engine
from pipelines.failed_rows import SCHEMA
from pipelines.frames import Counts, Frame
from pipelines.push import Push
from pipelines.push_result import FrameSet, PushResult
from pipelines.store import Store
from pipelines.summary import FailedGroup, failed_groups, report_page, report_table, summary_text, write_report
from pipelines.tally import Tally
from pipelines.target import Target
from tests.pipelines.frame_cases import sync_of

USER, DEVICE = AccountType.USER_ID, AccountType.REGISTRATION_ID
FIRST, LATER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 5, tzinfo=UTC)
SYNC = {"accounts": {"user_id": {"column": "user", "attributes": {"city": "city"}}}}


def frame(kind: AccountType, **counts: int) -> Frame:
    return Frame(
        account_type=kind,
        path=Path(f"/data/frames/{kind}.parquet"),
        rows=counts["changed"],
        chosen_rows=counts["changed"],
        accounts=counts["changed"],
        set_accounts=counts["changed"],
        remove_accounts=0,
        changed_attributes={"city": counts["changed"]},
        largest_value_bytes=9,
        smallest_value_bytes=1,
        counts=Counts(classified=counts["profiles"], **counts),
    )


@pytest.fixture
def result() -> PushResult:
    users = frame(USER, profiles=20_000, without_account=1, superseded=20, invalid=300, unchanged=4_000, changed=15_679)
    devices = frame(DEVICE, profiles=20_000, without_account=19_998, superseded=0, invalid=0, unchanged=2, changed=0)
    frames = FrameSet("run-1", "emulator-1", LATER, (users, devices), Path("/data/invalid_rows.parquet"), {}, 0, {}, {})
    report = SinkReport(calls=Counter({Command.SET_ATTR: 150, Command.REMOVE_ATTR: 7}), seconds=1.55, quota=100)
    for latency_seconds in [0.05] * 98 + [0.08] * 2:
        report.latencies.add(latency_seconds)
    return PushResult(
        frames=frames,
        tallies={USER: Tally(15_679, 15_000, 600, 70, 9), DEVICE: Tally(0, 0, 0, 0, 0)},
        reports={USER: report, DEVICE: SinkReport()},
        planned={USER: PlannedCalls(150, 7), DEVICE: PlannedCalls()},
        failed_rows=Path("/data/failed_rows/run-1.parquet"),
        failed_row_count=999,
        push_calls=Path("/data/push_calls/run-1.parquet"),
    )


def failed(reason: str, **columns: object) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(SCHEMA.names)
    row |= {"stage": "push", "severity": "error", "outcome": "rejected", "reason": reason,
            "account": "secret-account", "value": "secret-value", "explanation": "It failed.", "fix": "Mend it.",
            "first_failed_at": LATER}  # fmt: skip
    return row | columns


def written(folder: Path, *rows: dict[str, object]) -> Path:
    path = folder / "failed_rows.parquet"
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), path)
    return path


NOTICE = {"stage": "validate", "severity": "notice", "outcome": None}


# Groups -------------------------------------------------------------------------------------------------------------


def test_failed_rows_are_grouped_by_reason_errors_first_then_the_most_frequent(engine: Engine, tmp_path: Path) -> None:
    rows = [
        *(failed("superseded", **NOTICE) for _ in range(5)),
        failed("unknown_code", error_code=99999),
        failed("account_unknown", error_code=70107, account="a", first_failed_at=FIRST),
        failed("account_unknown", error_code=70107, account="b"),
        failed("account_unknown", error_code=70107, account="b", stage="remove"),
        failed("account_missing", account=None, stage="validate", outcome="invalid"),
    ]
    groups = failed_groups(engine, written(tmp_path, *rows))
    assert [(group.reason, group.stage, group.rows, group.accounts, group.oldest) for group in groups] == [
        ("account_unknown", "push", 2, 2, "2026-01-01"),
        ("account_missing", "validate", 1, 0, "2026-01-05"),
        ("account_unknown", "remove", 1, 1, "2026-01-05"),
        ("unknown_code", "push", 1, 1, "2026-01-05"),
        ("superseded", "validate", 5, 1, "2026-01-05"),
    ]
    assert groups[0].error_code == 70107
    assert groups[4].outcome is None


def test_no_failed_rows_are_no_groups(engine: Engine, tmp_path: Path) -> None:
    assert failed_groups(engine, written(tmp_path)) == []
    assert report_table([]) == "Every changed row was acknowledged; nothing was kept out."


# Texts --------------------------------------------------------------------------------------------------------------

STARTED = datetime(2026, 11, 20, 2, tzinfo=UTC)
GROUP = FailedGroup("push", "error", "rejected", "account_unknown", 70107, 1_234, 1_200, "2026-01-01", "Why.", "Do.")


def test_the_summary_counts_and_says_where_the_files_are(result: PushResult) -> None:
    text = summary_text("small", "emulator", pushed=result, groups=[GROUP])
    assert text.splitlines() == [
        "Sync small to emulator",
        "  user_id",
        "    profiles            20,000   of which 1 without account, 20 superseded, 300 invalid, 4,000 unchanged",
        "    changed             15,679",
        "    acknowledged        15,000",
        "    failed                 679   600 rejected, 70 errored, 9 not attempted",
        "    calls                  157   in 1.6 s, 97 % of the quota; p50 52 ms, p99 84 ms",
        "    planned                157   in 1.5 s at the quota",
        "  registration_id",
        "    profiles            20,000   of which 19,998 without account, 0 superseded, 0 invalid, 2 unchanged",
        "    changed                  0",
        "    acknowledged             0",
        "    failed                   0   0 rejected, 0 errored, 0 not attempted",
        "    calls                    0",
        "    planned                  0",
        "  failed rows by reason",
        "    error        1,234   account_unknown (code 70107)",
        "  failed rows     /data/failed_rows/run-1.parquet",
        "  push calls      /data/push_calls/run-1.parquet",
        "  frame           /data/frames/user_id.parquet",
        "  frame           /data/frames/registration_id.parquet",
    ]


def test_the_page_holds_the_plan_against_what_was_needed(result: PushResult) -> None:
    result.planned[USER] = PlannedCalls(1_400, 6)
    page = report_page("small", "host", run="run-1", started=STARTED, pushed=result, groups=[])
    cells = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", page[page.index("Plan against actual") :])
    assert cells[7:21] == [
        *("user_id", "1,400", "150", "6", "7", "14.0", "1.6"),
        *("registration_id", "0", "0", "0", "0", "0.0", "0.0"),
    ]


@pytest.mark.parametrize(("to_remove", "told"), [(0, "left as they are"), (12, "among the changed, to lose")])
def test_departed_accounts_are_told_in_summary_and_page(result: PushResult, to_remove: int, told: str) -> None:
    (users, devices) = result.frames.frames
    gone = replace(users, departed=1_234, counts=replace(users.counts, departed=to_remove))
    result.frames = replace(result.frames, frames=(gone, devices))
    text = summary_text("small", "emulator", pushed=result, groups=[])
    page = report_page("small", "host", run="run-1", started=STARTED, pushed=result, groups=[])
    assert f"    departed             1,234   accounts that no profile has any more; {told}" in text
    assert "user_id 1,234" in page
    assert told in page
    assert "registration_id 0" not in page


def test_what_was_mended_is_told_in_summary_and_page(result: PushResult) -> None:
    result.reports[USER].resent_rows, result.reports[USER].slow_downs = 1_300, 2
    result.reports[DEVICE].slow_downs, result.unsettled_calls = 1, 7
    result.withheld = {USER: 12}
    told = [
        "  withheld                  12   refused before and unchanged since, so not sent; see `replay`",
        "  sent again             1,300   rows in calls after their first",
        "  slow-downs                 3   calls refused for coming too often; the pace was lowered for a while",
        "  taken over                 7   calls in flight when an earlier run was cut off; their rows were sent again",
    ]
    lines = summary_text("small", "emulator", pushed=result, groups=[]).splitlines()
    assert [line for line in lines if line in told] == told
    page = report_page("small", "host", run="run-1", started=STARTED, pushed=result, groups=[])
    assert "<li>slow-downs: 3 calls refused for coming too often" in page
    assert "<li>user_id: 157   in 1.6 s, 97 % of the quota" in page


def test_a_run_without_incidents_tells_of_none(result: PushResult) -> None:
    text = summary_text("small", "emulator", pushed=result, groups=[])
    page = report_page("small", "host", run="run-1", started=STARTED, pushed=result, groups=[])
    for word in ("sent again", "slow-downs", "taken over", "withheld"):
        assert word not in text + page


def test_a_push_of_less_than_a_second_has_no_share_of_the_quota(result: PushResult) -> None:
    result.reports[USER].seconds = 0.9
    text = summary_text("small", "emulator", pushed=result, groups=[])
    assert "calls                  157   in 0.9 s; p50 52 ms" in text


def test_the_table_has_a_line_per_group() -> None:
    without_code = FailedGroup("validate", "notice", None, "superseded", None, 2, 1, "2026-01-01", "Why.", "Do.")
    assert report_table([GROUP, without_code]).splitlines()[2:] == [
        "| error | 1,234 | `account_unknown` | 70107 | Why. | Do. |",
        "| notice | 2 | `superseded` |  | Why. | Do. |",
    ]


def test_the_page_shows_every_group_and_escapes_what_comes_from_outside(result: PushResult) -> None:
    result.stop = StopCause(60011, Reason.CALL_REFUSED, "Stopped: <b>suspended</b> & closed.")
    group = FailedGroup("push", "error", "rejected", "<i>x</i>", None, 3, 3, "2026-01-01", "a < b", "c & d")
    page = report_page("sm<all", "host", run="run-1", started=STARTED, pushed=result, groups=[GROUP, group])
    assert "sm&lt;all" in page
    assert "Stopped: &lt;b&gt;suspended&lt;/b&gt; &amp; closed." in page
    assert "&lt;i&gt;x&lt;/i&gt;" in page
    assert "a &lt; b" in page
    assert "<i>x" not in page
    assert "<b>suspended" not in page
    assert "70107" in page
    assert "/data/failed_rows/run-1.parquet" in page


def test_a_page_without_failures_says_so(result: PushResult) -> None:
    page = report_page("small", "host", run="run-1", started=STARTED, pushed=result, groups=[])
    assert "every changed row was acknowledged" in page
    assert "stopped early" not in page


def test_the_report_lies_in_the_data_folder_and_names_no_account_and_no_value(
    result: PushResult, tmp_path: Path
) -> None:
    result.failed_rows = written(tmp_path, failed("account_unknown", error_code=70107))
    push = Push(
        store=Store(tmp_path / "data"),
        target=Target(None, 100),
        memory_limit="500MB",
        sync="small",
        mapping=sync_of(SYNC),
        run_id="run-1",
        run_started_at=LATER,
        report=lambda _text: None,
    )
    report = write_report(push, result)
    assert report.path == push.store.report_of("small", "run-1")
    page = report.path.read_text(encoding="utf-8")
    assert "account_unknown" in page
    assert [group.rows for group in report.groups] == [1]
    assert report.text.endswith(f"report          {report.path}")
    assert "secret" not in page + report.text + report_table(report.groups)
    assert list((tmp_path / "data" / "temporary").iterdir()) == []
