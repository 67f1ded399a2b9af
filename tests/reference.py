"""What a sync must come to, worked out row by row in plain Python: the oracle that the engine is compared with.

Written from the rules alone: it imports nothing of the project and no engine, so that a mistake in a rule shows as a
difference. Everything is held in memory; it is for some hundred thousand profiles. It neither pushes nor writes.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from tests.reference_values import FailedByPolicyError, has_control_character, nearness, sendable

ACCOUNT_BYTES = {"user_id": 32, "registration_id": 36}
UNKNOWN_ACCOUNT_CODE = 70107
NOTICE: dict[str, Any] = {"severity": "notice", "outcome": None}
FAILED_ROW_COLUMNS = (
    *("stage", "severity", "outcome", "account", "account_type", "attribute", "column", "reason"),
    *("value", "sent_value", "value_bytes", "source_file", "source_row", "error_code"),
)
UNKNOWN_ACCOUNTS = {"user_id": "new-", "registration_id": "00000000-"}  # the emulator's defaults

__all__ = ["Change", "Counts", "Expected", "FailedByPolicyError", "Target", "expect"]

FailedRow = dict[str, Any]
Attributes = dict[str, dict[str, str]]  # account -> attribute -> value


@dataclass(frozen=True, slots=True)
class Target:
    """Which accounts the target knows: all but those that begin with the type's pattern and are not in `known`."""

    unknown_accounts: Mapping[str, str] = field(default_factory=lambda: dict(UNKNOWN_ACCOUNTS))
    known: frozenset[str] = frozenset()

    def knows(self, account: str, account_type: str) -> bool:
        pattern = self.unknown_accounts.get(account_type)
        return account in self.known or pattern is None or re.match(pattern, account) is None


@dataclass(frozen=True, slots=True)
class _Place:
    """Whom a failed row is about, and the source column that it is about."""

    account: str
    account_type: str
    column: str

    def facts(self) -> dict[str, str]:
        return {"account": self.account, "account_type": self.account_type, "column": self.column}


@dataclass(slots=True)
class Change:
    """What is sent for one account."""

    set: dict[str, str] = field(default_factory=dict)
    remove: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Counts:
    """The conservation counts of one account type; profiles up to `changed`, and what the changed are."""

    profiles: int = 0
    without_account: int = 0
    superseded: int = 0
    invalid: int = 0
    unchanged: int = 0
    changed: int = 0
    acknowledged: int = 0
    rejected: int = 0
    departed: int = 0  # accounts among the changed that have no profile any more


@dataclass(slots=True)
class Expected:
    """`attributes`: the target's final state. `changes` and `counts` by account type."""

    attributes: Attributes
    changes: dict[str, dict[str, Change]]
    failed_rows: list[FailedRow]
    counts: dict[str, Counts]


@dataclass(frozen=True, slots=True)
class _Claim:
    """What one account type makes of a profile: its account, or why there is none (`account` is then empty)."""

    verdict: Literal["without account", "invalid", "account"]
    account: str = ""


WITHOUT_ACCOUNT = _Claim("without account")
INVALID = _Claim("invalid")


@dataclass(frozen=True, slots=True)
class _Profile:
    values: Mapping[str, Any]
    file_number: int
    source_file: str
    source_row: int
    updated_at: Any

    def rank(self) -> tuple[bool, Any, int, int]:
        """The greatest is the newest; null stands below all times."""
        return (self.updated_at is not None, self.updated_at, self.file_number, self.source_row)


