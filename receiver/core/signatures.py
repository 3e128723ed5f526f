"""Standard Webhooks 1.0.0 on raw bytes: pure, no I/O, no clock of its own.

Hand-written, because the reference package raises ValueError, binascii.Error or
UnicodeDecodeError on forged input, takes one secret only, and derives a wrong key from
`v1,whsec_…`. The tests keep it as their oracle.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Sequence

from receiver.core.errors import SignatureInvalid

TOLERANCE_S = 300
"""How far a timestamp may lie in the past or the future; what the spec's own libraries take."""

MAX_SIGNATURES = 16
"""More signatures than a rotation of keys needs in one header; bounds the work of a forgery."""

_ID = re.compile(rb"[!-\-/-~]{1,256}")  # visible ASCII without the dot, which separates the parts
_TIMESTAMP = re.compile(rb"[0-9]{1,12}")


def parse_secret(text: str) -> bytes:
    """Return the key of a `whsec_…` secret, 24 to 64 bytes; raise ValueError for other text."""
    prefix, _, encoded = text.partition("_")
    if prefix != "whsec":
        raise ValueError("does not begin with whsec_")
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64 after whsec_") from None
    if not 24 <= len(key) <= 64:  # noqa: PLR2004 - the spec's own bounds
        raise ValueError(f"holds {len(key)} bytes instead of 24 to 64")
    return key


def sign(key: bytes, webhook_id: bytes, timestamp: bytes, body: bytes) -> bytes:
    """Return the signature of a webhook, without the leading `v1,`."""
    signed = b"%s.%s.%s" % (webhook_id, timestamp, body)
    return base64.b64encode(hmac.digest(key, signed, "sha256"))


def verify(  # noqa: PLR0913 - the parts of one signature
    keys: Sequence[bytes],
    *,
    webhook_id: bytes | None,
    timestamp: bytes | None,
    signatures: bytes | None,
    body: bytes,
    now: float,
) -> None:
    """Return if one of the keys made one of the signatures; otherwise raise SignatureInvalid.

    `signatures` is the header as it came: `v1,<base64>`, several separated by a space (the spec)
    or by a comma and a space (Supabase's auth hooks). Versions other than v1 are passed over.
    `now` is in seconds since the epoch.
    """
    if not webhook_id or not timestamp or not signatures:
        raise SignatureInvalid(
            "Not signed: webhook-id, webhook-timestamp and webhook-signature are required."
        )
    if not _ID.fullmatch(webhook_id):
        raise SignatureInvalid("The webhook-id is malformed.")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise SignatureInvalid("The webhook-timestamp is not in whole seconds.")
    if abs(now - int(timestamp)) > TOLERANCE_S:
        raise SignatureInvalid(
            "The webhook-timestamp is over 5 minutes off: check both clocks, and send again."
        )
    candidates = signatures.replace(b", ", b" ").split(b" ")[:MAX_SIGNATURES]
    given = [c[3:] for c in candidates if c.startswith(b"v1,")]
    matched = False
    for key in keys:
        expected = sign(key, webhook_id, timestamp, body)
        for signature in given:  # no early end: the time must not tell which key matched
            matched |= hmac.compare_digest(expected, signature)
    if not matched:
        raise SignatureInvalid
