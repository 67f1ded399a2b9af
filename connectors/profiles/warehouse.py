"""Profiles from a warehouse: the result of a query, streamed to Parquet files with bounded memory.

Here stands the thread that lets an interrupt reach a running query. Drivers are in drivers.py, the types of columns in
arrow_types.py, the folder that appears whole or not at all in extract_folder.py.
"""

import shutil
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.profiles.arrow_types import target_schema, to_target
from connectors.profiles.drivers import OpenSettings, Warehouse, open_warehouse
from connectors.profiles.errors import WarehouseQueryError, without_secrets
from connectors.profiles.extract_folder import disk_faults, folder_in_the_making
from connectors.profiles.parquet import Manifest, read_manifest, require_columns

ROWS_PER_FILE = 1_000_000
_ROWS_PER_GROUP = 122_880  # what DuckDB reads best: one of its own row groups
_BYTES_PER_GROUP = 32 * 1024 * 1024  # in memory; what bounds an extract of very wide rows
_CANCEL_ATTEMPTS, _CANCEL_WAIT_SECONDS = 20, 0.5  # an interrupted run waits 10 s for the warehouse to let go

Result = TypeVar("Result")


def extract(
    uri: str,
    query: str,
    destination: Path,
    *,
    columns: Sequence[str] | None = None,
    base: Path | None = None,
    memory_limit: str = "1GB",
    rows_per_file: int = ROWS_PER_FILE,
    on_rows: Callable[[int], object] | None = None,
) -> Manifest:
    """Writes the result of `query` to `destination/part-00000.parquet`, ... and returns their manifest.

    The rows keep the query's order. `columns` None means all columns; else nothing but these crosses the network.
    `destination` appears whole or not at all: after any error or interrupt it is as it was. An earlier extract that
    stands there is replaced; only one run at a time may write to one destination. `memory_limit` bounds a warehouse
    that runs in this process (DuckDB); `base` is where its relative path starts. A file ends with the row group that
    fills `rows_per_file`. `on_rows` hears the number of rows so far after each row group.

    Raises SourceColumnError (before a row is read, but for values that no Parquet type holds), WarehouseError kinds
    and ExtractNotWrittenError.
    """
    where = without_secrets(uri)
    destination = destination.absolute()
    with folder_in_the_making(destination) as folder:
        spill_folder = folder / "spill"
        settings = OpenSettings(base=base or Path.cwd(), spill_folder=spill_folder, memory_limit=memory_limit)
        with _Connection(lambda: open_warehouse(uri, settings)) as connection:
            plan = _plan(connection, _bare(query), columns=columns, where=where)
            with closing(_batches(connection, plan, where=where)) as batches:
                _write(batches, plan.schema, folder, rows_per_file=rows_per_file, on_rows=on_rows)
        shutil.rmtree(spill_folder, ignore_errors=True)
    return read_manifest(str(destination), columns=None, base=destination)


class _Plan(NamedTuple):
    query: str  # narrowed to the columns asked for
    schema: pa.Schema  # of the Parquet files


def _plan(connection: "_Connection", query: str, *, columns: Sequence[str] | None, where: str) -> _Plan:
    if not query:
        raise WarehouseQueryError("The warehouse's query is empty. Write a SELECT.")
    described = connection.run(lambda warehouse: warehouse.describe(query))
    names = list(dict.fromkeys(described.names if columns is None else columns))
    asked = f"The query's result in {where}"
    if not names:
        raise WarehouseQueryError(f"{asked} has no columns. Correct the query.")
    require_columns(described, names, where=asked)
    narrowed = connection.run(lambda warehouse: warehouse.select(query, [described.field(name) for name in names]))
    arriving = connection.run(lambda warehouse: warehouse.describe(narrowed))
    return _Plan(query=narrowed, schema=target_schema(arriving, where=asked))


def _batches(connection: "_Connection", plan: _Plan, *, where: str) -> Generator[pa.RecordBatch, None, None]:
    rows = connection.run(lambda warehouse: warehouse.read(plan.query))
    try:
        while (batch := connection.run(lambda _: next(rows, None))) is not None:
            yield to_target(batch, plan.schema, where=f"The query's result in {where}")
    finally:
        if connection.at_rest:
            rows.close()


