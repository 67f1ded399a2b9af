"""What a good engineer writes within an hour: one session, checked answers; with threads, also a token bucket."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import requests
import requests.adapters

from tests.benchmarks.push.task import BATCH_ROWS, Meter, Task, records, user_attrs


class TokenBucket:
    """At most `rate` calls a second on average, and as many at once."""

    def __init__(self, rate: float) -> None:
        self._rate = self._tokens = rate
        self._filled_at = time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> None:
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self._rate, self._tokens + (now - self._filled_at) * self._rate) - 1
            self._filled_at = now
            wait_seconds = max(0.0, -self._tokens / self._rate)
        time.sleep(wait_seconds)


def main() -> None:
    task, meter = Task.from_command_line(), Meter()
    session = requests.Session()
    session.mount("http", requests.adapters.HTTPAdapter(pool_maxsize=task.parallel))
    claimed_rows = 0
    try:
        for sent_rows in _send_all(task, session):
            claimed_rows += sent_rows
    except (requests.RequestException, RuntimeError) as error:
        meter.tell(claimed_rows=claimed_rows, error=error)
    else:
        meter.tell(claimed_rows=claimed_rows)


def _send_all(task: Task, session: requests.Session) -> Iterator[int]:
    if task.parallel == 1:
        yield from (_send(session, task.call_url, batch) for batch in _batches(task.rows))
        return
    bucket = TokenBucket(task.calls_per_second)

    def send(batch: list[dict[str, str]]) -> int:
        bucket.take()
        return _send(session, task.call_url, batch)

    with ThreadPoolExecutor(task.parallel) as pool:
        yield from pool.map(send, _batches(task.rows))


def _send(session: requests.Session, url: str, batch: list[dict[str, str]]) -> int:
    response = session.post(url, json={"UserAttrs": [user_attrs(record) for record in batch]}, timeout=10)
    response.raise_for_status()
    reply = response.json()
    if reply["ErrorCode"] != 0:
        raise RuntimeError(f"refused with code {reply['ErrorCode']}: {reply['ErrorInfo']}")
    return len(batch)


def _batches(rows: int) -> Iterator[list[dict[str, str]]]:
    all_records = records(rows)
    while batch := list(islice(all_records, BATCH_ROWS)):
        yield batch


if __name__ == "__main__":
    main()
