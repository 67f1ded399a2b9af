"""What a call's result means for each of its rows, and what becomes of a change in the end.

`settle` is a pure function over the catalogue of errors.py: it decides, and the sink acts. Nothing here sends, waits,
counts attempts or writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from connectors.tencent_push.errors import Action, CatalogueEntry, Reason, lookup
from connectors.tencent_push.protocol import Command, Reply, RowError


@dataclass(frozen=True, slots=True)
class Change:
    """One row of a frame: what to set and to remove for one account. `number` is the row's, from 0.

    `alone`: it was the reason of a whole call's refusal before, so it is sent in a call of its own.
    """

    number: int
    account: str = field(repr=False)
    set: Mapping[str, str] = field(repr=False)
    remove: tuple[str, ...] = ()
    alone: bool = False


class OutcomeKind(StrEnum):
    """What became of a change that validation let through."""

    ACKNOWLEDGED = "acknowledged"
    REJECTED = "rejected"
    ERRORED = "errored"
    NOT_ATTEMPTED = "not_attempted"


# From bad to good: what was refused for good counts before what the next run may well get through.
_WORST_FIRST = (OutcomeKind.REJECTED, OutcomeKind.ERRORED, OutcomeKind.NOT_ATTEMPTED, OutcomeKind.ACKNOWLEDGED)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one command of a change was not acknowledged.

    `info` is Tencent's own text; it may quote an account or a value, so it belongs in failed rows and in no log.
    `maybe_written`: one of the calls may have stored the row, wholly or in part, although none acknowledged it.
    `batch_id` and `http_status` are those of the last call; all are None, and `call_attempts` 0, if there was none.
    `whole`: the last call was refused as one, by the reply's own code, and not row by row.
    """

    command: Command
    kind: OutcomeKind
    reason: Reason
    code: int | None
    info: str | None = field(repr=False)
    http_status: int | None
    batch_id: str | None
    call_attempts: int
    failed_at: datetime
    maybe_written: bool
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one change: the worst over its commands, with a refusal for each one not acknowledged."""

    change: Change
    kind: OutcomeKind
    refusals: tuple[Refusal, ...] = ()

    @classmethod
    def of(cls, change: Change, refusals: tuple[Refusal, ...]) -> "Outcome":
        return cls(change, worst(refusals), refusals)


def worst(refusals: tuple[Refusal, ...]) -> OutcomeKind:
    """`acknowledged` only where nothing was refused."""
    if not refusals:
        return OutcomeKind.ACKNOWLEDGED
    return min((refusal.kind for refusal in refusals), key=_WORST_FIRST.index)


@dataclass(frozen=True, slots=True)
class StopCause:
    """Why the run sends nothing more. `text` is for people and free of accounts and values."""

    code: int | None
    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class Cause:
    """Why one row of a call was not acknowledged, and what that leads to once its attempts are used up."""

    reason: Reason
    code: int | None
    http_status: int | None
    maybe_written: bool
    info: str | None = field(default=None, repr=False)
    split_levels: int | None = None  # of a call refused whole; None: until the row stands alone
    stops: StopCause | None = None  # set where a call's used-up attempts end the run, not its rows alone
    whole: bool = False  # the code stood on the call, not on the row
    narrows: bool = False  # it may be one row's doing: a call whose attempts are used up is halved while others pass


class CallAnswer(Protocol):
    """What `settle` reads of a call's result (client.CallResult has it)."""

    @property
    def reply(self) -> Reply | None: ...
    @property
    def fault(self) -> str | None: ...
    @property
    def http_status(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Settlement:
    """Every account of the call stands in exactly one of the first five fields.

    `resend`: sent again while attempts are left. `whole` tells that the call was refused as one, not row by row.
    `split`: sent again in halves. `errored`: given up at once, because the run stops.
    """

    acknowledged: tuple[str, ...] = ()
    rejected: Mapping[str, Cause] = field(default_factory=dict)
    errored: Mapping[str, Cause] = field(default_factory=dict)
    resend: Mapping[str, Cause] = field(default_factory=dict)
    split: Mapping[str, Cause] = field(default_factory=dict)
    whole: bool = False
    slow_down: bool = False
    renew_usersig: bool = False
    stop: StopCause | None = None

    @property
    def answered(self) -> bool:
        """The API decided about at least one row: it is there, and works."""
        return bool(self.acknowledged or self.rejected or self.split)


def settle(accounts: tuple[str, ...], answer: CallAnswer) -> Settlement:
    """What the result of a call with these distinct accounts means for each of them.

    Decided by ErrorCode and ErrorList, never by HTTP 200. An ErrorList that names an account which was not sent makes
    the whole reply unreadable: nothing of it counts, neither success nor refusal. Where it names one account twice,
    the more severe code counts; an entry with code 0 is no error.
    """
    if answer.reply is None:
        return _settle_fault(accounts, answer.fault, answer.http_status)
    if answer.reply.code != 0:
        return _settle_refused_call(accounts, answer.reply, answer.http_status)
    if not answer.reply.row_errors:
        return Settlement(acknowledged=accounts)
    return _settle_rows(accounts, answer.reply.row_errors, answer.http_status)


# client.Fault by value -> why, and whether the API may have carried the call out all the same.
FAULT_REASONS: Mapping[str, tuple[Reason, bool]] = {
    "connect_failed": (Reason.CONNECTION_FAILED, False),
    "timeout": (Reason.TIMEOUT, True),
    "broken_connection": (Reason.CONNECTION_FAILED, True),
    "unreadable_reply": (Reason.UNREADABLE_REPLY, True),
}
_UNREADABLE = FAULT_REASONS["unreadable_reply"]


def _settle_fault(accounts: tuple[str, ...], fault: str | None, http_status: int | None) -> Settlement:
    if fault == "http_status" and http_status is not None:
        return _settle_http_status(accounts, http_status)
    reason, maybe_written = FAULT_REASONS.get(str(fault), _UNREADABLE)
    return _resend_whole(accounts, Cause(reason, None, http_status, maybe_written))


def _settle_http_status(accounts: tuple[str, ...], status: int) -> Settlement:
    """The API answers 200 whatever it says (1047/34620), so any other status comes from something before it."""
    if status == 429:
        return _resend_whole(accounts, Cause(Reason.THROTTLED, None, status, maybe_written=False), slow_down=True)
    if status == 408:
        return _resend_whole(accounts, Cause(Reason.TIMEOUT, None, status, maybe_written=True))
    if status >= 500 or status < 300:
        return _resend_whole(accounts, Cause(Reason.UNREADABLE_REPLY, None, status, maybe_written=True))
    text = (
        f"A call was answered with HTTP {status}, which the API itself never does: "
        "check the base URL and any proxy on the way."
    )
    stop = StopCause(None, Reason.CALL_REFUSED, text)
    cause = Cause(Reason.CALL_REFUSED, None, status, maybe_written=False)
    return Settlement(errored=dict.fromkeys(accounts, cause), whole=True, stop=stop)


def _resend_whole(accounts: tuple[str, ...], cause: Cause, *, slow_down: bool = False) -> Settlement:
    return Settlement(resend=dict.fromkeys(accounts, cause), whole=True, slow_down=slow_down)


def _settle_refused_call(accounts: tuple[str, ...], reply: Reply, http_status: int | None) -> Settlement:
    """The call has a code of its own: whatever else the reply says, none of its rows is acknowledged."""
    entry = lookup(reply.code)
    cause = replace(
        _row_cause(entry, reply.info, http_status),
        split_levels=entry.split_levels,
        stops=stop_cause(entry) if entry.stops_when_exhausted else None,
        whole=True,
        narrows=entry.on_call is Action.RESEND and not entry.stops_when_exhausted,
    )
    rows = dict.fromkeys(accounts, cause)
    match entry.on_call:
        case Action.STOP:
            return Settlement(errored=rows, whole=True, stop=stop_cause(entry))
        case Action.REJECT:
            return Settlement(rejected=rows, whole=True)
        case Action.SPLIT if len(accounts) == 1 and cause.stops is None:
            return Settlement(rejected=rows, whole=True)
        case Action.SPLIT if len(accounts) == 1:
            return Settlement(errored=rows, whole=True, stop=cause.stops)
        case Action.SPLIT:
            return Settlement(split=rows, whole=True)
        case action:
            return Settlement(
                resend=rows,
                whole=True,
                slow_down=action is Action.SLOW_DOWN,
                renew_usersig=action is Action.RENEW_USERSIG,
            )


def _settle_rows(accounts: tuple[str, ...], errors: tuple[RowError, ...], http_status: int | None) -> Settlement:
    sent = frozenset(accounts)
    worst_by_account: dict[str, tuple[CatalogueEntry, str | None]] = {}
    for error in errors:
        if error.account not in sent:
            reason, maybe_written = _UNREADABLE
            return _resend_whole(accounts, Cause(reason, None, http_status, maybe_written))
        if error.code == 0:
            continue
        entry, known = lookup(error.code), worst_by_account.get(error.account)
        if known is None or _severity(entry) > _severity(known[0]):
            worst_by_account[error.account] = (entry, error.info)
    return _sort_rows(accounts, worst_by_account, http_status)


def _sort_rows(
    accounts: tuple[str, ...],
    worst_by_account: Mapping[str, tuple[CatalogueEntry, str | None]],
    http_status: int | None,
) -> Settlement:
    rejected: dict[str, Cause] = {}
    errored: dict[str, Cause] = {}
    resend: dict[str, Cause] = {}
    actions = set()
    stop: StopCause | None = None
    for account, (entry, info) in worst_by_account.items():
        cause = _row_cause(entry, info, http_status)
        actions.add(entry.on_row)
        match entry.on_row:
            case Action.STOP:
                errored[account] = cause
                stop = stop or stop_cause(entry)
            case Action.REJECT | Action.SPLIT:
                rejected[account] = cause
            case _:
                resend[account] = cause
    return Settlement(
        acknowledged=tuple(account for account in accounts if account not in worst_by_account),
        rejected=rejected,
        errored=errored,
        resend=resend,
        slow_down=Action.SLOW_DOWN in actions,
        stop=stop,
    )


_SEVERITY = (Action.RENEW_USERSIG, Action.RESEND, Action.SLOW_DOWN, Action.SPLIT, Action.REJECT, Action.STOP)


def _severity(entry: CatalogueEntry) -> int:
    return _SEVERITY.index(entry.on_row)


def _row_cause(entry: CatalogueEntry, info: str | None, http_status: int | None) -> Cause:
    return Cause(entry.reason, entry.code, http_status, entry.maybe_written, info=info)


def stop_cause(entry: CatalogueEntry) -> StopCause:
    """The code's meaning and remedy, without Tencent's own text."""
    return StopCause(entry.code, entry.reason, f"Code {entry.code}: {entry.meaning} {entry.fix}")
