"""An Arrow stream out of an HTTP answer, read to its end mark: a stream that merely stops is an error.

Arrow's own reader takes the end of the bytes for the end of the stream, so that a server that died between two batches
would pass for one that had no more rows. Nothing here knows a vendor.
"""

import io
from collections.abc import Generator
from typing import Protocol

import pyarrow as pa

_END_MARK = b"\xff\xff\xff\xff\0\0\0\0"
_READ_BYTES = 1024 * 1024
_TAIL_BYTES = 16 * 1024  # of what was read last: where a server writes the error that ended its answer


class ByteSource(Protocol):
    """The body of an answer."""

    def read(self, amount: int, /) -> bytes:
        """At most so many bytes; none at the end."""

    def close(self) -> None:
        """Gives the connection back."""


class BrokenStreamError(Exception):
    """The stream ended before its end mark, or in something else. `tail` are the last bytes of it, for the caller."""

    def __init__(self, tail: bytes) -> None:
        super().__init__("the answer ended before its last row")
        self.tail = tail


class _Source(io.RawIOBase):
    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.tail = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        piece = self._source.read(_READ_BYTES if size < 0 else size)
        self.tail = (self.tail + piece)[-_TAIL_BYTES:]
        return piece


def batches_to_the_end(body: ByteSource) -> Generator[pa.RecordBatch, None, None]:
    """The batches of the stream as they come. Raises BrokenStreamError, and what the source raises."""
    source = _Source(body)
    try:
        buffered = pa.BufferedInputStream(pa.PythonFile(source, mode="r"), _READ_BYTES)
        with pa.ipc.open_stream(buffered) as reader:
            yield from reader
        while source.read():  # up to what the server wrote behind the end mark, if anything
            pass
    except (pa.ArrowInvalid, OSError) as error:
        if getattr(error, "errno", None) is not None:  # the connection's own, not Arrow's
            raise
        raise BrokenStreamError(source.tail) from None
    if not source.tail.endswith(_END_MARK):
        raise BrokenStreamError(source.tail)
