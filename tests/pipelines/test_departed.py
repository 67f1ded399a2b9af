"""Accounts that no profile has any more: left alone or cleared, from the frame to the state, and told everywhere."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dagster as dg
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.tencent_push.emulator import Emulator, RefuseRows
from connectors.tencent_push.protocol import AccountType, Command
from pipelines import acknowledged, frames, read_back
from pipelines.guards import Measured
from pipelines.plan import Plan
from pipelines.runs import GUARDS
from pipelines.verify import Verified
from tests.running import Ran, make_sync, run, write_profiles

USER, DEVICE = AccountType.USER_ID, AccountType.REGISTRATION_ID
ACCOUNTS: dict[str, Any] = {
    "user_id": {"column": "user_id", "attributes": {"city": "city", "level": "level"}},
    "registration_id": {"column": "device_id", "attributes": {"device_city": "city"}},
}

USERS_ALONE = {"user_id": ACCOUNTS["user_id"]}


@pytest.fixture
def app(live_app: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    monkeypatch.setattr(read_back, "WAITS_SECONDS", (0.0,))  # an emulator shows every write at once
    live_app.declare({"city": USER, "level": USER, "device_city": DEVICE})
    return live_app


def device(number: int) -> str:
    return f"379C2F0D-290D-47AE-94D1-{number:012X}"


def write(folder: Path, users: Iterable[int], *, without_devices: bool = False) -> None:
    """Every tenth user has a device, every third no level."""
    numbers = list(users)
    devices = [device(number) if number % 10 == 0 and not without_devices else None for number in numbers]
    columns = {
        "user_id": [f"用户-{number}" for number in numbers],
        "city": [f"เมือง{number % 7}" for number in numbers],
        "level": [None if number % 3 == 0 else "gold" for number in numbers],
        "device_id": devices,
    }
    write_profiles(folder / "profiles.parquet", {name: pa.array(texts, pa.string()) for name, texts in columns.items()})


def night(
    folder: Path,
    users: Iterable[int],
    *,
    departed: str = "remove",
    suffix: str = "",
    tags: dict[str, str] | None = None,
    config: dict[str, Any] | None = None,
    without_devices: bool = False,
    **attributes: Any,
) -> Ran:
    write(folder, users, without_devices=without_devices)
    whole = {"source": {"parquet": "profiles.parquet"}, "accounts": ACCOUNTS, "departed": departed} | attributes
    return run(make_sync(folder, whole), suffix=suffix, tags=tags, config=config)


def calls(app: Emulator) -> tuple[int, int]:
    return len(app.calls.of(Command.SET_ATTR)), len(app.calls.of(Command.REMOVE_ATTR))


def held(app: Emulator) -> set[str]:
    return {account for account, attributes in app.attributes() if attributes}


def text_of(ran: Ran) -> str:
    return str(ran.result.asset_value(ran.sync.key("failure_report")).text)


def check_of(ran: Ran, name: str) -> dg.AssetCheckEvaluation:
    (check,) = (
        each
        for each in ran.result.get_asset_check_evaluations()
        if (each.asset_key.path[-1], each.check_name) == ("user_id_attributes", name)
    )
    return check


def test_who_departs_loses_everything_is_told_everywhere_and_is_not_met_again(tmp_path: Path, app: Emulator) -> None:
    assert night(tmp_path, range(250)).succeeded
    before = calls(app)
    ran = night(tmp_path, range(120))
    assert ran.succeeded, ran.failure
    assert all(ran.checks().values()), ran.checks()
    assert (calls(app)[0] - before[0], calls(app)[1] - before[1]) == (0, 3), "130 users and 13 devices"
    assert held(app) == {f"用户-{n}" for n in range(120)} | {device(n) for n in range(0, 120, 10)}

    tally = ran.pushed.tallies[USER]
    assert (tally.changed, tally.acknowledged) == (130, 130)
    facts = ran.metadata("user_id_attributes")
    assert (facts["departed"], facts["departed_to_remove"], facts["remove_calls"]) == (130, 130, 2)
    assert check_of(ran, "conservation").metadata["departed"].value == 130
    assert "departed               130   accounts that no profile has any more; among the changed" in text_of(ran)
    page = ran.result.asset_value(ran.sync.key("failure_report")).path.read_text(encoding="utf-8")
    assert "Accounts that no profile has any more:" in page
    assert "user_id 130" in page

    after = calls(app)
    again = night(tmp_path, range(120))
    assert calls(app) == after
    assert (again.pushed.tallies[USER].changed, again.metadata("user_id_attributes")["departed"]) == (0, 0)
    assert "departed" not in text_of(again)


def test_rows_of_departed_accounts_come_from_no_source(tmp_path: Path, app: Emulator) -> None:
    assert night(tmp_path, range(20)).succeeded
    ran = night(tmp_path, range(15))
    (frame, _) = ran.pushed.frames.frames
    rows = {row["account"]: row for row in pq.read_table(frame.path, partitioning=None).to_pylist()}
    assert rows.keys() == {f"用户-{number}" for number in range(15, 20)}
    for account, row in rows.items():
        assert (row["source_file"], row["source_row"], row["changed"], row["city"]) == (None, None, [], None)
        assert row["removed"] == (["city"] if account in ("用户-15", "用户-18") else ["city", "level"])


def test_a_removal_that_fails_is_told_without_a_source_and_tried_again(tmp_path: Path, app: Emulator) -> None:
    assert night(tmp_path, range(20)).succeeded
    app.faults.add(RefuseRows({"用户-17": 90995}), command=Command.REMOVE_ATTR, times=None)
    ran = night(tmp_path, range(15))
    assert ran.checks()["acknowledged_attributes:conservation"]
    (row,) = ran.failed_rows
    assert (row["account"], row["stage"], row["column"], row["attribute"]) == ("用户-17", "remove", "user_id", None)
    assert (row["source_file"], row["source_row"]) == (None, None)
    assert "No profile has the account any more" in row["explanation"]
    page = ran.result.asset_value(ran.sync.key("failure_report")).path.read_text(encoding="utf-8")
    told = [page, text_of(ran), *(str(event) for event in ran.result.all_events)]
    assert not [text for text in told if "用户" in text], "failed rows alone name accounts"
    app.faults.clear()
    again = night(tmp_path, range(15))
    assert again.pushed.tallies[USER].acknowledged == 1
    assert "用户-17" not in held(app)


def test_who_departed_from_the_app_as_well_is_told_once_and_not_tried_for_ever(tmp_path: Path, app: Emulator) -> None:
    assert night(tmp_path, range(20)).succeeded
    app.forget("用户-18")
    ran = night(tmp_path, range(15))
    assert ran.checks()["acknowledged_attributes:conservation"]
    assert (ran.pushed.tallies[USER].acknowledged, ran.pushed.tallies[USER].rejected) == (4, 1)
    (row,) = ran.failed_rows
    assert (row["account"], row["reason"], row["source_file"]) == ("用户-18", "account_unknown", None)
    assert row["fix"].startswith("Nothing to do")
    assert ran.checks()["acknowledged_attributes:read_back"], "of who was cleared nothing is read back"
    before = calls(app)
    again = night(tmp_path, range(15))
    assert calls(app) == before
    assert (again.failed_rows, again.metadata("user_id_attributes")["departed"]) == ([], 0)
    found = verify(tmp_path, range(15))
    assert (found.acknowledged, found.read, found.matching) == (17, 17, 17)


def test_without_that_rule_it_would_be_tried_for_ever(
    tmp_path: Path, app: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acknowledged, "unknown_departed", lambda *_, **__: np.empty(0, dtype=np.int64))
    assert night(tmp_path, range(20)).succeeded
    app.forget("用户-18")
    for _ in range(2):
        ran = night(tmp_path, range(19, 20), without_devices=True, accounts=USERS_ALONE)
        assert [(row["account"], row["reason"]) for row in ran.failed_rows] == [("用户-18", "account_unknown")]


def test_an_unknown_account_that_a_profile_has_is_tried_every_night(tmp_path: Path, app: Emulator) -> None:
    """The rule of the test above is about departed accounts alone."""
    assert night(tmp_path, range(3)).succeeded
    app.forget("用户-1")
    remove = {
        "user_id": {"column": "user_id", "attributes": {"city": "city", "level": {"column": "gone", "null": "remove"}}}
    }
    for _ in range(2):
        write_profiles(tmp_path / "profiles.parquet", {"user_id": ["用户-1"], "city": ["เมือง1"], "gone": [""]})
        source = {"source": {"parquet": "profiles.parquet"}, "accounts": remove}
        ran = run(make_sync(tmp_path, source))
        assert [(row["reason"], row["source_row"]) for row in ran.failed_rows] == [("account_unknown", 0)]
        assert "No profile" not in ran.failed_rows[0]["explanation"]


def test_who_comes_back_is_set_again(tmp_path: Path, app: Emulator) -> None:
    assert night(tmp_path, range(20)).succeeded
    app.forget("用户-18")
    assert night(tmp_path, range(15)).succeeded
    app.know("用户-18")
    assert night(tmp_path, range(20)).pushed.tallies[USER].acknowledged == 5
    assert {"用户-15", "用户-18"} <= held(app)


def test_the_state_forgets_who_was_cleared_when_its_parts_become_one(
    tmp_path: Path, app: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acknowledged, "is_worth_compacting", lambda parts: len(parts) > 1)
    assert night(tmp_path, range(20)).succeeded
    assert night(tmp_path, range(15)).succeeded
    (part,) = (tmp_path / "data/acknowledged").rglob("account_type=user_id/part-*.parquet")
    kept = pq.read_table(part, partitioning=None).column("account").to_pylist()
    assert sorted(kept) == sorted(f"用户-{number}" for number in range(15))
    before = calls(app)
    assert night(tmp_path, range(15)).metadata("user_id_attributes")["departed"] == 0
    assert calls(app) == before


def test_leave_tells_the_count_and_sends_nothing(tmp_path: Path, app: Emulator) -> None:
    assert night(tmp_path, range(20), departed="leave").succeeded
    before = calls(app)
    ran = night(tmp_path, range(8), departed="leave", guards={"max_changed_fraction": 0.5})
    assert ran.succeeded, "nothing would change"
    assert calls(app) == before
    facts = ran.metadata("user_id_attributes")
    assert (facts["departed"], facts["departed_to_remove"], facts["changed"]) == (12, 0, 0)
    assert "departed                12   accounts that no profile has any more; left as they are" in text_of(ran)
    assert len(held(app)) == 22


# Plan, guards, an empty source --------------------------------------------------------------------------------------


def test_a_plan_shows_the_departed_and_their_calls(tmp_path: Path, app: Emulator) -> None:
    assert night(tmp_path, range(250)).succeeded
    before = calls(app)
    planned = night(tmp_path, range(120), suffix="_plan")
    assert planned.succeeded, planned.failure
    plan: Plan = planned.result.asset_value(planned.sync.key("plan"))
    assert calls(app) == before
    assert (plan.plans[0].calls.remove_calls, plan.plans[0].frame.departed, plan.calls) == (2, 130, 3)
    facts = planned.metadata("plan")
    assert (facts["user_id_departed"], facts["user_id_departed_to_remove"]) == (130, 130)
    assert "departed               130   accounts that no profile has any more; among the changed" in plan.text
    assert "用户" not in plan.text
    ran = night(tmp_path, range(120))
    assert calls(app)[1] - before[1] == plan.calls
    assert ran.metadata("acknowledged_attributes")["planned_calls"] == 3
    assert (
        "left as they are"
        in night(tmp_path, range(119), departed="leave", suffix="_plan")
        .result.asset_value(planned.sync.key("plan"))
        .text
    )


def test_a_source_that_lost_half_its_users_breaks_the_guard(tmp_path: Path, app: Emulator) -> None:
    guards = {"max_changed_fraction": 0.4}
    assert night(tmp_path, range(40), guards=guards).succeeded
    before = calls(app)
    stopped = night(tmp_path, range(20), guards=guards)
    assert not stopped.succeeded
    assert calls(app) == before
    told = "20 of 40 accounts would change, 20 of them since no profile has them any more, a share of 0.5"
    assert told in str(check_of(stopped, "guards").description)
    assert check_of(stopped, "guards").metadata["departed"].value == 20
    assert night(tmp_path, range(20), guards=guards, tags={GUARDS: "off"}).succeeded
    assert len(held(app)) == 22


def test_a_guard_that_overlooked_the_departed_would_let_them_be_cleared(
    tmp_path: Path, app: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above would not see it where the run is stopped by something else."""
    guards = {"max_changed_fraction": 0.4}
    assert night(tmp_path, range(40), guards=guards).succeeded
    monkeypatch.setattr(Measured, "changed_fraction", property(lambda found: 0.0))
    assert night(tmp_path, range(20), guards=guards).succeeded
    assert len(held(app)) == 22


