import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.tencent_push import ledger as ledger_module
from connectors.tencent_push.errors import LedgerError
from connectors.tencent_push.ledger import Ledger, LedgerContents, Sent, Settled, read_ledger
from connectors.tencent_push.protocol import Command

SET, REMOVE = Command.SET_ATTR, Command.REMOVE_ATTR
HEADER = {"sync": "example", "account_type": "user_id", "run": "r1"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "frame.ledger"


def write_some(path: Path) -> list[int]:
    """A ledger of five writes; returns where each of its lines ends."""
    ends = []
    with Ledger.open(path, HEADER) as ledger:
        ends.append(path.stat().st_size)
        ledger.record(sent=[Sent("b1", SET, range(100)), Sent("b2", SET, range(100, 200))])
        ends.append(path.stat().st_size)
        ledger.record(settled=[Settled("b1", SET, [n for n in range(100) if n != 7])], sent=[Sent("b3", REMOVE, [3])])
        ends.append(path.stat().st_size)
        ledger.record(settled=[Settled("b2", SET, (), range(100, 200)), Settled("b3", REMOVE, [3])])
        ends.append(path.stat().st_size)
        ledger.record(sent=[Sent("b4", SET, range(150, 250))])
        ends.append(path.stat().st_size)
    return ends


def facts(contents: LedgerContents) -> tuple[object, ...]:
    return (
        {command: numbers.tolist() for command, numbers in contents.acknowledged.items()},
        {command: numbers.tolist() for command, numbers in contents.uncertain.items()},
        contents.unsettled_calls,
    )


def test_a_new_ledger_holds_its_header_and_nothing_else(path: Path) -> None:
    Ledger.open(path, HEADER).close()
    contents = read_ledger(path)
    assert contents.header == HEADER
    assert facts(contents) == ({SET: [], REMOVE: []}, {SET: [], REMOVE: []}, 0)
    assert contents.torn_bytes == 0


def test_what_was_settled_is_acknowledged_uncertain_or_absent(path: Path) -> None:
    write_some(path)
    contents = read_ledger(path)
    assert contents.acknowledged[SET].tolist() == [n for n in range(100) if n != 7]
    assert contents.acknowledged[REMOVE].tolist() == [3]
    assert contents.uncertain[SET].tolist() == list(range(100, 250)), "maybe written, and sent but never settled"
    assert contents.uncertain[REMOVE].tolist() == []
    assert contents.unsettled_calls == 1


def test_an_acknowledgement_outweighs_every_doubt_whatever_the_order(path: Path) -> None:
    with Ledger.open(path, HEADER) as ledger:
        ledger.record(sent=[Sent("b1", SET, [1, 2])], settled=[Settled("b1", SET, (), [1, 2])])
        ledger.record(sent=[Sent("b2", SET, [1])], settled=[Settled("b2", SET, [1])])
        ledger.record(sent=[Sent("b3", SET, [1])], settled=[Settled("b3", SET, (), [1])])
    contents = read_ledger(path)
    assert contents.acknowledged[SET].tolist() == [1]
    assert contents.uncertain[SET].tolist() == [2]


def test_a_row_that_one_call_may_have_written_stays_uncertain_when_a_later_call_is_refused(path: Path) -> None:
    with Ledger.open(path, HEADER) as ledger:
        ledger.record(sent=[Sent("b1", SET, [1])], settled=[Settled("b1", SET, (), [1])])
        ledger.record(sent=[Sent("b2", SET, [1])], settled=[Settled("b2", SET)])
    assert read_ledger(path).uncertain[SET].tolist() == [1]


def test_opening_again_appends_and_batch_ids_go_on(path: Path) -> None:
    with Ledger.open(path, HEADER) as ledger:
        first = ledger.next_batch_id()
        ledger.record(sent=[Sent(first, SET, [0])], settled=[Settled(first, SET, [0])])
    with Ledger.open(path, HEADER) as ledger:
        second = ledger.next_batch_id()
        ledger.record(sent=[Sent(second, SET, [1])], settled=[Settled(second, SET, [1])])
    assert first != second
    assert read_ledger(path).acknowledged[SET].tolist() == [0, 1]


def test_ledgers_of_other_frames_have_other_batch_ids(tmp_path: Path) -> None:
    with (
        Ledger.open(tmp_path / "a", HEADER) as one,
        Ledger.open(tmp_path / "b", HEADER | {"account_type": "registration_id"}) as other,
    ):
        assert one.next_batch_id() != other.next_batch_id()


def test_a_ledger_of_another_run_is_refused_and_left_as_it_was(path: Path) -> None:
    write_some(path)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="belongs to another"):
        Ledger.open(path, HEADER | {"run": "r2"})
    assert path.read_bytes() == before


