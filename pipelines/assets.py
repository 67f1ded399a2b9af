"""The assets of one sync. Each calls one function of the modules beside it and says in metadata what came out.

Values between assets are small: places, counts and manifests, never rows.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from connectors.profiles.parquet import Manifest
from connectors.tencent_push.protocol import AccountType
from pipelines import checks, metadata
from pipelines.errors import EXPECTED_ERRORS, PushStoppedError
from pipelines.frame_sets import compute_frame_set, declared_attributes, opened_engine
from pipelines.frames import Frame
from pipelines.live_bar import bar
from pipelines.mapping import SyncMapping
from pipelines.push import Push
from pipelines.push_result import FrameSet, PushResult
from pipelines.resources import Environment, EnvironmentResource, push_pool
from pipelines.runs import (
    is_from_a_shell,
    is_replay,
    is_without_guards,
    patience_seconds,
    report_cancelling,
)
from pipelines.sharing import take_turn
from pipelines.store import KEPT_RUNS
from pipelines.summary import Report, report_table, write_report


@dataclass(frozen=True, slots=True)
class Sync:
    """One declared flow: its name, its mapping, the YAML it came from, and where relative paths start."""

    name: str
    mapping: SyncMapping
    yaml_file: Path
    base: Path

    def key(self, asset: str) -> dg.AssetKey:
        return dg.AssetKey([self.name, asset])

    def frame_key(self, kind: AccountType) -> dg.AssetKey:
        return self.key(f"{kind}_attributes")

    def out(
        self,
        asset: str,
        description: str,
        *,
        kinds: set[str],
        value: type,
        freshness_policy: dg.FreshnessPolicy | None = None,
    ) -> dg.AssetOut:
        """One asset of the sync; `value` is what it hands on."""
        return dg.AssetOut(
            key=self.key(asset),
            description=description,
            group_name=self.name,
            kinds=kinds,
            owners=self.mapping.owners,
            dagster_type=value,
            freshness_policy=freshness_policy,
        )


def every_few_seconds(tell: Callable[[int], None], *, seconds: float = 5.0) -> Callable[[int], None]:
    """`tell`, but not more often than that: an event costs Dagster 22 ms."""
    told_at = time.monotonic()

    def maybe_tell(count: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= seconds:
            told_at = time.monotonic()
            tell(count)

    return maybe_tell


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn what this project raises on purpose into Dagster's Failure, whose text stands first in the UI."""
    try:
        yield
    except EXPECTED_ERRORS as error:
        raise dg.Failure(
            description=str(error), metadata={"error": type(error).__name__}, allow_retries=False
        ) from None


def attribute_frames(sync: Sync) -> dg.AssetsDefinition:
    profiles = sync.key("user_profiles")
    outs = {
        f"{kind}_attributes": sync.out(
            f"{kind}_attributes",
            f"Validated attributes per {kind}: one row per account that differs from what Tencent acknowledged.",
            kinds={"duckdb", "parquet"},
            value=FrameSet,
        )
        for kind in sync.mapping.account_types()
    }
    invalid = sync.out(
        "invalid_rows",
        "Everything that validation kept out or changed, one row per profile, attribute and reason.",
        kinds={"duckdb", "parquet"},
        value=FrameSet,
    )

    @dg.multi_asset(
        outs={**outs, "invalid_rows": invalid},
        check_specs=[
            *(spec for name in outs for spec in checks.frame_check_specs(sync.key(name))),
            checks.invalid_rows_check_spec(sync.key("invalid_rows")),
        ],
        name=f"{sync.name}__attribute_frames",
        ins={"manifest": dg.AssetIn(profiles)},
    )
    def compute(
        context: dg.AssetExecutionContext, environment: EnvironmentResource, manifest: Manifest
    ) -> Iterator[dg.MaterializeResult[FrameSet]]:
        with told_plainly():
            current = environment.current()
            push = push_of(sync, current, context)
            computed = _compute(sync, current, manifest, push)
            for frame in computed.frames:
                _tell_frame(context, frame)
            for attribute, texts in computed.merged_values.items():
                context.log.info(
                    f"{attribute}: {texts:,} {'text stands' if texts == 1 else 'texts stand'} for several values, "
                    "which are equal since they were cut"
                )
            results = list(_frame_results(sync, computed, push))
            yield from results
            if all(check.passed for result in results for check in result.check_results):
                # The push is next; waiting for its turn here can be terminated, and lets the core rest.
                take_turn(context.instance, context.run, step=f"{sync.name}__push", tell=context.log.info)

    return compute


