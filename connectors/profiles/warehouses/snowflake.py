"""Snowflake as a warehouse, through its own connector: rows arrive as Arrow, piece by piece.

What is Snowflake's alone stands here: address, session, errors. Its types are in snowflake_types.py.
"""

import os
import re
import warnings
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from typing import Any

import pyarrow as pa

from connectors.profiles.errors import WarehouseError, WarehouseSettingsError, before_values
from connectors.profiles.warehouses.servers import (
    APPLICATION,
    BACKSTOP_SECONDS,
    CONNECT_SECONDS,
    Narrowing,
    ServerAddress,
    driver,
    server_address,
)
from connectors.profiles.warehouses.snowflake_types import field_of
from connectors.profiles.warehouses.sql_text import TableName, all_of, quoted

_SHAPE = "snowflake://user:password@account/database/schema?warehouse=...&role=..."
_AUTHENTICATORS = (
    "snowflake", "snowflake_jwt", "oauth", "oauth_client_credentials", "programmatic_access_token", "workload_identity",
)  # fmt: skip
_DRIVER_S_OWN = (  # handed on as they are
    "warehouse", "role", "private_key_file", "private_key_file_pwd", "token", "token_file_path", "connection_name",
    "oauth_client_id", "oauth_client_secret", "oauth_token_request_url", "workload_identity_provider", "host",
    "protocol",
)  # fmt: skip
_PARAMETERS = (*_DRIVER_S_OWN, "authenticator", "connect_timeout")
_CANCEL_SECONDS = 8

_SYNTAX = (900, 904, 979, 1003, 1044, 1789, 2003, 2028, 2043, 2140)  # the server's messages quote names alone
_DENIED, _NO_WAREHOUSE, _ENDED_BY_LIMIT, _DOUBLED = 3001, 606, 630, 2022
_GRANT = "Grant the role usage on the warehouse, the database and the schema, and select on the table."
_LOGIN = 250001
_LOST = (390110, 390111, 390112, 390114, 390195)  # the session is gone
_NUMBER = re.compile(r"^(?:\d{6} \(\w{5}\): )+")
_LOGIN_PREFIX = re.compile(r"^Failed to login: (?:HTTP request failed[^.]*\. )?")
_REFUSED_LOGIN = re.compile(
    r"incorrect username or password|JWT token|token (?:is )?(?:invalid|expired)|access denied|not allowed to access|"
    r"locked",
    re.IGNORECASE,
)


