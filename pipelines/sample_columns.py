"""What stands in the columns of the sample profiles: accounts, values and their flaws, for any run of rows at once.

The shares are told in `sample_profiles.py`, which writes the files; the words are those of `sample_texts.py`.
Every function works on whole columns, never on single rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import sample_texts
from pipelines.sample_draws import Draws, Indexes, Mask
from pipelines.sample_texts import SCRIPT_SHARES, Script

REPEATED_SHARE = 0.03
UNKNOWN_USER_PREFIX = "new-"  # with the next, accounts that the emulator answers with 70107
UNKNOWN_DEVICE_PREFIX = "00000000-"

SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("device_id", pa.string()),
        ("gender", pa.string()),
        ("city", pa.string()),
        ("level", pa.int32()),
        ("vip_until", pa.date32()),
        ("balance", pa.decimal128(12, 2)),
        ("score", pa.float64()),
        ("nickname", pa.string()),
        ("push_enabled", pa.bool_()),
        ("signed_up_at", pa.timestamp("us", tz="UTC")),
        ("updated_at", pa.timestamp("us", tz="UTC")),
    ],
    metadata={"written_by": "pipelines.sample_profiles"},
)

_DAY_US = 86_400_000_000
_EXPORTED_AT_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z: nothing in a sample is later, vip_until apart
_EXPORTED_DAY = _EXPORTED_AT_US // _DAY_US
_USER_PREFIXES = pa.array(["u", "u", "u", "wx_", "user-", "U"])
_HEX = np.frombuffer(b"0123456789ABCDEF", dtype=np.uint8)
_DASHES = (8, 13, 18, 23)
_SCRIPTS = tuple(Script)
_GENDERS = pa.array(["female", "male", "other", "非公開", "", None])


@dataclass(frozen=True, slots=True)
class _Who:
    """Whom each row is about. `row` draws by row number; `person` alike for all rows of a person.

    `values` and `moment` are the row's own draws, or the person's first where a repeat copies them.
    """

    row: Draws
    person: Draws
    values: Draws
    moment: Draws

    @classmethod
    def of(cls, seed: int, numbers: Indexes) -> "_Who":
        row = Draws(seed, numbers)
        first = _first_rows(seed, numbers)
        values = np.where(row.chance("copy", 0.15), first, numbers)
        moment = np.where(row.chance("same moment", 0.10), first, values)
        return cls(row, Draws(seed, first), Draws(seed, values), Draws(seed, moment))


def _first_rows(seed: int, numbers: Indexes) -> Indexes:
    """The row in which the row's person appears first: mostly the row itself."""
    first = numbers
    while True:
        draws = Draws(seed, first)
        repeated = draws.chance("repeated", REPEATED_SHARE) & (first > 0)
        if not repeated.any():
            return first
        earlier = draws.below("of", first.astype(np.int64)).astype(np.uint64)
        first = np.where(repeated, earlier, first)


def sample_table(seed: int, *, begin: int, end: int) -> pa.Table:
    """The profiles number `begin` to `end - 1`, the same whatever the run of rows that they are made in."""
    who = _Who.of(seed, np.arange(begin, end, dtype=np.uint64))
    return pa.table(_columns(who), schema=SCHEMA)


def _columns(who: _Who) -> dict[str, pa.Array]:
    user_id, device_id = _accounts(who)
    signed_up_us, updated_us = _moments(who)
    values = who.values
    script = who.person.kind("script", [SCRIPT_SHARES[script] for script in _SCRIPTS[:-1]])
    return {
        "user_id": user_id,
        "device_id": device_id,
        "gender": _GENDERS.take(pa.array(who.person.kind("gender", [0.44, 0.42, 0.04, 0.01, 0.01]))),
        "city": _city(values, script),
        "level": pa.array(_level(values), pa.int32(), mask=values.chance("level null", 0.02)),
        "vip_until": _vip_until(values),
        "balance": _balance(values),
        "score": pa.array(_score(values), mask=values.chance("score null", 0.05)),
        "nickname": _nickname(values, script),
        "push_enabled": pa.array(values.uniform("push") < 0.9, mask=values.chance("push null", 0.05)),
        "signed_up_at": _timestamps(signed_up_us, null=who.person.chance("signed up null", 0.01)),
        "updated_at": _timestamps(updated_us, null=who.moment.chance("updated null", 0.005)),
    }


