"""How deltalake is told where a table's log stands: our addresses and settings in the words of its storage options.

Credentials are found by deltalake in the same variables, files and roles, but for Azure's, which it calls otherwise.
"""

from collections.abc import Mapping

from connectors.profiles.errors import SourceAddressError
from connectors.profiles.storage.filesystems import (
    ATTEMPTS,
    CONNECT_SECONDS,
    REQUEST_SECONDS,
    Address,
    StorageOptions,
    s3_place,
)

_S3, _GOOGLE, _AZURE = ("s3", "s3a", "cosn", "cos"), ("gs", "gcs"), ("abfs", "abfss", "az")
_PATIENCE = {
    "connect_timeout": f"{CONNECT_SECONDS}s",
    "timeout": f"{REQUEST_SECONDS}s",
    "max_retries": str(ATTEMPTS - 1),
    "retry_timeout": f"{ATTEMPTS * REQUEST_SECONDS}s",
}


def log_address(address: Address) -> str:
    """COS and `s3a` are S3 to deltalake."""
    scheme = "s3" if address.scheme in _S3 else "gs" if address.scheme in _GOOGLE else address.scheme
    return f"{scheme}://{address.authority}/{address.key}"


def log_options(address: Address, options: StorageOptions, environ: Mapping[str, str]) -> dict[str, str]:
    """Raises SourceAddressError for storages that deltalake does not read, and for what cannot be told to it."""
    if address.scheme in _S3:
        return _PATIENCE | _of_s3(address, options, environ)
    if address.scheme not in _GOOGLE + _AZURE:
        raise SourceAddressError(f"{address}: Delta tables are read from local disks, S3, COS, Google and Azure.")
    if options.endpoint is not None:
        raise SourceAddressError(f"{address}: for a Delta table, `storage: {{endpoint: ...}}` is for S3 and COS alone.")
    if address.scheme in _GOOGLE:
        return _PATIENCE | ({"google_skip_signature": "true"} if options.anonymous else {})
    names = {
        "AZURE_STORAGE_ACCOUNT": "azure_storage_account_name",
        "AZURE_STORAGE_KEY": "azure_storage_account_key",
        "AZURE_STORAGE_SAS_TOKEN": "azure_storage_sas_key",
    }
    found = {theirs: environ[ours] for ours, theirs in names.items() if environ.get(ours)}
    account = address.authority.partition("@")[2].partition(".")[0]
    return _PATIENCE | found | ({"azure_storage_account_name": account} if account else {})


def _of_s3(address: Address, options: StorageOptions, environ: Mapping[str, str]) -> dict[str, str]:
    place = s3_place(address, options, environ)
    told = {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": str(place.is_virtual).lower()}
    if place.region is not None:
        told["AWS_REGION"] = place.region
    if options.anonymous:
        told["AWS_SKIP_SIGNATURE"] = "true"
    if place.host is not None:
        host = (
            f"{address.bucket}.{place.host}" if place.is_virtual else place.host
        )  # deltalake puts no bucket before it
        told["AWS_ENDPOINT_URL"] = f"{place.scheme}://{host}"
        told["AWS_ALLOW_HTTP"] = str(place.scheme == "http").lower()
    return told
