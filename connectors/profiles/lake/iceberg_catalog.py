"""From the name of an Iceberg table to the table as pyiceberg has it: the catalog, its settings, and its complaints.

Settings that are no secret come from the caller; the rest pyiceberg finds by itself, in the variables
PYICEBERG_CATALOG__... and in .pyiceberg.yaml.
"""

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from connectors.profiles.errors import (
    ProfilesError,
    SourceNotFoundError,
    SourceTableError,
    SourceUnreachableError,
    SourceUnreadableError,
    without_secrets,
)
from connectors.profiles.storage.filesystems import (
    CONNECT_SECONDS,
    REQUEST_SECONDS,
    StorageOptions,
    is_address,
    read_endpoint,
)
from connectors.profiles.storage.storage_faults import meaning

_FILE_IO = "connectors.profiles.lake.iceberg_files.LakeFileIO"  # imported by pyiceberg, by this name


@dataclass(frozen=True, slots=True)
class IcebergName:
    """Where a table is found: by `table` in a catalog (None: the default one), or by the address of its metadata.

    `properties` are those of the catalog, in pyiceberg's words; `snapshot` or `ref` (a branch or tag) choose a state.
    """

    table: str | None = None
    catalog: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)  # a uri may hold a password
    metadata: str | None = None
    snapshot: int | None = None
    ref: str | None = None

    def __str__(self) -> str:
        if self.metadata is not None:
            return self.metadata
        return f"{self.table} of the catalog {self.catalog}" if self.catalog else str(self.table)


def load_table(name: IcebergName, *, base: Path, options: StorageOptions, environ: Mapping[str, str]) -> Any:
    """The table's newest metadata. Raises SourceNotFoundError, SourceTableError and the storages' errors."""
    pyiceberg_catalog = part("catalog")
    with _load_faults(name):
        if name.metadata is not None:
            address = name.metadata if is_address(name.metadata) else str(_local(name.metadata, base))
            return part("table").StaticTable.from_metadata(address, _storage(options, environ, known={}))
        config = part("utils.config").Config()  # read now: pyiceberg's own reading is as old as its import
        catalog_name = name.catalog or config.get_default_catalog_name()
        known = {**(config.get_catalog_config(catalog_name) or {}), **name.properties}
        if not known:
            raise SourceTableError(_unknown(catalog_name))
        _bound(part("catalog.rest"))
        catalog = pyiceberg_catalog.load_catalog(catalog_name, **known | _storage(options, environ, known=known))
        return catalog.load_table(name.table)


def part(name: str) -> Any:
    """A module of pyiceberg. Raises SourceTableError where pyiceberg is not installed."""
    try:
        return importlib.import_module(f"pyiceberg.{name}")
    except ImportError:
        raise SourceTableError(
            "The reader of Iceberg tables is not installed. Install it: pip install '.[iceberg]'."
        ) from None


def _bound(rest: Any) -> None:
    """Gives the requests of REST catalogs a time-out; pyiceberg's own wait for ever."""
    if rest.Session.__name__ == "BoundedSession":
        return

    class BoundedSession(rest.Session):  # type: ignore[misc]  # pyiceberg is an extra
        def request(self, *arguments: Any, **options: Any) -> Any:
            return super().request(*arguments, **{"timeout": (CONNECT_SECONDS, REQUEST_SECONDS), **options})

    rest.Session = BoundedSession


def _local(path: str, base: Path) -> Path:
    """A table's folder stands for the newest metadata that its version hint names, as pyiceberg has it."""
    place = Path(os.path.normpath(base.absolute() / Path(path).expanduser()))
    if not place.exists():
        raise SourceNotFoundError(f"No metadata of an Iceberg table stands at {place}. Correct the path.")
    return place


