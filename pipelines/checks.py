"""The asset checks of a sync. A blocking one that fails stops what comes after it and fails the run."""

import time
from collections.abc import Callable, Mapping

import dagster as dg
import ibis

from connectors.tencent_push.pacing import Quota
from connectors.tencent_push.protocol import MAX_VALUE_BYTES, Command
from pipelines.acknowledged import certainly_held
from pipelines.adopt import adopted_at
from pipelines.engine import Engine
from pipelines.errors import EXPECTED_ERRORS
from pipelines.frames import Frame
from pipelines.freshness import Newest, hours, stale_text
from pipelines.guards import measured
from pipelines.mapping import SyncMapping
from pipelines.push import Push
from pipelines.push_result import FrameSet, PushResult
from pipelines.read_back import SAMPLE_ACCOUNTS, ReadBack, read_back
from pipelines.resources import Environment, EnvironmentResource
from pipelines.runs import GUARDS as GUARDS_TAG
from pipelines.source_options import MaxAge

CONSERVATION = "conservation"
ONE_ROW_PER_ACCOUNT = "one_row_per_account"
VALUES_WITHIN_LIMITS = "values_within_limits"
GUARDS = "guards"
FRESH = "fresh"

_FRAME_CHECKS: Mapping[str, str] = {
    CONSERVATION: "profiles = without account + superseded + invalid + unchanged + changed - departed",
    ONE_ROW_PER_ACCOUNT: "No account stands in the frame twice.",
    VALUES_WITHIN_LIMITS: f"Every value has 1 to {MAX_VALUE_BYTES} UTF-8 bytes.",
    GUARDS: "The YAML's `guards` stop the run before its first call.",
}


def fresh_check_spec(asset: dg.AssetKey, max_age: MaxAge) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        FRESH,
        asset=asset,
        description=f"The source's newest `updated_at` is at most {max_age.age} old.",
        blocking=max_age.blocking,
    )


def check_fresh(
    newest: Newest | None, max_age: MaxAge | None, asset: dg.AssetKey, *, let_pass: bool
) -> list[dg.AssetCheckResult]:
    """Nothing where nothing is asked; `let_pass`: somebody lets this run pass, so that it warns only."""
    if max_age is None:
        return []
    stale = stale_text(newest, max_age)
    stops = max_age.blocking and not let_pass
    facts: dict[str, float | str] = {"max_age": max_age.age}
    if newest is not None and newest.age is not None:
        facts["age_hours"] = round(hours(newest.age), 2)
    how = " Nothing was sent; `--without-guards` lets one run pass." if stale and stops else ""
    return [
        dg.AssetCheckResult(
            asset_key=asset,
            check_name=FRESH,
            passed=stale is None,
            severity=dg.AssetCheckSeverity.ERROR if stops else dg.AssetCheckSeverity.WARN,
            metadata=facts,
            description=f"{stale}{how}" if stale else None,
        )
    ]


def frame_check_specs(asset: dg.AssetKey, *, prefix: str = "", stopping_guards: bool = True) -> list[dg.AssetCheckSpec]:
    """`prefix` tells the frames apart where one asset has them all."""
    return [
        dg.AssetCheckSpec(
            f"{prefix}{name}", asset=asset, description=description, blocking=stopping_guards or name != GUARDS
        )
        for name, description in _FRAME_CHECKS.items()
    ]


def check_frame(frame: Frame, asset: dg.AssetKey, *, prefix: str = "") -> list[dg.AssetCheckResult]:
    """The three checks of a frame as it stands on disk."""
    counts = frame.counts
    return [
        dg.AssetCheckResult(
            asset_key=asset,
            check_name=f"{prefix}{CONSERVATION}",
            passed=counts.is_conserved and frame.rows == frame.chosen_rows,
            metadata={
                "profiles": counts.profiles,
                "classified": counts.classified,
                "without_account": counts.without_account,
                "superseded": counts.superseded,
                "invalid": counts.invalid,
                "unchanged": counts.unchanged,
                "changed": counts.changed,
                "departed": counts.departed,
                "chosen_rows": frame.chosen_rows,
                "rows": frame.rows,
            },
        ),
        dg.AssetCheckResult(
            asset_key=asset,
            check_name=f"{prefix}{ONE_ROW_PER_ACCOUNT}",
            passed=frame.rows == frame.accounts,
            metadata={"rows": frame.rows, "accounts": frame.accounts},
        ),
        dg.AssetCheckResult(
            asset_key=asset,
            check_name=f"{prefix}{VALUES_WITHIN_LIMITS}",
            passed=frame.smallest_value_bytes >= 1 and frame.largest_value_bytes <= MAX_VALUE_BYTES,
            metadata={"smallest_bytes": frame.smallest_value_bytes, "largest_bytes": frame.largest_value_bytes},
        ),
    ]


