"""BigQuery as a warehouse: the query runs as a job, its result is read through the Storage Read API as Arrow batches.

google-cloud-bigquery sends the jobs. The rows are read from one stream of google-cloud-bigquery-storage, one message
at a time: the client's own `to_arrow_iterable` keeps what it has handed out (issue 2151 of python-bigquery). What is
BigQuery's alone stands here: address, credentials, jobs, errors. Its types are in bigquery_types.py.
"""

import re
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa

from connectors.profiles.errors import WarehouseError, WarehouseSettingsError, before_values
from connectors.profiles.warehouses.bigquery_types import field_of
from connectors.profiles.warehouses.servers import (
    APPLICATION,
    BACKSTOP_SECONDS,
    CONNECT_SECONDS,
    Narrowing,
    ServerAddress,
    driver,
    server_address,
)
from connectors.profiles.warehouses.sql_text import TableName, all_of, quoted

_SHAPE = "bigquery://project/dataset?location=EU"
_PARAMETERS = ("location", "credentials_path", "connect_timeout")
_MARK = "`"
_CALL_SECONDS = 60  # for one call that waits for no query
_CANCEL_SECONDS = 3
_ENDED_BY_LIMIT = ("timeout", "jobTimeout")
_PASSING = ("rateLimitExceeded", "quotaExceeded", "backendError", "internalError")
_DENIED = ("accessDenied", "forbidden")
_REFUSED_CREDENTIALS = re.compile(r"\b(?:invalid_grant|invalid_client|unauthorized_client|access_denied)\b")
_GRANT = (
    "Give the account the roles BigQuery Job User and BigQuery Read Session User in the project, and BigQuery Data "
    "Viewer on the dataset."
)


