"""What an address means on a real S3 server, and what is told when the storage does not give it."""

import json
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import moto.settings
import pytest

from connectors.profiles.errors import (
    ProfilesError,
    SourceAddressError,
    SourceChangedError,
    SourceNotFoundError,
    SourceUnreachableError,
    SourceUnreadableError,
)
from connectors.profiles.files import FoundFile, found_files, success_file_ns
from connectors.profiles.parquet import Manifest, read_manifest
from connectors.profiles.storage import filesystems
from connectors.profiles.storage.filesystems import StorageOptions
from connectors.profiles.storage.object_storage import ObjectStorage, in_order
from tests.object_storage import ACCESS_KEY, S3, SECRET_KEY, Answer, Request, Wire, parquet_bytes

SMALL = {"user": ["u1", "u2"], "town": ["Bonn", "上海"]}
NAMES = [
    "top.parquet",
    "top.csv",
    "dt=2026-11-19/part-0.parquet",
    "dt=2026-11-20/part-0.parquet",
    "dt=2026-11-20/part-1.parquet",
    "dt=2026-11-20/deep/er/part-[2].parquet",
    "dt=2026-11-20/_SUCCESS",
    "dt=2026-11-20/_temporary/0/part-9.parquet",
    "dt=2026-11-20/.part-8.parquet",
    "written.parquet/part-0.parquet",
    "城市/北京 1.parquet",
]
SOURCES = [
    "",
    "top.parquet",
    "*.parquet",
    "*",
    "**",
    "**/*.parquet",
    "**/part-?.parquet",
    "dt=2026-11-20",
    "dt=2026-11-20/",
    "dt=2026-11-2[0-9]/*.parquet",
    "dt=2026-11-[!2]*/*.parquet",
    "dt=*",
    "dt=*/**/*.parquet",
    "*/deep/er/*",
    "**/er",
    "dt=2026-11-20/deep/er/part-[2].parquet",
    "dt=2026-11-20/_temporary/*/*.parquet",
    "城市/*.parquet",
    "t?p.parquet",
]


def storage_at(endpoint: str) -> ObjectStorage:
    return ObjectStorage(StorageOptions(endpoint=endpoint))


def manifest_at(endpoint: str, source: str | list[str]) -> Manifest:
    return read_manifest(source, columns=["user", "town"], base=Path("/"), storage=storage_at(endpoint))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(parquet_bytes(SMALL))
    return folder


@pytest.mark.parametrize("source", SOURCES)
def test_a_file_a_glob_and_a_folder_mean_the_same_files_as_on_a_local_disk(source: str, tree: Path, s3: S3) -> None:
    bucket = s3.bucket("a-tree")
    s3.upload(bucket, tree, prefix="lake/")
    lake = f"s3://{bucket}/lake"
    storage = storage_at(s3.endpoint)
    local = found_files(f"{tree}/{source}", tree)
    remote = found_files(f"{lake}/{source}", tree, storage=storage)
    assert [below(lake, file) for file in remote] == [below(str(tree), file) for file in local]
    assert [file.bytes for file in remote] == [file.bytes for file in local]
    with_success = {folder for file in remote for folder in file.place.folders if storage.success_ns(folder)}
    assert with_success == {
        lake + folder.removeprefix(str(tree))
        for file in local
        for folder in file.place.folders
        if success_file_ns(folder)
    }


def below(top: str, file: FoundFile) -> list[str]:
    """Its path and its folders from its own up to the root."""
    assert all(place.startswith(top) for place in file.place)
    return [place.removeprefix(top) for place in (file.path, *file.place.folders)]


