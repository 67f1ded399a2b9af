"""Our own steps, each in a process of its own: `python -m tests.benchmarks.transform.steps <task as JSON>`.

They go the ways that assets and commands go: frames by `compute_frame_set`, a state by `adopt`.
"""

import pickle
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial

import duckdb

from connectors.profiles.parquet import Manifest, read_manifest
from pipelines.adopt import adopt
from pipelines.engine import file_list, identifier
from pipelines.frame_sets import compute_frame_set, declared_attributes, opened_engine
from pipelines.mapping import mapping_from
from pipelines.push import Push
from pipelines.push_result import FrameSet
from pipelines.resources import DATA, MEMORY, environment_from
from tests.benchmarks.transform.inputs import SYNC
from tests.benchmarks.transform.task import Meter, Task
from tests.running import EXAMPLE, example_attributes

BATCH_ROWS = 100_000
_FRAMES = "frames.pickle"  # what Dagster hands from step to step, it pickles too


def main() -> None:
    task = Task.from_command_line()
    STEPS[task.step](task)


def decode(task: Task) -> None:
    """Every value is hashed inside the engine, and the hashes become one."""
    push = _push(task)
    manifest = _manifest(task, push)
    meter = Meter()
    with opened_engine(push) as engine:
        parts = ", ".join(
            f"bit_xor(hash({identifier(column)})) AS {identifier(column)}" for column in push.mapping.columns()
        )
        engine.rows(engine.define("decoded", f"SELECT {parts} FROM {_files(manifest)}"))
    meter.tell()


def stream(task: Task) -> None:
    """Every value crosses from the engine to Arrow, a batch at a time, and is dropped there."""
    push = _push(task)
    manifest = _manifest(task, push)
    columns = ", ".join(identifier(column) for column in push.mapping.columns())
    meter = Meter()
    # The engine has no way to hand out a stream, since nothing needs one; this is the same with the same limit.
    with push.store.temporary(push.run_id) as folder, duckdb.connect(str(folder / "engine.duckdb")) as connection:
        connection.execute(f"SET memory_limit = '{push.memory_limit}'")
        connection.execute(f"SET temp_directory = '{folder / 'spill'}'")
        connection.execute("SET enable_progress_bar = false")
        batches = connection.sql(f"SELECT {columns} FROM {_files(manifest)}").to_arrow_reader(BATCH_ROWS)
        rows = sum(batch.num_rows for batch in batches)
    meter.tell()
    if rows != manifest.rows:
        raise RuntimeError(f"{rows} of {manifest.rows} rows came out")


def frames(task: Task, *, settings: Mapping[str, str] | None = None, is_handed_on: bool = False) -> None:
    """As the step of a nightly run does it: what turned out to be settled is learned."""
    push = _push(task, settings)
    manifest = _manifest(task, push)
    declared = declared_attributes(push, yaml_file=EXAMPLE)
    meter = Meter()
    with opened_engine(push) as engine:
        folder = push.store.frames(SYNC, push.run_id)
        found = compute_frame_set(engine, push, manifest, declared=declared, folder=folder, learns=True)
    changes = {frame.account_type.value: frame.counts.changed for frame in found.frames}
    meter.tell(changes, invalid_rows=sum(found.invalid_by_reason.values()))
    if is_handed_on:
        task.folder.with_name(_FRAMES).write_bytes(pickle.dumps(found))


def fold(task: Task) -> None:
    """A ledger in which every change is acknowledged, and the ledger folded."""
    push = _push(task)
    found: FrameSet = pickle.loads(task.folder.with_name(_FRAMES).read_bytes())  # noqa: S301  our own, of a minute ago
    meter = Meter()
    with push.locked(), opened_engine(push) as engine:
        adopted = adopt(push, engine, found)
    meter.tell({kind.value: accounts for kind, accounts in adopted.accounts.items()})


STEPS: Mapping[str, Callable[[Task], None]] = {
    "decode": decode,
    "stream": stream,
    "first": partial(frames, is_handed_on=True),
    "fold": fold,
    "night": frames,
    "all": partial(frames, settings={"frames": "all"}),
}


def _push(task: Task, settings: Mapping[str, str] | None = None) -> Push:
    """Of the example's mapping over the task's source, against the emulator, in the project's data folder."""
    attributes = {**example_attributes(str(task.source / "*.parquet")), **(settings or {})}
    environment = environment_from({DATA: str(task.folder), MEMORY: task.memory_limit})
    return Push(
        store=environment.store,
        target=environment.target,
        memory_limit=environment.memory_limit,
        sync=SYNC,
        mapping=mapping_from(attributes),
        run_id=task.step,
        run_started_at=datetime.now(UTC),
        report=lambda _: None,
    )


def _manifest(task: Task, push: Push) -> Manifest:
    return read_manifest([str(file) for file in task.files], columns=push.mapping.columns(), base=task.folder)


def _files(manifest: Manifest) -> str:
    return f"read_parquet({file_list([file.path for file in manifest.files])}, hive_partitioning = false)"


if __name__ == "__main__":
    main()
