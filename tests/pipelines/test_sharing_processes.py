"""Runs that share an app as they are in real life: processes of their own, killed and terminated."""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from pipelines.definitions import defs
from pipelines.resources import push_pool
from pipelines.runs import end_dead_runs
from pipelines.sharing import busy_text
from tests.project import Project

QUIET: dict[str, Any] = {"telemetry": {"enabled": False}}


@dataclass(frozen=True, slots=True)
class Pushing:
    """A sync in mid-push, as Dagster's daemon starts it, and a project on what counts as another host."""

    project: Project
    elsewhere: Project
    process: subprocess.Popen[str]
    run_id: str
    acknowledged: int


EXECUTE = ("-m", "dagster", "job", "execute", "-m", "pipelines.definitions", "-j")


@pytest.fixture(scope="module")
def pushing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushing]:
    """Locks are per data folder for the emulator, so that only the history can keep the two apart."""
    project = Project.copy_to(tmp_path_factory.mktemp("project"))
    project.make_profiles(6_000)
    shutil.copytree(project.yaml.parent, project.yaml.parents[1] / "second")
    home = project.folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")  # somebody else's, no pools
    slow = {"DAGSTER_HOME": str(home), "TENCENT_PUSH_CALLS_PER_SECOND": "2"}
    here = Project(project.folder, {**slow, "ATTRIBUTE_SYNC_DATA": str(project.folder / "data")})
    elsewhere = Project(project.folder, {**slow, "ATTRIBUTE_SYNC_DATA": str(project.folder / "elsewhere")})
    process = here.start(*EXECUTE, "example")
    try:
        told = until_told(process, r" - ([0-9a-f-]{36}) - .* user_id: ([1-9][\d,]*) of")
        yield Pushing(here, elsewhere, process, told[1], int(told[2].replace(",", "")))
    finally:
        process.kill()
        process.communicate()


def until_told(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if told := re.search(pattern, line):
            return told
    raise AssertionError("".join(lines))


def test_a_run_of_another_sync_waits_with_its_core_at_rest_and_can_be_terminated(pushing: Pushing) -> None:
    waiting = pushing.elsewhere.start(*EXECUTE, "second")
    try:
        until_told(waiting, f"Waiting: run {pushing.run_id} of example pushes to the same app")
        before = psutil.Process(waiting.pid).cpu_times()
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=2)
        after = psutil.Process(waiting.pid).cpu_times()
        assert after.user + after.system - before.user - before.system < 0.4, "Dagster's own wait takes all it can get"
        waiting.send_signal(signal.SIGTERM)
        _, err = waiting.communicate(timeout=60)
    finally:
        waiting.kill()
    assert waiting.returncode != 0
    assert "second__push - STEP_START" not in err
    assert pushing.process.poll() is None


def test_a_run_from_a_shell_ends_at_once_with_75_and_names_the_run_that_pushes(pushing: Pushing) -> None:
    ran = pushing.elsewhere.run("-m", "pipelines", "run", "second")
    assert ran.returncode == 75, ran.stderr
    assert f"run {pushing.run_id} of example pushes to the same app right now" in ran.stderr
    assert "profiles" not in ran.stdout


def test_two_real_syncs_in_one_run_push_one_after_the_other(tmp_path: Path) -> None:
    project = Project.copy_to(tmp_path / "project")
    project.make_profiles(300)
    shutil.copytree(project.yaml.parent, project.yaml.parents[1] / "second")
    home = project.folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    both = Project(project.folder, {"DAGSTER_HOME": str(home)})
    ran = both.run("-m", "dagster", "asset", "materialize", "--select", "*", "-m", "pipelines.definitions")
    assert ran.returncode == 0, ran.stderr
    assert "Waiting: " not in ran.stderr
    for sync in ("example", "second"):
        assert list((project.folder / "data/push_calls" / f"sync={sync}").rglob("*.parquet"))


def example() -> dg.JobDefinition:
    return defs().resolve_job_def("example")


def test_a_killed_run_is_found_its_slot_freed_and_its_push_gone_on_with(
    pushing: Pushing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As "re-execute from failure" and Dagster's run-level retry do it."""
    pushing.process.kill()
    pushing.process.wait()
    for name, value in {**pushing.project.environ, "TENCENT_PUSH_CALLS_PER_SECOND": "2000"}.items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as instance:
        assert pushing.run_id in str(busy_text(instance, push_pool()))
        assert end_dead_runs(instance) == [pushing.run_id]
        assert busy_text(instance, push_pool()) is None
        again = dg.execute_job(
            dg.reconstructable(example),
            instance,
            reexecution_options=dg.ReexecutionOptions.from_failure(pushing.run_id, instance),
        )
        with again:
            assert again.success
            started = {event.step_key for event in again.all_events if event.is_step_start}
        result: Any = defs().load_asset_value(dg.AssetKey(["example", "failed_rows"]), instance=instance)
    assert "example__push" in started
    assert not started & {"example__user_profiles", "example__attribute_frames"}
    assert sum(result.passed_over.values()) >= pushing.acknowledged > 0
    for kind, tally in result.tallies.items():
        sent = result.reports[kind].changes.total()
        assert sent == tally.changed - result.passed_over[kind]
