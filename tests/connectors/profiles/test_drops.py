"""A drop of files is taken once, when it is complete: by `_SUCCESS`, by quiet, or by both."""

from collections.abc import Mapping

import pytest

from connectors.profiles.drops import Completeness, Look, Watched, fingerprint, look
from connectors.profiles.files import FoundFile, Place

SUCCESS = Completeness(success_file=True, quiet_seconds=0)
QUIET = Completeness(success_file=False, quiet_seconds=600)
BOTH = Completeness(success_file=True, quiet_seconds=600)


def file(name: str = "a.parquet", *, bytes_: int = 10, at: int = 100) -> FoundFile:
    return FoundFile(Place(f"/lake/profiles/{name}", "/lake/profiles"), bytes_, at)


def looked(
    *files: FoundFile,
    watched: Watched | None = None,
    rule: Completeness = QUIET,
    now: float = 0.0,
    success: Mapping[str, int] | None = None,
) -> Look:
    return look(files, watched or Watched(), rule, now=now, success_ns=(success or {}).get)


def test_a_drop_is_taken_when_nothing_changed_for_the_quiet_period() -> None:
    first = looked(file(), now=1000)
    assert first.key is None
    assert "10.0 minutes" in first.why
    early = looked(file(), watched=first.watched, now=1599)
    assert early.key is None
    taken = looked(file(), watched=early.watched, now=1600)
    assert taken.key == f"drop-1-{fingerprint([file()])}"
    after = looked(file(), watched=taken.watched, now=9999)
    assert after.key is None
    assert "drop 1 (1 file, 10 bytes) has had its run" in after.why


@pytest.mark.parametrize(
    "changed",
    [
        (file(at=101),),
        (file(bytes_=11),),
        (file("b.parquet"),),
        (file(), file("b.parquet", at=1)),  # moved here with its old time: the newest time alone would miss it
    ],
    ids=["another time", "another size", "another name", "one more, older than the others"],
)
def test_any_change_begins_the_quiet_period_anew(changed: tuple[FoundFile, ...]) -> None:
    first = looked(file(), now=0)
    second = looked(*changed, watched=first.watched, now=599)
    assert looked(*changed, watched=second.watched, now=1198).key is None
    assert looked(*changed, watched=second.watched, now=1199).key


def test_the_order_of_a_listing_is_no_change() -> None:
    assert fingerprint([file("a.parquet"), file("b.parquet")]) == fingerprint([file("b.parquet"), file("a.parquet")])


def test_a_drop_that_comes_back_after_another_is_a_new_one() -> None:
    """A restored backup has the very names, sizes and times; a run key of before would be passed over by Dagster."""
    keys, watched = [], Watched()
    for files in ([file()], [file(at=200)], [file()]):
        found = looked(*files, watched=watched, rule=Completeness(success_file=False, quiet_seconds=0))
        keys.append(found.key)
        watched = found.watched
    assert None not in keys
    assert len(set(keys)) == 3


def test_a_clock_that_is_set_back_does_not_shorten_the_wait() -> None:
    first = looked(file(), now=1000)
    assert looked(file(), watched=first.watched, now=0).key is None
    assert looked(file(), watched=first.watched, now=1600).key


def test_success_is_waited_for() -> None:
    waits = looked(file(), rule=SUCCESS)
    assert waits.key is None
    assert "waits for /lake/profiles/_SUCCESS" in waits.why
    assert looked(file(), rule=SUCCESS, success={"/lake/profiles": 100}).key


def test_a_success_file_of_the_drop_before_does_not_count() -> None:
    """What appends leaves the old `_SUCCESS` in its place while it writes."""
    found = looked(file(at=100), file("b.parquet", at=201), rule=SUCCESS, success={"/lake/profiles": 200})
    assert found.key is None
    assert "/lake/profiles/b.parquet is newer than its _SUCCESS" in found.why


def test_success_may_stand_above_the_partitions_but_not_above_the_source() -> None:
    partition = file("dt=2026-11-20/a.parquet")
    assert looked(partition, rule=SUCCESS, success={"/lake/profiles": 100}).key
    assert looked(partition, rule=SUCCESS, success={"/lake/profiles/dt=2026-11-20": 100}).key
    assert looked(partition, rule=SUCCESS, success={"/lake": 100}).key is None
    other = file("dt=2026-11-21/a.parquet")
    assert looked(partition, other, rule=SUCCESS, success={"/lake/profiles/dt=2026-11-20": 100}).key is None


def test_where_both_are_asked_for_both_must_hold() -> None:
    first = looked(file(), rule=BOTH, success={"/lake/profiles": 100}, now=0)
    assert first.key is None
    assert looked(file(), watched=first.watched, rule=BOTH, now=600).key is None
    assert looked(file(), watched=first.watched, rule=BOTH, success={"/lake/profiles": 100}, now=600).key


def test_what_is_remembered_survives_as_text_and_other_text_is_nothing() -> None:
    watched = looked(file(), now=12.5).watched
    assert Watched.from_text(watched.to_text()) == watched
    for text in (None, "", "not json", '{"other": 1}', "[1]"):
        assert Watched.from_text(text) == Watched()
