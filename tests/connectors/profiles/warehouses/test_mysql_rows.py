import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.profiles.errors import WarehouseUnreachableError
from connectors.profiles.warehouses.mysql_rows import Packets, RowTooLongError, is_error

END = b"\xfe\x00\x00\x02\x00"
Row = list[bytes | None]


def value(content: bytes | None) -> bytes:
    """A value as the server writes it: its length in 1, 3 or 4 bytes and itself, or one byte for NULL."""
    if content is None:
        return b"\xfb"
    size = len(content)
    if size < 251:
        return bytes([size]) + content
    mark, width = (b"\xfc", 2) if size < 1 << 16 else (b"\xfd", 3)
    return mark + size.to_bytes(width, "little") + content


def packet(content: bytes, sequence: int = 0) -> bytes:
    return len(content).to_bytes(3, "little") + bytes([sequence % 256]) + content


def stream(rows: list[Row], last: bytes = END) -> bytes:
    return b"".join(packet(b"".join(map(value, row)), place) for place, row in enumerate([*rows])) + packet(last)


def decoded(content: bytes, *, columns: int, sizes: list[int]) -> list[Row]:
    """The rows out of `content` as it arrives in pieces of `sizes`, taken out now and then."""
    packets, rows, place = Packets(), [], 0
    for turn in range(len(content)):
        size = sizes[turn % len(sizes)]
        packets.add(content[place : place + size])
        place += size
        if packets.starts and (turn % 3 == 0 or packets.last is not None):
            rows += [
                list(row) for row in zip(*(array.to_pylist() for array in packets.take(columns=columns)), strict=True)
            ]
        if packets.last is not None:
            break
    assert packets.last == END
    return rows


ROWS = st.integers(1, 4).flatmap(
    lambda columns: st.lists(
        st.lists(st.none() | st.binary(max_size=300), min_size=columns, max_size=columns), max_size=20
    )
)


@given(rows=ROWS, sizes=st.lists(st.integers(1, 700), min_size=1, max_size=5))
def test_rows_arrive_as_they_were_sent_in_whatever_pieces(rows: list[Row], sizes: list[int]) -> None:
    assert decoded(stream(rows), columns=len(rows[0]) if rows else 1, sizes=sizes) == rows


@pytest.mark.parametrize("size", [0, 1, 250, 251, 252, 65_535, 65_536, 70_000])
def test_every_width_of_a_length_is_read(size: int) -> None:
    rows: list[Row] = [[b"x" * size, None, b"y"], [None, b"z" * size, b""]]
    assert decoded(stream(rows), columns=3, sizes=[4096]) == rows


def test_an_error_ends_the_rows_and_is_told_from_their_end() -> None:
    packets = Packets()
    packets.add(stream([[b"a"]], last=b"\xff\x26\x07#HY000gone"))
    assert packets.take(columns=1)[0].to_pylist() == [b"a"]
    assert packets.last is not None
    assert is_error(packets.last)
    assert not is_error(END)


def test_a_row_of_16_mib_is_refused_before_it_is_gathered() -> None:
    with pytest.raises(RowTooLongError):
        Packets().add(b"\xff\xff\xff\x00" + b"x")


@pytest.mark.parametrize("columns", [1, 3])
def test_rows_of_another_number_of_columns_are_an_error_and_no_shifted_values(columns: int) -> None:
    packets = Packets()
    packets.add(stream([[b"a", b"b"]] * 3))
    with pytest.raises(WarehouseUnreachableError, match="do not have the columns it announced"):
        packets.take(columns=columns)


def test_damaged_bytes_never_give_a_row_of_another_length_unnoticed() -> None:
    chance = random.Random(5)
    whole = stream([[b"name", b"city", None]] * 50)
    noticed = 0
    for _ in range(300):
        damaged = bytearray(whole)
        place = chance.randrange(50) * 15 + 4  # the length of a row's first value
        assert damaged[place] == 4
        damaged[place] = chance.choice([0, 3, 5, 200, 0xFB, 0xFC, 0xFD])
        packets = Packets()
        packets.add(bytes(damaged))
        try:
            packets.take(columns=3)
        except WarehouseUnreachableError:
            noticed += 1
    assert noticed == 300
