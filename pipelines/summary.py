"""A run in words for people: the last lines of `python -m pipelines run`, and the page for analysts.

Counts, reasons and places only; accounts and values stand in the failed rows alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import ibis.expr.types as ir
import jinja2

from connectors.tencent_push.protocol import AccountType, Command
from connectors.tencent_push.report import SinkReport
from pipelines.changes import PlannedCalls
from pipelines.engine import Engine
from pipelines.frames import Counts, Frame
from pipelines.push import Push
from pipelines.push_progress import SHORTEST_RATE_SECONDS
from pipelines.push_result import PushResult
from pipelines.store import whole_file


@dataclass(frozen=True, slots=True)
class FailedGroup:
    """Failed rows that share stage, severity and reason."""

    stage: str
    severity: str
    outcome: str | None
    reason: str
    error_code: int | None
    rows: int
    accounts: int
    oldest: str
    explanation: str
    fix: str


@dataclass(frozen=True, slots=True)
class Held:
    """What the frames of an account type let expect before the first call, beside what it took.

    `planned_seconds` are at the quota, None where no call was planned.
    """

    planned_calls: PlannedCalls
    planned_seconds: float | None
    set_calls: int
    remove_calls: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """What a run came to: the page at `path`, and `text` as the command line prints it."""

    path: Path
    text: str
    groups: tuple[FailedGroup, ...]


def write_report(push: Push, result: PushResult) -> Report:
    """Write the page for analysts, and say the same in a few lines."""
    with push.store.temporary(push.run_id) as folder, Engine(folder, memory_limit=push.memory_limit) as engine:
        groups = failed_groups(engine, result.failed_rows)
    path = push.store.report_of(push.sync, push.run_id)
    target = push.target.title
    with whole_file(path) as beside:
        page = report_page(
            push.sync,
            target,
            run=push.run_id,
            started=push.run_started_at,
            pushed=result,
            groups=groups,
            address=push.store.address,
        )
        beside.write_text(page, encoding="utf-8")
    push.store.publish(path)
    text = summary_text(push.sync, target, pushed=result, groups=groups, address=push.store.address)
    return Report(path, f"{text}\n  report          {push.store.address(path)}", tuple(groups))


def failed_groups(engine: Engine, failed_rows: Path) -> list[FailedGroup]:
    """The failed rows by reason: errors before notices, the most frequent first."""
    rows = engine.parquet("reported_failed_rows", failed_rows)
    keys = ("stage", "severity", "outcome", "reason", "error_code")
    grouped: ir.Table = rows.group_by(*keys).agg(
        rows=rows.count(),
        accounts=rows.account.nunique(),
        oldest=rows.first_failed_at.min().strftime("%Y-%m-%d"),
        explanation=rows.explanation.min(),
        fix=rows.fix.min(),
    )
    found = engine.rows(grouped)
    groups = [FailedGroup(**row) for row in found]
    return sorted(groups, key=lambda group: (group.severity, -group.rows, group.reason))


def summary_text(
    sync: str,
    target: str,
    *,
    pushed: PushResult,
    groups: list[FailedGroup],
    address: Callable[[Path], str] = str,
) -> str:
    """A few lines: profiles, frames, changes, calls, acknowledged, failed by reason, where the files are."""
    lines = [f"Sync {sync} to {target}"]
    for frame in pushed.frames.frames:
        counts, tally = frame.counts, pushed.tallies[frame.account_type]
        lines += [
            f"  {frame.account_type}",
            f"    profiles      {profiles_text(counts)}",
            f"    changed       {counts.changed:>12,}",
            *departed_lines(frame),
            f"    acknowledged  {tally.acknowledged:>12,}",
            f"    failed        {tally.changed - tally.acknowledged:>12,}   {tally.rejected:,} rejected, "
            f"{tally.errored:,} errored, {tally.not_attempted:,} not attempted",
            f"    calls         {calls_text(pushed.reports[frame.account_type])}",
            f"    planned       {_planned_text(pushed, frame.account_type)}",
        ]
    lines += [f"  {name:<16}{count:>12,}   {text}" for name, count, text in incidents(pushed)]
    if groups:
        lines.append("  failed rows by reason")
        lines += [_group_line(group) for group in groups]
    lines.append(f"  failed rows     {address(pushed.failed_rows)}")
    lines.append(f"  push calls      {address(pushed.push_calls)}")
    lines += [f"  frame           {address(frame.path)}" for frame in pushed.frames.frames]
    return "\n".join(lines)


def profiles_text(counts: Counts) -> str:
    """All profiles, and where those went that are no change."""
    return (
        f"{counts.profiles:>12,}   of which {counts.without_account:,} without account, {counts.superseded:,} "
        f"superseded, {counts.invalid:,} invalid, {counts.unchanged:,} unchanged"
    )


def departed_lines(frame: Frame) -> list[str]:
    """A line about the accounts that no profile has any more, if there are any."""
    if not frame.departed:
        return []
    means = "among the changed, to lose their attributes" if frame.counts.departed else "left as they are"
    return [f"    departed      {frame.departed:>12,}   accounts that no profile has any more; {means}"]


def calls_text(report: SinkReport) -> str:
    """`624   in 6.4 s, 98 % of the quota; p50 52 ms, p99 80 ms`; a share of the quota only where it says something."""
    text = f"{report.calls.total():>12,}"
    if not report.calls.total():
        return text
    text += f"   in {report.seconds:.1f} s"
    if report.seconds >= SHORTEST_RATE_SECONDS:
        text += f", {report.quota_use * 100:.0f} % of the quota"
    middle, slow = report.latencies.percentile(50), report.latencies.percentile(99)
    if middle is not None and slow is not None:
        text += f"; p50 {middle * 1000:.0f} ms, p99 {slow * 1000:.0f} ms"
    return text


def plan_against_actual(pushed: PushResult, kind: AccountType) -> Held:
    """Calls and seconds; a resent row, a split call or a push that stopped make the difference."""
    planned, report = pushed.planned.get(kind, PlannedCalls()), pushed.reports[kind]
    return Held(
        planned_calls=planned,
        planned_seconds=planned.seconds(report.quota) if planned.total and report.quota else None,
        set_calls=report.calls[Command.SET_ATTR],
        remove_calls=report.calls[Command.REMOVE_ATTR],
        seconds=report.seconds,
    )


def _planned_text(pushed: PushResult, kind: AccountType) -> str:
    """`624   in 6.2 s at the quota`: what the frames let expect, to be held against what was needed."""
    held = plan_against_actual(pushed, kind)
    text = f"{held.planned_calls.total:>12,}"
    return text if held.planned_seconds is None else f"{text}   in {held.planned_seconds:.1f} s at the quota"


def incidents(pushed: PushResult) -> list[tuple[str, int, str]]:
    """What did not go as it always does, and harmed nothing: (name, count, what it means)."""
    reports = pushed.reports.values()
    found = [
        ("withheld", sum(pushed.withheld.values()), "refused before and unchanged since, so not sent; see `replay`"),
        ("sent again", sum(report.resent_rows for report in reports), "rows in calls after their first"),
        (
            "slow-downs",
            sum(report.slow_downs for report in reports),
            "calls refused for coming too often; the pace was lowered for a while",
        ),
        (
            "taken over",
            pushed.unsettled_calls,
            "calls in flight when an earlier run was cut off; their rows were sent again",
        ),
    ]
    return [incident for incident in found if incident[1]]


def _group_line(group: FailedGroup) -> str:
    code = f" (code {group.error_code})" if group.error_code is not None else ""
    return f"    {group.severity:<8}{group.rows:>10,}   {group.reason}{code}"


def report_page(
    sync: str,
    target: str,
    *,
    run: str,
    started: datetime,
    pushed: PushResult,
    groups: list[FailedGroup],
    address: Callable[[Path], str] = str,
) -> str:
    """The analysts' page as HTML; everything that comes from outside is escaped."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string((Path(__file__).parent / "failure_report.html").read_text(encoding="utf-8"))
    return template.render(
        sync=sync,
        target=target,
        run_id=run,
        started=f"{started:%Y-%m-%d %H:%M (UTC%z)}",
        frames=pushed.frames,
        pushed=pushed,
        failed_rows=address(pushed.failed_rows),
        calls=[(frame.account_type, calls_text(pushed.reports[frame.account_type])) for frame in pushed.frames.frames],
        plans=[(frame.account_type, plan_against_actual(pushed, frame.account_type)) for frame in pushed.frames.frames],
        departed=any(frame.departed for frame in pushed.frames.frames),
        incidents=incidents(pushed),
        groups=groups,
    )


def report_table(groups: Sequence[FailedGroup]) -> str:
    """The same groups as a Markdown table, for the UI."""
    if not groups:
        return "Every changed row was acknowledged; nothing was kept out."
    head = "| severity | rows | reason | code | what it means | what to do |\n|---|---:|---|---:|---|---|\n"
    return head + "\n".join(
        f"| {g.severity} | {g.rows:,} | `{g.reason}` | {'' if g.error_code is None else g.error_code} "
        f"| {g.explanation} | {g.fix} |"
        for g in groups
    )