def expect(
    files: Sequence[Path | str],
    sync: Mapping[str, Any],
    *,
    target: Target | None = None,
    acknowledged: Mapping[str, Mapping[str, str]] | None = None,
) -> Expected:
    """What one run must come to. `files` in source order; `sync` is `attributes:` of the YAML; `source` is not read.

    `acknowledged`: account -> attribute -> value as the target took them before; none: the sync's first run.
    `source_file` of the failed rows is the file as given. Raises FailedByPolicyError.
    """
    accounts = {account_type: _normal(mapping) for account_type, mapping in sync["accounts"].items() if mapping}
    target = target or Target()
    before = {account: dict(attributes) for account, attributes in (acknowledged or {}).items()}
    expected = Expected(before, {t: {} for t in accounts}, [], {t: Counts() for t in accounts})
    source = _profiles(files, _columns(accounts, sync), sync.get("updated_at"))
    rivals, named = _classify(source, accounts, expected)
    for account_type, mapping in accounts.items():
        spellings: dict[str, set[str]] = {}
        for account in rivals[account_type]:
            spellings.setdefault(nearness(account), set()).add(account)
        for account, profiles in rivals[account_type].items():
            place = _Place(account, account_type, mapping["column"])
            winner = _newest(place, profiles, expected)
            for near in sorted(spellings[nearness(account)] - {account})[:1]:
                about = {"value": near, "value_bytes": len(near.encode()), **NOTICE}
                expected.failed_rows.append(_failed(winner, "account_near_another", **place.facts(), **about))
            change = _change(place, winner, mapping["attributes"], expected)
            _push(place, winner, change, target=target, expected=expected)
        if sync.get("departed") == "remove":
            for account, change in _departures(mapping, named[account_type], before):
                expected.counts[account_type].departed += 1
                place = _Place(account, account_type, mapping["column"])
                _push(place, None, change, target=target, expected=expected)
    expected.attributes = {account: attributes for account, attributes in before.items() if attributes}
    return expected


# Reading ------------------------------------------------------------------------------------------------------------


