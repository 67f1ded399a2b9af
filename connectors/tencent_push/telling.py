"""What the sink tells while it works: each call that has ended, and every few seconds how far it is.

Told in the caller's thread. Nothing here counts or decides anything; the numbers are the report's.
"""

import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from connectors.tencent_push.batching import WRITING_COMMANDS, Batch
from connectors.tencent_push.client import CallResult
from connectors.tencent_push.outcomes import Settlement
from connectors.tencent_push.pacing import Quota
from connectors.tencent_push.protocol import Command
from connectors.tencent_push.report import Progress, PushCall, SinkReport, busiest

_log = logging.getLogger(__name__)


class Telling:
    """Calls `on_call` and `on_progress`, where they are wanted. What they raise ends the push."""

    def __init__(
        self,
        report: SinkReport,
        quota: Quota,
        *,
        on_call: Callable[[PushCall], None] | None,
        on_progress: Callable[[Progress], None] | None,
        progress_seconds: float,
    ) -> None:
        self._report = report
        self._quota = quota
        self._on_call = on_call
        self._on_progress = on_progress
        self._progress_seconds = progress_seconds
        self._began_at = self._told_at = 0.0
        self._told_calls: Counter[Command] = Counter()

    def begin(self, now: float) -> None:
        self._began_at = self._told_at = now

    def call_ended(
        self, batch: Batch, result: CallResult, settlement: Settlement, *, sent_at: datetime, landing: bool
    ) -> None:
        """`landing`: the push is being interrupted, perhaps by `on_call` itself; the other calls still have to be
        recorded, so nothing that it raises counts any more.
        """
        if self._on_call is None:
            return
        ended = _push_call(batch, result, settlement, sent_at=sent_at)
        try:
            self._on_call(ended)
        except Exception as error:
            if not landing:
                raise
            _log.error("The call %s ended after the interruption and was not told: %s", batch.batch_id, type(error))

    def progress(self, now: float, *, in_flight: int, last: bool = False) -> None:
        report = self._report
        report.seconds = now - self._began_at
        period_seconds = now - self._told_at
        if self._on_progress is None or (period_seconds < self._progress_seconds and not last):
            return
        calls = report.calls - self._told_calls
        per_second = 1.0 / period_seconds if period_seconds > 0 else 0.0
        self._told_at, self._told_calls = now, report.calls.copy()
        self._on_progress(
            Progress(
                seconds=report.seconds,
                period_seconds=period_seconds,
                calls=report.calls.total(),
                calls_per_second=calls.total() * per_second,
                changes=dict(report.changes),
                resent_rows=report.resent_rows,
                in_flight=in_flight,
                quota_share=min(self._quota.pacer(command).share() for command in WRITING_COMMANDS),
                quota_use=busiest(calls) * per_second / self._quota.calls_per_second,
                failures=dict(report.refusals),
                slow_downs=report.slow_downs,
            )
        )


def _push_call(batch: Batch, result: CallResult, settlement: Settlement, *, sent_at: datetime) -> PushCall:
    return PushCall(
        batch_id=batch.batch_id,
        command=batch.command,
        rows=len(batch.operations),
        attempt=max(operation.calls for operation in batch.operations),
        sent_at=sent_at,
        latency_seconds=result.latency_seconds,
        http_status=result.http_status,
        fault=result.fault,
        code=None if result.reply is None else result.reply.code,
        refused_rows=len(batch.operations) - len(settlement.acknowledged),
    )
