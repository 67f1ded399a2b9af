"""What Tencent has confirmed, per account type of one sync at one target; grows by folding the ledgers of pushes.

    <folder>/state.json                        owner, generation, the frame that each came from, the list of parts
    <folder>/part-00000012-5e1c09a7.parquet    account, one column per attribute, uncertain, acknowledged_at, and the
                                               account's key and its profile's digest (see narrow.py)
    <folder>/refused-<frame>-5e1c09a7.parquet  what was refused for good: see refusal_memory.py
    <folder>/<frame>.ledger                    a push that is running, or died: folded before anything else happens;
                                               with its writer in the name where the folder is a copy

The first part is the base, each later one adds what a push changed: the last part that has an account counts for it.
A null attribute was never acknowledged, or its removal was; an account of which nothing is left goes when parts become
one. `uncertain` names attributes that a call may or may not
have written: they count as different from anything, so that the next run sends them again.
"""

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir

from connectors.tencent_push.ledger import LedgerContents, read_ledger
from connectors.tencent_push.protocol import AccountType
from pipelines.engine import Engine
from pipelines.errors import ConfigurationError, DataFolderError
from pipelines.folding import IS_REMOVED, IS_SET, MAYBE_REMOVED, MAYBE_SET, answered, effects_of, is_complete, touched
from pipelines.forgetting import unknown_departed, with_removed, without_empty
from pipelines.narrow import HASH_VERSION
from pipelines.refusal_memory import refused_in, remembered
from pipelines.remote_state import STATE, RemoteState
from pipelines.state_parts import is_worth_compacting, learned_rows, part_name, read_parts
from pipelines.store import disk_errors, make_folder, whole_file

LAYOUT = 2
SINGLE_FILE_LAYOUT = 1  # of earlier programs: one file, without keys and digests
KEPT_HISTORY = 50


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose acknowledgements a folder holds. Another owner's never count."""

    host: str
    sdkappid: int
    sync: str
    account_type: AccountType


@dataclass(frozen=True, slots=True)
class Generation:
    """One state of what is acknowledged. No `parts` before anything was. `frames` tells which frame made which.

    `refused` is the memory of refusals that goes with it, if there is any. `hash_version` is of whom the parts' keys
    and digests are; another engine's are not believed.
    """

    number: int
    parts: tuple[Path, ...] = ()
    frames: tuple[tuple[int, str], ...] = ()
    lineage: str = ""
    refused: Path | None = None
    hash_version: str = HASH_VERSION

    def came_only_from(self, frame: str, *, since: "Generation") -> bool:
        """Whether every generation after `since` was made by pushing `frame`, so that pushing it again is safe.

        A folder that was removed and grew anew is of another lineage: its numbers say nothing about the old one's.
        """
        if since.number and since.lineage != self.lineage:
            return False
        made_since = [(number, maker) for number, maker in self.frames if number > since.number]
        return len(made_since) == self.number - since.number and all(maker == frame for _, maker in made_since)


@dataclass(frozen=True, slots=True)
class Folded:
    """What a ledger added. `acknowledged` counts whole changes.

    `unsettled_calls` were in flight when the run died: their rows are sent again.
    """

    generation: Generation
    acknowledged: int
    uncertain: int
    unsettled_calls: int


