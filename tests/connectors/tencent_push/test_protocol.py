import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.tencent_push.protocol import (
    AccountType,
    Reply,
    RowError,
    UnreadableReply,
    decode_reply,
    encode_get_attr,
    encode_get_attr_name,
    encode_remove_attr,
    encode_set_attr,
    encode_set_attr_name,
)

REPLIES = sorted((Path(__file__).parent / "replies").glob("*.json"))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["To_Account", "Attrs", "ErrorCode", "0", "1", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def decoded(body: dict[str, Any]) -> Reply | UnreadableReply:
    return decode_reply(json.dumps({"ActionStatus": "OK", "ErrorCode": 0, "ErrorInfo": "", **body}).encode())


def reply_of(body: dict[str, Any]) -> Reply:
    reply = decoded(body)
    assert isinstance(reply, Reply)
    return reply


class TestCalls:
    def test_values_go_out_as_raw_utf8(self) -> None:
        body = encode_set_attr([("a", {"city": "北京 👩‍🚀"})])
        assert body == '{"UserAttrs":[{"To_Account":"a","Attrs":{"city":"北京 👩‍🚀"}}]}'.encode()

    def test_removals_name_attributes_in_an_array(self) -> None:
        assert json.loads(encode_remove_attr([("a", ("x", "y"))])) == {
            "UserAttrs": [{"To_Account": "a", "Attrs": ["x", "y"]}]
        }

    def test_accounts_are_asked_for_in_an_array(self) -> None:
        assert encode_get_attr(["a", "b"]) == b'{"To_Account":["a","b"]}'

    def test_a_body_is_never_empty(self) -> None:
        assert encode_get_attr_name() == b"{}"

    def test_every_declared_slot_has_a_name_and_a_type(self) -> None:
        slots = {0: ("city", AccountType.USER_ID), 9: ("device_city", AccountType.REGISTRATION_ID)}
        assert json.loads(encode_set_attr_name(slots)) == {
            "AttrNames": {"0": "city", "9": "device_city"},
            "AttrTypes": {"0": 0, "9": 1},
        }


class TestAccountTypes:
    def test_the_documented_numbers_stand_for_the_types(self) -> None:
        assert [AccountType.from_wire(number) for number in (0, 1)] == list(AccountType)
        assert [account_type.wire for account_type in AccountType] == [0, 1]

    def test_another_number_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="AttrTypes 2 is not documented"):
            AccountType.from_wire(2)


class TestReplies:
    @pytest.mark.parametrize("path", REPLIES, ids=[path.stem for path in REPLIES])
    def test_a_documented_reply_names_its_page_and_can_be_read(
        self, path: Path, documented_reply: Callable[[str], bytes]
    ) -> None:
        document = json.loads(path.read_text())
        assert document["page"].startswith("https://www.tencentcloud.com/document/product/1047/")
        reply = decode_reply(documented_reply(path.stem))
        assert isinstance(reply, Reply)
        assert reply.code == document["reply"]["ErrorCode"]
        assert len(reply.row_errors) == len(document["reply"].get("ErrorList", []))

    def test_an_error_without_a_text_of_its_own_has_none(self) -> None:
        errors = [{"To_Account": "a", "ErrorCode": 70107}, {"To_Account": "b", "ErrorCode": 1, "ErrorInfo": ""}]
        assert reply_of({"ErrorList": errors}).row_errors == (RowError("a", 70107), RowError("b", 1))

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"", "the body is empty"),
            (b"<html></html>", "the body is not JSON"),
            (b'{"ErrorCode":0', "the body is not JSON"),
            (b'{"ErrorInfo":"\xff"}', "the body is not JSON"),
            (b"[]", "the body is JSON, but not an object"),
            (b"{}", "ErrorCode is missing or not a whole number"),
            (b'{"ActionStatus":"OK","ErrorCode":"0"}', "ErrorCode is missing or not a whole number"),
            (b'{"ActionStatus":"OK","ErrorCode":false}', "ErrorCode is missing or not a whole number"),
            (b'{"ActionStatus":"OK","ErrorCode":0.0}', "ErrorCode is missing or not a whole number"),
            (b'{"ActionStatus":"FAIL","ErrorCode":0}', "ErrorCode is 0, but ActionStatus is not OK"),
            (b'{"ErrorCode":0}', "ErrorCode is 0, but ActionStatus is not OK"),
        ],
    )
    def test_what_is_no_documented_reply_is_never_a_success(self, content: bytes, why: str) -> None:
        assert decode_reply(content) == UnreadableReply(why)

    @pytest.mark.parametrize("errors", [{}, "x", 1, [1], [{}], [{"To_Account": "a"}], [{"ErrorCode": 70107}]])
    def test_errors_of_another_shape_make_the_whole_reply_unreadable(self, errors: object) -> None:
        assert isinstance(decoded({"ErrorList": errors}), UnreadableReply)

    @given(st.binary())
    def test_any_bytes_are_a_reply_or_a_reason(self, content: bytes) -> None:
        assert isinstance(decode_reply(content), Reply | UnreadableReply)

    @given(JSON, JSON, JSON, JSON)
    def test_any_shape_is_read_or_a_value_error(
        self, errors: object, users: object, names: object, types: object
    ) -> None:
        reply = decoded({"ErrorList": errors, "UserAttrs": users, "AttrNames": names, "AttrTypes": types})
        if isinstance(reply, UnreadableReply):
            return
        for read in (reply.attributes, reply.attribute_types, reply.attribute_slots):
            try:
                read()
            except ValueError:
                continue


