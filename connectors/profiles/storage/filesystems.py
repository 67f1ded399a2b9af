"""An address in object storage -> the pyarrow filesystem that reads it; and what such an address may not hold.

Credentials are the storage's own affair: pyarrow finds them in the environment, in shared files or from the machine's
role. They never stand in an address. Files are listed and read elsewhere (object_storage.py).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import fs

from connectors.profiles.errors import SourceAddressError

CONNECT_SECONDS, REQUEST_SECONDS, ATTEMPTS = 10, 30, 3  # an unreachable storage is told within 2 minutes

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<authority>[^/]*)/*(?P<key>.*)", re.DOTALL)
_PARAMETERS = re.compile(r"\?[\w.-]+=")  # a signature's, or pyarrow's own; a glob's ? is followed by no name and =
_HOST = re.compile(r"(?:(?P<scheme>https?)://)?(?P<host>[\w.-]+(?::\d+)?)/?")


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """What is no secret of where a storage stands. What is None comes from the environment, or has a usual value.

    `endpoint` is a host with or without scheme and port; `virtual_host_style` puts the bucket into the host's name.
    """

    endpoint: str | None = None
    region: str | None = None
    virtual_host_style: bool | None = None
    anonymous: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """`scheme://authority/key`, taken literally: nothing in it is decoded. The key has no slash at its ends."""

    scheme: str
    authority: str
    key: str

    def __str__(self) -> str:
        return f"{self.root}{self.key}"

    @property
    def root(self) -> str:
        """The bucket's own address, which every address in it begins with."""
        return f"{self.scheme}://{self.authority}/"

    @property
    def bucket(self) -> str:
        """What stands before the key in the filesystem's paths: a bucket, a container; nothing for HDFS."""
        return "" if self.scheme in _SCHEMES_OF_HDFS else self.authority.partition("@")[0]

    @property
    def path(self) -> str:
        """The path within the filesystem."""
        return f"{self.bucket}/{self.key}".rstrip("/") or "/"


def is_address(source: str) -> bool:
    """Whether it is `scheme://...` rather than a local path."""
    return _ADDRESS.fullmatch(source) is not None


def read_address(source: str) -> Address:
    """Raises SourceAddressError for unknown schemes, and for what holds a secret, without quoting it."""
    match = _ADDRESS.fullmatch(source)
    if match is None:
        raise SourceAddressError("An address looks like s3://bucket/folder/*.parquet.")
    scheme, authority = match["scheme"].lower(), match["authority"]
    known = f"Known are {', '.join(f'{name}://' for name in _OPENERS)} and local paths."
    if scheme not in _OPENERS:
        raise SourceAddressError(f"{scheme}:// is no address of Parquet files that can be read. {known}")
    is_account = scheme in _SCHEMES_OF_AZURE and re.fullmatch(r"[^:@]+@[^:@]+", authority)  # container@account
    is_server = scheme in _SCHEMES_OF_HDFS and re.fullmatch(r"[\w.-]+(:\d+)?", authority)
    if not (is_account or is_server) and re.search(r"[:@?]", authority):
        raise SourceAddressError(
            f"The address {scheme}://(not shown) has a user, a password or a port before its path. Credentials come "
            "from the environment and an endpoint from `storage: {endpoint: ...}`; write scheme://bucket/path."
        )
    if _PARAMETERS.search(match["key"]):
        raise SourceAddressError(
            f"The address {scheme}://{authority}/(not shown) has parameters, as signed links do. Credentials come from "
            "the environment and settings from `storage: {...}`; write the address without what follows the `?`."
        )
    if not authority and scheme not in _SCHEMES_OF_HDFS:
        raise SourceAddressError(f"The address {source} names no bucket. Write {scheme}://bucket/path.")
    if "//" in match["key"]:
        raise SourceAddressError(f"The address {source} has a folder without a name (//), which cannot be read.")
    return Address(scheme, authority, match["key"].rstrip("/"))


def read_endpoint(endpoint: str) -> tuple[str, str]:
    """(scheme, host with port) of an endpoint; https where it does not say. SourceAddressError quotes nothing of it."""
    match = _HOST.fullmatch(endpoint.strip())
    if match is None:
        raise SourceAddressError(
            "The storage's endpoint cannot be read. It is a host with or without scheme and port, such as "
            "https://cos.ap-shanghai.myqcloud.com, without user, password, bucket or path."
        )
    return match["scheme"] or "https", match["host"]


