"""What lies between a client and the emulator: the round trip of a network, and TLS.

Only described here; server.py holds answers back and wraps sockets.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path


class EmulatorCertificateError(Exception):
    """The certificate cannot be used; the message names its file and says what to do."""


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """Seconds from a request's arrival to its answer: `seconds`, give or take the share `jitter` of them."""

    seconds: float = 0.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.seconds < float("inf") and 0 <= self.jitter <= 1):
            raise ValueError("a round trip takes 0 seconds or more, and its jitter is a share from 0 to 1")

    def draw(self, chance: float) -> float:
        """Evenly between the two ends, for a `chance` from 0 to 1."""
        return self.seconds * (1 + self.jitter * (2 * chance - 1))


NO_ROUND_TRIP = RoundTrip()


def tls_context(certificate: Path) -> ssl.SSLContext:
    """For a PEM file with the certificate and its private key. Raises EmulatorCertificateError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate)
    except OSError as error:  # ssl.SSLError is one; its text names no file
        why = error.strerror or type(error).__name__
        raise EmulatorCertificateError(
            f"{certificate} cannot be used ({why}); name a PEM file with a certificate and its private key"
        ) from error
    return context
