import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.profiles.errors import WarehouseSettingsError, mask_secrets, read_network_address, without_secrets


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://user:planted@db.example.com:5432/marts", "postgresql://db.example.com:5432/marts"),
        ("postgresql://user:planted@a:1,b:2/marts?sslmode=require", "postgresql://a:1,b:2/marts"),
        ("postgres://user:pla%40nted@[::1]:5432/marts", "postgres://[::1]:5432/marts"),
        ("postgresql://db/marts?user=u&password=planted", "postgresql://db/marts"),
        ("postgresql:///marts?host=/tmp&password=planted", "postgresql:///marts"),
        ("postgresql://planted@db", "postgresql://db"),
        ("duckdb:///data/profiles.duckdb", "duckdb:///data/profiles.duckdb"),
        ("duckdb:data/profiles.duckdb", "duckdb:data/profiles.duckdb"),
        ("sqlite:///data/profiles.db", "sqlite:///data/profiles.db"),
        ("mysql://user:planted@db:3306/marts?ssl_ca=/planted", "mysql://db:3306/marts"),
        ("clickhouse://user:planted@db:8443/marts?secure=true", "clickhouse://db:8443/marts"),
        ("snowflake://u:planted@org-acc/db/s?private_key_file_pwd=planted", "snowflake://org-acc/db/s"),
        ("bigquery://project/marts?credentials_path=/planted", "bigquery://project/marts"),
        ("trino://user:planted@db:443/hive?access_token=planted", "trino://db:443/hive"),
        ("databricks://token:dapi-planted@host?http_path=/planted", "databricks://host"),
    ],
)
def test_an_address_is_shown_without_user_password_and_parameters(uri: str, shown: str) -> None:
    assert without_secrets(uri) == shown


UNREADABLE = [
    "postgresql://user:pl@nted@db/marts",
    "postgresql://user:pl/anted@db/marts",
    "postgresql://user:pl?anted@db/marts",
    "postgresql://user:pl anted@db/marts",
    "postgresql://user:planted",
    "postgresql://user:planted/marts",
    "postgresql://db/marts?password=pl@nted",
    "postgresql://user:planted@db:port/marts",
    "postgresql:user:planted",
]


@pytest.mark.parametrize("uri", UNREADABLE)
def test_an_address_that_a_driver_could_read_otherwise_is_refused_unseen(uri: str) -> None:
    with pytest.raises(WarehouseSettingsError, match="percent-encoded") as caught:
        read_network_address(uri)
    for piece in ("planted", "anted", "nted", "pl@", "pl/", "pl?", "pl a"):
        assert piece not in str(caught.value)


def test_a_password_with_a_broken_escape_is_refused_unseen() -> None:
    with pytest.raises(WarehouseSettingsError) as caught:
        read_network_address("postgresql://user:pla%zznted@db/marts")
    assert "pla" not in str(caught.value).replace("place", "")


@given(st.text(min_size=1))
def test_whatever_stands_before_an_at_sign_is_never_shown(secret: str) -> None:
    marked = f"\u2603{secret}"
    shown = without_secrets(f"postgresql://user:{marked}@db/marts")
    assert "\u2603" not in shown


def test_secrets_are_masked_encoded_and_decoded() -> None:
    uri = "postgresql://user:p%40nted@db/marts?sslpassword=other&sslmode=require"
    text = mask_secrets('no "p%40nted", no "p@nted", no "other", but require', uri)
    assert text == 'no "***", no "***", no "***", but require'


@pytest.mark.parametrize(
    "parameter", ["sslpassword", "private_key_file_pwd", "passcode", "access_token", "credentials", "client_secret"]
)
def test_a_secret_in_a_parameter_is_masked_whatever_the_vendor_calls_it(parameter: str) -> None:
    uri = f"scheme://user@host/marts?a=b&{parameter}=plan%74ed"
    assert without_secrets(uri) == "scheme://host/marts"
    assert mask_secrets("no plan%74ed, no planted, but b", uri) == "no ***, no ***, but b"


def test_an_address_without_secrets_changes_no_text() -> None:
    assert mask_secrets("as it is", "postgresql://db/marts") == "as it is"
    assert mask_secrets("as it is", "postgresql://u:@db/marts") == "as it is"
    assert mask_secrets("as it is", "duckdb:x") == "as it is"
