"""An open warehouse whose steps can be interrupted, time out, and whose connecting is tried again.

Here stand the thread that runs the steps and the bounds in seconds; what a step is, the driver knows.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any, Self, TypeVar

from connectors.profiles.errors import WarehouseTimeoutError, WarehouseUnreachableError
from connectors.profiles.warehouses.drivers import Warehouse

_CANCEL_ATTEMPTS, _CANCEL_WAIT_SECONDS = 20, 0.5  # an interrupted run waits 10 s for the warehouse to let go
CONNECT_PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0)  # before another try: a server that restarts is mostly back within these

Result = TypeVar("Result")


class Connection:
    """A warehouse whose blocking steps run in a thread of their own, one at a time.

    The caller's thread only waits, so that an interrupt (Ctrl-C, an orchestrator's) reaches it at once, whatever the
    driver does with signals: ADBC turns Ctrl-C into an error of the query. The running step is then cancelled;
    so is one that still runs `timeout_seconds` after the connection was made.

    A connection that cannot be had for now (refused, too many, starting up) is tried a few times more.
    """

    def __init__(self, connect: Callable[[], Warehouse], *, where: str, timeout_seconds: float) -> None:
        self._connect = connect
        self._where = where
        self._timeout_seconds = timeout_seconds
        self._ends_at: float | None = None
        self._warehouse: Warehouse | None = None
        self._step: Future[Any] | None = None

    def __enter__(self) -> Self:
        try:
            self._warehouse = self._connected()
        except BaseException:
            if self._step is not None and self._step.done() and self._step.exception() is None:
                self._step.result().close()  # the connection came while the interrupt was under way
            raise
        self._ends_at = time.monotonic() + self._timeout_seconds
        return self

    def _connected(self) -> Warehouse:
        for pause_seconds in CONNECT_PAUSES_SECONDS:
            try:
                return self._in_thread(self._connect)
            except WarehouseUnreachableError as error:
                if not error.is_passing:
                    raise
            time.sleep(pause_seconds)
        return self._in_thread(self._connect)

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
            wait([future], None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic()))
            if not future.done():
                raise self._timed_out()
            return future.result()
        except BaseException:
            self._cancel(future)
            raise

    def _timed_out(self) -> WarehouseTimeoutError:
        return WarehouseTimeoutError(
            f"The query in {self._where} did not end within {self._timeout_seconds / 60:.3g} minutes and was "
            "cancelled. Make it faster (an index, fewer joins, a table made beforehand), or allow it more: "
            "`timeout_minutes` beside the query."
        )

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
