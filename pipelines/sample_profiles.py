"""Writes believable profiles to Parquet, flaws included: `python -m pipelines.sample_profiles --rows N --seed S OUT/`.

The same seed gives the same rows, and the first rows of a larger sample are those of a smaller one. Only the example
and the tests use it; what stands in the columns is made in `sample_columns.py`. What is wrong with them, and how
many of all profiles are concerned:

    accounts
      3 %     the ids of an earlier profile again, wherever that stands: 15 % of them are copies, the others have values
              of their own, 10 % of these with the same updated_at; 10 % have another device_id (a reinstallation)
      5 %     a device only: user_id null (80 %), "", two spaces or an ideographic space
      0.5 %   no account at all: user_id and device_id null, empty or spaces
      0.3 %   a RegistrationID in user_id; a third of them the profile's own device_id
      0.02 %  a control character in user_id
      0.5 %   user_id starts with `new-`: unknown to the emulator (and 0.5 % of the device ids, with `00000000-`)
      40 %    have a device_id, the devices without user among them; of the others 98 % null, else blank as above
    values
      1 %     nickname over 50 bytes; some begin with one character of 57 bytes, of which nothing fits
      0.1 %   city over 50 bytes
      0.1 %   nickname with a control character, 0.05 % city with one
      0.06 %  score NaN or infinite
      nulls   gender 8 %, city 6 %, level 2 %, vip_until 88 %, balance 10 %, score 5 %, nickname 7 %, push_enabled 5 %,
              signed_up_at 1 %, updated_at 0.5 %; and gender, city, nickname are "" in 1 % each
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.sample_columns import SCHEMA, sample_table

ROWS_PER_PART = 1_000_000
ROWS_PER_CHUNK = 131_072  # one row group; what is in memory at a time
SEVERAL_PARTS_FROM = 10_000
MOST_ROWS = 99_999 * ROWS_PER_PART  # five digits in the names of the parts


class SampleFolderError(Exception):
    """The folder holds Parquet files of someone else; nothing was written."""


def write_sample_profiles(
    out: Path, rows: int, seed: int, *, on_part: Callable[[int], None] = lambda _rows: None
) -> list[Path]:
    """Writes `part-00000.parquet`, ... and gives their paths; an earlier sample in the folder is replaced at the end.

    Until then the earlier sample stays whole. Raises SampleFolderError where `out` holds other Parquet files.
    `on_part` hears the rows written so far.
    """
    out.mkdir(parents=True, exist_ok=True)
    earlier = _earlier_parts(out)
    count = max(-(-rows // ROWS_PER_PART), 2 if rows >= SEVERAL_PARTS_FROM else 1)
    bounds = [rows * part // count for part in range(count + 1)]
    parts = [out / f"part-{part:05}.parquet" for part in range(count)]
    with ExitStack() as leftovers:
        for part, path in enumerate(parts):
            leftovers.callback(_partial(path).unlink, missing_ok=True)
            _write_part(_partial(path), seed, begin=bounds[part], end=bounds[part + 1])
            on_part(bounds[part + 1])
        for path in parts:
            _partial(path).replace(path)
    for path in set(earlier) - set(parts):
        path.unlink()
    return parts


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _earlier_parts(out: Path) -> list[Path]:
    files = sorted(out.glob("*.parquet"))
    foreign = [path.name for path in files if not _is_ours(path)]
    if foreign:
        raise SampleFolderError(f"{out} holds {foreign[0]}, which is no sample; choose an empty or a new folder")
    return files


def _is_ours(path: Path) -> bool:
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowInvalid, OSError):
        return False
    return bool(metadata.get(b"written_by") == b"pipelines.sample_profiles")


def _write_part(path: Path, seed: int, *, begin: int, end: int) -> None:
    with pq.ParquetWriter(path, SCHEMA, compression="snappy") as writer:
        for first in range(begin, end, ROWS_PER_CHUNK):
            writer.write_table(sample_table(seed, begin=first, end=min(first + ROWS_PER_CHUNK, end)))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.sample_profiles", description="Writes sample profiles.")
    parser.add_argument("--rows", type=_whole_number, default=50_000, help="how many profiles (default 50000)")
    parser.add_argument("--seed", type=_whole_number, default=1, help="the same seed gives the same rows (default 1)")
    parser.add_argument("out", type=Path, help="the folder for the Parquet files")
    chosen = parser.parse_args(arguments)
    try:
        parts = write_sample_profiles(chosen.out, chosen.rows, chosen.seed, on_part=_progress(chosen.rows))
    except (SampleFolderError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{chosen.rows:,} profiles in {len(parts)} files under {chosen.out}\n")
    return 0


def _whole_number(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_ROWS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {MOST_ROWS:,}")
    return int(text)


def _progress(rows: int) -> Callable[[int], None]:
    def show(done: int) -> None:
        if rows > ROWS_PER_PART:
            sys.stderr.write(f"{done:,} of {rows:,} profiles\n")

    return show


if __name__ == "__main__":
    sys.exit(main())
