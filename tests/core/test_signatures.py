"""Signatures, with the reference package as oracle in both directions."""

import base64
import hashlib
import hmac
import secrets
import time
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from receiver.core.errors import SignatureInvalid
from receiver.core.signatures import MAX_SIGNATURES, TOLERANCE_S, parse_secret, sign, verify

NOW = 1_760_000_000
ID = b"msg_2b1"
BODY = '{"prenume": "Ștefănuț 🙂"}'.encode()
KEY, OLD_KEY, FOREIGN_KEY = (hashlib.sha256(name).digest() for name in (b"new", b"old", b"foreign"))

IDS = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="."),
    min_size=1,
    max_size=256,
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.text("ăâîșțĂÂÎȘȚ🙂👩‍💻\x00\r\n")
KEYS = st.binary(min_size=24, max_size=64)
CLOCK_SKEWS = st.integers(-240, 240)
"""Well inside the tolerance: the oracle reads the real clock."""


def secret_of(key: bytes) -> str:
    return f"whsec_{base64.b64encode(key).decode()}"


def v1(key: bytes = KEY, *, at: int | bytes = NOW, id_: bytes = ID, body: bytes = BODY) -> bytes:
    """Sign as the specification says, without our code and without the oracle's."""
    timestamp = at if isinstance(at, bytes) else b"%d" % at
    digest = hmac.new(key, id_ + b"." + timestamp + b"." + body, hashlib.sha256).digest()
    return b"v1," + base64.b64encode(digest)


def check(
    signatures: bytes | None,
    *keys: bytes,
    id_: bytes | None = ID,
    at: bytes | None = b"%d" % NOW,
    body: bytes = BODY,
    now: float = NOW,
) -> None:
    verify(keys or (KEY,), webhook_id=id_, timestamp=at, signatures=signatures, body=body, now=now)


@settings(deadline=None, max_examples=150)
@given(key=KEYS, id_=IDS, text=TEXTS, timestamp=st.integers(0, 253_402_300_799))
def test_a_signature_of_the_reference_package_is_accepted(
    key: bytes, id_: str, text: str, timestamp: int
) -> None:
    signature = Webhook(secret_of(key)).sign(id_, datetime.fromtimestamp(timestamp, UTC), text)
    check(
        signature.encode(),
        parse_secret(secret_of(key)),
        id_=id_.encode(),
        at=b"%d" % timestamp,
        body=text.encode(),
        now=timestamp,
    )


@settings(deadline=None, max_examples=150)
@given(key=KEYS, id_=IDS, text=TEXTS, skew=CLOCK_SKEWS)
def test_our_signature_is_accepted_by_the_reference_package(
    key: bytes, id_: str, text: str, skew: int
) -> None:
    timestamp = b"%d" % (int(time.time()) + skew)
    signature = sign(key, id_.encode(), timestamp, text.encode())
    headers = {
        "webhook-id": id_,
        "webhook-timestamp": timestamp.decode(),
        "webhook-signature": f"v1,{signature.decode()}",
    }
    Webhook(secret_of(key)).verify(text, headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_of(key)).verify(f"{text} ", headers, json_parse=False)


@settings(deadline=None, max_examples=100)
@given(key=KEYS, id_=IDS, text=TEXTS, skew=CLOCK_SKEWS, data=st.data())
def test_a_message_changed_after_signing_is_refused_by_us_and_by_the_reference_package(
    key: bytes, id_: str, text: str, skew: int, data: st.DataObject
) -> None:
    now = int(time.time())
    signed = {"id": id_, "timestamp": str(now + skew), "body": text}
    signature = v1(key, at=now + skew, id_=id_.encode(), body=text.encode()).decode()
    changed = data.draw(st.sampled_from(sorted(signed)), label="changed part")
    other = {"id": IDS, "timestamp": CLOCK_SKEWS.map(lambda s: str(now + s)), "body": TEXTS}
    signed[changed] = data.draw(other[changed].filter(lambda v: v != signed[changed]))
    with pytest.raises(SignatureInvalid):
        check(
            signature.encode(),
            key,
            id_=signed["id"].encode(),
            at=signed["timestamp"].encode(),
            body=signed["body"].encode(),
            now=now,
        )
    headers = {
        "webhook-id": signed["id"],
        "webhook-timestamp": signed["timestamp"],
        "webhook-signature": signature,
    }
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_of(key)).verify(signed["body"], headers, json_parse=False)


