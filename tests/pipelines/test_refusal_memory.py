"""What was refused for good is remembered: the same request costs no call the next night, a changed one is sent."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from connectors.tencent_push.emulator import Emulator, RefuseCall, RefuseRows
from connectors.tencent_push.protocol import AccountType, Command
from pipelines import changes, push, refusal_memory
from pipelines.engine import Engine
from pipelines.mapping import AccountMapping
from pipelines.refusal_memory import are_odd_rows, is_worth_remembering, rules_of
from pipelines.runs import REPLAY
from tests.running import Ran, make_sync, run, write_profiles

SET, REMOVE = Command.SET_ATTR, Command.REMOVE_ATTR
ATTRIBUTES = {"city": {"column": "city", "null": "remove"}, "note": {"column": "note", "null": "remove"}}
Cities = Mapping[str, str | None]


class Nights:
    """Runs of one sync over one profile per account, against an app that outlives them."""

    def __init__(self, folder: Path, app: Emulator) -> None:
        self.folder = folder
        self.app = app
        app.declare({"city": AccountType.USER_ID, "note": AccountType.USER_ID, "spare": AccountType.USER_ID})

    def night(
        self, cities: Cities, *, notes: Cities | None = None, attributes: Any = ATTRIBUTES, **options: Any
    ) -> Ran:
        noted = notes or {}
        columns = {"user_id": list(cities), "city": list(cities.values()), "note": [noted.get(a) for a in cities]}
        write_profiles(self.folder / "profiles/one.parquet", columns)
        accounts = {"user_id": {"column": "user_id", "attributes": attributes}}
        source = {"parquet": str(self.folder / "profiles/*.parquet")}
        return run(make_sync(self.folder, {"source": source, "accounts": accounts}), **options)

    def calls(self) -> int:
        return len(self.app.calls.of(SET)) + len(self.app.calls.of(REMOVE))


@pytest.fixture
def nights(tmp_path: Path, live_app: Emulator) -> Nights:
    return Nights(tmp_path, live_app)


MANY: Cities = {**{f"u{n}": "上海" for n in range(250)}, "poison": "Zürich"}


@pytest.fixture
def poisoned(nights: Nights) -> Nights:
    """One night has gone by; every call that names `poison` was refused as a whole."""
    nights.app.faults.add(RefuseCall(90033), accounts={"poison"}, command=SET, times=None)
    ran = nights.night(MANY)
    assert ran.succeeded, ran.failure
    assert [row["account"] for row in ran.failed_rows] == ["poison"]
    return nights


def test_a_poisonous_row_costs_its_halvings_once_and_no_call_while_it_is_unchanged(poisoned: Nights) -> None:
    halved = poisoned.calls()
    assert 3 < halved <= 3 + 2 * 7, "three calls, and two for every halving of a hundred rows"
    for night in (2, 3):
        ran = poisoned.night(MANY)
        assert ran.succeeded, ran.failure
        assert poisoned.calls() == halved
        (row,) = ran.failed_rows
        assert (row["account"], row["outcome"], row["error_code"]) == ("poison", "rejected", 90033)
        assert (row["call_attempts"], row["batch_id"], row["failed_runs"]) == (0, None, night)
        assert "not sent again" in row["explanation"]
        assert "replay nightly" in row["fix"]
        assert ran.checks()["acknowledged_attributes:conservation"]
        assert ran.pushed.withheld == {AccountType.USER_ID: 1}


def test_one_poisonous_row_among_many_is_one_failed_row_and_a_few_calls(nights: Nights, long_proofs: bool) -> None:
    rows = 200_000 if long_proofs else 20_000
    accounts = {f"u{number}": "上海" for number in range(rows)}
    nights.app.faults.add(RefuseCall(70402), accounts={f"u{rows // 3}"}, times=None)
    ran = nights.night(accounts)
    tally = ran.pushed.tallies[AccountType.USER_ID]
    assert (tally.acknowledged, tally.rejected, tally.errored) == (rows - 1, 1, 0)
    assert [(row["account"], row["error_code"]) for row in ran.failed_rows] == [(f"u{rows // 3}", 70402)]
    assert nights.calls() - rows / 100 <= 20
    before = nights.calls()
    assert len(nights.night(accounts).failed_rows) == 1
    assert nights.calls() == before


def test_without_the_memory_it_would_be_halved_every_night(poisoned: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "withheld_in", lambda *_, **__: None)
    monkeypatch.setattr(push, "lonely_in", lambda *_: changes._no_numbers())
    others = {f"v{n}": "x" for n in range(99)}
    before = poisoned.calls()
    assert poisoned.night({**MANY, **others}).succeeded
    assert poisoned.calls() - before > 10


def test_a_changed_value_is_sent_and_what_is_acknowledged_is_forgotten(poisoned: Nights) -> None:
    poisoned.app.faults.clear()
    before = poisoned.calls()
    ran = poisoned.night({**MANY, "poison": "Zug"})
    assert ran.succeeded, ran.failure
    assert (poisoned.calls() - before, ran.failed_rows) == (1, [])
    assert dict(poisoned.app.attributes())["poison"] == {"city": "Zug"}
    assert remembered(poisoned) == []


def test_a_changed_value_that_is_refused_as_well_is_what_is_remembered_then(poisoned: Nights) -> None:
    for city in ("Zug", "Zürich"):
        before = poisoned.calls()
        assert len(poisoned.night({**MANY, "poison": city}).failed_rows) == 1
        assert poisoned.calls() - before == 1
        before = poisoned.calls()
        assert len(poisoned.night({**MANY, "poison": city}).failed_rows) == 1
        assert poisoned.calls() - before == 0
    assert len(remembered(poisoned)) == 1


@pytest.mark.parametrize("change", ["mapping", "declared"])
def test_a_changed_mapping_or_declaration_sends_it_once_more_in_a_call_of_its_own(
    change: str, poisoned: Nights
) -> None:
    attributes: Any = ATTRIBUTES
    if change == "mapping":
        attributes = ATTRIBUTES | {"city": {"column": "city", "null": "remove", "too_long": "truncate"}}
    else:
        poisoned.app.declare({"another": AccountType.USER_ID})
    others: Cities = {f"v{n}": "x" for n in range(99)}
    before = poisoned.calls()
    ran = poisoned.night({**MANY, **others}, attributes=attributes)
    assert [row["account"] for row in ran.failed_rows] == ["poison"]
    assert ran.failed_rows[0]["call_attempts"] == 1
    assert poisoned.calls() - before == 2, "the 99 in one call, the poison in another: nothing is halved"
    before = poisoned.calls()
    assert len(poisoned.night({**MANY, **others}, attributes=attributes).failed_rows) == 1
    assert poisoned.calls() == before


def test_a_replay_sends_it_once_more_and_remembers_the_answer(poisoned: Nights) -> None:
    before = poisoned.calls()
    ran = poisoned.night(MANY, tags={REPLAY: "true"})
    assert poisoned.calls() - before == 1
    assert [row["call_attempts"] for row in ran.failed_rows] == [1]
    assert poisoned.night(MANY).failed_rows
    assert poisoned.calls() - before == 1
    poisoned.app.faults.clear()
    assert poisoned.night(MANY, tags={REPLAY: "true"}).failed_rows == []
    assert dict(poisoned.app.attributes())["poison"] == {"city": "Zürich"}


def test_an_unknown_account_is_tried_every_night_with_the_others(nights: Nights) -> None:
    nights.app.forget("u1")
    for night in (1, 2):
        ran = nights.night({"u1": "x", "u2": f"night {night}"})
        assert [(row["account"], row["error_code"]) for row in ran.failed_rows] == [("u1", 70107)]
        assert nights.calls() == night
        assert remembered(nights) == []
    nights.app.know("u1")
    assert nights.night({"u1": "x", "u2": "night 2"}).failed_rows == []


def test_an_unknown_account_that_fails_whole_calls_is_tried_alone(nights: Nights) -> None:
    nights.app.faults.add(RefuseCall(70107), accounts={"u1"}, times=None)
    accounts: Cities = {f"u{n}": "x" for n in range(100)}
    assert len(nights.night(accounts).failed_rows) == 1
    for city in ("y", "z"):
        before = nights.calls()
        ran = nights.night(dict.fromkeys(accounts, city))
        assert [(row["account"], row["call_attempts"]) for row in ran.failed_rows] == [("u1", 1)]
        assert nights.calls() - before == 2, "whatever it asks for, it goes alone"


def test_a_row_that_the_api_stumbles_over_goes_alone_the_next_night(nights: Nights) -> None:
    """Nobody knows whether an error of the API's own stays: the row is tried again, but its neighbours are spared."""
    nights.app.faults.add(RefuseCall(91000), accounts={"u1"}, times=None)
    accounts = {f"u{n}": "x" for n in range(300)}
    assert [(row["account"], row["outcome"]) for row in nights.night(accounts).failed_rows] == [("u1", "errored")]
    before = nights.calls()
    ran = nights.night(dict.fromkeys(accounts, "y"))
    assert [(row["account"], row["outcome"]) for row in ran.failed_rows] == [("u1", "errored")]
    assert nights.calls() - before <= 3 + 6, "three calls, and the attempts of the one that goes alone"


