"""A strict stand-in for the attribute API of Tencent Push, to run and to test against, inside a process or as one.

It is independent of the client and the sink on purpose: it shares only the wire's names and limits and the signature
with them, so that a misreading on one side does not cancel out on the other.
"""

from connectors.tencent_push.emulator.access import App
from connectors.tencent_push.emulator.calls import CallLog, CallRecord
from connectors.tencent_push.emulator.faults import (
    CloseAfterAnswer,
    Faults,
    HalfBody,
    NotJson,
    PlannedFault,
    RefuseCall,
    RefuseRows,
    ResetAfterWrite,
    ResetBeforeWrite,
    SeenCall,
    Slow,
    Status,
)
from connectors.tencent_push.emulator.link import EmulatorCertificateError, RoundTrip
from connectors.tencent_push.emulator.server import EMULATOR_CREDENTIALS, Emulator
from connectors.tencent_push.emulator.store import (
    UNKNOWN_ACCOUNTS,
    UNKNOWN_REGISTRATION_ID_PREFIX,
    UNKNOWN_USER_ID_PREFIX,
    EmulatorDataError,
)

__all__ = [
    "EMULATOR_CREDENTIALS",
    "UNKNOWN_ACCOUNTS",
    "UNKNOWN_REGISTRATION_ID_PREFIX",
    "UNKNOWN_USER_ID_PREFIX",
    "App",
    "CallLog",
    "CallRecord",
    "CloseAfterAnswer",
    "Emulator",
    "EmulatorCertificateError",
    "EmulatorDataError",
    "Faults",
    "HalfBody",
    "NotJson",
    "PlannedFault",
    "RefuseCall",
    "RefuseRows",
    "ResetAfterWrite",
    "ResetBeforeWrite",
    "RoundTrip",
    "SeenCall",
    "Slow",
    "Status",
]
