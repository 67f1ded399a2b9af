"""Takes a sync's current profiles as acknowledged without sending anything, for an app that already holds them.

It goes the way of a push: a ledger in which every change of the frames is acknowledged, folded as any other. Whether
the app does hold them is not known here; verify.py reads it back.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.tencent_push.ledger import Ledger, Settled
from connectors.tencent_push.protocol import AccountType, Command
from pipelines.acknowledged import AcknowledgedAttributes
from pipelines.engine import Engine
from pipelines.errors import ConfigurationError, EngineError
from pipelines.frames import Frame
from pipelines.push import Push
from pipelines.push_result import FrameSet
from pipelines.store import whole_file

CHUNK_ROWS = 100_000  # of a frame, in one line of the ledger


@dataclass(frozen=True, slots=True)
class Adopted:
    """How many accounts were taken as acknowledged, by account type."""

    sync: str
    target: str
    accounts: dict[AccountType, int]

    @property
    def text(self) -> str:
        lines = [f"Adopted sync {self.sync}: nothing was sent to {self.target}"]
        lines += [f"  {kind:<16}{count:>12,}   accounts taken as acknowledged" for kind, count in self.accounts.items()]
        lines.append(f"  `python -m pipelines verify {self.sync}` reads back whether the app holds them")
        return "\n".join(lines)


def assumption_text(sync: str, target: str) -> str:
    """What whoever adopts should know first."""
    return (
        f"This takes the profiles of {sync}, as they are now, for what {target} already holds. It assumes that every "
        "account there has just these values: nothing is sent now, and what the app lacks is not sent until it changes "
        f"in the source. `python -m pipelines verify {sync}` reads it back afterwards."
    )


def require_nothing_acknowledged(push: Push) -> None:
    """Raise ConfigurationError when the sync has acknowledged attributes already."""
    known = [kind for kind in push.mapping.account_types() if push.acknowledged(kind).current().number]
    if known:
        raise ConfigurationError(
            f"sync {push.sync} has acknowledged {', '.join(known)} attributes at {push.target.title} already, so it "
            "needs no adoption: a run sends what differs. To take what differs as acknowledged instead, adopt with "
            "--again (in Dagster's own page: `again: true` in the config)"
        )


def adopt(push: Push, engine: Engine, frames: FrameSet) -> Adopted:
    """For the holder of the app's lock. Cut off before the ledgers have their names, it has adopted nothing; after
    that, the next run takes over the rest.
    """
    for frame in frames.frames:
        if not frame.counts.is_conserved or frame.rows != frame.chosen_rows or frame.rows != frame.accounts:
            raise EngineError(f"the {frame.account_type} frame does not add up ({frame.counts}); nothing was adopted")
    states = {frame.account_type: push.acknowledged(frame.account_type) for frame in frames.frames}
    with ExitStack() as named_together:
        for frame in frames.frames:
            beside = named_together.enter_context(whole_file(states[frame.account_type].ledger_file(frames.run_id)))
            _write_ledger(beside, push, frames, frame)
    for frame in frames.frames:
        _publish(states[frame.account_type], push, frame, ledger=states[frame.account_type].ledger_file(frames.run_id))
    accounts = {}
    for kind, state in states.items():
        accounts[kind] = state.fold(engine, state.ledger_file(frames.run_id), root=push.store.root).acknowledged
        _note(state, frames.run_id, accounts[kind])
        push.store.publish(_note_file(state))
    return Adopted(push.sync, push.target.title, accounts)


def _publish(state: AcknowledgedAttributes, push: Push, frame: Frame, *, ledger: Path) -> None:
    """Where the data folder is in object storage: what a next run needs to take over the rest."""
    if state.remote is not None:
        push.store.publish(frame.path)
        state.remote.publish_ledger(ledger)


def adopted_at(state: AcknowledgedAttributes) -> str | None:
    """When the state was last adopted, as text; None when it never was."""
    try:
        noted: dict[str, Any] = json.loads(_note_file(state).read_bytes())
        return str(noted["adopted_at"])
    except (OSError, ValueError, KeyError):
        return None


def _write_ledger(path: Path, push: Push, frames: FrameSet, frame: Frame) -> None:
    header = {
        "frame": frames.run_id,
        "frame_file": str(frame.path.relative_to(push.store.root)),
        "rules": frames.rules[frame.account_type],
        "adopted": True,
    }
    with closing(Ledger.open(path, header)) as ledger:
        for command, numbers in _requests(frame):
            ledger.record(settled=[Settled(ledger.next_batch_id(), command, numbers)])


def _requests(frame: Frame) -> Iterator[tuple[Command, list[int]]]:
    """Numbers of the frame's rows that ask something of the command, a chunk at a time.

    Not of departed accounts: no profile says anything about them, so that what the app has of them stays to be removed.
    """
    first = 0
    with pq.ParquetFile(frame.path) as file:
        for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=["changed", "removed", "source_file"]):
            has_profile = pc.is_valid(batch["source_file"]).to_numpy(zero_copy_only=False)
            for command, column in ((Command.SET_ATTR, "changed"), (Command.REMOVE_ATTR, "removed")):
                lengths = pc.list_value_length(batch[column]).to_numpy(zero_copy_only=False)
                asked = np.flatnonzero(lengths * has_profile) + first
                if asked.size:
                    yield command, asked.tolist()
            first += batch.num_rows


def _note(state: AcknowledgedAttributes, run_id: str, accounts: int) -> None:
    """Beside the state, so that it goes with it."""
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    with whole_file(_note_file(state)) as beside:
        beside.write_text(
            json.dumps({"run_id": run_id, "adopted_at": moment, "accounts": accounts}, indent=1), encoding="utf-8"
        )


def _note_file(state: AcknowledgedAttributes) -> Path:
    return state.folder / "adopted.json"
