import base64
import json
import re
import threading
import traceback
import zlib

import pytest
import TLSSigAPIv2
from hypothesis import given
from hypothesis import strategies as st

from connectors.tencent_push.usersig import UserSigFault, UserSigSource, check_usersig, make_usersig, read_usersig

SDKAPPID = 1400000000
KEY = "5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e"  # the example of the public library's README
NOW = 1700000000
# Made by the vendor's Python library and checked against its Node library.
VECTOR = (
    "eJyrVgrxCdYrSy1SslJQMtIzUNJRAItkpqTmlWSmZUIkElNyM-Myi0uKEkvyi2BKilOyEwsKMlOACgxNDKAAKpdaUZBZlAqUsTAzgQuWZOaChAzN"
    "0RQXZ6aDLKn0cUzVLjcPD00NLS1MCrPM0A*JMLcoNTLMD3HP1M60jCowLDUOKMiLNDOwVaoFAD4PNPI_"
)


def make(*, identifier: str = "administrator", key: str = KEY, now: int = NOW, expire_seconds: int = 86_400) -> str:
    return make_usersig(
        sdkappid=SDKAPPID, identifier=identifier, secret_key=key, now=now, expire_seconds=expire_seconds
    )


def packed(body: object) -> str:
    text = base64.b64encode(zlib.compress(json.dumps(body).encode())).decode()
    return text.replace("+", "*").replace("/", "-").replace("=", "_")


def test_the_test_vectors_signature_is_made() -> None:
    assert read_usersig(make()).signature == "yLAe+w7WUeUuqbV9h/TX78u21oTGi+i9Zp1u3PpnY60="


def test_the_vendors_string_is_read_and_found_genuine() -> None:
    assert read_usersig(VECTOR) == read_usersig(make())
    assert check_usersig(VECTOR, secret_key=KEY, now=NOW) is None


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.integers(1, 10**9))
def test_the_official_package_and_ours_agree_on_every_field(identifier: str, expire_seconds: int) -> None:
    theirs = TLSSigAPIv2.TLSSigAPIv2(SDKAPPID, KEY).gen_sig(identifier, expire_seconds)
    content = read_usersig(theirs)
    assert check_usersig(theirs, secret_key=KEY, now=content.made_at) is None
    ours = make(identifier=identifier, now=content.made_at, expire_seconds=expire_seconds)
    assert read_usersig(ours) == content


def test_a_userbuf_of_the_official_package_is_part_of_what_is_signed() -> None:
    theirs = TLSSigAPIv2.TLSSigAPIv2(SDKAPPID, KEY).gen_sig_with_userbuf("administrator", 86_400, b"\x00room")
    assert check_usersig(theirs, secret_key=KEY, now=read_usersig(theirs).made_at) is None


def test_the_official_decoder_reads_ours() -> None:
    body = json.loads(zlib.decompress(TLSSigAPIv2.base64_decode_url(make().encode())))
    assert body == {
        "TLS.ver": "2.0",
        "TLS.identifier": "administrator",
        "TLS.sdkappid": SDKAPPID,
        "TLS.expire": 86_400,
        "TLS.time": NOW,
        "TLS.sig": "yLAe+w7WUeUuqbV9h/TX78u21oTGi+i9Zp1u3PpnY60=",
    }


@given(st.integers(0, 2**32), st.text(st.characters(exclude_categories=["Cs"]), max_size=64))
def test_a_signature_needs_no_quoting_in_a_url(now: int, identifier: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9*_-]+", make(now=now, identifier=identifier))


def test_a_signature_holds_until_the_second_in_which_it_ends() -> None:
    assert check_usersig(make(), secret_key=KEY, now=NOW + 86_399.9) is None
    assert check_usersig(make(), secret_key=KEY, now=NOW + 86_400) is UserSigFault.EXPIRED


def test_another_key_is_noticed_before_anything_else() -> None:
    assert check_usersig(make(key="another"), secret_key=KEY, now=NOW + 10**6) is UserSigFault.WRONG_KEY


@pytest.mark.parametrize(
    ("field", "value"),
    [("TLS.identifier", "other"), ("TLS.sdkappid", 1), ("TLS.time", NOW + 1), ("TLS.expire", 10**9)],
)
def test_a_changed_field_breaks_the_signature(field: str, value: object) -> None:
    body = json.loads(zlib.decompress(TLSSigAPIv2.base64_decode_url(make().encode())))
    assert check_usersig(packed({**body, field: value}), secret_key=KEY, now=NOW) is UserSigFault.WRONG_KEY


FIELDS = {
    "TLS.ver": "2.0",
    "TLS.identifier": "a",
    "TLS.sdkappid": 1,
    "TLS.expire": 1,
    "TLS.time": 1,
    "TLS.sig": "签",
}


@pytest.mark.parametrize(
    "usersig",
    [
        "",
        "x",
        "????",
        "签名",
        VECTOR[:-8],
        VECTOR[8:],
        packed([]),
        packed("text"),
        packed({}),
        packed({**FIELDS, "TLS.identifier": 1}),
        packed({**FIELDS, "TLS.time": 1.5}),
        packed({**FIELDS, "TLS.ver": "1.0"}),
        packed({**FIELDS, "TLS.userbuf": 1}),
        packed("0" * 1_000_000),
    ],
)
def test_what_is_no_signature_is_malformed(usersig: str) -> None:
    assert check_usersig(usersig, secret_key=KEY, now=NOW) is UserSigFault.MALFORMED


def test_a_signature_of_other_characters_is_a_wrong_key_and_no_crash() -> None:
    assert check_usersig(packed(FIELDS), secret_key=KEY, now=NOW) is UserSigFault.WRONG_KEY


@given(st.text())
def test_reading_any_text_gives_content_or_a_value_error(text: str) -> None:
    try:
        read_usersig(text)
    except ValueError as error:
        assert error.__cause__ is None
        assert error.__context__ is None


def test_neither_text_nor_traceback_holds_the_signature_or_the_key() -> None:
    content = read_usersig(VECTOR)
    assert content.signature not in repr(content)
    try:
        read_usersig(VECTOR[:-8])
    except ValueError as error:
        assert VECTOR[:20] not in "".join(traceback.format_exception(error))
    source = UserSigSource(sdkappid=SDKAPPID, identifier="administrator", secret_key=KEY)
    assert KEY not in repr(source) + str(source)


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def source_at(clock: Clock) -> UserSigSource:
    return UserSigSource(
        sdkappid=SDKAPPID, identifier="administrator", secret_key=KEY, clock=clock, expire_seconds=1000
    )


def test_a_signature_is_kept_for_half_its_life_and_then_made_anew() -> None:
    clock = Clock()
    source = source_at(clock)
    first = source.current()
    clock.now += 499.9
    assert source.current() == first
    clock.now += 0.1
    second = source.current()
    assert read_usersig(second).made_at == NOW + 500
    assert check_usersig(second, secret_key=KEY, now=clock.now) is None


def test_a_signature_is_made_anew_when_the_clock_was_set_back() -> None:
    clock = Clock()
    source = source_at(clock)
    source.current()
    clock.now -= 3600
    assert read_usersig(source.current()).made_at == NOW - 3600


def test_renewing_makes_a_new_signature_at_once() -> None:
    clock = Clock()
    source = source_at(clock)
    source.current()
    clock.now += 1
    source.renew()
    assert read_usersig(source.current()).made_at == NOW + 1


def test_threads_share_one_signature() -> None:
    source = source_at(Clock())
    seen: list[str] = []
    threads = [threading.Thread(target=lambda: seen.append(source.current())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 1
