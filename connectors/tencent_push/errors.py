"""What can go wrong with the API: the exception tree, and the catalogue with one row per error code.

The tree is grouped by what the caller does next:

    TencentPushError
    ├── SettingsError           correct the environment, then run again; nothing was sent
    ├── TargetUnreachableError  no answer could be had; check address and network, then run again
    ├── CallRefusedError        the API answered and refused the call; its code tells what to mend
    └── LedgerError             the record of what was sent cannot be kept or read; mend the data folder first

Refusals of single rows are no exceptions: they are outcomes (see outcomes.py). What the network does to one call is
none either: it is the `fault` of a `CallResult` (see client.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class TencentPushError(Exception):
    """Everything that this package raises on purpose."""


class SettingsError(TencentPushError):
    """A setting is missing or contradicts another one. Nothing was sent."""


class TargetUnreachableError(TencentPushError):
    """No readable answer came. A writing call may or may not have been carried out."""


class CallRefusedError(TencentPushError):
    """The API refused the whole call. Nothing of it counts as acknowledged.

    `info` is Tencent's own text: it may quote an account or a value and is therefore no part of the message.
    """

    def __init__(self, *, command: str, code: int, info: str | None) -> None:
        self.command = command
        self.code = code
        self.info = info
        entry = lookup(code)
        super().__init__(f"{command} was refused with code {code}: {entry.meaning} {entry.fix}")


class LedgerError(TencentPushError):
    """The ledger cannot be written or read; no call may leave that could not be recorded."""


class Action(StrEnum):
    """What the sink does about a code.

    As `on_row` only `resend`, `slow_down`, `reject` and `stop` occur: a single row has no signature and no halves.
    """

    RESEND = "resend"
    SLOW_DOWN = "slow_down"
    RENEW_USERSIG = "renew_usersig"
    SPLIT = "split"
    REJECT = "reject"
    STOP = "stop"


class Reason(StrEnum):
    """The closed list of the failed rows' `reason` as far as the push decides it (validation has its own)."""

    ATTRIBUTE_UNDECLARED = "attribute_undeclared"
    ATTRIBUTE_WRONG_ACCOUNT_TYPE = "attribute_wrong_account_type"
    ACCOUNT_UNKNOWN = "account_unknown"
    CALL_REFUSED = "call_refused"
    THROTTLED = "throttled"
    TIMEOUT = "timeout"
    CONNECTION_FAILED = "connection_failed"
    INTERNAL_ERROR = "internal_error"
    UNREADABLE_REPLY = "unreadable_reply"
    RUN_STOPPED = "run_stopped"
    UNKNOWN_CODE = "unknown_code"


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One code: what the sink does when it stands on a call, what when on a row, and what a person should know.

    `meaning` and `fix` are one sentence each, for a person who does not know the API; `source` is the page.
    `split_levels`: how often a refused call is halved; None means until the row stands alone.
    `stops_when_exhausted`: a call whose attempts (or split levels) are used up stops the run; otherwise its rows end
    as `errored` (or, for `split`, as rejected).
    `retryable`: pushing the same row again, unchanged, can succeed once what `fix` names has been done outside it.
    `maybe_written`: what was refused may nevertheless be stored, wholly or in part (undocumented, or a time-out).
    `too_large`: the call was larger than the API takes, so the calls after it are smaller, too.
    """

    code: int
    on_call: Action
    on_row: Action
    reason: Reason
    meaning: str
    fix: str
    source: str
    split_levels: int | None = None
    stops_when_exhausted: bool = False
    retryable: bool = True
    maybe_written: bool = False
    too_large: bool = False


_TABLE = "1047/34348"
_OLDER = "1047/34348, an older edition"
_PUSH = "1047/74196"
_LATER = "Run the sync again later; if it stays, give Tencent's support the code and the time."
_URL = "Check TENCENT_PUSH_BASE_URL and any proxy on the way; this program builds the rest of the address itself."
_REPORT = "This program built a call that the API cannot read: report it with the code."
_ADMIN = "Set TENCENT_PUSH_IDENTIFIER to an administrator of the app, as shown in its console."
_REGION = "Check TENCENT_PUSH_SDKAPPID, and that TENCENT_PUSH_REGION is the app's data centre."
_KEY = "Set TENCENT_PUSH_SECRET_KEY to the key that the console shows for TENCENT_PUSH_SDKAPPID."
_SUPPORT = "Ask Tencent's support, or the app's owner in the console."
_PAY = "Renew or buy the plan in the console and settle what is owed."
_SLOWER = "Lower TENCENT_PUSH_CALLS_PER_SECOND, or raise the quota in the console; other programs of the app share it."
_CLOCK = "A new signature is made at once; if it stays, set this machine's clock right."
_IMPORT = "Have the user sign in to the app once, or import the account; the row is tried again on the next run."
_SMALLER = "It is sent again in smaller parts; if a row that stands alone is refused, report it with the code."


def _stop(code: int, meaning: str, fix: str, *, source: str = _TABLE, on_row: Action = Action.STOP) -> CatalogueEntry:
    return CatalogueEntry(code, Action.STOP, on_row, Reason.CALL_REFUSED, meaning, fix, source)


def _renew(code: int, meaning: str, fix: str, *, source: str = _TABLE) -> CatalogueEntry:
    return CatalogueEntry(
        code, Action.RENEW_USERSIG, Action.RESEND, Reason.CALL_REFUSED, meaning, fix, source, stops_when_exhausted=True
    )


def _slow(code: int, meaning: str, *, source: str = _TABLE, stops: bool = False) -> CatalogueEntry:
    action = Action.SLOW_DOWN
    return CatalogueEntry(code, action, action, Reason.THROTTLED, meaning, _SLOWER, source, stops_when_exhausted=stops)


def _resend(
    code: int, meaning: str, *, reason: Reason = Reason.INTERNAL_ERROR, source: str = _TABLE, stops: bool = False
) -> CatalogueEntry:
    action = Action.RESEND
    return CatalogueEntry(
        code, action, action, reason, meaning, _LATER, source, stops_when_exhausted=stops, maybe_written=True
    )


def _row(
    code: int,
    meaning: str,
    fix: str,
    *,
    reason: Reason = Reason.CALL_REFUSED,
    source: str = _TABLE,
    retryable: bool = False,
    maybe_written: bool = False,
    too_large: bool = False,
) -> CatalogueEntry:
    """A call with this code is halved until the row that caused it stands alone; on a row it is final."""
    return CatalogueEntry(
        code,
        Action.SPLIT,
        Action.REJECT,
        reason,
        meaning,
        fix,
        source,
        retryable=retryable,
        maybe_written=maybe_written,
        too_large=too_large,
    )


# One row per code, in the groups of the action on a call. A table reads as a table: two lines a row at most.
# fmt: off
_ROWS = (
    # What ends the run: nothing else would be answered otherwise.
    _stop(60002, "The API could not read the address of the call.", _URL),
    _stop(60006, "The app's SdkAppId is not valid.", _REGION, source=_OLDER),
    _stop(60009, "The address of the call names nothing that the API knows.", _URL),
    _stop(60010, "The call needs an administrator of the app.", _ADMIN),
    _stop(60012, "The address of the call holds no SdkAppId.", _URL),
    _stop(60016, "The app is disabled.", _SUPPORT),
    _stop(60017, "Calls of this kind are disabled for the app.", _SUPPORT),
    _stop(60020, "The service is not bought, has run out, or money is owed for it.", _PAY),
    _stop(60021, "The API does not accept calls from this machine's IP address.",
          "Have this machine's address put on the app's list of allowed addresses."),
    _stop(60026, "This region's address does not serve the app.", _REGION),
    _stop(60027, "The app belongs to another product.", "Set TENCENT_PUSH_SDKAPPID to an app with the Push service."),
    _stop(60028, "The trial edition's calls of the last 24 hours are used up.",
          "Wait a day or move to a paid edition; the next run goes on where this one stopped."),
    _stop(70009, "The signature was made with another app's key.", _KEY),
    _stop(70013, "The signature was made for another identifier than the one in the address.", _ADMIN),
    _stop(70014, "The signature was made for another SdkAppId than the one in the address.", _REGION),
    _stop(70016, "The API has no key of this app; often the wrong data centre was asked.", _REGION),
    _stop(70020, "The API does not know this SdkAppId; often the wrong data centre was asked.", _REGION),
    _stop(70050, "Too many signatures of this app have failed; it is locked for a minute.",
          "Correct the key first, then wait a minute before the next run."),
    _stop(70051, "The account is on the app's blocklist; for a whole call it is the administrator's account.", _SUPPORT,
          on_row=Action.REJECT),
    _stop(70398, "The app holds as many accounts as its plan allows.", "Move the app to a larger plan."),
    _stop(70403, "The call needs an administrator of the app.", _ADMIN, source=_OLDER),
    _stop(70404, "The API no longer serves this version of its client.", "Update this program."),
    _stop(71000, "The account could not be deleted: the app's plan does not allow it.", _SUPPORT),
    _stop(72000, "The app's plan allows no more active users, or not this feature.", _PAY),
    _stop(72001, "The app's plan allows no more active users, or not this feature.", _PAY),
    _stop(72002, "The app's plan allows no more active users, or not this feature.", _PAY),
    _stop(72011, "The app's plan does not allow this call, or it is switched off.", _PAY),
    _stop(72012, "The app's plan does not allow this call, or it is switched off.", _PAY),
    _stop(80005, "The service is switched off: it has run out, or money is owed for it.", _PAY),
    _stop(90009, "The call needs an administrator of the app.", _ADMIN, source="1047/60565"),
    _stop(90045, "The Push feature is not switched on for this app.", "Switch the Push service on in the console.",
          source=_PUSH),
    # The signature: made anew once; if it is refused again, the run ends.
    _renew(60025, "SdkAppId, identifier, signature or content type in the address is wrong.", _KEY),
    _renew(70001, "The signature has run out.", _CLOCK),
    _renew(70002, "The signature is empty.", _CLOCK, source=_OLDER),
    _renew(70003, "The signature cannot be read.", _KEY),
    _renew(70005, "The signature cannot be read.", _KEY, source=_OLDER),
    _renew(70052, "The signature has run out.", _CLOCK, source=_OLDER),
    # Too many calls: the same rows again, slower. No page ties the quota to one of these codes.
    _slow(60007, "The app's calls came faster than its quota."),
    _slow(60011, "The app's calls, of all commands together, came faster than its quota.", source=_OLDER),
    _slow(60018, "Calls came too often."),
    _slow(60019, "Calls came too often.", source=_OLDER),
    _slow(70114, "The administrator's account signs in too often or was locked for safety.", source=_OLDER, stops=True),
    _slow(72010, "The account signs in too often."),
    # The service's own trouble: the same rows again, after a wait.
    _resend(60004, "The API could not check the account that calls.", stops=True),
    _resend(60005, "The API could not check the account that calls.", stops=True),
    _resend(60008, "The API was too slow for its own time limit.", reason=Reason.TIMEOUT),
    _resend(60013, "The API could not read its own inner reply."),
    _resend(60014, "The API was too slow to check the account that calls.", reason=Reason.TIMEOUT),
    _resend(70169, "The API was too slow for its own time limit.", reason=Reason.TIMEOUT),
    _resend(70202, "The API was too slow for its own time limit.", reason=Reason.TIMEOUT, source=_OLDER),
    _resend(70500, "The API had an error of its own."),
    _resend(90992, "The API had an error of its own.", source=_PUSH),
    _resend(90994, "The API had an error of its own.", source=_PUSH),
    _resend(90995, "The API had an error of its own.", source=_PUSH),
    _resend(91000, "The API had an error of its own.", source="1047/60565"),
    # What one row may have done: the call is halved until that row stands alone, and only that row is lost.
    CatalogueEntry(60003, Action.SPLIT, Action.REJECT, Reason.CALL_REFUSED, "The API could not read the call's JSON.",
                   _REPORT, _TABLE, split_levels=1, stops_when_exhausted=True, retryable=False),
    _row(60015, "The account was not sent as text.", _REPORT),
    _row(70107, "Tencent does not know this account.", _IMPORT, reason=Reason.ACCOUNT_UNKNOWN, retryable=True),
    _row(70206, "The call holds a wrong number of rows.", _SMALLER, source=_OLDER, retryable=True,
         too_large=True),
    _row(70399, "The account was deleted and cannot come back for three months.",
         "Wait until they are over, or ask Tencent's support.", reason=Reason.ACCOUNT_UNKNOWN, retryable=True),
    _row(70402, "A field of the row is missing or not allowed.", "Check the account and its values for unusual text."),
    _row(80002, "The call is larger than the API takes.", _SMALLER, too_large=True),
    _row(90001, "The API could not read the row, or a field has the wrong type.",
         "Check the row for unusual characters; if every row is refused, report it."),
    _row(90003, "The row names no account.", "Check the account column of the source."),
    _row(90012, "The account is not registered with the app.", _IMPORT, reason=Reason.ACCOUNT_UNKNOWN, retryable=True),
    _row(90018, "The call holds more accounts than the API takes.", _SMALLER, retryable=True, too_large=True),
    _row(90030, "The value is empty or longer than 50 UTF-8 bytes.", "Shorten the value in the source.", source=_OLDER),
    _row(90033, "An attribute is not declared for the app, or its value is not allowed.",
         "Declare the attribute (`python -m connectors.tencent_push declare NAME`) or correct the value.",
         reason=Reason.ATTRIBUTE_UNDECLARED, source="1047/60565", maybe_written=True),
    _row(90035, "The attribute belongs to the other account type than the row's account, as Tencent knows it.",
         "Map it under the account type it was declared for (`python -m connectors.tencent_push attributes` tells), or "
         "correct an account that is of the other kind.",
         reason=Reason.ATTRIBUTE_WRONG_ACCOUNT_TYPE, source="1047/60565", maybe_written=True),
    _row(90048, "The account does not exist.", _IMPORT, reason=Reason.ACCOUNT_UNKNOWN, source=_PUSH, retryable=True),
    _row(90056, "The call is larger than the API takes.", _SMALLER, source=_PUSH, too_large=True),
    _row(93000, "The call is larger than the API takes.", _SMALLER, too_large=True),
)
# fmt: on

CATALOGUE: Mapping[int, CatalogueEntry] = {entry.code: entry for entry in _ROWS}


def lookup(code: int) -> CatalogueEntry:
    """The catalogue's row for `code`; an unknown code gets a row of its own, loud and named `unknown_code`.

    An unknown code on a call is sent again a few times and then stops the run; on a row it is final. Either way the
    rows may or may not be written.
    """
    known = CATALOGUE.get(code)
    if known is not None:
        return known
    return CatalogueEntry(
        code,
        Action.RESEND,
        Action.REJECT,
        Reason.UNKNOWN_CODE,
        "The API answered with a code that this program does not know.",
        "Look the code up in Tencent's table of error codes and report it, so that it gets a row here.",
        "not documented",
        stops_when_exhausted=True,
        maybe_written=True,
    )
