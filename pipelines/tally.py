"""What became of the changes of a push, counted from the files that it left, per account type."""

from dataclasses import dataclass

import ibis.expr.types as ir

from connectors.tencent_push.outcomes import OutcomeKind
from connectors.tencent_push.protocol import AccountType
from pipelines.engine import Engine

_WORST_FIRST = (OutcomeKind.REJECTED, OutcomeKind.ERRORED, OutcomeKind.NOT_ATTEMPTED)


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of one account type's changes. Conservation: the first is the sum of the others."""

    changed: int
    acknowledged: int
    rejected: int
    errored: int
    not_attempted: int

    @property
    def is_conserved(self) -> bool:
        return self.changed == self.acknowledged + self.rejected + self.errored + self.not_attempted


def tally_of(engine: Engine, refused: ir.Table, kind: AccountType, *, changed: int, acknowledged: int) -> Tally:
    """Every change in `refused` (refusals.REFUSAL_SCHEMA) counts once, in its worst outcome."""
    rank = {outcome.value: place for place, outcome in enumerate(_WORST_FIRST)}
    mine = refused.filter(refused.account_type == kind.value)
    ranked = mine.mutate(rank=mine.outcome.cases(*rank.items(), else_=len(rank)))
    worst = ranked.group_by("number").agg(rank=ranked["rank"].min())
    counted = {row["rank"]: int(row["rows"]) for row in engine.rows(worst.group_by("rank").agg(rows=worst.count()))}
    return Tally(
        changed=changed,
        acknowledged=acknowledged,
        rejected=counted.get(rank[OutcomeKind.REJECTED], 0),
        errored=counted.get(rank[OutcomeKind.ERRORED], 0),
        not_attempted=counted.get(rank[OutcomeKind.NOT_ATTEMPTED], 0),
    )
