"""Lets a push end in good order when its run is cancelled: a first SIGINT or SIGTERM is told, not raised.

Dagster raises wherever the step happens to be; then the calls in flight would be recorded, but no failed row written.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C and the UI's "Terminate"; a container's end


@dataclass(slots=True)
class Cancellation:
    """Whether the run was asked to end while `deferred_signals` lasted, and by which signal."""

    by: signal.Signals | None = None

    @property
    def requested(self) -> bool:
        return self.by is not None

    @property
    def is_by_hand(self) -> bool:
        """Ctrl-C, and not the end of the machine."""
        return self.by is signal.SIGINT


@contextmanager
def deferred_signals(tell: Callable[[], None]) -> Iterator[Cancellation]:
    """Calls `tell` at the first signal, between two byte codes of the main thread; the next one interrupts as before.

    Off the main thread signals cannot be caught, and nothing changes.
    """
    cancellation = Cancellation()
    if threading.current_thread() is not threading.main_thread():
        yield cancellation
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: FrameType | None) -> None:
        restore()
        cancellation.by = signal.Signals(number)
        tell()

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield cancellation
    finally:
        restore()
