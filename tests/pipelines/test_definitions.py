"""What Dagster is given: the graph, the job, the schedule; loaded from YAML, served and run by its own commands."""

import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from pipelines.attribute_sync import build_definitions
from pipelines.definitions import SHARED, defs
from pipelines.resources import push_pool
from pipelines.runs import BEGAN, process_tags
from pipelines.sharing import busy_text
from tests.project import Project
from tests.running import example_attributes, make_sync

GRAPH = {
    "user_profiles": set(),
    "user_id_attributes": {"user_profiles"},
    "registration_id_attributes": {"user_profiles"},
    "invalid_rows": {"user_profiles"},
    "acknowledged_attributes": {"user_id_attributes", "registration_id_attributes"},
    "failed_rows": {"user_id_attributes", "registration_id_attributes", "invalid_rows"},
    "failure_report": {"failed_rows"},
    "push_calls": {"user_id_attributes", "registration_id_attributes"},
    "plan": set(),
}


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return defs()


def test_the_graph_is_the_designs(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    found = {
        key.path[-1]: {parent.path[-1] for parent in graph.get(key).parent_keys} for key in graph.get_all_asset_keys()
    }
    assert found == GRAPH
    assert {key.path[0] for key in graph.get_all_asset_keys()} == {"example"}


def test_every_asset_has_a_group_an_owner_a_kind_and_a_description(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.group_name == "example"
        assert node.owners == ["team:growth"]
        assert node.kinds
        assert node.description


def test_the_conservation_checks_block(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    blocking = {f"{key.asset_key.path[-1]}:{key.name}" for key in graph.asset_check_keys if graph.get(key).blocking}
    assert blocking == {
        "acknowledged_attributes:conservation",
        "invalid_rows:conservation",
        *(
            f"{kind}_attributes:{check}"
            for kind in ("user_id", "registration_id")
            for check in ("conservation", "guards", "one_row_per_account", "values_within_limits")
        ),
        *(
            f"plan:{kind}_{check}"
            for kind in ("user_id", "registration_id")
            for check in ("conservation", "one_row_per_account", "values_within_limits")
        ),
    }


def test_the_job_is_named_like_the_sync_and_only_a_crash_is_retried(definitions: dg.Definitions) -> None:
    job = definitions.resolve_job_def("example")
    assert job.tags["dagster/retry_on_asset_or_op_failure"] == "false"


def test_a_retry_is_a_runs_alone_and_the_push_has_the_apps_pool(definitions: dg.Definitions) -> None:
    """A retry policy of the push would turn its termination into another push."""
    job = definitions.resolve_job_def("example")
    pools = {node.name: node.definition.pool for node in job.nodes if isinstance(node.definition, dg.OpDefinition)}
    assert {name: pool for name, pool in pools.items() if pool} == {"example__push": push_pool({})}
    assert len(pools) >= 3
    assert [node.name for node in job.nodes if node.retry_policy] == []
    assert [node.name for node in job.nodes if getattr(node.definition, "retry_policy", None)] == []
    assert "dagster/max_retries" not in job.tags


def test_half_set_credentials_keep_no_sync_from_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENCENT_PUSH_SDKAPPID", "1400000001")
    sync = make_sync(tmp_path, example_attributes("x.parquet"))
    assert dg.Definitions.merge(build_definitions(sync), SHARED).resolve_job_def("nightly")


def test_dead_runs_are_ended_while_nothing_else_starts(tmp_path: Path, definitions: dg.Definitions) -> None:
    """A run in Dagster's own queue cannot do it: it waits there for the dead one's slot."""
    sensor = definitions.resolve_sensor_def("dead_runs")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert "no dead run" in told_by(sensor, instance)
        run = instance.create_run_for_job(definitions.resolve_job_def("example"), status=dg.DagsterRunStatus.STARTED)
        instance.add_run_tags(run.run_id, {**process_tags(run.run_id), BEGAN: "1.00"})
        assert instance.event_log_storage.claim_concurrency_slot(push_pool(), run.run_id, "push").is_claimed
        assert f"ended {run.run_id}" in told_by(sensor, instance)
        assert busy_text(instance, push_pool()) is None


def told_by(sensor: dg.SensorDefinition, instance: dg.DagsterInstance) -> str:
    with dg.build_sensor_context(instance=instance) as context:
        return str(sensor.evaluate_tick(context).skip_message)


def test_the_schedule_is_off_until_it_is_switched_on(definitions: dg.Definitions) -> None:
    schedule = definitions.resolve_schedule_def("example_schedule")
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 2 * * *", "Asia/Shanghai")


def test_the_schedule_skips_while_a_run_is_active(definitions: dg.Definitions, tmp_path: Path) -> None:
    schedule = definitions.resolve_schedule_def("example_schedule")
    job = definitions.resolve_job_def("example")
    with (
        dg.DagsterInstance.local_temp(str(tmp_path)) as instance,
        dg.build_schedule_context(instance=instance) as context,
    ):
        assert schedule.evaluate_tick(context).run_requests
        assert [limit.limit for limit in instance.event_log_storage.get_pool_limits()] == [1]
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        skipped = schedule.evaluate_tick(context)
        assert not skipped.run_requests
        assert run.run_id in str(skipped.skip_message)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project.copy_to(tmp_path_factory.mktemp("project"))
    project.make_profiles(500)
    return project


def test_dagsters_own_job_command_runs_the_same_sync(project: Project) -> None:
    ran = project.run("-m", "dagster", "job", "execute", "-m", "pipelines.definitions", "-j", "example")
    assert ran.returncode == 0, ran.stderr
    assert list((project.folder / "data/failed_rows").glob("sync=example/date=*/*.parquet"))


def test_the_definitions_pass_dagsters_check(project: Project) -> None:
    check = "import sys; from dagster_dg_cli.cli import main; sys.argv = ['dg', 'check', 'defs']; main()"
    with_path = Project(project.folder, {"PYTHONPATH": str(project.folder)})
    ran = with_path.run("-c", check)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "All definitions loaded successfully" in ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def webserver(project: Project) -> Iterator[str]:
    """The address of Dagster's own web server over workspace.yaml, with a history as the command line seeds it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = project.run("-m", "pipelines", "home").stdout.strip()
    serving = Project(project.folder, {"DAGSTER_HOME": home})
    process = serving.start("-m", "dagster", "dev", "-w", "workspace.yaml", "-p", str(port))
    address = f"http://127.0.0.1:{port}"
    try:
        next(answer for answer in until(address, ASSETS) if answer["assetNodes"])
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=60)


def ask(address: str, query: str, **variables: Any) -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310  the address is this test's own
        f"{address}/graphql",
        data=json.dumps({"query": query, "variables": variables}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  as above
        data: dict[str, Any] = json.loads(answer.read())["data"]
    return data


def until(address: str, query: str, **variables: Any) -> Iterator[dict[str, Any]]:
    """Answers, one after another, for at most two minutes; the server needs some seconds to come up."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with suppress(OSError):
            yield ask(address, query, **variables)
        time.sleep(0.5)
    pytest.fail("the web server gave no such answer within two minutes")


LAUNCH = """mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message } } }"""
TERMINATE = """mutation($id: String!) { terminateRun(runId: $id) { __typename ... on PythonError { message } } }"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
ASSETS = "{ assetNodes { assetKey { path } dependencyKeys { path } } }"


def launch(webserver: str) -> str:
    """The id of a new run."""
    selector = {
        "repositoryLocationName": "attribute_sync",
        "repositoryName": "__repository__",
        "jobName": "example",
    }
    launched = ask(webserver, LAUNCH, params={"selector": selector, "runConfigData": {}})["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return str(launched["run"]["runId"])


def end_of(webserver: str, run_id: str) -> str:
    """How the run ended."""
    statuses = (answer["runOrError"]["status"] for answer in until(webserver, STATUS, id=run_id))
    return str(next(status for status in statuses if status in {"SUCCESS", "FAILURE", "CANCELED"}))


def test_the_web_server_shows_the_graph_and_runs_the_job(webserver: str, project: Project) -> None:
    nodes = ask(webserver, ASSETS)["assetNodes"]
    shown = {node["assetKey"]["path"][-1]: {parent["path"][-1] for parent in node["dependencyKeys"]} for node in nodes}
    assert shown == GRAPH
    before = set((project.folder / "data/failed_rows").rglob("*.parquet"))
    run_id = launch(webserver)
    assert end_of(webserver, run_id) == "SUCCESS"
    after = set((project.folder / "data/failed_rows").rglob("*.parquet"))
    assert {Path(path).stem for path in after - before} == {run_id}


def test_a_run_that_is_terminated_in_the_web_server_ends_in_good_order(webserver: str, project: Project) -> None:
    project.make_profiles(20_000, seed=2)
    run_id = launch(webserver)
    asked = (list((project.folder / "data").rglob(f"{run_id}.ledger")) for _ in until(webserver, STATUS, id=run_id))
    next(ledgers for ledgers in asked if ledgers and ledgers[0].stat().st_size > 1_000)
    terminated = ask(webserver, TERMINATE, id=run_id)["terminateRun"]
    assert terminated["__typename"] == "TerminateRunSuccess", terminated
    assert end_of(webserver, run_id) == "CANCELED"
    (failed_rows,) = (project.folder / "data/failed_rows").rglob(f"{run_id}.parquet")
    assert "not_attempted" in pq.read_table(failed_rows, columns=["outcome"], partitioning=None)["outcome"].to_pylist()
    assert list((project.folder / "data").rglob("*.ledger")) == []
