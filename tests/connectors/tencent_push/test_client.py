import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from connectors.tencent_push import transport as transport_module
from connectors.tencent_push.client import (
    Client,
    Credentials,
    Fault,
    RequestsTransport,
    checked_base_url,
)
from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, Emulator
from connectors.tencent_push.errors import CallRefusedError, SettingsError, TargetUnreachableError
from connectors.tencent_push.protocol import AccountType, Command, RowError
from connectors.tencent_push.usersig import check_usersig
from tests.connectors.tencent_push.client_cases import (  # fixtures among them
    BODY,
    CREDENTIALS,
    NOW,
    SIGNATURE,
    assert_clean,
    client_for,
    no_proxy_or_ca_of_this_machine,
    wire_fault,
)

__all__ = ["no_proxy_or_ca_of_this_machine", "wire_fault"]


class TestOneCall:
    def test_a_call_carries_the_documented_path_query_and_body(self, wire_server: Any, steps: Any) -> None:
        wire_server.script = [steps.answer(b'{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":""}')]
        client_for(wire_server.base_url).call(Command.SET_ATTR, BODY)
        method, target, _ = wire_server.seen[0].line.split(" ")
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query, strict_parsing=True).items()}
        random = int(query.pop("random"))
        assert (method, urlsplit(target).path) == ("POST", "/v4/timpush/set_attr")
        assert query == {
            "usersig": SIGNATURE,
            "identifier": "planted-admin",
            "sdkappid": "1400000001",
            "contenttype": "json",
        }
        assert 0 <= random < 2**32
        assert wire_server.seen[0].body == BODY
        assert wire_server.seen[0].headers["content-type"] == "application/json"
        assert {"cookie", "authorization"}.isdisjoint(wire_server.seen[0].headers)

    def test_random_is_fresh_for_every_call(self, wire_server: Any, steps: Any) -> None:
        wire_server.script = [steps.answer(b"{}")] * 5
        client = client_for(wire_server.base_url)
        for _ in range(5):
            client.call(Command.SET_ATTR, BODY)
        assert len({parse_qs(request.line)["random"][0] for request in wire_server.seen}) == 5

    def test_calls_share_one_connection(self, wire_server: Any, steps: Any) -> None:
        wire_server.script = [steps.answer(b"{}")] * 3
        client = client_for(wire_server.base_url)
        for _ in range(3):
            client.call(Command.GET_ATTR_NAME, b"{}")
        assert wire_server.connections == 1
        client.close()

    def test_threads_that_share_a_client_each_get_their_own_answer(self, tmp_path: Path) -> None:
        with Emulator(tmp_path / "emulator.sqlite", calls_per_second=None) as emulator:
            client = Client(base_url=emulator.base_url, credentials=emulator_credentials())
            accounts = [f"u{number}" for number in range(160)]
            with ThreadPoolExecutor(16) as pool:
                answers = list(pool.map(lambda account: client.get_attr([account])[0], accounts))
            client.close()
        assert answers == [{account: {}} for account in accounts]

    def test_a_base_url_with_a_path_keeps_it(self, wire_server: Any, steps: Any) -> None:
        wire_server.script = [steps.answer(b"{}")]
        client_for(wire_server.base_url + "/proxy/").call(Command.GET_ATTR, b"{}")
        assert wire_server.seen[0].line.startswith("POST /proxy/v4/timpush/get_attr?")

    def test_a_readable_reply_is_decoded_and_is_no_fault(
        self, wire_server: Any, steps: Any, documented_reply: Callable[[str], bytes]
    ) -> None:
        wire_server.script = [steps.answer(documented_reply("set_attr_partial"))]
        result = client_for(wire_server.base_url).call(Command.SET_ATTR, BODY)
        assert result.reply is not None
        assert result.reply.row_errors == (RowError("abc", 70107),)
        assert (result.fault, result.detail, result.http_status) == (None, None, 200)
        assert 0 < result.latency_seconds < 5

    def test_a_refusal_under_status_200_is_a_reply_with_its_code(
        self, wire_server: Any, steps: Any, documented_reply: Callable[[str], bytes]
    ) -> None:
        wire_server.script = [steps.answer(documented_reply("too_frequent"))]
        result = client_for(wire_server.base_url).call(Command.SET_ATTR, BODY)
        assert result.reply is not None
        assert result.reply.code == 60007

    def test_a_renewed_signature_is_in_the_next_call(self, wire_server: Any, steps: Any) -> None:
        clock = iter(range(NOW, NOW + 100))
        client = Client(base_url=wire_server.base_url, credentials=CREDENTIALS, clock=lambda: float(next(clock)))
        wire_server.script = [steps.answer(b"{}")] * 2
        client.call(Command.SET_ATTR, BODY)
        client.renew_usersig()
        client.call(Command.SET_ATTR, BODY)
        first, second = (parse_qs(request.line)["POST /v4/timpush/set_attr?usersig"][0] for request in wire_server.seen)
        assert first != second
        assert check_usersig(second, secret_key="planted-key", now=NOW + 50) is None


