"""The keys of access tokens: fetched when needed, and no more often than that."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, x25519
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from structlog.testing import capture_logs

from receiver.core.errors import (
    AccessRefused,
    KeysUnavailable,
    TokenInvalid,
)
from receiver.sandbox.supabase.auth import Auth, SigningKeys
from receiver.supabase import jwks
from receiver.supabase.access_tokens import Caller, TokenVerifier
from receiver.supabase.jwks import Jwks
from tests.support.key_server import (
    Clock,
    KeyServer,
    Standing,
    World,
    assert_invalid,
    assert_unavailable,
    called,
)
from tests.support.tokens import (
    ED_JWK,
    ES_JWK,
    ES_KEY,
    GONE,
    GOOD,
    JSON,
    JWKS,
    KIDS,
    NEW_JWK,
    NEW_KEY,
    REFUSED,
    REFUSED_BEFORE_ANY_KEY,
    RSA_KEY,
    SECRET,
    SHORT_RSA_KEY,
    SIGNERS,
    SUB,
    TLS,
    Answer,
    Json,
    Sign,
    b64,
    b64_of,
    ed_jwk,
    es_jwk,
    mint,
    rsa_jwk,
    signing_es256,
    signing_rs256,
)

# Published keys

P384_KEY = ec.generate_private_key(ec.SECP384R1())
X25519 = x25519.X25519PrivateKey.generate().public_key().public_bytes_raw()
ED448_KEY = ed448.Ed448PrivateKey.generate()
UNFIT = {
    "of another alg": es_jwk(ES_KEY, "odd", alg="ES384"),
    "of alg null": es_jwk(ES_KEY, "odd", alg=None),
    "of alg HS256": es_jwk(ES_KEY, "odd", alg="HS256"),
    "of alg PS256": rsa_jwk(RSA_KEY, "odd", alg="PS256"),
    "of alg RS512": rsa_jwk(RSA_KEY, "odd", alg="RS512"),
    "for encryption": es_jwk(ES_KEY, "odd", use="enc"),
    "for use in a list": es_jwk(ES_KEY, "odd", use=["sig"]),
    "for signing only": es_jwk(ES_KEY, "odd", key_ops=["sign"]),
    "for nothing": es_jwk(ES_KEY, "odd", key_ops=[]),
    "with key_ops in text": es_jwk(ES_KEY, "odd", key_ops="verify"),
    "with key_ops null": es_jwk(ES_KEY, "odd", key_ops=None),
    "of another curve": es_jwk(P384_KEY, "odd"),
    "of another curve than it says": es_jwk(ES_KEY, "odd", crv="P-384"),
    "without a curve": es_jwk(ES_KEY, "odd", crv=GONE),
    "of secp256k1": es_jwk(ES_KEY, "odd", crv="secp256k1"),
    "without a kty": es_jwk(ES_KEY, "odd", kty=GONE),
    "of a kty in a list": es_jwk(ES_KEY, "odd", kty=["EC"]),
    "of a kty in small letters": es_jwk(ES_KEY, "odd", kty="ec"),
    "of a kty that it is not": es_jwk(ES_KEY, "odd", kty="RSA", crv=GONE),
    "off the curve": es_jwk(ES_KEY, "odd", y=b64(b"\1" * 32)),
    "with a short x": es_jwk(ES_KEY, "odd", x=b64(b"\1" * 31)),
    "without an x": es_jwk(ES_KEY, "odd", x=GONE),
    "with an x of no base64": es_jwk(ES_KEY, "odd", x="é" * 32),
    "with an x that is a number": es_jwk(ES_KEY, "odd", x=1),
    "with an x that is half of a surrogate pair": es_jwk(ES_KEY, "odd", x="\ud800"),
    "that is private": es_jwk(ES_KEY, "odd", d=b64_of(ES_KEY.private_numbers().private_value, 32)),
    "that is private, of RSA": rsa_jwk(RSA_KEY, "odd", d=b64_of(RSA_KEY.private_numbers().d)),
    "of RSA with 1024 bits": rsa_jwk(SHORT_RSA_KEY, "odd"),
    "of RSA with an exponent of 1": rsa_jwk(RSA_KEY, "odd", e="AQ"),
    "of RSA without an exponent": rsa_jwk(RSA_KEY, "odd", e=GONE),
    "of RSA with a curve": rsa_jwk(RSA_KEY, "odd", crv="P-256"),
    "of X25519": ed_jwk(X25519, "odd", crv="X25519"),
    "of Ed448": ed_jwk(ED448_KEY.public_key().public_bytes_raw(), "odd", crv="Ed448"),
    "of Ed25519, cut": ed_jwk(b"\1" * 31, "odd"),
    "of a secret": {"kty": "oct", "k": b64(SECRET.encode()), "kid": "odd"},
    "with a kid that is a number": es_jwk(ES_KEY, 7),
    "with an empty kid": es_jwk(ES_KEY, ""),
    "with a huge kid": es_jwk(ES_KEY, "k" * 257),
    "without a kid": es_jwk(ES_KEY, GONE),
}

UNFIT_SIGNERS: Sequence[tuple[str, Sign]] = [
    *((alg, SIGNERS[alg]) for alg in KIDS),
    ("RS256", signing_rs256(SHORT_RSA_KEY)),
    ("EdDSA", ED448_KEY.sign),
    ("ES256", SIGNERS["HS256"]),
]


@pytest.mark.parametrize("jwk", UNFIT.values(), ids=UNFIT.keys())
async def test_an_unfit_key_is_skipped_and_the_others_are_used(world: World, jwk: Json) -> None:
    world.keys.jwks = [jwk, None, "key", [], {}, NEW_JWK]
    verifier = world.verifier(SECRET)
    kid = str(jwk.get("kid") or "odd")
    for alg, sign in UNFIT_SIGNERS:
        await assert_invalid(verifier, mint(alg, header={"kid": kid}, sign=sign))
    assert (await called(verifier, NEW_TOKEN)).sub == SUB


@pytest.mark.parametrize(
    ("alg", "jwk"),
    [
        ("ES256", es_jwk(ES_KEY, "odd", alg=GONE, use=GONE)),
        ("ES256", es_jwk(ES_KEY, "odd", key_ops=["sign", "verify"], ext=True)),
        ("RS256", rsa_jwk(RSA_KEY, "odd", alg=GONE, use=GONE, key_ops=GONE)),
        ("EdDSA", {**ED_JWK, "kid": "odd", "use": "sig", "x5t": "unknown"}),
    ],
)
async def test_a_key_may_say_less_or_more_than_usual(world: World, alg: str, jwk: Json) -> None:
    world.keys.jwks = [jwk]
    assert (await called(world.verifier(), mint(alg, header={"kid": "odd"}))).sub == SUB


async def test_the_first_of_two_keys_with_one_id_counts(world: World) -> None:
    world.keys.jwks = [es_jwk(ES_KEY, "one"), es_jwk(NEW_KEY, "one")]
    verifier = world.verifier()
    assert (await called(verifier, mint(header={"kid": "one"}))).sub == SUB
    await assert_invalid(verifier, mint(header={"kid": "one"}, sign=signing_es256(NEW_KEY)))


# Keys over time

NEW_TOKEN = mint(header={"kid": "kid-of-new"}, sign=signing_es256(NEW_KEY))


async def test_keys_are_fetched_once_and_again_after_ten_minutes(world: World) -> None:
    verifier = world.verifier()
    for after, fetches in [(0, 1), (300, 1), (599, 1), (600, 2), (1199, 2), (1200, 3)]:
        world.clock.now = 1000.0 + after
        assert (await called(verifier, GOOD["ES256"])).sub == SUB
        assert world.keys.fetches == fetches


async def test_keys_fetched_at_start_up_are_there_for_the_first_token(world: World) -> None:
    jwks = world.jwks()
    await jwks.prefetch()
    await jwks.prefetch()
    await world.keys.server.stop()
    assert (await jwks.key(KIDS["ES256"])).algorithm_name == "ES256"
    assert world.keys.fetches == 1


async def test_a_new_key_is_found_at_once_and_the_old_one_stays_until_it_is_removed(
    world: World,
) -> None:
    verifier = world.verifier()
    assert (await called(verifier, GOOD["ES256"])).sub == SUB
    world.keys.jwks = [NEW_JWK, *JWKS]
    assert (await called(verifier, NEW_TOKEN)).sub == SUB
    assert (await called(verifier, GOOD["ES256"])).sub == SUB
    assert world.keys.fetches == 2
    world.keys.jwks = [NEW_JWK]
    world.clock.now += 600
    assert (await called(verifier, NEW_TOKEN)).sub == SUB
    await assert_invalid(verifier, GOOD["ES256"])


async def test_the_sandboxs_rotation_is_followed(world: World) -> None:
    auth = Auth("https://abcdefgh.supabase.co", SigningKeys())
    verifier = world.verifier()
    by_age = []
    for keep_old in (True, True, False):
        auth.keys.rotate(keep_old=keep_old)
        world.keys.jwks = auth.keys.jwks()["keys"]
        by_age.append(auth.access_token())
        world.clock.now += 30
        assert (await called(verifier, by_age[-1])).roles == frozenset()
        assert keep_old == (await valid(verifier, by_age[0]))
    assert [await valid(verifier, token) for token in by_age] == [False, False, True]


async def valid(verifier: TokenVerifier, token: str) -> bool:
    try:
        await called(verifier, token)
    except TokenInvalid:
        return False
    return True


async def test_unknown_key_ids_cause_one_fetch_in_thirty_seconds(world: World) -> None:
    verifier = world.verifier()
    assert (await called(verifier, GOOD["ES256"])).sub == SUB
    for after, fetches in [(0, 2), (1, 2), (29, 2), (30, 3), (59, 3), (60, 4)]:
        world.clock.now = 1000.0 + after
        for number in range(40):
            await assert_invalid(verifier, mint(header={"kid": f"unknown-{number}"}))
        assert world.keys.fetches == fetches


async def test_unknown_key_ids_cause_one_fetch_in_thirty_seconds_also_when_fetching_fails(
    world: World,
) -> None:
    verifier = world.verifier()
    assert (await called(verifier, GOOD["ES256"])).sub == SUB
    world.keys.answer = status_500
    for after, fetches in [(0, 2), (29, 2), (30, 3), (59, 3), (570, 4), (600, 5), (629, 5)]:
        world.clock.now = 1000.0 + after
        for number in range(40):
            await assert_invalid(verifier, mint(header={"kid": f"unknown-{number}"}))
            assert (await called(verifier, GOOD["ES256"])).sub == SUB
        assert world.keys.fetches == fetches


async def test_unknown_key_ids_cause_one_fetch_in_five_seconds_while_there_are_no_keys(
    world: World,
) -> None:
    world.keys.answer = status_500
    verifier = world.verifier()
    for after, fetches in [(0, 1), (4.9, 1), (5, 2), (9.9, 2), (10, 3)]:
        world.clock.now = 1000.0 + after
        for number in range(20):
            await assert_unavailable(verifier, mint(header={"kid": f"unknown-{number}"}))
        assert world.keys.fetches == fetches


async def test_keys_are_used_for_an_hour_while_none_can_be_fetched(world: World) -> None:
    verifier = world.verifier()
    assert (await called(verifier, GOOD["ES256"])).sub == SUB
    world.keys.answer = status_500
    in_use = [(599, 1), (600, 2), (629.9, 2), (630, 3), (3500, 4), (3530, 5), (3600, 6)]
    for after, fetches in in_use:
        world.clock.now = 1000.0 + after
        assert (await called(verifier, GOOD["ES256"])).sub == SUB
        assert world.keys.fetches == fetches
    for after, fetches in [(3600.1, 6), (3630, 7), (3634.9, 7), (3635, 8)]:
        world.clock.now = 1000.0 + after
        await assert_unavailable(verifier)
        assert world.keys.fetches == fetches
    world.keys.answer = None
    world.clock.now += 5
    assert (await called(verifier, GOOD["ES256"])).sub == SUB


async def test_a_server_that_is_down_at_start_is_asked_again_after_five_seconds() -> None:
    keys = KeyServer()
    async with httpx.AsyncClient(verify=TLS) as http:
        world = World(keys, http, Clock())
        verifier = world.verifier()
        with capture_logs() as logged:
            await assert_unavailable(verifier)
            await assert_unavailable(verifier)
        assert logged == [failure("ConnectError", keys_at_hand=False)]
        async with keys.server:
            await assert_unavailable(verifier)
            world.clock.now += 5
            assert (await called(verifier, GOOD["ES256"])).sub == SUB


async def test_known_keys_are_used_while_the_server_is_down_and_new_ones_afterwards(
    world: World,
) -> None:
    verifier = world.verifier()
    assert (await called(verifier, GOOD["ES256"])).sub == SUB
    await world.keys.server.stop()
    world.clock.now += 601
    with capture_logs() as logged:
        assert (await called(verifier, GOOD["ES256"])).sub == SUB
        await assert_invalid(verifier, NEW_TOKEN)
    assert [event["event"] for event in logged] == ["jwks_fetch_failed"]
    world.keys.jwks = [NEW_JWK]
    await world.keys.server.start()
    world.clock.now += 30
    assert (await called(verifier, NEW_TOKEN)).sub == SUB
    await assert_invalid(verifier, GOOD["ES256"])


async def test_a_closed_client_counts_as_a_server_that_is_down(world: World) -> None:
    await world.http.aclose()
    await assert_unavailable(world.verifier())
    await world.jwks().prefetch()


async def test_an_invalid_url_counts_as_a_server_that_is_down(world: World) -> None:
    for url in ("", "jwks.json", "ftp://127.0.0.1/", "http://[::1", "http://\u2100/", "http:///"):
        jwks = Jwks(url, world.http, clock=world.clock)
        await jwks.prefetch()
        with pytest.raises(KeysUnavailable):
            await jwks.key("any")


# Answers that are no key set


def failure(reason: str, *, keys_at_hand: bool) -> dict[str, object]:
    event = {"event": "jwks_fetch_failed", "log_level": "warning"}
    return {**event, "reason": reason, "keys_at_hand": keys_at_hand}


def answering(response: Callable[[], Response]) -> Answer:
    async def answer(_: Request) -> Response:
        return response()

    return answer


def answering_json(value: object) -> Answer:
    return answering(lambda: JSONResponse(value))


def answering_bytes(body: bytes, **headers: str) -> Answer:
    return answering(lambda: Response(body, headers=headers, media_type="application/json"))


status_500 = answering(lambda: JSONResponse({"keys": JWKS}, status_code=500))
KEY_SET = json.dumps({"keys": JWKS}).encode()
NO_KEY_SETS = {
    "status 500": (status_500, "status 500"),
    "status 404": (answering(lambda: Response(status_code=404)), "status 404"),
    "status 204": (answering(lambda: Response(status_code=204)), "status 204"),
    "status 203": (
        answering(lambda: JSONResponse({"keys": JWKS}, status_code=203)),
        "status 203",
    ),
    "a redirect": (answering(lambda: RedirectResponse("/elsewhere.json")), "status 307"),
    "a page": (answering(lambda: HTMLResponse("<h1>Project is paused</h1>")), "not JSON"),
    "nothing": (answering_bytes(b""), "not JSON"),
    "half a key set": (answering_bytes(KEY_SET[:-9]), "not JSON"),
    "UTF-16": (answering_bytes(KEY_SET.decode().encode("utf-16")), "not JSON"),
    "no UTF-8": (answering_bytes(b'{"keys": ["\xff"]}'), "not JSON"),
    "what nests too deep": (answering_bytes(b"[" * 200_000), "not JSON"),
    "a number too long": (answering_bytes(b"9" * 200_000), "not JSON"),
    "gzip that nobody asked for": (
        answering_bytes(gzip.compress(KEY_SET), **{"Content-Encoding": "gzip"}),
        "not JSON",
    ),
    "a list": (answering_json(JWKS), "not a key set"),
    "null": (answering_json(None), "not a key set"),
    "a key alone": (answering_json(ES_JWK), "not a key set"),
    "keys by their ids": (answering_json({"keys": {"kid-of-es": ES_JWK}}), "not a key set"),
    "keys null": (answering_json({"keys": None}), "not a key set"),
    "65 keys": (answering_json({"keys": [ES_JWK] * 65}), "too many keys"),
    "10,000 empty keys": (answering_json({"keys": [*JWKS, *({},) * 10_000]}), "too many keys"),
    "10,000 keys": (answering_json({"keys": [ES_JWK] * 10_000}), "too large"),
    "256 KiB and a byte": (answering_bytes(KEY_SET.ljust(256 * 1024 + 1)), "too large"),
}


@pytest.mark.parametrize(("answer", "reason"), NO_KEY_SETS.values(), ids=NO_KEY_SETS.keys())
async def test_an_answer_that_is_no_key_set_is_a_failed_fetch(
    world: World, answer: Answer, reason: str
) -> None:
    early, late = world.verifier(), world.verifier()
    assert (await called(late, GOOD["ES256"])).sub == SUB
    world.clock.now += 601
    world.keys.answer = answer
    with capture_logs() as logged:
        await assert_unavailable(early)
        assert (await called(late, GOOD["ES256"])).sub == SUB
    assert logged == [failure(reason, keys_at_hand=False), failure(reason, keys_at_hand=True)]
    assert world.keys.paths == ["/jwks.json"] * 3


@pytest.mark.parametrize(
    "answer",
    [
        answering_json({"keys": [{}] * 63 + [ES_JWK], "next": "unknown"}),
        answering_bytes(KEY_SET.ljust(256 * 1024)),
    ],
    ids=["64 keys", "256 KiB"],
)
async def test_a_key_set_may_be_as_large_as_the_limits(world: World, answer: Answer) -> None:
    world.keys.answer = answer
    assert (await called(world.verifier(), GOOD["ES256"])).sub == SUB


async def test_an_endless_body_is_not_read_to_the_last_byte_sent(world: World) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 4096:
            sent += 1
            yield b" " * 65536
            await asyncio.sleep(0)

    world.keys.answer = answering(lambda: StreamingResponse(endless()))
    with capture_logs() as logged:
        await assert_unavailable(world.verifier())
    assert logged == [failure("too large", keys_at_hand=False)]
    assert sent < 1024


@pytest.mark.parametrize("begun", [False, True], ids=["silent", "stops after a few bytes"])
async def test_waiting_for_a_slow_server_has_a_limit(
    world: World, monkeypatch: pytest.MonkeyPatch, *, begun: bool
) -> None:
    assert jwks.FETCH_TIMEOUT_S == 5
    verifier = world.verifier()
    assert (await called(verifier, GOOD["ES256"])).sub == SUB
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT_S", 0.05)
    release = asyncio.Event()

    async def dripping() -> AsyncIterator[bytes]:
        yield KEY_SET[:10]
        await release.wait()

    async def slow(_: Request) -> Response:
        if not begun:
            await release.wait()
        return StreamingResponse(dripping())

    world.keys.answer = slow
    world.clock.now += 601
    with capture_logs() as logged:
        assert (await called(verifier, GOOD["ES256"])).sub == SUB
        await assert_unavailable(world.verifier())
    assert [event["reason"] for event in logged] == ["timeout", "timeout"]
    release.set()


# One fetch for everybody


@dataclass
class Withheld:
    """An answer that is kept back until the test lets it go."""

    release: asyncio.Event

    async def __call__(self, _: Request) -> Response:
        await self.release.wait()
        return JSONResponse({"keys": [NEW_JWK, *JWKS]})


@pytest.fixture
def withheld(world: World) -> Iterator[Withheld]:
    withheld = Withheld(asyncio.Event())
    world.keys.answer = withheld
    yield withheld
    withheld.release.set()


async def test_fifty_requests_at_once_cause_one_fetch(world: World, withheld: Withheld) -> None:
    verifier = world.verifier()
    waiting = [asyncio.create_task(called(verifier, GOOD["ES256"])) for _ in range(50)]
    await world.keys.asked.wait()
    withheld.release.set()
    assert {caller.sub for caller in await asyncio.gather(*waiting)} == {SUB}
    assert world.keys.fetches == 1


async def test_fifty_requests_at_once_fail_with_one_fetch(world: World) -> None:
    world.keys.answer = status_500
    verifier = world.verifier()
    waiting = [called(verifier, GOOD["ES256"]) for _ in range(50)]
    failed = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(exc) for exc in failed} == {KeysUnavailable}
    assert world.keys.fetches == 1


async def test_fifty_new_key_ids_at_once_cause_one_fetch_and_known_ones_do_not_wait_for_it(
    world: World, withheld: Withheld
) -> None:
    world.keys.answer = None
    verifier = world.verifier()
    assert (await called(verifier, GOOD["ES256"])).sub == SUB
    world.keys.asked.clear()
    world.keys.answer = withheld
    waiting = [asyncio.create_task(called(verifier, NEW_TOKEN)) for _ in range(50)]
    await world.keys.asked.wait()
    assert (await called(verifier, GOOD["ES256"])).sub == SUB
    assert not any(task.done() for task in waiting)
    withheld.release.set()
    assert {caller.sub for caller in await asyncio.gather(*waiting)} == {SUB}
    assert world.keys.fetches == 2


async def test_a_request_that_gives_up_does_not_cancel_the_fetch_for_the_others(
    world: World, withheld: Withheld
) -> None:
    verifier = world.verifier()
    waiting = [asyncio.create_task(called(verifier, GOOD["ES256"])) for _ in range(10)]
    await world.keys.asked.wait()
    for task in waiting[:5]:
        task.cancel()
    gone = await asyncio.gather(*waiting[:5], return_exceptions=True)
    assert {type(exc) for exc in gone} == {asyncio.CancelledError}
    withheld.release.set()
    assert {caller.sub for caller in await asyncio.gather(*waiting[5:])} == {SUB}
    assert (await called(verifier, GOOD["RS256"])).sub == SUB
    assert world.keys.fetches == 1


async def test_a_fetch_that_every_request_gave_up_still_serves_the_next_one(
    world: World, withheld: Withheld
) -> None:
    verifier = world.verifier()
    only = asyncio.create_task(called(verifier, GOOD["ES256"]))
    await world.keys.asked.wait()
    only.cancel()
    await asyncio.wait({only})
    withheld.release.set()
    assert (await called(verifier, GOOD["ES256"])).sub == SUB
    assert world.keys.fetches == 1


async def test_the_event_loop_goes_on_while_every_token_waits_for_the_keys(
    world: World, withheld: Withheld
) -> None:
    """The server shares the loop: if anything blocked it, the keys would never come."""
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticker = asyncio.create_task(tick())
    verifier = world.verifier(SECRET)
    tasks = {
        name: asyncio.create_task(called(verifier, token))
        for name, token in (REFUSED | GOOD).items()
    }
    await world.keys.asked.wait()
    before = turns
    for _ in range(500):
        await asyncio.sleep(0)
    assert turns - before >= 499
    needless = {name for name in tasks if name in REFUSED_BEFORE_ANY_KEY or "HS256" in name}
    assert {name for name, task in tasks.items() if task.done()} == needless | {
        name for name in tasks if name.startswith("HS256")
    }
    withheld.release.set()
    results = await asyncio.gather(*tasks.values(), return_exceptions=True)
    ticker.cancel()
    outcomes = dict(zip(tasks, results, strict=True))
    assert {name for name, found in outcomes.items() if isinstance(found, Caller)} == set(GOOD)
    assert {type(outcomes[name]) for name in REFUSED} == {TokenInvalid}
    assert world.keys.fetches <= 2


# Anything else that may be published


JWK_VALUES = JSON | st.binary(max_size=300).map(b64) | st.sampled_from(["EC", "OKP", "RSA", "sig"])


@settings(deadline=None, max_examples=200)
@given(
    alg=st.sampled_from(list(KIDS)),
    changes=st.dictionaries(
        st.sampled_from([*"xynedpqk", "kty", "crv", "kid", "alg", "use", "key_ops"]),
        JWK_VALUES,
        max_size=3,
    ),
)
@example(alg="RS256", changes={"n": b64(b"\xff" * 255 + b"\xfe")})
@example(alg="RS256", changes={"n": b64(b"\xff" * 100_000)})
@example(alg="RS256", changes={"e": b64(b"\xff" * 200)})
@example(alg="EdDSA", changes={"x": b64(bytes(32))})
def test_tokens_are_verified_or_refused_with_any_published_key(
    standing: Standing, alg: str, changes: dict[str, object]
) -> None:
    published = {jwk["alg"]: jwk for jwk in JWKS}[alg]
    body = json.dumps({"keys": [published | changes]}).encode()
    standing.world.keys.answer = answering_bytes(body)
    verifier = standing.world.verifier()
    found = standing.of(verifier, f"Bearer {GOOD[alg]}")
    if {"kty", "crv", "x", "y", "n", "e", "kid"}.isdisjoint(changes) and changes.keys() <= {"k"}:
        assert isinstance(found, Caller)
    elif isinstance(found, AccessRefused):
        assert type(found) is TokenInvalid


@settings(deadline=None, max_examples=100)
@given(JSON.map(lambda value: json.dumps({"keys": value}).encode()) | st.binary(max_size=100))
def test_no_token_is_accepted_where_something_other_than_keys_is_published(
    standing: Standing, body: bytes
) -> None:
    standing.world.keys.answer = answering_bytes(body)
    verifier = standing.world.verifier()
    found = standing.of(verifier, f"Bearer {GOOD['ES256']}")
    assert type(found) in (KeysUnavailable, TokenInvalid)
