"""The conservation checks, broken on purpose: a row lost at any of its places fails the check of that place."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pytest

from connectors.tencent_push.ledger import Ledger, Settled
from connectors.tencent_push.outcomes import Change, Outcome
from pipelines import duplicates, failed_rows, frames, narrow
from pipelines.changes import FrameChanges
from pipelines.engine import Engine
from pipelines.narrow import KEY, Narrowed
from pipelines.refusals import RefusalWriter
from pipelines.sample_profiles import write_sample_profiles
from pipelines.source_rows import FILE, ROW
from tests.running import Ran, example_attributes, make_sync, run

FRAME_CHECK = "user_id_attributes:conservation"
PUSH_CHECK = "acknowledged_attributes:conservation"


@pytest.fixture
def run_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Ran]:
    monkeypatch.setenv("ATTRIBUTE_SYNC_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TENCENT_PUSH_CALLS_PER_SECOND", "2000")
    files = write_sample_profiles(tmp_path / "profiles", rows=2_000, seed=7)
    sync = make_sync(tmp_path, example_attributes([str(file) for file in files]))
    return lambda: run(sync)


def without_one(table: ir.Table) -> ir.Table:
    """All rows but one; which one is the engine's choice."""
    numbered = table.mutate(__place=ibis.row_number())
    return numbered.filter(numbered["__place"] != 17).drop("__place")


def losing(original: Callable[..., ir.Table]) -> Callable[..., ir.Table]:
    return lambda *arguments, **named: without_one(original(*arguments, **named))


def test_all_checks_hold_when_nothing_is_lost(run_small: Callable[[], Ran]) -> None:
    ran = run_small()
    assert ran.succeeded, ran.failure
    assert ran.checks()[FRAME_CHECK]
    assert ran.checks()[PUSH_CHECK]


