"""What a push is given, and what came of it: the frames of one run, and every number that its files left.

Plain values, handed from step to step; nothing here sends or reads anything.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from connectors.tencent_push.outcomes import StopCause
from connectors.tencent_push.protocol import AccountType
from connectors.tencent_push.report import SinkReport
from pipelines.acknowledged import Generation
from pipelines.cancellation import Cancellation
from pipelines.changes import PlannedCalls
from pipelines.frames import Frame
from pipelines.tally import Tally


@dataclass(frozen=True, slots=True)
class FrameSet:
    """The frames of one run, as they are handed from the step that computed them to the step that pushes them.

    `rules` is a digest, per account type, of what else than its values decides whether a row is refused.
    `failed_profiles` are those in which validation found an error, `merged_values` per attribute the texts that stand
    for several values since these were cut.
    """

    run_id: str
    target: str
    computed_at: datetime
    frames: tuple[Frame, ...]
    invalid_rows: Path
    invalid_by_reason: Mapping[str, int]
    invalid_found: int
    generations: Mapping[AccountType, Generation]
    rules: Mapping[AccountType, str]
    unsettled_calls: int = 0  # of pushes that were cut off, taken over before the frames were computed
    failed_profiles: Mapping[AccountType, int] = field(default_factory=dict)
    merged_values: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class PushResult:
    """All of one push, counted from the files that it left. `stop` says why it ended early, if it did.

    `withheld` counts requests that were not sent since the very same was refused before; they are among the rejected.
    `planned` is what the frames let expect before the first call.
    """

    frames: FrameSet
    tallies: dict[AccountType, Tally] = field(default_factory=dict)
    reports: dict[AccountType, SinkReport] = field(default_factory=dict)
    planned: dict[AccountType, PlannedCalls] = field(default_factory=dict)
    passed_over: dict[AccountType, int] = field(default_factory=dict)
    withheld: dict[AccountType, int] = field(default_factory=dict)
    unsettled_calls: int = 0
    failed_rows: Path = Path()
    failed_row_count: int = 0
    invalid_row_count: int = 0
    refusal_count: int = 0
    push_calls: Path = Path()
    push_call_count: int = 0
    stop: StopCause | None = None
    cancellation: Cancellation = field(default_factory=Cancellation)

    @property
    def is_conserved(self) -> bool:
        """Whether every change has its outcome, and every failed row reached the file."""
        whole = self.failed_row_count == self.invalid_row_count + self.refusal_count
        return whole and all(tally.is_conserved for tally in self.tallies.values())

    def tally_counts(self) -> dict[str, int]:
        """Every number of the tallies by a name of its own, for metadata."""
        return {
            f"{kind}_{name}": count for kind, tally in self.tallies.items() for name, count in asdict(tally).items()
        }
