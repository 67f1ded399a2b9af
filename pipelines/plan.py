"""The dry run: what a run would do now, in numbers and in words, from frames that nothing pushes.

A plan disturbs no run: its frames lie in a folder of their own, and while another run holds the app it takes over and
removes nothing. Accounts and values are shown masked: a first character and a length.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.profiles.parquet import Manifest
from connectors.tencent_push.errors import lookup
from connectors.tencent_push.outcomes import OutcomeKind
from connectors.tencent_push.protocol import MAX_ACCOUNTS_PER_CALL, AccountType
from pipelines.acknowledged import Generation
from pipelines.changes import Exceptions, PlannedCalls, planned_calls
from pipelines.engine import ROW_NUMBER, Engine
from pipelines.errors import AppBusyError, DataFolderError, EngineError
from pipelines.frame_sets import Declared, compute_frame_set
from pipelines.frames import Frame
from pipelines.guards import measured
from pipelines.push import Push
from pipelines.push_progress import duration_text
from pipelines.push_result import FrameSet
from pipelines.summary import departed_lines, profiles_text

SAMPLE_CHANGES = 10
READINGS = 3  # of a state that a running push replaces meanwhile


@dataclass(frozen=True, slots=True)
class FramePlan:
    """Of one account type. `refused_again` counts accounts by the reason that refused them in the run before.

    `withheld` requests are among those accounts and take no call; `avoided_calls` are what unchanged accounts would.
    """

    frame: Frame
    calls: PlannedCalls
    seconds: float
    removed_attributes: Mapping[str, int]
    refused_again: Mapping[str, int]
    withheld: int

    @property
    def avoided_calls(self) -> int:
        return -(-self.frame.counts.unchanged // MAX_ACCOUNTS_PER_CALL)


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it. `guards` would stop the run, `sample` is masked, `notes` say what the plan does not know.

    `frames_seconds` is what it took to read the profiles and to compute the frames, up to `made_at`.
    """

    sync: str
    target: str
    frames: FrameSet
    plans: tuple[FramePlan, ...]
    calls_per_second: float
    made_at: datetime
    frames_seconds: float
    guards: tuple[str, ...]
    sample: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def calls(self) -> int:
        return sum(plan.calls.total for plan in self.plans)

    @property
    def seconds(self) -> float:
        """At the quota, one account type after the other."""
        return sum(plan.seconds for plan in self.plans)

    @property
    def finish(self) -> datetime:
        """Of a run that starts when the plan is made: it computes the frames once more, then sends at the quota."""
        return self.made_at + timedelta(seconds=self.frames_seconds + self.seconds)

    def facts(self) -> dict[str, int | float | str]:
        """Plain numbers under plain names, for metadata."""
        facts: dict[str, int | float | str] = {
            "calls": self.calls,
            "seconds_at_the_quota": round(self.seconds, 1),
            "expected_finish": self.finish.isoformat(timespec="seconds"),
            "calls_avoided": sum(plan.avoided_calls for plan in self.plans),
            "guards_stop_the_run": bool(self.guards),
            **{f"rows_{reason}": rows for reason, rows in self.frames.invalid_by_reason.items()},
        }
        for plan in self.plans:
            kind, counts = plan.frame.account_type, plan.frame.counts
            facts |= {
                f"{kind}_changed": counts.changed,
                f"{kind}_unchanged": counts.unchanged,
                f"{kind}_departed": plan.frame.departed,
                f"{kind}_departed_to_remove": counts.departed,
                f"{kind}_set_calls": plan.calls.set_calls,
                f"{kind}_remove_calls": plan.calls.remove_calls,
                f"{kind}_seconds_at_the_quota": round(plan.seconds, 1),
                f"{kind}_calls_avoided": plan.avoided_calls,
                f"{kind}_withheld": plan.withheld,
            }
            facts |= {f"{kind}_refused_again_{reason}": count for reason, count in plan.refused_again.items()}
        return facts

    @property
    def text(self) -> str:
        return "\n".join(_lines(self))