@pytest.mark.parametrize("place", ["newest", "compared"])
def test_a_profile_lost_by_the_transform_fails_the_frames_check_before_any_call(
    place: str, run_small: Callable[[], Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, place, losing(getattr(frames, place)))
    ran = run_small()
    assert not ran.succeeded
    assert not ran.checks()[FRAME_CHECK]
    assert PUSH_CHECK not in ran.checks(), "nothing may be pushed after it"


def test_an_open_profile_lost_after_the_narrow_pass_fails_the_frames_check(
    run_small: Callable[[], Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = narrow.narrowed

    def lossy(*arguments: Any) -> Narrowed:
        found = original(*arguments)
        return replace(found, rows=without_one(found.rows))

    assert run_small().succeeded
    monkeypatch.setattr(frames, "narrowed", lossy)
    ran = run_small()
    assert not ran.succeeded
    assert not ran.checks()[FRAME_CHECK]


@pytest.mark.parametrize(
    ("part", "is_meant"),
    [
        ("_groups", lambda groups: groups.members > 2),  # an account with two profiles, taken for settled
        ("_groups", lambda groups: groups[KEY].isnull()),  # the profiles without account
        ("_known", lambda known: known[KEY].notnull()),  # an open account, taken for settled
    ],
)
def test_what_the_narrow_pass_takes_for_settled_and_is_not_fails_the_frames_check(
    part: str,
    is_meant: Callable[[ir.Table], ir.BooleanValue],
    run_small: Callable[[], Ran],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run_small().succeeded
    original = getattr(narrow, part)

    def lossy(*arguments: Any, **named: Any) -> ir.Table:
        rows = original(*arguments, **named)
        return (
            rows.mutate(__number=ibis.row_number())
            .anti_join(rows.mutate(__number=ibis.row_number()).filter(is_meant).limit(1), "__number")
            .drop("__number")
        )

    monkeypatch.setattr(narrow, part, lossy)
    ran = run_small()
    assert not ran.succeeded
    assert not ran.checks()[FRAME_CHECK]


@pytest.mark.parametrize("reason", ["account_missing", "account_invalid", "account_too_long"])
def test_an_irregular_profile_that_is_lost_fails_a_check_before_any_call(
    reason: str, run_small: Callable[[], Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = frames._irregular

    def lossy(*arguments: Any) -> ir.Table:
        rows = original(*arguments)
        is_meant = rows.is_missing if reason == "account_missing" else rows.status_user_id == reason
        first = rows.filter(is_meant).limit(1)
        return rows.anti_join(first, [FILE, ROW])

    monkeypatch.setattr(frames, "_irregular", lossy)
    ran = run_small()
    checks = ran.checks()
    assert not ran.succeeded
    assert not (checks[FRAME_CHECK] and checks["invalid_rows:conservation"])
    assert PUSH_CHECK not in checks, "nothing may be pushed after it"


def test_a_profile_taken_for_superseded_too_often_fails_the_frames_check(
    run_small: Callable[[], Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = duplicates.superseded

    def one_more(*arguments: Any) -> ir.Table:
        rows = original(*arguments)
        return rows.union(rows.limit(1))

    monkeypatch.setattr(frames, "superseded", one_more)
    ran = run_small()
    assert not ran.succeeded
    assert not ran.checks()[FRAME_CHECK]


def test_a_row_lost_while_the_frame_is_written_fails_the_frames_check(
    run_small: Callable[[], Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Engine.write_parquet

    def write(engine: Engine, expression: ir.Table, path: Path, **named: Any) -> int:
        lossy = without_one(expression) if path.name == "user_id.parquet" else expression
        return original(engine, lossy, path, **named)

    monkeypatch.setattr(Engine, "write_parquet", write)
    ran = run_small()
    assert not ran.succeeded
    assert not ran.checks()[FRAME_CHECK]


@pytest.mark.parametrize("place", ["invalid_rows", "with_source"])
def test_an_invalid_row_lost_on_its_way_to_the_file_fails_its_check_before_any_call(
    place: str, run_small: Callable[[], Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, place, losing(getattr(frames, place)))
    ran = run_small()
    assert not ran.succeeded
    assert not ran.checks()["invalid_rows:conservation"]
    assert PUSH_CHECK not in ran.checks(), "nothing may be pushed after it"


def test_an_unchanged_row_lost_from_a_frame_of_all_accounts_fails_the_frames_check(
    tmp_path: Path, run_small: Callable[[], Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [str(file) for file in (tmp_path / "profiles").glob("*.parquet")]
    assert run_small().succeeded
    original = Engine.write_parquet

    def write(engine: Engine, expression: ir.Table, path: Path, **named: Any) -> int:
        is_frame = path.name == "user_id.parquet"
        unchanged = expression.filter(expression.changed.length() == 0).limit(1) if is_frame else expression
        lossy = expression.anti_join(unchanged, ["account"]) if is_frame else expression
        return original(engine, lossy, path, **named)

    monkeypatch.setattr(Engine, "write_parquet", write)
    ran = run(make_sync(tmp_path, {**example_attributes(files), "frames": "all"}))
    assert not ran.succeeded
    assert not ran.checks()[FRAME_CHECK]


def test_an_account_that_stands_in_the_frame_twice_fails_its_check(
    run_small: Callable[[], Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Engine.write_parquet

    def write(engine: Engine, expression: ir.Table, path: Path, **named: Any) -> int:
        twice = expression.union(expression.limit(1)) if path.name == "user_id.parquet" else expression
        return original(engine, twice, path, **named)

    monkeypatch.setattr(Engine, "write_parquet", write)
    ran = run_small()
    assert not ran.succeeded
    assert not ran.checks()["user_id_attributes:one_row_per_account"]


def test_a_value_over_the_limit_fails_its_check(run_small: Callable[[], Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    original = Engine.write_parquet

    def write(engine: Engine, expression: ir.Table, path: Path, **named: Any) -> int:
        is_frame = path.name == "user_id.parquet"
        longer = expression.mutate(city=expression.city + "深圳" * 10) if is_frame else expression
        return original(engine, longer, path, **named)

    monkeypatch.setattr(Engine, "write_parquet", write)
    ran = run_small()
    assert not ran.succeeded
    assert not ran.checks()["user_id_attributes:values_within_limits"]


def test_a_change_that_never_reaches_the_sink_fails_the_push_check(
    run_small: Callable[[], Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = FrameChanges.__iter__

    def all_but_the_first(self: FrameChanges) -> Iterator[Change]:
        changes = original(self)
        next(changes)
        return changes

    monkeypatch.setattr(FrameChanges, "__iter__", all_but_the_first)
    ran = run_small()
    assert not ran.succeeded
    assert not ran.checks()[PUSH_CHECK]


def test_an_acknowledgement_missing_from_the_ledger_fails_the_push_check(
    run_small: Callable[[], Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Ledger.record

    def forgetful(ledger: Ledger, sent: Any = (), settled: Sequence[Settled] = ()) -> int:
        return original(ledger, sent, [replace(each, acknowledged=each.acknowledged[1:]) for each in settled])

    monkeypatch.setattr(Ledger, "record", forgetful)
    ran = run_small()
    assert not ran.succeeded
    assert not ran.checks()[PUSH_CHECK]


def test_a_refusal_that_is_not_written_down_fails_the_push_check(
    run_small: Callable[[], Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = RefusalWriter.add
    dropped: list[Outcome] = []

    def forgetful(writer: RefusalWriter, outcomes: Sequence[Outcome], *arguments: Any) -> None:
        kept = list(outcomes)
        if not dropped and kept:
            dropped.append(kept.pop())
        original(writer, kept, *arguments)

    monkeypatch.setattr(RefusalWriter, "add", forgetful)
    ran = run_small()
    assert dropped
    assert not ran.succeeded
    assert not ran.checks()[PUSH_CHECK]


def test_a_failed_row_lost_on_its_way_to_the_file_fails_the_push_check(
    run_small: Callable[[], Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failed_rows, "_with_history", losing(failed_rows._with_history))
    ran = run_small()
    assert not ran.succeeded
    assert not ran.checks()[PUSH_CHECK]