def emulator_credentials() -> Credentials:
    app = EMULATOR_CREDENTIALS
    return Credentials(sdkappid=app.sdkappid, identifier=app.identifier, secret_key=app.secret_key)


class TestFaults:
    def test_what_happens_at_the_wire_is_a_fault_of_the_result(self, wire_fault: Any, wire_server: Any) -> None:
        base_url, fault, detail = wire_fault
        result = client_for(base_url, read_timeout_seconds=0.05).call(Command.SET_ATTR, BODY)
        assert (result.reply, result.fault, result.detail) == (None, fault, detail)
        assert len(wire_server.seen) == 1, "a client never retries"

    def test_a_redirect_is_not_followed(self, wire_server: Any, steps: Any) -> None:
        elsewhere = f"Location: {wire_server.base_url}/elsewhere\r\n"
        wire_server.script = [steps.answer(b"", status="307 Temporary Redirect", headers=elsewhere)]
        result = client_for(wire_server.base_url).call(Command.SET_ATTR, BODY)
        assert (result.fault, result.http_status) == (Fault.HTTP_STATUS, 307)
        assert len(wire_server.seen) == 1

    def test_a_cookie_is_not_sent_back(self, wire_server: Any, steps: Any) -> None:
        wire_server.script = [steps.answer(b"{}", headers="Set-Cookie: a=b; Path=/\r\n")] * 2
        client = client_for(wire_server.base_url)
        for _ in range(2):
            client.call(Command.GET_ATTR, b"{}")
        assert "cookie" not in wire_server.seen[1].headers

    def test_a_refused_connection_is_known_not_to_have_written(self, closed_port: int) -> None:
        result = client_for(f"http://127.0.0.1:{closed_port}").call(Command.SET_ATTR, BODY)
        assert (result.fault, result.detail) == (Fault.CONNECT_FAILED, "no connection could be made")

    def test_a_connection_that_is_not_made_in_time_is_no_read_time_out(self, full_port: int) -> None:
        client = client_for(f"http://127.0.0.1:{full_port}", connect_timeout_seconds=0.05)
        result = client.call(Command.SET_ATTR, BODY)
        assert (result.fault, result.detail) == (Fault.CONNECT_FAILED, "no connection within 0.05 s")

    def test_a_host_without_an_address_is_said_to_be_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_such_host(*_: object, **__: object) -> None:
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr("socket.getaddrinfo", no_such_host)
        result = client_for("https://push.invalid").call(Command.SET_ATTR, BODY)
        assert (result.fault, result.detail) == (Fault.CONNECT_FAILED, "the host's name could not be resolved")

    def test_a_host_that_is_no_name_is_a_failed_connection(self) -> None:
        result = client_for("https://a..b").call(Command.SET_ATTR, BODY)
        assert (result.fault, result.detail) == (Fault.CONNECT_FAILED, "the address, or a proxy's, is not valid")

    def test_another_calls_break_does_not_harm_the_next_one(self, wire_server: Any, steps: Any) -> None:
        wire_server.script = [steps.reset(), steps.answer(b'{"ActionStatus":"OK","ErrorCode":0}')]
        client = client_for(wire_server.base_url)
        assert client.call(Command.SET_ATTR, BODY).fault is Fault.BROKEN_CONNECTION
        assert client.call(Command.SET_ATTR, BODY).fault is None


