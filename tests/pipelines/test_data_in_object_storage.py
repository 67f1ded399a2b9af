"""Whole runs whose data folder is in object storage: what stands there, and what a host without a past does with it."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from connectors.object_store.store import ObjectStore
from pipelines.lease import Lease
from pipelines.plan import Plan
from pipelines.sample_profiles import write_sample_profiles
from pipelines.verify import Verified
from tests.object_storage import ACCESS_KEY, S3, SECRET_KEY, Answer, Request, Wire
from tests.project import Project
from tests.running import Ran, example_attributes, make_sync, run

ROWS = 2_000
TARGET = "emulator-1400000000"


class Hosts:
    """Machines that have the storage in common, and nothing else."""

    def __init__(self, s3: S3, bucket: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.s3 = s3
        self.bucket = bucket
        self.folder = folder
        self._monkeypatch = monkeypatch
        self.files = write_sample_profiles(folder / "profiles", rows=ROWS, seed=3)
        monkeypatch.setenv("TENCENT_PUSH_CALLS_PER_SECOND", "2000")
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
        monkeypatch.setenv("ATTRIBUTE_SYNC_DATA", f"s3://{bucket}/growth/")
        self.be("a")

    def be(self, host: str) -> None:
        self._monkeypatch.setenv("ATTRIBUTE_SYNC_WORK", str(self.folder / host))

    def run(self, *, suffix: str = "", config: dict[str, object] | None = None) -> Ran:
        sync = make_sync(self.folder, example_attributes([str(file) for file in self.files]))
        return run(sync, suffix=suffix, config=config)

    def objects(self, below: str = "") -> list[str]:
        listed = self.s3.client.list_objects_v2(Bucket=self.bucket, Prefix=f"growth/{below}").get("Contents", [])
        return [each["Key"] for each in listed]

    def read(self, address: str) -> pa.Table:
        """A Parquet file as others read it there."""
        filesystem = fs.S3FileSystem(endpoint_override=self.s3.endpoint, region="us-east-1", scheme="http")
        return pq.read_table(address.removeprefix("s3://"), filesystem=filesystem, partitioning=None)

    def edit_city(self, rows: int) -> None:
        table = pq.read_table(self.files[0], partitioning=None)
        place = table.schema.get_field_index("city")
        cities = ["重庆" if number < rows else city for number, city in enumerate(table["city"].to_pylist())]
        pq.write_table(table.set_column(place, "city", pa.array(cities, table.schema.field(place).type)), self.files[0])


@pytest.fixture
def hosts(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Hosts:
    return Hosts(s3, s3.bucket(f"data-{abs(hash(request.node.name)):x}"), tmp_path, monkeypatch)


def acknowledged(ran: Ran) -> int:
    return sum(tally.acknowledged for tally in ran.pushed.tallies.values())


def test_a_new_host_goes_on_from_what_stands_in_the_storage(hosts: Hosts) -> None:
    first = hosts.run()
    assert first.succeeded, first.failure
    assert all(first.checks().values()), first.checks()
    assert acknowledged(first) > 0.7 * ROWS

    hosts.be("b")
    hosts.edit_city(20)
    second = hosts.run()
    assert second.succeeded, second.failure
    assert 0 < acknowledged(second) <= 25
    assert second.metadata("user_id_attributes")["unchanged"] > 0.7 * ROWS
    failing = [row for row in second.failed_rows if row["reason"] == "account_unknown"]
    assert {row["failed_runs"] for row in failing} == {2}, "it knows the failed rows of the night before"

    hosts.be("a")
    third = hosts.run()
    assert third.succeeded, third.failure
    assert acknowledged(third) == 0, "the first one has learnt what the second one sent"
    assert not [key for key in hosts.objects() if ".ledger" in key]


def test_everything_that_people_open_stands_there_and_says_so(hosts: Hosts) -> None:
    ran = hosts.run()
    place = f"s3://{hosts.bucket}/growth"
    failed = ran.metadata("failed_rows")["dagster/uri"]
    assert (
        failed == f"{place}/failed_rows/sync=nightly/{ran.pushed.failed_rows.parent.name}/{ran.result.run_id}.parquet"
    )
    assert hosts.read(failed).to_pylist() == ran.failed_rows
    frame = ran.metadata("user_id_attributes")["dagster/uri"]
    assert frame == f"{place}/frames/sync=nightly/run={ran.result.run_id}/user_id.parquet"
    assert hosts.read(frame).num_rows == ran.metadata("user_id_attributes")["changed"]
    assert hosts.read(ran.metadata("push_calls")["dagster/uri"]).num_rows > 20
    assert hosts.read(ran.metadata("invalid_rows")["dagster/uri"]).num_rows > 0
    report = ran.metadata("failure_report")["dagster/uri"]
    page = ObjectStore(place).read(report.removeprefix(f"{place}/"))
    assert page is not None
    assert failed in page.decode()
    for text in (str(ran.result.all_events), page.decode(), *hosts.objects()):
        assert str(hosts.folder / "a") not in text.replace(str(hosts.folder / "a/plans"), ""), "a place of one host"
        assert ACCESS_KEY not in text
        assert SECRET_KEY not in text


def test_a_plan_on_a_new_host_knows_what_is_acknowledged_and_leaves_nothing_there(hosts: Hosts) -> None:
    hosts.run()
    before = [key for key in hosts.objects() if "/locks/" not in key]
    hosts.be("b")
    planned = hosts.run(suffix="_plan")
    assert planned.succeeded, planned.failure
    plan: Plan = planned.result.asset_value(planned.sync.key("plan"))
    assert sum(each.frame.counts.unchanged for each in plan.plans) > 0.7 * ROWS
    assert plan.calls <= 2
    assert [key for key in hosts.objects() if "/locks/" not in key] == before


def test_an_adoption_is_known_everywhere_and_can_be_verified(hosts: Hosts) -> None:
    adopted = hosts.run(suffix="_adopt", config={"ops": {"nightly__adopt": {"config": {"confirm": "nightly"}}}})
    assert adopted.succeeded, adopted.failure
    assert not [key for key in hosts.objects() if ".ledger" in key]
    hosts.be("b")
    verified = hosts.run(suffix="_verify")
    assert verified.succeeded, verified.failure
    found: Verified = verified.result.output_for_node("nightly__verify")
    assert found.read > 0.7 * ROWS
    assert found.matching == 0, "the app had nothing of it"
    assert found.adopted_at is not None
    assert hosts.read(found.differences_address).num_rows >= found.differing
    assert found.differences_address in found.text


def test_a_storage_that_fails_in_mid_push_stops_the_calls_and_the_next_run_goes_on(
    hosts: Hosts, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", wire.endpoint)
    monkeypatch.setenv("TENCENT_PUSH_CALLS_PER_SECOND", "40")
    monkeypatch.setattr("connectors.object_store.locations._RETRIES", 1)
    denied = Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
    wire.spoil = lambda request: denied if is_segment(request, after=2) else None
    broken = hosts.run()
    assert not broken.succeeded
    assert "The record of what is sent cannot be published" in broken.failure
    assert "access is denied" in broken.failure
    (ledger,) = {key.split("/")[-2] for key in hosts.objects() if ".ledger/" in key}
    assert re.fullmatch(rf"{broken.result.run_id}\.[0-9a-f]{{16}}\.ledger", ledger), "no other push writes to it"

    wire.spoil = lambda request: None
    monkeypatch.setenv("TENCENT_PUSH_CALLS_PER_SECOND", "2000")
    second = hosts.run()
    assert second.succeeded, second.failure
    assert all(second.checks().values()), "the app holds what is on record"
    assert second.pushed.frames.unsettled_calls > 0
    assert not [key for key in hosts.objects() if ".ledger" in key]


def test_a_frame_that_others_removed_meanwhile_is_there_again_before_the_first_call(
    hosts: Hosts, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", wire.endpoint)
    removed: list[str] = []
    at_the_first_call: list[str] = []

    def spoil(request: Request) -> None:
        if "/locks/" in request.path and not removed:
            removed.extend(key for key in hosts.objects() if "/frames/" in key)
            for key in removed:
                hosts.s3.delete(hosts.bucket, key)
        if not at_the_first_call and is_segment(request, after=0):
            at_the_first_call.extend(key for key in hosts.objects() if "/frames/" in key)

    wire.spoil = spoil
    ran = hosts.run()
    assert ran.succeeded, ran.failure
    assert {key for key in removed if "invalid_rows" not in key} == set(at_the_first_call)


def is_segment(request: Request, *, after: int) -> bool:
    folder, _, number = request.path.rpartition("/")
    return request.method == "PUT" and folder.endswith(".ledger") and number.isdigit() and int(number) > after


def test_the_command_line_works_on_it_and_is_kept_apart_from_other_hosts(hosts: Hosts, s3: S3, tmp_path: Path) -> None:
    environ = {
        "ATTRIBUTE_SYNC_DATA": f"s3://{hosts.bucket}/growth",
        "ATTRIBUTE_SYNC_WORK": str(tmp_path / "work"),
        "AWS_ENDPOINT_URL": s3.endpoint,
        "TENCENT_PUSH_CALLS_PER_SECOND": "1000",
    }
    project = Project(Project.copy_to(tmp_path / "project").folder, environ)
    project.make_profiles(500)
    ran = project.run("-m", "pipelines", "run", "example")
    assert ran.returncode == 0, ran.stderr
    assert f"data in s3://{hosts.bucket}/growth" in ran.stderr
    assert f"  failed rows     s3://{hosts.bucket}/growth/failed_rows/sync=example/date=" in ran.stdout
    assert list((tmp_path / "work").glob(f"{hosts.bucket}-*"))

    elsewhere = Lease(ObjectStore(f"s3://{hosts.bucket}/growth"), f"locks/{TARGET}", beat_seconds=0.2)
    with elsewhere.held():
        busy = project.run("-m", "pipelines", "run", "example")
    assert busy.returncode == 75
    assert "another run holds the data folder right now" in busy.stderr

    nowhere = Project(project.folder, {**environ, "ATTRIBUTE_SYNC_DATA": "s3://no-such-bucket-here"})
    told = nowhere.run("-m", "pipelines", "run", "example")
    assert told.returncode == 1
    assert "there is no such bucket at this endpoint" in told.stderr
    assert "Traceback" not in told.stderr
