"""Delta and Iceberg tables in object storage: the same settings and credentials serve them as serve Parquet there."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.profiles.errors import (
    SourceAddressError,
    SourceNotFoundError,
    SourceUnreachableError,
    SourceUnreadableError,
)
from connectors.profiles.lake.delta import DeltaTable
from connectors.profiles.lake.delta_storage import log_address, log_options
from connectors.profiles.lake.iceberg import IcebergTable
from connectors.profiles.lake.iceberg_catalog import IcebergName
from connectors.profiles.lake.lake_extract import extract_table
from connectors.profiles.lake.lake_table import LakeTable
from connectors.profiles.storage import filesystems
from connectors.profiles.storage.filesystems import StorageOptions, read_address
from connectors.profiles.storage.object_storage import ObjectStorage
from tests.lake_tables import (
    catalog_properties,
    delete_delta_rows,
    delta_files,
    open_catalog,
    write_delta,
    write_iceberg,
)
from tests.object_storage import ACCESS_KEY, S3, SECRET_KEY, Answer, Request, Wire

PEOPLE = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "name": ["Zoë", "上海", "نور"]})


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))


def at(endpoint: str, **more: Any) -> ObjectStorage:
    return ObjectStorage(StorageOptions(endpoint=endpoint, **more))


def rows(table: LakeTable, folder: Path, columns: Sequence[str] = ("id", "name")) -> list[dict[str, Any]]:
    manifest = extract_table(lambda: table, folder / "extract", columns=columns)
    return [row for file in manifest.files for row in pq.read_table(file.path).to_pylist()]


def delta(address: str, storage: ObjectStorage, **options: Any) -> DeltaTable:
    return DeltaTable(address, base=Path("/"), storage=storage, **options)


def iceberg(folder: Path, storage: ObjectStorage, **properties: str) -> IcebergTable:
    name = IcebergName("marts.people", "test", {**catalog_properties(folder), **properties})
    return IcebergTable(name, base=folder, storage=storage)


def write_delta_there(s3: S3, address: str, *tables: pa.Table, **options: Any) -> None:
    there = {"AWS_ENDPOINT_URL": s3.endpoint, "AWS_ALLOW_HTTP": "true", "AWS_S3_ALLOW_UNSAFE_RENAME": "true"}
    write_delta(address, *tables, storage_options=there, **options)


# Delta --------------------------------------------------------------------------------------------------------------


def test_a_delta_table_is_read_with_the_storage_s_settings(s3: S3, wire: Wire, tmp_path: Path) -> None:
    address = f"s3://{s3.bucket('delta-lake')}/marts/people"
    write_delta_there(s3, address, PEOPLE.slice(0, 1), PEOPLE.slice(1))
    table = delta(address, at(wire.endpoint))
    assert (table.version.table, table.version.id) == (address, "1")
    assert rows(table, tmp_path) == PEOPLE.to_pylist()
    assert rows(delta(address.replace("s3:", "s3a:"), at(wire.endpoint), version=0), tmp_path) == PEOPLE[:1].to_pylist()
    assert any("_delta_log" in request.path for request in wire.requests)
    assert all(request.path.startswith("/delta-lake") for request in wire.requests)


def test_a_delta_table_is_read_by_the_environment_alone(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"s3://{s3.bucket('delta-environment')}/people"
    write_delta_there(s3, address, PEOPLE)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    assert rows(delta(address, ObjectStorage()), tmp_path) == PEOPLE.to_pylist()


def test_deleted_rows_are_found_in_object_storage(s3: S3, tmp_path: Path) -> None:
    bucket = s3.bucket("delta-deleted")
    people = PEOPLE.append_column("part", pa.array(["a b/ü%", "a b/ü%", "上"]))
    write_delta(tmp_path / "t", people, partition_by=["part"])
    path = next(path for path in delta_files(tmp_path / "t", 0) if "ü" not in path and "b" in path.split("/")[0])
    delete_delta_rows(tmp_path / "t", 1, {path: [0]}, in_a_file=True)
    s3.upload(bucket, tmp_path / "t", prefix="t/")
    found = rows(delta(f"s3://{bucket}/t", at(s3.endpoint)), tmp_path, ["id", "part"])
    assert sorted((row["id"], row["part"]) for row in found) == [(2, "a b/ü%"), (3, "上")]


def test_a_bucket_of_cos_stands_in_the_hosts_name(
    s3: S3, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket("tables-1250000000")
    write_delta_there(s3, f"s3://{bucket}/people", PEOPLE)
    endpoint = wire.endpoint.replace("127.0.0.1", "localhost")
    monkeypatch.setenv("HTTP_PROXY", wire.endpoint)  # the name of the bucket's host is none that this machine knows
    table = delta(f"cosn://{bucket}/people", at(endpoint))
    assert rows(table, tmp_path) == PEOPLE.to_pylist()
    assert table.version.table == f"cosn://{bucket}/people"
    assert {request.host for request in wire.requests} == {f"{bucket}.{endpoint.removeprefix('http://')}"}
    assert not any(f"/{bucket}/" in request.path for request in wire.requests)


@pytest.mark.parametrize(("address", "options", "environ", "expected"), [
    ("cosn://b-1250000000/t", StorageOptions(region="ap-shanghai"), {}, {
        "AWS_ENDPOINT_URL": "https://b-1250000000.cos.ap-shanghai.myqcloud.com", "AWS_REGION": "ap-shanghai",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true", "AWS_ALLOW_HTTP": "false"}),
    ("s3://b/t", StorageOptions(), {"AWS_REGION": "eu-west-1"}, {
        "AWS_REGION": "eu-west-1", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false"}),
    ("s3://b/t", StorageOptions(endpoint="http://minio:9000", anonymous=True), {}, {
        "AWS_ENDPOINT_URL": "http://minio:9000", "AWS_ALLOW_HTTP": "true", "AWS_SKIP_SIGNATURE": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false"}),
    ("gs://b/t", StorageOptions(anonymous=True), {}, {"google_skip_signature": "true"}),
    ("abfs://c@account.dfs.core.windows.net/t", StorageOptions(), {"AZURE_STORAGE_KEY": "k"}, {
        "azure_storage_account_name": "account", "azure_storage_account_key": "k"}),
    ("az://c/t", StorageOptions(), {"AZURE_STORAGE_ACCOUNT": "a", "AZURE_STORAGE_SAS_TOKEN": "s"}, {
        "azure_storage_account_name": "a", "azure_storage_sas_key": "s"}),
])  # fmt: skip
def test_settings_in_deltalake_s_words(
    address: str, options: StorageOptions, environ: dict[str, str], expected: dict[str, str]
) -> None:
    told = log_options(read_address(address), options, environ)
    assert {key: value for key, value in told.items() if key.startswith(("AWS_", "azure_", "google_"))} == expected
    assert told["connect_timeout"] == "10s"


def test_what_deltalake_does_not_read_is_refused() -> None:
    with pytest.raises(SourceAddressError, match="Delta tables are read from"):
        log_options(read_address("hdfs://namenode:8020/t"), StorageOptions(), {})
    with pytest.raises(SourceAddressError, match="is for S3 and COS alone"):
        log_options(read_address("gs://b/t"), StorageOptions(endpoint="http://h"), {})
    assert log_address(read_address("gcs://b/t")) == "gs://b/t"


# Iceberg ------------------------------------------------------------------------------------------------------------


def in_s3(s3: S3, folder: Path) -> None:
    """A catalog in the folder, with marts.people in a bucket."""
    there = {"s3.endpoint": s3.endpoint, "s3.region": "us-east-1"}
    bucket = s3.bucket(f"iceberg-{folder.name.replace('_', '-')}"[:60])
    write_iceberg(open_catalog(folder, f"s3://{bucket}/lake", **there), "marts.people", PEOPLE[:1], PEOPLE[1:])


def test_an_iceberg_table_is_read_with_the_storage_s_settings_or_the_environment_s(
    s3: S3, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_s3(s3, tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", wire.endpoint)
    assert rows(iceberg(tmp_path, ObjectStorage()), tmp_path) == PEOPLE.to_pylist()
    assert any(map(is_of_rows, wire.requests))
    wire.requests.clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert rows(iceberg(tmp_path, at(wire.endpoint)), tmp_path) == PEOPLE.to_pylist()
    catalogs_own = iceberg(tmp_path, ObjectStorage(), **{"s3.endpoint": wire.endpoint})
    assert rows(catalogs_own, tmp_path) == PEOPLE.to_pylist()


def test_metadata_in_cos_are_asked_for_with_the_bucket_in_the_hosts_name(s3: S3, wire: Wire, tmp_path: Path) -> None:
    bucket = s3.bucket("iceberg-1250000000")
    there = {"s3.endpoint": s3.endpoint, "s3.region": "us-east-1"}
    table = write_iceberg(open_catalog(tmp_path, f"s3://{bucket}/lake", **there), "marts.people", PEOPLE)
    renamed = table.metadata_location.replace("s3://", "cosn://")
    endpoint = wire.endpoint.replace("127.0.0.1", "localhost")
    found = IcebergTable(IcebergName(metadata=renamed), base=tmp_path, storage=at(endpoint, region="us-east-1"))
    assert rows(found, tmp_path) == PEOPLE.to_pylist()
    assert f"{bucket}.localhost" in {request.host.partition(":")[0] for request in wire.requests}


# What the storage does not give -------------------------------------------------------------------------------------


REFUSALS = [
    (403, "AccessDenied", SourceUnreadableError, "access is denied"),
    (403, "InvalidAccessKeyId", SourceUnreadableError, "credentials"),
    (503, "SlowDown", SourceUnreachableError, "cannot be reached"),
]


def is_of_the_log(request: Request) -> bool:
    return "object_store" in request.headers.get("user-agent", "")


def is_of_rows(request: Request) -> bool:
    return request.path.partition("?")[0].endswith(".parquet")


def answering(answer: Answer, hits: Callable[[Request], bool]) -> Callable[[Request], Answer | None]:
    return lambda request: answer if hits(request) else None


@pytest.mark.parametrize(("which", "hits"), [
    ("delta", lambda _: True), ("delta", is_of_the_log), ("delta", is_of_rows),
    ("iceberg", lambda _: True), ("iceberg", is_of_rows),
], ids=["delta", "delta's log", "delta's rows", "iceberg", "iceberg's rows"])  # fmt: skip
def test_refusals_are_told_in_our_words(
    s3: S3, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, which: str, hits: Callable[[Request], bool]
) -> None:
    monkeypatch.setattr(filesystems, "ATTEMPTS", 1)
    monkeypatch.setattr("connectors.profiles.lake.delta_storage._PATIENCE", {"max_retries": "0"})
    if which == "delta":
        address = f"s3://{s3.bucket('refused-' + tmp_path.name.replace('_', '-'))}/people"
        write_delta_there(s3, address, PEOPLE)
    else:
        in_s3(s3, tmp_path)
    for status, code, kind, what in REFUSALS:
        answer = Answer(status, f"<Error><Code>{code}</Code><Message>planted words</Message></Error>".encode())
        wire.spoil = answering(answer, hits)
        with pytest.raises(kind) as caught:
            storage = at(wire.endpoint)
            rows(delta(address, storage) if which == "delta" else iceberg(tmp_path, storage), tmp_path)
        assert what in str(caught.value)
        for secret in (ACCESS_KEY, SECRET_KEY, "planted", "\n"):
            assert secret not in str(caught.value)
        assert not (tmp_path / "extract").exists()


def test_what_is_not_there_is_told(s3: S3, wire: Wire) -> None:
    bucket = s3.bucket("delta-nothing")
    with pytest.raises(SourceNotFoundError, match="there is no such bucket"):
        delta("s3://not-there/people", at(wire.endpoint))
    with pytest.raises(SourceNotFoundError, match=f"No Delta table stands at s3://{bucket}/people"):
        delta(f"s3://{bucket}/people", at(wire.endpoint))


def test_a_file_that_was_vacuumed_in_object_storage_is_named(s3: S3, tmp_path: Path) -> None:
    bucket = s3.bucket("delta-vacuumed")
    write_delta(tmp_path / "t", PEOPLE)
    s3.upload(bucket, tmp_path / "t", prefix="t/")
    (path,) = delta_files(tmp_path / "t", 0)
    s3.delete(bucket, f"t/{path}")
    with pytest.raises(SourceNotFoundError, match=f"s3://{bucket}/t/{path}, a file of the Delta table") as caught:
        rows(delta(f"s3://{bucket}/t", at(s3.endpoint)), tmp_path)
    assert "is not there any more: it was vacuumed or deleted" in str(caught.value)
