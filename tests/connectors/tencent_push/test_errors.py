import pytest

from connectors.tencent_push import errors
from connectors.tencent_push.errors import (
    CATALOGUE,
    Action,
    CallRefusedError,
    LedgerError,
    Reason,
    SettingsError,
    TargetUnreachableError,
    TencentPushError,
    lookup,
)

# The codes by what the documentation asks for, copied out by hand and independently of the catalogue.
DOCUMENTED = {
    Action.STOP: (
        "60002 60006 60009 60010 60012 60016 60017 60020 60021 60026 60027 60028 70009 70013 70014 70016 70020 70050 "
        "70051 70398 70403 70404 71000 72000 72001 72002 72011 72012 80005 90009 90045"
    ),
    Action.RENEW_USERSIG: "60025 70001 70002 70003 70005 70052",
    Action.SLOW_DOWN: "60007 60011 60018 60019 70114 72010",
    Action.RESEND: "60004 60005 60008 60013 60014 70169 70202 70500 90992 90994 90995 91000",
    Action.SPLIT: (
        "60003 60015 70107 70206 70399 70402 80002 90001 90003 90012 90018 90030 90033 90035 90048 90056 93000"
    ),
}
CODES = {int(code): action for action, codes in DOCUMENTED.items() for code in codes.split()}


def test_every_documented_code_has_a_row_and_no_other() -> None:
    assert set(CATALOGUE) == set(CODES)


def test_no_code_has_two_rows() -> None:
    assert len(errors._ROWS) == len(CATALOGUE)


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_call_with_a_code_is_treated_as_documented(code: int) -> None:
    assert lookup(code).on_call is CODES[code]


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_row_with_a_code_is_sent_again_set_aside_or_ends_the_run(code: int) -> None:
    on_row = {
        Action.STOP: Action.STOP,
        Action.RENEW_USERSIG: Action.RESEND,
        Action.SLOW_DOWN: Action.SLOW_DOWN,
        Action.RESEND: Action.RESEND,
        Action.SPLIT: Action.REJECT,
    }
    expected = Action.REJECT if code == 70051 else on_row[CODES[code]]
    assert lookup(code).on_row is expected


@pytest.mark.parametrize("code", [*sorted(CODES), 12345])
def test_meaning_and_fix_are_sentences_and_the_source_is_named(code: int) -> None:
    entry = lookup(code)
    for sentence in (entry.meaning, entry.fix):
        assert sentence[0].isupper() or sentence.startswith("`")
        assert sentence.endswith(".")
        assert 15 < len(sentence) < 200
    assert entry.source.startswith("1047/") or code == 12345


def test_the_codes_that_end_the_run_once_attempts_are_used_up() -> None:
    ending = {code for code, entry in CATALOGUE.items() if entry.stops_when_exhausted}
    assert ending == {60003, 60004, 60005, 60025, 70001, 70002, 70003, 70005, 70052, 70114}


def test_the_rows_that_may_be_taken_another_night() -> None:
    """Whatever else is rejected is remembered, and ends the run when no row escapes it."""
    rejected = [entry for entry in CATALOGUE.values() if entry.on_row is Action.REJECT]
    assert {entry.code for entry in rejected if entry.retryable} == {
        70051, 70107, 70206, 70399, 90012, 90018, 90048
    }  # fmt: skip


def test_json_that_cannot_be_read_is_halved_once_and_all_other_refusals_to_the_single_row() -> None:
    assert {code: entry.split_levels for code, entry in CATALOGUE.items() if entry.split_levels is not None} == {
        60003: 1
    }


def test_a_refused_value_does_not_become_good_by_itself_but_an_unknown_account_can() -> None:
    assert not lookup(90033).retryable
    assert not lookup(90035).retryable
    assert not lookup(90030).retryable
    assert lookup(70107).retryable


def test_what_a_refused_call_may_have_written_is_said() -> None:
    assert {code for code, entry in CATALOGUE.items() if entry.maybe_written} == {
        *(code for code, action in CODES.items() if action is Action.RESEND),
        90033,
        90035,
    }


def test_an_unknown_code_is_loud_final_for_a_row_and_ends_the_run_for_a_call() -> None:
    entry = lookup(99_999)
    assert (entry.code, entry.reason) == (99_999, Reason.UNKNOWN_CODE)
    assert (entry.on_call, entry.on_row) == (Action.RESEND, Action.REJECT)
    assert entry.stops_when_exhausted
    assert entry.maybe_written


def test_a_refused_call_says_code_meaning_and_fix_but_not_tencents_own_text() -> None:
    error = CallRefusedError(command="set_attr", code=90009, info="planted-account")
    assert str(error).startswith("set_attr was refused with code 90009: The call needs an administrator")
    assert "TENCENT_PUSH_IDENTIFIER" in str(error)
    assert error.info == "planted-account"
    assert "planted-account" not in str(error) + repr(error)


@pytest.mark.parametrize("kind", [SettingsError, TargetUnreachableError, CallRefusedError, LedgerError])
def test_all_errors_of_the_package_have_one_root_and_stand_in_the_drawing(kind: type[Exception]) -> None:
    assert issubclass(kind, TencentPushError)
    assert kind.__name__ in str(errors.__doc__)