def _tell_frame(context: dg.AssetExecutionContext, frame: Frame) -> None:
    counts = frame.counts
    context.log.info(
        f"{frame.account_type}: {counts.changed:,} changes, {counts.unchanged:,} unchanged, "
        f"{counts.superseded:,} superseded, {counts.invalid:,} invalid"
    )
    if counts.profiles and not counts.changed + counts.unchanged:
        context.log.info(
            f"{frame.account_type}: no profile has an account of this type; look at its column, `where` and `matches`"
        )


def _frame_results(sync: Sync, computed: FrameSet, push: Push) -> Iterator[dg.MaterializeResult[FrameSet]]:
    """Each frame and the invalid rows, with their checks."""
    about = metadata.of_target(push.target)
    profiles, invalid = sync.key("user_profiles"), sync.key("invalid_rows")
    for frame in computed.frames:
        key = sync.frame_key(frame.account_type)
        yield dg.MaterializeResult(
            asset_key=key,
            value=computed,
            metadata=metadata.of_frame(frame, sync.mapping, profiles=profiles, push=push) | about,
            check_results=[*checks.check_frame(frame, key), checks.check_guards(computed, frame, key, push=push)],
        )
    reasons = {f"rows_{reason}": rows for reason, rows in computed.invalid_by_reason.items()}
    reasons |= {f"merged_by_truncation_{attribute}": texts for attribute, texts in computed.merged_values.items()}
    count = sum(computed.invalid_by_reason.values())
    yield dg.MaterializeResult(
        asset_key=invalid,
        value=computed,
        metadata=metadata.of_file(computed.invalid_rows, count, store=push.store) | reasons | about,
        check_results=[checks.check_invalid_rows(computed, invalid)],
    )


def _compute(sync: Sync, current: Environment, manifest: Manifest, push: Push) -> FrameSet:
    declared = declared_attributes(push, yaml_file=sync.yaml_file)
    with opened_engine(push) as engine:
        with push.locked():
            taken_over = push.fold_leftovers(engine)
            _prune(sync, current, manifest, run_id=push.run_id)
        folder = current.store.frames(sync.name, push.run_id)
        computed = compute_frame_set(engine, push, manifest, declared=declared, folder=folder, learns=True)
        # Before the first call: whoever takes over after a loss needs the frame that the ledger speaks of.
        current.store.publish(computed.invalid_rows, *(frame.path for frame in computed.frames))
        return replace(computed, unsettled_calls=sum(folded.unsettled_calls for folded in taken_over))


def _prune(sync: Sync, current: Environment, manifest: Manifest, *, run_id: str) -> None:
    """Old runs' files go, but never what this run reads or is about to write, whatever the clock says."""
    read = {part for file in manifest.files for part in Path(file.local_path).parts if part.startswith("run=")}
    current.store.prune(sync.name, keep=KEPT_RUNS - 1, needed={f"run={run_id}", *read})


