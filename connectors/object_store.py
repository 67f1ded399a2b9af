"""Objects of a bucket below an address: written whole, read whole, and never replaced by accident.

Knows nothing of what the objects mean. Credentials are the environment's own affair (variables, a web identity, the
machine's role) and never stand in an address or in an error. Sources are read elsewhere, through pyarrow
(connectors/profiles): it cannot create an object only if none is there, which is what keeps two writers apart.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Opened

CONNECT_SECONDS, REQUEST_SECONDS, PATIENCE_SECONDS = 5, 30, 60
CREATE_SECONDS = 5  # what is created is small, and somebody waits for it
_RETRIES = 1_000  # the patience ends them: pauses are drawn by chance, so that no number of them tells a time
_LONGEST_PAUSE_SECONDS = 1.0  # so that who waits goes on soon after the storage is back
_BYTES_PER_REQUEST = 16 * 1024 * 1024
_REQUESTS_AT_ONCE = 4  # times the bytes of one: what is in memory
_SMALL_AT_ONCE = 16

_ADDRESS = re.compile(r"(?P<scheme>[a-z0-9]+)://(?P<authority>[^/?#]*)(?P<key>/[^?#]*)?")
_SCHEMES_OF_S3, _SCHEMES_OF_COS = ("s3", "s3a"), ("cosn", "cos")
_SCHEMES_OF_GOOGLE, _SCHEMES_OF_AZURE = ("gs", "gcs"), ("abfs", "abfss", "az")
_KNOWN = "s3://, cosn://, gs:// and abfs://"


class ObjectStoreError(Exception):
    """The storage, its address or its rights. The text names the address and the remedy, and nothing secret."""


class _UnreachableError(ObjectStoreError):
    """Nobody knows whether the request was carried out."""


class Listed(NamedTuple):
    """`key` is below the store's own address."""

    key: str
    bytes: int
    modified_at: float  # seconds since 1970, by the storage's clock