class BigQuery:
    """A client for one project. A query sees one state of each table, as every query of BigQuery's does."""

    def __init__(self, uri: str, *, timeout_seconds: float) -> None:
        self._address = server_address(uri, shape=_SHAPE, parameters=_PARAMETERS, most_parts=1)
        self._bigquery = driver("google.cloud.bigquery", scheme="bigquery", extra="bigquery")
        self._storage = driver("google.cloud.bigquery_storage", scheme="bigquery", extra="bigquery")
        self._narrowing = Narrowing(column_of=lambda field: quoted(field.name, _MARK))
        self._job: Any = None
        self._seconds = int(timeout_seconds) + BACKSTOP_SECONDS
        try:
            credentials = _credentials(self._address)
            self._client = self._bigquery.Client(
                project=self._address.host,
                credentials=credentials,
                location=self._address.parameters.get("location"),
                default_query_job_config=self._bigquery.QueryJobConfig(default_dataset=_dataset(self._address)),
            )
            self._reader = storage_reader(self._storage, credentials)
            seconds = self._address.seconds("connect_timeout", CONNECT_SECONDS)
            self._client.query("SELECT 1", job_config=self._dry(), retry=None, job_retry=None, timeout=seconds)
        except Exception as error:  # noqa: BLE001 - of the client, of its credentials and of its HTTP library
            raise self._translated(error, what="cannot be reached") from None

    def all_of(self, table: TableName) -> str:
        """The query for the whole table."""
        return all_of(table, _MARK)

    def describe(self, query: str) -> pa.Schema:
        """The columns of the query's result; the service plans the query and runs nothing (a dry run costs nothing)."""
        known = self._narrowing.schema(query)
        if known is not None:
            return known
        try:
            job = self._client.query(query, job_config=self._dry(), timeout=_CALL_SECONDS, job_retry=None)
        except Exception as error:  # noqa: BLE001 - see __init__
            raise self._translated(error) from None
        if job.statement_type not in ("SELECT", None):
            raise self._address.refused("it is no SELECT")
        return pa.schema([field_of(column) for column in job.schema or ()])

    def select(self, query: str, fields: Sequence[pa.Field]) -> str:
        """`query` narrowed to `fields`, in its order."""
        return self._narrowing.select(query, fields, check=self.describe)

    def read(self, query: str) -> Generator[pa.RecordBatch, None, None]:
        """The rows of `query`, in the service's messages: a few megabytes each at most."""
        schema = self.describe(query)
        try:
            config = self._bigquery.QueryJobConfig(job_timeout_ms=self._seconds * 1000, labels={"by": APPLICATION})
            self._job = self._client.query(query, job_config=config, timeout=_CALL_SECONDS, job_retry=None)
            expected = self._job.result(job_retry=None, page_size=1).total_rows
            rows = 0
            for batch in self._batches(self._job.destination, schema.names):
                rows += batch.num_rows
                yield batch
        except Exception as error:  # noqa: BLE001 - see __init__
            raise self._translated(error, has_run=True) from None
        if rows != expected:
            raise self._address.unreachable("broke off before the last row", f"{rows} of {expected} rows came")

    def cancel(self) -> None:
        """Ends what is running, from any thread."""
        with suppress(Exception):  # it may have ended by itself, or not have begun
            self._client.cancel_job(self._job.job_id, location=self._job.location, retry=None, timeout=_CANCEL_SECONDS)

    def close(self) -> None:
        """Closes the connections."""
        for end in ("_reader", "_client"):
            with suppress(Exception):
                close = getattr(self, end)
                (close.transport.close if end == "_reader" else close.close)()

    def _dry(self) -> Any:
        return self._bigquery.QueryJobConfig(dry_run=True, use_query_cache=False)

    def _batches(self, table: Any, names: Sequence[str]) -> Generator[pa.RecordBatch, None, None]:
        """One stream, for more would not keep the order."""
        types = self._storage.types
        session = self._reader.create_read_session(
            parent=f"projects/{self._address.host}",
            read_session=types.ReadSession(
                table=table.to_bqstorage(),
                data_format=types.DataFormat.ARROW,
                read_options=types.ReadSession.TableReadOptions(selected_fields=list(names)),
            ),
            max_stream_count=1,
            timeout=_CALL_SECONDS,
        )
        for stream in session.streams:
            schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
            for message in self._reader.read_rows(stream.name):
                if message.row_count:
                    body = pa.py_buffer(message.arrow_record_batch.serialized_record_batch)
                    yield pa.ipc.read_record_batch(body, schema).select(list(names))

    def _translated(
        self, error: Exception, *, what: str = "broke off before the last row", has_run: bool = False
    ) -> WarehouseError:
        """A query that was only planned has no row that its message could quote."""
        if isinstance(error, WarehouseError):
            return error
        told = next((each for each in getattr(error, "errors", ()) if isinstance(each, dict)), {})
        reason, words = str(told.get("reason", "")), str(told.get("message", ""))
        code = int(getattr(error, "code", None) or 0)
        if reason in _ENDED_BY_LIMIT:
            return self._address.timed_out("the job's time")
        if code == 403 and reason in _DENIED:
            return self._address.refused(words, remedy=_GRANT)
        if code in (400, 404) and words:
            said = f"{before_values(words)} ({reason or code})" if has_run else words
            return self._address.refused(said)
        return self._unreachable(what, error, reason if reason in _PASSING else str(code) if code in (429, 503) else "")

    def _unreachable(self, what: str, error: Exception, passing: str) -> WarehouseError:
        if refused := _REFUSED_CREDENTIALS.search(str(error)):
            return self._address.unreachable(what, f"Google refuses the credentials ({refused[0]})")
        if passing:
            return self._address.unreachable(what, passing, is_passing=True)
        return self._address.broken(what, error)


def storage_reader(storage: Any, credentials: Any) -> Any:
    """The client of the Storage Read API."""
    return storage.BigQueryReadClient(credentials=credentials)


def _credentials(address: ServerAddress) -> Any:
    """Of the file that the address names, else what the machine has (GOOGLE_APPLICATION_CREDENTIALS, its own role)."""
    scopes = ["https://www.googleapis.com/auth/bigquery"]
    auth = driver("google.auth", scheme="bigquery", extra="bigquery")
    path = address.parameters.get("credentials_path")
    try:
        if path is not None:
            accounts = driver("google.oauth2.service_account", scheme="bigquery", extra="bigquery")
            return accounts.Credentials.from_service_account_file(path, scopes=scopes)
        return auth.default(scopes=scopes)[0]
    except (auth.exceptions.GoogleAuthError, OSError, ValueError):
        raise WarehouseSettingsError(
            f"{address.where}: no usable Google credentials. Set GOOGLE_APPLICATION_CREDENTIALS, or credentials_path "
            "in the address, to the file of a service account, or give the machine an account of its own."
        ) from None


def _dataset(address: ServerAddress) -> str | None:
    return f"{address.host}.{address.path[0]}" if address.path else None
