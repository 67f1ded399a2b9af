"""Every mistake that a YAML can hold by itself is found at once, and told with what to do."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from connectors.tencent_push.protocol import AccountType
from pipelines import mapping as module
from pipelines.mapping import NullPolicy, SyncMapping, TooLong, mapping_from

EXAMPLE = Path(module.__file__).parent / "defs" / "example" / "defs.yaml"
USER, DEVICE = AccountType.USER_ID, AccountType.REGISTRATION_ID

FULL = """
source: {parquet: profiles/*.parquet, partition: latest, max_age: 36h}
updated_at: updated_at
accounts:
  user_id:
    column: user_id
    attributes:
      sex: gender
      city: {column: city, too_long: truncate}
      vip_until: {column: vip_until, null: remove}
      score: {column: score, decimals: 2}
  registration_id:
    column: device_id
    where: {push_enabled: true, level: 3, kind: "3"}
    matches: "[0-9A-F-]{36}"
    attributes: {device_city: city}
frames: all
schedule: {cron: "0 2 * * *", timezone: Asia/Shanghai, on_new_files: {quiet_minutes: 10}}
depends_on: [marts/user_profiles]
owners: ["team:growth"]
"""


def attributes_of(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def small(**replaced: Any) -> dict[str, Any]:
    """The least that a sync needs; `None` takes a key away."""
    whole = {
        "source": {"parquet": "p.parquet"},
        "accounts": {"user_id": {"column": "user_id", "attributes": {"city": "city"}}},
        **replaced,
    }
    return {name: value for name, value in whole.items() if value is not None}


def with_attributes(**attributes: Any) -> dict[str, Any]:
    return small(accounts={"user_id": {"column": "user_id", "attributes": attributes}})


def problems(attributes: dict[str, Any]) -> list[tuple[str, str]]:
    """(where, what) of every mistake."""
    with pytest.raises(ValidationError) as caught:
        mapping_from(attributes)
    return [(".".join(map(str, error["loc"])), error["msg"]) for error in caught.value.errors()]


# What is understood -------------------------------------------------------------------------------------------------


def test_a_whole_yaml_is_understood() -> None:
    sync = mapping_from(attributes_of(FULL))
    users, devices = sync.account_types()[USER], sync.account_types()[DEVICE]
    assert users.attributes["sex"].column == "gender"
    assert (users.attributes["sex"].too_long, users.attributes["sex"].null) == (TooLong.REJECT, NullPolicy.LEAVE)
    assert users.attributes["city"].too_long is TooLong.TRUNCATE
    assert users.attributes["vip_until"].null is NullPolicy.REMOVE
    assert users.attributes["score"].decimals == 2
    assert devices.where == {"push_enabled": True, "level": 3, "kind": "3"}
    assert [type(value) for value in devices.where.values()] == [bool, int, str]
    assert sync.frames == "all"


def test_the_example_is_understood_and_fits_the_ten_slots() -> None:
    sync = mapping_from(attributes_of(EXAMPLE.read_text(encoding="utf-8"))["attributes"])
    assert set(sync.account_types()) == {USER, DEVICE}
    assert len(sync.declared()) <= 10


def test_the_key_null_means_null_though_yaml_reads_no_key_at_all() -> None:
    written = yaml.safe_load("{column: city, null: remove}")
    assert None in written
    for policies in (written, {"column": "city", "null": "remove"}):
        sync = mapping_from(with_attributes(city=policies))
        assert sync.account_types()[USER].attributes["city"].null is NullPolicy.REMOVE


def test_a_mapping_survives_being_written_out_and_read_again() -> None:
    """As it goes through the replacement of `{{ env.NAME }}`."""
    sync = mapping_from(attributes_of(FULL))
    assert mapping_from(sync.model_dump(mode="json")) == sync


def test_account_types_come_in_one_order_whatever_the_yamls() -> None:
    written = attributes_of(FULL)
    turned = {**written, "accounts": dict(reversed(written["accounts"].items()))}
    assert list(mapping_from(turned).account_types()) == [USER, DEVICE]
    assert mapping_from(written).declared() == {
        "sex": USER, "city": USER, "vip_until": USER, "score": USER, "device_city": DEVICE,
    }  # fmt: skip


def test_columns_are_named_once_each_and_lead_back_to_their_uses() -> None:
    sync = mapping_from(attributes_of(FULL))
    assert sync.columns() == (
        "user_id", "gender", "city", "vip_until", "score", "device_id", "push_enabled", "level", "kind", "updated_at",
    )  # fmt: skip
    assert sync.uses_of("city") == [
        ("accounts", "user_id", "attributes", "city"),
        ("accounts", "registration_id", "attributes", "device_city"),
    ]
    assert sync.uses_of("push_enabled") == [("accounts", "registration_id", "where", "push_enabled")]
    assert sync.uses_of("updated_at") == [("updated_at",)]
    assert sync.uses_of("nothing") == []
    assert all(sync.uses_of(column) for column in sync.columns())


def test_one_column_for_both_types_is_mixed() -> None:
    user = {"column": "id", "where": {"kind": "u"}, "attributes": {"city": "city"}}
    device = {"column": "id", "matches": "[A-F0-9-]+", "attributes": {"device_city": "city"}}
    assert mapping_from(small(accounts={"user_id": user, "registration_id": device})).is_mixed()
    assert not mapping_from(attributes_of(FULL)).is_mixed()
    assert not mapping_from(small(accounts={"user_id": user})).is_mixed()


@pytest.mark.parametrize("pattern", ["[0-9A-F-]{36}", r"\d+", "(?i)abc", r"\p{Lu}+", "a|b", ""])
def test_patterns_that_the_engine_takes_are_taken(pattern: str) -> None:
    accounts = {"user_id": {"column": "u", "matches": pattern, "attributes": {"city": "city"}}}
    assert mapping_from(small(accounts=accounts)).account_types()[USER].matches == pattern


# Mistakes -----------------------------------------------------------------------------------------------------------

TYPES = ("user_id", "registration_id")
ATTRIBUTE = {"city": "city"}
BOTH = {
    "user_id": {"column": "id", "attributes": ATTRIBUTE},
    "registration_id": {"column": "id", "attributes": {"d": "d"}},
}
MISTAKES: list[tuple[str, dict[str, Any], str, str]] = [
    ("no source", small(source=None), "source", "Field required"),
    ("two sources", small(source={"parquet": "p", "warehouse": {"uri": "u", "query": "q"}}), "source",
     "name exactly one source: parquet, warehouse, delta or iceberg"),
    ("storage of a path", small(source={"parquet": "p", "storage": {"region": "r"}}), "source", "parquet names none"),
    ("a secret in storage", small(source={"parquet": "s3://b/p", "storage": {"secret_key": "geheim"}}),
     "source.storage", "storage holds endpoint, region, virtual_host_style, anonymous; credentials never stand in the"),
    ("a secret endpoint", small(source={"parquet": "s3://b/p", "storage": {"endpoint": "http://me:geheim@host"}}),
     "source.storage", "endpoint cannot be read"),
    ("an address with a password", small(source={"parquet": ["p", "s3://me:geheim@b/p"]}), "source",
     "Credentials come from the environment"),
    ("a signed address", small(source={"parquet": "s3://b/p?X-Amz-Signature=geheim"}), "source", "has parameters"),
    ("an unknown address", small(source={"parquet": "ftp://b/p"}), "source", "ftp:// is no address"),
    ("neither source", small(source={}), "source", "name exactly one source: parquet, warehouse, delta or iceberg"),
    ("empty list", small(source={"parquet": []}), "source", "parquet names no file, glob or folder"),
    ("empty path", small(source={"parquet": ""}), "source", "parquet names no file, glob or folder"),
    ("a file and a table", small(source={"parquet": "p", "delta": "t"}), "source", "name exactly one source"),
    ("no version", small(source={"delta": {"table": "t", "version": -1}}), "source.delta.version", "greater than"),
    ("a version in words", small(source={"delta": {"table": "t", "version": "1"}}), "source.delta.version", "integer"),
    ("a table's password", small(source={"delta": "s3://me:geheim@b/t"}), "source", "Credentials come from the"),
    ("storage of a table here", small(source={"delta": "t", "storage": {"region": "r"}}), "source", "delta names none"),
    ("no Iceberg table", small(source={"iceberg": {"catalog": "c"}}), "source.iceberg", "name exactly one: table"),
    ("two Iceberg tables", small(source={"iceberg": {"table": "a.b", "metadata": "m"}}), "source.iceberg",
     "name exactly one: table"),
    ("no namespace", small(source={"iceberg": {"table": "profiles"}}), "source.iceberg", "marts.user_profiles"),
    ("a catalog of metadata", small(source={"iceberg": {"metadata": "m", "catalog": "c"}}), "source.iceberg",
     "has no catalog"),
    ("two states", small(source={"iceberg": {"table": "a.b", "snapshot": 1, "ref": "main"}}), "source.iceberg",
     "name at most one: snapshot or ref"),
    *(("a secret of the catalog", small(source={"iceberg": {"table": "a.b", "catalog": {"uri": "u", key: "geheim"}}}),
       "source.iceberg", f"catalog: {key} never stands in the YAML")
      for key in ("credential", "token", "s3.secret-access-key", "s3.access-key-id", "s3.session-token",
                  "adls.account-key", "adls.sas-token.account", "adls.connection-string", "header.Authorization")),
    ("neither query nor table", small(source={"warehouse": {"uri": "u"}}), "source.warehouse",
     "name exactly one beside the uri: query or table"),
    ("query and table", small(source={"warehouse": {"uri": "u", "query": "q", "table": "t"}}), "source.warehouse",
     "name exactly one beside the uri: query or table"),
    ("no table's name", small(source={"warehouse": {"uri": "u", "table": "marts..profiles"}}),
     "source.warehouse.table", "table must be the name of a table, with the schema before it"),
    ("empty query", small(source={"warehouse": {"uri": "u", "query": ""}}), "source.warehouse.query", "at least 1"),
    ("no accounts", small(accounts={}), "accounts", "name at least one account type: user_id or registration_id"),
    ("unknown type", small(accounts={"userid": {}}), "accounts.userid", "Extra inputs are not permitted"),
    ("no attributes", with_attributes(), "accounts.user_id.attributes", "at least 1 item"),
    ("no column", with_attributes(city={}), "accounts.user_id.attributes.city.column", "Field required"),
    ("number as column", with_attributes(city=3), "accounts.user_id.attributes.city", "valid dictionary or instance"),
    ("unknown policy", with_attributes(city={"column": "c", "too_long": "cut"}),
     "accounts.user_id.attributes.city.too_long", "'reject', 'truncate' or 'fail'"),
    ("unknown null", with_attributes(city={"column": "c", None: "drop"}),
     "accounts.user_id.attributes.city.null", "'leave' or 'remove'"),
    ("unknown key", with_attributes(city={"column": "c", "toolong": "fail"}),
     "accounts.user_id.attributes.city.toolong", "Extra inputs are not permitted"),
    ("decimals", with_attributes(city={"column": "c", "decimals": 16}),
     "accounts.user_id.attributes.city.decimals", "less than or equal to 15"),
    ("eleven", with_attributes(**{f"a{n}": "c" for n in range(11)}), "accounts",
     "an app has at most 10 attributes; this sync names 11"),
    ("long name", with_attributes(**{"名" * 17: "c"}), "accounts.user_id.attributes",
     "has 1 to 50 UTF-8 bytes; this one has 51"),
    ("empty name", with_attributes(**{"": "c"}), "accounts.user_id.attributes", "1 to 50 UTF-8 bytes; this one has 0"),
    ("reserved", with_attributes(Account="c"), "accounts.user_id.attributes",
     "declare the attribute under another name"),
    ("reserved prefix", with_attributes(__x="c"), "accounts.user_id.attributes",
     "declare the attribute under another name"),
    ("case", with_attributes(city="c", City="c"), "accounts",
     "attributes 'City', 'city' differ by case only; rename one"),
    ("twice", small(accounts={kind: {"column": kind, "attributes": ATTRIBUTE} for kind in TYPES}), "accounts",
     "attribute 'city' stands under both account types, but belongs to exactly one; declare a second"),
    ("one column", small(accounts=BOTH), "accounts",
     "both account types read column 'id': tell them apart with `where` or `matches`"),
    ("pattern", small(accounts={"user_id": {"column": "u", "matches": "[a", "attributes": ATTRIBUTE}}),
     "accounts.user_id.matches", "matches is not a regular expression"),
    ("open bracket", small(accounts={"user_id": {"column": "u", "matches": "a)|(?:b", "attributes": ATTRIBUTE}}),
     "accounts.user_id.matches", "matches is not a regular expression"),
    ("look-ahead", small(accounts={"user_id": {"column": "u", "matches": "(?!x).*", "attributes": ATTRIBUTE}}),
     "accounts.user_id.matches", "not a regular expression of RE2 (https://github.com/google/re2/wiki/Syntax)"),
    ("where null", small(accounts={"user_id": {"column": "u", "where": {"x": None}, "attributes": ATTRIBUTE}}),
     "accounts.user_id.where.x", "valid string"),
    ("frames", small(frames="some"), "frames", "'changed' or 'all'"),
    ("cron", small(schedule={"cron": "at night"}), "schedule", 'cron has five fields, for example "0 2 * * *"'),
    ("zone", small(schedule={"cron": "0 2 * * *", "timezone": "Mars/Base"}), "schedule",
     "IANA name such as Asia/Shanghai"),
    ("guards", small(guardz={}), "guardz", "Extra inputs are not permitted"),
    ("guard", small(guards={"min_profile": 1}), "guards.min_profile", "Extra inputs are not permitted"),
    ("fraction", small(guards={"max_changed_fraction": 50}), "guards.max_changed_fraction",
     "write a number above 0 and below 1, such as 0.05 for 5 %"),
    ("text as fraction", small(guards={"max_failed_fraction": "5 %"}), "guards.max_failed_fraction",
     "write a number above 0 and below 1"),
    ("no profiles", small(guards={"min_profiles": 0}), "guards.min_profiles", "write a whole number from 1 on"),
    ("half a profile", small(guards={"min_profiles": 1.5}), "guards.min_profiles", "write a whole number from 1 on"),
    ("separators", small(guards={"min_profiles": 100, 0: None}), "guards", "guards holds limits by their names"),
    ("no names", small(guards=0.5), "guards", "guards holds limits by their names (max_changed_fraction, "),
    ("departed", small(departed="delete"), "departed", "write leave (the accounts that no profile has any more"),
    ("departed truth", small(departed=True), "departed", "or remove (their attributes are removed)"),
]  # fmt: skip


@pytest.mark.parametrize(("attributes", "where", "what"), [case[1:] for case in MISTAKES], ids=[c[0] for c in MISTAKES])
def test_a_mistake_says_where_it_stands_and_what_to_do(attributes: dict[str, Any], where: str, what: str) -> None:
    found = problems(attributes)
    assert [place for place, text in found if place.startswith(where) and what in text], found


def test_all_mistakes_are_told_at_once() -> None:
    found = problems(
        {
            "source": {},
            "accounts": {"user_id": {"attributes": {"city": {"column": "c", "too_long": "cut"}, "changed": "c"}}},
            "frames": "some",
            "schedule": {"cron": "x"},
        }
    )
    assert {place.split(".[key]")[0] for place, _ in found} == {
        "source",
        "accounts.user_id.column",
        "accounts.user_id.attributes.city.too_long",
        "accounts.user_id.attributes.changed",
        "frames",
        "schedule",
    }


def test_several_mistakes_of_the_names_are_told_in_one_text() -> None:
    both = {
        kind: {"column": "id", "attributes": {f"a{n}": "c" for n in range(11)}}
        for kind in ("user_id", "registration_id")
    }
    ((_, text),) = problems(small(accounts=both))
    assert "at most 10 attributes" in text
    assert "under both account types" in text
    assert "both account types read column 'id'" in text


def test_no_message_quotes_a_password() -> None:
    with pytest.raises(ValidationError) as caught:
        mapping_from(small(source={"warehouse": {"uri": "postgresql://me:geheim@host/db"}, "parquet": "p"}))
    assert "geheim" not in str(caught.value)
    whole = mapping_from(small(source={"warehouse": {"uri": "postgresql://me:geheim@host/db", "query": "select 1"}}))
    assert "geheim" not in repr(whole)
    for source in (
        {"parquet": "s3://me:geheim@b/p"},
        {"parquet": ["p", "s3://b/p?X-Amz-Signature=geheim"]},
        {"parquet": "s3://b/p", "storage": {"secret_key": "geheim"}},
        {"parquet": "s3://b/p", "storage": {"endpoint": "https://me:geheim@host"}},
    ):
        with pytest.raises(ValidationError) as caught:
            mapping_from(small(source=source))
        assert "geheim" not in str(caught.value)


def test_a_variable_that_is_not_set_keeps_no_sync_from_loading() -> None:
    endpoint = {"endpoint": "{{ env.LAKE_ENDPOINT }}", "region": "{{ env.LAKE_REGION }}"}
    for parquet in ("{{ env.LAKE }}", "s3://{{ env.BUCKET }}/p?x={{ env.X }}", "{{ env.SCHEME }}://b/p"):
        assert mapping_from(small(source={"parquet": parquet, "storage": endpoint})).source.parquet == parquet


# JSON schema --------------------------------------------------------------------------------------------------------


def test_the_schema_for_editors_takes_what_the_mapping_takes() -> None:
    schema = SyncMapping.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for text in (FULL, yaml.safe_dump(attributes_of(EXAMPLE.read_text(encoding="utf-8"))["attributes"])):
        jsonschema.validate(attributes_of(text), schema)


@pytest.mark.parametrize(
    "name", ["no source", "unknown type", "no column", "number as column", "unknown policy", "frames"]
)
def test_the_schema_for_editors_refuses_what_it_can_see(name: str) -> None:
    (attributes,) = (case[1] for case in MISTAKES if case[0] == name)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(attributes, SyncMapping.model_json_schema())
