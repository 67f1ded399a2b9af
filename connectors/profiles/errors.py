"""What can go wrong where profiles come from: the exception tree, and how an address is shown without its password.

Nothing here reads a file or a warehouse. The tree is grouped by what the caller does next:

    ProfilesError
    ├── SourceNotFoundError          nothing stands at the path; correct the path
    ├── SourceUnreadableError        a file is there and cannot be read as Parquet; replace it
    ├── SourceColumnError            a column is missing, doubled or of an unfit type; correct the mapping or the data
    ├── SourcePartitionError         no such partition, or none that is complete; correct it, or run again later
    ├── SourceChangedError           a file changed while it was read; run again when its writer has finished
    ├── SourceAddressError           an address or a setting of object storage is unfit; correct it
    ├── SourceUnreachableError       object storage does not answer, or the connection broke; check it, then run again
    ├── SourceTableError             a Delta or Iceberg table: no such version, or nothing that its reader can read
    ├── ExtractNotWrittenError       the extract cannot be written; mend the data folder (space, permissions)
    └── WarehouseError               the warehouse could not be read; nothing of its answer was kept
        ├── WarehouseSettingsError       address or driver; correct the setting or install the extra
        ├── WarehouseUnreachableError    no connection, or it broke; check address, network and password, then run again
        ├── WarehouseQueryError          the warehouse refused the query; correct the query
        └── WarehouseTimeoutError        the query took too long; make it faster or allow it more time

Every message names the file, the column or the warehouse, and the remedy. None holds a password or a profile's values.
"""

import re
from collections.abc import Sequence
from urllib.parse import unquote

FILE_SCHEMES = ("duckdb", "sqlite")  # addresses that are a path and hold no secret
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[\w.%-]*)(?::\d*)?"
_NETWORK_ADDRESS = re.compile(
    rf"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<user>[^:@/?\s]*)(?::(?P<password>[^@/?\s]*))?@)?"
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)(?P<path>/[^?@\s]*)?(?:\?(?P<parameters>[^@\s]*))?"
)
_SECRET_PARAMETER = re.compile(r"(?:^|&)[^=&]*(?:pass|pwd|secret|token|key|credentials)[^=&]*=([^&]*)", re.IGNORECASE)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class ProfilesError(Exception):
    """Everything that this package raises on purpose. No partial result was kept."""


class SourceNotFoundError(ProfilesError):
    """A path, glob or folder of the source leads to no Parquet file."""


class SourceUnreadableError(ProfilesError):
    """A file of the source cannot be read as Parquet: damaged, of another format, or without permission."""


class SourceColumnError(ProfilesError):
    """Columns that the sync names are missing, stand twice, or have a type that cannot be used.

    `columns` are the columns in question and `where` the file or warehouse, for callers that point into a YAML file.
    """

    def __init__(self, message: str, *, columns: Sequence[str], where: str) -> None:
        super().__init__(message)
        self.columns = tuple(columns)
        self.where = where


class SourcePartitionError(ProfilesError):
    """The source has no such partition, none that is complete, or folders that do not tell which is the newest."""


class SourceChangedError(ProfilesError):
    """A file of the source vanished or changed after its manifest was made; what was read of it counts for nothing."""


class SourceAddressError(ProfilesError):
    """An address in object storage, or a setting of it (endpoint, region, account), is missing, unfit or secret."""


class SourceUnreachableError(ProfilesError):
    """Object storage could not be reached, answered nothing of use, or fell silent before the last byte."""


class SourceTableError(ProfilesError):
    """A Delta or Iceberg table lacks the version, holds what cannot be read without doubt, or its reader is missing."""


class ExtractNotWrittenError(ProfilesError):
    """The Parquet files of an extract cannot be written. The source is not at fault."""


class WarehouseError(ProfilesError):
    """The warehouse could not be read to the end. No result was left behind."""


class WarehouseSettingsError(WarehouseError):
    """The warehouse's address is no address, its scheme is unknown, or its driver is not installed."""


class WarehouseUnreachableError(WarehouseError):
    """No connection could be had (host, password, file), or it broke before the last row.

    `is_passing`: connecting again in a moment may help (refused, too many connections, starting up).
    """

    def __init__(self, message: str, *, is_passing: bool = False) -> None:
        super().__init__(message)
        self.is_passing = is_passing


class WarehouseQueryError(WarehouseError):
    """The warehouse is there and refused the query."""


class WarehouseTimeoutError(WarehouseError):
    """The query had not ended when its time was up; it was cancelled."""


def read_network_address(uri: str) -> re.Match[str]:
    """The parts of `scheme://user:password@hosts/path?parameters`, as they stand (still percent-encoded).

    Raises WarehouseSettingsError for what drivers could read in another way than its writer meant, an `@` or `/` inside
    the password above all: their messages would then quote a piece of the password as a host or a port.
    """
    match = _NETWORK_ADDRESS.fullmatch(uri)
    if match is None or _BAD_ESCAPE.search(uri):
        raise WarehouseSettingsError(
            f"The warehouse's address {without_secrets(uri)} cannot be read. It must look like "
            "scheme://user:password@host:port/database, with special characters of the user and the password "
            "percent-encoded (@ as %40, / as %2F, : as %3A, ? as %3F, % as %25)."
        )
    return match


def before_values(message: str) -> str:
    """The beginning of a database's message, up to where it may quote a row: a quotation mark, a digit or a colon."""
    return re.split(r"""["'`:0-9(]""", message, maxsplit=1)[0].strip() or "an error that may quote a row"


def without_secrets(uri: str) -> str:
    """The address for people: without user, password and parameters; of an unreadable one nothing but the scheme."""
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return "(not shown)"
    is_file = scheme[1].lower() in FILE_SCHEMES
    if uri[scheme.end() :].startswith("//") and not is_file:
        match = _NETWORK_ADDRESS.fullmatch(uri)
        return f"{match['scheme']}://{match['hosts']}{match['path'] or ''}" if match else f"{scheme[1]}://(not shown)"
    return uri if is_file else f"{scheme[1]}:(not shown)"


def mask_secrets(text: str, uri: str) -> str:
    """`text` with every password of `uri` replaced, encoded or not."""
    match = _NETWORK_ADDRESS.fullmatch(uri)
    if match is None:
        return text
    found = [match["password"] or "", *_SECRET_PARAMETER.findall(match["parameters"] or "")]
    forms = {form for secret in found for form in (secret, unquote(secret)) if form}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text
