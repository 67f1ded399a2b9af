"""One call from request to answer: recorded, met by a fault if one is due, checked, counted, carried out.

Joins access, quota, rules and faults. Sockets are server.py's business.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from connectors.tencent_push.emulator.access import App, Target, check_access
from connectors.tencent_push.emulator.answers import Answer, RefusalError, failure
from connectors.tencent_push.emulator.calls import CallLog, CallRecord, Quota
from connectors.tencent_push.emulator.faults import NO_EFFECT, Delivery, Effect, Faults, SeenCall
from connectors.tencent_push.emulator.rules import Handling, carry_out
from connectors.tencent_push.emulator.store import Store
from connectors.tencent_push.emulator.wire import Request

_LOGGER = logging.getLogger(__name__)
_NO_TARGET = Target("", {})
_NOT_JSON = object()  # stands for a body that could not be parsed


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What the server is to send, how much of it, and after what wait."""

    record: CallRecord
    status: int
    content: bytes = field(repr=False)
    delivery: Delivery
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class Service:
    """The emulated API without its sockets. Safe to use from many threads."""

    store: Store
    app: App
    quota: Quota
    faults: Faults
    calls: CallLog
    clock: Callable[[], float]
    wait: Callable[[float], object]
    bad_row_refuses_call: bool

    def handle(self, request: Request) -> Outgoing:
        """Never raises: what goes wrong inside is answered with 91000, as the API does, and logged by its kind."""
        target = _parse_target(request.target)
        record = self.calls.arrived(target.command, at=request.arrived_at, random=target.random)
        effect = NO_EFFECT
        try:
            payload = _parse_body(request.body)
            accounts = _accounts_in(payload)
            record.accounts = len(accounts)
            effect = self._effect(SeenCall(record.number, target.command, accounts, payload), record)
            answer = self._answer(request, target, payload, effect)
        except Exception as error:  # noqa: BLE001 - a server answers, whatever happens
            _LOGGER.error("call %d of the emulator failed inside: %s", record.number, type(error).__name__)
            answer = failure(91000, "internal error")
        if answer is not None:
            record.code = answer.code
        content = effect.content if effect.content is not None else answer.content if answer is not None else b""
        if effect.delivery is not Delivery.RESET:
            record.http_status = effect.status
        return Outgoing(record, effect.status, content, effect.delivery, effect.wait_after_seconds)

    def _effect(self, call: SeenCall, record: CallRecord) -> Effect:
        fault = self.faults.take(call) if self.faults else None
        if fault is None:
            return NO_EFFECT
        record.fault = type(fault).__name__
        return fault.effect()

    def _answer(self, request: Request, target: Target, payload: object, effect: Effect) -> Answer | None:
        """None for a call that a fault keeps from being carried out."""
        if effect.wait_before_seconds:
            self.wait(effect.wait_before_seconds)
        if effect.refused_call is not None:
            return failure(effect.refused_call.code, effect.refused_call.info or "")
        if not effect.carried_out:
            return None
        try:
            return self._carry_out(request, target, payload, effect)
        except RefusalError as refusal:
            return failure(refusal.code, refusal.info)

    def _carry_out(self, request: Request, target: Target, payload: object, effect: Effect) -> Answer:
        host = request.headers.get("host", "")
        command = check_access(request.method, target, host=host, app=self.app, now=self.clock())
        if not self.quota.admit(command, arrived_at=request.arrived_at):
            raise RefusalError(60007, "the command's calls per second are used up")
        if payload is _NOT_JSON:
            raise RefusalError(60003, "the body is empty or not JSON")
        handling = Handling(effect.refused_rows, self.bad_row_refuses_call)
        return carry_out(command, payload, store=self.store, handling=handling)


def _parse_target(target: str) -> Target:
    """What is no URL becomes an empty one, and is refused as a path that is not served."""
    try:
        return Target.parse(target)
    except ValueError:
        return _NO_TARGET


def _parse_body(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _NOT_JSON


def _accounts_in(payload: object) -> tuple[str, ...]:
    """The accounts that a body of any form names, for the record and for conditions; judged elsewhere."""
    if not isinstance(payload, dict):
        return ()
    entries = payload.get("UserAttrs", payload.get("To_Account"))
    if not isinstance(entries, list):
        return ()
    accounts = (entry.get("To_Account") if isinstance(entry, dict) else entry for entry in entries)
    return tuple(account for account in accounts if isinstance(account, str))
