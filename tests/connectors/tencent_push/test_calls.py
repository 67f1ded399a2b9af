import signal
import threading
import time
from contextlib import closing

from connectors.tencent_push.calls import RunningCall, ThreadedCalls
from connectors.tencent_push.client import CallResult
from connectors.tencent_push.protocol import Command, Reply

OK = CallResult(Reply(0, None), None, None, 200, 0.0)


class HeldClient:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.error: Exception | None = None

    def call(self, command: Command, body: bytes) -> CallResult:
        assert self.may_answer.wait(10)
        if self.error is not None:
            raise self.error
        return OK

    def renew_usersig(self) -> None: ...


def has_ended(call: RunningCall) -> bool:
    return call.ended_at is not None


def test_a_call_that_ends_wakes_the_waiting_thread() -> None:
    client = HeldClient()
    calls = ThreadedCalls(client, max_in_flight=2)
    call = calls.start(Command.SET_ATTR, b"{}")
    calls.wait(0)
    assert not has_ended(call)
    client.may_answer.set()
    started_at = time.monotonic()
    while not has_ended(call):
        calls.wait(10)
    assert time.monotonic() - started_at < 5
    assert call.result is OK
    calls.close()


def test_waiting_ends_with_its_time_out() -> None:
    calls = ThreadedCalls(HeldClient(), max_in_flight=1)
    started_at = time.monotonic()
    calls.wait(0.01)
    assert time.monotonic() - started_at < 5
    calls.close()


def test_a_client_that_raises_leaves_its_error_with_the_call() -> None:
    client = HeldClient()
    client.error = ZeroDivisionError()
    client.may_answer.set()
    calls = ThreadedCalls(client, max_in_flight=1)
    call = calls.start(Command.SET_ATTR, b"{}")
    while call.ended_at is None:
        calls.wait(10)
    assert call.result is None
    assert call.error is client.error
    calls.close()


def test_a_signal_whose_handler_takes_longer_than_the_wait_does_not_make_it_endless() -> None:
    handled: list[float] = []

    def handler(_number: int, _frame: object) -> None:
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            pass
        handled.append(until)

    before = signal.signal(signal.SIGALRM, handler)
    with closing(ThreadedCalls(HeldClient(), max_in_flight=1)) as calls:
        watchdog = threading.Timer(20, calls.wake)  # a wait that would be endless ends then
        watchdog.start()
        began_at = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        try:
            calls.wait(0.05)
        finally:
            watchdog.cancel()
            signal.signal(signal.SIGALRM, before)
    assert handled
    assert time.monotonic() - began_at < 10