class TestTls:
    def test_a_certificate_that_nobody_vouches_for_is_refused_before_the_signature_leaves(
        self, tls_server: Any
    ) -> None:
        result = client_for(tls_server.base_url).call(Command.SET_ATTR, BODY)
        assert (result.fault, result.detail) == (
            Fault.CONNECT_FAILED,
            "the host's TLS certificate is not trusted here",
        )
        assert tls_server.seen == []

    def test_a_ca_bundle_of_the_environment_is_used(
        self, tls_server: Any, steps: Any, loopback_pem: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(loopback_pem))
        tls_server.script = [steps.answer(b'{"ActionStatus":"OK","ErrorCode":0}')]
        client = Client(base_url=tls_server.base_url, credentials=CREDENTIALS, transport=RequestsTransport())
        assert client.call(Command.SET_ATTR, BODY).fault is None

    def test_a_ca_bundle_that_does_not_exist_is_named_as_the_cause(
        self, tls_server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem")
        client = Client(base_url=tls_server.base_url, credentials=CREDENTIALS, transport=RequestsTransport())
        result = client.call(Command.SET_ATTR, BODY)
        assert (result.fault, result.detail) == (
            Fault.CONNECT_FAILED,
            "the CA bundle named by the environment cannot be read",
        )

    def test_a_server_without_tls_is_no_target(self, wire_server: Any) -> None:
        wire_server.greeting = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        result = client_for(f"https://127.0.0.1:{wire_server.port}").call(Command.SET_ATTR, BODY)
        assert (result.fault, result.detail) == (Fault.CONNECT_FAILED, "the host did not agree to TLS")

    def test_a_tls_error_that_may_have_come_after_the_request_counts_as_a_broken_connection(self) -> None:
        late, early = ssl.SSLError(1, "bad record"), ssl.SSLError(1, "wrong version")
        late.reason, early.reason = "DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "WRONG_VERSION_NUMBER"
        assert transport_module._explain_tls(late)[0] is Fault.BROKEN_CONNECTION
        assert transport_module._explain_tls(early)[0] is Fault.CONNECT_FAILED


class TestEnvironment:
    def test_a_proxy_of_the_environment_is_used_for_a_live_target(
        self, wire_server: Any, steps: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", wire_server.base_url)
        wire_server.script = [steps.raw(b"HTTP/1.1 403 Forbidden\r\n\r\n")]
        result = Client(base_url="https://push.example.com", credentials=CREDENTIALS).call(Command.SET_ATTR, BODY)
        assert wire_server.seen[0].line.startswith("CONNECT push.example.com:443")
        assert SIGNATURE not in str(wire_server.seen)
        assert (result.fault, result.detail) == (
            Fault.CONNECT_FAILED,
            "the proxy named by the environment could not be used",
        )

    @pytest.mark.parametrize("proxy", ["http://127.0.0.1:{port}", "nonsense://x", "http://"])
    def test_a_proxy_that_cannot_be_used_is_named_as_the_cause(
        self, proxy: str, closed_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", proxy.format(port=closed_port))
        result = Client(base_url="https://push.example.com", credentials=CREDENTIALS).call(Command.SET_ATTR, BODY)
        assert result.fault is Fault.CONNECT_FAILED
        assert "proxy" in str(result.detail)

    def test_loopback_is_reached_without_the_proxy_of_the_environment(
        self, wire_server: Any, steps: Any, closed_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port}")
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{closed_port}")
        wire_server.script = [steps.answer(b'{"ActionStatus":"OK","ErrorCode":0}')]
        client = Client(base_url=wire_server.base_url, credentials=CREDENTIALS)
        assert client.call(Command.SET_ATTR, BODY).fault is None

    def test_passwords_of_a_netrc_file_are_not_sent(
        self, wire_server: Any, steps: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "netrc").write_text("default login someone password something\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        wire_server.script = [steps.answer(b"{}")]
        RequestsTransport().post(wire_server.base_url, body=b"{}")
        assert "authorization" not in wire_server.seen[0].headers


class TestForPeople:
    """The methods that raise, against the documented replies."""

    @pytest.fixture
    def answered(
        self, wire_server: Any, steps: Any, documented_reply: Callable[[str], bytes]
    ) -> Callable[[str], Client]:
        def start(name: str) -> Client:
            wire_server.script = [steps.answer(documented_reply(name))]
            return client_for(wire_server.base_url)

        return start

    def test_set_attr_names_the_accounts_that_were_not_set(self, answered: Any, wire_server: Any) -> None:
        assert answered("set_attr_partial").set_attr([("abc", {"city": "北京"})]) == (RowError("abc", 70107),)
        assert wire_server.seen[0].body == '{"UserAttrs":[{"To_Account":"abc","Attrs":{"city":"北京"}}]}'.encode()

    def test_set_attr_without_errors_names_nobody(self, answered: Any) -> None:
        assert answered("set_attr_ok").set_attr([("abc", {"city": "x"})]) == ()

    def test_remove_attr_sends_names_alone(self, answered: Any, wire_server: Any) -> None:
        errors = answered("remove_attr_partial").remove_attr([("xiaojun013", ["sex", "city"])])
        assert errors == (RowError("xiaojun013", 70107),)
        assert wire_server.seen[0].body == b'{"UserAttrs":[{"To_Account":"xiaojun013","Attrs":["sex","city"]}]}'

    def test_get_attr_tells_accounts_by_name_not_by_order(self, answered: Any) -> None:
        attributes, errors = answered("get_attr_partial").get_attr(["xiaojun012", "xiaojun013", "xiaojun014"])
        assert attributes == {"xiaojun012": {"sex": "attr1", "city": "attr2"}, "xiaojun013": {}}
        assert [(error.account, error.code) for error in errors] == [("xiaojun014", 70107)]

    def test_declared_attributes_come_with_their_account_type(self, answered: Any, wire_server: Any) -> None:
        assert answered("get_attr_name").get_attr_name() == {
            "sex": AccountType.USER_ID,
            "city": AccountType.USER_ID,
            "device_city": AccountType.REGISTRATION_ID,
        }
        assert wire_server.seen[0].body == b"{}"

    def test_without_types_all_declared_attributes_are_for_user_ids(self, answered: Any) -> None:
        assert set(answered("get_attr_name_older").get_attr_name().values()) == {AccountType.USER_ID}

    def test_declared_slots_are_numbers(self, answered: Any) -> None:
        assert answered("get_attr_name").get_attr_slots()[2] == ("device_city", AccountType.REGISTRATION_ID)

    def test_set_attr_name_sends_names_and_types_by_slot(self, answered: Any, wire_server: Any) -> None:
        answered("set_attr_ok").set_attr_name({3: ("device_city", AccountType.REGISTRATION_ID)})
        assert wire_server.seen[0].body == b'{"AttrNames":{"3":"device_city"},"AttrTypes":{"3":1}}'

    def test_a_refused_call_is_raised_with_its_code(self, answered: Any) -> None:
        with pytest.raises(CallRefusedError, match="set_attr_name was refused with code 90033") as caught:
            answered("set_attr_name_twice").set_attr_name({2: ("city", AccountType.USER_ID)})
        assert caught.value.info == "attrName:city already exists at index:1"

    def test_an_unreachable_target_is_named_with_the_remedy(self, closed_port: int) -> None:
        with pytest.raises(TargetUnreachableError, match=f"127.0.0.1:{closed_port}.*TENCENT_PUSH_BASE_URL"):
            client_for(f"http://127.0.0.1:{closed_port}").get_attr_name()


class TestBaseUrl:
    @pytest.mark.parametrize(
        ("given", "checked"),
        [
            ("https://console.tim.qq.com", "https://console.tim.qq.com"),
            ("https://proxy.example.com:8443/push/", "https://proxy.example.com:8443/push"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://localhost:8080/", "http://localhost:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ],
    )
    def test_https_and_loopback_are_accepted(self, given: str, checked: str) -> None:
        assert checked_base_url(given) == checked

    @pytest.mark.parametrize(
        "given",
        [
            "http://console.tim.qq.com",
            "http://127.0.0.1.example.com",
            "http://10.0.0.1",
            "ftp://127.0.0.1",
            "console.tim.qq.com",
            "https://",
            "https://host:port",
            "https://[::1",
            "https://a b",
            " https://console.tim.qq.com",
            "https://user:planted@console.tim.qq.com",
            "https://console.tim.qq.com?usersig=planted",
            "https://console.tim.qq.com/#planted",
            "",
        ],
    )
    def test_all_else_is_a_settings_error_that_does_not_quote_it(self, given: str) -> None:
        with pytest.raises(SettingsError, match="TENCENT_PUSH_BASE_URL") as caught:
            Client(base_url=given, credentials=CREDENTIALS)
        assert_clean(str(caught.value))