class Objects(Protocol):
    """What others need of an object store; everything raises ObjectStoreError."""

    def create(self, key: str, content: bytes) -> bool: ...
    def put(self, key: str, content: bytes | Path) -> None: ...
    def read(self, key: str) -> bytes | None: ...
    def read_all(self, keys: Sequence[str]) -> list[bytes]: ...
    def download(self, listed: Listed, path: Path) -> None: ...
    def list(self, prefix: str) -> list[Listed]: ...
    def delete(self, keys: Sequence[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Location:
    """`scheme://authority/key`; the key has no slash at its ends and may be empty."""

    scheme: str
    authority: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}/{self.key}".rstrip("/")

    @property
    def bucket(self) -> str:
        return self.authority.partition("@")[0]


def read_location(address: str) -> Location:
    """Raises ObjectStoreError for unknown schemes, and for an address that may hold a secret, without quoting it."""
    match = _ADDRESS.fullmatch(address.strip())
    if match is None:
        raise ObjectStoreError(
            f"The address of the object storage cannot be read. It looks like s3://bucket/folder; known are {_KNOWN}."
        )
    scheme, authority = match["scheme"], match["authority"]
    if scheme not in _OPENERS:
        raise ObjectStoreError(f"{scheme}:// is no object storage that can be written. Known are {_KNOWN}.")
    is_account = scheme in _SCHEMES_OF_AZURE and re.fullmatch(r"[\w-]+@[\w.-]+", authority)
    if not is_account and not re.fullmatch(r"[\w.-]+", authority):
        raise ObjectStoreError(
            f"The address {scheme}://(not shown) names no bucket, or has a user, a password or a port before its path. "
            "Credentials and endpoints come from the environment; write scheme://bucket/folder."
        )
    return Location(scheme, authority, "/".join(part for part in (match["key"] or "").split("/") if part))


class ObjectStore:
    """The objects below one address. Safe to use from several threads."""

    def __init__(self, address: str, environ: Mapping[str, str] | None = None) -> None:
        """Nothing is asked of the storage yet. Raises ObjectStoreError."""
        self.location = read_location(address)
        self._environ = os.environ if environ is None else environ
        self._opened: tuple[Opened, Opened] | None = None

    def __str__(self) -> str:
        return str(self.location)

    def address_of(self, key: str) -> str:
        return f"{self}/{key}"

    def create(self, key: str, content: bytes) -> bool:
        """Whether `content` stands there now; False, and nothing changed, if something else did before.

        A write whose answer is lost is sent again; the second one then meets what the first has written.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self._create_once(key, content)
            except _UnreachableError:  # the library sends no such write again: it cannot know that it may
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_LONGEST_PAUSE_SECONDS / 2)

    def _create_once(self, key: str, content: bytes) -> bool:
        import obstore  # noqa: PLC0415  an extra, asked for by `_stores`

        creating, _ = self._stores
        is_told_by_header = self.location.scheme in _SCHEMES_OF_COS
        mode: Literal["overwrite", "create"] = "overwrite" if is_told_by_header else "create"
        with self._faults(key):
            try:
                obstore.put(creating, key, content, mode=mode, use_multipart=False)
            except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError):
                return self.read(key) == content
        return True

    def put(self, key: str, content: bytes | Path) -> None:
        """Whatever stood there is replaced, at once and whole."""
        import obstore  # noqa: PLC0415  an extra, asked for by `_stores`

        _, plain = self._stores
        with self._faults(key):
            obstore.put(plain, key, content)

    def read(self, key: str) -> bytes | None:
        """None when there is no such object."""
        import obstore  # noqa: PLC0415  an extra, asked for by `_stores`

        _, plain = self._stores
        with self._faults(key):
            try:
                return bytes(obstore.get(plain, key).bytes())
            except FileNotFoundError as error:
                if _NO_BUCKET.search(str(error)):
                    raise
                return None

    def read_all(self, keys: Sequence[str]) -> list[bytes]:
        """Small objects, side by side, in the order of `keys`. Raises ObjectStoreError when one is not there."""
        with ThreadPoolExecutor(_SMALL_AT_ONCE, thread_name_prefix="object-store") as pool:
            contents = list(pool.map(self.read, keys))
        for key, content in zip(keys, contents, strict=True):
            if content is None:
                raise ObjectStoreError(f"{self.address_of(key)} has vanished while it was read. Run again.")
        return [content for content in contents if content is not None]

    def download(self, listed: Listed, path: Path) -> None:
        """To `path`, a piece at a time. Raises ObjectStoreError also when the object is not as it was listed."""
        import obstore  # noqa: PLC0415  an extra, asked for by `_stores`

        _, plain = self._stores

        def fetch(start: int) -> None:
            stop = min(start + _BYTES_PER_REQUEST, listed.bytes)
            with self._faults(listed.key):
                piece = bytes(obstore.get_range(plain, listed.key, start=start, end=stop))
            if len(piece) != stop - start:
                raise ObjectStoreError(f"{self.address_of(listed.key)} changed while it was read. Run again.")
            _write_at(descriptor, piece, start)

        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.ftruncate(descriptor, listed.bytes)
            with ThreadPoolExecutor(_REQUESTS_AT_ONCE, thread_name_prefix="object-store") as pool:
                for future in [pool.submit(fetch, start) for start in range(0, listed.bytes, _BYTES_PER_REQUEST)]:
                    future.result()
        finally:
            os.close(descriptor)

    def list(self, prefix: str) -> list[Listed]:
        """What stands below the folder `prefix`, sorted by key; nothing when there is no such folder."""
        import obstore  # noqa: PLC0415  an extra, asked for by `_stores`

        _, plain = self._stores
        with self._faults(prefix):
            found = [
                Listed(each["path"], each["size"], each["last_modified"].timestamp())
                for chunk in obstore.list(plain, f"{prefix}/")
                for each in chunk
            ]
        return sorted(found)

    def delete(self, keys: Sequence[str]) -> None:
        """Those that are not there do not matter."""
        import obstore  # noqa: PLC0415  an extra, asked for by `_stores`

        _, plain = self._stores
        if keys:
            with self._faults(keys[0]):
                try:
                    obstore.delete(plain, list(keys))
                except FileNotFoundError as error:
                    if _NO_BUCKET.search(str(error)):
                        raise

    @property
    def _stores(self) -> "tuple[Opened, Opened]":
        """(one that never replaces, one that does), opened by the first who asks."""
        if self._opened is None:
            with self._faults(""):
                self._opened = _open(self.location, self._environ)
        return self._opened

    @contextmanager
    def _faults(self, key: str) -> Iterator[None]:
        """The storage's own words are not passed on: they are long, and some hold a signature."""
        try:
            yield
        except (ObjectStoreError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise ObjectStoreError(f"{self.address_of(key)}: {_NO_SUCH_BUCKET}.") from None
            raise
        except Exception as error:
            if not type(error).__module__.startswith("obstore"):
                raise
            meaning = _meaning(error)
            kind = ObjectStoreError if meaning else _UnreachableError
            raise kind(f"{self.address_of(key)}: {meaning or _UNREACHABLE}.") from None


def _write_at(descriptor: int, piece: bytes, start: int) -> None:
    """All of it: a disk that is nearly full takes a part without a fault, and refuses only the next one."""
    rest = memoryview(piece)
    while rest:
        rest = rest[os.pwrite(descriptor, rest, start + len(piece) - len(rest)) :]


def _open(location: Location, environ: Mapping[str, str]) -> "tuple[Opened, Opened]":
    try:
        import obstore.store  # noqa: F401, PLC0415  an extra
    except ImportError:
        raise ObjectStoreError(
            f"{location}: a data folder in object storage needs the package obstore. "
            "Install it: pip install '.[object-storage]'."
        ) from None
    opener = _OPENERS[location.scheme]
    return opener(location, environ, is_creating=True), opener(location, environ, is_creating=False)


def _client(endpoint: str | None, headers: Mapping[str, str] | None = None, *, is_creating: bool) -> dict[str, Any]:
    return {
        "client_options": {
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "timeout": timedelta(seconds=CREATE_SECONDS if is_creating else REQUEST_SECONDS),
            "allow_http": (endpoint or "").startswith("http://"),
            **({"default_headers": dict(headers)} if headers else {}),
        },
        "retry_config": {
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=PATIENCE_SECONDS),
            "backoff": {"max_backoff": timedelta(seconds=_LONGEST_PAUSE_SECONDS)},
        },
    }


def _region(environ: Mapping[str, str]) -> str | None:
    return environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")


def _open_s3(location: Location, environ: Mapping[str, str], *, is_creating: bool) -> "Opened":
    from obstore.store import S3Store  # noqa: PLC0415  an extra

    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    place: dict[str, Any] = {"region": _region(environ) or "us-east-1"}
    if endpoint is not None:
        place["endpoint"] = endpoint
    return S3Store(location.bucket, prefix=location.key or None, **place, **_client(endpoint, is_creating=is_creating))


def _open_cos(location: Location, environ: Mapping[str, str], *, is_creating: bool) -> "Opened":
    """COS wants the bucket in the host's name, and has a header of its own for what S3 calls If-None-Match."""
    from obstore.store import S3Store  # noqa: PLC0415  an extra

    region = _region(environ)
    if region is None:
        raise ObjectStoreError(f"{location}: say the bucket's region with AWS_REGION, for example ap-shanghai.")
    endpoint = f"https://{location.bucket}.cos.{region}.myqcloud.com"
    headers = {"x-cos-forbid-overwrite": "true"} if is_creating else None
    return S3Store(
        location.bucket,
        prefix=location.key or None,
        endpoint=endpoint,
        region=region,
        virtual_hosted_style_request=True,
        **_client(endpoint, headers, is_creating=is_creating),
    )


def _open_google(location: Location, _environ: Mapping[str, str], *, is_creating: bool) -> "Opened":
    from obstore.store import GCSStore  # noqa: PLC0415  an extra

    return GCSStore(location.bucket, prefix=location.key or None, **_client(None, is_creating=is_creating))


def _open_azure(location: Location, environ: Mapping[str, str], *, is_creating: bool) -> "Opened":
    from obstore.store import AzureStore  # noqa: PLC0415  an extra

    host = location.authority.partition("@")[2]
    account = host.partition(".")[0] or environ.get("AZURE_STORAGE_ACCOUNT")
    if not account:
        raise ObjectStoreError(
            f"{location}: say the account, with abfs://container@account.dfs.core.windows.net/folder or "
            "AZURE_STORAGE_ACCOUNT."
        )
    names = {"account_key": "AZURE_STORAGE_KEY", "sas_key": "AZURE_STORAGE_SAS_TOKEN"}  # as pyarrow's, for sources
    settings: dict[str, Any] = {name: environ[variable] for name, variable in names.items() if environ.get(variable)}
    endpoint = environ.get("AZURE_STORAGE_ENDPOINT")
    if endpoint:
        settings["endpoint"] = endpoint
    settings |= _client(endpoint, is_creating=is_creating)
    return AzureStore(location.bucket, prefix=location.key or None, account_name=account, **settings)


_OPENERS: Mapping[str, Callable[..., "Opened"]] = {
    **dict.fromkeys(_SCHEMES_OF_S3, _open_s3),
    **dict.fromkeys(_SCHEMES_OF_COS, _open_cos),
    **dict.fromkeys(_SCHEMES_OF_GOOGLE, _open_google),
    **dict.fromkeys(_SCHEMES_OF_AZURE, _open_azure),
}

_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|specified container does not exist|bucket does not exist")
_NO_SUCH_BUCKET = "there is no such bucket at this endpoint; correct ATTRIBUTE_SYNC_DATA or the endpoint"
_MEANINGS: tuple[tuple[re.Pattern[str], str], ...] = (
    (_NO_BUCKET, _NO_SUCH_BUCKET),
    (
        re.compile(
            r"InvalidAccessKeyId|SignatureDoesNotMatch|InvalidClientTokenId|ExpiredToken|RequestTimeTooSkewed|"
            r"401 Unauthorized"
        ),
        "the storage does not accept the credentials; correct or renew them, and see that the machine's clock is right",
    ),
    (
        re.compile(r"AccessDenied|403 Forbidden|PermissionDenied|AuthorizationFailure|AuthorizationPermissionMismatch"),
        "access is denied; the role must list the bucket and read, write and delete below this address",
    ),
    (
        re.compile(r"169\.254\.|[Cc]redential|metadata endpoint"),
        "no credentials were found; set them in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the "
        "storage's own), or run where the machine has a role",
    ),
    (
        re.compile(
            r"PermanentRedirect|incorrectly configured region|AuthorizationHeaderMalformed|IllegalLocationConstraint"
        ),
        "the bucket is in another region; correct AWS_REGION",
    ),
    (
        re.compile(r"NotImplemented|501 Not Implemented|NotSupportedError"),
        "the storage cannot create an object only where none is, which keeps two runs apart; use one that can",
    ),
)


_UNREACHABLE = (
    "the storage cannot be reached or does not answer in time; see the endpoint and the network, then run again"
)


def _meaning(error: Exception) -> str | None:
    """None when it may be the network's fault, or the storage's own."""
    words = re.sub(
        r"https?://(?!169\.254\.)\S+", "", f"{type(error).__name__} {error}"
    )  # names are no words of its own
    return next((meaning for pattern, meaning in _MEANINGS if pattern.search(words)), None)
