"""The URL and the signature of a call, against the vendor's own signature package."""

import base64
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from TLSSigAPIv2 import TLSSigAPIv2

from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, App, Emulator
from connectors.tencent_push.emulator.access import Target, check_access
from connectors.tencent_push.emulator.answers import RefusalError
from connectors.tencent_push.protocol import Command

APP = EMULATOR_CREDENTIALS
OTHER_KEY = "0" * 64
DAY = 86_400
VECTOR = (
    "eJyrVgrxCdYrSy1SslJQMtIzUNJRAItkpqTmlWSmZUIkElNyM-Myi0uKEkvyi2BKilOyEwsKMlOACgxNDKAAKpdaUZBZlAqUsTAzgQuWZOaChAz"
    "N0RQXZ6aDLKn0cUzVLjcPD00NLS1MCrPM0A*JMLcoNTLMD3HP1M60jCowLDUOKMiLNDOwVaoFAD4PNPI_"
)


def official(*, sdkappid: int = APP.sdkappid, key: str = APP.secret_key) -> Any:
    return TLSSigAPIv2(sdkappid, key)


def unpack(usersig: str) -> dict[str, Any]:
    packed = base64.b64decode(usersig.translate(str.maketrans("*-_", "+/=")))
    content: dict[str, Any] = orjson.loads(zlib.decompress(packed))
    return content


def pack(content: object, *, level: int = 6) -> str:
    packed = zlib.compress(content if isinstance(content, bytes) else orjson.dumps(content), level)
    return base64.b64encode(packed).decode().translate(str.maketrans("+/=", "*-_"))


def code_of(usersig: str, *, now: float | None = None, app: App = APP, **replaced: object) -> int:
    """What check_access says of a get_attr_name call with this signature; 0 when it lets the call in."""
    query = {
        "usersig": usersig,
        "identifier": APP.identifier,
        "sdkappid": str(APP.sdkappid),
        "random": "7",
        "contenttype": "json",
    }
    target = Target("/v4/timpush/get_attr_name", query | {name: str(value) for name, value in replaced.items()})
    try:
        check_access("POST", target, host="127.0.0.1", app=app, now=time.time() if now is None else now)
    except RefusalError as refusal:
        return refusal.code
    return 0


# 1. What lets a call in (1047/34385, 1047/34620).


@pytest.mark.parametrize("command", Command)
def test_a_signature_of_the_official_package_opens_every_command(call: Any, command: Command) -> None:
    """1047/34385"""
    assert call.code(command, b"[]") == 90001  # past access: the body is what is wrong


def test_a_signature_with_userbuf_is_accepted() -> None:
    """1047/34385, step 1: a fifth line when there is a userbuf"""
    assert code_of(official().gen_sig_with_userbuf(APP.identifier, DAY, b"room 7")) == 0


def test_a_signature_whose_userbuf_was_exchanged_is_refused_with_70009() -> None:
    """1047/34385"""
    content = unpack(official().gen_sig_with_userbuf(APP.identifier, DAY, b"room 7"))
    content["TLS.userbuf"] = base64.b64encode(b"room 8").decode()
    assert code_of(pack(content)) == 70009


def test_the_measured_test_vector_is_accepted_in_its_time() -> None:
    """1047/34385, measured with Python and Node"""
    assert code_of(VECTOR, now=1_700_000_000) == 0
    assert unpack(VECTOR)["TLS.sig"] == "yLAe+w7WUeUuqbV9h/TX78u21oTGi+i9Zp1u3PpnY60="


@pytest.mark.parametrize("level", [0, 1, 9])
def test_key_order_spacing_and_compression_of_other_languages_are_accepted(level: int) -> None:
    """1047/34385: only TLS.sig is compared"""
    content = dict(reversed(unpack(official().gen_sig(APP.identifier)).items()))
    assert code_of(pack(orjson.dumps(content, option=orjson.OPT_INDENT_2), level=level)) == 0


def test_a_signature_needs_no_quoting_and_may_have_it(call: Any) -> None:
    """1047/34385: `*` as `%2A` is harmless"""
    made = (official().gen_sig(APP.identifier, expire=DAY + seconds) for seconds in range(1000))
    usersig = next(usersig for usersig in made if "*" in usersig)
    plain = call.target("get_attr_name", usersig=None) + f"&usersig={usersig}"
    quoted = call.target("get_attr_name", usersig=None) + f"&usersig={usersig.replace('*', '%2A')}"
    for target in (plain, quoted):
        assert orjson.loads(call.response(target, b"{}")[1])["ErrorCode"] == 0


def test_a_signature_may_be_used_again_and_a_new_one_made_per_call(call: Any) -> None:
    """1047/34385"""
    usersig = official().gen_sig(APP.identifier)
    newer = official().gen_sig(APP.identifier, expire=DAY)
    assert [call.code("get_attr_name", usersig=sig) for sig in (usersig, usersig, newer, usersig)] == [0, 0, 0, 0]


