"""Profiles dense with edges, by seed: several files of differing columns and types, in many scripts, and their edits.

For tests against `reference.py`. Two nights of one seed are the same profiles, some of them changed, gone or new.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.pipelines.value_texts import ALIKE, CLUSTERS, CONTROL, TOO_LARGE

Row = dict[str, Any]

USER_ATTRIBUTES: dict[str, Any] = {
    "city": {"column": "city", "too_long": "truncate", "null": "remove"},
    "name": "name",
    "level": "level",
    "price": "price",
    "score": {"column": "score", "decimals": 2},
}
DEVICE_ATTRIBUTES: dict[str, Any] = {
    "device_city": {"column": "city", "too_long": "truncate"},
    "born": "born",
    "until": "until",
    "push": "flag",
}


def _sync(user: Mapping[str, Any] | None, device: Mapping[str, Any] | None, **options: Any) -> dict[str, Any]:
    accounts = {"user_id": user and {"attributes": USER_ATTRIBUTES, **user}}
    accounts["registration_id"] = device and {"attributes": DEVICE_ATTRIBUTES, **device}
    return {"accounts": {kind: mine for kind, mine in accounts.items() if mine}, **options}


SYNCS: Sequence[dict[str, Any]] = (
    _sync({"column": "user"}, {"column": "device", "where": {"flag": True}}, updated_at="moment"),
    _sync({"column": "user"}, {"column": "device"}, updated_at="moment", departed="remove"),
    _sync(
        {"column": "user", "where": {"kind": "user"}},
        {"column": "user", "where": {"kind": "device"}},
        updated_at="moment",
    ),
    _sync({"column": "user", "matches": "[^0-9A-Fa-f].*"}, {"column": "user", "matches": "[0-9A-Fa-f-]{8,}"}),
    _sync({"column": "user", "where": {"flag": False, "kind": "user"}}, None, departed="remove"),
    _sync({"column": "user"}, {"column": "device"}, updated_at="level", frames="all"),
)
FILES = 7  # of every night, the first and the last but one of them empty
_EMPTY = (0, FILES - 2)


@dataclass(frozen=True, slots=True)
class EdgeProfiles:
    """One night: the rows of each file, and the type of each file's columns; what has no type is not in the file."""

    rows: tuple[list[Row], ...]
    types: tuple[dict[str, pa.DataType], ...]

    def write(self, folder: Path) -> list[Path]:
        """The files, in row groups of several sizes, unknown columns between the known."""
        paths = []
        for number, (rows, types) in enumerate(zip(self.rows, self.types, strict=True)):
            columns = {f"new_{number}": pa.array(range(len(rows)))}
            for name, kind in types.items():
                columns[name] = pa.array([row[name] for row in rows], kind)
            path = folder / f"part {number}-[{number}].parquet"
            pq.write_table(pa.table(columns), path, row_group_size=max(10, len(rows) // 5))
            paths.append(path)
        return paths


def edge_profiles(rows: int, *, seed: int) -> EdgeProfiles:
    draw = random.Random(seed)
    makers = _makers(draw, accounts=max(3, rows * 3 // 4))
    made: list[list[Row]] = [[] for _ in range(FILES)]
    homes = draw.choices([number for number in range(FILES) if number not in _EMPTY], (60, 1, 20, 9, 10), k=rows)
    for home in homes:
        made[home].append({name: make() for name, make in makers.items()})
    return EdgeProfiles(tuple(made), tuple(_types(draw, number, seed) for number in range(FILES)))


def edited(before: EdgeProfiles, *, seed: int, widened: bool) -> EdgeProfiles:
    """Some profiles are gone, changed, doubled or new; `widened`: columns have other types than the night before."""
    draw = random.Random(seed + 1_000_003)
    everything = [row for rows in before.rows for row in rows]
    makers = _makers(draw, accounts=max(3, len(everything) * 3 // 4))
    nights = []
    for number, rows in enumerate(before.rows):
        kept = [dict(row) for row in rows if draw.random() > 0.02]
        for row in kept:
            if draw.random() < 0.03:
                for name in draw.sample(sorted(makers), 2):
                    row[name] = makers[name]()
        if number not in _EMPTY:
            doubled = [dict(row) for row in draw.choices(everything, k=len(rows) // 100)]
            new = [{name: make() for name, make in makers.items()} for _ in range(len(rows) // 100)]
            kept += doubled + new
        nights.append(kept)
    types = tuple(_types(draw, number, seed + widened) for number in range(FILES)) if widened else before.types
    return EdgeProfiles(tuple(nights), types)


def _makers(draw: random.Random, *, accounts: int) -> dict[str, Callable[[], Any]]:
    """A maker of values for each column; the few values that every type of a column holds."""
    cities = [None, "", "上海", "กรุงเทพมหานคร", "القاهرة", "Köln", "서울특별시"]
    long_texts = _long_texts(draw)
    names = [None, "", *(f"{cluster}{number}" for number, cluster in enumerate(CLUSTERS))]
    spoiled = _spoiled(draw)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    moments = [None, *(start + timedelta(milliseconds=draw.choice((0, 1, 999, 60_000))) for _ in range(6))]
    moments += [datetime(1, 1, 1, tzinfo=UTC) + timedelta(days=365 * 1700), start]
    untils = [None, datetime(1969, 12, 31, 23, 59, 59, 999_000), datetime(2024, 2, 29), datetime(2261, 1, 1)]
    return {
        "user": lambda: _account(draw, draw.randrange(accounts)),
        "device": lambda: _device(draw, 1 + draw.randrange(accounts)),  # the reference takes 0 for unknown to the app
        "kind": lambda: draw.choice(("user", "user", "user", "device", "robot", "User", None)),
        "flag": lambda: draw.choice((True, True, False, None)),
        "city": lambda: draw.choice(cities if draw.random() < 0.7 else long_texts),
        "name": lambda: draw.choice(names if draw.random() < 0.9 else spoiled),
        "level": lambda: draw.choice((0, 1, 2, 127, None)),
        "price": lambda: draw.choice((None, Decimal("0.05"), Decimal("-0.50"), Decimal("999.99"))),
        "score": lambda: draw.choice((None, 0.0, -0.0, 0.125, -0.001, float("nan"), float("inf"), 1024.5)),
        "born": lambda: draw.choice((None, date(1, 1, 1), date(1969, 12, 31), date(2000, 2, 29), date(9999, 12, 31))),
        "until": lambda: draw.choice(untils),
        "moment": lambda: draw.choice(moments),
    }


def _account(draw: random.Random, number: int) -> str | None:
    """Mostly one plain id per number; else its neighbours, other scripts, and what is no account."""
    if draw.random() < 0.7:
        return f"u{number}"
    spellings = (
        f"U{number}", f"u{number} ", f"\u3000u{number}", f"Ü{number}", f"ü{number}", f"用户{number}", f"ผู้ใช้{number}",
        f"مستخدم{number}", f"👩🏽‍🚀{number}", f"u\u200b{number}", f"{number:032d}", f"u{number}".ljust(33, "x"),
        f"é{number}".ljust(31, "é"), f"u{number}{draw.choice(CONTROL)}", None, "", " ", "\u3000\u00a0", "null", "u",
    )  # fmt: skip
    return draw.choice((*spellings, _device(draw, number + 1)))


def _device(draw: random.Random, number: int) -> str | None:
    if draw.random() < 0.8:
        return f"{number:08X}-0D29-47AE-94D1-{number * 7:012X}"
    spelled = f"{number:08X}-0d29-47ae-94d1-{number * 7:012x}"
    return draw.choice((None, "", "\u2003", spelled, spelled + "0", f"u{number}", f" {number:08X}", "0" * 36))


def _long_texts(draw: random.Random) -> list[str]:
    """Around the limit of 50 bytes in every script, and some that are alike once they are cut."""
    made = []
    for cluster in (*CLUSTERS, TOO_LARGE):
        for size in draw.sample(range(40, 54), 3):
            filler = draw.choice(("x", "上", "ก", "ب"))
            made.append(filler * (size // len(filler.encode())) + cluster + draw.choice(("", "y", cluster)))
    return made + ["同" * 16 + "ab" + str(number) for number in range(4)]


def _spoiled(draw: random.Random) -> list[str]:
    return [f"a{draw.choice(CONTROL)}b", f"a{draw.choice(ALIKE)}b", "x" * 50, "x" * 51, "上" * 17, " x ", "'\"; --"]


def _types(draw: random.Random, number: int, seed: int) -> dict[str, pa.DataType]:
    """What the columns of one file are. The first file has all, in its widest types; the second is of users alone."""
    texts = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
    zones = ("UTC", "Asia/Shanghai", "America/New_York")
    units = ("us", "ms") if seed % 2 else ("us", "ms", "ns")
    types = {name: draw.choice(texts) for name in ("user", "device", "kind", "city", "name")}
    types |= {
        "flag": pa.bool_(),
        "level": draw.choice((pa.int8(), pa.uint8(), pa.int16(), pa.uint32(), pa.int64())),
        "price": draw.choice((pa.decimal128(5, 2), pa.decimal128(38, 2), pa.decimal256(12, 2))),
        "score": draw.choice((pa.float16(), pa.float32(), pa.float64())),
        "born": draw.choice((pa.date32(), pa.date64())),
        "until": pa.timestamp(draw.choice(units)),
        "moment": pa.timestamp(draw.choice(units), draw.choice(zones)),
    }
    if number == FILES - 1:
        for name in draw.sample(("name", "price", "score", "born", "until"), 2):
            del types[name]
    return types