def test_a_success_file_is_told_as_it_was_listed_and_looked_for_where_nothing_was(s3: S3, wire: Wire) -> None:
    bucket = s3.bucket("success")
    for day in (1, 2):
        s3.put(bucket, f"lake/dt={day}/a.parquet", b"1234")
    s3.put(bucket, "lake/dt=1/_SUCCESS", b"")
    s3.written_at(bucket, "lake/dt=1/_SUCCESS", datetime(2026, 11, 20, 3, tzinfo=UTC))
    written_ns = int(datetime(2026, 11, 20, 3, tzinfo=UTC).timestamp()) * 10**9
    storage = storage_at(wire.endpoint)
    assert storage.files_at(f"s3://{bucket}/lake").root == f"s3://{bucket}/lake"
    wire.requests.clear()
    folders = [f"s3://{bucket}/lake{folder}" for folder in ("", "/dt=1", "/dt=2")]
    assert [success_file_ns(folder, storage) for folder in folders] == [None, written_ns, None]
    assert wire.requests == []
    for number, when in ((1, written_ns), (2, None)):
        alone = storage_at(wire.endpoint)
        assert alone.files_at(f"s3://{bucket}/lake/dt={number}/a.parquet").root == folders[number]
        assert success_file_ns(folders[number], alone) == when


def test_a_success_file_that_may_not_be_looked_at_is_no_missing_one(s3: S3, wire: Wire) -> None:
    bucket = s3.bucket("success-denied")
    s3.put(bucket, "a.parquet", b"1234")
    storage = storage_at(wire.endpoint)
    assert storage.files_at(f"s3://{bucket}/a.parquet").root == f"s3://{bucket}"
    wire.spoil = refused(403, "AccessDenied")
    with pytest.raises(SourceUnreadableError, match=rf"s3://{bucket}/_SUCCESS: access is denied"):
        storage.success_ns(f"s3://{bucket}")


def test_a_list_keeps_its_order_and_counts_a_file_once_also_beside_local_files(tree: Path, s3: S3) -> None:
    bucket = s3.bucket("a-list")
    s3.upload(bucket, tree)
    names = [f"s3://{bucket}/top.parquet", str(tree / "top.parquet"), f"s3://{bucket}/dt=*/part-0.parquet"]
    manifest = manifest_at(s3.endpoint, [*names, f"s3://{bucket}/*.parquet"])
    assert [file.path for file in manifest.files] == [
        f"s3://{bucket}/top.parquet",
        str(tree / "top.parquet"),
        f"s3://{bucket}/dt=2026-11-19/part-0.parquet",
        f"s3://{bucket}/dt=2026-11-20/part-0.parquet",
        f"s3://{bucket}/written.parquet/part-0.parquet",
    ]
    assert manifest.rows == 10
    assert [bool(file.version) for file in manifest.files] == [True, False, True, True, True]


def test_a_file_that_was_listed_is_not_looked_for_again_but_by_a_new_listing(s3: S3, wire: Wire) -> None:
    bucket = s3.bucket("listed-once")
    s3.put(bucket, "p/a.parquet", parquet_bytes(SMALL))
    storage = storage_at(wire.endpoint)
    (path,) = storage.files_at(f"s3://{bucket}/p/*.parquet").paths
    wire.requests.clear()
    assert storage.files_at(path) == (f"s3://{bucket}/p", [path])
    assert wire.requests == []
    s3.delete(bucket, "p/a.parquet")
    with pytest.raises(SourceNotFoundError):
        storage.listed_again([path])


def test_a_bucket_of_cos_stands_in_the_hosts_name(s3: S3, wire: Wire) -> None:
    bucket = s3.bucket("profiles-1250000000")
    s3.put(bucket, "p/城市 1.parquet", parquet_bytes(SMALL))
    endpoint = wire.endpoint.replace("127.0.0.1", "localhost")
    assert manifest_at(endpoint, f"cosn://{bucket}/p/*.parquet").rows == 2
    port = wire.endpoint.rpartition(":")[2]
    assert {request.host for request in wire.requests} == {f"{bucket}.localhost:{port}"}
    assert not any(bucket in request.path for request in wire.requests)


def test_a_bucket_elsewhere_stands_in_the_path_unless_the_settings_say_otherwise(s3: S3, wire: Wire) -> None:
    bucket = s3.bucket("in-the-path")
    s3.put(bucket, "a.parquet", parquet_bytes(SMALL))
    assert manifest_at(wire.endpoint, f"s3://{bucket}/a.parquet").rows == 2
    assert all(request.path.startswith(f"/{bucket}") for request in wire.requests)


# What the storage does not give -------------------------------------------------------------------------------------


