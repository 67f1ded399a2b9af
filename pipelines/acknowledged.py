"""What Tencent has confirmed, per account type of one sync at one target; grows by folding the ledgers of pushes.

    <folder>/state.json                        owner, generation, and the frame that each generation came from
    <folder>/generation-00000012.parquet       account, one column per attribute, uncertain, acknowledged_at
    <folder>/refused-<frame>.parquet           what was refused for good: see refusal_memory.py
    <folder>/<frame>.ledger                    a push that is running, or died: folded before anything else happens

A null attribute was never acknowledged, or its removal was. `uncertain` names attributes that a call may or may not
have written: they count as different from anything, so that the next run sends them again.
"""

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from connectors.tencent_push.ledger import LedgerContents, read_ledger
from connectors.tencent_push.protocol import AccountType, Command
from pipelines.engine import ROW_NUMBER, Engine
from pipelines.errors import ConfigurationError, DataFolderError
from pipelines.mapping import FRAME_COLUMNS
from pipelines.refusal_memory import refused_in, remembered
from pipelines.store import disk_errors, make_folder, whole_file

LAYOUT = 1
KEPT_HISTORY = 50

# Names that no attribute has, since the mapping reserves the prefix.
IS_SET, MAYBE_SET, IS_REMOVED, MAYBE_REMOVED = "__is_set", "__maybe_set", "__is_removed", "__maybe_removed"
KNOWN = "__known_"
_FLAGS = (IS_SET, MAYBE_SET, IS_REMOVED, MAYBE_REMOVED)
_OWN_COLUMNS = {"account", "uncertain", "acknowledged_at"}
_EFFECT_COLUMNS = {*FRAME_COLUMNS, ROW_NUMBER, *_FLAGS}


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose acknowledgements a folder holds. Another owner's never count."""

    host: str
    sdkappid: int
    sync: str
    account_type: AccountType


