"""Addresses are read literally and never hold a secret; each scheme leads to its filesystem with the right settings."""

from collections.abc import Mapping
from typing import Any

import pytest
from pyarrow import fs

from connectors.profiles.errors import SourceAddressError
from connectors.profiles.storage.filesystems import (
    Address,
    StorageOptions,
    is_address,
    open_filesystem,
    read_address,
    read_endpoint,
)

SECRET = "planted-secret"


@pytest.mark.parametrize(
    ("text", "path", "shown"),
    [
        ("s3://lake/profiles/a.parquet", "lake/profiles/a.parquet", "s3://lake/profiles/a.parquet"),
        ("S3://lake/profiles/", "lake/profiles", "s3://lake/profiles"),
        ("s3://lake", "lake", "s3://lake/"),
        ("s3a://lake/城市/a b%20c.parquet", "lake/城市/a b%20c.parquet", "s3a://lake/城市/a b%20c.parquet"),
        ("s3://lake/part-?.parquet", "lake/part-?.parquet", "s3://lake/part-?.parquet"),
        ("gs://lake/year=20??/x=1/*.parquet", "lake/year=20??/x=1/*.parquet", "gs://lake/year=20??/x=1/*.parquet"),
        ("abfs://box@account.dfs.core.windows.net/p", "box/p", "abfs://box@account.dfs.core.windows.net/p"),
        ("az://box/p", "box/p", "az://box/p"),
        ("cosn://profiles-1250000000/p", "profiles-1250000000/p", "cosn://profiles-1250000000/p"),
        ("hdfs://namenode:8020/lake/p", "/lake/p", "hdfs://namenode:8020/lake/p"),
        ("hdfs:///lake/p", "/lake/p", "hdfs:///lake/p"),
    ],
)
def test_an_address_is_taken_literally(text: str, path: str, shown: str) -> None:
    address = read_address(text)
    assert address.path == path
    assert str(address) == shown


@pytest.mark.parametrize("text", ["profiles/*.parquet", "/lake/a.parquet", "C:/lake/a.parquet", "a:b", "~/lake"])
def test_a_local_path_is_no_address(text: str) -> None:
    assert not is_address(text)


@pytest.mark.parametrize(
    "text",
    [
        f"s3://user:{SECRET}@lake/p.parquet",
        f"s3://{SECRET}@lake/p.parquet",
        f"s3://lake:{SECRET}/p.parquet",
        f"abfs://box@account:{SECRET}/p.parquet",
        f"hdfs://user:{SECRET}@namenode:8020/p.parquet",
        f"s3://lake/p.parquet?X-Amz-Algorithm=AWS4&X-Amz-Signature={SECRET}",
        f"az://box/p.parquet?sig={SECRET}",
        f"s3://lake?secret_key={SECRET}",
    ],
)
def test_an_address_with_a_secret_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(SourceAddressError, match="the environment") as caught:
        read_address(text)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://lake.example/p.parquet", "https:// is no address.*Known are s3://"),
        ("file:///lake/p.parquet", "file:// is no address"),
        ("s3:///p.parquet", "names no bucket"),
    ],
)
def test_other_addresses_are_refused_with_those_that_are_known(text: str, told: str) -> None:
    with pytest.raises(SourceAddressError, match=told):
        read_address(text)


def test_an_endpoint_is_a_host_with_https_unless_it_says_otherwise() -> None:
    assert read_endpoint("http://127.0.0.1:9000/") == ("http", "127.0.0.1:9000")
    assert read_endpoint("cos.ap-shanghai.myqcloud.com") == ("https", "cos.ap-shanghai.myqcloud.com")


@pytest.mark.parametrize("endpoint", [f"https://user:{SECRET}@host", f"https://host/{SECRET}", "", "ftp://host"])
def test_an_endpoint_that_holds_more_is_refused_without_quoting_it(endpoint: str) -> None:
    with pytest.raises(SourceAddressError) as caught:
        read_endpoint(endpoint)
    assert SECRET not in str(caught.value)


def settings_of(filesystem: fs.FileSystem) -> dict[str, Any]:
    """What the filesystem was made with, as pickling it tells."""
    _, arguments = filesystem.__reduce__()
    return dict(arguments[-1])


