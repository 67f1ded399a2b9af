import pytest

from connectors.tencent_push.client import Credentials
from connectors.tencent_push.errors import SettingsError
from connectors.tencent_push.protocol import REGION_HOSTS
from connectors.tencent_push.settings import Settings, base_url_from, calls_per_second_from, settings_from

LIVE = {
    "TENCENT_PUSH_SDKAPPID": "1400000001",
    "TENCENT_PUSH_IDENTIFIER": "administrator",
    "TENCENT_PUSH_SECRET_KEY": "planted-key",
}


def settings_of(**more: str) -> Settings:
    settings = settings_from({**LIVE, **{f"TENCENT_PUSH_{name}": value for name, value in more.items()}})
    assert settings is not None
    return settings


def test_without_credentials_the_target_is_the_emulator() -> None:
    assert settings_from({}) is None
    assert settings_from({"TENCENT_PUSH_REGION": "tokyo", "TENCENT_PUSH_CALLS_PER_SECOND": "5"}) is None


def test_blank_variables_count_as_unset() -> None:
    assert settings_from(dict.fromkeys(LIVE, " ")) is None
    assert settings_of(REGION="", BASE_URL=" ", CALLS_PER_SECOND="") == settings_of()


def test_whole_credentials_make_the_defaults_of_a_live_target() -> None:
    settings = settings_of()
    assert settings.credentials == Credentials(
        sdkappid=1400000001, identifier="administrator", secret_key="planted-key"
    )
    assert settings.base_url == "https://console.tim.qq.com"
    assert settings.calls_per_second == 100
    assert settings.read_timeout_seconds == 10


@pytest.mark.parametrize(
    ("given", "missing", "verb"),
    [
        (["SDKAPPID"], "TENCENT_PUSH_IDENTIFIER and TENCENT_PUSH_SECRET_KEY", "are"),
        (["IDENTIFIER"], "TENCENT_PUSH_SDKAPPID and TENCENT_PUSH_SECRET_KEY", "are"),
        (["SDKAPPID", "SECRET_KEY"], "TENCENT_PUSH_IDENTIFIER", "is"),
        (["IDENTIFIER", "SECRET_KEY"], "TENCENT_PUSH_SDKAPPID", "is"),
    ],
)
def test_half_set_credentials_name_what_is_missing(given: list[str], missing: str, verb: str) -> None:
    names = [f"TENCENT_PUSH_{name}" for name in given]
    with pytest.raises(SettingsError, match=f"half set: {missing} {verb} missing") as caught:
        settings_from({name: LIVE[name] for name in names})
    assert "planted-key" not in str(caught.value)


@pytest.mark.parametrize("sdkappid", ["planted-key", "-1", "0", "1.5", "14e8", "١٤", "9" * 5000])
def test_an_sdkappid_that_is_no_number_is_refused_unquoted(sdkappid: str) -> None:
    with pytest.raises(SettingsError, match="TENCENT_PUSH_SDKAPPID is not a whole number") as caught:
        settings_of(SDKAPPID=sdkappid)
    assert sdkappid not in str(caught.value).replace("TENCENT_PUSH_SDKAPPID", "").replace("1400000000", "")


@pytest.mark.parametrize(("region", "host"), REGION_HOSTS.items())
def test_a_region_has_its_own_address(region: str, host: str) -> None:
    assert settings_of(REGION=region).base_url == f"https://{host}"


def test_there_are_the_seven_documented_regions() -> None:
    assert set(REGION_HOSTS) == {"china", "singapore", "seoul", "frankfurt", "silicon_valley", "jakarta", "tokyo"}


@pytest.mark.parametrize("environ", [{}, LIVE])
def test_an_unknown_region_is_an_error_with_the_known_ones_credentials_or_not(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="'mumbai'; it must be one of china, singapore"):
        settings_from({**environ, "TENCENT_PUSH_REGION": "mumbai"})


def test_a_base_url_overrides_the_regions_address() -> None:
    settings = settings_of(REGION="tokyo", BASE_URL="http://127.0.0.1:8020/")
    assert settings.base_url == "http://127.0.0.1:8020"


@pytest.mark.parametrize("environ", [{}, LIVE])
def test_plain_http_is_for_loopback_alone(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="TENCENT_PUSH_BASE_URL must begin with https"):
        settings_from({**environ, "TENCENT_PUSH_BASE_URL": "http://proxy.example.com"})


@pytest.mark.parametrize(("text", "calls_per_second"), [("1", 1), ("40", 40), ("97.5", 97.5), ("200", 200)])
def test_the_quota_is_a_number(text: str, calls_per_second: float) -> None:
    assert settings_of(CALLS_PER_SECOND=text).calls_per_second == calls_per_second


@pytest.mark.parametrize("text", ["0", "0.5", "-1", "nan", "inf", "many"])
def test_a_quota_that_no_call_fits_in_is_an_error(text: str) -> None:
    with pytest.raises(SettingsError, match=r"TENCENT_PUSH_CALLS_PER_SECOND is .* at least 1"):
        settings_of(CALLS_PER_SECOND=text)


def test_address_and_quota_can_be_read_without_credentials() -> None:
    assert base_url_from({"TENCENT_PUSH_BASE_URL": "http://localhost:1"}) == "http://localhost:1"
    assert calls_per_second_from({"TENCENT_PUSH_CALLS_PER_SECOND": "7"}) == 7


def test_settings_do_not_show_the_key() -> None:
    assert "planted-key" not in repr(settings_of())


def test_settings_make_a_client_for_their_host() -> None:
    client = settings_of(REGION="seoul").make_client()
    assert (client.host, client.sdkappid) == ("adminapikr.im.qcloud.com", 1400000001)
    client.close()