@pytest.mark.parametrize(
    "keys", [(KEY,), (KEY, OLD_KEY), (OLD_KEY, KEY), (OLD_KEY, FOREIGN_KEY, KEY)]
)
def test_any_of_several_keys_is_accepted_wherever_it_stands(keys: tuple[bytes, ...]) -> None:
    check(v1(KEY), *keys)


@pytest.mark.parametrize("keys", [(OLD_KEY,), (OLD_KEY, KEY[:-1]), (OLD_KEY, b"\0" + KEY)])
def test_no_other_key_is_accepted(keys: tuple[bytes, ...]) -> None:
    with pytest.raises(SignatureInvalid):
        check(v1(KEY), *keys)


def test_without_any_key_everything_is_refused() -> None:
    with pytest.raises(SignatureInvalid):
        verify((), webhook_id=ID, timestamp=b"%d" % NOW, signatures=v1(), body=BODY, now=NOW)


WRONG = v1(FOREIGN_KEY)
BARE = v1().removeprefix(b"v1,")


@pytest.mark.parametrize(
    "signatures",
    [
        v1(),
        WRONG + b" " + v1(),
        v1() + b" " + WRONG,
        WRONG + b", " + v1(),
        v1() + b", " + WRONG,
        WRONG + b"  " + v1(),
        b" ".join([WRONG, v1(OLD_KEY), v1()]),
        b"v1a,AAAA " + v1(),
        b"v2," + BARE + b" " + v1(),
        b"nonsense , v1 v1, " + v1(),
        b"\xff\xfe " + v1(),
        b" ".join([WRONG] * (MAX_SIGNATURES - 1) + [v1()]),
    ],
)
def test_one_right_signature_among_several_is_enough(signatures: bytes) -> None:
    check(signatures)


@pytest.mark.parametrize(
    "signatures",
    [
        WRONG,
        b"v2," + BARE,
        b"v1a," + BARE,
        b"V1," + BARE,
        b"v1 " + BARE,
        b"v1=" + BARE,
        BARE,
        b"v1,",
        b"v1",
        b",",
        b" ",
        b"v1,%%%%",
        b"v1," + BARE.rstrip(b"="),
        b"v1," + BARE + b"=",
        b"v1," + BARE[:-4],
        b"v1,\xff\xfe\x00",
        v1() + b"\t" + v1(),
        v1().replace(b"v1,", b"v1,\xc4\x83"),
        b" ".join([WRONG] * MAX_SIGNATURES + [v1()]),
    ],
)
def test_a_signature_that_is_not_exactly_right_is_refused(signatures: bytes) -> None:
    with pytest.raises(SignatureInvalid, match="does not match"):
        check(signatures)


@pytest.mark.parametrize("missing", ["id_", "at", "signatures"])
@pytest.mark.parametrize("absent", [None, b""])
def test_a_request_that_lacks_a_part_is_called_unsigned(missing: str, absent: bytes | None) -> None:
    parts: dict[str, bytes | None] = {"id_": ID, "at": b"%d" % NOW, "signatures": v1()}
    parts[missing] = absent
    with pytest.raises(SignatureInvalid, match="Not signed"):
        check(parts["signatures"], id_=parts["id_"], at=parts["at"])


@pytest.mark.parametrize("now", [NOW - 300, NOW - 299.5, NOW, NOW + 299.999, NOW + 300])
def test_a_timestamp_up_to_five_minutes_off_is_accepted(now: float) -> None:
    assert TOLERANCE_S == 300
    check(v1(), now=now)


@pytest.mark.parametrize("now", [NOW - 301, NOW - 300.001, NOW + 300.001, NOW + 301, 0, 4e9])
def test_a_timestamp_further_off_is_refused_in_both_directions(now: float) -> None:
    with pytest.raises(SignatureInvalid, match="5 minutes"):
        check(v1(), now=now)


@pytest.mark.parametrize(
    "timestamp",
    [
        b"-1760000000",
        b"+1760000000",
        b" 1760000000",
        b"1760000000\n",
        b"1760000000.0",
        b"1_760_000_000",
        b"1.76e9",
        b"0x68e6a800",
        b"nan",
        b"inf",
        b"9" * 13,
        b"9" * 5000,
        b"\xff",
        "١٧٦٠٠٠٠٠٠٠".encode(),
    ],
)
def test_a_timestamp_that_is_not_whole_seconds_is_refused_even_if_it_was_signed(
    timestamp: bytes,
) -> None:
    with pytest.raises(SignatureInvalid, match="whole seconds"):
        check(v1(at=timestamp), at=timestamp)


