"""The folder of an extract: it appears whole or not at all, and only an earlier extract gives way to it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from connectors.profiles.errors import ExtractNotWrittenError


@contextmanager
def disk_faults(path: Path) -> Iterator[None]:
    """Turns the system's errors into ExtractNotWrittenError with the remedy."""
    try:
        yield
    except OSError as error:
        raise ExtractNotWrittenError(
            f"{path} cannot be written: {error.strerror or error}. "
            "Make room or correct the permissions, then run again."
        ) from error


@contextmanager
def folder_in_the_making(destination: Path) -> Iterator[Path]:
    """A hidden folder beside `destination` that takes its place at the end, or vanishes with all that is in it."""
    with disk_faults(destination):
        _require_replaceable(destination)
        destination.parent.mkdir(parents=True, exist_ok=True)
        for left_behind in destination.parent.glob(f".{destination.name}.partial-*"):  # by a run that was killed
            shutil.rmtree(left_behind, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{destination.name}.partial-", dir=destination.parent))
    try:
        yield folder
        with disk_faults(destination):
            folder.chmod(0o755)  # mkdtemp's folders are their owner's alone
            shutil.rmtree(destination, ignore_errors=True)
            folder.rename(destination)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _require_replaceable(destination: Path) -> None:
    """Only an earlier extract is ever deleted."""
    if not destination.exists():
        return
    if not destination.is_dir() or any(not entry.match("part-*.parquet") for entry in destination.iterdir()):
        raise ExtractNotWrittenError(
            f"{destination} is there and is no earlier extract. Move it away, or choose another folder."
        )
