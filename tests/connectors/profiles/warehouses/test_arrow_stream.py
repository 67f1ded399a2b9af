import io

import pyarrow as pa
import pytest

from connectors.profiles.warehouses.arrow_stream import BrokenStreamError, batches_to_the_end

ROWS = pa.record_batch({"name": ["王小明", "Ayşe"]})


def stream(*, batches: int = 3) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, ROWS.schema) as writer:
        for _ in range(batches):
            writer.write(ROWS)
    return sink.getvalue()


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_a_whole_stream_gives_its_batches(batches: int) -> None:
    assert list(batches_to_the_end(io.BytesIO(stream(batches=batches)))) == [ROWS] * batches


def test_a_stream_that_stops_between_two_batches_is_broken_though_arrow_takes_it_for_ended() -> None:
    stopped = stream()[:-8]
    assert pa.ipc.open_stream(stopped).read_all().num_rows == 6, "this is why the end mark is looked at"
    with pytest.raises(BrokenStreamError):
        list(batches_to_the_end(io.BytesIO(stopped)))


@pytest.mark.parametrize("cut", [1, 9, 60, 250])
def test_a_stream_cut_anywhere_is_broken(cut: int) -> None:
    with pytest.raises(BrokenStreamError):
        list(batches_to_the_end(io.BytesIO(stream()[:-cut])))


@pytest.mark.parametrize("whole", [True, False])
def test_what_stands_behind_the_batches_is_handed_on(whole: bool) -> None:
    said = b"\r\n__exception__\r\nCode: 1. DB::Exception: words"
    with pytest.raises(BrokenStreamError) as caught:
        list(batches_to_the_end(io.BytesIO(stream()[: None if whole else -8] + said)))
    assert caught.value.tail.endswith(said)


def test_no_bytes_at_all_are_a_broken_stream() -> None:
    with pytest.raises(BrokenStreamError):
        list(batches_to_the_end(io.BytesIO(b"")))