@pytest.mark.parametrize(
    "id_",
    [b"msg.1", b"msg 1", b"msg\n1", b"msg\x00", b"\xc8\x99", b"a" * 257, b"\x7f", b"1.1760000000"],
)
def test_a_malformed_id_is_refused_even_if_it_was_signed(id_: bytes) -> None:
    with pytest.raises(SignatureInvalid, match="webhook-id is malformed"):
        check(v1(id_=id_), id_=id_)


def test_a_dot_cannot_move_from_one_part_to_the_next() -> None:
    """`a.1.…` signed as id `a`, timestamp 1 must not pass as any other split of the same bytes."""
    signature = v1(id_=b"a", body=b"1760000000.{}")
    check(signature, id_=b"a", body=b"1760000000.{}")
    with pytest.raises(SignatureInvalid):
        check(signature, id_=b"a.1760000000", body=b"{}")


BYTES = st.binary(max_size=80)
NEAR_SIGNATURES = st.lists(
    BYTES | BYTES.map(lambda b: b"v1," + b) | BYTES.map(lambda b: b"v1," + base64.b64encode(b)),
    max_size=20,
).flatmap(lambda parts: st.sampled_from([b" ", b", ", b","]).map(lambda sep: sep.join(parts)))


@settings(deadline=None, max_examples=400)
@given(
    id_=st.none() | BYTES | st.just(ID),
    at=st.none() | BYTES | st.just(b"%d" % NOW) | st.integers().map(lambda n: b"%d" % n),
    signatures=st.none() | BYTES | NEAR_SIGNATURES,
    body=BYTES,
)
@example(id_=ID, at=b"%d" % NOW, signatures=b"v1,\xff", body=b"\xff")
@example(id_=b"\xff", at=b"\xff", signatures=b"\xff", body=b"")
def test_a_forger_gets_nothing_but_signature_invalid(
    id_: bytes | None, at: bytes | None, signatures: bytes | None, body: bytes
) -> None:
    with pytest.raises(SignatureInvalid) as caught:
        check(signatures, KEY, OLD_KEY, id_=id_, at=at, body=body)
    assert type(caught.value) is SignatureInvalid


@pytest.mark.parametrize("size", [24, 32, 33, 64])
def test_a_secret_of_24_to_64_bytes_is_a_key(size: int) -> None:
    key = secrets.token_bytes(size)
    assert parse_secret(secret_of(key)) == key


ENCODED = base64.b64encode(KEY).decode()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "does not begin with whsec_"),
        (ENCODED, "does not begin with whsec_"),
        (f"v1,whsec_{ENCODED}", "does not begin with whsec_"),
        (f"WHSEC_{ENCODED}", "does not begin with whsec_"),
        (f" whsec_{ENCODED}", "does not begin with whsec_"),
        (f"whsec-{ENCODED}", "does not begin with whsec_"),
        (f"whsk_{ENCODED}", "does not begin with whsec_"),
        (f"whsec_{ENCODED} ", "is not base64"),
        (f"whsec_{ENCODED}\n", "is not base64"),
        (f"whsec_{ENCODED[:-1]}", "is not base64"),
        (f"whsec_{ENCODED}=", "is not base64"),
        (f"whsec__{ENCODED}", "is not base64"),
        (f"whsec_{ENCODED[:20]}-_{ENCODED[22:]}", "is not base64"),
        (f"whsec_{ENCODED[:20]}ă{ENCODED[21:]}", "is not base64"),
        (f"whsec_{ENCODED[:20]}\ud800{ENCODED[21:]}", "is not base64"),
        ("whsec_", "holds 0 bytes"),
        (secret_of(bytes(23)), "holds 23 bytes"),
        (secret_of(bytes(65)), "holds 65 bytes"),
        (secret_of(bytes(5000)), "holds 5000 bytes"),
    ],
)
def test_a_malformed_secret_is_refused_without_being_repeated(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        parse_secret(text)
    said = f"{caught.value!r} {caught.value.__cause__!r}"
    assert ENCODED[:8] not in said
    assert "AAAAAAAA" not in said
    assert type(caught.value) is ValueError


@settings(deadline=None, max_examples=200)
@given(st.text() | st.text().map(lambda t: f"whsec_{t}") | st.binary().map(secret_of))
def test_any_other_text_is_a_key_of_the_right_length_or_a_value_error(text: str) -> None:
    try:
        key = parse_secret(text)
    except ValueError as fault:
        assert type(fault) is ValueError  # noqa: PT017 - either way is right
    else:
        assert 24 <= len(key) <= 64
