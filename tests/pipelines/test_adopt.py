"""An app that is loaded already is adopted without a call; then only what differs is sent, and it can be checked."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from connectors.tencent_push.client import Client, Credentials
from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, Emulator, RefuseCall, Status
from connectors.tencent_push.errors import LedgerError
from connectors.tencent_push.ledger import Ledger
from connectors.tencent_push.protocol import AccountType, Command
from connectors.tencent_push.settings import Settings
from pipelines import adopt as module
from pipelines import frames, narrow, read_back
from pipelines import verify as verify_module
from pipelines.verify import Verified
from tests.project import Project
from tests.running import Ran, make_sync, run, write_profiles

USER, DEVICE = AccountType.USER_ID, AccountType.REGISTRATION_ID
ATTRIBUTES: dict[str, Any] = {
    "source": {"parquet": "profiles.parquet"},
    "accounts": {
        "user_id": {
            "column": "user_id",
            "attributes": {"city": "city", "level": {"column": "level", "null": "remove"}},
        },
        "registration_id": {"column": "device_id", "attributes": {"device_city": "city"}},
    },
}
Cities = Mapping[str, str]


@pytest.fixture
def app(live_app: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    monkeypatch.setattr(read_back, "WAITS_SECONDS", (0.0,))  # an emulator shows every write at once
    live_app.declare({"city": USER, "level": USER, "device_city": DEVICE})
    return live_app


@pytest.fixture
def client(app: Emulator) -> Iterator[Client]:
    key = EMULATOR_CREDENTIALS
    opened = Settings(Credentials(key.sdkappid, key.identifier, key.secret_key), base_url=app.base_url).make_client()
    yield opened
    opened.close()


def device(number: int) -> str:
    return f"379C2F0D-290D-47AE-94D1-{number:012X}"


def people(count: int = 250) -> dict[str, str]:
    return {f"user-{number}": f"城市{number % 7}" for number in range(count)}


def adopt(folder: Path, cities: Cities, *, confirm: str = "nightly", again: bool = False) -> Ran:
    return job_with(folder, cities, "adopt", {"confirm": confirm, "again": again})


def verify(folder: Path, cities: Cities, *, everyone: bool = False) -> Verified:
    ran = job_with(folder, cities, "verify", {"everyone": everyone})
    assert ran.succeeded, ran.failure
    value: Verified = ran.result.output_for_node("nightly__verify")
    return value


def job_with(folder: Path, cities: Cities, name: str, config: dict[str, Any]) -> Ran:
    write(folder, cities)
    ops = {"ops": {f"nightly__{name}": {"config": config}}}
    return run(make_sync(folder, ATTRIBUTES), suffix=f"_{name}", config=ops)


def night(folder: Path, cities: Cities) -> Ran:
    write(folder, cities)
    return run(make_sync(folder, ATTRIBUTES))


def write(folder: Path, cities: Cities) -> None:
    """Every tenth of the accounts has a device."""
    devices = [device(number) if number % 10 == 0 else None for number in range(len(cities))]
    rows = {"user_id": list(cities), "city": list(cities.values()), "level": ["gold"] * len(cities)}
    write_profiles(folder / "profiles.parquet", {**rows, "device_id": devices})


def load(client: Client, cities: Cities) -> None:
    """What another program has written into the app before this one."""
    users = [(account, {"city": city, "level": "gold"}) for account, city in cities.items()]
    devices = [(device(n), {"device_city": city}) for n, city in enumerate(cities.values()) if n % 10 == 0]
    for rows in (users, devices):
        for start in range(0, len(rows), 100):
            client.set_attr(rows[start : start + 100])


def writing_calls(app: Emulator) -> int:
    return len(app.calls.of(Command.SET_ATTR)) + len(app.calls.of(Command.REMOVE_ATTR))


def test_after_an_adoption_a_run_sends_just_what_differs(tmp_path: Path, app: Emulator, client: Client) -> None:
    load(client, people())
    before = writing_calls(app)
    adopted = adopt(tmp_path, people())
    assert adopted.succeeded, adopted.failure
    assert adopted.result.output_for_node("nightly__adopt").accounts == {USER: 250, DEVICE: 25}
    assert writing_calls(app) == before
    facts = adopted.metadata("acknowledged_attributes")
    assert (facts["adopted"], facts["user_id_adopted"], facts["registration_id_adopted"]) == (True, 250, 25)

    edited = people() | {f"user-{number}": "北京" for number in range(1, 11)}
    ran = night(tmp_path, edited)
    assert ran.succeeded, ran.failure
    assert ran.pushed.tallies[USER].changed == 10
    sent = app.calls.of(Command.SET_ATTR)[before:]
    assert sum(call.accounts for call in sent) == 11, "ten users, one of whom has a device"
    assert ran.checks()["acknowledged_attributes:read_back"]
    attributes = dict(app.attributes())
    assert {account: attributes[account]["city"] for account in edited} == edited
    assert verify(tmp_path, edited, everyone=True).differing == 0


def test_after_an_adoption_nothing_is_planned_and_the_next_run_looks_at_nobody_again(
    tmp_path: Path, app: Emulator, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digests of the profiles are kept with what was adopted."""
    load(client, people())
    assert adopt(tmp_path, people()).succeeded
    planned = run(make_sync(tmp_path, ATTRIBUTES), suffix="_plan")
    plan = planned.result.asset_value(planned.sync.key("plan"))
    assert [each.frame.counts.changed for each in plan.plans] == [0, 0]
    assert (plan.calls, plan.sample) == (0, ())

    seen: list[narrow.Narrowed] = []
    original = narrow.narrowed

    def watched(*arguments: Any) -> narrow.Narrowed:
        seen.append(original(*arguments))
        return seen[-1]

    monkeypatch.setattr(frames, "narrowed", watched)
    ran = night(tmp_path, people())
    assert ran.succeeded, ran.failure
    assert (dict(seen[0].open), dict(seen[0].settled)) == ({USER: 0, DEVICE: 0}, {USER: 250, DEVICE: 25})
    assert verify(tmp_path, people(), everyone=True).matching == 275
    assert len(list((tmp_path / "data/acknowledged").rglob("part-*.parquet"))) == 2, "one for each account type"


