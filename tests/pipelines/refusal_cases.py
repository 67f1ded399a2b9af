"""Refusals as the sink gives them, with whatever differs from the commonest one."""

from datetime import UTC, datetime
from typing import Any

from connectors.tencent_push.errors import Reason as RefusalReason
from connectors.tencent_push.outcomes import Change, Outcome, OutcomeKind, Refusal
from connectors.tencent_push.protocol import Command

FAILED = datetime(2026, 1, 1, 2, 7, 0, 5, tzinfo=UTC)


def refusal(command: Command = Command.SET_ATTR, **replaced: Any) -> Refusal:
    facts: dict[str, Any] = {
        "kind": OutcomeKind.REJECTED, "reason": RefusalReason.ACCOUNT_UNKNOWN, "code": 70107, "info": "no such user",
        "http_status": 200, "batch_id": "b-1", "call_attempts": 1, "failed_at": FAILED, "maybe_written": False,
    }  # fmt: skip
    return Refusal(command=command, **(facts | replaced))


def outcome(number: int, *refusals: Refusal) -> Outcome:
    return Outcome(Change(number, "unused", {}), refusals[0].kind, refusals)