def test_a_signature_made_ahead_of_the_clock_is_accepted() -> None:
    """1047/34385: a tolerance for clocks is not documented"""
    usersig = official().gen_sig(APP.identifier)
    assert code_of(usersig, now=time.time() - 3600) == 0


# 2. What keeps it out, each with the code of 1047/34348.


def test_the_last_second_of_a_signature_counts_and_then_it_is_refused_with_70001() -> None:
    """1047/34348"""
    usersig = official().gen_sig(APP.identifier, expire=DAY)
    ends_at = unpack(usersig)["TLS.time"] + DAY
    assert [code_of(usersig, now=ends_at - 1), code_of(usersig, now=ends_at)] == [0, 70001]


def test_the_clock_that_judges_expiry_is_the_injected_one(call: Any, clock: Any) -> None:
    """1047/34348"""
    usersig = official().gen_sig(APP.identifier, expire=DAY)
    clock.now += DAY + 1
    assert call.code("get_attr_name", usersig=usersig) == 70001
    clock.now -= DAY
    assert call.code("get_attr_name", usersig=usersig) == 0


def test_the_official_packages_default_of_180_days_holds() -> None:
    """1047/34385"""
    usersig = official().gen_sig(APP.identifier)
    assert [code_of(usersig, now=time.time() + days * DAY) for days in (179, 181)] == [0, 70001]


def test_a_wrong_key_is_refused_with_70009() -> None:
    """1047/34348"""
    assert code_of(official(key=OTHER_KEY).gen_sig(APP.identifier)) == 70009


def test_an_expired_signature_of_a_wrong_key_is_a_wrong_key() -> None:
    """1047/34348: what is not genuine has no end"""
    assert code_of(official(key=OTHER_KEY).gen_sig(APP.identifier, expire=1), now=time.time() + DAY) == 70009


def test_a_signature_for_another_identifier_is_refused_with_70013() -> None:
    """1047/34348"""
    assert code_of(official().gen_sig("someone")) == 70013


def test_a_signature_for_another_app_is_refused_with_70014() -> None:
    """1047/34348"""
    assert code_of(official(sdkappid=1400000001).gen_sig(APP.identifier)) == 70014


def test_another_app_with_its_own_genuine_signature_is_refused_with_70020() -> None:
    """1047/34348: the app does not exist in this data centre"""
    usersig = official(sdkappid=1400000001).gen_sig(APP.identifier)
    assert code_of(usersig, sdkappid=1400000001) == 70020


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("set_attr_name", 90009),
        ("get_attr_name", 90009),
        ("set_attr", 90009),
        ("get_attr", 60010),
        ("remove_attr", 90009),
    ],
)
def test_an_identifier_that_is_no_administrator_is_refused(call: Any, command: str, code: int) -> None:
    """1047/60563, 67815, 60565, 60566 list 90009; 1047/60564 does not, so the general 60010 of 1047/34348"""
    assert call.code(command, usersig=official().gen_sig("someone"), identifier="someone") == code


def test_the_administrators_name_is_told_apart_by_case() -> None:
    """1047/34620: parameter values are case-sensitive"""
    name = APP.identifier.title()
    assert code_of(official().gen_sig(name), identifier=name) == 90009


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: {name: value for name, value in content.items() if name != "TLS.sig"},
        lambda content: {name: value for name, value in content.items() if name != "TLS.time"},
        lambda content: content | {"TLS.ver": "1.0"},
        lambda content: content | {"TLS.time": str(content["TLS.time"])},
        lambda content: content | {"TLS.expire": True},
        lambda content: content | {"TLS.sdkappid": float(APP.sdkappid)},
        lambda content: content | {"TLS.sig": None},
        lambda content: content | {"TLS.userbuf": 7},
        lambda content: [content],
        lambda content: b"{",
        lambda content: b"\xff\xfe",
    ],
)
def test_a_signature_of_another_form_is_refused_with_70003(spoil: Callable[[dict[str, Any]], object]) -> None:
    """1047/34348"""
    assert code_of(pack(spoil(unpack(official().gen_sig(APP.identifier))))) == 70003


def test_a_signature_with_a_bomb_inside_is_refused_without_unpacking_it() -> None:
    """1047/34348"""
    assert code_of(pack(b" " * 50_000_000, level=9)) == 70003


@pytest.mark.parametrize("kept", range(0, 184, 8))
def test_a_signature_that_was_cut_off_is_refused_with_70003(kept: int) -> None:
    """1047/34348"""
    assert code_of(VECTOR[:kept], now=1_700_000_000) == 70003


def test_a_signature_whose_sig_has_other_letters_is_refused() -> None:
    """1047/34348"""
    content = unpack(official().gen_sig(APP.identifier)) | {"TLS.sig": "ключ"}
    assert code_of(pack(content)) in (70003, 70009)


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_any_text_that_is_no_signature_is_refused_with_70003(text: str) -> None:
    """1047/34348; empty included, which older tables give a code of its own (70002)"""
    assert code_of(text) == 70003


