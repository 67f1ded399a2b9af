"""What lives where in the data folder, and how a file gets there whole.

    <data>/profiles/sync=<sync>/run=<run>/part-*.parquet           from a warehouse, a table or object storage
    <data>/frames/sync=<sync>/run=<run>/<account type>.parquet     attribute frames; invalid_rows.parquet beside them
    <data>/plans/sync=<sync>/run=<run>/<account type>.parquet      frames of dry runs, which nothing pushes
    <data>/acknowledged/target=<target>/sync=<sync>/account_type=<account type>/   see acknowledged.py
    <data>/failed_rows/sync=<sync>/date=<YYYY-MM-DD>/<run>.parquet
    <data>/push_calls/sync=<sync>/date=<YYYY-MM-DD>/<run>.parquet
    <data>/differences/sync=<sync>/date=<YYYY-MM-DD>/<run>.parquet what `verify` found
    <data>/reports/sync=<sync>/<run>.html
    <data>/emulator/<sync>.sqlite                                  the embedded emulator's app, one per sync
    <data>/temporary/<run>-*/                                      the engine's spill area, gone after the run

Nothing here knows what the files mean. A file is written beside its name and renamed, so that a name always stands
for a whole file. A data folder in object storage has the same names; the folder here is then a place to work in, whose
files are published when they are whole.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from connectors.object_store.store import Listed, Objects
from connectors.tencent_push.protocol import AccountType
from pipelines.errors import DataFolderError

APPLICATION = "tencent-push-attribute-sync"  # names the folder of this user's own files
KEPT_HERE = ("profiles", "plans", "temporary")  # what is of use on the machine that made it, and nowhere else
MOST_DAYS = 30  # of failed rows that a new host looks through for those of the run before
KEPT_RUNS = 3  # frames and extracted profiles of older runs are removed


@dataclass(frozen=True, slots=True)
class Store:
    """The data folder of one installation: `root`, or what `objects` holds, of which `root` is a copy in parts."""

    root: Path
    objects: Objects | None = None

    def __str__(self) -> str:
        return str(self.root if self.objects is None else self.objects)

    def key(self, path: Path) -> str:
        """The name of a file or folder below the data folder."""
        return path.relative_to(self.root).as_posix()

    def address(self, path: Path) -> str:
        """Where others find the file or folder."""
        if self.objects is None or self.key(path).partition("/")[0] in KEPT_HERE:
            return str(path)
        return f"{self.objects}/{self.key(path)}"

    def publish(self, *files: Path) -> None:
        """Others can read these files from now on. Raises ObjectStoreError."""
        for file in files:
            if self.objects is not None:
                self.objects.put(self.key(file), file)

    def publish_missing(self, *files: Path) -> None:
        """As `publish`, of those files that are not there."""
        for file in files:
            if self.objects is not None and self._listed(file) is None:
                self.publish(file)

    def fetch(self, *files: Path) -> None:
        """Files that another machine wrote are here now, unless there are none. Raises ObjectStoreError."""
        for file in files:
            if self.objects is not None and not file.exists():
                listed = self._listed(file)
                self._download([listed] if listed else [])

    def fetch_days(self, folder: Path, *, until: Callable[[], Path | None]) -> Path | None:
        """What `until` finds among the files of `folder/date=<day>/`, the newest days first; of old ones only those
        that are here.
        """
        if self.objects is not None:
            listed = [each for each in self.objects.list(self.key(folder)) if "/date=" in each.key]
            days = {each.key.rpartition("/")[0].rpartition("/")[2] for each in listed}
            for day in sorted(days, reverse=True)[:MOST_DAYS]:
                self._download([each for each in listed if f"/{day}/" in each.key])
                found = until()
                if found is not None and found.parent.name >= day:
                    return found
        return until()

    def _listed(self, file: Path) -> Listed | None:
        """None when it is not in the object storage."""
        found = self.objects.list(self.key(file.parent)) if self.objects is not None else []
        return next((each for each in found if each.key == self.key(file)), None)

    def _download(self, listed: Iterable[Listed]) -> None:
        for each in listed:
            file = self.root / each.key
            if self.objects is not None and not file.exists():
                with whole_file(file) as beside:
                    self.objects.download(each, beside)

    def profiles(self, sync: str, run: str) -> Path:
        return self.root / "profiles" / f"sync={sync}" / f"run={run}"

    def frames(self, sync: str, run: str) -> Path:
        return self.root / "frames" / f"sync={sync}" / f"run={run}"

    def plan(self, sync: str, run: str) -> Path:
        return self.root / "plans" / f"sync={sync}" / f"run={run}"

    def acknowledged(self, target: str, sync: str, account_type: AccountType) -> Path:
        return self.root / "acknowledged" / f"target={target}" / f"sync={sync}" / f"account_type={account_type}"

    def failed_rows(self, sync: str) -> Path:
        return self.root / "failed_rows" / f"sync={sync}"

    def failed_rows_of(self, sync: str, day: date, run: str) -> Path:
        return self.failed_rows(sync) / f"date={day.isoformat()}" / f"{run}.parquet"

    def push_calls_of(self, sync: str, day: date, run: str) -> Path:
        return self.root / "push_calls" / f"sync={sync}" / f"date={day.isoformat()}" / f"{run}.parquet"

    def differences_of(self, sync: str, day: date, run: str) -> Path:
        return self.root / "differences" / f"sync={sync}" / f"date={day.isoformat()}" / f"{run}.parquet"

    def report_of(self, sync: str, run: str) -> Path:
        return self.root / "reports" / f"sync={sync}" / f"{run}.html"

    def emulator_file(self, sync: str) -> Path:
        return self.root / "emulator" / f"{sync}.sqlite"

    @contextmanager
    def temporary(self, run: str) -> Iterator[Path]:
        """A folder that is gone afterwards, whatever happened; what killed runs left behind goes with it."""
        area = self.root / "temporary"
        make_folder(area)
        _remove_abandoned(area)
        with disk_errors(area):
            folder = Path(tempfile.mkdtemp(prefix=f"{run}-{os.getpid()}-", dir=area))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def prune(self, sync: str, *, keep: int = KEPT_RUNS, needed: Collection[str] = ()) -> None:
        """Remove frames and extracted profiles of all but the newest `keep` runs.

        What a ledger needs stays, and so does every `run=...` folder that is `needed`.
        """
        ledgers = (self.root / "acknowledged").glob(f"target=*/sync={sync}/account_type=*/*.ledger")
        kept = {*needed, *(f"run={_frame_of(ledger.name)}" for ledger in ledgers)}
        for kind in ("profiles", "frames"):
            _remove_oldest(self.root / kind / f"sync={sync}", keep=keep, kept=kept)
        if self.objects is not None:
            self._prune_objects(self.objects, sync, keep=keep, kept=kept)

    def _prune_objects(self, objects: Objects, sync: str, *, keep: int, kept: Collection[str]) -> None:
        """Of the frames, as `prune` does; a ledger may be of another target, whose copy is not here."""
        runs: dict[str, float] = {}
        frames = objects.list(f"frames/sync={sync}")
        for each in frames:
            run = each.key.split("/")[2]
            runs[run] = max(runs.get(run, 0.0), each.modified_at)
        ledgers = [each.key.split("/")[4] for each in objects.list("acknowledged") if ".ledger/" in each.key]
        newest = sorted(runs, key=lambda run: runs[run], reverse=True)[:keep]
        stay = {*kept, *newest, *(f"run={_frame_of(name)}" for name in ledgers)}
        objects.delete([each.key for each in frames if each.key.split("/")[2] not in stay])

    def prune_plans(self, sync: str) -> None:
        """Remove the frames of old dry runs, which nothing needs, so that one more makes `KEPT_RUNS`."""
        _remove_oldest(self.root / "plans" / f"sync={sync}", keep=KEPT_RUNS - 1, kept=())


def _frame_of(ledger: str) -> str:
    """The run whose frame a ledger is of, by its name: `<run>.ledger` or `<run>.<writer>.ledger`."""
    return ledger.partition(".")[0]


def _remove_oldest(folder: Path, *, keep: int, kept: Collection[str]) -> None:
    """All but the newest `keep` of the runs in `folder`, and those that are `kept` by name."""
    runs = sorted(folder.glob("run=*"), key=lambda path: path.stat().st_mtime)
    for run in runs[: max(0, len(runs) - keep)]:
        if run.name not in kept:
            shutil.rmtree(run, ignore_errors=True)


def _remove_abandoned(area: Path) -> None:
    """Remove the folders whose process has ended; a folder's name carries the process's number."""
    for folder in area.iterdir():
        parts = folder.name.rsplit("-", 2)
        if len(parts) == 3 and parts[1].isdigit() and not _is_alive(int(parts[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def make_folder(folder: Path) -> None:
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a name to write to; on success it becomes `path`, durably, and on failure it leaves nothing behind."""
    make_folder(path.parent)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with disk_errors(path):
            yield beside
            _flush(beside)
            beside.replace(path)
            _flush(path.parent)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors about `path` into DataFolderError with the remedy."""
    try:
        yield
    except OSError as error:
        raise DataFolderError(disk_error_text(path, error)) from error


def disk_error_text(path: Path, error: OSError) -> str:
    remedies = {
        errno.ENOSPC: "free space or point ATTRIBUTE_SYNC_DATA at a larger disk, then run again",
        errno.EDQUOT: "raise the quota or point ATTRIBUTE_SYNC_DATA elsewhere, then run again",
        errno.EROFS: "the disk is read-only; point ATTRIBUTE_SYNC_DATA at a writable folder",
        errno.EACCES: "give this user the right to write there, or point ATTRIBUTE_SYNC_DATA elsewhere",
    }
    remedy = remedies.get(error.errno or 0, "see that the data folder's disk is whole and writable, then run again")
    return f"{path}: {error.strerror or error}; {remedy}"
