"""What warehouses behind a network address share: reading the address, finding the driver, wording of the faults.

What belongs to one vendor (its parameters, its types, which of its errors is which) stands in that vendor's module.
"""

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from connectors.profiles.errors import (
    WarehouseQueryError,
    WarehouseSettingsError,
    WarehouseTimeoutError,
    WarehouseUnreachableError,
    mask_secrets,
    read_network_address,
    without_secrets,
)
from connectors.profiles.warehouses.sql_text import is_ordered, narrowed

APPLICATION = "tencent-push-attribute-sync"  # what a server's list of sessions shows
CONNECT_SECONDS = 15
BACKSTOP_SECONDS = 60  # the server ends a statement by itself this long after we should have cancelled it
# What a driver's message about its connection is known to mean; the rest of it may quote addresses and bytes.
_PASSING = (
    "Connection refused", "timed out", "Connection reset by peer", "Temporary failure in name resolution",
    "Connection aborted", "RemoteDisconnected", "IncompleteRead", "503 Service Unavailable", "429 Too Many Requests",
)  # fmt: skip
_LASTING = (
    "Name or service not known", "No route to host", "Network is unreachable", "certificate verify failed",
    "doesn't match", "WRONG_VERSION_NUMBER", "401 Unauthorized", "403 Forbidden", "404 Not Found",
)  # fmt: skip
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The parts of a warehouse's address, decoded, and the errors that name it. `where` is the address for people."""

    uri: str
    where: str
    host: str
    port: int | None
    user: str
    password: str
    path: tuple[str, ...]
    parameters: Mapping[str, str]

    def flag(self, name: str, default: bool) -> bool:  # noqa: FBT001 - the value itself
        """A parameter that is true or false. Raises WarehouseSettingsError."""
        said = self.parameters.get(name)
        if said is None:
            return default
        if said.lower() not in _TRUTH:
            raise WarehouseSettingsError(f"{self.where}: {name} is true or false.")
        return _TRUTH[said.lower()]

    def seconds(self, name: str, default: int) -> int:
        """A parameter that is a number of seconds above 0. Raises WarehouseSettingsError."""
        said = self.parameters.get(name, str(default))
        if not said.isdecimal() or int(said) == 0:
            raise WarehouseSettingsError(f"{self.where}: {name} is a number of seconds.")
        return int(said)

    def broken(self, what: str, error: Exception, *, text: str | None = None) -> WarehouseUnreachableError:
        """No connection, or a broken one, by an error that is not the server's own answer; `text`: what it says."""
        text = str(error) if text is None else text
        said = next((phrase for phrase in (*_PASSING, *_LASTING) if phrase.lower() in text.lower()), None)
        return self.unreachable(
            what, said or f"the connection broke ({type(error).__name__})", is_passing=said in _PASSING
        )

    def unreachable(self, what: str, said: str, *, is_passing: bool = False) -> WarehouseUnreachableError:
        """No connection, or a broken one; `said` is the server's own sentence."""
        return WarehouseUnreachableError(
            f"{self.where} {what}: {self._masked(said)}. Check the address, the network, user and password (or token, "
            "or key), and that the server runs; then run again.",
            is_passing=is_passing,
        )

    def refused(self, said: str, *, remedy: str = "Correct the query.") -> WarehouseQueryError:
        """The server's own sentence about the query, which must quote no row, and what to do."""
        return WarehouseQueryError(f"{self.where} refused the query: {self._masked(said)}. {remedy}")

    def timed_out(self, limit: str) -> WarehouseTimeoutError:
        """The server ended the query by a limit of its own, before ours."""
        return WarehouseTimeoutError(
            f"{self.where} ended the query at the server's own limit ({limit}). Make it faster (fewer rows, fewer "
            "joins, a table made beforehand), or have the limit raised for this user."
        )

    def _masked(self, said: str) -> str:
        return mask_secrets(" ".join(said.split()).rstrip("."), self.uri)


class Narrowing:
    """Queries narrowed to the wanted columns, for servers that forget the order of a query inside another one.

    An ordered query stays as it is, and the columns that nobody wants are left out when its rows arrive.
    """

    def __init__(self, *, column_of: Callable[[pa.Field], str]) -> None:
        self._column_of = column_of
        self._schemas: dict[str, pa.Schema] = {}

    def select(self, query: str, fields: Sequence[pa.Field], *, check: Callable[[str], object]) -> str:
        """What to run for `fields` of `query`. `check` has to raise for what is no query of rows: it may not run."""
        inside = narrowed(query, [self._column_of(field) for field in fields])
        check(inside)
        chosen = query if is_ordered(query) else inside
        self._schemas[chosen] = pa.schema(fields)
        return chosen

    def schema(self, chosen: str) -> pa.Schema | None:
        """The columns of what `select` answered; None for any other query."""
        return self._schemas.get(chosen)


def server_address(uri: str, *, shape: str, parameters: Collection[str], most_parts: int) -> ServerAddress:
    """The parts of `uri`. Raises WarehouseSettingsError where it is not of the `shape` that is shown then."""
    found = read_network_address(uri)
    where = without_secrets(uri)
    host, _, port = found["hosts"].partition("]:") if found["hosts"].startswith("[") else found["hosts"].partition(":")
    path = tuple(unquote(part) for part in (found["path"] or "").split("/") if part)
    pairs = [pair.partition("=") for pair in (found["parameters"] or "").split("&") if pair]
    unknown = [name for name, _, _ in pairs if name not in parameters]
    if unknown:
        raise WarehouseSettingsError(f"{where} has the parameter {unknown[0]!r}. Known: {', '.join(parameters)}.")
    if "," in found["hosts"] or not host.strip("[]") or len(path) > most_parts:
        raise WarehouseSettingsError(f"{where} cannot be read. It must look like {shape}.")
    return ServerAddress(
        uri=uri,
        where=where,
        host=host.strip("[]"),
        port=int(port) if port else None,
        user=unquote(found["user"] or ""),
        password=unquote(found["password"] or ""),
        path=path,
        parameters={name: unquote(value) for name, _, value in pairs},
    )


def driver(module: str, *, scheme: str, extra: str) -> Any:
    """The driver's module. Raises WarehouseSettingsError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise WarehouseSettingsError(
            f"The driver for {scheme}:// addresses is not installed. Install it: pip install '.[{extra}]'."
        ) from None