def told(kind: type[ProfilesError], endpoint: str, source: str) -> str:
    with pytest.raises(kind) as caught:
        manifest_at(endpoint, source)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert message.startswith(source)
    assert ACCESS_KEY not in message
    assert SECRET_KEY not in message
    return message


@pytest.mark.parametrize("source", ["s3://no-such-bucket/a.parquet", "s3://no-such-bucket/p/*.parquet"])
def test_no_such_bucket(s3: S3, source: str) -> None:
    assert "there is no such bucket at this endpoint" in told(SourceNotFoundError, s3.endpoint, source)


def test_no_such_key_and_no_match(s3: S3) -> None:
    bucket = s3.bucket("nearly-empty")
    s3.put(bucket, "p/a.csv", b"a")
    assert "nothing stands there" in told(SourceNotFoundError, s3.endpoint, f"s3://{bucket}/none.parquet")
    assert "no Parquet file matches" in told(SourceNotFoundError, s3.endpoint, f"s3://{bucket}/p/*.parquet")
    assert "no Parquet file matches" in told(SourceNotFoundError, s3.endpoint, f"s3://{bucket}/none/*.parquet")
    assert "no *.parquet file stands below" in told(SourceNotFoundError, s3.endpoint, f"s3://{bucket}/p")


def test_a_file_that_is_no_parquet_or_was_cut_off(s3: S3) -> None:
    bucket = s3.bucket("no-parquet")
    s3.put(bucket, "a.parquet", b"no parquet at all")
    assert "is not a readable Parquet file" in told(SourceUnreadableError, s3.endpoint, f"s3://{bucket}/a.parquet")
    s3.put(bucket, "b.parquet", parquet_bytes(SMALL)[:-1])
    assert "is not a readable Parquet file" in told(SourceUnreadableError, s3.endpoint, f"s3://{bucket}/b.parquet")
    spoiled = bytearray(parquet_bytes(SMALL))
    spoiled[-60:-8] = b"\xff" * 52
    s3.put(bucket, "c.parquet", bytes(spoiled))
    assert "is not a readable Parquet file" in told(SourceUnreadableError, s3.endpoint, f"s3://{bucket}/c.parquet")
    s3.put(bucket, "d.parquet", b"")
    assert "is not a readable Parquet file" in told(SourceUnreadableError, s3.endpoint, f"s3://{bucket}/d.parquet")


def user(s3: S3, name: str, *actions: str) -> tuple[str, str]:
    """The keys of a new user who may do `actions`."""
    s3.iam.create_user(UserName=name)
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    s3.iam.put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=policy)
    key = s3.iam.create_access_key(UserName=name)["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def test_the_right_to_list_and_to_read_is_enough_and_without_it_access_is_denied(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket("guarded")
    s3.put(bucket, "a.parquet", parquet_bytes(SMALL))
    reader = user(s3, "reader", "s3:ListBucket", "s3:GetObject")
    stranger = user(s3, "stranger", "sqs:ListQueues")
    monkeypatch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from here on it looks at signatures

    def use(keys: tuple[str, str]) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[1])

    use(reader)
    assert manifest_at(s3.endpoint, f"s3://{bucket}/*.parquet").rows == 2
    for source in (f"s3://{bucket}/*.parquet", f"s3://{bucket}/a.parquet"):
        use(stranger)
        assert "access is denied" in told(SourceUnreadableError, s3.endpoint, source)
        use((reader[0], "wrong-secret"))
        assert "does not accept the credentials" in told(SourceUnreadableError, s3.endpoint, source)
        use(("AKIAUNKNOWNUNKNOWN00", "any"))
        assert "does not accept the credentials" in told(SourceUnreadableError, s3.endpoint, source)