def pushed_attributes(sync: Sync) -> dg.AssetsDefinition:
    frame_keys = [sync.frame_key(kind) for kind in sync.mapping.account_types()]

    @dg.multi_asset(
        outs={
            "acknowledged_attributes": sync.out(
                "acknowledged_attributes",
                "What Tencent has confirmed it took, per account and attribute.",
                kinds={"parquet", "tencent"},
                value=PushResult,
            ),
            "push_calls": sync.out(
                "push_calls",
                "Every call of the push: when it left, how long it took, and what came back. No account, no value.",
                kinds={"parquet"},
                value=PushResult,
            ),
            "failed_rows": sync.out(
                "failed_rows",
                "Every row that was not acknowledged, with its reason and its fix; validation's rows included.",
                kinds={"parquet"},
                value=PushResult,
            ),
            "failure_report": sync.out(
                "failure_report",
                "A page for analysts: what failed, why, since when, and what to do.",
                kinds={"html"},
                value=Report,
            ),
        },
        internal_asset_deps={
            "acknowledged_attributes": set(frame_keys),
            "push_calls": set(frame_keys),
            "failed_rows": {*frame_keys, sync.key("invalid_rows")},
            "failure_report": {sync.key("failed_rows")},
        },
        check_specs=[checks.push_check_spec(sync.key("acknowledged_attributes"))],
        name=f"{sync.name}__push",
        pool=push_pool(),
        ins={"frames": dg.AssetIn(frame_keys[0])},
        deps=[*frame_keys[1:], sync.key("invalid_rows")],
    )
    def push(
        context: dg.AssetExecutionContext, environment: EnvironmentResource, frames: FrameSet
    ) -> Iterator[dg.MaterializeResult[PushResult] | dg.MaterializeResult[Report]]:
        with told_plainly():
            current = environment.current()
            work = push_of(sync, current, context)
            with current.target.open(current.store.emulator_file(sync.name), sync.mapping.declared()) as client:
                result = work.run(frames, client)
            work.publish_emulator()
            # What happened is handed on first, the page for analysts included; that the push stopped is said after it.
            yield from _push_results(sync, work, result)
            if result.cancellation.requested:
                # Without it Dagster takes Ctrl-C for a fault. A node that is drained is one: the run may be retried.
                if is_from_a_shell(context.run) or result.cancellation.is_by_hand:
                    report_cancelling(context.instance, context.run.run_id)
                raise dg.DagsterExecutionInterruptedError
            if result.stop:
                raise PushStoppedError(
                    f"The push stopped early. {result.stop.text} What failed or was not sent is in "
                    f"{current.store.address(result.failed_rows)}; the next run goes on from here."
                )

    return push


def _push_results(
    sync: Sync, work: Push, result: PushResult
) -> Iterator[dg.MaterializeResult[PushResult] | dg.MaterializeResult[Report]]:
    """The failed rows, the calls, what was acknowledged with its check, and the page for analysts."""
    about = metadata.of_target(work.target)
    acknowledged = sync.key("acknowledged_attributes")
    yield dg.MaterializeResult(
        asset_key=sync.key("failed_rows"),
        value=result,
        metadata=metadata.of_file(result.failed_rows, result.failed_row_count, store=work.store) | about,
    )
    yield dg.MaterializeResult(
        asset_key=sync.key("push_calls"),
        value=result,
        metadata=metadata.of_file(result.push_calls, result.push_call_count, store=work.store) | about,
    )
    folders = {kind: work.store.address(work.acknowledged(kind).folder) for kind in sync.mapping.account_types()}
    yield dg.MaterializeResult(
        asset_key=acknowledged,
        value=result,
        metadata=metadata.of_acknowledged(result, folders) | about,
        check_results=[checks.check_push(result, acknowledged)],
    )
    page = write_report(work, result)
    facts: dict[str, Any] = {
        metadata.URI: work.store.address(page.path),
        "by_reason": dg.MetadataValue.md(report_table(page.groups)),
    }
    yield dg.MaterializeResult(
        asset_key=sync.key("failure_report"),
        value=page,
        metadata=facts | about,
    )


def push_of(
    sync: Sync,
    current: Environment,
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext | dg.OpExecutionContext,
    *,
    patience: float | None = None,
) -> Push:
    """What this run pushes with. `patience` in seconds, where it is not the run's own."""
    run_id = context.run.run_id
    record = context.instance.get_run_record_by_id(run_id)
    zone = ZoneInfo(sync.mapping.schedule.timezone) if sync.mapping.schedule else UTC
    started = record.start_time if record is not None and record.start_time else time.time()
    return Push(
        store=current.store,
        target=current.target,
        memory_limit=current.memory_limit,
        sync=sync.name,
        mapping=sync.mapping,
        run_id=run_id,
        run_started_at=datetime.fromtimestamp(started, zone),
        report=context.log.info,
        bar=bar() if is_from_a_shell(context.run) else None,
        patience_seconds=patience_seconds(context.run) if patience is None else patience,
        replay=is_replay(context.run),
        without_guards=is_without_guards(context.run),
    )


def read_back_check(sync: Sync) -> dg.AssetChecksDefinition:
    return checks.read_back_check(
        asset=sync.key("acknowledged_attributes"),
        mapping=sync.mapping,
        push_of=partial(push_of, sync),
    )
