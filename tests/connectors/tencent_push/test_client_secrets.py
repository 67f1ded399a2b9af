"""No text that the client makes, or lets a library make, holds a signature, a key, an account or a value."""

import logging
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from connectors.tencent_push import transport as transport_module
from connectors.tencent_push.client import CallResult, Fault, HttpResponse, RequestsTransport, TransportError
from connectors.tencent_push.errors import CallRefusedError, TargetUnreachableError
from connectors.tencent_push.protocol import Command
from tests.connectors.tencent_push.client_cases import (  # fixtures among them
    ACCOUNT,
    BODY,
    CREDENTIALS,
    SIGNATURE,
    VALUE,
    assert_clean,
    client_for,
    no_proxy_or_ca_of_this_machine,
    wire_fault,
)

__all__ = ["no_proxy_or_ca_of_this_machine", "wire_fault"]


class TestSecrets:
    """A signature, a key, an administrator, an account and a value are planted, and looked for in every text."""

    @pytest.fixture(autouse=True)
    def _all_logs(self, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
        caplog.set_level(logging.DEBUG)
        for name in ("urllib3", "requests", "connectors"):
            caplog.set_level(logging.DEBUG, logger=name)
        yield
        for record in caplog.records:
            assert_clean(record.getMessage() + repr(record.__dict__))

    def test_no_text_of_a_failed_call_holds_them(self, wire_fault: Any) -> None:
        base_url, _, _ = wire_fault
        result = client_for(base_url, read_timeout_seconds=0.05).call(Command.SET_ATTR, BODY)
        assert_clean(repr(result) + str(result))

    def test_no_error_of_a_failed_call_holds_them(self, wire_fault: Any) -> None:
        base_url, _, detail = wire_fault
        with pytest.raises(TargetUnreachableError) as caught:
            client_for(base_url, read_timeout_seconds=0.05).set_attr([(ACCOUNT, {"city": VALUE})])
        assert detail in str(caught.value)
        assert_error_clean(caught.value)

    def test_no_error_of_a_transport_holds_them_or_the_librarys_error(self, wire_server: Any, steps: Any) -> None:
        wire_server.script = [steps.reset()]
        with pytest.raises(TransportError) as caught:
            RequestsTransport().post(f"{wire_server.base_url}/?usersig={SIGNATURE}", body=BODY)
        assert_error_clean(caught.value)

    def test_no_text_of_a_connection_that_was_never_made_holds_them(self, closed_port: int) -> None:
        with pytest.raises(TargetUnreachableError) as caught:
            client_for(f"http://127.0.0.1:{closed_port}").get_attr([ACCOUNT])
        assert_error_clean(caught.value)

    def test_no_text_of_a_refused_call_holds_them(self, wire_server: Any, steps: Any) -> None:
        info = f'{{"ActionStatus":"FAIL","ErrorCode":90033,"ErrorInfo":"{ACCOUNT} {VALUE}"}}'
        wire_server.script = [steps.answer(info.encode())] * 2
        client = client_for(wire_server.base_url)
        assert_clean(repr(client.call(Command.SET_ATTR, BODY)))
        with pytest.raises(CallRefusedError) as caught:
            client.set_attr([(ACCOUNT, {"city": VALUE})])
        assert_error_clean(caught.value)

    def test_no_text_of_a_partly_refused_call_holds_them(self, wire_server: Any, steps: Any) -> None:
        answer = (
            f'{{"ActionStatus":"OK","ErrorCode":0,"ErrorList":[{{"To_Account":"{ACCOUNT}","ErrorCode":90033,'
            f'"ErrorInfo":"{VALUE}"}}],"UserAttrs":[{{"To_Account":"{ACCOUNT}","Attrs":{{"city":"{VALUE}"}}}}]}}'
        )
        wire_server.script = [steps.answer(answer.encode())]
        result = client_for(wire_server.base_url).call(Command.GET_ATTR, BODY)
        assert result.reply is not None
        assert result.reply.attributes() == {ACCOUNT: {"city": VALUE}}
        assert_clean(repr(result))

    def test_no_text_of_a_reply_of_another_shape_holds_them(self, wire_server: Any, steps: Any) -> None:
        answer = f'{{"ActionStatus":"OK","ErrorCode":0,"UserAttrs":[{{"To_Account":"{ACCOUNT}","Attrs":"{VALUE}"}}]}}'
        wire_server.script = [steps.answer(answer.encode())]
        with pytest.raises(TargetUnreachableError, match="UserAttrs") as caught:
            client_for(wire_server.base_url).get_attr([ACCOUNT])
        assert_error_clean(caught.value)

    def test_the_objects_that_hold_them_do_not_show_them(self) -> None:
        client = client_for("https://push.example.com")
        assert_clean(repr(CREDENTIALS) + repr(client) + repr(client.__dict__) + repr(HttpResponse(200, BODY)))
        assert_clean(repr(CallResult(None, Fault.TIMEOUT, "no answer within 10 s", None, 1.0)))

    def test_the_librarys_log_names_the_call_without_its_query(
        self, wire_server: Any, steps: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        wire_server.script = [steps.answer(b"{}")]
        client_for(wire_server.base_url).call(Command.SET_ATTR, BODY)
        assert any("POST /v4/timpush/set_attr?..." in record.getMessage() for record in caplog.records)


def test_without_the_filter_the_librarys_log_would_hold_the_signature(
    wire_server: Any, steps: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire_server.script = [steps.answer(b"{}")]
    client = client_for(wire_server.base_url)
    logger = logging.getLogger("urllib3.connectionpool")
    assert transport_module._QUERY_DROPPER in logger.filters
    monkeypatch.setattr(logger, "filters", [])  # drivers of warehouses add filters of their own
    with caplog.at_level(logging.DEBUG, logger="urllib3.connectionpool"):
        client.call(Command.SET_ATTR, BODY)
    with pytest.raises(AssertionError, match="planted"):
        assert_clean(caplog.text)


def assert_error_clean(error: BaseException) -> None:
    """Nothing hangs on the error either: what logs exceptions may follow `__context__`, suppressed or not."""
    assert_clean(f"{error} {error!r} {''.join(traceback.format_exception(error))}")
    while error.__context__ is not None or error.__cause__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]  # one of the two is set
        assert isinstance(error, TransportError)
        assert_clean(f"{error} {error!r}")