def check_guards(
    frames: FrameSet, frame: Frame, asset: dg.AssetKey, *, push: Push, prefix: str = "", stopping: bool = True
) -> dg.AssetCheckResult:
    """Fails when a guard is broken, unless somebody lets this run pass; the numbers are told either way."""
    guards, kind = push.mapping.guards, frame.account_type
    found = measured(
        frame.counts, kind, failed_profiles=frames.failed_profiles, generation=frames.generations[kind].number
    )
    broken = " ".join(found.broken(guards))
    advice = "The run was let pass." if push.without_guards else _how_to_pass(frames, push)
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=f"{prefix}{GUARDS}",
        passed=not broken or push.without_guards,
        severity=dg.AssetCheckSeverity.ERROR if stopping else dg.AssetCheckSeverity.WARN,
        metadata={**found.facts(guards), "let_pass": push.without_guards},
        description=f"{kind}: {broken} {advice}" if broken else None,
    )


def _how_to_pass(frames: FrameSet, push: Push) -> str:
    found = push.store.address(frames.invalid_rows)
    return (
        f"Nothing was sent; what validation found stands in {found}. Mend the source; or, if all this is "
        f"right, let one run pass: `python -m pipelines run {push.sync} --without-guards`, or in Dagster's own page a "
        f'run with the tag {GUARDS_TAG}: "off".'
    )


def invalid_rows_check_spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        CONSERVATION, asset=asset, description="Every row that validation found stands in the file.", blocking=True
    )


def check_invalid_rows(frames: FrameSet, asset: dg.AssetKey) -> dg.AssetCheckResult:
    written = sum(frames.invalid_by_reason.values())
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=CONSERVATION,
        passed=written == frames.invalid_found,
        metadata={"found": frames.invalid_found, "written": written},
    )


def push_check_spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        CONSERVATION,
        asset=asset,
        description="changed = acknowledged + rejected + errored + not attempted, and every failed row is in the file",
        blocking=True,
    )


def check_push(result: PushResult, asset: dg.AssetKey) -> dg.AssetCheckResult:
    """Counted from the ledger, the frames and the failed rows as they stand on disk."""
    facts = {
        "failed_rows": result.failed_row_count,
        "invalid_rows": result.invalid_row_count,
        "refusals": result.refusal_count,
        **result.tally_counts(),
    }
    return dg.AssetCheckResult(asset_key=asset, check_name=CONSERVATION, passed=result.is_conserved, metadata=facts)


def read_back_check(
    *,
    asset: dg.AssetKey,
    mapping: SyncMapping,
    push_of: Callable[[Environment, dg.AssetCheckExecutionContext], Push],
    wait: Callable[[float], object] = time.sleep,
) -> dg.AssetChecksDefinition:
    """A sample of the acknowledged attributes, read back with get_attr. It warns and blocks nothing."""

    @dg.asset_check(
        asset=asset,
        name="read_back",
        description="A sample read back from Tencent holds the values that it acknowledged.",
    )
    def check(context: dg.AssetCheckExecutionContext, environment: EnvironmentResource) -> dg.AssetCheckResult:
        try:
            current = environment.current()
            push = push_of(current, context)
            expected = sample_acknowledged(push, current)
            with current.target.open(current.store.emulator_file(push.sync), mapping.declared()) as client:
                pacer = Quota(current.target.calls_per_second).pacer(Command.GET_ATTR)
                found = read_back(client, expected, pacer=pacer, wait=wait)
        except EXPECTED_ERRORS as error:
            return dg.AssetCheckResult(
                passed=False, severity=dg.AssetCheckSeverity.WARN, description=f"Nothing could be read back. {error}"
            )
        adopted = [moment for kind in mapping.account_types() if (moment := adopted_at(push.acknowledged(kind)))]
        return _read_back_result(found, adopted=max(adopted, default=None))

    return check


def _read_back_result(found: ReadBack, *, adopted: str | None) -> dg.AssetCheckResult:
    facts: dict[str, int | float] = {"sampled": found.sampled, "matching": found.matching}
    if found.sampled:
        facts["mismatch_share_bound"] = round(found.mismatch_share_bound, 4)
    return dg.AssetCheckResult(
        passed=found.mismatched == 0,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=facts,
        description=_read_back_text(found, adopted=adopted),
    )


def _read_back_text(found: ReadBack, *, adopted: str | None) -> str:
    text = f"{found.matching:,} of {found.sampled:,} sampled accounts hold the values that were acknowledged"
    if found.mismatched == 0:
        return text
    doubt = f", or what was adopted {adopted} was not there" if adopted else ""
    return (
        f"{text}: something else changes the app, or its data were reset{doubt}. To send everything again, remove this "
        "sync's folder in the data folder's acknowledged/target=..., then run again"
    )


def sample_acknowledged(push: Push, current: Environment) -> dict[str, dict[str, str | None]]:
    """At most `SAMPLE_ACCOUNTS` accounts of all that are acknowledged, drawn at random, with what they must hold."""
    expected: dict[str, dict[str, str | None]] = {}
    kinds = list(push.mapping.account_types())
    push.refresh()
    with (
        current.store.temporary(push.run_id) as folder,
        Engine(folder, memory_limit=current.memory_limit) as engine,
    ):
        for kind in kinds:
            known = push.acknowledged(kind).table(engine)
            if known is None:
                continue
            certain = certainly_held(known, push.mapping.account_types()[kind].attributes)
            for row in engine.rows(certain.order_by(ibis.random()).limit(SAMPLE_ACCOUNTS // len(kinds))):
                account = row.pop("account")
                held = {name: value for name, value in row.items() if value is not None}
                expected.setdefault(account, {}).update(held)
    return expected
