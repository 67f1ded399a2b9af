"""set_attr, get_attr and remove_attr, statement by statement against the documented pages."""

from pathlib import Path
from typing import Any

import pytest

from connectors.tencent_push.emulator import Emulator
from connectors.tencent_push.protocol import AccountType

USER = "xiaojun012"
REGISTRATION_ID = "379C2F0D-290D-47AE-94D1-919058C39C77"
UNKNOWN = "new-abc"
FIFTY_BYTES = "京" * 16 + "xy"


def entries(count: int, **attributes: str) -> list[dict[str, object]]:
    return [{"To_Account": f"user{number}", "Attrs": attributes} for number in range(count)]


def state(emulator: Emulator) -> dict[str, dict[str, str]]:
    return dict(emulator.attributes())


# 1. set_attr: UserAttrs [{To_Account, Attrs {name: value}}] (1047/60565, 1047/67818).


def test_a_set_attr_that_succeeds_answers_ok_and_has_no_error_list(call: Any, emulator: Emulator) -> None:
    """1047/60565"""
    assert call.set(USER, sex="attr1", city="attr2") == {"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0}
    assert state(emulator) == {USER: {"sex": "attr1", "city": "attr2"}}


@pytest.mark.parametrize(("count", "code"), [(1, 0), (99, 0), (100, 0), (101, 90018)])
def test_a_set_attr_takes_up_to_100_users(call: Any, emulator: Emulator, count: int, code: int) -> None:
    """1047/60565; 90018 from 1047/34348"""
    assert call.code("set_attr", {"UserAttrs": entries(count, city="x")}) == code
    assert len(state(emulator)) == (0 if code else count)


def test_set_attr_merges_and_leaves_the_other_attributes_alone(call: Any) -> None:
    """1047/37165: each attribute can be set separately without affecting the others"""
    call.set(USER, sex="f", city="Lyon")
    call.set(USER, city="Brest")
    assert call.get(USER) == {"sex": "f", "city": "Brest"}


def test_setting_the_same_values_again_changes_nothing(call: Any) -> None:
    """1047/60565: last write wins"""
    assert [call.set(USER, city="Lyon")["ErrorCode"] for _ in range(2)] == [0, 0]
    assert call.get(USER) == {"city": "Lyon"}


@pytest.mark.parametrize("value", ["x", "x" * 50, FIFTY_BYTES, "👨‍👩‍👧‍👦🇹🇭", "a\x00b", "\u2028 '\";--"])
def test_values_of_1_to_50_utf8_bytes_are_kept_as_they_are(call: Any, value: str) -> None:
    """1047/60565: bytes, not characters"""
    assert call.set(USER, city=value)["ErrorCode"] == 0
    assert call.get(USER) == {"city": value}


@pytest.mark.parametrize("value", ["", "x" * 51, FIFTY_BYTES + "z", "京" * 17])
def test_an_empty_or_longer_value_is_refused_in_its_row_with_90033(call: Any, emulator: Emulator, value: str) -> None:
    """1047/60565 for 50 bytes; 1047/34348 for 90033 (an older table has 90030, which the page does not list)"""
    reply = call.set(USER, city=value)
    assert (reply["ActionStatus"], reply["ErrorCode"]) == ("OK", 0)
    assert [(row["To_Account"], row["ErrorCode"]) for row in reply["ErrorList"]] == [(USER, 90033)]
    assert state(emulator) == {}


def test_an_undeclared_attribute_is_refused_in_its_row_with_90033(call: Any, emulator: Emulator) -> None:
    """1047/60565"""
    (row,) = call.set(USER, nation="x")["ErrorList"]
    assert row["ErrorCode"] == 90033
    assert state(emulator) == {}


def test_attribute_names_are_told_apart_by_case(call: Any) -> None:
    """1047/34620: names are case-sensitive"""
    assert call.set(USER, City="x")["ErrorList"][0]["ErrorCode"] == 90033


@pytest.mark.parametrize(
    ("account", "attribute", "is_refused"),
    [
        (USER, "city", False),
        (USER, "device_city", True),
        (REGISTRATION_ID, "device_city", False),
        (REGISTRATION_ID, "city", True),
    ],
)
def test_an_attribute_of_the_other_account_type_is_refused_with_90035(
    call: Any, account: str, attribute: str, is_refused: bool
) -> None:
    """1047/67818; the types are those of 1047/60563"""
    rows = call.set(account, **{attribute: "x"}).get("ErrorList", [])
    assert [row["ErrorCode"] for row in rows] == [90035] * is_refused


def test_a_row_that_mixes_both_types_is_refused_whole(call: Any, emulator: Emulator) -> None:
    """1047/67818; whether the fitting ones are stored is not documented: the strict reading"""
    assert call.set(USER, city="x", device_city="y")["ErrorList"][0]["ErrorCode"] == 90035
    assert state(emulator) == {}


def test_a_row_with_one_bad_value_is_refused_whole(call: Any, emulator: Emulator) -> None:
    """1047/60565; not documented: the strict reading"""
    assert call.set(USER, city="x", sex="")["ErrorList"][0]["ErrorCode"] == 90033
    assert state(emulator) == {}


def test_partial_success_looks_like_success_beside_its_error_list(call: Any, emulator: Emulator) -> None:
    """1047/60565"""
    rows = [
        *entries(2, city="x"),
        {"To_Account": UNKNOWN, "Attrs": {"city": "x"}},
        {"To_Account": REGISTRATION_ID, "Attrs": {"city": "x"}},
        {"To_Account": "late", "Attrs": {"city": ""}},
    ]
    reply = call("set_attr", {"UserAttrs": rows})
    assert (reply["ActionStatus"], reply["ErrorCode"]) == ("OK", 0)
    refused = {row["To_Account"]: row["ErrorCode"] for row in reply["ErrorList"]}
    assert refused == {UNKNOWN: 70107, REGISTRATION_ID: 90035, "late": 90033}
    assert state(emulator) == {"user0": {"city": "x"}, "user1": {"city": "x"}}


def test_a_row_of_the_error_list_may_lack_its_error_info(call: Any) -> None:
    """1047/60565: the sample omits it"""
    assert call.set(UNKNOWN, city="x")["ErrorList"] == [{"To_Account": UNKNOWN, "ErrorCode": 70107}]


def test_an_unknown_account_comes_before_a_bad_attribute(call: Any) -> None:
    """1047/60565; not documented"""
    assert call.set(UNKNOWN, nation="x")["ErrorList"][0]["ErrorCode"] == 70107


def test_an_account_that_stands_twice_is_merged_and_the_later_value_wins(call: Any) -> None:
    """1047/60565; not documented"""
    rows = [
        {"To_Account": USER, "Attrs": {"city": "first", "sex": "f"}},
        {"To_Account": USER, "Attrs": {"city": "second"}},
    ]
    assert call.code("set_attr", {"UserAttrs": rows}) == 0
    assert call.get(USER) == {"city": "second", "sex": "f"}


def test_an_account_that_stands_twice_is_refused_once_and_whole(call: Any, emulator: Emulator) -> None:
    """1047/60565; not documented"""
    rows = [{"To_Account": USER, "Attrs": {"city": "x"}}, {"To_Account": USER, "Attrs": {"city": ""}}]
    assert len(call("set_attr", {"UserAttrs": rows})["ErrorList"]) == 1
    assert state(emulator) == {}


def test_a_row_without_attributes_is_refused_with_90033(call: Any) -> None:
    """1047/60565; not documented: the strict reading"""
    assert call.set(USER)["ErrorList"][0]["ErrorCode"] == 90033


@pytest.mark.parametrize("code", [90033, 90035])
def test_a_bad_row_can_be_made_to_refuse_its_whole_call(tmp_path: Path, make_call: Any, code: int) -> None:
    """1047/60565: row or call is not documented, so tests can have both"""
    with Emulator(tmp_path / "strict.sqlite", bad_row_refuses_call=True) as strict:
        strict.declare({"city": AccountType.USER_ID, "device_city": AccountType.REGISTRATION_ID})
        call = make_call(strict)
        bad = {90033: {"city": ""}, 90035: {"device_city": "x"}}[code]
        rows = [*entries(2, city="x"), {"To_Account": USER, "Attrs": bad}]
        reply = call("set_attr", {"UserAttrs": rows})
        assert (reply["ActionStatus"], reply["ErrorCode"]) == ("FAIL", code)
        assert state(strict) == {}
        assert "ErrorList" in call.set(UNKNOWN, city="x")  # an unknown account stays its row's matter


# 2. get_attr: To_Account [str] (1047/60564, 1047/67817).


def test_get_attr_answers_with_the_documented_fields(call: Any) -> None:
    """1047/60564"""
    call.set("xiaojun012", sex="attr1", city="attr2")
    assert call("get_attr", {"To_Account": ["xiaojun012", "xiaojun013", UNKNOWN]}) == {
        "ActionStatus": "OK",
        "ErrorInfo": "",
        "ErrorCode": 0,
        "UserAttrs": [
            {"To_Account": "xiaojun013", "Attrs": {}},
            {"To_Account": "xiaojun012", "Attrs": {"sex": "attr1", "city": "attr2"}},
        ],
        "ErrorList": [{"To_Account": UNKNOWN, "ErrorCode": 70107}],
    }


def test_a_known_account_without_attributes_has_an_empty_object(call: Any) -> None:
    """1047/60564"""
    assert call.get(USER) == {}


def test_an_unknown_account_stands_in_the_error_list_only(call: Any) -> None:
    """1047/60564"""
    reply = call("get_attr", {"To_Account": [UNKNOWN]})
    assert (reply["UserAttrs"], reply["ErrorList"][0]["ErrorCode"]) == ([], 70107)


@pytest.mark.parametrize("count", [2, 3, 100])
def test_get_attr_answers_in_another_order_than_asked(call: Any, count: int) -> None:
    """1212/45937"""
    asked = [f"user{number}" for number in range(count)]
    answered = [user["To_Account"] for user in call("get_attr", {"To_Account": asked})["UserAttrs"]]
    assert answered != asked
    assert sorted(answered) == sorted(asked)


@pytest.mark.parametrize(("count", "code"), [(1, 0), (100, 0), (101, 90018)])
def test_a_get_attr_takes_up_to_100_users(call: Any, count: int, code: int) -> None:
    """1047/60564"""
    assert call.code("get_attr", {"To_Account": [f"user{number}" for number in range(count)]}) == code


def test_an_account_asked_twice_is_answered_once(call: Any) -> None:
    """1047/60564; not documented"""
    assert len(call("get_attr", {"To_Account": [USER, USER]})["UserAttrs"]) == 1


def test_a_get_attr_sees_the_set_attr_before_it(call: Any) -> None:
    """1047/60564; a delay is not documented, the emulator has none"""
    call.set(USER, city="x")
    assert call.get(USER) == {"city": "x"}


# 3. remove_attr: UserAttrs [{To_Account, Attrs [name]}] (1047/60566, 1047/67819).


def remove(call: Any, account: str, *names: str) -> Any:
    return call("remove_attr", {"UserAttrs": [{"To_Account": account, "Attrs": list(names)}]})


def test_remove_attr_removes_just_the_named_attributes(call: Any) -> None:
    """1047/60566"""
    call.set(USER, sex="f", city="x")
    assert remove(call, USER, "sex") == {"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0}
    assert call.get(USER) == {"city": "x"}


def test_after_the_last_removal_the_account_is_as_if_never_set(call: Any, emulator: Emulator) -> None:
    """1047/60564: the key is simply missing"""
    call.set(USER, city="x")
    remove(call, USER, "city")
    assert call.get(USER) == {}
    assert state(emulator) == {}


def test_removing_what_is_not_set_succeeds(call: Any) -> None:
    """1047/60566; not documented"""
    assert "ErrorList" not in remove(call, USER, "city")


def test_a_remove_attr_takes_different_names_for_each_user(call: Any, emulator: Emulator) -> None:
    """1047/60566"""
    call("set_attr", {"UserAttrs": entries(3, city="x", sex="f")})
    rows = [{"To_Account": "user0", "Attrs": ["city"]}, {"To_Account": "user1", "Attrs": ["sex", "city"]}]
    assert call.code("remove_attr", {"UserAttrs": rows}) == 0
    assert state(emulator) == {"user0": {"sex": "f"}, "user2": {"city": "x", "sex": "f"}}


def test_remove_attr_reports_its_errors_row_by_row(call: Any, emulator: Emulator) -> None:
    """1047/60566: the sample has 70107; 90033 for an undeclared name"""
    call.set(USER, city="x", sex="f")
    rows = [
        {"To_Account": UNKNOWN, "Attrs": ["city"]},
        {"To_Account": "xiaojun013", "Attrs": ["nation"]},
        {"To_Account": USER, "Attrs": ["city"]},
    ]
    reply = call("remove_attr", {"UserAttrs": rows})
    assert {row["To_Account"]: row["ErrorCode"] for row in reply["ErrorList"]} == {UNKNOWN: 70107, "xiaojun013": 90033}
    assert state(emulator) == {USER: {"sex": "f"}}


def test_removing_an_attribute_of_the_other_account_type_is_90033(call: Any) -> None:
    """1047/60566 does not list 90035"""
    assert remove(call, USER, "device_city")["ErrorList"][0]["ErrorCode"] == 90033


def test_a_removal_that_names_nothing_is_refused_with_90033(call: Any) -> None:
    """1047/60566; not documented: the strict reading"""
    assert remove(call, USER)["ErrorList"][0]["ErrorCode"] == 90033


@pytest.mark.parametrize(("count", "code"), [(100, 0), (101, 90018)])
def test_a_remove_attr_takes_up_to_100_users(call: Any, count: int, code: int) -> None:
    """1047/60566"""
    rows = [{"To_Account": f"user{number}", "Attrs": ["city"]} for number in range(count)]
    assert call.code("remove_attr", {"UserAttrs": rows}) == code


# 4. The form of the bodies (1047/34620, 1047/34348).


@pytest.mark.parametrize("command", ["set_attr", "get_attr", "remove_attr", "get_attr_name", "set_attr_name"])
@pytest.mark.parametrize(
    "body", [b"", b" ", b"{", b"\xff\xfe{}", b'{"a": NaN}', b"city=x", b"{'a': 1}", b'{"a": "\\ud800"}']
)
def test_a_body_that_is_empty_or_not_json_is_refused_with_60003(call: Any, command: str, body: bytes) -> None:
    """1047/34620: a body is never empty; 60003 from 1047/34348"""
    assert call.code(command, body) == 60003


@pytest.mark.parametrize("command", ["set_attr", "get_attr", "remove_attr", "get_attr_name", "set_attr_name"])
@pytest.mark.parametrize("body", [[], "text", 7, b"null", True])
def test_json_that_is_no_object_is_refused_with_90001(call: Any, command: str, body: object) -> None:
    """1047/34348"""
    assert call.code(command, body) == 90001


@pytest.mark.parametrize(
    ("command", "body", "code"),
    [
        ("set_attr", {}, 90001),
        ("set_attr", {"UserAttrs": []}, 90001),
        ("set_attr", {"UserAttrs": {}}, 90001),
        ("set_attr", {"UserAttrs": ["user0"]}, 90001),
        ("set_attr", {"userattrs": entries(1, city="x")}, 90001),
        ("set_attr", {"UserAttrs": [{"Attrs": {"city": "x"}}]}, 90003),
        ("set_attr", {"UserAttrs": [{"To_Account": 7, "Attrs": {"city": "x"}}]}, 60015),
        ("set_attr", {"UserAttrs": [{"To_Account": None, "Attrs": {"city": "x"}}]}, 60015),
        ("set_attr", {"UserAttrs": [{"To_Account": USER}]}, 90001),
        ("set_attr", {"UserAttrs": [{"To_Account": USER, "Attrs": ["city"]}]}, 90001),
        ("set_attr", {"UserAttrs": [{"To_Account": USER, "Attrs": {"city": 7}}]}, 90001),
        ("set_attr", {"UserAttrs": [{"To_Account": USER, "Attrs": {"city": None}}]}, 90001),
        ("remove_attr", {}, 90001),
        ("remove_attr", {"UserAttrs": [{"To_Account": USER, "Attrs": {"city": "x"}}]}, 90001),
        ("remove_attr", {"UserAttrs": [{"To_Account": USER, "Attrs": "city"}]}, 90001),
        ("remove_attr", {"UserAttrs": [{"To_Account": USER, "Attrs": [7]}]}, 90001),
        ("remove_attr", {"UserAttrs": [{"Attrs": ["city"]}]}, 90003),
        ("get_attr", {}, 90001),
        ("get_attr", {"To_Account": []}, 90001),
        ("get_attr", {"To_Account": USER}, 90001),
        ("get_attr", {"To_Account": [7]}, 60015),
    ],
)
def test_json_of_another_form_is_refused_whole(
    call: Any, emulator: Emulator, command: str, body: object, code: int
) -> None:
    """1047/34348: 90001 for a wrong form, 60015 for an account that is no string, 90003 for a missing one"""
    assert call.code(command, body) == code
    assert state(emulator) == {}


def test_a_call_with_one_entry_of_another_form_stores_nothing(call: Any, emulator: Emulator) -> None:
    """1047/34348: refused whole"""
    rows = [*entries(3, city="x"), {"To_Account": USER, "Attrs": {"city": 7}}]
    assert call.code("set_attr", {"UserAttrs": rows}) == 90001
    assert state(emulator) == {}


def test_an_additional_field_in_the_body_does_no_harm(call: Any) -> None:
    """1047/34620"""
    assert call.code("set_attr", {"UserAttrs": entries(1, city="x"), "Note": 1}) == 0


@pytest.mark.parametrize("content", ['{"city": "北京"}', '{"city": "\\u5317\\u4eac"}'])
def test_raw_and_escaped_utf8_mean_the_same(call: Any, content: str) -> None:
    """1047/34620: JSON"""
    body = f'{{"UserAttrs": [{{"To_Account": "{USER}", "Attrs": {content}}}]}}'
    assert call.code("set_attr", body.encode()) == 0
    assert call.get(USER) == {"city": "北京"}
