"""When the files of a source make a new complete drop: decided from names, sizes and times alone, for a sensor.

Pure but for the look for `_SUCCESS`; the caller lists the files and gives the clock.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import orjson

from connectors.profiles.files import FoundFile, success_file_ns
from connectors.profiles.storage.object_storage import SUCCESS_FILE


@dataclass(frozen=True, slots=True)
class Watched:
    """What is remembered from one look to the next: the drop that is there, since when, and the last one that counted.

    `seen_at` in seconds since 1970, by the watcher's clock. `number` counts drops, so that a drop that comes back after
    another one is a new one.
    """

    seen: str = ""
    seen_at: float = 0.0
    taken: str = ""
    number: int = 0

    def to_text(self) -> str:
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def from_text(cls, text: str | None) -> "Watched":
        """Nothing is remembered where the text is not this class's own: the drop that is there then counts as new."""
        try:
            return cls(**orjson.loads(text or "{}"))
        except (orjson.JSONDecodeError, TypeError):
            return cls()


@dataclass(frozen=True, slots=True)
class Completeness:
    """How a drop shows that it is complete; where both are given, both must hold."""

    success_file: bool
    quiet_seconds: float


@dataclass(frozen=True, slots=True)
class Look:
    """The outcome: `key` names a new complete drop, else `why` says what is waited for."""

    watched: Watched
    key: str | None
    why: str = ""


def look(
    files: Sequence[FoundFile],
    watched: Watched,
    rule: Completeness,
    *,
    now: float,
    success_ns: Callable[[str], int | None] = success_file_ns,
) -> Look:
    """`now` in seconds since 1970. A key is given once per drop: the state that is handed back has taken it."""
    seen = fingerprint(files)
    if seen != watched.seen:
        watched = replace(watched, seen=seen, seen_at=now)
    if seen == watched.taken:
        return Look(watched, None, f"no new files: drop {watched.number} ({_size(files)}) has had its run")
    if rule.success_file and (missing := _uncovered(files, success_ns)):
        return Look(watched, None, missing)
    # The clock may have been set back: time that did not pass must not be waited for again and again.
    left = rule.quiet_seconds - max(0.0, now - watched.seen_at)
    if left > 0:
        return Look(
            watched, None, f"new files ({_size(files)}); taken when nothing changes for {left / 60:.1f} minutes"
        )
    number = watched.number + 1
    return Look(replace(watched, taken=seen, number=number), f"drop-{number}-{seen}")


def fingerprint(files: Sequence[FoundFile]) -> str:
    """The same for the same names, sizes and modification times, in whatever order they were listed."""
    facts = sorted((file.path, file.bytes, file.modified_ns) for file in files)
    return hashlib.sha256(orjson.dumps(facts)).hexdigest()[:16]


def _uncovered(files: Sequence[FoundFile], success_ns: Callable[[str], int | None]) -> str | None:
    """What is wrong with the first file that no `_SUCCESS` covers: one beside it, or above, that is not older."""
    written: dict[str, int | None] = {}
    for file in files:
        for folder in file.place.folders:
            if folder not in written:
                written[folder] = success_ns(folder)
        times = [time for folder in file.place.folders if (time := written[folder]) is not None]
        if not times:
            return f"waits for {file.place.folders[0]}/{SUCCESS_FILE}, or one in a folder above it within the source"
        if max(times) < file.modified_ns:
            return (
                f"{file.path} is newer than its {SUCCESS_FILE}: still being written. A copy must bring {SUCCESS_FILE} "
                "last; where it cannot, choose quiet_minutes instead"
            )
    return None


def _size(files: Sequence[FoundFile]) -> str:
    return f"{len(files):,} {'file' if len(files) == 1 else 'files'}, {sum(file.bytes for file in files):,} bytes"