def make_plan(
    engine: Engine, push: Push, manifest: Manifest, *, declared: Declared, notes: Sequence[str], began_at: datetime
) -> Plan:
    """Raises like a night's frames; `notes` are told with the plan. `began_at` is before the profiles were read."""
    for reading in range(1, READINGS + 1):
        before: Mapping[AccountType, Generation] = {}
        try:
            before = _states(push)
            frames = compute_frame_set(engine, push, manifest, declared=declared, folder=plan_folder(push))
            plans = tuple(_plan_of(engine, push, frames, frame) for frame in frames.frames)
            break
        except (EngineError, DataFolderError):
            if reading == READINGS or _states(push) == before:
                raise
    made_at = datetime.now(began_at.tzinfo)
    return Plan(
        sync=push.sync,
        target=push.target.title,
        frames=frames,
        plans=plans,
        calls_per_second=push.target.calls_per_second,
        made_at=made_at,
        frames_seconds=(made_at - began_at).total_seconds(),
        guards=tuple(_broken_guards(push, frames)),
        sample=tuple(_sample(engine, frames)),
        notes=tuple(notes),
    )


def plan_folder(push: Push) -> Path:
    return push.store.plan(push.sync, push.run_id)


def take_over_leftovers(push: Push, engine: Engine, *, busy: str | None) -> list[str]:
    """Fold what a dead push left, unless another run holds the app: then say so. `busy`: why it is known to."""
    try:
        if busy is None:
            with push.locked():
                push.fold_leftovers(engine)
            return []
    except AppBusyError as error:
        busy = str(error).partition(";")[0]
    push.refresh()
    return [f"A push is running: {busy}. What it has acknowledged, but not yet taken over, is in this plan again."]


def _states(push: Push) -> dict[AccountType, Generation]:
    """Parts and memories included: they are replaced without a new generation, too."""
    return {kind: push.acknowledged(kind).current() for kind in push.mapping.account_types()}


def _plan_of(engine: Engine, push: Push, frames: FrameSet, frame: Frame) -> FramePlan:
    withheld, exceptional = push.exceptional(engine, frames, frame)
    calls = planned_calls(engine, frame, Exceptions(withheld=exceptional))
    rows = engine.numbered_parquet(f"plan_frame_{frame.account_type}", frame.path)
    names = list(frame.changed_attributes)
    counts = engine.rows(
        rows.aggregate(
            **{
                f"removed_{number}": rows.removed.cast("array<string>").contains(name).sum().fill_null(0)
                for number, name in enumerate(names)
            }
        )
    )[0]
    return FramePlan(
        frame=frame,
        calls=calls,
        seconds=calls.seconds(push.target.calls_per_second),
        removed_attributes={name: int(counts[f"removed_{number}"]) for number, name in enumerate(names)},
        refused_again=dict(_refused_again(engine, push, frame, rows, withheld=withheld)),
        withheld=exceptional.requests,
    )


def _refused_again(
    engine: Engine, push: Push, frame: Frame, rows: ir.Table, *, withheld: ir.Table | None
) -> Counter[str]:
    """What is withheld, and accounts that the run before had rejected and that are still changed."""
    found: Counter[str] = Counter()
    if withheld is not None:
        by_code = withheld.group_by("code").agg(accounts=withheld.number.nunique())
        for row in engine.rows(by_code):
            found[lookup(row["code"]).reason.value] += int(row["accounts"])
        rows = rows.anti_join(withheld, rows[ROW_NUMBER] == withheld.number)
    history = push.failed_before()
    if history is None or not frame.counts.changed:
        return found
    failed = engine.parquet("plan_failed_before", history)
    rejected = failed.filter(
        (failed.account_type == frame.account_type.value) & (failed.outcome == OutcomeKind.REJECTED.value)
    )
    changed = rows.filter((rows.changed.length() > 0) | (rows.removed.length() > 0))
    again = rejected.semi_join(changed, "account")
    for row in engine.rows(again.group_by("reason").agg(accounts=again.account.nunique())):
        found[row["reason"]] += int(row["accounts"])
    return found


def _broken_guards(push: Push, frames: FrameSet) -> Iterator[str]:
    for frame in frames.frames:
        kind = frame.account_type
        found = measured(
            frame.counts, kind, failed_profiles=frames.failed_profiles, generation=frames.generations[kind].number
        )
        yield from (f"{kind}: {text}" for text in found.broken(push.mapping.guards))