def test_a_header_that_json_changes_is_still_equal_to_itself(path: Path) -> None:
    header = {"files": ("a", "b"), "rows": 3}
    Ledger.open(path, header).close()
    Ledger.open(path, header).close()
    assert read_ledger(path).header == {"files": ["a", "b"], "rows": 3}


@given(data=st.data())
def test_a_file_cut_at_any_byte_reads_as_its_whole_writes_and_can_be_gone_on_with(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "ledger"
    ends = write_some(path)
    whole = path.read_bytes()
    cut = data.draw(st.integers(ends[0], len(whole)))
    lines = max(n for n, end in enumerate(ends) if end <= cut)
    path.write_bytes(whole[: ends[lines]])
    expected = facts(read_ledger(path))

    path.write_bytes(whole[:cut])
    contents = read_ledger(path)
    assert facts(contents) == expected
    assert contents.torn_bytes == cut - ends[lines]

    with Ledger.open(path, HEADER) as ledger:
        assert path.stat().st_size == ends[lines]
        ledger.record(sent=[Sent("later", SET, [9000])], settled=[Settled("later", SET, [9000])])
    assert 9000 in read_ledger(path).acknowledged[SET]


@given(cut=st.integers(0, 88))
def test_a_file_cut_inside_its_header_is_no_ledger_yet_and_begins_anew(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "ledger"
    header_bytes = write_some(path)[0]
    path.write_bytes(path.read_bytes()[: min(cut, header_bytes - 1)])
    with pytest.raises(LedgerError, match="no header"):
        read_ledger(path)
    Ledger.open(path, HEADER).close()
    assert read_ledger(path).header == HEADER


@given(data=st.data())
def test_a_flipped_bit_before_the_last_write_is_always_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("flip") / "ledger"
    ends = write_some(path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, ends[-2] - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(LedgerError, match="damaged at byte"):
        read_ledger(path)
    with pytest.raises(LedgerError, match="damaged at byte"):
        Ledger.open(path, HEADER)
    assert path.read_bytes() == bytes(content), "a damaged ledger is not touched"


@given(data=st.data())
def test_a_flipped_bit_in_the_last_write_never_passes_for_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("flip") / "ledger"
    ends = write_some(path)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: ends[-2]])
    without_last = facts(read_ledger(path))
    content[data.draw(st.integers(ends[-2], ends[-1] - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        assert facts(read_ledger(path)) == without_last
    except LedgerError as error:
        assert "damaged" in str(error)


def test_a_write_of_which_only_zeros_reached_the_disk_is_cut_off(path: Path) -> None:
    ends = write_some(path)
    content = path.read_bytes()
    path.write_bytes(content[: ends[-2]] + bytes(len(content) - ends[-2]))
    assert read_ledger(path).torn_bytes == ends[-1] - ends[-2]
    Ledger.open(path, HEADER).close()
    assert path.stat().st_size == ends[-2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the kernel's full device")
def test_a_full_disk_is_an_error_that_names_file_fault_and_remedy() -> None:
    path = Path("/dev/full")
    ledger = Ledger(path, os.open(path, os.O_WRONLY), good_bytes=0, batches=0, header_crc=0)
    with pytest.raises(LedgerError, match=r"/dev/full cannot be written: No space left on device\..*Free space"):
        ledger.record(sent=[Sent("b1", SET, [1])])
    ledger.close()


def test_a_write_that_stopped_half_way_is_cut_off_before_the_next_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.open(path, HEADER)
    ledger.record(sent=[Sent("b1", SET, [1])])

    def half(descriptor: int, line: bytes) -> None:
        os.write(descriptor, line[: len(line) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ledger_module, "_write_all", half)
        ledger.record(settled=[Settled("b1", SET, [1])])
    assert read_ledger(path).torn_bytes > 0
    ledger.record(settled=[Settled("b1", SET, [1])])
    contents = read_ledger(path)
    assert contents.torn_bytes == 0
    assert contents.acknowledged[SET].tolist() == [1]


def test_after_a_failed_sync_nothing_is_recorded_any_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a failed sync leaves on disk cannot be known, even when the next one succeeds."""
    ledger = Ledger.open(path, HEADER)

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(LedgerError, match="cannot be made durable: Input/output error"):
        patch.setattr(ledger_module, "_sync", fail)
        ledger.record(sent=[Sent("b1", SET, [1])])
    with pytest.raises(LedgerError, match="cannot be made durable"):
        ledger.record(sent=[Sent("b2", SET, [2])])


def test_every_record_is_synced_before_it_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    ledger = Ledger.open(path, HEADER)
    monkeypatch.setattr(ledger_module, "_sync", lambda descriptor: synced.append(path.stat().st_size))
    ledger.record(sent=[Sent("b1", SET, [1])])
    ledger.record(settled=[Settled("b1", SET, [1])])
    assert len(synced) == 2
    assert synced[-1] == path.stat().st_size


def test_a_folder_that_is_not_there_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"gone/ledger cannot be opened: No such file"):
        Ledger.open(tmp_path / "gone" / "ledger", HEADER)
    with pytest.raises(LedgerError, match="cannot be read: No such file"):
        read_ledger(tmp_path / "gone" / "ledger")


def test_a_closed_ledger_takes_nothing_more(path: Path) -> None:
    ledger = Ledger.open(path, HEADER)
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="is closed"):
        ledger.record(sent=[Sent("b1", SET, [1])])


def test_recording_nothing_writes_nothing(path: Path) -> None:
    with Ledger.open(path, HEADER) as ledger:
        before = path.stat().st_size
        ledger.record()
        assert path.stat().st_size == before


@given(numbers=st.lists(st.integers(0, 300), unique=True))
def test_any_set_of_numbers_comes_back(tmp_path_factory: pytest.TempPathFactory, numbers: list[int]) -> None:
    path = tmp_path_factory.mktemp("any") / "ledger"
    with Ledger.open(path, HEADER) as ledger:
        ledger.record(sent=[Sent("b1", SET, numbers)], settled=[Settled("b1", SET, numbers)])
    assert read_ledger(path).acknowledged[SET].tolist() == sorted(numbers)


def test_a_call_of_consecutive_rows_takes_few_bytes(path: Path) -> None:
    with Ledger.open(path, HEADER) as ledger:
        before = path.stat().st_size
        rows = range(9_999_900, 10_000_000)
        ledger.record(sent=[Sent(ledger.next_batch_id(), SET, rows)], settled=[Settled("b", SET, rows)])
        assert path.stat().st_size - before < 200


def refused_in(path: Path) -> dict[tuple[int, bool], list[int]]:
    return {cause: numbers.tolist() for cause, numbers in read_ledger(path).refused[SET].items()}


def test_what_was_refused_is_kept_with_its_code_and_whether_it_stood_on_the_call(path: Path) -> None:
    with Ledger.open(path, HEADER) as ledger:
        ledger.record(settled=[Settled("b1", SET, [1], [2], {(90033, True): [2], (70107, False): [5, 3, 4]})])
        ledger.record(settled=[Settled("b2", REMOVE, refused={(90030, False): [7]})])
    assert refused_in(path) == {(90033, True): [2], (70107, False): [3, 4, 5]}
    contents = read_ledger(path)
    assert contents.refused[REMOVE][90030, False].tolist() == [7]
    assert contents.uncertain[SET].tolist() == [2], "refused, and maybe written all the same"


def test_the_last_refusal_of_a_number_is_the_one_that_counts(path: Path) -> None:
    with Ledger.open(path, HEADER) as ledger:
        ledger.record(settled=[Settled("b1", SET, refused={(90030, False): [1, 2, 3]})])
        ledger.record(settled=[Settled("b2", SET, refused={(70107, False): [2], (90030, True): [3]})])
        ledger.record(settled=[Settled("b3", SET, refused={(90030, False): [2]})])
    assert refused_in(path) == {(90030, False): [1, 2], (90030, True): [3]}


def test_a_refusal_is_forgotten_once_the_number_is_acknowledged(path: Path) -> None:
    with Ledger.open(path, HEADER) as ledger:
        ledger.record(settled=[Settled("b1", SET, refused={(90030, False): [1, 2, 3], (70107, False): [9]})])
        ledger.record(settled=[Settled("b2", REMOVE, [1])])
        ledger.record(settled=[Settled("b3", SET, [2, 3, 9])])
    assert refused_in(path) == {(90030, False): [1]}, "by its own command"


def test_a_ledger_of_before_refusals_were_kept_still_reads(path: Path) -> None:
    with Ledger.open(path, HEADER) as ledger:
        ledger._append({"sent": [["b1", "set", [0, 9]]]})
        ledger._append({"settled": [["b1", "set", [0, 4], [7, 8]]]})
    contents = read_ledger(path)
    assert contents.acknowledged[SET].tolist() == [0, 1, 2, 3, 4]
    assert contents.uncertain[SET].tolist() == [7, 8]
    assert contents.refused == {SET: {}, REMOVE: {}}
