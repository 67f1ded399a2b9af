"""The sample is the same for a seed, holds what its docstring promises, and never spoils a folder."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from connectors.tencent_push.emulator import store
from pipelines import sample_columns, sample_profiles
from pipelines.sample_columns import SCHEMA, sample_table
from pipelines.sample_profiles import SampleFolderError, main, write_sample_profiles
from tests.reference import UNKNOWN_ACCOUNTS, expect

ROWS = 100_000
REGISTRATION_ID = re.compile(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}")
EXAMPLE = Path(sample_profiles.__file__).parent / "defs" / "example" / "defs.yaml"

Profile = dict[str, Any]


@pytest.fixture(scope="module")
def profiles() -> list[Profile]:
    rows: list[Profile] = sample_table(7, begin=0, end=ROWS).to_pylist()
    return rows


def read(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("*.parquet")))


def same(one: pa.Table, other: pa.Table) -> bool:
    """NaN differs from itself; its text does not."""
    score = SCHEMA.get_field_index("score")
    first, second = (
        table.set_column(score, "score", table["score"].cast(pa.string())).combine_chunks() for table in (one, other)
    )
    return bool(first.equals(second))


def blank(account: str | None) -> bool:
    return account is None or not account.strip()


def too_long(value: str | None) -> bool:
    return value is not None and len(value.encode()) > 50


def spoiled(value: str | None) -> bool:
    return value is not None and any(unicodedata.category(char) == "Cc" for char in value)


def test_a_seed_means_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_sample_profiles(tmp_path / folder, 12_000, 3)
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in ("one", "two")
    )
    assert first == second
    assert len(first) == 2


def test_another_seed_means_other_profiles() -> None:
    first, second = (set(sample_table(seed, begin=0, end=1000)["user_id"].to_pylist()) for seed in (1, 2))
    assert len(first & second) < 10  # the blanks


def test_a_profile_is_the_same_whatever_is_made_with_it() -> None:
    whole = sample_table(3, begin=0, end=3000)
    assert same(whole.slice(1000, 500), sample_table(3, begin=1000, end=1500))


def test_the_files_hold_the_rows_in_order_whatever_their_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_profiles, "ROWS_PER_PART", 700)
    monkeypatch.setattr(sample_profiles, "ROWS_PER_CHUNK", 300)
    heard: list[int] = []
    parts = write_sample_profiles(tmp_path, 2000, 3, on_part=heard.append)
    assert [path.name for path in parts] == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert heard == [666, 1333, 2000]
    assert pq.ParquetFile(parts[0]).num_row_groups == 3
    assert same(read(tmp_path), sample_table(3, begin=0, end=2000))


@pytest.mark.parametrize(("rows", "files"), [(0, 1), (1, 1), (9_999, 1), (10_000, 2)])
def test_several_files_from_ten_thousand_rows(tmp_path: Path, rows: int, files: int) -> None:
    assert len(write_sample_profiles(tmp_path, rows, 1)) == files
    table = read(tmp_path)
    assert (table.num_rows, table.schema) == (rows, SCHEMA)


def test_an_earlier_sample_is_replaced_whole(tmp_path: Path) -> None:
    write_sample_profiles(tmp_path, 10_000, 1)
    write_sample_profiles(tmp_path, 10, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["part-00000.parquet"]
    assert read(tmp_path).num_rows == 10


def test_a_failure_leaves_the_earlier_sample(tmp_path: Path) -> None:
    write_sample_profiles(tmp_path, 10_000, 1)
    before = read(tmp_path)

    def disk_full(_rows: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_sample_profiles(tmp_path, 20_000, 2, on_part=disk_full)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part-00000.parquet", "part-00001.parquet"]
    assert same(read(tmp_path), before)


@pytest.mark.parametrize("content", [b"not Parquet", None])
def test_files_of_others_are_never_touched(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "part-00000.parquet"
    if content is None:
        pq.write_table(pa.table({"user_id": ["u1"]}), theirs)
    else:
        theirs.write_bytes(content)
    before = theirs.read_bytes()
    with pytest.raises(SampleFolderError, match=r"part-00000\.parquet"):
        write_sample_profiles(tmp_path, 10, 1)
    assert main(["--rows", "10", str(tmp_path)]) == 1
    assert "choose an empty or a new folder" in capsys.readouterr().err
    assert (theirs.read_bytes(), len(list(tmp_path.iterdir()))) == (before, 1)


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rows", "10000", "--seed", "5", str(tmp_path / "deep" / "er")]) == 0
    assert capsys.readouterr().out.startswith("10,000 profiles in 2 files under ")
    assert same(read(tmp_path / "deep" / "er"), sample_table(5, begin=0, end=10_000))


@pytest.mark.parametrize("rows", ["-1", "many"])
def test_the_command_refuses_what_is_no_number_of_rows(tmp_path: Path, rows: str) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--rows", rows, str(tmp_path / "out")])
    assert refused.value.code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("share", "flaw"),
    [
        (0.055, lambda p: blank(p["user_id"])),
        (0.05, lambda p: blank(p["user_id"]) and not blank(p["device_id"])),
        (0.005, lambda p: blank(p["user_id"]) and blank(p["device_id"])),
        (0.4, lambda p: not blank(p["device_id"])),
        (0.003, lambda p: p["user_id"] and REGISTRATION_ID.fullmatch(p["user_id"])),
        (0.001, lambda p: p["user_id"] and p["user_id"] == p["device_id"] and not blank(p["user_id"])),
        (0.0002, lambda p: not blank(p["user_id"]) and spoiled(p["user_id"])),
        (0.005, lambda p: (p["user_id"] or "").startswith("new-")),
        (0.002, lambda p: (p["device_id"] or "").startswith("00000000-")),
        (0.01 * 0.93, lambda p: too_long(p["nickname"])),
        (0.001 * 0.94, lambda p: too_long(p["city"])),
        (0.001 * 0.93, lambda p: spoiled(p["nickname"])),
        (0.0005 * 0.94, lambda p: spoiled(p["city"])),
        (0.0006, lambda p: p["score"] is not None and not math.isfinite(p["score"])),
        *((0.01, lambda p, name=name: p[name] == "") for name in ("gender", "city", "nickname")),
        (0.08, lambda p: p["gender"] is None),
        (0.06, lambda p: p["city"] is None),
        (0.02, lambda p: p["level"] is None),
        (0.88, lambda p: p["vip_until"] is None),
        (0.1, lambda p: p["balance"] is None),
        (0.05, lambda p: p["score"] is None),
        (0.07, lambda p: p["nickname"] is None),
        (0.05, lambda p: p["push_enabled"] is None),
        (0.01, lambda p: p["signed_up_at"] is None),
        (0.005, lambda p: p["updated_at"] is None),
    ],
)
def test_each_flaw_has_its_documented_share(
    profiles: list[Profile], share: float, flaw: Callable[[Profile], object]
) -> None:
    hits = sum(bool(flaw(profile)) for profile in profiles)
    assert abs(hits - share * ROWS) < 6 * (share * ROWS) ** 0.5


def test_three_in_a_hundred_profiles_repeat_an_account(profiles: list[Profile]) -> None:
    seen: dict[str, Profile] = {}
    repeats = []
    for profile in profiles:
        if not blank(profile["user_id"]):
            first = seen.setdefault(profile["user_id"], profile)
            repeats += [(first, profile)] if first is not profile else []
    assert 0.026 * ROWS < len(repeats) < 0.03 * ROWS  # 5.5 % of the repeated have no user_id
    facts = Counter[str]()
    for first, again in repeats:
        values = ("city", "level", "balance", "nickname", "score")
        facts["the same values"] += all(first[name] == again[name] for name in values)
        facts["the same time"] += first["updated_at"] == again["updated_at"]
        if first["updated_at"] and again["updated_at"]:
            facts["an older time"] += again["updated_at"] < first["updated_at"]
        facts["another device"] += first["device_id"] != again["device_id"] and not blank(first["device_id"])
    assert 0.1 < facts["the same values"] / len(repeats) < 0.2
    assert 0.18 < facts["the same time"] / len(repeats) < 0.3
    assert facts["an older time"] / len(repeats) > 0.25
    assert 0.02 < facts["another device"] / len(repeats) < 0.06


def test_device_ids_are_registration_ids_and_users_of_one_device_are_one_person(profiles: list[Profile]) -> None:
    users: dict[str, set[str]] = {}
    for profile in profiles:
        if not blank(profile["device_id"]):
            assert REGISTRATION_ID.fullmatch(profile["device_id"])
            users.setdefault(profile["device_id"], set()).update(
                [] if blank(profile["user_id"]) else [profile["user_id"]]
            )
    assert max(map(len, users.values())) == 1


@pytest.mark.parametrize("sign", ["LATIN", "CJK UNIFIED", "THAI", "ARABIC", "CYRILLIC", "HIRAGANA", "HANGUL SYLLABLE"])
@pytest.mark.parametrize("column", ["city", "nickname"])
def test_every_script_is_there(profiles: list[Profile], column: str, sign: str) -> None:
    texts = {profile[column] for profile in profiles if profile[column]}
    assert any(unicodedata.name(char, "").startswith(sign) for text in texts for char in text)


@pytest.mark.parametrize(
    "sign", ["\u200d", "\ufe0f", "\U0001f3fd", "e\u0301", "🇹🇭", "👨‍👩‍👧‍👦", "\U000e007f", "𠮷", "\u1112\u1161\u11ab"]
)
def test_nicknames_hold_joiners_skin_tones_flags_and_rare_characters(profiles: list[Profile], sign: str) -> None:
    assert any(sign in (profile["nickname"] or "") for profile in profiles)


def test_some_values_have_exactly_as_many_bytes_as_fit(profiles: list[Profile]) -> None:
    assert any(len((profile["nickname"] or "").encode()) == 50 for profile in profiles)


def test_different_long_nicknames_become_equal_by_truncation(profiles: list[Profile]) -> None:
    long = {profile["nickname"] for profile in profiles if too_long(profile["nickname"])}
    assert len({name.encode()[:50] for name in long}) < len(long)


def test_no_text_holds_nul_which_postgresql_has_not(profiles: list[Profile]) -> None:
    assert not any("\x00" in value for profile in profiles for value in profile.values() if isinstance(value, str))


def test_nobody_was_updated_before_signing_up_or_after_the_export(profiles: list[Profile]) -> None:
    dated = [p for p in profiles if p["updated_at"] and p["signed_up_at"]]
    assert all(p["signed_up_at"] <= p["updated_at"] for p in dated)
    assert max(p["updated_at"] for p in dated).year == 2025


def test_the_unknown_accounts_are_those_of_the_emulator() -> None:
    prefixes = (sample_columns.UNKNOWN_USER_PREFIX, sample_columns.UNKNOWN_DEVICE_PREFIX)
    assert prefixes == (store.UNKNOWN_USER_ID_PREFIX, store.UNKNOWN_REGISTRATION_ID_PREFIX)
    assert prefixes == (UNKNOWN_ACCOUNTS["user_id"], UNKNOWN_ACCOUNTS["registration_id"])


def test_the_example_meets_every_reason(tmp_path: Path) -> None:
    files = write_sample_profiles(tmp_path, 50_000, 1)
    sync = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))["attributes"]
    expected = expect(files, sync)
    assert {row["reason"] for row in expected.failed_rows} == {
        "account_missing",
        "account_invalid",
        "account_too_long",
        "account_type_ambiguous",
        "superseded",
        "value_invalid",
        "value_too_long",
        "value_truncated",
        "account_unknown",
    }
    errors = [row for row in expected.failed_rows if row["severity"] == "error"]
    assert len(errors) < 0.05 * 50_000  # within the default guard
