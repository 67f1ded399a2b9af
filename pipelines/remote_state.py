"""The acknowledged attributes of one owner in object storage, of which a folder on this machine is a copy.

    <folder>/state-00000012.json          what stands in state.json here; the highest number counts
    <folder>/part-*, refused-*            as here; a name stands for one content for ever
    <folder>/<frame>.<writer>.ledger/00000001   the segments of a push's ledger, see published_ledger.py; with a mark
                                          `forgotten` among them, or without the first one, it is none any more

What stands there is what counts: the folder here is made equal to it whenever a run takes the lease, and what a killed
run left here alone is gone. A new state is created only if nobody else has made that number: one that slept while
another run took over is told, and changes nothing. A write of its that comes late is to a ledger that nobody else
writes, and that is none any more.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from connectors.object_store.faults import ObjectStoreError
from connectors.object_store.store import Listed, Objects
from pipelines.errors import DataFolderError
from pipelines.store import disk_errors, make_folder, whole_file

STATE = "state.json"
_REMOTE_STATE = "state-"
_NUMBER_FILE = ".remote-state"  # the number of the state that the folder here is a copy of
_KEPT_STATES = 10  # so that one who slept meets a later number, and cannot make an old one anew
_LISTINGS = 3  # by a reader without the lease: parts that it wants may be replaced under it
_FORGOTTEN = "forgotten"  # sorts after the numbers
_ALWAYS = ("adopted.json",)  # small, and written anew under their name


class RemoteState:
    """`prefix` is the folder's key in `objects`; `folder` the copy here. `require_held` raises without the lease.

    `writer` is one word that no other holder of the lease has; it is empty for who only reads, and needs no ledgers.
    """

    def __init__(
        self,
        objects: Objects,
        prefix: str,
        folder: Path,
        *,
        require_held: Callable[[], None] = lambda: None,
        writer: str = "",
    ) -> None:
        self.writer = writer
        self._objects = objects
        self._prefix = prefix
        self._folder = folder
        self._require_held = require_held

    def pull(self) -> None:
        """Makes the folder here equal to what stands there. Raises ObjectStoreError and DataFolderError."""
        make_folder(self._folder)
        for left in reversed(range(_LISTINGS)):
            try:
                self._pull({listed.key: listed for listed in self._objects.list(self._prefix)})
                return
            except ObjectStoreError:
                if not left:
                    raise

    def publish(self, content: bytes, files: Sequence[Path]) -> None:
        """`content` becomes the state there, after the `files` that it names. Raises DataFolderError if it cannot."""
        self._require_held()
        there = {listed.key for listed in self._objects.list(self._prefix)}
        for file in files:
            if self._key(file.name) not in there:
                self._objects.put(self._key(file.name), file)
        number = self._number() + 1
        mine = self._key(f"{_REMOTE_STATE}{number:08d}.json")
        self._require_held()
        is_made = self._objects.create(mine, content)
        there = {listed.key for listed in self._objects.list(self._prefix)}
        # One whose number is long gone can be made anew: it counts for nobody, and must remove nothing.
        if not is_made or mine != max(key for key in there if key.startswith(self._key(_REMOTE_STATE))):
            raise DataFolderError(
                f"another run has changed {self._prefix} in the data folder meanwhile; what this one sent is on record "
                "there, and the next run takes it over. Run again"
            )
        self._note(number)
        self._remove_old(there, number=number, named={file.name for file in files})

    def publish_segment(self, ledger: str, number: int, content: bytes) -> None:
        """One more piece of a ledger. Raises ObjectStoreError, and DataFolderError if somebody has written it."""
        self._require_held()
        if not self._objects.create(self._segment(ledger, number), content):
            raise DataFolderError(f"another run writes {self._segment(ledger, number)} in the data folder, too.")

    def publish_ledger(self, ledger: Path) -> None:
        """A ledger that is whole from the beginning."""
        self._require_held()
        self._objects.put(self._segment(ledger.name, 1), ledger)

    def forget_ledger(self, ledger: str) -> None:
        """What it says stands in the state. From the mark on it is none, however many of its segments are left."""
        self._require_held()
        self._objects.put(self._key(f"{ledger}/{_FORGOTTEN}"), b"")
        self._objects.delete([listed.key for listed in self._objects.list(self._key(ledger))][:-1])
        self._objects.delete([self._key(f"{ledger}/{_FORGOTTEN}")])

    def _pull(self, there: Mapping[str, Listed]) -> None:
        states = sorted(key for key in there if key.startswith(self._key(_REMOTE_STATE)))
        content = self._objects.read_all(states[-1:])
        named = _named(states[-1], content[0]) if content else ()
        wanted = {*named, *(name for name in _ALWAYS if self._key(name) in there)}
        for name in wanted:
            file = self._folder / name
            if name in _ALWAYS or not file.exists():
                self._download(there, name, file)
        ledgers = self._pull_ledgers(there) if self.writer else []
        if content:
            with whole_file(self._folder / STATE) as beside:
                beside.write_bytes(content[0])
            wanted.add(STATE)
        self._note(_number_of(states[-1]) if states else 0)
        self._keep_only({*wanted, *ledgers, _NUMBER_FILE})

    def _pull_ledgers(self, there: Mapping[str, Listed]) -> list[str]:
        segments: defaultdict[str, list[str]] = defaultdict(list)
        for key in sorted(there):
            folder, _, number = key.rpartition("/")
            if folder.endswith(".ledger") and number.isdigit() and f"{folder}/{_FORGOTTEN}" not in there:
                segments[folder.rpartition("/")[2]].append(key)
        whole = {name: keys for name, keys in segments.items() if keys[0] == self._segment(name, 1)}
        for name, keys in whole.items():
            if keys != [self._segment(name, number) for number in range(1, len(keys) + 1)]:
                raise DataFolderError(
                    f"{self._key(name)} in the data folder lacks a segment; restore it, or remove {self._prefix} to "
                    "send everything again"
                )
            with whole_file(self._folder / name) as beside, beside.open("wb") as file:
                file.writelines(self._objects.read_all(keys))
        return list(whole)

    def _download(self, there: Mapping[str, Listed], name: str, file: Path) -> None:
        listed = there.get(self._key(name))
        if listed is None:
            raise ObjectStoreError(
                f"{self._key(name)} is gone from the data folder; restore it, or remove {self._prefix} to send "
                "everything again"
            )
        with whole_file(file) as beside:
            self._objects.download(listed, beside)

    def _keep_only(self, names: Collection[str]) -> None:
        with disk_errors(self._folder):
            for file in self._folder.iterdir():
                if file.name not in names:
                    file.unlink(missing_ok=True)

    def _remove_old(self, there: Collection[str], *, number: int, named: Collection[str]) -> None:
        """Parts that no state names any more, and old states."""
        kept = {self._key(name) for name in named}
        oldest = self._key(f"{_REMOTE_STATE}{max(0, number - _KEPT_STATES):08d}.json")
        data = (self._key("part-"), self._key("generation-"), self._key("refused-"))
        gone = [key for key in there if key.startswith(data) and key not in kept]
        gone += [key for key in there if key.startswith(self._key(_REMOTE_STATE)) and key < oldest]
        self._objects.delete(gone)
        ledgers = {key.split("/")[-2] for key in there if ".ledger/" in key}
        for ledger in ledgers:
            if self._key(f"{ledger}/{_FORGOTTEN}") in there or self._segment(ledger, 1) not in there:
                self.forget_ledger(ledger)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _segment(self, ledger: str, number: int) -> str:
        return self._key(f"{ledger}/{number:08d}")

    def _number(self) -> int:
        """Of the state that the folder here is a copy of; none before the first."""
        file = self._folder / _NUMBER_FILE
        with disk_errors(file):
            return int(file.read_text()) if file.exists() else 0

    def _note(self, number: int) -> None:
        with whole_file(self._folder / _NUMBER_FILE) as beside:
            beside.write_text(str(number))


def _number_of(key: str) -> int:
    return int(key.rpartition(_REMOTE_STATE)[2].partition(".")[0])


def _named(key: str, content: bytes) -> tuple[str, ...]:
    """The files that a state names."""
    try:
        state = json.loads(content)
        refused = state.get("refused")
        parts = state["parts"] if "parts" in state else [name for name in [state.get("file")] if name]
        return (*map(str, parts), *([str(refused)] if refused else []))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataFolderError(f"{key} in the data folder is damaged; restore it, or remove its folder") from None
