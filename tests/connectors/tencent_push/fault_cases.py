"""The fault matrix's ground: a real client, sink and ledger against a loopback server, and what each row came to.

The cases themselves and what they must come to stand in test_fault_matrix.py; nothing here asserts.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from connectors.tencent_push.client import CallResult, Client, Credentials, Fault, RequestsTransport
from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, Emulator, RefuseCall
from connectors.tencent_push.emulator.faults import Fault as EmulatorFault
from connectors.tencent_push.errors import Reason
from connectors.tencent_push.ledger import Ledger, LedgerContents, read_ledger
from connectors.tencent_push.outcomes import Change, Outcome, OutcomeKind, Refusal
from connectors.tencent_push.pacing import Backoff, Quota
from connectors.tencent_push.protocol import AccountType, Command
from connectors.tencent_push.report import PushCall, SinkReport
from connectors.tencent_push.sink import Sink, SinkSettings

SET = Command.SET_ATTR
# Different ones, so that a case tells which of them were used up.
ATTEMPTS, THROTTLED_ATTEMPTS, NARROWED_ATTEMPTS = 3, 4, 2


def _quick(attempts: int) -> Backoff:
    return Backoff(attempts=attempts, first_seconds=0.001)


SETTINGS = SinkSettings(
    max_in_flight=1,
    backoff=_quick(ATTEMPTS),
    throttled_backoff=_quick(THROTTLED_ATTEMPTS),
    narrowed_backoff=_quick(NARROWED_ATTEMPTS),
)
CREDENTIALS = Credentials(
    EMULATOR_CREDENTIALS.sdkappid, EMULATOR_CREDENTIALS.identifier, EMULATOR_CREDENTIALS.secret_key
)

ROWS = 250  # three calls: 100, 100 and 50 rows
FIRST, SECOND, THIRD, ALL = range(100), range(100, 200), range(200, 250), range(ROWS)


@dataclass(frozen=True, slots=True)
class Row:
    """What one row must end as; `calls` is the number of calls that it was in."""

    kind: OutcomeKind
    reason: Reason
    code: int | None = None
    http_status: int | None = None
    calls: int = ATTEMPTS
    maybe_written: bool = False

    @classmethod
    def of(cls, refusal: Refusal) -> "Row":
        return cls(
            refusal.kind,
            refusal.reason,
            refusal.code,
            refusal.http_status,
            refusal.call_attempts,
            refusal.maybe_written,
        )


NOT_ATTEMPTED = Row(OutcomeKind.NOT_ATTEMPTED, Reason.RUN_STOPPED, calls=0)


def errored(
    reason: Reason, code: int | None = None, *, status: int | None = 200, calls: int = ATTEMPTS, maybe: bool = False
) -> Row:
    return Row(OutcomeKind.ERRORED, reason, code, status, calls, maybe)


def rejected(reason: Reason, code: int, *, calls: int = 1, maybe: bool = False) -> Row:
    return Row(OutcomeKind.REJECTED, reason, code, 200, calls, maybe)


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault with the conditions under which the emulator lets it happen: `times` None is for ever."""

    fault: EmulatorFault
    times: int | None = 1
    skip: int = 0
    accounts: tuple[str, ...] | None = None
    only_above: int = 0  # accounts in the call


@dataclass(frozen=True, slots=True)
class Case:
    """One fault and what it must come to. `rows`: those that do not end acknowledged.

    `fault`, `call_code`, `row_code`: what the client must really have met. `stored`: rows that the emulator holds
    although they are not acknowledged. `stop`: the code and reason that the run stopped for.
    """

    name: str
    plan: tuple[Planned, ...]
    calls: int
    rows: Mapping[Sequence[int], Row] = field(default_factory=dict)
    fault: Fault | None = None
    call_code: int | None = None
    row_code: int | None = None
    stored: Sequence[int] = ()
    stop: tuple[int | None, Reason] | None = None
    slowed: bool = False
    resent_rows: int | None = None
    read_timeout_seconds: float = 10.0
    size: int = ROWS
    left_alone: frozenset[int] = frozenset()  # rows found by narrowing a call down to them
    in_turn: bool = False  # the number of calls depends on which batch is the last
    settings: SinkSettings = SETTINGS

    @property
    def parallel(self) -> bool:
        """Whether the same holds with several calls in flight; a stop finds others under way then."""
        return self.stop is None and not self.in_turn

    def by_row(self) -> dict[int, Row]:
        return {number: row for numbers, row in self.rows.items() for number in numbers}

    def rejected(self) -> dict[tuple[int, bool], list[int]]:
        """The rows refused for good, and those that a narrowed call left alone, by code and whether it stood on the
        whole call: what the next night must know.
        """
        refused: dict[tuple[int, bool], list[int]] = {}
        for number, row in sorted(self.by_row().items()):
            if row.code is not None and (row.kind is OutcomeKind.REJECTED or number in self.left_alone):
                refused.setdefault((row.code, self.call_code is not None), []).append(number)
        return refused