@dataclass(frozen=True, slots=True)
class Generation:
    """One state of what is acknowledged. `file` is None before anything was. `frames` tells which frame made which.

    `refused` is the memory of refusals that goes with it, if there is any.
    """

    number: int
    file: Path | None
    frames: tuple[tuple[int, str], ...] = ()
    lineage: str = ""
    refused: Path | None = None

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
    """The acknowledged attributes of one owner in `folder`."""

    def __init__(self, folder: Path, owner: Owner) -> None:
        self.folder = folder
        self.owner = owner

    def current(self) -> Generation:
        """Raises DataFolderError for a folder of another owner, another layout, or with its file gone."""
        path = self.folder / "state.json"
        if not path.exists():
            if any(self.folder.glob("generation-*.parquet")):
                raise DataFolderError(f"{path} is gone, but its data are there; restore it, or remove {self.folder}")
            return Generation(number=0, file=None)
        with disk_errors(path):
            content = path.read_bytes()
        return self._read_state(path, content)

    def ledger_file(self, frame: str) -> Path:
        """Where the push of `frame` keeps its ledger until it is folded."""
        make_folder(self.folder)
        return self.folder / f"{frame}.ledger"

    def leftover_ledgers(self) -> list[Path]:
        """Ledgers of pushes that died before they were folded, oldest first."""
        return sorted(self.folder.glob("*.ledger"), key=lambda path: path.stat().st_mtime)

    def table(self, engine: Engine) -> ir.Table | None:
        """The current generation as a table, or None before anything was acknowledged."""
        generation = self.current()
        if generation.file is None:
            return None
        return engine.parquet(f"acknowledged_{self.owner.account_type}", generation.file)

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
        effects = _effects(engine, contents, frame_file, name=f"effects_{self.owner.account_type}")
        counted = engine.rows(
            effects.aggregate(
                acknowledged=_is_complete(effects).sum().fill_null(0),
                any=(effects[IS_SET] | effects[IS_REMOVED]).sum().fill_null(0),
                uncertain=(effects[MAYBE_SET] | effects[MAYBE_REMOVED]).sum().fill_null(0),
            )
        )[0]
        if counted["any"] or counted["uncertain"]:
            self._write(engine, effects, self.current(), frame=str(contents.header["frame"]))
        self._remember(engine, contents, frame_file, effects=effects, changed=bool(counted["any"]))
        folded = Folded(
            generation=self.current(),
            acknowledged=int(counted["acknowledged"]),
            uncertain=int(counted["uncertain"]),
            unsettled_calls=contents.unsettled_calls,
        )
        return self._forget(ledger, folded)

    def _forget(self, ledger: Path, folded: Folded) -> Folded:
        with disk_errors(ledger):
            ledger.unlink()
        return folded

    def _write(self, engine: Engine, effects: ir.Table, before: Generation, *, frame: str) -> Generation:
        number = before.number + 1
        if before.file is None:
            before = replace(before, lineage=before.lineage or secrets.token_hex(8))
            self._write_state(before)  # so that an interruption before the first state is not taken for a lost one
        known = self.table(engine)
        file = self.folder / f"generation-{number:08d}.parquet"
        engine.write_parquet(_merged(effects, known, now=datetime.now(UTC)), file)
        frames = (*before.frames, (number, frame))[-KEPT_HISTORY:]
        after = replace(before, number=number, file=file, frames=frames)
        self._write_state(after)
        for old in self.folder.glob("generation-*.parquet"):
            if old != file:
                old.unlink(missing_ok=True)
        return after

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
            _answered(effects),
            rules=str(contents.header.get("rules", "")),
            now=datetime.now(UTC),
        )
        if memory is None:
            return
        file = self.folder / f"refused-{contents.header['frame']}.parquet"
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
            "file": generation.file.name if generation.file else None,
            "frames": generation.frames,
            "lineage": generation.lineage,
            "refused": generation.refused.name if generation.refused else None,
        }
        with whole_file(self.folder / "state.json") as beside:
            beside.write_text(json.dumps(state, indent=1), encoding="utf-8")

    def _read_state(self, path: Path, content: bytes) -> Generation:
        try:
            state = json.loads(content)
            layout = int(state["layout"])
            if layout != LAYOUT:
                raise DataFolderError(
                    f"{path} has layout {layout}, this program reads {LAYOUT}; use the program that wrote it"
                )
            owner = dict(state["owner"])
            frames = tuple((int(number), str(frame)) for number, frame in state["frames"])
            file = None if state["file"] is None else self.folder / str(state["file"])
            refused = None if state.get("refused") is None else self.folder / str(state["refused"])
            generation = Generation(int(state["generation"]), file, frames, str(state["lineage"]), refused)
        except (ValueError, KeyError, TypeError):
            raise DataFolderError(f"{path} is damaged; restore it, or remove {self.folder}") from None
        if owner != asdict(self.owner):
            raise DataFolderError(
                f"{path} belongs to {_shown(owner)}, not to {_shown(asdict(self.owner))}: what one target acknowledged "
                "never counts for another; point ATTRIBUTE_SYNC_DATA at this target's own folder, or remove this one"
            )
        if generation.file is not None and not generation.file.exists():
            raise DataFolderError(
                f"{generation.file} is gone; restore it, or remove {self.folder} to send everything again"
            )
        if generation.refused is not None and not generation.refused.exists():
            return replace(generation, refused=None)  # it only saves calls; what is not known is sent once more
        return generation


def _shown(owner: Mapping[str, object]) -> str:
    return f"sync {owner.get('sync')}, {owner.get('account_type')}, app {owner.get('sdkappid')} at {owner.get('host')}"


def _never_began(ledger: Path) -> bool:
    """Whether not even the header's line is whole; a ledger is read by whole lines only."""
    with disk_errors(ledger), ledger.open("rb") as file:
        return not file.readline().endswith(b"\n")


def _effects(engine: Engine, contents: LedgerContents, frame_file: Path, *, name: str) -> ir.Table:
    """The frame's rows that the ledger says something about, with what it says."""
    said = engine.numbered_parquet(f"{name}_frame", frame_file)
    numbers = (
        contents.acknowledged[Command.SET_ATTR],
        contents.uncertain[Command.SET_ATTR],
        contents.acknowledged[Command.REMOVE_ATTR],
        contents.uncertain[Command.REMOVE_ATTR],
    )
    for flag, column in zip(_FLAGS, numbers, strict=True):
        listed = engine.register(f"{name}{flag}", pa.table({f"{flag}_number": pa.array(column, pa.int64())}))
        said = said.left_join(listed, said[ROW_NUMBER] == listed[f"{flag}_number"])
    marked = said.mutate(**{flag: said[f"{flag}_number"].notnull() for flag in _FLAGS})
    return marked.filter(ibis.or_(*(marked[flag] for flag in _FLAGS))).drop(*(f"{flag}_number" for flag in _FLAGS))