def test_a_read_back_that_finds_differences_tells_of_the_adoption(tmp_path: Path, app: Emulator) -> None:
    assert adopt(tmp_path, people(20)).succeeded
    ran = night(tmp_path, people(20))
    (check,) = (each for each in ran.result.get_asset_check_evaluations() if each.check_name == "read_back")
    assert not check.passed
    assert "or what was adopted 20" in str(check.description)


def test_an_adoption_at_the_wrong_app_is_found_by_verify(tmp_path: Path, app: Emulator, client: Client) -> None:
    load(client, dict(list(people().items())[:200]))
    assert adopt(tmp_path, people()).succeeded
    found = verify(tmp_path, people(), everyone=True)
    assert (found.acknowledged, found.read, found.matching, found.differing) == (275, 275, 220, 55)
    assert found.adopted_at is not None
    assert "220 of 275 accounts (80.00%)" in found.text
    assert "adopted 20" in found.text
    rows = pq.read_table(found.differences, partitioning=None).to_pylist()
    assert {row["account"] for row in rows if row["account_type"] == "user_id"} == {
        f"user-{n}" for n in range(200, 250)
    }
    assert len(rows) == 50 * 2 + 5, "a row per attribute"
    assert {row["held"] for row in rows} == {None}
    assert "user-2" not in found.text


def test_verify_tells_what_is_held_instead(tmp_path: Path, app: Emulator, client: Client) -> None:
    assert night(tmp_path, people(20)).succeeded
    client.set_attr([("user-3", {"city": "elsewhere"})])
    found = verify(tmp_path, people(20))
    (row,) = pq.read_table(found.differences, partitioning=None).to_pylist()
    assert (row["account"], row["attribute"], row["acknowledged"], row["held"]) == (
        "user-3",
        "city",
        "城市3",
        "elsewhere",
    )
    assert (found.matching, found.read, found.adopted_at) == (21, 22, None)