class AcknowledgedAttributes:
    """The acknowledged attributes of one owner in `folder`, which may be the copy of a `remote` one."""

    def __init__(self, folder: Path, owner: Owner, *, remote: RemoteState | None = None) -> None:
        self.folder = folder
        self.owner = owner
        self.remote = remote

    def current(self) -> Generation:
        """Raises DataFolderError for a folder of another owner, an unknown layout, or with a part gone."""
        path = self.folder / STATE
        if not path.exists():
            if any(self._part_files()):
                raise DataFolderError(f"{path} is gone, but its data are there; restore it, or remove {self.folder}")
            return Generation(number=0)
        with disk_errors(path):
            content = path.read_bytes()
        return self._read_state(path, content)

    def ledger_file(self, frame: str) -> Path:
        """Where the push of `frame` keeps its ledger until it is folded."""
        make_folder(self.folder)
        return self.folder / (f"{frame}.ledger" if self.remote is None else f"{frame}.{self.remote.writer}.ledger")

    def leftover_ledgers(self) -> list[Path]:
        """Ledgers of pushes that died before they were folded, oldest first."""
        return sorted(self.folder.glob("*.ledger"), key=lambda path: path.stat().st_mtime)

    def table(self, engine: Engine) -> ir.Table | None:
        """The current generation as a table, or None before anything was acknowledged."""
        return self._table(engine, self.current())

    def _table(self, engine: Engine, generation: Generation) -> ir.Table | None:
        if not generation.parts:
            return None
        believed = generation.hash_version == HASH_VERSION
        return read_parts(engine, f"acknowledged_{self.owner.account_type}", generation.parts, believed=believed)

    def learn(self, engine: Engine, learned: ir.Table, *, since: Generation) -> bool:
        """Keep the digests of profiles (account, CONTENT) that were found settled, where that pays; whether it did.

        Nothing is acknowledged by it, so the generation stays. What was learned of an older one is left alone.
        """
        generation = self.current()
        if generation != since:
            return False
        rows = learned_rows(engine, self._table(engine, generation), learned, kind=self.owner.account_type)
        if rows is not None:
            self._append(engine, rows, generation)
        return rows is not None

    def refused(self, engine: Engine) -> ir.Table | None:
        """What was refused for good so far (refusal_memory.MEMORY), or None when nothing was."""
        generation = self.current()
        if generation.refused is None:
            return None
        return engine.parquet(f"refused_{self.owner.account_type}", generation.refused)

    def require_same_case(self, names: Iterable[str], known: ir.Table | None) -> None:
        """Raise for an attribute whose name was acknowledged in another case: the engine takes the two for one."""
        by_folded = {name.lower(): name for name in (known.columns if known is not None else ())}
        for name in names:
            before = by_folded.get(name.lower(), name)
            if before != name:
                raise ConfigurationError(
                    f"attribute {name!r} was acknowledged as {before!r} before, and Tencent "
                    f"tells the two apart. Keep the old name, or remove {self.folder} to send everything under the new"
                )

    def fold(self, engine: Engine, ledger: Path, *, root: Path) -> Folded:
        """Take what `ledger` records into a new generation, then remove it; its header tells the frame below `root`.

        A ledger without effect makes no generation. Interrupted anywhere, it can be folded again. One whose very first
        line was cut off (a kill, a full disk) proves that nothing was sent on its strength.
        """
        if _never_began(ledger):
            return self._forget(ledger, Folded(self.current(), acknowledged=0, uncertain=0, unsettled_calls=0))
        contents = read_ledger(ledger)
        frame_file = root / str(contents.header["frame_file"])
        if not frame_file.exists():
            raise DataFolderError(
                f"{ledger} records what was sent of {frame_file}, which is gone: restore that file. If it is lost, "
                f"remove {self.folder} as well; everything of this sync is then sent once more"
            )
        effects = effects_of(engine, contents, frame_file, name=f"effects_{self.owner.account_type}")
        counted = engine.rows(
            effects.aggregate(
                acknowledged=is_complete(effects).sum().fill_null(0),
                any=(effects[IS_SET] | effects[IS_REMOVED]).sum().fill_null(0),
                uncertain=(effects[MAYBE_SET] | effects[MAYBE_REMOVED]).sum().fill_null(0),
            )
        )[0]
        unknown = unknown_departed(engine, contents, frame_file, name=f"unknown_{self.owner.account_type}")
        if counted["any"] or counted["uncertain"] or unknown.size:
            known = effects
            if unknown.size:
                contents_known = with_removed(contents, unknown)
                known = effects_of(engine, contents_known, frame_file, name=f"known_{self.owner.account_type}")
            self._write(engine, known, self.current(), frame=str(contents.header["frame"]))
        self._remember(engine, contents, frame_file, effects=effects, changed=bool(counted["any"]))
        folded = Folded(
            generation=self.current(),
            acknowledged=int(counted["acknowledged"]),
            uncertain=int(counted["uncertain"]),
            unsettled_calls=contents.unsettled_calls,
        )
        return self._forget(ledger, folded)

    def _forget(self, ledger: Path, folded: Folded) -> Folded:
        if self.remote is not None:
            self.remote.forget_ledger(ledger.name)
        with disk_errors(ledger):
            ledger.unlink()
        return folded

    def _write(self, engine: Engine, effects: ir.Table, before: Generation, *, frame: str) -> None:
        if not before.parts:
            before = replace(before, lineage=before.lineage or secrets.token_hex(8))
            self._write_state(before)  # so that an interruption before the first state is not taken for a lost one
        known = self._table(engine, before)
        if known is not None:
            mine = known.semi_join(effects, known.account == effects.account)
            known = engine.materialize(f"known_of_effects_{self.owner.account_type}", mine)
        number = before.number + 1
        frames = (*before.frames, (number, frame))[-KEPT_HISTORY:]
        rows = touched(effects, known, now=datetime.now(UTC))
        self._append(engine, rows, replace(before, number=number, frames=frames))

    def _append(self, engine: Engine, rows: ir.Table, after: Generation) -> None:
        """`after` with one more part, `rows`; all parts become one when there are too many of them."""
        if after.parts and after.hash_version != HASH_VERSION:  # old keys and new ones never stand side by side
            parts = self._compact(engine, self.current()).parts
            after = replace(after, parts=parts, hash_version=HASH_VERSION)
        file = self.folder / part_name(after.parts)
        engine.write_parquet(rows, file)
        after = replace(after, parts=(*after.parts, file))
        self._write_state(after)
        self._remove_parts(but=after.parts)
        if is_worth_compacting(after.parts):
            self._compact(engine, after)

    def _compact(self, engine: Engine, generation: Generation) -> Generation:
        """One new base, then the state that names it, then the old parts go: killed anywhere, nothing is lost."""
        whole = self._table(engine, generation)
        if whole is None:
            return generation
        file = self.folder / part_name(generation.parts)
        engine.write_parquet(without_empty(whole), file)
        generation = replace(generation, parts=(file,), hash_version=HASH_VERSION)
        self._write_state(generation)
        self._remove_parts(but=generation.parts)
        return generation

    def _remove_parts(self, *, but: Sequence[Path]) -> None:
        """Those that the state no longer names, or never did, since a run was killed before it could."""
        for old in (*self._part_files(), *self.folder.glob(".part-*.parquet.*.part")):
            if old not in but:
                old.unlink(missing_ok=True)

    def _part_files(self) -> list[Path]:
        return [*self.folder.glob("part-*.parquet"), *self.folder.glob("generation-*.parquet")]

    def _remember(
        self, engine: Engine, contents: LedgerContents, frame_file: Path, *, effects: ir.Table, changed: bool
    ) -> None:
        """Refusals for good are kept; what was acknowledged or refused anew is no longer known by an old one.

        Written after the acknowledgements: a crash in between makes the ledger be folded again.
        """
        generation, kind = self.current(), self.owner.account_type
        rows = engine.numbered_parquet(f"refused_frame_{kind}", frame_file)
        refused = refused_in(engine, contents, rows, name=f"refused_now_{kind}")
        if refused is None and not changed:
            return
        memory = remembered(
            self.refused(engine),
            refused,
            answered(effects),
            rules=str(contents.header.get("rules", "")),
            now=datetime.now(UTC),
        )
        if memory is None:
            return
        file = self.folder / f"refused-{contents.header['frame']}-{secrets.token_hex(4)}.parquet"
        written = engine.write_parquet(memory, file)
        self._write_state(replace(generation, refused=file if written else None))
        for old in self.folder.glob("refused-*.parquet"):
            if old != file or not written:
                old.unlink(missing_ok=True)

    def _write_state(self, generation: Generation) -> None:
        state = {
            "layout": LAYOUT,
            "owner": asdict(self.owner),
            "generation": generation.number,
            "parts": [part.name for part in generation.parts],
            "hash_version": generation.hash_version,
            "frames": generation.frames,
            "lineage": generation.lineage,
            "refused": generation.refused.name if generation.refused else None,
        }
        content = json.dumps(state, indent=1).encode()
        if self.remote is not None:  # first: what stands there is what counts
            self.remote.publish(content, [*generation.parts, *([generation.refused] if generation.refused else [])])
        with whole_file(self.folder / STATE) as beside:
            beside.write_bytes(content)

    def _read_state(self, path: Path, content: bytes) -> Generation:
        try:
            state = json.loads(content)
            layout = int(state["layout"])
            if layout not in (LAYOUT, SINGLE_FILE_LAYOUT):
                raise DataFolderError(
                    f"{path} has layout {layout}, this program reads {LAYOUT}; use the program that wrote it"
                )
            owner = dict(state["owner"])
            frames = tuple((int(number), str(frame)) for number, frame in state["frames"])
            named = state["parts"] if layout == LAYOUT else [name for name in [state["file"]] if name is not None]
            parts = tuple(self.folder / str(name) for name in named)
            version = str(state["hash_version"]) if layout == LAYOUT else ""
            refused = None if state.get("refused") is None else self.folder / str(state["refused"])
            generation = Generation(int(state["generation"]), parts, frames, str(state["lineage"]), refused, version)
        except (ValueError, KeyError, TypeError):
            raise DataFolderError(f"{path} is damaged; restore it, or remove {self.folder}") from None
        if owner != asdict(self.owner):
            raise DataFolderError(
                f"{path} belongs to {_shown(owner)}, not to {_shown(asdict(self.owner))}: what one target acknowledged "
                "never counts for another; point ATTRIBUTE_SYNC_DATA at this target's own folder, or remove this one"
            )
        gone = next((part for part in generation.parts if not part.exists()), None)
        if gone is not None:
            raise DataFolderError(f"{gone} is gone; restore it, or remove {self.folder} to send everything again")
        if generation.refused is not None and not generation.refused.exists():
            return replace(generation, refused=None)  # it only saves calls; what is not known is sent once more
        return generation


def certainly_held(known: ir.Table, names: Iterable[str]) -> ir.Table:
    """Account and `names` of the accounts that hold one of them at least, with nothing uncertain about them.

    Of an account from which everything was removed nothing can be read back: it may be gone from the app by now.
    """
    held = [name for name in names if name in known.columns]
    is_any = ibis.or_(ibis.literal(False), *(known[name].notnull() for name in held))
    return known.filter((known.uncertain.length() == 0) & is_any).select("account", *held)


def _shown(owner: Mapping[str, object]) -> str:
    return f"sync {owner.get('sync')}, {owner.get('account_type')}, app {owner.get('sdkappid')} at {owner.get('host')}"


def frame_files(ledger: Path, *, root: Path) -> list[Path]:
    """The frame that the ledger is of, below `root`; none where it never began."""
    return [] if _never_began(ledger) else [root / str(read_ledger(ledger).header["frame_file"])]


def _never_began(ledger: Path) -> bool:
    """Whether not even the header's line is whole; a ledger is read by whole lines only."""
    with disk_errors(ledger), ledger.open("rb") as file:
        return not file.readline().endswith(b"\n")
