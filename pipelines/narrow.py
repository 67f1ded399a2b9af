"""Which profiles need a closer look: one narrow pass over a key of the account and a digest of the profile's columns.

The digest is taken of the columns as the source holds them, before any rule is applied, together with a digest of the
rules: what is equal to a profile that was settled and had nothing to report gives the same result again. Everything
else is open and goes the long way, so that nothing here decides about a change. Counted here, decided elsewhere.
"""

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import orjson

from connectors.tencent_push import protocol
from connectors.tencent_push.protocol import AccountType
from pipelines import accounts, values
from pipelines.engine import ENGINE_VERSION, Engine
from pipelines.mapping import SyncMapping
from pipelines.near_accounts import folded

KEY, CONTENT = "__key", "__content"  # of an account, of a profile; as the state keeps them
# The hash and the regular expressions' Unicode tables are the engine's own: of another version nothing is believed.
HASH_VERSION = f"{ENGINE_VERSION}-2"  # 2: keys are those of folded accounts
_PROFILE_BITS, _STATE_BIT = 3, 1  # a profile's digest ends in binary 10, the same digest in the state in 11
_PAIR = 2
# What decides whether a profile is settled: another text of these files is another rule.
_PROGRAM = (
    *(Path(str(module.__file__)) for module in (values, accounts, protocol)),
    Path(__file__).with_name("comparison.py"),  # which needs this module
)
MOST_OPEN = 0.25  # above this fraction of acknowledged accounts, open profiles are not copied but read where they lie


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What is left to look at: `rows` are profiles with the columns key, open, account and status of each kind.

    `open` and `missing` (without any account) are counted in `rows`. `settled` are profiles as they were when Tencent
    had acknowledged everything of them, `without` those that have no account for sure. `known` is what the state says
    of open profiles' accounts, and of accounts that no profile has. `is_copy` tells whether `rows` are a small table
    of their own, or all profiles; of a copy, `aside` are the settled profiles, to be read where they lie.
    """

    rows: ir.Table
    is_copy: bool
    open: Mapping[AccountType, int]
    missing: int
    settled: Mapping[AccountType, int]
    without: Mapping[AccountType, int]
    known: Mapping[AccountType, ir.Table | None]
    aside: Mapping[AccountType, ir.Table]


def key_column(kind: AccountType) -> str:
    return f"{KEY}_{kind}"


def open_column(kind: AccountType) -> str:
    return f"__open_{kind}"


def account_column(kind: AccountType) -> str:
    return f"__account_{kind}"


def status_column(kind: AccountType) -> str:
    return f"__status_{kind}"


def account_key(account: ir.StringValue) -> ir.IntegerValue:
    """64 bits of the account. Two accounts may share them: equality is told by the account alone.

    Near accounts do, so that they are looked at together, and every night.
    """
    return _hashed(folded(account))


def content(profiles: ir.Table, mapping: SyncMapping, kind: AccountType) -> ir.IntegerValue:
    """64 bits of everything that decides what becomes of the profile, the rules included; never null."""
    mine = mapping.account_types()[kind]
    columns = dict.fromkeys(
        (*accounts.deciding_columns(mapping, kind), *(each.column for each in mine.attributes.values()))
    )
    parts = [
        ibis.literal(_rules(profiles, mapping, kind)),
        accounts.account_text(profiles, mine.column),
        *(profiles[column] for column in columns),
    ]
    if not mapping.is_mixed():
        parts.append(accounts.is_claimed_by_both(profiles, mapping))
    bits = ibis.literal(_PROFILE_BITS, "uint64")
    return (_hashed(*parts) | bits) - ibis.literal(_STATE_BIT, "uint64")


def narrowed(
    engine: Engine, profiles: ir.Table, mapping: SyncMapping, known: Mapping[AccountType, ir.Table | None]
) -> Narrowed:
    """The open profiles of every kind; all of them where nothing was acknowledged, or unchanged ones are wanted too."""
    keyed = profiles.mutate(**{key_column(kind): _key(profiles, mapping, kind) for kind in mapping.account_types()})
    states = {kind: known.get(kind) for kind in mapping.account_types()}
    if not any(_has_contents(engine, state) for state in states.values()):
        return _everything(engine, keyed, mapping, states)
    groups = {kind: _groups(engine, keyed, mapping, kind, state=state) for kind, state in states.items()}
    open_keys = {kind: table.filter(table[KEY].notnull()).select(KEY) for kind, table in groups.items()}
    kept = {kind: _count(engine, state) for kind, state in states.items()}
    if sum(_count(engine, keys) for keys in open_keys.values()) > MOST_OPEN * sum(kept.values()):
        return _everything(engine, keyed, mapping, states)
    looked_up = {kind: _known(engine, state, open_keys[kind], kind) for kind, state in states.items()}
    flagged = keyed.mutate(
        **{open_column(kind): keyed[key_column(kind)].isin(open_keys[kind][KEY]).fill_null(False) for kind in groups}
    )
    wanted = [flagged[open_column(kind)] for kind in groups]
    texts = {mine.column: accounts.account_text(profiles, mine.column) for mine in mapping.account_types().values()}
    maybe_missing = ibis.and_(*(accounts.may_be_blank(accounts.account_text(flagged, column)) for column in texts))
    left = flagged.filter(ibis.or_(*wanted, maybe_missing))
    rows = engine.materialize("open_profiles", _with_accounts(left, mapping))
    return _counted_rows(
        engine,
        rows,
        mapping,
        known=looked_up,
        aside={kind: _aside(keyed, open_keys[kind], kind) for kind in groups},
        settled={kind: kept[kind] - _count(engine, known) for kind, known in looked_up.items()},
        without={kind: _count_without(engine, table) for kind, table in groups.items()},
    )


def state_keys(known: ir.Table) -> ir.IntegerValue:
    """The keys of a state; computed where it keeps none that this engine would give."""
    return known[KEY] if KEY in known.columns else account_key(known.account)


def _has_contents(engine: Engine, state: ir.Table | None) -> bool:
    if state is None or CONTENT not in state.columns:
        return False
    return bool(engine.rows(state.filter(state[CONTENT].notnull()).select(CONTENT).limit(1)))


def _everything(
    engine: Engine, keyed: ir.Table, mapping: SyncMapping, states: Mapping[AccountType, ir.Table | None]
) -> Narrowed:
    kinds = list(mapping.account_types())
    rows = keyed.mutate(**{open_column(kind): accounts.may_have_account(keyed, mapping, kind) for kind in kinds})
    return _counted_rows(engine, _with_accounts(rows, mapping), mapping, known=states)


def _with_accounts(rows: ir.Table, mapping: SyncMapping) -> ir.Table:
    """Told once: to look into accounts is dear."""
    columns: dict[str, ir.Value] = {}
    for kind, mine in mapping.account_types().items():
        columns[account_column(kind)] = accounts.account_text(rows, mine.column)
        columns[status_column(kind)] = accounts.status(rows, mapping, kind)
    return rows.mutate(**columns)


def _counted_rows(
    engine: Engine,
    rows: ir.Table,
    mapping: SyncMapping,
    *,
    known: Mapping[AccountType, ir.Table | None],
    aside: Mapping[AccountType, ir.Table] | None = None,
    settled: Mapping[AccountType, int] | None = None,
    without: Mapping[AccountType, int] | None = None,
) -> Narrowed:
    """`aside`, `settled` and `without` where such profiles were set aside."""
    kinds = list(mapping.account_types())
    sums = {kind.value: rows[open_column(kind)].sum() for kind in kinds}
    sums |= {f"not_{kind}": (~rows[open_column(kind)]).sum() for kind in kinds}
    (found,) = engine.rows(rows.aggregate(missing=is_missing(rows, mapping).sum(), **sums))
    counted = {name: int(count or 0) for name, count in found.items()}
    return Narrowed(
        rows=rows,
        is_copy=aside is not None,
        open={kind: counted[kind.value] for kind in kinds},
        missing=counted["missing"],
        settled=settled or dict.fromkeys(kinds, 0),
        without=without or {kind: counted[f"not_{kind}"] for kind in kinds},
        known=known,
        aside=aside or {},
    )


def is_missing(profiles: ir.Table, mapping: SyncMapping) -> ir.BooleanValue:
    """Whether no account of any kind stands in the profile."""
    columns = dict.fromkeys(mine.column for mine in mapping.account_types().values())
    return ibis.and_(*(accounts.is_blank(accounts.account_text(profiles, column)) for column in columns))


def _key(profiles: ir.Table, mapping: SyncMapping, kind: AccountType) -> ir.IntegerValue:
    """Null where the profile has no account of this kind for sure."""
    account = accounts.account_text(profiles, mapping.account_types()[kind].column)
    return ibis.ifelse(accounts.may_have_account(profiles, mapping, kind), account_key(account), ibis.null("uint64"))


def _groups(
    engine: Engine, keyed: ir.Table, mapping: SyncMapping, kind: AccountType, *, state: ir.Table | None
) -> ir.Table:
    """Open keys, and one row without a key for the profiles without account; what is settled is left out.

    A group of one profile and one account of the state whose digests are equal is settled. Both sides are told apart
    by the last bit, so that nothing else comes to a pair whose exclusive or is that bit.
    """
    sides = keyed.select(**{KEY: keyed[key_column(kind)], CONTENT: content(keyed, mapping, kind)})
    if state is not None:
        stored = state[CONTENT] if CONTENT in state.columns else ibis.null("uint64")
        marked = stored.fill_null(ibis.literal(0, "uint64")) | ibis.literal(_STATE_BIT, "uint64")
        sides = sides.union(state.select(**{KEY: state_keys(state), CONTENT: marked}))
    grouped = sides.group_by(KEY).agg(members=sides.count(), both=sides[CONTENT].bit_xor())
    is_settled = (grouped.members == _PAIR) & (grouped.both == _STATE_BIT) & grouped[KEY].notnull()
    return engine.materialize(f"groups_{kind}", grouped.filter(~is_settled).select(KEY, "members"))


def _aside(keyed: ir.Table, open_keys: ir.Table, kind: AccountType) -> ir.Table:
    mine = keyed.filter(keyed[key_column(kind)].notnull())
    return mine.anti_join(open_keys, mine[key_column(kind)] == open_keys[KEY])


def _known(engine: Engine, state: ir.Table | None, open_keys: ir.Table, kind: AccountType) -> ir.Table | None:
    if state is None:
        return None
    return engine.materialize(f"known_{kind}", state.mutate(**{KEY: state_keys(state)}).semi_join(open_keys, KEY))


def _count(engine: Engine, table: ir.Table | None) -> int:
    return 0 if table is None else int(engine.rows(table.aggregate(rows=table.count()))[0]["rows"])


def _count_without(engine: Engine, groups: ir.Table) -> int:
    (found,) = engine.rows(groups.aggregate(profiles=groups.members.sum(where=groups[KEY].isnull())))
    return int(found["profiles"] or 0)


def _rules(profiles: ir.Table, mapping: SyncMapping, kind: AccountType) -> str:
    """Of what else than the profile decides what becomes of it; another program or another mapping is another rule."""
    facts = {
        "kind": kind.value,
        "accounts": mapping.accounts.model_dump(mode="json"),
        "types": {column: str(profiles[column].type()) for column in mapping.columns()},
        "program": [_digest_of(file.read_bytes()) for file in _PROGRAM],
        "expressions": ibis.__version__,
        "engine": HASH_VERSION,  # a frame may be folded by a later program than the one that computed it
    }
    return _digest_of(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS))


def _digest_of(facts: bytes) -> str:
    return hashlib.sha256(facts).hexdigest()


def _hashed(*parts: ir.Value) -> ir.IntegerValue:
    """The engine's own hash, which takes any number of values of any type; Ibis wants to know how many."""

    def hashed() -> None: ...

    names = [f"part_{number}" for number in range(len(parts))]
    hashed.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what Ibis reads
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    )
    kinds = tuple(part.type() for part in parts)
    function = ibis.udf.scalar.builtin(hashed, name="hash", signature=(kinds, dt.uint64))
    result: ir.IntegerValue = function(*parts)
    return result