def test_a_sample_is_told_with_the_bound_of_what_it_proves(
    tmp_path: Path, app: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_module, "SAMPLE_ACCOUNTS", 110)
    assert night(tmp_path, people()).succeeded
    found = verify(tmp_path, people())
    assert (found.acknowledged, found.read, found.matching) == (275, 110, 110), "both types by their share"
    assert 0.02 < found.differing_share_bound < 0.03
    assert "with 95% confidence at most 2.69% of all 275 differ" in found.text
    assert verify(tmp_path, people(), everyone=True).differing_share_bound == 0


def test_many_accounts_are_read_in_parts_and_a_failing_network_is_waited_for(
    tmp_path: Path, app: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_module, "CHUNK_ACCOUNTS", 40)
    monkeypatch.setattr(verify_module, "PAUSE_SECONDS", 0.0)
    assert night(tmp_path, people()).succeeded
    app.faults.add(Status(502), command=Command.GET_ATTR, skip=2)
    assert (found := verify(tmp_path, people(), everyone=True)).matching == found.read == 275
    app.faults.add(RefuseCall(60003), command=Command.GET_ATTR)
    ran = job_with(tmp_path, people(), "verify", {"everyone": True})
    assert not ran.succeeded
    assert not list((tmp_path / "data/differences").rglob(f"{ran.result.run_id}*")), "half a file proves nothing"


def test_nothing_acknowledged_is_nothing_to_verify(tmp_path: Path, app: Emulator) -> None:
    assert "nothing is acknowledged yet" in verify(tmp_path, people(1)).text


def test_an_adoption_asks_to_be_confirmed_by_the_syncs_name(tmp_path: Path, app: Emulator) -> None:
    ran = adopt(tmp_path, people(3), confirm="yes")
    assert not ran.succeeded
    assert "assumes that every account there has just these values" in ran.failure
    assert not list((tmp_path / "data/acknowledged").rglob("state.json"))


def test_what_was_acknowledged_is_not_adopted_over_unless_it_is_asked_for(tmp_path: Path, app: Emulator) -> None:
    assert night(tmp_path, people(5)).succeeded
    ran = adopt(tmp_path, people(9))
    assert not ran.succeeded
    assert "has acknowledged user_id, registration_id attributes" in ran.failure
    assert adopt(tmp_path, people(9), again=True).succeeded
    before = writing_calls(app)
    assert night(tmp_path, people(9)).succeeded
    assert writing_calls(app) == before


def test_an_adoption_that_dies_before_its_record_is_whole_has_adopted_nothing(
    tmp_path: Path, app: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise LedgerError("no space left; free space")

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "record", full)
        ran = adopt(tmp_path, people(5))
    assert "free space" in ran.failure
    assert not list((tmp_path / "data/acknowledged").rglob("*.ledger"))
    assert adopt(tmp_path, people(5)).succeeded


def test_a_long_frame_is_recorded_in_parts(tmp_path: Path, app: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ROWS", 7)
    assert adopt(tmp_path, people(50)).succeeded
    assert night(tmp_path, people(50)).pushed.tallies[USER].changed == 0


def test_the_commands_ask_adopt_and_verify(tmp_path: Path) -> None:
    project = Project.copy_to(tmp_path / "project")
    project.make_profiles(300)
    refused = project.run("-m", "pipelines", "adopt", "example")
    assert refused.returncode == 1
    assert "It assumes that every account there has just these values" in refused.stderr
    assert "Nothing was adopted" in refused.stderr
    assert not (project.folder / "data/acknowledged").exists()
    adopted = project.run("-m", "pipelines", "adopt", "example", "--yes")
    assert adopted.returncode == 0, adopted.stderr
    assert "nothing was sent to the embedded emulator" in adopted.stdout
    verified = project.run("-m", "pipelines", "verify", "example", "--all")
    assert verified.returncode == 1, "the emulator's app is empty"
    assert "(0.00%) hold the values that were acknowledged" in verified.stdout
