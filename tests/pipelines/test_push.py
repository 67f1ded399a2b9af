"""The push around the sink: which frames it takes, whom it waits for, and that the newest value is what stays."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from connectors.tencent_push.emulator import (
    CloseAfterAnswer,
    Emulator,
    HalfBody,
    NotJson,
    RefuseCall,
    RefuseRows,
    ResetAfterWrite,
    ResetBeforeWrite,
    SeenCall,
    Status,
)
from connectors.tencent_push.protocol import AccountType
from pipelines import checks
from pipelines.errors import DataFolderError
from pipelines.push import Push
from pipelines.resources import environment_from
from pipelines.runs import GUARDS
from tests.running import Ran, emulator_state, make_sync, run, write_profiles

ATTRIBUTES: dict[str, Any] = {
    "source": {"parquet": "profiles/*.parquet"},
    "updated_at": "updated_at",
    "accounts": {"user_id": {"column": "user_id", "attributes": {"city": {"column": "city", "null": "remove"}}}},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTRIBUTE_SYNC_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TENCENT_PUSH_CALLS_PER_SECOND", "1000")
    return tmp_path


def night(
    folder: Path,
    cities: dict[str, str | None],
    attributes: dict[str, Any] | None = None,
    tags: dict[str, str] | None = None,
    **columns: Any,
) -> Ran:
    """One run over one profile per account."""
    rows: dict[str, Any] = {"user_id": list(cities), "city": list(cities.values()), "updated_at": [0.0] * len(cities)}
    write_profiles(folder / "profiles/one.parquet", {**rows, **columns})
    return run(make_sync(folder, attributes or ATTRIBUTES), tags=tags)


def test_frames_that_were_computed_against_another_target_are_not_pushed(folder: Path) -> None:
    ran = night(folder, {"a": "x"})
    frames = replace(ran.pushed.frames, target="console.tim.qq.com-1400000001")
    push = ran_push(folder, ran)
    with (
        push.target.open(folder / "unused.sqlite", {}) as client,
        pytest.raises(DataFolderError, match="computed against console"),
    ):
        push.run(frames, client)


def ran_push(folder: Path, ran: Ran) -> Push:
    environment = environment_from({"ATTRIBUTE_SYNC_DATA": str(folder / "data")})
    return Push(
        store=environment.store,
        target=environment.target,
        memory_limit="1GB",
        sync=ran.sync.name,
        mapping=ran.sync.mapping,
        run_id="again",
        run_started_at=datetime.now(UTC),
        report=lambda _: None,
    )


def test_a_value_that_becomes_null_is_removed_and_comes_back(folder: Path) -> None:
    nights: list[tuple[dict[str, str | None], dict[str, dict[str, str]]]] = [
        ({"a": "深圳", "b": "x"}, {"a": {"city": "深圳"}, "b": {"city": "x"}}),
        ({"a": None, "b": "x"}, {"b": {"city": "x"}}),
        ({"a": "深圳", "b": ""}, {"a": {"city": "深圳"}}),
    ]
    for cities, expected in nights:
        ran = night(folder, cities)
        assert ran.succeeded, ran.failure
        state = emulator_state(folder / "data")
        assert {account: values for account, values in state.items() if values} == expected
        assert ran.checks()["acknowledged_attributes:read_back"]


def test_what_is_no_time_is_older_than_every_time(folder: Path) -> None:
    write_profiles(
        folder / "profiles/one.parquet",
        {
            "user_id": ["a"] * 4,
            "city": ["nan", "inf", "newest", "null"],
            "updated_at": [float("nan"), float("inf"), 5.0, None],
        },
    )
    ran = run(make_sync(folder, ATTRIBUTES))
    assert ran.succeeded, ran.failure
    assert emulator_state(folder / "data") == {"a": {"city": "newest"}}


def test_an_attribute_renamed_in_case_only_is_refused_before_any_call(folder: Path) -> None:
    assert night(folder, {"a": "x"}).succeeded
    accounts = {"user_id": {"column": "user_id", "attributes": {"City": "city"}}}
    ran = night(folder, {"a": "y"}, {**ATTRIBUTES, "accounts": accounts})
    assert not ran.succeeded
    assert "'City' was acknowledged as 'city' before" in ran.failure
    assert emulator_state(folder / "data") == {"a": {"city": "x"}}


def test_attributes_named_like_the_engines_own_words_are_sent(folder: Path) -> None:
    names = ["self", "number", "known_city", "select", "group", "value_0"]
    accounts = {"user_id": {"column": "user_id", "attributes": dict.fromkeys(names, "city")}}
    for city in ("x", "y"):
        ran = night(folder, {"a": city}, {**ATTRIBUTES, "accounts": accounts})
        assert ran.succeeded, ran.failure
        assert emulator_state(folder / "data") == {"a": dict.fromkeys(names, city)}


def test_a_read_back_that_finds_something_else_warns_with_what_to_do(folder: Path) -> None:
    assert night(folder, {"a": "x", "b": "x"}).succeeded
    with Emulator(folder / "data/emulator/nightly.sqlite") as emulator:
        emulator.forget("b")
    ran = night(folder, {"a": "x", "b": "x"})
    assert ran.succeeded, "it warns and blocks nothing"
    assert not ran.checks()["acknowledged_attributes:read_back"]
    (check,) = [each for each in ran.result.get_asset_check_evaluations() if each.check_name == "read_back"]
    assert "1 of 2 sampled accounts" in str(check.description)
    assert "run again" in str(check.description)


def test_a_read_back_that_cannot_be_made_warns_and_fails_no_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise DataFolderError("no space left")

    monkeypatch.setattr(checks, "sample_acknowledged", full)
    ran = night(folder, {"a": "x"})
    assert ran.succeeded, ran.failure
    (check,) = [each for each in ran.result.get_asset_check_evaluations() if each.check_name == "read_back"]
    assert not check.passed
    assert str(check.description) == "Nothing could be read back. no space left"


def guarded(live_app: Emulator, *, fraction: float | None) -> dict[str, Any]:
    live_app.declare({"city": AccountType.USER_ID})
    return {**ATTRIBUTES, "guards": {"max_failed_fraction": fraction} if fraction else {}}


@pytest.mark.parametrize(
    ("fraction", "tags", "stops"),
    [(0.2, {}, True), (0.5, {}, False), (None, {}, False), (0.2, {GUARDS: "off"}, False)],
    ids=["above the limit", "below it", "no guard", "let pass"],
)
def test_a_push_that_fails_more_often_than_the_guard_allows_stops(
    fraction: float | None,
    tags: dict[str, str],
    stops: bool,
    *,
    folder: Path,
    live_app: Emulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TENCENT_PUSH_CALLS_PER_SECOND", "100")  # so that calls are answered before all have left
    accounts = [f"u{number}" for number in range(3_000)]
    attributes = guarded(live_app, fraction=fraction)
    assert night(folder, dict.fromkeys(accounts, "x"), attributes).succeeded
    live_app.faults.add(RefuseRows(dict.fromkeys(accounts[::3], 70402)), times=None)
    ran = night(folder, dict.fromkeys(accounts, "y"), attributes, tags)
    assert ran.succeeded is not stops
    tally = ran.pushed.tallies[AccountType.USER_ID]
    assert tally.is_conserved
    assert (tally.not_attempted > 0) is stops
    if stops:
        assert "max_failed_fraction" in ran.failure
        assert tally.rejected + tally.errored + tally.acknowledged >= 1_000
        assert {row["outcome"] for row in ran.failed_rows} == {"rejected", "not_attempted"}


def test_the_guard_on_failures_does_not_apply_to_a_first_run(folder: Path, live_app: Emulator) -> None:
    accounts = [f"u{number}" for number in range(3_000)]
    attributes = guarded(live_app, fraction=0.01)
    live_app.faults.add(RefuseRows(dict.fromkeys(accounts[::3], 70402)), times=None)
    ran = night(folder, dict.fromkeys(accounts, "x"), attributes)
    assert ran.succeeded, ran.failure
    assert len(ran.failed_rows) == 1_000


TRANSIENT = (
    Status(502), Status(503), Status(429), ResetBeforeWrite(), ResetAfterWrite(), HalfBody(), NotJson(),
    CloseAfterAnswer(), RefuseCall(60007), RefuseCall(70500), RefuseCall(91000), RefuseCall(60008),
)  # fmt: skip


def test_one_call_in_twenty_failing_at_random_leaves_no_failed_row(folder: Path, live_app: Emulator) -> None:
    live_app.declare({"city": AccountType.USER_ID})
    chance = Random(20)

    def is_chosen(call: SeenCall) -> bool:
        return bool(call.accounts) and chance.random() < 0.05 / len(TRANSIENT)

    for fault in TRANSIENT:
        live_app.faults.add(fault, when=is_chosen, times=None)
    accounts = [f"用户{number}" for number in range(40_000)]
    ran = night(folder, dict.fromkeys(accounts, "上海"))
    assert ran.succeeded, ran.failure
    assert ran.failed_rows == []
    tally = ran.pushed.tallies[AccountType.USER_ID]
    assert (tally.changed, tally.acknowledged) == (40_000, 40_000)
    assert ran.checks()["acknowledged_attributes:conservation"]
    report = ran.pushed.reports[AccountType.USER_ID]
    assert report.resent_rows > 0, "some did fail"
    assert dict(live_app.attributes()) == {account: {"city": "上海"} for account in accounts}
    again = night(folder, dict.fromkeys(accounts, "上海"))
    assert again.pushed.reports[AccountType.USER_ID].calls.total() == 0