def _accounts(who: _Who) -> tuple[pa.Array, pa.Array]:
    person = who.person
    device_only, none, wrong, spoiled, unknown, _ = (
        person.kind("account", [0.05, 0.005, 0.003, 0.0002, 0.005]) == kind for kind in range(6)
    )
    own_device = wrong & person.chance("own device as user", 1 / 3)
    has_device = (device_only | own_device | person.chance("device", 0.35 / 0.944)) & ~none
    device_id = _device_ids(who, has_device)
    number = pc.cast(pa.array(_person_numbers(person)), pa.string())
    prefix = _USER_PREFIXES.take(pa.array(person.below("prefix", len(_USER_PREFIXES))))
    user_id = pc.binary_join_element_wise(prefix, number, "")
    user_id = _where(unknown, pc.binary_join_element_wise(UNKNOWN_USER_PREFIX, number, ""), user_id)
    user_id = _where(spoiled, pc.binary_join_element_wise(number, "\r", ""), user_id)
    user_id = _where(wrong, _uuids(person, "another device"), user_id)
    user_id = _where(own_device, device_id, user_id)
    user_id = _where(device_only, _blanks(who.row, "user", null=0.8), user_id)
    return _where(none, _blanks(who.row, "nobody", null=0.4), user_id), device_id


def _device_ids(who: _Who, has_device: Mask) -> pa.Array:
    """A person's device is the same in all rows, but after a reinstallation."""
    installed = np.where(who.row.chance("reinstalled", 0.10), who.row.indexes, who.person.indexes)
    draws = Draws(who.row.seed, installed)
    ids = _uuids(draws, "device")
    unknown = pc.binary_join_element_wise(UNKNOWN_DEVICE_PREFIX, pc.utf8_slice_codeunits(ids, 9), "")
    ids = _where(draws.chance("unknown device", 0.005), unknown, ids)
    return _where(~has_device, _blanks(who.row, "device", null=0.98), ids)


def _blanks(draws: Draws, name: str, *, null: float) -> pa.Array:
    """Null, or one of the ways to leave an id blank."""
    rest = (1.0 - null) / 3
    ways = pa.array([None, "", "  ", "\u3000"])  # the last is the ideographic space
    return ways.take(pa.array(draws.kind(f"{name} blank", [null, rest, rest])))


def _where(mask: Mask, then: pa.Array, otherwise: pa.Array) -> pa.Array:
    return pc.if_else(pa.array(mask), then, otherwise) if mask.any() else otherwise


def _person_numbers(person: Draws) -> npt.NDArray[np.int64]:
    """Eleven digits that differ between persons and do not count up."""
    scattered = (person.indexes * np.uint64(0x5851F42D5) + np.uint64(person.seed)) & np.uint64(2**36 - 1)
    return scattered.astype(np.int64) + 10_000_000_000


def _uuids(draws: Draws, name: str) -> pa.Array:
    """RegistrationIDs as push registration makes them: upper-case UUIDs of 36 characters."""
    count = len(draws.indexes)
    halves = np.stack([draws.bits(name), draws.bits(f"{name}, second half")], axis=1)
    octets = halves.view(np.uint8).reshape(count, 16)
    digits = np.stack([_HEX[octets >> 4], _HEX[octets & 15]], axis=2).reshape(count, 32)
    text = np.full((count, 36), ord("-"), dtype=np.uint8)
    text[:, [place for place in range(36) if place not in _DASHES]] = digits
    offsets = np.arange(0, 36 * (count + 1), 36, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text))


@dataclass(frozen=True, slots=True)
class _Pool:
    """Texts in segments, so that every row can draw from the segment of its own kind at once."""

    texts: pa.Array
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    @classmethod
    def of(cls, segments: Sequence[Sequence[str]]) -> "_Pool":
        lengths = [len(segment) for segment in segments]
        texts = pa.array([text for segment in segments for text in segment], pa.string())
        return cls(texts, np.array([0, *accumulate(lengths[:-1])]), np.array(lengths))

    def take(self, draws: Draws, name: str, *, segment: npt.NDArray[np.int64], skew: float, null: Mask) -> pa.Array:
        """A `skew` over 1 prefers the first texts of a segment."""
        limits = self.lengths[segment]
        places = (draws.uniform(name) ** skew * limits).astype(np.int64)
        return self.texts.take(pa.array(self.starts[segment] + places, mask=null))


@cache
def _city_pool() -> _Pool:
    by_script = [sample_texts.cities(script) for script in _SCRIPTS]
    spoiled = sample_texts.spoiled([cities[0] for cities in by_script])
    return _Pool.of([*by_script, sample_texts.LONG_CITIES, spoiled, [""]])


