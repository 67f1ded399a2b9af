"""An address in object storage -> what is opened there, with its bounds; and what such an address may not hold.

Credentials are the environment's own affair (variables, a web identity, the machine's role).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from connectors.object_store.faults import ObjectStoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Opened

CONNECT_SECONDS, REQUEST_SECONDS, PATIENCE_SECONDS = 5, 30, 60
CREATE_SECONDS = 5  # what is created is small, and somebody waits for it
LONGEST_PAUSE_SECONDS = 1.0  # so that who waits goes on soon after the storage is back
_RETRIES = 1_000  # the patience ends them: pauses are drawn by chance, so that no number of them tells a time

_ADDRESS = re.compile(r"(?P<scheme>[a-z0-9]+)://(?P<authority>[^/?#]*)(?P<key>/[^?#]*)?")
_SCHEMES_OF_S3, SCHEMES_OF_COS = ("s3", "s3a"), ("cosn", "cos")
_SCHEMES_OF_GOOGLE, _SCHEMES_OF_AZURE = ("gs", "gcs"), ("abfs", "abfss", "az")
_KNOWN = "s3://, cosn://, gs:// and abfs://"


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


def open_stores(location: Location, environ: Mapping[str, str]) -> "tuple[Opened, Opened]":
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
            "backoff": {"max_backoff": timedelta(seconds=LONGEST_PAUSE_SECONDS)},
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
    **dict.fromkeys(SCHEMES_OF_COS, _open_cos),
    **dict.fromkeys(_SCHEMES_OF_GOOGLE, _open_google),
    **dict.fromkeys(_SCHEMES_OF_AZURE, _open_azure),
}