S3_CASES: list[tuple[str, StorageOptions, Mapping[str, str], dict[str, Any]]] = [
    (
        "cosn://profiles-1250000000/p",
        StorageOptions(region="ap-shanghai"),
        {"AWS_ENDPOINT_URL": "https://elsewhere.example"},
        {
            "endpoint_override": "cos.ap-shanghai.myqcloud.com",
            "scheme": "https",
            "force_virtual_addressing": True,
            "region": "ap-shanghai",
        },
    ),
    (
        "cosn://profiles-1250000000/p",
        StorageOptions(),
        {"AWS_REGION": "ap-guangzhou"},
        {"endpoint_override": "cos.ap-guangzhou.myqcloud.com", "force_virtual_addressing": True},
    ),
    (
        "s3://profiles-1250000000/p",
        StorageOptions(endpoint="https://cos.ap-jakarta.myqcloud.com"),
        {"AWS_REGION": "ap-jakarta"},
        {"endpoint_override": "cos.ap-jakarta.myqcloud.com", "force_virtual_addressing": True},
    ),
    (
        "s3://lake/p",
        StorageOptions(),
        {"AWS_ENDPOINT_URL": "http://minio:9000", "AWS_DEFAULT_REGION": "eu-west-1"},
        {
            "endpoint_override": "minio:9000",
            "scheme": "http",
            "force_virtual_addressing": False,
            "region": "eu-west-1",
        },
    ),
    (
        "s3://lake/p",
        StorageOptions(endpoint="http://minio:9000", virtual_host_style=True, anonymous=True),
        {"AWS_ENDPOINT_URL_S3": "http://other:9000", "AWS_REGION": "eu-west-1"},
        {"endpoint_override": "minio:9000", "force_virtual_addressing": True, "anonymous": True},
    ),
    ("s3://lake/p", StorageOptions(region="eu-central-1"), {}, {"endpoint_override": "", "region": "eu-central-1"}),
]


@pytest.mark.parametrize(("text", "options", "environ", "expected"), S3_CASES)
def test_s3_and_cos_are_opened_with_the_yamls_settings_first_and_the_environments_next(
    text: str, options: StorageOptions, environ: Mapping[str, str], expected: dict[str, Any]
) -> None:
    filesystem = open_filesystem(read_address(text), options, environ)
    assert isinstance(filesystem, fs.S3FileSystem)
    found = settings_of(filesystem)
    assert {name: found[name] for name in expected} == expected
    assert (found["connect_timeout"], found["request_timeout"]) == (10, 30)


def test_google_and_azure_are_opened_where_the_settings_say() -> None:
    options = StorageOptions(endpoint="http://127.0.0.1:4443", anonymous=True)
    google = open_filesystem(read_address("gs://lake/p"), options, {})
    assert isinstance(google, fs.GcsFileSystem)
    assert settings_of(google)["endpoint_override"] == "127.0.0.1:4443"
    environ = {"AZURE_STORAGE_ACCOUNT": "elsewhere", "AZURE_STORAGE_KEY": "a2V5"}
    named = open_filesystem(read_address("abfs://box@account.dfs.core.windows.net/p"), StorageOptions(), environ)
    assert isinstance(named, fs.AzureFileSystem)
    assert settings_of(named)["account_name"] == "account"
    by_variable = open_filesystem(read_address("az://box/p"), options, environ)
    assert settings_of(by_variable)["account_name"] == "elsewhere"
    assert settings_of(by_variable)["blob_storage_authority"] == "127.0.0.1:4443"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cosn://profiles-1250000000/p", "cosn://profiles-1250000000/p: say the bucket's region"),
        ("az://box/p", "az://box/p: say the account"),
        ("hdfs://namenode:8020/p", "hdfs://namenode:8020/p cannot be opened; pyarrow needs libhdfs"),
    ],
)
def test_what_is_lacking_is_told(text: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HADOOP_HOME", "ARROW_LIBHDFS_DIR", "CLASSPATH", "JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SourceAddressError, match=told):
        open_filesystem(read_address(text), StorageOptions(), {})


def test_a_root_begins_every_address_of_its_bucket() -> None:
    address = Address("s3", "lake", "p/a.parquet")
    assert str(address) == f"{address.root}p/a.parquet"
