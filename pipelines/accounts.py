"""Whom a profile is for: one account per type, or the reason why there is none.

Expressions only. A row's status is one of `Status`; every profile has exactly one status per account type.
"""

from enum import StrEnum

import ibis
import ibis.expr.types as ir

from connectors.tencent_push.protocol import MAX_REGISTRATION_ID_BYTES, MAX_USER_ID_BYTES, AccountType
from pipelines.mapping import AccountMapping, SyncMapping
from pipelines.reasons import Reason
from pipelines.values import CONTROL_CHARACTER, utf8_bytes

BLANK = r"\A[ \t\n\r\f\v\p{Z}]*\z"  # the engine's \s has no vertical tab
MAX_BYTES = {
    AccountType.USER_ID: MAX_USER_ID_BYTES,
    AccountType.REGISTRATION_ID: MAX_REGISTRATION_ID_BYTES,
}


class Status(StrEnum):
    """What a profile is for one account type."""

    WITHOUT_ACCOUNT = "without_account"
    CANDIDATE = "candidate"
    ACCOUNT_TYPE_AMBIGUOUS = Reason.ACCOUNT_TYPE_AMBIGUOUS.value
    ACCOUNT_INVALID = Reason.ACCOUNT_INVALID.value
    ACCOUNT_TOO_LONG = Reason.ACCOUNT_TOO_LONG.value


INVALID_STATUSES = (Status.ACCOUNT_TYPE_AMBIGUOUS, Status.ACCOUNT_INVALID, Status.ACCOUNT_TOO_LONG)


def account_text(profiles: ir.Table, column: str) -> ir.StringValue:
    """The account as Tencent gets it: never trimmed, its case kept; whole numbers in decimal."""
    account = profiles[column]
    return account if account.type().is_string() else account.cast(str)


def is_blank(account: ir.StringValue) -> ir.BooleanValue:
    """Null, empty, or nothing but white space of any script."""
    return account.isnull() | ibis.ifelse(may_be_blank(account), account.re_search(BLANK), False)


def status(profiles: ir.Table, mapping: SyncMapping, account_type: AccountType) -> ir.StringValue:
    """The `Status` of every profile for `account_type`."""
    mine = mapping.account_types()[account_type]
    account = account_text(profiles, mine.column)
    has_account = ~is_blank(account)
    if not mapping.is_mixed():
        has_account = has_account & _satisfies_where(profiles, mine)
    return ibis.cases(
        (~has_account, Status.WITHOUT_ACCOUNT.value),
        (_is_ambiguous(profiles, mapping, account_type), Status.ACCOUNT_TYPE_AMBIGUOUS.value),
        (_is_others(profiles, mapping, account_type), Status.WITHOUT_ACCOUNT.value),
        (account.re_search(CONTROL_CHARACTER), Status.ACCOUNT_INVALID.value),
        (utf8_bytes(account) > MAX_BYTES[account_type], Status.ACCOUNT_TOO_LONG.value),
        else_=Status.CANDIDATE.value,
    )


def may_have_account(profiles: ir.Table, mapping: SyncMapping, account_type: AccountType) -> ir.BooleanValue:
    """False, never null, only where the status is WITHOUT_ACCOUNT for sure; told without looking into the account."""
    mine = mapping.account_types()[account_type]
    there = profiles[mine.column].notnull()
    if mapping.is_mixed():
        other = next(each for kind, each in mapping.account_types().items() if kind is not account_type)
        return there & (claims(profiles, mine) | ~claims(profiles, other))
    return there & _satisfies_where(profiles, mine)


def may_be_blank(account: ir.StringValue) -> ir.BooleanValue:
    """True for every blank account and few others: a printed ASCII character in front is no white space."""
    return account.isnull() | (account < "!") | (account >= "\x7f")


def deciding_columns(mapping: SyncMapping, account_type: AccountType) -> tuple[str, ...]:
    """The source columns besides the account's own that decide its status; the other type's account is not one."""
    types = mapping.account_types()
    named = dict.fromkeys(types[account_type].where)
    if mapping.is_mixed():
        for each in types.values():
            named |= dict.fromkeys(each.where)
    return tuple(named)


def claims(profiles: ir.Table, mapping: AccountMapping) -> ir.BooleanValue:
    """Whether `where` and `matches` say that the profile's account is of this type; never null."""
    claim = _satisfies_where(profiles, mapping)
    if mapping.matches is not None:
        matched = account_text(profiles, mapping.column).re_search(rf"\A(?:{mapping.matches})\z")
        claim = claim & matched.fill_null(False)
    return claim


def is_claimed_by_both(profiles: ir.Table, mapping: SyncMapping) -> ir.BooleanValue:
    """Whether both account types claim the same text: as one mixed column, or as two columns with equal content."""
    both = list(mapping.account_types().values())
    if len(both) < 2:
        return ibis.literal(False)
    texts = [account_text(profiles, each.column) for each in both]
    same = (texts[0] == texts[1]).fill_null(False)
    return same & claims(profiles, both[0]) & claims(profiles, both[1])


def _is_ambiguous(profiles: ir.Table, mapping: SyncMapping, account_type: AccountType) -> ir.BooleanValue:
    """Claimed by both types, or by none although it is there."""
    types = mapping.account_types()
    if mapping.is_mixed():
        claimed_by_none = ~claims(profiles, types[AccountType.USER_ID]) & ~claims(
            profiles, types[AccountType.REGISTRATION_ID]
        )
    else:
        claimed_by_none = ~claims(profiles, types[account_type])
    return claimed_by_none | is_claimed_by_both(profiles, mapping)


def _is_others(profiles: ir.Table, mapping: SyncMapping, account_type: AccountType) -> ir.BooleanValue:
    """In a mixed column: the account is of the other type."""
    if not mapping.is_mixed():
        return ibis.literal(False)
    return ~claims(profiles, mapping.account_types()[account_type])


def _satisfies_where(profiles: ir.Table, mapping: AccountMapping) -> ir.BooleanValue:
    satisfied: ir.BooleanValue = ibis.literal(True)
    for column, wanted in mapping.where.items():
        satisfied = satisfied & (profiles[column] == wanted).fill_null(False)
    return satisfied
