"""Why a row failed, in words for people: validation's reasons, and the push's where no code of the API explains it.

What the API's codes mean stands in connectors/tencent_push/errors.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from connectors.tencent_push.errors import Reason as RefusalReason


class Reason(StrEnum):
    """What validation found."""

    ACCOUNT_MISSING = "account_missing"
    ACCOUNT_INVALID = "account_invalid"
    ACCOUNT_TOO_LONG = "account_too_long"
    ACCOUNT_TYPE_AMBIGUOUS = "account_type_ambiguous"
    ACCOUNT_NEAR_ANOTHER = "account_near_another"
    SUPERSEDED = "superseded"
    VALUE_TOO_LONG = "value_too_long"
    VALUE_TRUNCATED = "value_truncated"
    VALUE_INVALID = "value_invalid"


class Severity(StrEnum):
    """`notice` is for what was changed or set aside but harms nothing."""

    ERROR = "error"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Explained:
    """One sentence each, for a person who does not know the API."""

    severity: Severity
    explanation: str
    fix: str


EXPLAINED: Mapping[Reason, Explained] = {
    Reason.ACCOUNT_MISSING: Explained(
        Severity.ERROR,
        "The profile has no account: every account column is empty.",
        "Fill the account column in the source, or leave such profiles out of it.",
    ),
    Reason.ACCOUNT_INVALID: Explained(
        Severity.ERROR,
        "The account holds a control character (a line break, a tab or the like).",
        "Correct the account in the source; it must be the very text that the app signs in with.",
    ),
    Reason.ACCOUNT_TOO_LONG: Explained(
        Severity.ERROR,
        "The account is longer than its type allows: 32 bytes for a UserID, 36 for a RegistrationID.",
        "If it is an id of another kind (a RegistrationID in the UserID column), move it to its own column.",
    ),
    Reason.ACCOUNT_TYPE_AMBIGUOUS: Explained(
        Severity.ERROR,
        "The account could belong to both account types, or to neither, by the sync's `where` and `matches`.",
        "Correct the account or its type in the source, or make `where` and `matches` tell the two types apart.",
    ),
    Reason.ACCOUNT_NEAR_ANOTHER: Explained(
        Severity.NOTICE,
        "Another account (in value) differs from this one only by upper and lower case or by surrounding blanks; both "
        "are sent, as two users.",
        "If they are one user, spell the account in the source just as the app signs in with it.",
    ),
    Reason.SUPERSEDED: Explained(
        Severity.NOTICE,
        "Another profile of the same account was used: a newer one or, where none is newer, a later row.",
        "Nothing to do; to avoid it, keep one profile per account in the source.",
    ),
    Reason.VALUE_TOO_LONG: Explained(
        Severity.ERROR,
        "The value is longer than 50 bytes in UTF-8, which is all that Tencent takes; the attribute was left out.",
        "Shorten the value in the source, or set `too_long: truncate` for the attribute.",
    ),
    Reason.VALUE_TRUNCATED: Explained(
        Severity.NOTICE,
        "The value was longer than 50 bytes in UTF-8 and was cut between two characters, as the sync asks.",
        "Nothing to do; sent_value shows what was sent.",
    ),
    Reason.VALUE_INVALID: Explained(
        Severity.ERROR,
        "The value holds a control character, or is no finite number or date; the attribute was left out.",
        "Correct the value in the source.",
    ),
}

# Of accounts that are in no profile any more, after what was refused (`departed: remove`).
DEPARTED_EXPLANATION = (
    " No profile has the account any more, so its attributes were to be removed (`departed: remove`)."
)
DEPARTED_UNKNOWN_FIX = "Nothing to do: an account that Tencent does not know has no attributes; it is not tried again."

_NEXT_RUN = "The next run sends it again by itself; if it stays, look at the network and the target's state."
EXPLAINED_REFUSALS: Mapping[RefusalReason, Explained] = {
    reason: Explained(Severity.ERROR, explanation, fix)
    for reason, explanation, fix in (
        (
            RefusalReason.TIMEOUT,
            "Tencent did not answer in time, in any attempt; the row may or may not be set.",
            _NEXT_RUN,
        ),
        (RefusalReason.CONNECTION_FAILED, "The connection to Tencent failed or broke, in every attempt.", _NEXT_RUN),
        (
            RefusalReason.UNREADABLE_REPLY,
            "Tencent's replies could not be read; the row may or may not be set.",
            _NEXT_RUN,
        ),
        (
            RefusalReason.THROTTLED,
            "Tencent said that calls came too often, in every attempt.",
            "Lower TENCENT_PUSH_CALLS_PER_SECOND if other programs use the app; the next run sends the row again.",
        ),
        (
            RefusalReason.RUN_STOPPED,
            "The run stopped before this row was sent.",
            "Mend what the run's error names; if somebody cancelled it, nothing has to be done. The next run sends it.",
        ),
        (
            RefusalReason.CALL_REFUSED,
            "The call was answered by something that is not the API.",
            "Check TENCENT_PUSH_BASE_URL and any proxy on the way.",
        ),
    )
}
