"""A ledger that counts only as far as it stands elsewhere, too: in object storage, say, which outlives this machine.

The file on disk is published in segments, one after the other: whatever was appended since the last one. A batch's call
may leave when the segment with its line stands there. So a host that is lost takes no call with it that nobody knows
of, and no more than what settled since its last segment is sent again. Where segments are kept is not known here.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable

from connectors.tencent_push.errors import LedgerError
from connectors.tencent_push.ledger import Ledger, Sent, Settled

INTERVAL_SECONDS = 0.2  # between the beginnings of two segments: five writes a second at most
# How far ahead of their calls batches are recorded: what two writes of up to a fifth of a second take; slower ones
# cost pace. Together with the calls in flight it is what is sent again after a loss, at most a second's worth.
STAGED_SECONDS = 0.5
LAST_SEGMENT_SECONDS = 90.0  # how long closing waits for it

_log = logging.getLogger(__name__)


class PublishedLedger:
    """`publish(number, segment)` writes segment `number`, from 1, and raises when it cannot, or when it is there.

    `may_send` is false while nobody can tell, and raises when this run may send no more: somebody has taken over.
    The sink's thread records; another one publishes. Errors of `publish` reach the sink as LedgerError.
    """

    def __init__(
        self,
        ledger: Ledger,
        publish: Callable[[int, bytes], None],
        *,
        may_send: Callable[[], bool],
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._ledger = ledger
        self._publish = publish
        self._may_send = may_send
        self._interval_seconds = interval_seconds
        self._changed = threading.Condition()
        self._wanted = ledger.confirmed
        self._confirmed = 0
        self._fault: Exception | None = None
        self._is_closing = False
        self._wake: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="ledger-segments", daemon=True)
        self._thread.start()

    def next_batch_id(self) -> str:
        return self._ledger.next_batch_id()

    def record(self, sent: Iterable[Sent] = (), settled: Iterable[Settled] = ()) -> int:
        """On return everything is on disk here; see `confirmed`."""
        position = self._ledger.record(sent, settled)
        with self._changed:
            self._wanted = position
            self._changed.notify()
        return position

    @property
    def confirmed(self) -> int:
        """The bytes that are published; none while nobody can tell whether this run may send.

        Raises LedgerError when no more will be, and what `may_send` raises.
        """
        may_send = self._may_send()  # first: it is why nothing more can be published
        if self._fault is not None:
            raise LedgerError(
                f"The record of what is sent cannot be published: {self._fault} No call may leave unrecorded; run "
                "again, it goes on from here."
            ) from self._fault
        return self._confirmed if may_send else 0

    def on_confirmed(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def close(self) -> None:
        """Publishes what is left, so that nothing that settled is sent again; a fault of that is only logged."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(LAST_SEGMENT_SECONDS)
        if self._confirmed < self._wanted:
            _log.error("The last lines of the push's record are not published; their calls may be sent again.")
        self._ledger.close()

    def _run(self) -> None:
        number = 1
        try:
            with self._ledger.path.open("rb") as file:
                while (wanted := self._next()) is not None:
                    began_at = time.monotonic()
                    segment = os.pread(file.fileno(), wanted - self._confirmed, self._confirmed)
                    self._publish(number, segment)
                    number += 1
                    self._confirmed += len(segment)
                    self._wake()
                    self._rest(began_at)
        except Exception as error:  # noqa: BLE001  raised again in the sink's thread
            self._fault = error
            self._wake()

    def _next(self) -> int | None:
        """How far there is something to publish; None when nothing will come any more."""
        with self._changed:
            while self._wanted == self._confirmed:
                if self._is_closing:
                    return None
                self._changed.wait()
            return self._wanted

    def _rest(self, began_at: float) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_closing, timeout=max(0.0, began_at + self._interval_seconds - time.monotonic())
            )
