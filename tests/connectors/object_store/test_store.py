"""Objects of a bucket, against a server that speaks S3: what is created once, what is replaced, and what faults say."""

import builtins
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.object_store import locations
from connectors.object_store import store as module
from connectors.object_store.faults import ObjectStoreError
from connectors.object_store.locations import read_location
from connectors.object_store.store import Listed, ObjectStore
from tests.object_storage import ACCESS_KEY, S3, SECRET_KEY, Answer, Request, Wire, passed_on

CONTENT = "上海 🇨🇳".encode()


@pytest.fixture
def store(s3: S3, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    bucket = s3.bucket(f"objects-{abs(hash(request.node.name)):x}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    return ObjectStore(f"s3://{bucket}/growth/data/")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No patience with a storage that does not answer."""
    monkeypatch.setattr(locations, "_RETRIES", 0)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0)


def test_an_object_is_created_once(store: ObjectStore) -> None:
    assert store.create("locks/1", b"mine")
    assert not store.create("locks/1", b"yours")
    assert store.read("locks/1") == b"mine"
    assert store.create("locks/1", b"mine"), "the answer was lost, and it was sent again"


def test_an_object_is_replaced_whole(store: ObjectStore, tmp_path: Path) -> None:
    store.put("reports/一.html", b"old")
    (tmp_path / "new").write_bytes(CONTENT)
    store.put("reports/一.html", tmp_path / "new")
    assert store.read("reports/一.html") == CONTENT
    assert store.read("reports/二.html") is None


def test_large_objects_go_in_pieces_both_ways(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BYTES_PER_REQUEST", 1_000_000)
    content = bytes(range(256)) * 45_000  # more than what the library sends in one request
    (tmp_path / "whole").write_bytes(content)
    store.put("frames/whole.parquet", tmp_path / "whole")
    (listed,) = store.list("frames")
    assert listed.bytes == len(content)
    store.download(listed, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    with pytest.raises(ObjectStoreError, match="changed while it was read"):
        store.download(Listed(listed.key, len(content) + 5, 0.0), tmp_path / "longer")


def test_an_object_that_vanishes_before_it_is_read_is_told_as_one(store: ObjectStore, tmp_path: Path) -> None:
    store.put("part", b"rows")
    (listed,) = store.list("")
    store.delete(["part"])
    with pytest.raises(ObjectStoreError, match="part: it has vanished while it was read; run again"):
        store.download(listed, tmp_path / "part")


def test_a_folder_lists_what_is_below_it_and_no_neighbour(store: ObjectStore) -> None:
    for key in ("locks/2", "locks/10", "locks-of-others/1", "locks/deep/er/3"):
        store.put(key, b"x")
    assert [each.key for each in store.list("locks")] == ["locks/10", "locks/2", "locks/deep/er/3"]
    assert store.list("nothing") == []
    assert all(abs(each.modified_at) > 1e9 for each in store.list("locks"))


def test_what_is_deleted_is_gone_and_what_is_not_there_does_not_matter(store: ObjectStore) -> None:
    store.put("a", b"x")
    store.delete(["a", "b"])
    store.delete([])
    assert store.read("a") is None


def test_many_small_objects_are_read_in_order(store: ObjectStore) -> None:
    keys = [f"run.ledger/{number:08d}" for number in range(60)]
    for key in keys:
        store.create(key, key.encode())
    assert store.read_all(keys) == [key.encode() for key in keys]
    with pytest.raises(ObjectStoreError, match=r"run\.ledger/x has vanished"):
        store.read_all([*keys, "run.ledger/x"])


def test_two_who_create_at_once_are_told_apart_by_the_storage(store: ObjectStore, s3: S3, wire: Wire) -> None:
    """The other one's object comes between this one's request and its answer."""
    bucket = store.location.bucket
    behind = ObjectStore(str(store), {"AWS_ENDPOINT_URL": wire.endpoint, "AWS_REGION": "us-east-1"})
    wire.once(
        lambda request: request.method == "PUT",
        lambda: s3.put(bucket, "growth/data/locks/1", b"theirs"),
    )
    assert not behind.create("locks/1", b"mine")
    assert store.read("locks/1") == b"theirs"
    assert any(request.headers.get("if-none-match") == "*" for request in wire.requests if request.method == "PUT")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(403, b"<Error><Code>AccessDenied</Code></Error>"), "access is denied; the role must list the bucket"),
        (Answer(403, b"<Error><Code>InvalidAccessKeyId</Code></Error>"), "does not accept the credentials"),
        (Answer(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"), "does not accept the credentials"),
        (Answer(400, b"<Error><Code>ExpiredToken</Code></Error>"), "does not accept the credentials"),
        (Answer(404, b"<Error><Code>NoSuchBucket</Code></Error>"), "there is no such bucket"),
        (Answer(301, b"<Error><Code>PermanentRedirect</Code></Error>"), "the bucket is in another region"),
        (Answer(501, b"<Error><Code>NotImplemented</Code></Error>"), "cannot create an object only where none is"),
        (Answer(503, b"<Error><Code>SlowDown</Code></Error>"), "cannot be reached or does not answer in time"),
    ],
)
def test_faults_say_what_to_do_and_nothing_secret(
    store: ObjectStore, wire: Wire, hasty: None, answer: Answer, told: str
) -> None:
    def spoil(request: Request) -> Answer:
        return answer

    wire.spoil = spoil
    behind = ObjectStore(str(store), {"AWS_ENDPOINT_URL": wire.endpoint, "AWS_REGION": "us-east-1"})
    for act in (
        lambda: behind.create("locks/1", b"x"),
        lambda: behind.put("locks/1", b"x"),
        lambda: behind.list("locks"),
        lambda: behind.delete(["locks/1"]),
    ):
        with pytest.raises(ObjectStoreError, match=told) as raised:
            act()
        assert str(raised.value).startswith(f"{store}/locks")
        for secret in (ACCESS_KEY, SECRET_KEY, "Signature="):
            assert secret not in str(raised.value)
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__


def test_a_storage_that_is_not_there_is_told(store: ObjectStore, hasty: None) -> None:
    nowhere = ObjectStore(str(store), {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"})
    with pytest.raises(ObjectStoreError, match="cannot be reached"):
        nowhere.read("locks/1")


def test_a_storage_that_comes_back_is_waited_for(store: ObjectStore, wire: Wire) -> None:
    wire.once(lambda request: request.method == "PUT", lambda: Answer(503, b"<Error><Code>SlowDown</Code></Error>"))
    behind = ObjectStore(str(store), {"AWS_ENDPOINT_URL": wire.endpoint, "AWS_REGION": "us-east-1"})
    assert behind.create("locks/1", b"mine")
    assert len([request for request in wire.requests if request.method == "PUT"]) == 2


def test_a_creation_whose_answer_is_lost_is_sent_again(store: ObjectStore, s3: S3, wire: Wire) -> None:
    answered = [Answer(200, b"", length=50)]  # cut off after the write

    def lose(request: Request) -> Answer | None:
        if request.method == "PUT" and answered:
            passed_on(s3.endpoint, request)
            return answered.pop()
        return None

    wire.spoil = lose
    behind = ObjectStore(str(store), {"AWS_ENDPOINT_URL": wire.endpoint, "AWS_REGION": "us-east-1"})
    assert behind.create("locks/1", b"mine")
    assert len([request for request in wire.requests if request.method == "PUT"]) == 2


def test_a_disk_that_takes_half_a_piece_gets_the_rest(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda file, piece, start: write(file, bytes(piece)[: len(piece) // 2 + 1], start)
    )
    store.put("parts/1", CONTENT)
    store.download(store.list("parts")[0], tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("s3:/bucket", "looks like s3://bucket/folder"),
        ("ftp://bucket/x", "ftp:// is no object storage that can be written. Known are s3://, cosn://"),
        ("hdfs://name-node/x", "hdfs:// is no object storage"),
        ("s3:///x", "names no bucket"),
        ("s3://planted-key:planted-secret@bucket/x", "Credentials and endpoints come from the environment"),
        ("s3://bucket:9000/x", "a port before its path"),
        ("s3://bucket/x?X-Amz-Signature=planted", "cannot be read"),
        ("abfs://container@account@x/y", "names no bucket"),
    ],
)
def test_an_address_that_cannot_be_used_is_told_without_its_secrets(address: str, told: str) -> None:
    with pytest.raises(ObjectStoreError, match=told) as raised:
        ObjectStore(address)
    assert "planted" not in str(raised.value)


def test_addresses_lead_below_a_bucket() -> None:
    assert str(read_location(" s3://bucket//a/b/ ")) == "s3://bucket/a/b"
    assert str(read_location("gs://bucket")) == "gs://bucket"
    assert read_location("abfs://container@account.dfs.core.windows.net/a").bucket == "container"
    assert ObjectStore("cosn://profiles-1250000000/a").address_of("b") == "cosn://profiles-1250000000/a/b"


def opened(address: str, environ: dict[str, str]) -> tuple[Any, Any]:
    return locations.open_stores(read_location(address), environ)


def test_cos_has_the_bucket_in_its_host_and_a_header_of_its_own() -> None:
    creating, plain = opened("cosn://profiles-1250000000/a", {"AWS_REGION": "ap-shanghai"})
    for store in (creating, plain):
        assert store.config["endpoint"] == "https://profiles-1250000000.cos.ap-shanghai.myqcloud.com"
        assert store.config["virtual_hosted_style_request"]
        assert store.prefix == "a"
    assert creating.client_options["default_headers"] == {"x-cos-forbid-overwrite": b"true"}
    assert "default_headers" not in plain.client_options
    with pytest.raises(ObjectStoreError, match="say the bucket's region with AWS_REGION"):
        opened("cosn://profiles-1250000000/a", {})


def test_google_and_azure_are_opened_by_their_own_means(monkeypatch: pytest.MonkeyPatch) -> None:
    google, _ = opened("gs://bucket/a", {})
    assert type(google).__name__ == "GCSStore"
    assert google.prefix == "a"
    azure, _ = opened("abfs://container@account.dfs.core.windows.net/a", {})
    assert azure.config["account_name"] == "account"
    emulated, _ = opened(
        "az://box/a", {"AZURE_STORAGE_ACCOUNT": "dev", "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:1/dev"}
    )
    assert emulated.client_options["allow_http"] == "true"
    with pytest.raises(ObjectStoreError, match="say the account"):
        opened("az://container/a", {})


def test_requests_have_bounds() -> None:
    creating, store = opened("s3://bucket/a", {"AWS_REGION": "us-east-1"})
    assert creating.client_options["timeout"] == "5s"
    assert store.client_options["timeout"] == "30s"
    assert store.retry_config["retry_timeout"] == timedelta(seconds=60)
    # Drawn by chance, the pauses are a tenth of a second each at the least: the patience ends them, not their number.
    assert store.retry_config["max_retries"] * 0.1 > 60
    assert store.retry_config["backoff"]["max_backoff"] == timedelta(seconds=1)
    assert store.client_options["allow_http"] == "false"


def test_a_package_that_is_missing_is_named(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("obstore"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ObjectStoreError, match=r"pip install '\.\[object-storage\]'"):
        store._stores  # noqa: B018  what every request begins with