@pytest.mark.parametrize("suffix", ["", "_plan"])
def test_an_empty_source_clears_nobody(tmp_path: Path, app: Emulator, suffix: str) -> None:
    assert night(tmp_path, range(20)).succeeded
    before = calls(app)
    stopped = night(tmp_path, [], suffix=suffix)
    assert not stopped.succeeded
    assert "would remove the attributes of all 20 accounts that are acknowledged. Nothing was sent" in stopped.failure
    assert calls(app) == before
    assert not night(tmp_path, range(20), without_devices=True, suffix=suffix).succeeded, "empty for one account type"
    assert not night(tmp_path, [], tags={GUARDS: "off"}).succeeded, "this is no guard that can be let pass"
    assert calls(app) == before


def test_without_its_guard_an_empty_source_would_clear_everybody(
    tmp_path: Path, app: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert night(tmp_path, range(20)).succeeded
    monkeypatch.setattr(frames, "require_accounts", lambda *_, **__: None)
    assert night(tmp_path, []).succeeded
    assert held(app) == set()


def test_a_departed_account_that_is_lost_on_its_way_into_the_frame_is_seen(
    tmp_path: Path, app: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert night(tmp_path, range(20)).succeeded
    cleared = frames._cleared

    def losing_one(gone: ir.Table, frame: ir.Table) -> ir.Table:
        return cleared(gone, frame).order_by("account").limit(4)

    monkeypatch.setattr(frames, "_cleared", losing_one)
    before = calls(app)
    stopped = night(tmp_path, range(15))
    assert stopped.checks()["user_id_attributes:conservation"] is False
    assert not stopped.succeeded
    assert calls(app) == before


# Adoption -----------------------------------------------------------------------------------------------------------


def adopt(folder: Path, users: Iterable[int]) -> Ran:
    config = {"ops": {"nightly__adopt": {"config": {"confirm": "nightly", "again": True}}}}
    return night(folder, users, suffix="_adopt", config=config)


def verify(folder: Path, users: Iterable[int]) -> Verified:
    ran = night(folder, users, suffix="_verify", config={"ops": {"nightly__verify": {"config": {"everyone": True}}}})
    assert ran.succeeded, ran.failure
    value: Verified = ran.result.output_for_node("nightly__verify")
    return value


def test_an_adoption_takes_nobodys_removal_for_done_who_departed(tmp_path: Path, app: Emulator) -> None:
    assert night(tmp_path, range(20)).succeeded
    adopted = adopt(tmp_path, range(1, 16))
    assert adopted.succeeded, adopted.failure
    assert adopted.result.output_for_node("nightly__adopt").accounts == {USER: 0, DEVICE: 0}
    ran = night(tmp_path, range(1, 16))
    assert ran.pushed.tallies[USER].acknowledged == 5, "what the app has of them is removed"
    assert held(app) == {f"用户-{number}" for number in range(1, 16)} | {device(10)}
