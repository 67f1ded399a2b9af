"""Faults at the wire, scripted by tests: what befalls which call, in which order and how often.

A fault only describes itself as an `Effect`; service.py and server.py carry it out. Times are seconds.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from connectors.tencent_push.emulator.answers import RowRefusal
from connectors.tencent_push.protocol import Command


class Delivery(StrEnum):
    """What the client gets of the answer."""

    WHOLE = "whole"
    HALF = "half"
    RESET = "reset"
    WHOLE_THEN_CLOSED = "whole_then_closed"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a fault does to a call. Without `carried_out` nothing of the call is looked at or stored."""

    carried_out: bool = True
    wait_before_seconds: float = 0.0
    wait_after_seconds: float = 0.0
    refused_call: RowRefusal | None = None
    refused_rows: Mapping[str, RowRefusal] = field(default_factory=dict, repr=False)
    status: int = 200
    content: bytes | None = None
    delivery: Delivery = Delivery.WHOLE


NO_EFFECT = Effect()


class Fault(Protocol):
    """Anything that tells its effect."""

    def effect(self) -> Effect: ...


@dataclass(frozen=True, slots=True)
class Status:
    """An HTTP status with an HTML page, as a proxy in front of the API makes it (the documents name 502)."""

    status: int = 502
    carried_out: bool = False

    def effect(self) -> Effect:
        page = f"<html><head><title>{self.status}</title></head><body>nginx</body></html>".encode()
        return Effect(carried_out=self.carried_out, status=self.status, content=page)


@dataclass(frozen=True, slots=True)
class ResetBeforeWrite:
    """The connection is reset after the request was read; nothing is stored."""

    def effect(self) -> Effect:
        return Effect(carried_out=False, delivery=Delivery.RESET)


@dataclass(frozen=True, slots=True)
class ResetAfterWrite:
    """The call is carried out, then the connection is reset: the answer is lost."""

    def effect(self) -> Effect:
        return Effect(delivery=Delivery.RESET)


@dataclass(frozen=True, slots=True)
class Slow:
    """The answer comes late. The call is carried out at once or, with `late_write`, only after the waiting."""

    seconds: float
    late_write: bool = False

    def effect(self) -> Effect:
        if self.late_write:
            return Effect(wait_before_seconds=self.seconds)
        return Effect(wait_after_seconds=self.seconds)


@dataclass(frozen=True, slots=True)
class HalfBody:
    """The head promises the whole answer, half of its body comes, then the connection ends. The call is carried out."""

    def effect(self) -> Effect:
        return Effect(delivery=Delivery.HALF)


@dataclass(frozen=True, slots=True)
class CloseAfterAnswer:
    """A right answer that promises keep-alive; then the connection ends, as after a server's idle time."""

    def effect(self) -> Effect:
        return Effect(delivery=Delivery.WHOLE_THEN_CLOSED)


@dataclass(frozen=True, slots=True)
class NotJson:
    """HTTP 200 with a page instead of JSON, as from a captive portal."""

    content: bytes = b"<html><body>please log in</body></html>"
    carried_out: bool = False

    def effect(self) -> Effect:
        return Effect(carried_out=self.carried_out, content=self.content)


@dataclass(frozen=True, slots=True)
class RefuseCall:
    """HTTP 200 with an ErrorCode for the whole call; nothing is stored."""

    code: int
    info: str | None = None

    def effect(self) -> Effect:
        return Effect(carried_out=False, refused_call=RowRefusal(self.code, self.info))


@dataclass(frozen=True, slots=True)
class RefuseRows:
    """These accounts stand in ErrorList with their code and get nothing; the call's other accounts are served.

    Befalls only calls that name one of the accounts.
    """

    codes: Mapping[str, int] = field(repr=False)
    info: str | None = None

    def effect(self) -> Effect:
        return Effect(refused_rows={account: RowRefusal(code, self.info) for account, code in self.codes.items()})


@dataclass(frozen=True, slots=True)
class SeenCall:
    """What a condition may look at. `number` counts all calls from 1; `accounts` is empty when the body has none."""

    number: int
    command: Command | None
    accounts: tuple[str, ...] = field(repr=False)
    payload: object = field(repr=False)


@dataclass(slots=True)
class PlannedFault:
    """A fault with its conditions. `seen` counts the calls that met them, `fired` those that it befell."""

    fault: Fault
    command: Command | None
    accounts: frozenset[str] | None = field(repr=False)
    when: Callable[[SeenCall], bool] | None
    skip: int
    every: int
    times: int | None
    seen: int = 0
    fired: int = 0

    def matches(self, call: SeenCall) -> bool:
        return (
            (self.times is None or self.fired < self.times)
            and (self.command is None or self.command is call.command)
            and (self.accounts is None or not self.accounts.isdisjoint(call.accounts))
            and (self.when is None or self.when(call))
        )

    def is_due(self) -> bool:
        self.seen += 1
        return self.seen > self.skip and (self.seen - self.skip) % self.every == 0


class Faults:
    """The script. A call gets the first planned fault that is due; those after it do not count that call."""

    def __init__(self) -> None:
        self._planned: list[PlannedFault] = []
        self._lock = threading.Lock()

    def add(
        self,
        fault: Fault,
        *,
        command: Command | None = None,
        accounts: Collection[str] | None = None,
        when: Callable[[SeenCall], bool] | None = None,
        skip: int = 0,
        every: int = 1,
        times: int | None = 1,
    ) -> PlannedFault:
        """Befalls calls of `command` that name one of `accounts` and for which `when` is true: after the first `skip`
        of them every `every`th, `times` times in all (None: for ever). Several adds befall calls one after another.
        """
        if every < 1 or skip < 0 or (times is not None and times < 1):
            raise ValueError("every and times count from 1, skip from 0")
        if accounts is None and isinstance(fault, RefuseRows):
            accounts = fault.codes.keys()
        named = None if accounts is None else frozenset(accounts)
        planned = PlannedFault(fault, command, named, when, skip, every, times)
        with self._lock:
            self._planned.append(planned)
        return planned

    def clear(self) -> None:
        with self._lock:
            self._planned.clear()

    def __bool__(self) -> bool:
        return bool(self._planned)

    def take(self, call: SeenCall) -> Fault | None:
        with self._lock:
            for planned in self._planned:
                if planned.matches(call) and planned.is_due():
                    planned.fired += 1
                    return planned.fault
        return None