@pytest.mark.parametrize("fault", ["the call", "its rows"])
def test_an_incident_at_the_app_is_not_taken_for_the_fault_of_its_rows(fault: str, nights: Nights) -> None:
    """What is refused by the hundred is sent again the next night, whatever the code says."""
    accounts = {f"u{n}": "x" for n in range(1_500)}
    befallen = RefuseCall(90033) if fault == "the call" else RefuseRows(dict.fromkeys(accounts, 90033))
    nights.app.faults.add(befallen, accounts=set(accounts), times=None)
    assert not nights.night(accounts).succeeded
    nights.app.faults.clear()
    ran = nights.night(accounts)
    assert ran.succeeded, ran.failure
    assert (ran.failed_rows, ran.pushed.withheld) == ([], {AccountType.USER_ID: 0})
    assert len(dict(nights.app.attributes())) == 1_500


def test_what_is_remembered_is_tried_once_more_after_a_week(poisoned: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    before = poisoned.calls()
    monkeypatch.setattr(refusal_memory, "REMEMBERED", timedelta(0))
    assert len(poisoned.night(MANY).failed_rows) == 1
    assert poisoned.calls() - before == 1
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("refused", "acknowledged", "odd"),
    [
        *((1, 199_999, True), (100, 500, True), (101, 500, False), (2_000, 200_000, True), (2_001, 200_000, False)),
        *((1, 0, False), (3, 3, True), (80, 20, False)),
    ],
)
def test_only_a_few_rows_beside_what_was_taken_are_odd(refused: int, acknowledged: int, odd: bool) -> None:
    assert are_odd_rows(refused, acknowledged=acknowledged) is odd


