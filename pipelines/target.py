"""Where the sink points, as this package sees it: a live app, or the embedded emulator when no credentials are set.

Opening a target gives a client; for the emulator it also starts one for as long as the client is open.
"""

import math
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from connectors.tencent_push.client import Client, Credentials, is_loopback
from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, Emulator, EmulatorDataError
from connectors.tencent_push.protocol import DOCUMENTED_CALLS_PER_SECOND, AccountType
from connectors.tencent_push.settings import Settings
from pipelines.errors import DataFolderError
from pipelines.store import APPLICATION, Store, make_folder

EMULATOR_HOST = "emulator"
MEETING_PLACES = (Path("/run/lock"), Path("/var/lock"), Path("/tmp"), Path("/var/tmp"))  # noqa: S108  locks, no data


@dataclass(frozen=True, slots=True)
class Target:
    """One app at one host. `settings` None means the emulator. `calls_per_second` is the quota per command."""

    settings: Settings | None
    calls_per_second: float

    @property
    def is_emulator(self) -> bool:
        return self.settings is None

    @property
    def host(self) -> str:
        return EMULATOR_HOST if self.settings is None else urlsplit(self.settings.base_url).netloc

    @property
    def sdkappid(self) -> int:
        return _EMBEDDED.sdkappid if self.settings is None else self.settings.credentials.sdkappid

    @property
    def title(self) -> str:
        """For people."""
        return "the embedded emulator" if self.is_emulator else f"app {self.sdkappid} at {self.host}"

    @property
    def name(self) -> str:
        """Host and app as one word, fit for a folder's name: what was acknowledged here counts nowhere else."""
        return f"{self.host.replace(':', '_')}-{self.sdkappid}"

    @property
    def quota_name(self) -> str:
        """What has one quota, as one word: an app, whatever address its calls go to. Test servers stand for many."""
        return self.name if self._is_here else str(self.sdkappid)

    def data_lock(self, store: Store) -> Path:
        """Beside the state it guards, for whoever shares the data folder, on whatever machine."""
        return store.root / "locks" / f"{self.name}.lock"

    def machine_lock(self) -> Path | None:
        """One per app and machine, for all users and data folders; None for the emulator, which a data folder holds."""
        if self.is_emulator:
            return None
        # Test servers come and go, and a disk in memory is no place for what they leave behind.
        place = Path(tempfile.gettempdir()) if self._is_here else meeting_place()
        return place / APPLICATION / f"{self.quota_name}.lock"

    @property
    def _is_here(self) -> bool:
        return self.settings is None or is_loopback(self.settings.base_url)

    @contextmanager
    def open(self, emulator_file: Path, declared: Mapping[str, AccountType]) -> Iterator[Client]:
        """A client of the target. The emulator's app gets the attributes that it lacks; a live app is never changed.

        Raises DataFolderError for an emulator's file that cannot be used.
        """
        if self.settings is not None:
            with closing(self.settings.make_client()) as client:
                yield client
            return
        make_folder(emulator_file.parent)
        quota = math.ceil(max(self.calls_per_second, DOCUMENTED_CALLS_PER_SECOND))
        with _emulator(emulator_file, calls_per_second=quota) as emulator:
            with suppress(ValueError):  # no free slots: the preflight reports it as it would for a live app
                emulator.declare(declared)
            embedded = Settings(credentials=_EMBEDDED, base_url=emulator.base_url)
            with closing(embedded.make_client()) as client:
                yield client


def meeting_place() -> Path:
    """A folder that is the same one for all users of this machine, and in which each may make files."""
    open_to_all = stat.S_ISVTX | stat.S_IWOTH
    for folder in MEETING_PLACES:
        with suppress(OSError):
            if folder.stat().st_mode & open_to_all == open_to_all and os.access(folder, os.W_OK):
                return folder
    return Path(tempfile.gettempdir())


def _emulator(data_file: Path, *, calls_per_second: int) -> Emulator:
    try:
        return Emulator(data_file, calls_per_second=calls_per_second)
    except EmulatorDataError as error:
        raise DataFolderError(str(error)) from None


_EMBEDDED = Credentials(
    sdkappid=EMULATOR_CREDENTIALS.sdkappid,
    identifier=EMULATOR_CREDENTIALS.identifier,
    secret_key=EMULATOR_CREDENTIALS.secret_key,
)