def refused(status: int, code: str, message: str = "said to nobody") -> Callable[[Request], Answer]:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message} {SECRET_KEY}</Message></Error>".encode()
    return lambda _request: Answer(status, body, {"Content-Type": "application/xml"})


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (301, "PermanentRedirect", SourceAddressError, "in another region"),
        (400, "AuthorizationHeaderMalformed", SourceAddressError, "in another region"),
        (403, "AccessDenied", SourceUnreadableError, "access is denied"),
        (403, "SignatureDoesNotMatch", SourceUnreadableError, "does not accept the credentials"),
        (400, "ExpiredToken", SourceUnreadableError, "does not accept the credentials"),
        (403, "PathStyleDomainForbidden", SourceAddressError, "virtual_host_style: true"),
        (500, "InternalError", SourceUnreachableError, "cannot be reached"),
        (503, "SlowDown", SourceUnreachableError, "cannot be reached"),
        (416, "InvalidRange", SourceChangedError, "changed while the run was reading it"),
        (418, "Teapot", SourceUnreachableError, "an answer of no use"),
    ],
)
@pytest.mark.parametrize("source", ["s3://lake/a.parquet", "s3://lake/*.parquet"])
def test_a_refusal_is_told_in_plain_words_and_never_in_its_own(  # noqa: PLR0917  parameters come by name
    status: int, code: str, kind: type[ProfilesError], words: str, source: str, wire: Wire
) -> None:
    wire.spoil = refused(status, code)
    message = told(kind, wire.endpoint, source)
    assert words in message
    assert "said to nobody" not in message


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, "CONNECT_SECONDS", 1)
    monkeypatch.setattr(filesystems, "REQUEST_SECONDS", 1)
    monkeypatch.setattr(filesystems, "ATTEMPTS", 2)


@pytest.mark.usefixtures("impatient")
def test_an_endpoint_that_nobody_serves_and_one_that_never_answers(s3: S3) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert "cannot be reached" in told(SourceUnreachableError, endpoint, "s3://lake/a.parquet")
        taken.listen(8)  # connections come in, and nobody speaks
        began = time.monotonic()
        assert "does not answer in time" in told(SourceUnreachableError, endpoint, "s3://lake/*.parquet")
        assert time.monotonic() - began < 15


@pytest.mark.usefixtures("impatient")
def test_a_connection_that_breaks_in_the_middle_of_a_footer(s3: S3, wire: Wire) -> None:
    bucket = s3.bucket("broken-footer")
    s3.put(bucket, "a.parquet", parquet_bytes(SMALL))

    def cut(request: Request) -> Answer | None:
        return Answer(206, b"PAR1", length=400) if request.reads_rows else None

    wire.spoil = cut
    assert "connection broke" in told(SourceUnreachableError, wire.endpoint, f"s3://{bucket}/a.parquet")
    assert sum(request.reads_rows for request in wire.requests) == 2, "it was tried again"


def test_a_connection_that_breaks_once_is_no_fault(s3: S3, wire: Wire) -> None:
    bucket = s3.bucket("broken-once")
    s3.put(bucket, "a.parquet", parquet_bytes(SMALL))
    wire.once(lambda request: request.reads_rows, lambda: Answer(206, b"PAR1", length=400))
    assert manifest_at(wire.endpoint, f"s3://{bucket}/a.parquet").rows == 2


def test_a_file_that_is_written_anew_or_vanishes_after_the_listing(s3: S3) -> None:
    bucket = s3.bucket("after-the-listing")
    s3.put(bucket, "a.parquet", parquet_bytes(SMALL))
    storage = storage_at(s3.endpoint)
    (path,) = storage.files_at(f"s3://{bucket}/*.parquet").paths
    s3.put(bucket, "a.parquet", parquet_bytes({"user": ["another one"]}))
    with pytest.raises(SourceChangedError, match=r"a\.parquet changed while the run was reading it"):
        storage.read_footer(path)
    s3.delete(bucket, "a.parquet")
    with pytest.raises(SourceChangedError, match=r"a\.parquet vanished while the run was reading it"):
        storage.read_footer(path)


def test_results_come_in_order_and_nothing_is_begun_after_an_error() -> None:
    assert list(in_order(lambda item: item * 2, range(50), at_once=4)) == [item * 2 for item in range(50)]
    begun: list[int] = []
    gate = threading.Event()

    def fail(item: int) -> None:
        begun.append(item)
        if item == 0:
            raise SourceNotFoundError("gone")
        gate.wait(10)

    def read() -> None:
        with pytest.raises(SourceNotFoundError):
            list(in_order(fail, range(100), at_once=2))

    reading = threading.Thread(target=read)
    reading.start()
    time.sleep(0)
    gate.set()
    reading.join()
    assert 0 in begun
