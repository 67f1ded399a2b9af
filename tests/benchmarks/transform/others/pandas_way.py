"""The same work in pandas, all of it in memory and by methods of whole columns; the types are the caller's."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from tests.benchmarks.transform.others.rules import (
    COLUMNS,
    FILTER,
    KINDS,
    MAX_BYTES,
    ORDER,
    REMOVED,
    TRUNCATED,
    Kind,
    truncated,
)
from tests.benchmarks.transform.task import Meter, Task

Test = Callable[[pd.Series], pd.Series]  # a column -> which rows, never null


@dataclass(frozen=True, slots=True)
class Types:
    """What depends on how pandas keeps its columns. `text` gives other types than text as text, `is_no_value` what of
    them cannot be sent.
    """

    read: Callable[[Path, list[str]], pd.DataFrame]
    is_blank: Test
    has_control: Test
    is_true: Test
    is_no_value: Test
    bytes_of: Callable[[pd.Series], pd.Series]
    text: Callable[[pd.Series], pd.Series]


@dataclass(slots=True)
class Notes:
    """What is reported: one row per profile, attribute and reason."""

    parts: list[pd.DataFrame] = field(default_factory=list)

    def add(
        self,
        accounts: pd.Series,
        which: pd.Series,
        reason: str | pd.Series,
        *,
        kind: str | None,
        attribute: str | None = None,
        value: pd.Series | None = None,
    ) -> None:
        """`reason` is one, or one per row of those that `which` marks."""
        columns = {"account": accounts[which], "account_type": kind, "attribute": attribute, "reason": reason}
        columns["value"] = None if value is None else value[which]
        self.parts.append(pd.DataFrame(columns))

    def write(self, path: Path) -> int:
        rows = pd.concat(self.parts)
        rows.index.name = "source_row"
        rows.reset_index().to_parquet(path, compression="zstd", index=False)
        return len(rows)


def work(types: Types) -> None:
    task = Task.from_command_line()
    meter = Meter()
    profiles = types.read(task.source, list(COLUMNS))
    notes = Notes()
    users, devices = (profiles[kind.column] for kind in KINDS)
    has_user, has_device = ~types.is_blank(users), ~types.is_blank(devices)
    notes.add(users, ~has_user & ~has_device, "account_missing", kind=None)
    is_enabled = types.is_true(profiles[FILTER])
    is_shared = (users == devices).fillna(False) & has_user & is_enabled
    notes.add(users, is_shared, "account_type_ambiguous", kind=None)
    has_account = {"user_id": has_user, "registration_id": has_device & is_enabled}
    changes = {}
    for kind in KINDS:
        accounts = newest(profiles, has_account[kind.name] & ~is_shared, kind, types=types, notes=notes)
        changes[kind.name] = write_changes(profiles, accounts, kind, types=types, notes=notes, task=task)
    meter.tell(changes, invalid_rows=notes.write(task.folder / "invalid_rows.parquet"))


def newest(profiles: pd.DataFrame, has_account: pd.Series, kind: Kind, *, types: Types, notes: Notes) -> pd.Series:
    """The valid accounts, each where its newest profile stands."""
    account = profiles[kind.column]
    is_invalid = has_account & types.has_control(account)
    is_too_long = has_account & ~is_invalid & (types.bytes_of(account) > kind.most_bytes).fillna(False)
    notes.add(account, is_invalid, "account_invalid", kind=kind.name)
    notes.add(account, is_too_long, "account_too_long", kind=kind.name)
    narrow = profiles.loc[has_account & ~is_invalid & ~is_too_long, [kind.column, ORDER]]
    in_order = narrow.sort_values(ORDER, kind="stable", na_position="first")
    is_older = in_order.duplicated(kind.column, keep="last")
    notes.add(in_order[kind.column], is_older, "superseded", kind=kind.name)
    return in_order.loc[~is_older, kind.column]


def write_changes(
    profiles: pd.DataFrame, accounts: pd.Series, kind: Kind, *, types: Types, notes: Notes, task: Task
) -> int:
    """How many accounts of `kind` change."""
    values = pd.DataFrame({"account": accounts})
    for name, column in kind.attributes.items():
        values[name] = _value(
            profiles.loc[accounts.index, column], name, kind, accounts=accounts, types=types, notes=notes
        )
    if task.state is not None:
        known = types.read(task.state / f"{kind.name}.parquet", list(values.columns))
        values = values.merge(known, how="left", on="account", suffixes=("", "_known"))
    for name in kind.attributes:
        is_changed = values[name].notna()
        if task.state is not None:
            is_changed &= (values[name] != values[f"{name}_known"]).fillna(True)
        values[f"{name}_changed"] = is_changed
    if task.state is not None and REMOVED in kind.attributes:
        values[f"{REMOVED}_removed"] = values[REMOVED].isna() & values[f"{REMOVED}_known"].notna()
    marks = [column for column in values.columns if column.endswith(("_changed", "_removed"))]
    changed = values.loc[values[marks].any(axis=1), ["account", *kind.attributes, *marks]]
    changed.to_parquet(task.folder / f"{kind.name}.parquet", compression="zstd", index=False)
    return len(changed)


def _value(column: pd.Series, name: str, kind: Kind, *, accounts: pd.Series, types: Types, notes: Notes) -> pd.Series:
    """Text that may be sent; missing for what may not."""
    if not pd.api.types.is_string_dtype(column.dtype) or column.name in ("balance", "vip_until"):
        if column.name == "score":
            notes.add(accounts, types.is_no_value(column), "value_invalid", kind=kind.name, attribute=name)
        return types.text(column)
    is_invalid = types.has_control(column)
    is_long = ~is_invalid & (types.bytes_of(column) > MAX_BYTES).fillna(False)
    notes.add(accounts, is_invalid, "value_invalid", kind=kind.name, attribute=name, value=column)
    reasons: str | pd.Series = "value_too_long"
    sent = column.mask(is_invalid | is_long | (column == "").fillna(False))
    if name == TRUNCATED:
        short = column[is_long].map(truncated).astype(column.dtype)
        sent[is_long] = short
        reasons = short.notna().map({True: "value_truncated", False: "value_too_long"})
    notes.add(accounts, is_long, reasons, kind=kind.name, attribute=name, value=column)
    return sent