@given(st.integers(min_value=0, max_value=180), st.sampled_from("aZ09*-"))
def test_a_signature_with_one_letter_changed_is_never_accepted(place: int, letter: str) -> None:
    """1047/34348"""
    changed = VECTOR[:place] + letter + VECTOR[place + 1 :]
    accepted = code_of(changed, now=1_700_000_000) == 0
    assert accepted == (changed == VECTOR) or unpack(changed) == unpack(VECTOR)


# 3. The URL's fields (1047/34620, 1047/34348).


@pytest.mark.parametrize(
    ("replaced", "code"),
    [
        ({"sdkappid": None}, 60012),
        ({"sdkappid": "app"}, 60025),
        ({"sdkappid": ""}, 60025),
        ({"sdkappid": "१४०"}, 60025),
        ({"identifier": None}, 60025),
        ({"usersig": None}, 60025),
        ({"usersig": ""}, 70003),
        ({"contenttype": None}, 60025),
        ({"contenttype": "xml"}, 60025),
        ({"random": None}, 60002),
        ({"random": ""}, 60002),
        ({"random": "-1"}, 60002),
        ({"random": "4294967296"}, 60002),
        ({"random": "1.5"}, 60002),
        ({"random": 0}, 0),
        ({"random": 4294967295}, 0),
    ],
)
def test_each_field_of_the_url_is_required_and_checked(call: Any, replaced: dict[str, object], code: int) -> None:
    """1047/34620 for the fields, 1047/34348 for the codes"""
    assert call.code("get_attr_name", **replaced) == code


def test_an_additional_field_in_the_url_does_no_harm(call: Any) -> None:
    """1047/34620"""
    assert call.code("get_attr_name", traceid="x") == 0


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "PATCH"])
def test_only_post_is_served(call: Any, emulator: Emulator, method: str) -> None:
    """1047/34620"""
    status, _ = call.response(call.target("get_attr_name"), b"{}", method=method)
    assert status == 200
    assert emulator.calls[-1].code == 60002


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("add_tag", id="1047/60568"),
        pytest.param("get_tag", id="1047/67820"),
        pytest.param("remove_tag", id="1047/67822"),
        pytest.param("clear_all_tags", id="1047/60570"),
        pytest.param("remove_all_tags", id="1047/60570-not-a-command"),
        pytest.param("push", id="1047/60561"),
        pytest.param("batch", id="1047/67553"),
        pytest.param("revoke", id="1047/60571"),
        pytest.param("normal_push_loss", id="1047/71898"),
        pytest.param("im_set_attr", id="1047/37166"),
        pytest.param("SET_ATTR", id="1047/34620-case-sensitive"),
        pytest.param("set_attr/", id="1047/34620-exact-path"),
    ],
)
def test_commands_beside_the_attributes_are_not_served_and_say_so_with_60009(call: Any, name: str) -> None:
    assert call.code(name) == 60009


@pytest.mark.parametrize("path", ["/v4/all_member_push/im_set_attr", "/v4/openim/im_set_attr", "/", "*"])
def test_older_services_are_another_address(call: Any, path: str) -> None:
    """1047/37165"""
    query = call.target("set_attr").partition("?")[2]
    assert orjson.loads(call.response(f"{path}?{query}", b"{}")[1])["ErrorCode"] == 60009


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("console.tim.qq.com", 0),
        ("CONSOLE.TIM.QQ.COM:443", 0),
        ("adminapisgp.im.qcloud.com", 60026),
        ("adminapikr.im.qcloud.com", 60026),
        ("adminapiger.im.qcloud.com", 60026),
        ("adminapiusa.im.qcloud.com", 60026),
        ("adminapiidn.im.qcloud.com", 60026),
        ("adminapijpn.im.qcloud.com", 60026),
        ("localhost:8020", 0),
    ],
)
def test_the_domain_of_another_region_is_refused_with_60026(call: Any, host: str, code: int) -> None:
    """1047/34620 for the domains, 1047/34348 for the code"""
    _, reply = call.response(call.target("get_attr_name"), b"{}", headers={"Host": host})
    assert orjson.loads(reply)["ErrorCode"] == code


def test_an_app_of_another_region_is_served_at_that_regions_domain(tmp_path: Path, make_call: Any) -> None:
    """1047/34620"""
    with Emulator(tmp_path / "tokyo.sqlite", region="tokyo") as tokyo:
        call = make_call(tokyo)
        for host, code in (("adminapijpn.im.qcloud.com", 0), ("console.tim.qq.com", 60026)):
            _, reply = call.response(call.target("get_attr_name"), b"{}", headers={"Host": host})
            assert orjson.loads(reply)["ErrorCode"] == code


def test_the_key_and_the_signature_stand_in_no_text_of_the_app_or_the_target() -> None:
    target = Target.parse(f"/v4/timpush/set_attr?usersig={VECTOR}")
    assert VECTOR not in repr(target)
    assert APP.secret_key not in repr(APP)
