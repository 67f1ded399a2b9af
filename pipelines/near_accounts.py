"""Accounts that differ only by upper and lower case or by surrounding blanks: kept apart, and found to be reported.

Expressions only. Tencent takes such accounts for different users; in a source they are mostly one user, spelled twice.
"""

import ibis
import ibis.expr.types as ir

from pipelines.source_rows import FILE, ROW
from pipelines.values import utf8_bytes

_OUTER_BLANKS = r"\A\p{Z}+|\p{Z}+\z"  # tabs and line breaks make an account invalid


def folded(account: ir.StringValue) -> ir.StringValue:
    """One text for all accounts that are near each other: in lower case, without surrounding blanks of any script.

    An account of printed ASCII characters, as most are, is only looked at at its ends.
    """
    is_plain = account.between("!", "~~") & ~account.endswith(" ") & (utf8_bytes(account) == account.length())
    return ibis.ifelse(is_plain, account, account.re_replace(_OUTER_BLANKS, "")).lower()


def near_accounts(rows: ir.Table, among: ir.Table) -> ir.Table:
    """FILE, ROW and account of each of `rows` that has another account `among` near it, and the first such as `near`.

    First by the order of their UTF-8 bytes. Each account stands in `rows` once, in `among` as often as it likes. Both
    are folded row by row: pass in no more than what can have a neighbour.
    """
    mine = rows.select(FILE, ROW, "account", folded=folded(rows.account))
    others = among.select(other=among.account, other_folded=folded(among.account))
    pairs = mine.join(others, [("folded", "other_folded")])  # by name, since both may be the same table
    pairs = pairs.filter(pairs.account != pairs.other)
    return pairs.group_by(FILE, ROW, "account").agg(near=pairs.other.min())