class Snowflake:
    """One session. A query sees one state of the data, as every statement of Snowflake's does."""

    def __init__(self, uri: str, *, timeout_seconds: float) -> None:
        self._address = server_address(uri, shape=_SHAPE, parameters=_PARAMETERS, most_parts=2)
        self._driver = driver("snowflake.connector", scheme="snowflake", extra="snowflake")
        self._arguments = _arguments(self._address)
        self._narrowing = Narrowing(column_of=lambda field: quoted(field.name))
        try:
            self._connection = self._connected(
                seconds=self._address.seconds("connect_timeout", CONNECT_SECONDS),
                parameters={"STATEMENT_TIMEOUT_IN_SECONDS": int(timeout_seconds) + BACKSTOP_SECONDS},
            )
            self._cursor = self._connection.cursor()
        except self._driver.Error as error:
            raise self._no_login(error) from None

    def all_of(self, table: TableName) -> str:
        """The query for the whole table."""
        return all_of(table)

    def describe(self, query: str) -> pa.Schema:
        """The columns of the query's result; the server compiles the query and runs nothing."""
        known = self._narrowing.schema(query)
        if known is not None:
            return known
        try:
            return pa.schema([field_of(column) for column in self._cursor.describe(query) or ()])
        except self._driver.Error as error:
            raise self._translated(error) from None

    def select(self, query: str, fields: Sequence[pa.Field]) -> str:
        """`query` narrowed to `fields`, in its order."""
        return self._narrowing.select(query, fields, check=self.describe)

    def read(self, query: str) -> Generator[pa.RecordBatch, None, None]:
        """The rows of `query`, in the pieces that the server made of them: a few megabytes each.

        Each piece by itself: a number is as wide in it as the piece's values need, and the connector's own stream
        (5.2) reads all pieces in the widths of the first: 70,000 behind a piece of small numbers would become 112.
        """
        names = self.describe(query).names
        try:
            self._cursor.execute(query)
            expected, rows = self._cursor.rowcount, 0
            for piece in self._cursor.get_result_batches() or ():
                table = piece.to_arrow(self._connection, number_to_decimal=True, force_microsecond_precision=True)
                if table is not None:
                    rows += table.num_rows
                    yield from table.select(names).to_batches()
        except self._driver.Error as error:
            raise self._translated(error) from None
        if rows != expected:
            raise self._address.unreachable("broke off before the last row", f"{rows} of {expected} rows came")

    def cancel(self) -> None:
        """Ends what is running, from any thread, by a second session."""
        with suppress(Exception):  # it may have ended by itself; the server may be gone
            killer = self._connected(seconds=_CANCEL_SECONDS, parameters={})
            with closing(killer), closing(killer.cursor()) as cursor:
                cursor.execute(f"SELECT SYSTEM$CANCEL_ALL_QUERIES({int(self._connection.session_id)})")

    def close(self) -> None:
        """Ends the session."""
        with suppress(Exception):
            self._connection.close(retry=False)

    def _connected(self, *, seconds: int, parameters: dict[str, object]) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the driver, about its own future
            return self._driver.connect(
                **self._arguments,
                login_timeout=seconds,
                connect_timeout=seconds,
                session_parameters={"TIMEZONE": "UTC", "QUERY_TAG": APPLICATION, **_QUIET, **parameters},
            )

    def _no_login(self, error: Exception) -> WarehouseError:
        said = _LOGIN_PREFIX.sub("", _words(error))
        what = "cannot be reached"
        if _REFUSED_LOGIN.search(said):
            return self._address.unreachable(what, said.partition(". ")[0])
        return self._address.broken(what, error, text=said)

    def _translated(self, error: Exception) -> WarehouseError:
        number, words = int(getattr(error, "errno", None) or 0), _words(error)
        if number == _ENDED_BY_LIMIT:
            return self._address.timed_out("STATEMENT_TIMEOUT_IN_SECONDS")
        if number == _NO_WAREHOUSE:
            return self._address.refused(words, remedy="Name a warehouse in the address: ?warehouse=...")
        if number in _LOST or not getattr(error, "sqlstate", None):
            return self._address.broken("broke off before the last row", error)
        if number not in (*_SYNTAX, _DENIED, _DOUBLED):
            words = f"{before_values(words)} (error {number})"
        return self._address.refused(words, remedy=_GRANT if number == _DENIED else "Correct the query.")


_QUIET = {"CLIENT_TELEMETRY_ENABLED": False}  # the driver would report to the vendor how it is used


def _arguments(address: ServerAddress) -> dict[str, Any]:
    given = address.parameters
    authenticator = given.get("authenticator", "snowflake_jwt" if "private_key_file" in given else "snowflake").lower()
    if authenticator not in _AUTHENTICATORS:
        raise WarehouseSettingsError(
            f"{address.where}: the authenticator of a run without a person is one of {', '.join(_AUTHENTICATORS)}."
        )
    key = given.get("private_key_file")
    if key is not None and not os.access(key, os.R_OK):
        raise WarehouseSettingsError(
            f"{address.where}: private_key_file is no file that can be read. Correct its path."
        )
    arguments: dict[str, Any] = {name: given[name] for name in _DRIVER_S_OWN if name in given}
    arguments |= {
        "account": address.host,
        "authenticator": authenticator,
        "client_session_keep_alive": True,
        "client_out_of_band_telemetry_enabled": False,
        "server_session_keep_alive": False,
    }
    named = {"user": address.user, "password": address.password, "port": address.port}
    named |= dict(zip(("database", "schema"), address.path, strict=False))
    return arguments | {name: value for name, value in named.items() if value}


def _words(error: Exception) -> str:
    return _NUMBER.sub("", str(getattr(error, "raw_msg", None) or error)).strip()