def test_a_refused_removal_is_remembered_by_itself_and_what_is_set_goes_on(nights: Nights) -> None:
    assert nights.night({"u1": "x"}, notes={"u1": "n"}).succeeded
    nights.app.faults.add(RefuseRows({"u1": 90001}), command=REMOVE, times=None)
    for city, set_calls, remove_calls in (("y", 2, 1), ("z", 3, 1), ("z", 3, 1)):
        ran = nights.night({"u1": city})
        assert ran.succeeded, ran.failure
        assert [(row["stage"], row["outcome"]) for row in ran.failed_rows] == [("remove", "rejected")]
        assert (len(nights.app.calls.of(SET)), len(nights.app.calls.of(REMOVE))) == (set_calls, remove_calls)
        assert dict(nights.app.attributes()) == {"u1": {"city": city, "note": "n"}}
        assert ran.checks()["acknowledged_attributes:conservation"]


def test_a_memory_that_is_gone_is_no_fault_the_row_is_sent_once_more(poisoned: Nights) -> None:
    (file,) = poisoned.folder.glob("data/acknowledged/*/*/*/refused-*.parquet")
    file.unlink()
    before = poisoned.calls()
    assert len(poisoned.night(MANY).failed_rows) == 1
    assert poisoned.calls() - before == 1