def _city(draws: Draws, script: npt.NDArray[np.int64]) -> pa.Array:
    special = draws.kind("city kind", [0.001, 0.0005, 0.01])
    segment = np.where(special < 3, special + len(_SCRIPTS), script)
    return _city_pool().take(draws, "city", segment=segment, skew=2.0, null=draws.chance("city null", 0.06))


@cache
def _nickname_pool() -> _Pool:
    plain = [sample_texts.plain_nicknames(script) for script in _SCRIPTS]
    decorated = [sample_texts.decorated_nicknames(script) for script in _SCRIPTS]
    spoiled = sample_texts.spoiled([names[0] for names in plain])
    return _Pool.of([*plain, *decorated, sample_texts.long_nicknames(), spoiled, [""]])


@cache
def _numbers_behind_names() -> pa.Array:
    return pa.array(["", *(str(number) for number in range(1, 1000)), *(str(year) for year in range(1980, 2016))])


def _nickname(draws: Draws, script: npt.NDArray[np.int64]) -> pa.Array:
    """A name; the plain and the too long ones with a number behind them half of the time."""
    long, _spoiled, empty, decorated, plain = range(5)
    kind = draws.kind("nickname kind", [0.01, 0.001, 0.01, 0.15])
    segment = np.where(
        kind <= empty, kind + 2 * len(_SCRIPTS), np.where(kind == decorated, script + len(_SCRIPTS), script)
    )
    names = _nickname_pool().take(
        draws, "nickname", segment=segment, skew=1.0, null=draws.chance("nickname null", 0.07)
    )
    numbered = ((kind == long) | (kind == plain)) & draws.chance("nickname numbered", 0.5)
    number = np.where(numbered, draws.below("nickname number", len(_numbers_behind_names())), 0)
    return pc.binary_join_element_wise(names, _numbers_behind_names().take(pa.array(number)), "")


def _level(draws: Draws) -> npt.NDArray[np.int32]:
    """Many beginners, few at level 100."""
    level: npt.NDArray[np.float64] = np.minimum(1 - 12 * np.log(1 - draws.uniform("level")), 100)
    return level.astype(np.int32)


def _vip_until(draws: Draws) -> pa.Array:
    days = _EXPORTED_DAY - 400 + draws.below("vip until", 800)
    return pa.array(days.astype(np.int32), mask=draws.chance("vip null", 0.88)).cast(pa.date32())


def _balance(draws: Draws) -> pa.Array:
    """A fifth have nothing, one in a hundred owes. Arrow holds a decimal as a 128-bit integer of its hundredths."""
    cents = (np.expm1(9 * draws.uniform("balance")) * 1234).astype(np.int64)
    cents = np.where(draws.chance("balance zero", 0.2), 0, cents)
    cents = np.where(draws.chance("balance owed", 0.01), -cents, cents)
    wide = np.stack([cents, cents >> 63], axis=1)
    present = np.packbits(~draws.chance("balance null", 0.1), bitorder="little")
    return pa.Array.from_buffers(pa.decimal128(12, 2), len(cents), [pa.py_buffer(present), pa.py_buffer(wide)])


def _score(draws: Draws) -> npt.NDArray[np.float64]:
    """Around 20, some just below zero; whole ones, halves and long fractions."""
    score = 20 * (draws.uniform("score") + draws.uniform("score too")) - 0.5
    score = np.where(draws.chance("score rounded", 0.3), np.round(score * 4) / 4, score)
    odd = np.array([np.nan, np.inf, -np.inf, -0.04])
    special = draws.kind("score special", [0.0005, 0.00005, 0.00005, 0.001])
    return np.where(special < len(odd), odd[np.minimum(special, len(odd) - 1)], score)


def _moments(who: _Who) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(signed_up_at, updated_at): most people were seen in the last weeks, and none before they signed up."""
    signed_up_us = _EXPORTED_AT_US - (who.person.uniform("signed up") ** 1.5 * 3000 * _DAY_US).astype(np.int64)
    age_us = (-30 * np.log(1 - who.moment.uniform("updated")) * _DAY_US).astype(np.int64)
    return signed_up_us, np.maximum(signed_up_us, _EXPORTED_AT_US - age_us)


def _timestamps(moment_us: npt.NDArray[np.int64], *, null: Mask) -> pa.Array:
    return pa.array(moment_us, mask=null).cast(pa.timestamp("us", tz="UTC"))
