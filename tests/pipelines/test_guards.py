"""Guards stop a run before its first call, say by how much they were broken, and let one run pass when asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from connectors.tencent_push.emulator import Emulator
from connectors.tencent_push.protocol import AccountType, Command
from pipelines.frames import Counts
from pipelines.guards import Measured
from pipelines.mapping import Guards
from pipelines.runs import GUARDS
from tests.project import Project
from tests.running import Ran, make_sync, run, write_profiles

CHECK = "user_id_attributes:guards"


def counts(**replaced: int) -> Counts:
    facts = {"profiles": 1_000, "classified": 1_000, "without_account": 0, "superseded": 0, "invalid": 0,
             "unchanged": 500, "changed": 500}  # fmt: skip
    return Counts(**(facts | replaced))


def broken(guards: Guards, *, failed: int = 0, is_first_run: bool = False, **replaced: int) -> list[str]:
    return list(Measured(counts(**replaced), failed, is_first_run).broken(guards))


# The limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changed", "is_broken"), [(49, False), (50, False), (51, True)])
def test_the_changed_accounts_are_a_share_of_all_valid_ones(changed: int, is_broken: bool) -> None:
    found = broken(Guards(max_changed_fraction=0.05), changed=changed, unchanged=1_000 - changed, profiles=9_999)
    assert bool(found) is is_broken
    assert all("51 of 1,000 accounts would change, a share of 0.051" in text for text in found)


@pytest.mark.parametrize(("failed", "is_broken"), [(69, False), (70, False), (71, True)])
def test_the_failed_profiles_are_a_share_of_all_profiles(failed: int, is_broken: bool) -> None:
    found = broken(Guards(max_failed_fraction=0.07), failed=failed)
    assert bool(found) is is_broken
    assert all("71 of 1,000 profiles have an error, a share of 0.071" in text for text in found)


@pytest.mark.parametrize(("least", "is_broken"), [(999, False), (1_000, False), (1_001, True)])
@pytest.mark.parametrize("is_first_run", [False, True])
def test_too_few_profiles_stop_every_run(least: int, is_broken: bool, is_first_run: bool) -> None:
    assert bool(broken(Guards(min_profiles=least), is_first_run=is_first_run)) is is_broken


def test_the_fractions_do_not_apply_to_a_first_run() -> None:
    guards = Guards(max_changed_fraction=0.01, max_failed_fraction=0.01)
    assert len(broken(guards, failed=500)) == 2
    assert broken(guards, failed=500, is_first_run=True) == []


def test_no_profile_at_all_breaks_no_fraction() -> None:
    guards = Guards(max_changed_fraction=0.01, max_failed_fraction=0.01)
    assert broken(guards, profiles=0, classified=0, unchanged=0, changed=0) == []


# Whole runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def app(live_app: Emulator) -> Emulator:
    live_app.declare({"city": AccountType.USER_ID})
    return live_app


def night(
    folder: Path,
    cities: Sequence[str | None],
    *,
    guards: dict[str, Any],
    users: list[str] | None = None,
    tags: dict[str, str] | None = None,
) -> Ran:
    rows = {"user_id": users or [f"u{number}" for number in range(len(cities))], "city": cities}
    write_profiles(folder / "profiles.parquet", rows)
    attributes = {
        "source": {"parquet": "profiles.parquet"},
        "accounts": {"user_id": {"column": "user_id", "attributes": {"city": "city"}}},
        "guards": guards,
    }
    return run(make_sync(folder, attributes), tags=tags)


def writing_calls(app: Emulator) -> int:
    return len(app.calls.of(Command.SET_ATTR)) + len(app.calls.of(Command.REMOVE_ATTR))


def check_of(ran: Ran) -> dg.AssetCheckEvaluation:
    (check,) = (each for each in ran.result.get_asset_check_evaluations() if each.check_name == "guards")
    return check


def test_a_run_that_would_change_too_much_makes_no_call_and_can_be_let_pass_once(tmp_path: Path, app: Emulator) -> None:
    guards = {"max_changed_fraction": 0.5}
    assert night(tmp_path, ["x"] * 10, guards=guards).succeeded, "everything is new in a first run"
    assert night(tmp_path, ["y"] * 5 + ["x"] * 5, guards=guards).succeeded, "at the limit"
    before = writing_calls(app)

    stopped = night(tmp_path, ["z"] * 6 + ["x"] * 4, guards=guards)
    assert not stopped.succeeded
    assert stopped.checks()[CHECK] is False
    assert writing_calls(app) == before
    check = check_of(stopped)
    assert check.blocking
    assert check.severity is dg.AssetCheckSeverity.ERROR
    facts = {name: value.value for name, value in check.metadata.items()}
    assert (facts["changed"], facts["accounts"], facts["changed_fraction"]) == (6, 10, 0.6)
    assert facts["max_changed_fraction"] == 0.5
    for told in ("6 of 10 accounts would change", "--without-guards", 'attribute_sync/guards: "off"'):
        assert told in str(check.description)

    passed = night(tmp_path, ["z"] * 6 + ["x"] * 4, guards=guards, tags={GUARDS: "off"})
    assert passed.succeeded, passed.failure
    assert passed.checks()[CHECK] is True
    assert "The run was let pass" in str(check_of(passed).description)
    assert writing_calls(app) == before + 1
    assert not night(tmp_path, ["w"] * 10, guards=guards).succeeded, "one run only"


def test_too_many_profiles_with_errors_stop_a_run_but_notices_do_not(tmp_path: Path, app: Emulator) -> None:
    guards = {"max_failed_fraction": 0.2}
    good: list[str | None] = ["x"] * 10
    assert night(tmp_path, good, guards=guards).succeeded
    before = writing_calls(app)

    twice = [f"u{number % 5}" for number in range(10)]
    assert night(tmp_path, good, guards=guards, users=twice).succeeded, "superseded profiles are notices"
    at_limit: list[str | None] = ["long" * 20, "control\x00", *["x"] * 8]
    assert night(tmp_path, at_limit, guards=guards).succeeded
    above = night(tmp_path, at_limit, guards=guards, users=[*(f"u{n}" for n in range(9)), " "])
    assert not above.succeeded, "a profile without any account is one with an error"
    assert "3 of 10 profiles have an error" in str(check_of(above).description)
    assert writing_calls(app) == before


def test_a_profile_with_two_errors_fails_once(tmp_path: Path, app: Emulator) -> None:
    write_profiles(tmp_path / "profiles.parquet", {"user_id": ["a", "b"], "city": ["x" * 60, "y"], "note": ["\t", "n"]})
    app.declare({"note": AccountType.USER_ID})
    accounts = {"user_id": {"column": "user_id", "attributes": {"city": "city", "note": "note"}}}
    ran = run(make_sync(tmp_path, {"source": {"parquet": "profiles.parquet"}, "accounts": accounts}))
    assert check_of(ran).metadata["failed_profiles"].value == 1


def test_a_source_with_too_few_profiles_stops_a_first_run(tmp_path: Path, app: Emulator) -> None:
    stopped = night(tmp_path, ["x"] * 9, guards={"min_profiles": 10})
    assert not stopped.succeeded
    assert "The source has 9 profiles; guards.min_profiles asks for 10" in str(check_of(stopped).description)
    assert writing_calls(app) == 0
    assert night(tmp_path, ["x"] * 10, guards={"min_profiles": 10}).succeeded


def test_the_command_says_how_to_let_a_run_pass_and_lets_it(tmp_path: Path) -> None:
    project = Project.copy_to(tmp_path / "project")
    project.make_profiles(300)
    project.edit_yaml("  owners:", "  guards: {min_profiles: 301}\n  owners:")
    stopped = project.run("-m", "pipelines", "run", "example")
    assert stopped.returncode == 1
    assert "user_id: The source has 300 profiles" in stopped.stderr
    assert "python -m pipelines run example --without-guards" in stopped.stderr
    assert "Dagster" not in stopped.stderr.replace("Dagster's own page", ""), "no class of the machinery beneath"
    passed = project.run("-m", "pipelines", "run", "example", "--without-guards")
    assert passed.returncode == 0, passed.stderr