def _normal(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes in their long form; YAML reads the key `null` as None."""
    attributes = {}
    for name, given in mapping["attributes"].items():
        long_form = {"column": given} if isinstance(given, str) else given
        attributes[name] = {"null" if key is None else key: policy for key, policy in long_form.items()}
    return {"where": {}, "matches": None, **mapping, "attributes": attributes}


def _columns(accounts: Mapping[str, Any], sync: Mapping[str, Any]) -> list[str]:
    names = [sync["updated_at"]] if sync.get("updated_at") else []
    for mapping in accounts.values():
        names += [mapping["column"], *mapping["where"], *(a["column"] for a in mapping["attributes"].values())]
    return list(dict.fromkeys(names))


def _profiles(files: Sequence[Path | str], columns: list[str], updated_at: str | None) -> Iterator[_Profile]:
    """A column that a file lacks is null there; where a file's moments have no nanoseconds, nobody's have.

    What is no finite number is no moment.
    """
    schemas = [pq.read_schema(file) for file in files]
    types = {schema.field(updated_at).type for schema in schemas if updated_at in schema.names}
    units = {kind.unit for kind in types if pa.types.is_timestamp(kind)}
    for file_number, (file, schema) in enumerate(zip(files, schemas, strict=True)):
        source_row = 0
        present = [column for column in columns if column in schema.names]
        for batch in pq.ParquetFile(file).iter_batches(batch_size=10_000, columns=present):
            for values in batch.to_pylist():
                moment = values.get(updated_at) if updated_at else None
                if isinstance(moment, float) and not isfinite(moment):
                    moment = None
                if moment is not None and len(units) > 1 and hasattr(moment, "nanosecond"):
                    moment = moment.floor("us").to_pydatetime()
                yield _Profile(dict.fromkeys(columns) | values, file_number, str(file), source_row, moment)
                source_row += 1


# Accounts -----------------------------------------------------------------------------------------------------------


def _classify(
    profiles: Iterator[_Profile], accounts: Mapping[str, Any], expected: Expected
) -> tuple[dict[str, dict[str, list[_Profile]]], dict[str, set[str]]]:
    """By account type, the profiles that compete for each account, and the accounts that are named, also wrongly.

    Counts and reports all other profiles.
    """
    rivals: dict[str, dict[str, list[_Profile]]] = {account_type: {} for account_type in accounts}
    named: dict[str, set[str]] = {account_type: set() for account_type in accounts}
    for profile in profiles:
        claims, problems = _claims(profile, accounts)
        expected.failed_rows += problems
        for account_type, counts in expected.counts.items():
            counts.profiles += 1
            claim = claims[account_type]
            if claim.verdict == "without account":
                counts.without_account += 1
                continue
            named[account_type].add(_account_text(profile.values[accounts[account_type]["column"]]) or "")
            if claim.verdict == "invalid":
                counts.invalid += 1
            else:
                rivals[account_type].setdefault(claim.account, []).append(profile)
    return rivals, named


def _claims(profile: _Profile, accounts: Mapping[str, Any]) -> tuple[dict[str, _Claim], list[FailedRow]]:
    """What each account type makes of the profile, and the failed rows that explain it."""
    texts = {t: _account_text(profile.values[mapping["column"]]) for t, mapping in accounts.items()}
    columns = list(dict.fromkeys(mapping["column"] for mapping in accounts.values()))
    if not any(texts.values()):
        problem = _failed(profile, "account_missing", column=", ".join(columns))
        return dict.fromkeys(accounts, WITHOUT_ACCOUNT), [problem]
    if len(accounts) == 2 and len(columns) == 1:
        claims, problems = _claims_of_mixed_column(profile, accounts, texts)
    else:
        claims, problems = _claims_of_own_columns(profile, accounts, texts)
    for account_type, claim in claims.items():
        reason = _account_problem(claim.account, account_type)
        if claim.verdict == "account" and reason:
            place = _Place(claim.account, account_type, accounts[account_type]["column"])
            problems.append(_failed(profile, reason, **place.facts()))
            claims[account_type] = INVALID
    return claims, problems


def _claims_of_mixed_column(
    profile: _Profile, accounts: Mapping[str, Any], texts: Mapping[str, str | None]
) -> tuple[dict[str, _Claim], list[FailedRow]]:
    """Exactly one type has to claim the account."""
    claimants = [t for t, mapping in accounts.items() if _where(profile, mapping) and _matches(texts[t], mapping)]
    (column,) = {mapping["column"] for mapping in accounts.values()}
    (text,) = set(texts.values())
    if len(claimants) != 1:
        problem = _failed(profile, "account_type_ambiguous", column=column, account=text)
        return dict.fromkeys(accounts, INVALID), [problem]
    return {t: _Claim("account", text or "") if t in claimants else WITHOUT_ACCOUNT for t in accounts}, []


def _claims_of_own_columns(
    profile: _Profile, accounts: Mapping[str, Any], texts: Mapping[str, str | None]
) -> tuple[dict[str, _Claim], list[FailedRow]]:
    """Each type looks at its own column; the same text under both types is nobody's."""
    claims: dict[str, _Claim] = {}
    problems = []
    for account_type, mapping in accounts.items():
        text = texts[account_type]
        if text is None or not _where(profile, mapping):
            claims[account_type] = WITHOUT_ACCOUNT
        elif _matches(text, mapping):
            claims[account_type] = _Claim("account", text)
        else:
            claims[account_type] = INVALID
            place = _Place(text, account_type, mapping["column"])
            problems.append(_failed(profile, "account_type_ambiguous", **place.facts()))
    claimed = [claim.account for claim in claims.values() if claim.verdict == "account"]
    if len(claimed) == 2 and claimed[0] == claimed[1]:
        column = ", ".join(mapping["column"] for mapping in accounts.values())
        problem = _failed(profile, "account_type_ambiguous", column=column, account=claimed[0])
        return dict.fromkeys(accounts, INVALID), [problem]
    return claims, problems


def _account_text(value: object) -> str | None:
    """The account as it is; None where it is blank."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError(f"an account column of {type(value).__name__}")
    text = str(value)
    blank = all(char in " \t\n\r\f\v" or unicodedata.category(char)[0] == "Z" for char in text)
    return None if blank else text


def _where(profile: _Profile, mapping: Mapping[str, Any]) -> bool:
    return all(_equal(profile.values[column], wanted) for column, wanted in mapping["where"].items())


def _equal(value: object, wanted: object) -> bool:
    """Null equals nothing, and `true` is not 1."""
    return value is not None and isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


def _matches(text: str | None, mapping: Mapping[str, Any]) -> bool:
    return text is not None and (mapping["matches"] is None or re.fullmatch(mapping["matches"], text) is not None)


def _account_problem(account: str, account_type: str) -> str | None:
    if has_control_character(account):
        return "account_invalid"
    return "account_too_long" if len(account.encode()) > ACCOUNT_BYTES[account_type] else None


def _newest(place: _Place, profiles: Sequence[_Profile], expected: Expected) -> _Profile:
    newest = max(profiles, key=_Profile.rank)
    for profile in profiles:
        if profile is not newest:
            expected.counts[place.account_type].superseded += 1
            expected.failed_rows.append(_failed(profile, "superseded", **place.facts(), **NOTICE))
    return newest


# Values -------------------------------------------------------------------------------------------------------------


def _change(place: _Place, winner: _Profile, attributes: Mapping[str, Any], expected: Expected) -> Change:
    """What differs from what the target acknowledged; a value that is left out neither sets nor removes."""
    acknowledged = expected.attributes.get(place.account, {})
    change = Change()
    for name, attribute in attributes.items():
        value = winner.values[attribute["column"]]
        if value is None or value == "":
            if attribute.get("null", "leave") == "remove" and name in acknowledged:
                change.remove.append(name)
            continue
        too_long, decimals = attribute.get("too_long", "reject"), attribute.get("decimals")
        sent, problem = sendable(value, too_long=too_long, decimals=decimals)
        if problem:
            about = {**place.facts(), "column": attribute["column"], "attribute": name}
            notice = NOTICE if sent is not None else {}
            expected.failed_rows.append(_failed(winner, **about, **problem, **notice))
        if sent is not None and acknowledged.get(name) != sent:
            change.set[name] = sent
    return change


def _departures(mapping: Mapping[str, Any], named: set[str], acknowledged: Attributes) -> Iterator[tuple[str, Change]]:
    """Accounts that hold attributes of the type and that no profile names any more, to lose these."""
    for account, attributes in acknowledged.items():
        held = [name for name in mapping["attributes"] if name in attributes]
        if held and account not in named:
            yield account, Change(remove=held)


# Push ---------------------------------------------------------------------------------------------------------------


def _push(place: _Place, winner: _Profile | None, change: Change, *, target: Target, expected: Expected) -> None:
    """Set and removal are calls of their own, so that an unknown account may fail twice."""
    counts = expected.counts[place.account_type]
    stages = [stage for stage, content in (("push", change.set), ("remove", change.remove)) if content]
    if not stages:
        counts.unchanged += 1
        return
    counts.changed += 1
    expected.changes[place.account_type][place.account] = change
    if target.knows(place.account, place.account_type):
        counts.acknowledged += 1
        attributes = expected.attributes.setdefault(place.account, {})
        attributes.update(change.set)
        for name in change.remove:
            attributes.pop(name, None)
        return
    counts.rejected += 1
    refusal = {"outcome": "rejected", "error_code": UNKNOWN_ACCOUNT_CODE}
    for stage in stages:
        expected.failed_rows.append(_failed(winner, "account_unknown", stage=stage, **place.facts(), **refusal))


def _failed(profile: _Profile | None, reason: str, **known: Any) -> FailedRow:
    """A failed row; what is not known is null, and what is not said otherwise an error of the validation."""
    row = {**dict.fromkeys(FAILED_ROW_COLUMNS), "stage": "validate", "severity": "error", "outcome": "invalid"}
    if profile is not None:
        row |= {"source_file": profile.source_file, "source_row": profile.source_row}
    row |= {"reason": reason, **known}
    if set(row) != set(FAILED_ROW_COLUMNS):
        raise KeyError(set(row) - set(FAILED_ROW_COLUMNS))
    return row