def _storage(options: StorageOptions, environ: Mapping[str, str], *, known: Mapping[str, Any]) -> dict[str, str]:
    """Our settings of a storage in pyiceberg's words; the environment's only where the catalog says nothing."""
    told = {"s3.connect-timeout": str(CONNECT_SECONDS), "s3.request-timeout": str(REQUEST_SECONDS)}
    told |= {"py-io-impl": _FILE_IO}
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if endpoint:
        told["s3.endpoint"] = _url(endpoint)
    if region and "client.region" not in known:
        told["s3.region"] = region
    told = {key: value for key, value in told.items() if key not in known}
    if options.endpoint is not None:
        told["s3.endpoint"] = _url(options.endpoint)
    if options.region is not None:
        told["s3.region"] = options.region
    if "s3.endpoint" in told.keys() | known.keys() and not {"s3.region", "client.region"} & (
        told.keys() | known.keys()
    ):
        told["s3.region"] = "us-east-1"  # of a server that has none; else pyiceberg asks AWS for the bucket's
    if options.virtual_host_style is not None:
        told["s3.force-virtual-addressing"] = str(options.virtual_host_style).lower()
    if options.anonymous:
        told["s3.anonymous"] = "true"
    return told


def _url(endpoint: str) -> str:
    scheme, host = read_endpoint(endpoint)
    return f"{scheme}://{host}"


@contextmanager
def _load_faults(name: IcebergName) -> Iterator[None]:
    """What pyiceberg and its catalogs raise, without their words: those may quote settings, and secrets among them."""
    errors = part("exceptions")
    try:
        yield
    except ProfilesError:
        raise
    except (errors.NoSuchTableError, errors.NoSuchNamespaceError):
        raise SourceNotFoundError(f"There is no Iceberg table {name}. Correct its name or the catalog.") from None
    except (errors.UnauthorizedError, errors.ForbiddenError, errors.OAuthError, errors.AuthorizationExpiredError):
        raise SourceUnreadableError(
            f"The catalog of the Iceberg table {name} does not accept the credentials, or they do not suffice. Correct "
            "them in pyiceberg's variables (PYICEBERG_CATALOG__<NAME>__CREDENTIAL or __TOKEN) or in .pyiceberg.yaml."
        ) from None
    except (errors.NotInstalledError, ModuleNotFoundError):
        raise SourceTableError(
            f"The catalog of the Iceberg table {name} needs a package that is not installed. Install pyiceberg's extra "
            "for it, such as pip install 'pyiceberg[glue]' (or hive, dynamodb, sql-postgres)."
        ) from None
    except FileNotFoundError:
        raise SourceNotFoundError(
            f"The metadata of the Iceberg table {name} are not where its catalog says. Correct the address."
        ) from None
    except (OSError, pa.ArrowException) as error:
        if type(error).__module__.startswith("requests."):  # of a REST catalog; they are OSErrors too
            raise _unloaded(name, error, said="cannot be reached") from None
        raise meaning(error, f"The Iceberg table {name}") from None
    except Exception as error:  # noqa: BLE001 - catalogs raise what their own libraries raise
        raise _unloaded(name, error) from None


def _unknown(catalog: str) -> str:
    return (
        f"pyiceberg knows no catalog {catalog!r}. Correct its name, or say what it is: in the YAML "
        f"(catalog: {{name: {catalog}, type: ..., uri: ...}}), in PYICEBERG_CATALOG__{catalog.upper()}__TYPE and "
        "__URI, or in .pyiceberg.yaml."
    )


def _unloaded(name: IcebergName, error: BaseException, *, said: str = "gave an answer of no use") -> ProfilesError:
    kind = type(error).__name__
    uri = name.properties.get("uri")
    where = f" at {without_secrets(uri)}" if uri else ""
    if isinstance(error, ValueError | KeyError | TypeError) and not isinstance(error, OSError):
        return SourceTableError(
            f"The catalog of the Iceberg table {name}{where} cannot be set up ({kind}). See its settings: the type, "
            "the uri, the warehouse, and for a catalog that is named alone pyiceberg's variables or .pyiceberg.yaml."
        )
    return SourceUnreachableError(
        f"The catalog of the Iceberg table {name}{where} {said} ({kind}). See its address, its "
        "credentials and the network, then run again."
    )
