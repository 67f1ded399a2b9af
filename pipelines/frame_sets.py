"""Profiles -> the frames of one run, compared with what the target acknowledged; for a night, a plan and an adoption.

Joins the app's declared attributes, the acknowledged attributes and frames.py; nothing is sent, folded or pruned here.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from connectors.profiles.parquet import Manifest, check_unchanged
from connectors.tencent_push.protocol import AccountType
from pipelines.engine import Engine
from pipelines.errors import EngineError
from pipelines.extraction import explained
from pipelines.frames import compute_frames
from pipelines.guards import count_failed_profiles
from pipelines.merged_values import count_merged_values
from pipelines.preflight import check_declared
from pipelines.push import Push
from pipelines.push_result import FrameSet
from pipelines.reasons import Reason
from pipelines.refusal_memory import rules_of

Declared = Mapping[str, AccountType]


@contextmanager
def opened_engine(push: Push) -> Iterator[Engine]:
    """An engine in a temporary folder of the run's own."""
    with push.store.temporary(push.run_id) as folder, Engine(folder, memory_limit=push.memory_limit) as engine:
        yield engine


def declared_attributes(push: Push, *, yaml_file: Path) -> Declared:
    """What the app has declared, by one reading call. Raises ConfigurationError where it does not fit the YAML."""
    push.require_emulator()
    with push.target.open(push.store.emulator_file(push.sync), push.mapping.declared()) as client:
        declared = client.get_attr_name()
    check_declared(push.mapping, declared, yaml_file=yaml_file)
    return declared


def compute_frame_set(
    engine: Engine, push: Push, manifest: Manifest, *, declared: Declared, folder: Path, learns: bool = False
) -> FrameSet:
    """The frames in `folder`, compared with what is acknowledged at this moment.

    `learns`: the digests of profiles that were found settled the long way are kept, so that the next run passes over
    them. It is for runs that hold the app; what is acknowledged stays as it is.
    """
    kinds = push.mapping.account_types()
    states = {kind: push.acknowledged(kind) for kind in kinds}
    generations = {kind: state.current() for kind, state in states.items()}
    known = {kind: state.table(engine) for kind, state in states.items()}
    for kind, state in states.items():
        state.require_same_case(kinds[kind].attributes, known[kind])
    check_unchanged(manifest)
    try:
        computed = compute_frames(
            engine,
            manifest,
            mapping=push.mapping,
            acknowledged=known,
            folder=folder,
            metadata={"sync": push.sync, "run_id": push.run_id, "target": push.target.name},
        )
    except EngineError as error:
        raise explained(manifest) or error from None
    check_unchanged(manifest)
    if learns:
        with push.locked():
            for kind, state in states.items():
                state.learn(engine, computed.learned[kind], since=generations[kind])
    is_any_cut = Reason.VALUE_TRUNCATED.value in computed.invalid_by_reason
    return FrameSet(
        run_id=push.run_id,
        target=push.target.name,
        computed_at=datetime.now(UTC),
        frames=computed.frames,
        invalid_rows=computed.invalid_rows,
        invalid_by_reason=computed.invalid_by_reason,
        invalid_found=computed.invalid_found,
        generations=generations,
        rules={kind: rules_of(mine, declared) for kind, mine in kinds.items()},
        failed_profiles=count_failed_profiles(engine, computed.invalid_rows, kinds),
        merged_values=count_merged_values(engine, computed.invalid_rows) if is_any_cut else {},
    )