class WatchedClient(Client):
    """The real client, with a record of what became of its calls."""

    def __init__(self, base_url: str, *, transport: RequestsTransport | None = None, **options: Any) -> None:
        super().__init__(base_url=base_url, credentials=CREDENTIALS, transport=transport, **options)
        self.results: list[CallResult] = []
        self.renewals = 0
        self.on_result: Callable[[CallResult], None] = lambda result: None

    def call(self, command: Command, body: bytes) -> CallResult:
        result = super().call(command, body)
        self.results.append(result)
        self.on_result(result)
        return result

    def renew_usersig(self) -> None:
        self.renewals += 1
        super().renew_usersig()

    def ended(self) -> Counter[tuple[Fault | None, int | None, int | None]]:
        """Fault, code and HTTP status of the calls."""
        results = [(result, result.reply) for result in self.results]
        return Counter((result.fault, reply.code if reply else None, result.http_status) for result, reply in results)

    def met(self) -> set[Fault | int]:
        """Every fault, and every code of a whole call."""
        faults: set[Fault | int] = {result.fault for result in self.results if result.fault}
        return faults | {result.reply.code for result in self.results if result.reply and result.reply.code}

    def met_rows(self) -> set[int]:
        """Every code of a row."""
        replies = [result.reply for result in self.results if result.reply]
        return {error.code for reply in replies for error in reply.row_errors}


@dataclass(frozen=True, slots=True)
class Pushed:
    """A push that has ended."""

    outcomes: list[Outcome]
    report: SinkReport
    ledger: LedgerContents
    calls: list[PushCall]

    def refused(self) -> dict[int, Row]:
        """The rows that are not acknowledged; these changes have one command, so at most one refusal."""
        return {outcome.change.number: Row.of(outcome.refusals[0]) for outcome in self.outcomes if outcome.refusals}

    def numbers(self, kind: OutcomeKind) -> list[int]:
        return sorted(outcome.change.number for outcome in self.outcomes if outcome.kind is kind)

    @property
    def refused_on_record(self) -> dict[tuple[int, bool], list[int]]:
        return {cause: [int(number) for number in numbers] for cause, numbers in self.ledger.refused[SET].items()}

    @property
    def acknowledged_on_record(self) -> list[int]:
        return [int(number) for number in self.ledger.acknowledged[SET]]

    @property
    def uncertain_on_record(self) -> list[int]:
        return [int(number) for number in self.ledger.uncertain[SET]]


def account(number: int) -> str:
    return f"user-{number:05}"


def changes_of(numbers: Iterable[int]) -> list[Change]:
    return [Change(number, account(number), {"city": f"c{number}"}) for number in numbers]


def push(
    client: Client,
    ledger_file: Path,
    changes: Iterable[Change],
    *,
    settings: SinkSettings = SETTINGS,
    on_outcomes: Callable[[list[Outcome]], None] = lambda outcomes: None,
    calls_per_second: float = 1000,
) -> Pushed:
    """Without chance: rows to be sent again are due at once, in the order in which they failed."""
    outcomes: list[Outcome] = []
    calls: list[PushCall] = []
    quota = Quota(calls_per_second)
    with (
        closing(Ledger.open(ledger_file, {"frame": "matrix"})) as ledger,
        Sink(client, ledger, quota=quota, settings=settings, chance=lambda: 0.0, on_call=calls.append) as sink,
    ):
        for settled in sink.push(changes):
            outcomes += settled
            on_outcomes(settled)
    return Pushed(outcomes, sink.report, read_ledger(ledger_file), calls)


def plan(emulator: Emulator, planned: Planned) -> None:
    emulator.faults.add(
        planned.fault,
        accounts=planned.accounts,
        when=lambda call: len(call.accounts) > planned.only_above,
        skip=planned.skip,
        times=planned.times,
    )


def declare(emulator: Emulator) -> None:
    emulator.declare({"city": AccountType.USER_ID})


def stored_numbers(emulator: Emulator) -> list[int]:
    """The rows whose value the emulator holds; -1 for anything that no row asked for."""
    return [
        int(name.removeprefix("user-")) if attributes == {"city": f"c{int(name.removeprefix('user-'))}"} else -1
        for name, attributes in emulator.attributes()
    ]


def once(name: str, planned_fault: EmulatorFault, **case: Any) -> Case:
    """The fault befalls the first call only: it costs that call, and nothing else."""
    given = {"calls": 4, "resent_rows": 100, **case}
    return Case(f"{name}, once", (Planned(planned_fault),), **given)


def always(name: str, planned_fault: EmulatorFault, row: Row, **case: Any) -> Case:
    """The fault befalls every call: all rows end as `row`, after all attempts."""
    given = {"calls": 3 * row.calls, "rows": {ALL: row}, **case}
    return Case(f"{name}, always", (Planned(planned_fault, times=None),), **given)


def refuse_calls_with(code: int, numbers: Iterable[int]) -> Planned:
    """Every call that holds one of these rows is refused as a whole."""
    return Planned(RefuseCall(code), times=None, accounts=tuple(account(number) for number in numbers))


def halving_calls(size: int, poison: frozenset[int], *, first: int = 0) -> int:
    """Calls for `size` rows from `first` when each refused call is halved until its poison rows stand alone."""
    if size == 1 or not any(first <= number < first + size for number in poison):
        return 1
    half = size // 2
    return 1 + halving_calls(half, poison, first=first) + halving_calls(size - half, poison, first=first + half)


def halving_calls_of(number: int) -> int:
    """How many calls the poison row `number` is in until it stands alone."""
    first, size, calls = number // 100 * 100, 50 if number >= 200 else 100, 1
    while size > 1:
        half = size // 2
        first, size = (first, half) if number < first + half else (first + half, size - half)
        calls += 1
    return calls


def reply(**fields: Any) -> bytes:
    """A reply of the API; a success where nothing else is said."""
    return json.dumps({"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0, **fields}).encode()


def error_list(*entries: Mapping[str, Any]) -> bytes:
    return reply(ErrorList=list(entries))