def test_a_quiet_night_leaves_the_memory_as_it_is(poisoned: Nights) -> None:
    (file,) = poisoned.folder.glob("data/acknowledged/*/*/*/refused-*.parquet")
    written = file.stat()
    poisoned.night(MANY)
    assert poisoned.folder.joinpath(file).stat().st_mtime_ns == written.st_mtime_ns


def test_the_memory_holds_no_value(poisoned: Nights) -> None:
    (row,) = remembered(poisoned)
    assert (row["account"], row["command"], row["code"], row["alone"]) == ("poison", "set_attr", 90033, True)
    assert not any("Zürich" in str(value) for value in row.values())


def remembered(nights: Nights) -> list[dict[str, Any]]:
    files = list(nights.folder.glob("data/acknowledged/*/*/*/refused-*.parquet"))
    assert len(files) <= 1
    rows: list[dict[str, Any]] = pq.read_table(files[0], partitioning=None).to_pylist() if files else []
    return rows


@pytest.mark.parametrize(
    ("code", "whole", "worth"), [(90033, False, True), (90033, True, True), (70107, False, False), (70107, True, True)]
)
def test_only_what_saves_a_call_is_remembered(code: int, whole: bool, worth: bool) -> None:
    assert is_worth_remembering(code, whole=whole) is worth


def test_the_rules_change_with_the_mapping_and_the_declared_attributes_and_with_nothing_else() -> None:
    mapping = AccountMapping.model_validate({"column": "id", "attributes": {"a": "a", "b": "b"}})
    again = AccountMapping.model_validate({"column": "id", "attributes": {"b": {"column": "b"}, "a": "a"}})
    other = AccountMapping.model_validate({"column": "id", "attributes": {"a": "a", "b": "c"}})
    user, device = AccountType.USER_ID, AccountType.REGISTRATION_ID
    rules = rules_of(mapping, {"a": user, "b": user})
    assert rules == rules_of(again, {"b": user, "a": user})
    assert len({rules, rules_of(other, {"a": user, "b": user}), rules_of(mapping, {"a": user, "b": device})}) == 3


def test_two_requests_of_different_attributes_are_never_taken_for_one(engine: Engine, tmp_path: Path) -> None:
    """`city=xnote` beside `city=x, note`: a digest over values alone, or without separators, would confuse them."""
    from pipelines.refusal_memory import _request
    from tests.pipelines.ledger_cases import write_frame

    frame = write_frame(
        tmp_path / "frame.parquet",
        ("a", {"city": "xnote"}, []),
        ("b", {"city": "x", "note": ""}, []),
        ("c", {"note": "xnote"}, []),
        ("d", {"city": "xnote"}, ["note"]),
        ("e", {}, ["city"]),
        ("f", {}, ["city", "note"]),
    )
    rows = engine.numbered_parquet("requests", frame)
    found = engine.rows(rows.select("account", set=_request(rows, SET), remove=_request(rows, REMOVE)))
    by_account = {row["account"]: row for row in found}
    assert by_account["a"]["set"] == by_account["d"]["set"]
    assert len({by_account[account]["set"] for account in "abc"}) == 3
    assert by_account["e"]["remove"] != by_account["f"]["remove"]
