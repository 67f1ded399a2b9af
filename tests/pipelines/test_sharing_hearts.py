"""The heartbeat of a run: it goes on until the run ends, and its own troubles are not the run's."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from pipelines import sharing
from pipelines.resources import EnvironmentResource
from pipelines.runs import ALIVE_AT


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"telemetry": {"enabled": False}}) as made:
        yield made


@pytest.fixture
def fast_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "HEARTBEAT_SECONDS", 0.001)


def hearts() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


@pytest.mark.usefixtures("fast_heart")
def test_a_run_says_that_it_lives_until_it_ends(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    renewed, beats = threading.Event(), iter(range(1_000_000))
    add_run_tags = instance.add_run_tags

    def note(run_id: str, tags: dict[str, str]) -> None:
        add_run_tags(run_id, tags)
        if tags == {ALIVE_AT: "beat 1"}:
            renewed.set()

    @dg.op
    def waits_for_a_beat(environment: EnvironmentResource) -> None:
        assert renewed.wait(60)
        assert [thread.daemon for thread in hearts()] == [True], "it keeps no process alive"

    @dg.job(resource_defs={"environment": EnvironmentResource()})
    def lives() -> None:
        waits_for_a_beat()

    monkeypatch.setattr(sharing, "heartbeat_tags", lambda: {ALIVE_AT: f"beat {next(beats)}"})
    monkeypatch.setattr(instance, "add_run_tags", note)
    ran = lives.execute_in_process(instance=instance)
    assert ran.success
    assert hearts() == []
    run = instance.get_run_by_id(ran.run_id)
    assert run is not None
    assert run.tags[ALIVE_AT].startswith("beat ")


@pytest.mark.usefixtures("fast_heart")
def test_a_history_that_takes_no_heartbeat_breaks_no_run(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = threading.Semaphore(0)

    def locked() -> dict[str, str]:
        tries.release()
        raise sqlite3.OperationalError("database is locked")

    @dg.op
    def waits_for_two_tries(environment: EnvironmentResource) -> None:
        assert tries.acquire(timeout=60)
        assert tries.acquire(timeout=60), "it goes on trying"

    @dg.job(resource_defs={"environment": EnvironmentResource()})
    def goes_on() -> None:
        waits_for_two_tries()

    monkeypatch.setattr(sharing, "heartbeat_tags", locked)
    assert goes_on.execute_in_process(instance=instance).success
    assert hearts() == []


def test_a_heart_that_hangs_does_not_keep_the_run_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr(sharing, "LAST_BEAT_SECONDS", 0.01)
    began, let_go = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        let_go.wait(60)

    with sharing._heart(hang):
        assert began.wait(60)
    (left,) = hearts()
    let_go.set()
    left.join(60)
    assert hearts() == []