def _bare(query: str) -> str:
    """The query without a closing semicolon, so that it can stand inside another one."""
    return query.strip().rstrip(";").rstrip()


def _write(
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    folder: Path,
    *,
    rows_per_file: int,
    on_rows: Callable[[int], object] | None,
) -> None:
    """Part files in the order of the batches; one without rows when there are none."""
    groups = _row_groups(batches, schema, most_rows=min(_ROWS_PER_GROUP, rows_per_file))
    group = next(groups, None)
    rows = part = 0
    while group is not None or part == 0:
        rows_in_file = 0
        with _writer(folder / f"part-{part:05}.parquet", schema) as write:
            while group is not None and rows_in_file < rows_per_file:
                write(group)
                rows_in_file += group.num_rows
                rows += group.num_rows
                if on_rows is not None:
                    on_rows(rows)
                group = next(groups, None)
        part += 1


def _row_groups(batches: Iterator[pa.RecordBatch], schema: pa.Schema, *, most_rows: int) -> Iterator[pa.Table]:
    """Batches put together to a size that is read well and still held in memory, whatever the driver's batches are."""
    gathered: list[pa.RecordBatch] = []
    rows = size_bytes = 0
    for batch in batches:
        gathered.append(batch)
        rows += batch.num_rows
        size_bytes += batch.nbytes
        if rows >= most_rows or size_bytes >= _BYTES_PER_GROUP:
            yield pa.Table.from_batches(gathered, schema)
            gathered, rows, size_bytes = [], 0, 0
    if rows:
        yield pa.Table.from_batches(gathered, schema)


@contextmanager
def _writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    def write(group: pa.Table) -> None:
        with disk_faults(path):
            writer.write_table(group, row_group_size=group.num_rows)

    with disk_faults(path):
        writer = pq.ParquetWriter(path, schema, compression="snappy")
    try:
        yield write
    except BaseException:
        with suppress(Exception):  # the file is thrown away; the first fault is the one to report
            writer.close()
        raise
    with disk_faults(path):
        writer.close()


class _Connection:
    """A warehouse whose blocking steps run in a thread of their own, one at a time.

    The caller's thread only waits, so that an interrupt (Ctrl-C, an orchestrator's) reaches it at once, whatever the
    driver does with signals: ADBC turns Ctrl-C into an error of the query. The running step is then cancelled.
    """

    def __init__(self, connect: Callable[[], Warehouse]) -> None:
        self._connect = connect
        self._warehouse: Warehouse | None = None
        self._step: Future[Any] | None = None

    def __enter__(self) -> Self:
        try:
            self._warehouse = self._in_thread(self._connect)
        except BaseException:
            if self._step is not None and self._step.done() and self._step.exception() is None:
                self._step.result().close()  # the connection came while the interrupt was under way
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._warehouse is not None and self.at_rest:  # drivers crash when closed under a running step
            self._warehouse.close()

    def run(self, step: Callable[[Warehouse], Result]) -> Result:
        """Carries out one step; the caller's interrupt cancels it and goes on to the caller."""
        warehouse = self._warehouse
        if warehouse is None:
            raise RuntimeError("the connection is not open")
        return self._in_thread(lambda: step(warehouse))

    @property
    def at_rest(self) -> bool:
        """Whether no step is under way, so that cursors and the connection may be closed."""
        return self._step is None or self._step.done()

    def _in_thread(self, step: Callable[[], Result]) -> Result:
        future: Future[Result] = Future()
        self._step = future
        try:
            threading.Thread(target=_fulfil, args=(future, step), name="warehouse", daemon=True).start()
            return future.result()
        except BaseException:
            self._cancel(future)
            raise

    def _cancel(self, step: Future[Result]) -> None:
        """Again and again: a request that arrives between two statements of the step finds nothing to cancel.

        Connecting cannot be cancelled; it is waited for once and then left to its own time-out.
        """
        for _ in range(_CANCEL_ATTEMPTS if self._warehouse is not None else 1):
            if step.done():
                return
            if self._warehouse is not None:
                self._warehouse.cancel()
            wait([step], timeout=_CANCEL_WAIT_SECONDS)


def _fulfil(future: Future[Result], step: Callable[[], Result]) -> None:
    try:
        future.set_result(step())
    except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
        future.set_exception(error)
