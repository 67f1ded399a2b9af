"""Profiles that a newer one of the same account replaces, looked for among the few whose key occurs more than once."""

import ibis
import ibis.expr.types as ir

from connectors.tencent_push.protocol import AccountType
from pipelines.accounts import Status
from pipelines.engine import Engine
from pipelines.mapping import SyncMapping
from pipelines.narrow import account_column, key_column, open_column, status_column
from pipelines.near_accounts import near_accounts
from pipelines.source_rows import FILE, ROW
from pipelines.values import orderable


def rivals(engine: Engine, rows: ir.Table, mapping: SyncMapping, kind: AccountType) -> ir.Table:
    """FILE, ROW, account and status of the open `rows` whose key occurs more than once.

    Keys only say where to look: what is compared is the account itself, so that accounts that share a key, near ones or
    by chance, are kept apart.
    """
    mine = rows.filter(rows[open_column(kind)])
    keys = mine.group_by(key_column(kind)).agg(profiles=mine.count())
    crowded = engine.materialize(f"crowded_keys_{kind}", keys.filter(keys.profiles > 1).select(key_column(kind)))
    return engine.materialize(f"crowded_{kind}", _crowded(mine, crowded, mapping, kind))


def superseded(engine: Engine, crowded: ir.Table, kind: AccountType) -> ir.Table:
    """FILE, ROW and account of every superseded profile among the `rivals`."""
    return engine.materialize(f"superseded_{kind}", _older(crowded))


def near(engine: Engine, crowded: ir.Table, older: ir.Table, kind: AccountType) -> ir.Table:
    """FILE, ROW, account and `near` of the newest profile of every account that has a near one among the `rivals`."""
    candidates = crowded.filter(crowded.status == Status.CANDIDATE.value).anti_join(older, [FILE, ROW])
    newest = engine.materialize(f"newest_{kind}", candidates)
    return engine.materialize(f"near_{kind}", near_accounts(newest, newest))


def _crowded(rows: ir.Table, crowded: ir.Table, mapping: SyncMapping, kind: AccountType) -> ir.Table:
    among = rows.semi_join(crowded, key_column(kind))
    columns: dict[str, ir.Value] = {
        FILE: among[FILE],
        ROW: among[ROW],
        "account": among[account_column(kind)],
        "status": among[status_column(kind)],
    }
    if mapping.updated_at:
        columns["updated_at"] = orderable(among[mapping.updated_at])
    return among.select(**columns)


def _older(crowded: ir.Table) -> ir.Table:
    """`updated_at`, nulls oldest, then the later source row. The window form: arg_max does not spill."""
    candidates = crowded.filter(crowded.status == Status.CANDIDATE.value)
    newest_first = [ibis.desc(candidates[FILE]), ibis.desc(candidates[ROW])]
    if "updated_at" in candidates.columns:
        newest_first.insert(0, ibis.desc(candidates.updated_at, nulls_first=False))
    rank = ibis.row_number().over(group_by=candidates.account, order_by=newest_first)
    ranked = candidates.select(FILE, ROW, "account", rank=rank)
    return ranked.filter(ranked["rank"] > 0).drop("rank")