def _answered(effects: ir.Table) -> ir.Table:
    """Account and command of every request that was acknowledged."""
    parts = [
        effects.filter(effects[flag]).select(account=effects.account, command=ibis.literal(command.value))
        for flag, command in ((IS_SET, Command.SET_ATTR), (IS_REMOVED, Command.REMOVE_ATTR))
    ]
    return ibis.union(*parts)


def _is_complete(effects: ir.Table) -> ir.BooleanValue:
    """Whether everything that the frame's row asked for was acknowledged."""
    is_set = (effects.changed.length() == 0) | effects[IS_SET]
    return is_set & ((effects.removed.length() == 0) | effects[IS_REMOVED])


def _merged(effects: ir.Table, known: ir.Table | None, *, now: datetime) -> ir.Table:
    """The new generation: the accounts of `effects` with what changed, and all others as they were."""
    named = [name for name in effects.columns if name not in _EFFECT_COLUMNS]
    names = [
        *named,
        *(name for name in (known.columns if known is not None else ()) if name not in _OWN_COLUMNS | {*named}),
    ]
    before = _before(effects, known, names)
    columns: dict[str, ir.Value] = {"account": before.account}
    for name in names:
        columns[name] = _after(before, name) if name in named else before[f"{KNOWN}{name}"]
    columns["uncertain"] = _uncertain_after(before)
    stamp = ibis.literal(now.replace(tzinfo=None)).cast("timestamp('UTC')")
    columns["acknowledged_at"] = ibis.ifelse(
        before[IS_SET] | before[IS_REMOVED], stamp, before[f"{KNOWN}acknowledged_at"]
    )
    touched = before.select([value.name(name) for name, value in columns.items()])
    if known is None:
        return touched
    others = known.anti_join(effects, known.account == effects.account)
    missing = {name: ibis.null(str) for name in names if name not in known.columns}
    return touched.union(others.mutate(**missing).select(*touched.columns))


def _before(effects: ir.Table, known: ir.Table | None, names: list[str]) -> ir.Table:
    """`effects` with `__known_<name>`: what was acknowledged before."""
    if known is None:
        kinds = {**dict.fromkeys(names, "string"), "uncertain": "array<string>", "acknowledged_at": "timestamp('UTC')"}
        return effects.mutate(**{f"{KNOWN}{name}": ibis.null(kind) for name, kind in kinds.items()})
    columns = {f"{KNOWN}{name}": known[name] if name in known.columns else ibis.null(str) for name in names}
    own = {f"{KNOWN}{name}": known[name] for name in _OWN_COLUMNS}
    rows = known.select(**columns, **own)
    return effects.left_join(rows, effects.account == rows[f"{KNOWN}account"])


def _after(before: ir.Table, name: str) -> ir.StringValue:
    return ibis.cases(
        (before[IS_SET] & before.changed.contains(name), before[name]),
        (before[IS_REMOVED] & before.removed.contains(name), ibis.null(str)),
        else_=before[f"{KNOWN}{name}"],
    )


def _uncertain_after(before: ir.Table) -> ir.ArrayValue:
    """Uncertain before and not settled since, or uncertain now."""
    nothing = ibis.literal([], type="array<string>")
    settled = ibis.ifelse(before[IS_SET], before.changed, nothing).concat(
        ibis.ifelse(before[IS_REMOVED], before.removed, nothing)
    )
    added = ibis.ifelse(before[MAYBE_SET] & ~before[IS_SET], before.changed, nothing).concat(
        ibis.ifelse(before[MAYBE_REMOVED] & ~before[IS_REMOVED], before.removed, nothing)
    )
    still = before[f"{KNOWN}uncertain"].fill_null(nothing).filter(lambda name: ~settled.contains(name))
    return still.concat(added).unique().sort()
