import pyarrow as pa
import pytest

from connectors.profiles.errors import WarehouseSettingsError
from connectors.profiles.warehouses.servers import Narrowing, ServerAddress, driver, server_address
from connectors.profiles.warehouses.sql_text import quoted

SHAPE = "thing://user:password@host/a/b"


def read(uri: str) -> ServerAddress:
    return server_address(uri, shape=SHAPE, parameters=("flag", "wait", "token"), most_parts=2)


def test_every_part_of_an_address_is_decoded() -> None:
    address = read("thing://us%40er:p%2Fw@[::1]:77/a%20b/%E4%B8%8A?flag=TRUE&wait=5&token=x%26y")
    assert (address.host, address.port, address.user, address.password) == ("::1", 77, "us@er", "p/w")
    assert (address.path, address.parameters["token"]) == (("a b", "上"), "x&y")
    assert (address.flag("flag", False), address.flag("other", True)) == (True, True)
    assert (address.seconds("wait", 9), address.seconds("other", 9)) == (5, 9)
    assert address.where == "thing://[::1]:77/a%20b/%E4%B8%8A"


@pytest.mark.parametrize("uri", ["thing://host/a/b/c", "thing://one,two/a", "thing:///a"])
def test_an_address_of_another_shape_is_told_the_shape(uri: str) -> None:
    with pytest.raises(WarehouseSettingsError, match=f"must look like {SHAPE}"):
        read(uri)


def test_an_unknown_parameter_is_told_the_known_ones_and_its_value_is_not_shown() -> None:
    with pytest.raises(WarehouseSettingsError, match=r"parameter 'tokn'. Known: flag, wait, token") as caught:
        read("thing://host?tokn=planted")
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said", "is_passing"),
    [
        ("Pool('planted'): [Errno 111] Connection refused)", "Connection refused", True),
        ("read TIMED OUT. (planted=3)", "timed out", True),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: planted", "certificate verify failed", False),
        ("something with planted", r"the connection broke (RuntimeError)", False),
    ],
)
def test_a_driver_s_own_message_is_told_by_what_is_known_of_it_alone(text: str, said: str, is_passing: bool) -> None:
    error = read("thing://host").broken("cannot be reached", RuntimeError(text))
    assert f"thing://host cannot be reached: {said}. Check" in str(error)
    assert (error.is_passing, "planted" in str(error)) == (is_passing, False)


@pytest.mark.parametrize("said", ["0", "-1", "²", "3.5", ""])
def test_what_is_no_number_of_seconds_is_told(said: str) -> None:
    with pytest.raises(WarehouseSettingsError, match="wait is a number of seconds"):
        read(f"thing://host?wait={said}").seconds("wait", 3)


def test_secrets_of_the_address_are_masked_in_whatever_the_server_says() -> None:
    address = read("thing://user:plan%74ed@host?token=other")
    for error in (address.refused("no planted,\n no other."), address.unreachable("fell", "no planted, no other")):
        assert "no ***, no ***. " in str(error)


def test_a_driver_that_is_missing_is_told_with_the_command_that_installs_it() -> None:
    with pytest.raises(WarehouseSettingsError, match=r"thing:// .* pip install '\.\[stuff\]'"):
        driver("no_such_driver", scheme="thing", extra="stuff")


FIELDS = [pa.field("a`b", pa.int64())]


def test_a_query_is_narrowed_with_its_names_quoted_and_an_ordered_one_stays_as_it_is() -> None:
    narrowing, checked = Narrowing(column_of=lambda field: quoted(field.name, "`")), list[str]()
    plain = narrowing.select("select * from t", FIELDS, check=checked.append)
    ordered = narrowing.select("select * from t order by 1", FIELDS, check=checked.append)
    assert plain == "SELECT `a``b` FROM (\nselect * from t\n) AS profiles"
    assert ordered == "select * from t order by 1"
    assert (narrowing.schema(plain), narrowing.schema(ordered)) == (pa.schema(FIELDS), pa.schema(FIELDS))
    assert narrowing.schema("select * from t") is None
    assert checked == [plain, plain.replace("select * from t", ordered)], "an ordered CREATE must not run either"