class TestAttributesOfAReply:
    def test_accounts_are_told_apart_by_name(self) -> None:
        users = [{"To_Account": "b", "Attrs": {}}, {"To_Account": "a", "Attrs": {"x": "1"}}]
        assert reply_of({"UserAttrs": users}).attributes() == {"a": {"x": "1"}, "b": {}}

    def test_no_account_is_no_error(self) -> None:
        assert reply_of({}).attributes() == {}

    @pytest.mark.parametrize(
        "users",
        [
            {},
            [1],
            [{}],
            [{"To_Account": 1}],
            [{"To_Account": "a", "Attrs": ["x"]}],
            [{"To_Account": "a", "Attrs": {"x": 1}}],
        ],
    )
    def test_another_shape_is_a_value_error(self, users: object) -> None:
        with pytest.raises(ValueError, match="UserAttrs"):
            reply_of({"UserAttrs": users}).attributes()

    def test_a_slot_without_a_type_is_for_user_ids(self) -> None:
        reply = reply_of({"AttrNames": {"0": "a", "7": "b"}, "AttrTypes": {"7": 1}})
        assert reply.attribute_slots() == {0: ("a", AccountType.USER_ID), 7: ("b", AccountType.REGISTRATION_ID)}
        assert reply.attribute_types() == {"a": AccountType.USER_ID, "b": AccountType.REGISTRATION_ID}

    def test_a_slot_without_a_name_is_free(self) -> None:
        assert reply_of({"AttrNames": {"0": "", "1": "a"}}).attribute_slots() == {1: ("a", AccountType.USER_ID)}

    @pytest.mark.parametrize(
        ("names", "types"),
        [
            (["a"], {}),
            ({"x": "a"}, {}),
            ({"0": 1}, {}),
            ({"0": "a"}, [1]),
            ({"0": "a"}, {"0": "1"}),
            ({"0": "a"}, {"0": 2}),
        ],
    )
    def test_slots_of_another_shape_are_a_value_error(self, names: object, types: object) -> None:
        with pytest.raises(ValueError, match="Attr"):
            reply_of({"AttrNames": names, "AttrTypes": types}).attribute_slots()


def test_a_reply_does_not_show_accounts_values_or_tencents_text() -> None:
    reply = reply_of(
        {
            "ErrorInfo": "planted-1",
            "ErrorList": [{"To_Account": "planted-2", "ErrorCode": 90033, "ErrorInfo": "planted-3"}],
            "UserAttrs": [{"To_Account": "planted-4", "Attrs": {"city": "planted-5"}}],
        }
    )
    assert "90033" in repr(reply)
    assert "planted" not in repr(reply)
