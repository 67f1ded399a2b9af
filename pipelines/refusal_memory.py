"""What was refused for good, remembered, so that the same request is not sent, refused and halved again every night.

A memory is a table with one row per account and command (`MEMORY`); where it is kept stands in acknowledged.py. Only
expressions here: what to remember after a push, and which rows of a new frame it is about.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from connectors.tencent_push.errors import CATALOGUE, lookup
from connectors.tencent_push.ledger import LedgerContents
from connectors.tencent_push.protocol import AccountType, Command
from pipelines.engine import ROW_NUMBER, Engine
from pipelines.mapping import FRAME_COLUMNS, RESERVED_PREFIX, AccountMapping

Numbers = npt.NDArray[np.int64]

# request: digest of what the call asked for; alone: the whole call was refused for it; rules: under which it was
MEMORY = ("account", "command", "request", "code", "alone", "rules", "refused_at")
_SAME = ("account", "command", "code")
_UNIT, _RECORD = "\x1f", "\x1e"  # no name and no value holds a control character
REMEMBERED = timedelta(days=7)  # then it is sent once more: what was wrong may have been the app and not the row
FEW_ROWS = 100  # refused with one code; more than these, and than a hundredth of what was taken, are no odd rows
_FINAL_CODES = sorted(code for code, entry in CATALOGUE.items() if not entry.retryable)


def _no_numbers() -> Numbers:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Withheld:
    """Rows of a frame, by their numbers, that a memory is about.

    `refused`: the very request was refused, and nothing that could help has changed, so it is not sent. `alone`: it is
    sent, in a call of its own, since a whole call was refused for it.
    """

    refused: Mapping[Command, Numbers] = field(default_factory=dict)
    alone: Numbers = field(default_factory=_no_numbers)

    def of(self, command: Command) -> Numbers:
        return self.refused.get(command, _no_numbers())

    @property
    def requests(self) -> int:
        return sum(len(numbers) for numbers in self.refused.values())


def rules_of(mapping: AccountMapping, declared: Mapping[str, AccountType]) -> str:
    """A digest of what else than its values decides whether a row is refused: the mapping, the app's attributes."""
    facts = {"mapping": mapping.model_dump(mode="json"), "declared": dict(sorted(declared.items()))}
    return hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def are_odd_rows(refused: int, *, acknowledged: int) -> bool:
    """Whether so few were refused with one code, beside what was acknowledged, that the fault is theirs.

    Otherwise it is the app's (a setting, an attribute that it has yet to take note of), and none of them is withheld.
    """
    return refused <= max(min(FEW_ROWS, acknowledged), acknowledged // 100)


def is_worth_remembering(code: int, *, whole: bool) -> bool:
    """A row that may succeed unchanged is tried every night; it costs nothing extra, unless it fails its whole call."""
    return whole or not lookup(code).retryable


def refused_in(engine: Engine, contents: LedgerContents, rows: ir.Table, *, name: str) -> ir.Table | None:
    """Account, command, request, code, alone and `odd` of what a ledger over the frame `rows` says was refused.

    Not `odd` are the rows of a code that too many were refused with.
    """
    taken = sum(len(numbers) for numbers in contents.acknowledged.values())
    refused_rows = _rows_by_code(contents)
    parts = [
        pa.table(
            {
                "__number": pa.array(numbers, pa.int64()),
                "__command": pa.array([command.value] * len(numbers), pa.string()),
                "__code": pa.array([code] * len(numbers), pa.int32()),
                "__alone": pa.array([whole] * len(numbers), pa.bool_()),
                "__odd": pa.array([are_odd_rows(refused_rows[code], acknowledged=taken)] * len(numbers), pa.bool_()),
            }
        )
        for command, by_code in contents.refused.items()
        for (code, whole), numbers in by_code.items()
        if len(numbers) and is_worth_remembering(code, whole=whole)
    ]
    if not parts:
        return None
    listed = engine.register(name, pa.concat_tables(parts))
    joined = rows.inner_join(listed, rows[ROW_NUMBER] == listed["__number"])
    is_set = joined["__command"] == Command.SET_ATTR.value
    found = joined.select(
        account=joined.account,
        command=joined["__command"],
        request=ibis.ifelse(is_set, _request(joined, Command.SET_ATTR), _request(joined, Command.REMOVE_ATTR)),
        code=joined["__code"],
        alone=joined["__alone"],
        odd=joined["__odd"],
    )
    return engine.materialize(f"{name}_rows", found)


def _rows_by_code(contents: LedgerContents) -> Counter[int]:
    rows: Counter[int] = Counter()
    for by_code in contents.refused.values():
        for (code, _), numbers in by_code.items():
            rows[code] += len(numbers)
    return rows


def remembered(
    before: ir.Table | None, refused: ir.Table | None, answered: ir.Table, *, rules: str, now: datetime
) -> ir.Table | None:
    """The memory after a push: `before` without what was `answered` (account, command) anew, and what was refused.

    What is not odd gets no rules, so that it is never withheld, unless the account was refused with that code before.
    """
    parts = []
    if refused is not None:
        known = ibis.literal(False)
        if before is not None:
            same = before.select(*(before[name].name(f"before_{name}") for name in _SAME)).distinct()
            refused = refused.left_join(same, [refused[name] == same[f"before_{name}"] for name in _SAME])
            known = refused.before_account.notnull()
        under = ibis.ifelse(refused.odd | known, rules, "")
        moment = ibis.literal(now.replace(tzinfo=None)).cast("timestamp('UTC', 6)")
        parts.append(refused.mutate(rules=under, refused_at=moment).select(*MEMORY))
    if before is not None:
        kept = before.anti_join(answered, ["account", "command"])
        if refused is not None:
            kept = kept.anti_join(refused.select("account", "command"), ["account", "command"])
        parts.append(kept.select(*MEMORY))
    return ibis.union(*parts) if parts else None


def withheld_rows(rows: ir.Table, memory: ir.Table, *, rules: str, now: datetime) -> ir.Table:
    """Number, command and code of the frame's requests that need not be sent: refused of late, and nothing changed."""
    since = ibis.literal((now - REMEMBERED).replace(tzinfo=None)).cast("timestamp('UTC', 6)")
    parts = []
    for command in (Command.SET_ATTR, Command.REMOVE_ATTR):
        same = _same_requests(rows, memory, command)
        final = same.filter((same.rules == rules) & same.code.isin(_FINAL_CODES) & (same.refused_at > since))
        parts.append(final.select(number=final[ROW_NUMBER], command=final.command, code=final.code))
    return ibis.union(*parts)


def lonely_rows(rows: ir.Table, memory: ir.Table) -> ir.Table:
    """Numbers of the frame's rows for whose account a whole call was refused, whatever they ask for now.

    If the account is well by now that costs one call; if it is not, its hundred neighbours are spared their halvings.
    """
    parts = []
    for command in (Command.SET_ATTR, Command.REMOVE_ATTR):
        asked = rows.filter(_names(rows, command).length() > 0).select(ROW_NUMBER, asked_by=rows.account)
        mine = memory.filter((memory.command == command.value) & memory.alone).select("account")
        joined = asked.inner_join(mine, asked.asked_by == mine.account)
        parts.append(joined.select(number=joined[ROW_NUMBER]))
    return ibis.union(*parts, distinct=True)


def _same_requests(rows: ir.Table, memory: ir.Table, command: Command) -> ir.Table:
    asked = rows.filter(_names(rows, command).length() > 0)
    asked = asked.select(ROW_NUMBER, asked_by=asked.account, asked=_request(asked, command))
    mine = memory.filter(memory.command == command.value)
    return asked.inner_join(mine, (asked.asked_by == mine.account) & (asked.asked == mine.request))


def _names(rows: ir.Table, command: Command) -> ir.ArrayValue:
    return rows.changed if command is Command.SET_ATTR else rows.removed


def _request(rows: ir.Table, command: Command) -> ir.StringValue:
    """A digest of what the row asks of `command`: the same in every run, however the mapping orders its attributes."""
    if command is Command.REMOVE_ATTR:
        # Where no attribute may be removed, the engine does not know what the empty lists would hold.
        return rows.removed.cast("array<string>").sort().join(_RECORD).hexdigest("md5")
    text = ibis.literal("")
    for name in sorted(_attributes(rows)):
        asked = ibis.literal(name + _UNIT) + rows[name] + _RECORD
        text = text + ibis.ifelse(rows.changed.contains(name), asked, "")
    return text.hexdigest("md5")


def _attributes(rows: ir.Table) -> list[str]:
    return [name for name in rows.columns if name not in FRAME_COLUMNS and not name.startswith(RESERVED_PREFIX)]
