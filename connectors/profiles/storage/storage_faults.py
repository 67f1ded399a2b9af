"""What a storage's complaint means: one table from its words to an error of ours with the remedy.

The storage's own words are not passed on: they are many lines long, and some quote what was sent to it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from connectors.profiles.errors import (
    ProfilesError,
    SourceAddressError,
    SourceChangedError,
    SourceNotFoundError,
    SourceUnreachableError,
    SourceUnreadableError,
)

# its words -> what is wrong with the address before it; the first row that fits decides
_MEANINGS: tuple[tuple[str, type[ProfilesError], str], ...] = (
    (
        r"NO_SUCH_BUCKET|NoSuchBucket|ContainerNotFound|bucket does not exist",
        SourceNotFoundError,
        "there is no such bucket at this endpoint. Correct the bucket's name or the endpoint",
    ),
    (
        r"RESOURCE_NOT_FOUND|NO_SUCH_KEY|NoSuchKey|BlobNotFound|HTTP status 404|No such file or directory",
        SourceNotFoundError,
        "it does not exist (any more). Correct the address, or run again",
    ),
    (
        r"InvalidRange|HTTP status 416",  # it was longer when it was opened
        SourceChangedError,
        "it changed while the run was reading it. Run again when its writer has finished",
    ),
    (
        r"PathStyleDomainForbidden|virtual-styled",
        SourceAddressError,
        "the storage wants the bucket in the host's name. Write `storage: {virtual_host_style: true}`",
    ),
    (
        r"HTTP status 301|PERMANENT_REDIRECT|PermanentRedirect|TEMPORARY_REDIRECT|HTTP status 307|"
        r"AuthorizationHeaderMalformed|IllegalLocationConstraint|wrong region|in region '",
        SourceAddressError,
        "the bucket is in another region. Correct `storage: {region: ...}` or AWS_REGION",
    ),
    (
        r"INVALID_ACCESS_KEY_ID|InvalidAccessKeyId|SIGNATURE_DOES_NOT_MATCH|SignatureDoesNotMatch|"
        r"INVALID_CLIENT_TOKEN_ID|INVALID_SIGNATURE|EXPIRED_TOKEN|ExpiredToken|UNRECOGNIZED_CLIENT|HTTP status 401|"
        r"REQUEST_EXPIRED|RequestTimeTooSkewed|AuthenticationFailed|UNAUTHENTICATED",
        SourceUnreadableError,
        "the storage does not accept the credentials. Correct or renew them, and see that the machine's clock is right",
    ),
    (
        r"ACCESS_DENIED|AccessDenied|HTTP status 403|Forbidden|PERMISSION_DENIED|AuthorizationFailure|"
        r"AuthorizationPermissionMismatch|Could not create credentials",
        SourceUnreadableError,
        "access is denied. See that credentials are set and may list the bucket and read its objects (without the "
        "right to list, what is not there looks the same)",
    ),
    (
        r"NETWORK_CONNECTION|curlCode|REQUEST_TIMEOUT|HTTP status 5\d\d|SLOW_DOWN|SlowDown|SERVICE_UNAVAILABLE|"
        r"INTERNAL_FAILURE|THROTTLING|UNAVAILABLE|[Tt]imed? ?out|[Cc]onnection|Could not resolve",
        SourceUnreachableError,
        "the storage cannot be reached, does not answer in time, or the connection broke. See the endpoint, the "
        "region and the network, then run again",
    ),
)


@contextmanager
def storage_faults(where: str) -> Iterator[None]:
    """Turns the errors of a storage about the address `where` into ours."""
    try:
        yield
    except FileNotFoundError:
        raise SourceNotFoundError(
            f"{where}: it does not exist (any more). Correct the address, or run again."
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise meaning(error, where) from None


def meaning(error: BaseException, where: str) -> ProfilesError:
    """What the storage's words mean; for unknown ones the storage's own code, which names no object and no key."""
    words = str(error)
    for pattern, kind, explanation in _MEANINGS:
        if re.search(pattern, words):
            return kind(f"{where}: {explanation}.")
    code = re.search(r"AWS Error (\w+)(?: \(HTTP status (\d+)\))?", words)
    told = f" ({' '.join(filter(None, code.groups()))})" if code else ""
    return SourceUnreachableError(f"{where}: the storage gave an answer of no use{told}. Run again, or ask its owner.")