def _sample(engine: Engine, frames: FrameSet) -> list[str]:
    """Changes drawn at random from all frames; of every account type that has some."""
    drawn = [list(_drawn(engine, frame)) for frame in frames.frames]
    in_turn = [changes[place] for place in range(SAMPLE_CHANGES) for changes in drawn if place < len(changes)]
    return sorted(in_turn[:SAMPLE_CHANGES], reverse=True)


def _drawn(engine: Engine, frame: Frame) -> Iterator[str]:
    """Drawn by the narrow columns; the wide rows are read from their row groups alone."""
    rows = engine.numbered_parquet(f"sampled_frame_{frame.account_type}", frame.path)
    changed = rows.filter((rows.changed.length() > 0) | (rows.removed.length() > 0)).select(ROW_NUMBER)
    numbers = engine.numbers(changed.order_by(ibis.random()).limit(SAMPLE_CHANGES))
    with pq.ParquetFile(frame.path) as file:
        first = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            inside = [int(number) - first for number in numbers if first <= number < first + count]
            if inside:
                table: pa.Table = file.read_row_group(group).take(inside)
                yield from (masked_change(row, frame) for row in table.to_pylist())
            first += count


def masked_change(row: Mapping[str, Any], frame: Frame) -> str:
    """`user_id 上… (6 bytes): set city 北… (6 bytes); remove vip_until`."""
    parts = [f"{name} {masked(row[name])}" for name in row["changed"]]
    asked = [f"set {', '.join(parts)}"] if parts else []
    asked += [f"remove {', '.join(row['removed'])}"] if row["removed"] else []
    return f"{frame.account_type} {masked(row['account'])}: {'; '.join(asked)}"


def masked(text: str) -> str:
    """The first character, unless it is all there is, and the length in UTF-8."""
    count = len(text.encode())
    return f"{text[0] if len(text) > 1 else ''}… ({count} {'byte' if count == 1 else 'bytes'})"


def _lines(plan: Plan) -> Iterator[str]:
    yield f"Plan of sync {plan.sync} to {plan.target}: nothing was sent"
    yield from (f"  note: {note}" for note in plan.notes)
    for each in plan.plans:
        yield from _frame_lines(each)
    quota = f"{plan.calls_per_second:g} a second"
    yield f"  calls           {plan.calls:>12,}   in {_seconds_text(plan.seconds)} at {quota}"
    yield f"  expected finish {plan.finish:%Y-%m-%d %H:%M:%S} ({plan.finish.tzinfo}), if it starts now"
    if plan.guards:
        yield "  guards          would stop the run:"
        yield from (f"    {text}" for text in plan.guards)
    else:
        yield "  guards          none would stop the run"
    if plan.frames.invalid_by_reason:
        yield "  validation found"
        yield from (f"    {rows:>10,}   {reason}" for reason, rows in plan.frames.invalid_by_reason.items())
    if plan.sample:
        yield "  a sample of the changes"
        yield from (f"    {change}" for change in plan.sample)
    yield from (f"  frame           {each.frame.path}" for each in plan.plans)
    yield f"  invalid rows    {plan.frames.invalid_rows}"


def _frame_lines(plan: FramePlan) -> Iterator[str]:
    frame, counts = plan.frame, plan.frame.counts
    yield f"  {frame.account_type}"
    yield f"    profiles      {profiles_text(counts)}"
    yield f"    changed       {counts.changed:>12,}   {_names_text(frame.changed_attributes)}".rstrip()
    yield from departed_lines(frame)
    if any(plan.removed_attributes.values()):
        yield f"    removed       {frame.remove_accounts:>12,}   {_names_text(plan.removed_attributes)}"
    yield (
        f"    calls         {plan.calls.total:>12,}   {plan.calls.set_calls:,} set_attr, {plan.calls.remove_calls:,} "
        f"remove_attr; {_seconds_text(plan.seconds)} at the quota"
    )
    yield f"    avoided       {plan.avoided_calls:>12,}   calls for what is unchanged"
    if plan.refused_again:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(plan.refused_again.items()))
        requests = "request is" if plan.withheld == 1 else "requests are"
        unsent = f"; {plan.withheld:,} {requests} not sent" if plan.withheld else ""
        yield f"    refused again {sum(plan.refused_again.values()):>12,}   {reasons}{unsent}"


def _seconds_text(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else duration_text(seconds)


def _names_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
