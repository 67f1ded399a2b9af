"""The rows of a MySQL answer, decoded column by column: one Arrow array per column out of thousands of packets at once.

Pure: bytes of the wire in, Arrow arrays out; no socket, no SQL. A decoder that makes a Python object of every value
takes five times as long. The format is that of the text protocol: each packet a header (3 bytes of size, 1 of sequence)
and one row; each value its length and its text, or the byte 0xFB for NULL.
"""

from struct import Struct

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectors.profiles.errors import WarehouseUnreachableError

HEADER_BYTES = 4
_MOST_PACKET_BYTES = 0xFFFFFF  # a longer row goes on in the next packet
_SIZE_AND_SEQUENCE = Struct("<I").unpack_from
_NULL, _TWO_BYTES, _THREE_BYTES, _LAST_OR_EIGHT_BYTES, _ERROR = 0xFB, 0xFC, 0xFD, 0xFE, 0xFF

Places = npt.NDArray[np.int64]


class RowTooLongError(Exception):
    """A row of 16 MiB and more, which comes in several packets and is no profile."""


class Packets:
    """Row packets as they arrive, in pieces of any size, until there are enough to decode at once."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.starts: list[int] = []  # of each whole row's bytes, behind the header
        self.end_bytes = 0  # of the last whole row's packet
        self.last: bytes | None = None  # what came instead of a further row: the end of the answer, or an error

    def add(self, piece: bytes) -> None:
        """Takes the next bytes of the stream. Raises RowTooLongError."""
        self.buffer += piece
        buffer, starts, place, ready = self.buffer, self.starts, self.end_bytes, len(self.buffer)
        while place + HEADER_BYTES <= ready:
            size = _SIZE_AND_SEQUENCE(buffer, place)[0] & _MOST_PACKET_BYTES
            if size == _MOST_PACKET_BYTES:
                raise RowTooLongError
            start = place + HEADER_BYTES
            if start + size > ready:
                break
            if buffer[start] >= _LAST_OR_EIGHT_BYTES:  # a value of 16 MiB would begin so too, but fits no packet
                self.last = bytes(buffer[start : start + size])
                break
            starts.append(start)
            place = start + size
        self.end_bytes = place

    def take(self, *, columns: int) -> list[pa.Array]:
        """The values of the whole rows so far, as they came, one binary array per column; what is left stays.

        Raises WarehouseUnreachableError where the bytes are not rows of so many columns: the stream is out of step.
        """
        rows = bytes(memoryview(self.buffer)[: self.end_bytes])
        starts, ends = np.array(self.starts, np.int64), np.append(self.starts[1:], self.end_bytes + HEADER_BYTES)
        self.buffer = self.buffer[self.end_bytes :]
        self.starts, self.end_bytes = [], 0
        return _columns(rows, starts, ends - HEADER_BYTES, columns=columns)


def is_error(last: bytes) -> bool:
    """Whether the packet that ended the answer is an error and not the end of its rows."""
    return last[0] == _ERROR


def _columns(buffer: bytes, places: Places, row_ends: Places, *, columns: int) -> list[pa.Array]:
    octets = np.frombuffer(buffer, np.uint8)
    found = []
    try:
        for _ in range(columns):
            starts, ends, is_null = _bounds(octets, places)
            if (ends > row_ends).any():
                raise IndexError  # before Arrow reads what lies behind the row, or behind the buffer
            found.append(_values(buffer, starts, ends, is_null))
            places = ends
    except IndexError:
        places = row_ends + 1
    if not np.array_equal(places, row_ends):
        raise WarehouseUnreachableError("the answer cannot be read: its rows do not have the columns it announced")
    return found


def _bounds(octets: npt.NDArray[np.uint8], places: Places) -> tuple[Places, Places, npt.NDArray[np.bool_]]:
    """Where the values whose lengths stand at `places` start and end, and which are NULL."""
    first = octets[places]
    sizes = first.astype(np.int64)
    starts = places + 1
    is_null = first == _NULL
    sizes[is_null] = 0
    for mark, size_bytes in ((_TWO_BYTES, 2), (_THREE_BYTES, 3)):
        longer = np.flatnonzero(first == mark)
        if len(longer):
            at = places[longer]
            sizes[longer] = sum(octets[at + 1 + index].astype(np.int64) << (8 * index) for index in range(size_bytes))
            starts[longer] += size_bytes
    return starts, starts + sizes, is_null


def _values(buffer: bytes, starts: Places, ends: Places, is_null: npt.NDArray[np.bool_]) -> pa.Array:
    """The pieces of `buffer`, copied out by Arrow: an array of all pieces and the gaps between them, less the gaps."""
    rows = len(starts)
    offsets = np.empty(2 * rows, np.int32)
    offsets[0::2], offsets[1::2] = starts, ends
    pieces = pa.Array.from_buffers(pa.binary(), 2 * rows - 1, [None, pa.py_buffer(offsets), pa.py_buffer(buffer)])
    return pieces.take(pa.array(np.arange(0, 2 * rows, 2, dtype=np.int64), mask=is_null))
