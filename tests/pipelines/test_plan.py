"""The dry run tells what the next run does, sends nothing, shows nobody's value, and stands in no run's way."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from filelock import FileLock

from connectors.tencent_push.emulator import Emulator, RefuseCall, RefuseRows
from connectors.tencent_push.protocol import AccountType, Command
from pipelines import plan as module
from pipelines.acknowledged import Generation
from pipelines.attribute_sync import build_definitions
from pipelines.definitions import SHARED
from pipelines.errors import EngineError
from pipelines.frame_sets import compute_frame_set
from pipelines.plan import Plan, masked
from pipelines.push import Push
from pipelines.resources import environment_from, push_pool
from pipelines.runs import process_tags
from pipelines.sharing import put_limit_in_force
from tests.project import Project
from tests.running import Ran, make_sync, run, write_profiles

USER = AccountType.USER_ID
ATTRIBUTES: dict[str, Any] = {
    "source": {"parquet": "profiles.parquet"},
    "accounts": {
        "user_id": {"column": "user_id", "attributes": {"city": "city", "level": {"column": "level", "null": "remove"}}}
    },
    "schedule": {"cron": "0 2 * * *", "timezone": "Asia/Shanghai"},
}
QUIET: dict[str, Any] = {"telemetry": {"enabled": False}}
Profiles = Mapping[str, tuple[str | None, str | None]]


@pytest.fixture
def app(live_app: Emulator) -> Emulator:
    live_app.declare({"city": USER, "level": USER})
    return live_app


def night(folder: Path, profiles: Profiles, *, suffix: str = "", **attributes: Any) -> Ran:
    columns: Sequence[Sequence[str | None]] = list(zip(*profiles.values(), strict=True))
    rows = {"user_id": list(profiles), "city": columns[0], "level": columns[1]}
    write_profiles(folder / "profiles.parquet", rows)
    return run(make_sync(folder, {**ATTRIBUTES, **attributes}), suffix=suffix)


def planned(folder: Path, profiles: Profiles, **attributes: Any) -> tuple[Plan, Ran]:
    ran = night(folder, profiles, suffix="_plan", **attributes)
    assert ran.succeeded, ran.failure
    value: Plan = ran.result.asset_value(ran.sync.key("plan"))
    return value, ran


def people(count: int, city: str = "上海", level: str | None = "gold") -> dict[str, tuple[str | None, str | None]]:
    return {f"user-{number}": (city, level) for number in range(count)}


def writing_calls(app: Emulator) -> int:
    return len(app.calls.of(Command.SET_ATTR)) + len(app.calls.of(Command.REMOVE_ATTR))


def test_a_plan_sends_nothing_and_the_run_after_it_makes_the_calls_that_it_told(tmp_path: Path, app: Emulator) -> None:
    profiles = people(250)
    assert night(tmp_path, profiles).succeeded
    before = writing_calls(app)
    tomorrow = profiles | people(101, "北京") | {f"user-{number}": ("上海", None) for number in range(200, 250)}
    plan, _ = planned(tmp_path, tomorrow)
    assert writing_calls(app) == before
    (frame,) = plan.plans
    assert (frame.calls.set_calls, frame.calls.remove_calls, plan.calls) == (2, 1, 3)
    assert frame.frame.changed_attributes == {"city": 101, "level": 0}
    assert frame.removed_attributes == {"city": 0, "level": 50}
    assert (frame.frame.counts.unchanged, frame.avoided_calls) == (99, 1)
    assert plan.seconds == 2 / 1_000
    again, _ = planned(tmp_path, tomorrow)
    assert again.calls == 3, "a plan changes nothing"

    ran = night(tmp_path, tomorrow)
    assert writing_calls(app) - before == 3
    facts = ran.metadata("acknowledged_attributes")
    assert (facts["planned_calls"], facts["user_id_planned_calls"], facts["calls"]) == (3, 3, 3)
    assert "    planned                  3   in 0.0 s at the quota" in str(
        ran.result.asset_value(ran.sync.key("failure_report")).text
    )


def test_a_plan_tells_its_numbers_in_metadata_and_when_it_would_end(tmp_path: Path, app: Emulator) -> None:
    plan, ran = planned(tmp_path, people(150))
    facts = ran.metadata("plan")
    assert {name: facts[name] for name in ("calls", "calls_avoided", "user_id_changed", "user_id_set_calls")} == {
        "calls": 2, "calls_avoided": 0, "user_id_changed": 150, "user_id_set_calls": 2,
    }  # fmt: skip
    assert facts["guards_stop_the_run"] is False
    assert len(facts["sample"]) == 10
    assert str(facts["expected_finish"]).endswith("+08:00")
    assert plan.finish - plan.made_at == timedelta(seconds=plan.frames_seconds + plan.seconds)
    assert 0 < plan.frames_seconds < 60
    assert f"{plan.finish:%Y-%m-%d %H:%M:%S} (Asia/Shanghai)" in plan.text
    assert abs(datetime.now(UTC) - plan.made_at) < timedelta(minutes=5)


def test_no_whole_value_and_no_account_is_shown(
    tmp_path: Path, app: Emulator, capfd: pytest.CaptureFixture[str]
) -> None:
    secrets = {f"konto-{number}-geheim": (f"Straße-{number}-geheim", "金卡会员") for number in range(30)}
    plan, ran = planned(tmp_path, secrets)
    told = [plan.text, str(plan.facts()), str(ran.metadata("plan")), "".join(capfd.readouterr())]
    told += [str(event) for event in ran.result.all_events]
    for text in told:
        for planted in ("geheim", "金卡会员", "konto-", "Straße"):
            assert planted not in text
    shown = re.compile(r"user_id k… \(1[45] bytes\): set city S… \(1[67] bytes\), level 金… \(12 bytes\)")
    assert len(plan.sample) == 10
    assert all(shown.fullmatch(change) for change in plan.sample), plan.sample


@pytest.mark.parametrize(
    ("text", "shown"), [("上海", "上… (6 bytes)"), ("ab", "a… (2 bytes)"), ("m", "… (1 byte)"), ("上", "… (3 bytes)")]
)
def test_a_masked_text_shows_a_first_character_that_is_not_all_of_it(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_what_was_refused_in_the_last_run_is_told_by_reason(tmp_path: Path, app: Emulator) -> None:
    profiles = people(40)
    for number in range(3):
        app.forget(f"user-{number}")
    app.faults.add(RefuseRows({"user-5": 90001, "user-6": 90001}))
    assert night(tmp_path, profiles).succeeded
    plan, ran = planned(tmp_path, profiles)
    (frame,) = plan.plans
    assert frame.withheld == 2
    assert sum(frame.refused_again.values()) == 5
    assert frame.refused_again["account_unknown"] == 3
    assert frame.calls.total == 1
    assert "account_unknown 3" in plan.text
    assert "; 2 requests are not sent" in plan.text
    assert ran.metadata("plan")["user_id_refused_again_account_unknown"] == 3
    plan, _ = planned(tmp_path, {name: values for name, values in profiles.items() if name != "user-0"})
    assert plan.plans[0].refused_again["account_unknown"] == 2, "who has left is not sent"


def test_what_is_withheld_takes_no_call_and_what_goes_alone_takes_one(tmp_path: Path, app: Emulator) -> None:
    app.faults.add(RefuseRows({"user-100": 90001, "user-101": 90001}))
    assert night(tmp_path, people(102)).succeeded
    tomorrow = people(102) | people(100, "北京")
    assert planned(tmp_path, tomorrow)[0].calls == 1, "the two are not sent"

    app.faults.add(RefuseCall(70107), accounts={"user-0"}, times=None)
    assert night(tmp_path, tomorrow).succeeded
    tomorrow |= people(100, "深圳") | {"user-0": ("北京", "gold")}
    plan, _ = planned(tmp_path, tomorrow)
    before = writing_calls(app)
    assert night(tmp_path, tomorrow).succeeded
    assert plan.calls == writing_calls(app) - before == 2


def test_a_guard_that_would_stop_the_run_is_told_and_fails_no_plan(tmp_path: Path, app: Emulator) -> None:
    plan, ran = planned(tmp_path, people(9), guards={"min_profiles": 10})
    assert "guards          would stop the run:" in plan.text
    assert "user_id: The source has 9 profiles" in plan.text
    assert ran.checks()["plan:user_id_guards"] is False
    assert ran.metadata("plan")["guards_stop_the_run"] is True
    assert all(passed for name, passed in ran.checks().items() if not name.endswith("guards"))


def test_a_plan_beside_a_running_push_takes_nothing_over_and_says_so(tmp_path: Path, app: Emulator) -> None:
    assert night(tmp_path, people(5)).succeeded
    frames = sorted(path for path in (tmp_path / "data/frames").rglob("*") if path.is_file())
    (state,) = (tmp_path / "data/acknowledged").rglob("state.json")
    ledger = state.with_name("of-a-running-push.ledger")
    ledger.write_bytes(b"torn")  # it would be folded, that is removed
    environment = environment_from({"ATTRIBUTE_SYNC_DATA": str(tmp_path / "data")} | _credentials(app))
    with FileLock(environment.target.data_lock(environment.store)):
        plan, _ = planned(tmp_path, people(5, "北京"))
    assert ledger.exists()
    assert "A push is running: another run pushes to app" in plan.text
    assert sorted(path for path in (tmp_path / "data/frames").rglob("*") if path.is_file()) == frames
    plan, ran = planned(tmp_path, people(5, "北京"))
    assert not ledger.exists()
    assert plan.notes == ()
    assert {event.asset_key for event in ran.result.get_asset_materialization_events()} == {ran.sync.key("plan")}


def _credentials(app: Emulator) -> dict[str, str]:
    return {
        "TENCENT_PUSH_SDKAPPID": "1400000000",
        "TENCENT_PUSH_IDENTIFIER": "administrator",
        "TENCENT_PUSH_SECRET_KEY": "x",
        "TENCENT_PUSH_BASE_URL": app.base_url,
    }


def test_a_plan_beside_a_push_of_the_same_history_waits_for_nothing(tmp_path: Path, app: Emulator) -> None:
    sync = make_sync(tmp_path, ATTRIBUTES)
    write_profiles(tmp_path / "profiles.parquet", {"user_id": ["a"], "city": ["x"], "level": ["y"]})
    (tmp_path / "history").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "history"), overrides=QUIET) as instance:
        put_limit_in_force(instance, push_pool())
        job = dg.Definitions.merge(build_definitions(sync), SHARED).resolve_job_def("nightly")
        other = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        instance.add_run_tags(other.run_id, process_tags(other.run_id))
        assert instance.event_log_storage.claim_concurrency_slot(push_pool(), other.run_id, "push").is_claimed
        ran = run(sync, instance=instance, suffix="_plan")
    assert ran.succeeded, ran.failure
    assert other.run_id in ran.metadata("plan")["notes"]


def test_a_state_that_a_push_replaces_meanwhile_is_read_again(
    tmp_path: Path, app: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert night(tmp_path, people(2)).succeeded
    readings = 0
    compute, states = compute_frame_set, module._states

    def once_gone(*given: Any, **named: Any) -> Any:
        nonlocal readings
        readings += 1
        if readings == 1:
            raise EngineError("the file is gone")
        return compute(*given, **named)

    def compacted(push: Push) -> dict[AccountType, Generation]:
        """Of the same generation: a part that was read is gone, another one stands for it."""
        return {kind: replace(state, hash_version=str(readings)) for kind, state in states(push).items()}

    monkeypatch.setattr(module, "compute_frame_set", once_gone)
    assert not night(tmp_path, people(2), suffix="_plan").succeeded, "nothing was replaced: it is an error"
    readings = 0
    monkeypatch.setattr(module, "_states", compacted)
    plan, _ = planned(tmp_path, people(2))
    assert (plan.calls, readings) == (0, 2)


def test_the_frames_of_old_plans_go(tmp_path: Path, app: Emulator) -> None:
    for _ in range(4):
        plan, _ = planned(tmp_path, people(2))
    runs = list((tmp_path / "data/plans/sync=nightly").iterdir())
    assert len(runs) == 3
    assert plan.plans[0].frame.path.parent in runs
    assert list((tmp_path / "data/temporary").iterdir()) == []


def test_the_command_plans_while_another_run_holds_the_app(tmp_path: Path) -> None:
    project = Project.copy_to(tmp_path / "project")
    project.make_profiles(300)
    lock = project.folder / "data/locks/emulator-1400000000.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        ran = project.run("-m", "pipelines", "plan", "example")
    assert ran.returncode == 0, ran.stderr
    for told in ("nothing was sent", "A push is running", "expected finish", "a sample of the changes"):
        assert told in ran.stdout
    assert project.run("-m", "pipelines", "list").stdout == "example\n"
