"""Accounts that Tencent acknowledged attributes of and that no profile has any more: left alone, or to be cleared.

An account that a profile still names, however wrongly, is not taken for departed; one whose profile `where` leaves out
is.
"""

import ibis
import ibis.expr.types as ir

from connectors.tencent_push.protocol import AccountType
from pipelines.accounts import Status
from pipelines.engine import Engine
from pipelines.errors import EmptySourceError
from pipelines.mapping import AccountMapping, Departed, SyncMapping
from pipelines.narrow import Narrowed, account_column, open_column, status_column


def departed(engine: Engine, found: Narrowed, mapping: SyncMapping, kind: AccountType) -> ir.Table | None:
    """Account and `removed` of each, or None before anything was acknowledged.

    Told by the account alone: a key of other days would make everybody seem gone.
    """
    known = found.known[kind]
    if known is None:
        return None
    mine = mapping.account_types()[kind]
    rows = found.rows
    is_named = rows[open_column(kind)] & (rows[status_column(kind)] != Status.WITHOUT_ACCOUNT.value)
    named = rows.filter(is_named).select(named=rows[account_column(kind)])
    gone = known.anti_join(named, known.account == named.named)
    removed = [
        ibis.ifelse(gone[name].notnull() | gone.uncertain.contains(name).fill_null(False), name, ibis.null(str))
        for name in mine.attributes
        if name in gone.columns
    ]
    if not removed:
        return None
    rows_gone = gone.select("account", removed=ibis.array(removed).filter(lambda name: name.notnull()))
    return engine.materialize(f"departed_{kind}", rows_gone.filter(rows_gone.removed.length() > 0))


def require_accounts(mapping: SyncMapping, mine: AccountMapping, *, accounts_left: int, gone: int) -> None:
    """Raise EmptySourceError where `departed: remove` would clear every account: a source that came out empty."""
    if mapping.departed is Departed.REMOVE and gone and not accounts_left:
        raise EmptySourceError(
            f"no profile has a valid account in column {mine.column!r}, and `departed: remove` would remove the "
            f"attributes of all {gone:,} accounts that are acknowledged. Nothing was sent. See that the source is "
            "whole, and look at `column`, `where` and `matches`; if they are meant to go, remove a part at a time, or "
            "choose `departed: leave`"
        )
