"""What a storage's complaint means: one table from its words to what is to be done.

The storage's own words are not passed on: they are long, and some hold a signature.
"""

import re


class ObjectStoreError(Exception):
    """The storage, its address or its rights. The text names the address and the remedy, and nothing secret."""


class UnreachableError(ObjectStoreError):
    """Nobody knows whether the request was carried out."""


NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|specified container does not exist|bucket does not exist")
NO_SUCH_BUCKET = "there is no such bucket at this endpoint; correct ATTRIBUTE_SYNC_DATA or the endpoint"
VANISHED = "it has vanished while it was read; run again"
_MEANINGS: tuple[tuple[re.Pattern[str], str], ...] = (
    (NO_BUCKET, NO_SUCH_BUCKET),
    (
        re.compile(
            r"InvalidAccessKeyId|SignatureDoesNotMatch|InvalidClientTokenId|ExpiredToken|RequestTimeTooSkewed|"
            r"401 Unauthorized"
        ),
        "the storage does not accept the credentials; correct or renew them, and see that the machine's clock is right",
    ),
    (
        re.compile(r"AccessDenied|403 Forbidden|PermissionDenied|AuthorizationFailure|AuthorizationPermissionMismatch"),
        "access is denied; the role must list the bucket and read, write and delete below this address",
    ),
    (
        re.compile(r"169\.254\.|[Cc]redential|metadata endpoint"),
        "no credentials were found; set them in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the "
        "storage's own), or run where the machine has a role",
    ),
    (
        re.compile(
            r"PermanentRedirect|incorrectly configured region|AuthorizationHeaderMalformed|IllegalLocationConstraint"
        ),
        "the bucket is in another region; correct AWS_REGION",
    ),
    (
        re.compile(r"NotImplemented|501 Not Implemented|NotSupportedError"),
        "the storage cannot create an object only where none is, which keeps two runs apart; use one that can",
    ),
)


UNREACHABLE = (
    "the storage cannot be reached or does not answer in time; see the endpoint and the network, then run again"
)


def meaning_of(error: Exception) -> str | None:
    """None when it may be the network's fault, or the storage's own."""
    words = f"{type(error).__name__} {error}"
    words = re.sub(r"https?://(?!169\.254\.)\S+", "", words)  # names in an address are no words of its own
    return next((meaning for pattern, meaning in _MEANINGS if pattern.search(words)), None)
