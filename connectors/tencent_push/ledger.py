"""What was sent and what was acknowledged, durably: one append-only file per frame and run.

A batch is on disk before its call leaves, and its result is on disk before its outcomes count. Nothing here knows
accounts or values: rows are numbers of the frame's Parquet file. What the record means for the next run is not decided
here.

One line per write: length and CRC32 of the payload (eight hexadecimal digits each), then the payload as JSON. A line is
synced before the next one is begun, so only the last line can be torn.
"""

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import orjson

from connectors.tencent_push.errors import LedgerError
from connectors.tencent_push.protocol import Command

Numbers = npt.NDArray[np.int64]

_FRAME_PREFIX_BYTES = 18  # "LLLLLLLL CCCCCCCC "
_FRAME_OVERHEAD_BYTES = _FRAME_PREFIX_BYTES + 1  # and the newline
_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
_COMMANDS = {Command.SET_ATTR: "set", Command.REMOVE_ATTR: "remove"}
_COMMAND_OF = {short: command for command, short in _COMMANDS.items()}


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch that is about to leave."""

    batch_id: str
    command: Command
    numbers: Sequence[int]


@dataclass(frozen=True, slots=True)
class Settled:
    """What the API said of a batch: numbers acknowledged, and those that may be written although nothing said so.

    The batch's other numbers were not written. `refused`: which numbers were rejected for good, by the ErrorCode and
    whether it stood on the whole call; such a number may be `maybe_written` as well.
    """

    batch_id: str
    command: Command
    acknowledged: Sequence[int] = ()
    maybe_written: Sequence[int] = ()
    refused: Mapping[tuple[int, bool], Sequence[int]] = field(default_factory=dict)


class Record(Protocol):
    """What the sink needs of a ledger. Everything but `close` raises LedgerError."""

    def next_batch_id(self) -> str: ...

    def record(self, sent: Iterable[Sent] = (), settled: Iterable[Settled] = ()) -> int:
        """Where the record ends now. What was `sent` may leave when `confirmed` has come so far, and not before."""

    @property
    def confirmed(self) -> int: ...

    def on_confirmed(self, wake: Callable[[], None]) -> None:
        """`wake` is called, from any thread, when `confirmed` has grown or the record has failed."""


@dataclass(frozen=True, slots=True)
class LedgerContents:
    """What a ledger proves. Numbers are sorted and distinct.

    `acknowledged`: some call was answered with their success. `uncertain`: not acknowledged, but some call may have
    written them, or was sent and never settled. All others are as they were before.
    `refused`: by the ErrorCode that rejected them last and whether it stood on the whole call; a number stands in one
    of them at most, and in none if it was acknowledged as well.
    `torn_bytes`: an unfinished last write, which no call has left on the strength of.
    """

    header: Mapping[str, Any]
    acknowledged: Mapping[Command, Numbers]
    uncertain: Mapping[Command, Numbers]
    refused: Mapping[Command, Mapping[tuple[int, bool], Numbers]]
    torn_bytes: int
    unsettled_calls: int


class Ledger:
    """Appends to the one ledger of a frame and run. Not for more than one thread or process at a time.

    Every OSError becomes a LedgerError that names the file, the fault and what to do.
    """

    def __init__(self, path: Path, descriptor: int, *, good_bytes: int, batches: int, header_crc: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._good_bytes = good_bytes
        self._batches = batches
        self._header_crc = header_crc
        self._dirty = False
        self._broken: str | None = None

    @classmethod
    def open(cls, path: Path, header: Mapping[str, Any]) -> "Ledger":
        """Creates the file, or goes on with it if its header is equal; an unfinished last write is cut off.

        Raises LedgerError when the header differs, the file is damaged, or it cannot be written.
        """
        crc = zlib.crc32(orjson.dumps(header, option=orjson.OPT_SORT_KEYS))
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _os_fault(path, error, doing="opened") from error
        try:
            scan = _Scan(path)
            frames = scan.frames()
            found = next(frames, None)
            if found is not None and found.get("header") != _as_read(header):
                raise LedgerError(
                    f"The ledger {path} belongs to another frame or run: its header differs. Move it away, then run "
                    "again."
                )
            batches = sum(len(frame.get("sent", ())) for frame in frames)
            ledger = cls(path, descriptor, good_bytes=scan.good_bytes, batches=batches, header_crc=crc)
            ledger._dirty = scan.torn_bytes > 0
            ledger._cut_unfinished()
            if found is None:
                ledger._append({"header": header})
                _sync_folder(path)
        except BaseException:
            os.close(descriptor)
            raise
        return ledger

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        return self._path

    def next_batch_id(self) -> str:
        """Distinct within the ledger, over all runs that append to it, and in practice between ledgers."""
        self._batches += 1
        return f"{self._header_crc:08x}-{self._batches:06d}"

    @property
    def confirmed(self) -> int:
        """The bytes that are on disk: all that was recorded."""
        return self._good_bytes

    def on_confirmed(self, wake: Callable[[], None]) -> None:
        """Nothing is confirmed later than it is recorded."""

    def record(self, sent: Iterable[Sent] = (), settled: Iterable[Settled] = ()) -> int:
        """On return everything is on disk; if it raises, none of it counts as recorded."""
        frame = {
            "sent": [[call.batch_id, _COMMANDS[call.command], _to_ranges(call.numbers)] for call in sent],
            "settled": [_settled_entry(call) for call in settled],
        }
        filled = {kind: calls for kind, calls in frame.items() if calls}
        if filled:
            self._append(filled)
        return self._good_bytes

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, frame: Mapping[str, Any]) -> None:
        if self._descriptor < 0:
            raise LedgerError(f"The ledger {self._path} is closed.")
        if self._broken is not None:
            raise LedgerError(self._broken)
        line = _to_line(frame)
        self._cut_unfinished()
        self._dirty = True  # until the line is known to be whole and on disk, whatever interrupts
        try:
            _write_all(self._descriptor, line)
        except OSError as error:
            raise _os_fault(self._path, error, doing="written") from error
        self._sync()
        self._good_bytes += len(line)
        self._dirty = False

    def _cut_unfinished(self) -> None:
        if not self._dirty:
            return
        try:
            os.ftruncate(self._descriptor, self._good_bytes)
        except OSError as error:
            raise _os_fault(self._path, error, doing="written") from error
        self._dirty = False

    def _sync(self) -> None:
        try:
            _sync(self._descriptor)
        except OSError as error:
            # After a failed sync the system may have dropped what it held: trying again would prove nothing.
            fault = _os_fault(self._path, error, doing="made durable")
            self._broken = str(fault)
            raise fault from error


def read_ledger(path: Path) -> LedgerContents:
    """Raises LedgerError when the file is not there, is no ledger, or is damaged before its last write."""
    scan = _Scan(path)
    frames = scan.frames()
    first = next(frames, None)
    if first is None or "header" not in first:
        raise LedgerError(f"The ledger {path} has no header: it is not a ledger, or its very first write was cut off.")
    acknowledged: dict[Command, list[int]] = {command: [] for command in _COMMANDS}
    maybe_written: dict[Command, list[int]] = {command: [] for command in _COMMANDS}
    refused: dict[Command, list[tuple[tuple[int, bool], list[int]]]] = {command: [] for command in _COMMANDS}
    open_calls: dict[str, tuple[Command, list[int]]] = {}
    for frame in frames:
        for batch_id, short, ranges in frame.get("sent", ()):
            open_calls[batch_id] = (_COMMAND_OF[short], ranges)
        for batch_id, short, yes, maybe, *rest in frame.get("settled", ()):  # refusals stand in it where there are any
            open_calls.pop(batch_id, None)
            acknowledged[_COMMAND_OF[short]] += yes
            maybe_written[_COMMAND_OF[short]] += maybe
            for code, whole, ranges in rest[0] if rest else ():
                refused[_COMMAND_OF[short]].append(((code, whole), ranges))
    for command, ranges in open_calls.values():
        maybe_written[command] += ranges
    proven = {command: _from_ranges(ranges) for command, ranges in acknowledged.items()}
    return LedgerContents(
        header=first["header"],
        acknowledged=proven,
        uncertain={c: _without(_from_ranges(r), proven[c]) for c, r in maybe_written.items()},
        refused={command: _last_words(entries, proven[command]) for command, entries in refused.items()},
        torn_bytes=scan.torn_bytes,
        unsettled_calls=len(open_calls),
    )


def _last_words(
    entries: Sequence[tuple[tuple[int, bool], list[int]]], acknowledged: Numbers
) -> dict[tuple[int, bool], Numbers]:
    """What refused each number last, in the order of the file; nothing about numbers that were acknowledged."""
    if not entries:
        return {}
    causes = list(dict.fromkeys(cause for cause, _ in entries))
    parts = [_from_ranges(ranges) for _, ranges in entries]
    which = np.repeat([causes.index(cause) for cause, _ in entries], [part.size for part in parts])
    newest_first = np.concatenate(parts)[::-1]
    numbers, at = np.unique(newest_first, return_index=True)
    last = which[::-1][at]
    open_still = np.isin(numbers, _without(numbers, acknowledged), assume_unique=True)
    found = {cause: numbers[open_still & (last == index)] for index, cause in enumerate(causes)}
    return {cause: refused for cause, refused in found.items() if refused.size}


@dataclass(slots=True)
class _Scan:
    """Reads line by line. After the last frame, `good_bytes` and `torn_bytes` tell how the file ends."""

    path: Path
    good_bytes: int = 0
    torn_bytes: int = 0

    def frames(self) -> Iterator[dict[str, Any]]:
        try:
            with self.path.open("rb") as file:
                for line in file:
                    frame = _from_line(line)
                    if self.torn_bytes or (frame is None and _is_too_long(line)):
                        raise self._damaged()
                    if frame is None:
                        self.torn_bytes = len(line)
                        continue
                    self.good_bytes += len(line)
                    yield frame
        except OSError as error:
            raise _os_fault(self.path, error, doing="read") from error

    def _damaged(self) -> LedgerError:
        return LedgerError(
            f"The ledger {self.path} is damaged at byte {self.good_bytes}, before its end: a broken disk or another "
            "program has changed it. Restore the file from a backup; if there is none, move it away, and all of its "
            "frame's changes are sent again."
        )


def _to_line(frame: Mapping[str, Any]) -> bytes:
    payload = orjson.dumps(frame)
    return b"%08x %08x %b\n" % (len(payload), zlib.crc32(payload), payload)


def _from_line(line: bytes) -> dict[str, Any] | None:
    """None for a line that is not whole, or not as it was written."""
    payload = line[_FRAME_PREFIX_BYTES:-1]
    if line != b"%08x %08x %b\n" % (len(payload), zlib.crc32(payload), payload):
        return None
    frame = orjson.loads(payload)
    return frame if isinstance(frame, dict) else None


def _is_too_long(line: bytes) -> bool:
    """An unfinished write is never longer than the length it begins with: this line has swallowed the next one."""
    try:
        return len(line) > int(line[:8], 16) + _FRAME_OVERHEAD_BYTES
    except ValueError:
        return False


def _as_read(header: Mapping[str, Any]) -> object:
    return orjson.loads(orjson.dumps(header))


def _write_all(descriptor: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _settled_entry(call: Settled) -> list[Any]:
    entry = [
        call.batch_id,
        _COMMANDS[call.command],
        _to_ranges(call.acknowledged),
        _to_ranges(call.maybe_written),
    ]
    if call.refused:
        entry.append([[code, whole, _to_ranges(numbers)] for (code, whole), numbers in call.refused.items()])
    return entry


def _to_ranges(numbers: Sequence[int]) -> list[int]:
    """[first, last, first, last, ...]: most batches are consecutive rows, so most lists are two numbers long."""
    ranges: list[int] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1] + 1:
            ranges[-1] = number
        else:
            ranges += (number, number)
    return ranges


def _from_ranges(ranges: Sequence[int]) -> Numbers:
    """Sorted and distinct; what touches or overlaps is joined first, so that the numbers are written out once."""
    pairs = np.asarray(ranges, dtype=np.int64).reshape(-1, 2)
    if not len(pairs):
        return np.empty(0, dtype=np.int64)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    reached = np.maximum.accumulate(pairs[:, 1])
    begins = np.concatenate([[True], pairs[1:, 0] > reached[:-1] + 1])
    ends = np.concatenate([begins[1:], [True]])
    joined = list(zip(pairs[begins, 0], reached[ends], strict=True))
    if len(joined) == 1:
        return np.arange(joined[0][0], joined[0][1] + 1, dtype=np.int64)
    return np.concatenate([np.arange(first, last + 1, dtype=np.int64) for first, last in joined])


def _without(numbers: Numbers, others: Numbers) -> Numbers:
    """`numbers` that are not among `others`; both are sorted and distinct, and nothing of their size is made."""
    places = np.searchsorted(others, numbers)
    found = places < len(others)
    found[found] = others[places[found]] == numbers[found]
    return numbers[~found]


def _os_fault(path: Path, error: OSError, *, doing: str) -> LedgerError:
    return LedgerError(
        f"The ledger {path} cannot be {doing}: {error.strerror or error}. No call may leave unrecorded. Free space "
        "or mend the data folder (permissions, a read-only or broken disk), then run again: it goes on from here."
    )


def _sync_folder(path: Path) -> None:
    """So that the new file's name survives a power cut, too."""
    try:
        descriptor = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise _os_fault(path, error, doing="made durable") from error
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise _os_fault(path, error, doing="made durable") from error
    finally:
        os.close(descriptor)