def open_filesystem(address: Address, options: StorageOptions, environ: Mapping[str, str]) -> fs.FileSystem:
    """Nothing is asked of the storage yet, but for the region of a bucket at AWS where nothing names it."""
    try:
        return _OPENERS[address.scheme](address, options, environ)
    except (pa.ArrowException, OSError, ValueError, ImportError):
        if address.scheme in _SCHEMES_OF_HDFS:
            remedy = "pyarrow needs libhdfs: set HADOOP_HOME, JAVA_HOME and CLASSPATH, and see that the name node runs"
        else:
            remedy = "see the endpoint, the region and the account"
        raise SourceAddressError(f"The storage of {address} cannot be opened; {remedy}.") from None


class S3Place(NamedTuple):
    """Where a bucket is asked for; without `host` at AWS itself."""

    region: str | None
    scheme: str
    host: str | None
    is_virtual: bool


def s3_place(address: Address, options: StorageOptions, environ: Mapping[str, str]) -> S3Place:
    """Of a bucket of S3 or COS. Raises SourceAddressError where nothing tells the region of one of COS."""
    region = options.region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if address.scheme in _SCHEMES_OF_COS:
        endpoint, wants_virtual = options.endpoint or f"cos.{region}.myqcloud.com", True
        if region is None and options.endpoint is None:
            raise SourceAddressError(
                f"{address}: say the bucket's region, with `storage: {{region: ap-shanghai}}` or AWS_REGION."
            )
    else:
        endpoint = options.endpoint or environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or ""
        if not endpoint:
            return S3Place(region or _region_at_aws(address.bucket), "https", None, bool(options.virtual_host_style))
        wants_virtual = read_endpoint(endpoint)[1].partition(":")[0].endswith(".myqcloud.com")
    scheme, host = read_endpoint(endpoint)
    is_virtual = wants_virtual if options.virtual_host_style is None else options.virtual_host_style
    return S3Place(region, scheme, host, is_virtual)


def _open_s3(address: Address, options: StorageOptions, environ: Mapping[str, str]) -> fs.FileSystem:
    place = s3_place(address, options, environ)
    return fs.S3FileSystem(
        region=place.region,
        scheme=None if place.host is None else place.scheme,
        endpoint_override=place.host,
        force_virtual_addressing=place.is_virtual,
        anonymous=options.anonymous,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=REQUEST_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def _region_at_aws(bucket: str) -> str | None:
    """None where it cannot be told: then it is whatever the machine's own settings say."""
    try:
        region: str = fs.resolve_s3_region(bucket)
    except (pa.ArrowException, OSError, ValueError):
        return None
    return region


def _open_gcs(_address: Address, options: StorageOptions, _environ: Mapping[str, str]) -> fs.FileSystem:
    place: dict[str, Any] = {}
    if options.endpoint is not None:
        place["scheme"], place["endpoint_override"] = read_endpoint(options.endpoint)
    return fs.GcsFileSystem(
        anonymous=options.anonymous, retry_time_limit=timedelta(seconds=ATTEMPTS * REQUEST_SECONDS), **place
    )


def _open_azure(address: Address, options: StorageOptions, environ: Mapping[str, str]) -> fs.FileSystem:
    account = address.authority.partition("@")[2].partition(".")[0] or environ.get("AZURE_STORAGE_ACCOUNT")
    if not account:
        raise SourceAddressError(
            f"{address}: say the account, with abfs://container@account.dfs.core.windows.net/path or "
            "AZURE_STORAGE_ACCOUNT."
        )
    place: dict[str, Any] = {}
    if options.endpoint is not None:
        scheme, host = read_endpoint(options.endpoint)
        place = {"blob_storage_authority": host, "blob_storage_scheme": scheme}
        place |= {"dfs_storage_authority": host, "dfs_storage_scheme": scheme}
    key, token = environ.get("AZURE_STORAGE_KEY"), environ.get("AZURE_STORAGE_SAS_TOKEN")
    return fs.AzureFileSystem(account, account_key=key, sas_token=None if key else token, **place)


def _open_hdfs(address: Address, _options: StorageOptions, _environ: Mapping[str, str]) -> fs.FileSystem:
    host, _, port = address.authority.partition(":")
    return fs.HadoopFileSystem(host or "default", int(port or 0))


_SCHEMES_OF_AZURE = ("abfs", "abfss", "az")
_SCHEMES_OF_COS = ("cosn", "cos")
_SCHEMES_OF_HDFS = ("hdfs",)
_OPENERS: Mapping[str, Callable[[Address, StorageOptions, Mapping[str, str]], fs.FileSystem]] = {
    **dict.fromkeys(("s3", "s3a"), _open_s3),
    **dict.fromkeys(("gs", "gcs"), _open_gcs),
    **dict.fromkeys(_SCHEMES_OF_AZURE, _open_azure),
    **dict.fromkeys(_SCHEMES_OF_COS, _open_s3),
    **dict.fromkeys(_SCHEMES_OF_HDFS, _open_hdfs),
}
