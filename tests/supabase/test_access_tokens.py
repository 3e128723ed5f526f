"""Access tokens, against a key server of their own.

The monotonic clock is the test's; nothing here waits for time to pass.
"""

import math
import time
import traceback
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from receiver.core.errors import (
    AccessRefused,
    CallerForbidden,
    KeysUnavailable,
    TokenInvalid,
    TokenMissing,
)
from receiver.sandbox.supabase.auth import Auth, SigningKeys
from receiver.supabase import access_tokens
from receiver.supabase.access_tokens import Caller, TokenVerifier
from receiver.supabase.jwks import Jwks
from tests.support.key_server import Standing, World, assert_invalid, called, refusal
from tests.support.tokens import (
    AN_HOUR,
    BODY,
    CLAIMS,
    ES_KEY,
    FOREIGN_SIGN,
    GONE,
    GOOD,
    HEAD,
    ISSUER,
    JSON,
    KIDS,
    NOW,
    PUBLIC_KEYS,
    REFUSED,
    REFUSED_BEFORE_ANY_KEY,
    REFUSED_BY_CLAIMS,
    REFUSED_BY_SIGNATURE,
    SECRET,
    SIGNERS,
    SUB,
    TEXTS,
    TLS,
    Json,
    Sign,
    b64,
    compact,
    each,
    es_jwk,
    mint,
)

# Good tokens


@each(GOOD)
async def test_a_good_token_of_each_algorithm_gives_its_caller(world: World, token: str) -> None:
    assert await called(world.verifier(SECRET), token) == Caller(sub=SUB, roles=frozenset())


async def test_a_token_as_the_sandboxs_auth_mints_it_is_good(world: World) -> None:
    auth = Auth("https://abcdefgh.supabase.co", SigningKeys())
    world.keys.jwks = auth.keys.jwks()["keys"]
    user = auth.add_user("hr@example.com", app_metadata={"role": "hr", "roles": ["gate", "boss"]})
    assert await called(world.verifier(), auth.access_token()) == Caller(
        sub=user.id, roles=frozenset({"hr", "gate", "boss"})
    )


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "bEaReR  ", " Bearer "])
async def test_the_scheme_may_be_written_in_any_case(world: World, scheme: str) -> None:
    assert (await world.verifier().caller(f"{scheme}{GOOD['ES256']}")).sub == SUB


async def test_an_absent_is_anonymous_and_a_past_nbf_and_fractions_of_seconds_are_good(
    world: World,
) -> None:
    token = mint(is_anonymous=GONE, nbf=NOW - 0.5, iat=NOW - 0.5, exp=NOW + AN_HOUR + 0.5)
    assert (await called(world.verifier(), token)).sub == SUB


async def test_ids_of_256_characters_are_good(world: World) -> None:
    world.keys.jwks = [es_jwk(ES_KEY, "k" * 256)]
    token = mint(header={"kid": "k" * 256}, sub="s" * 256)
    assert (await called(world.verifier(), token)).sub == "s" * 256


async def test_a_token_may_fill_8_kib_and_not_a_character_more(world: World) -> None:
    assert access_tokens.MAX_TOKEN_CHARS == 8 * 1024
    by_length = {
        len(token): token
        for size in range(5450, 5600)
        for token in [mint(user_metadata={"note": "x" * size})]
    }
    fitting = max(length for length in by_length if length <= 8192)
    too_long = min(length for length in by_length if length > 8192)
    assert too_long - fitting <= 2
    assert (await called(world.verifier(), by_length[fitting])).sub == SUB
    await assert_invalid(world.verifier(), by_length[too_long])


@pytest.mark.parametrize("alg", ["ES256", "HS256"])
@pytest.mark.parametrize(("claim", "sign"), [("exp", -1), ("iat", 1), ("nbf", 1)])
async def test_clocks_may_differ_by_ten_seconds(
    world: World, alg: str, claim: str, sign: int
) -> None:
    now = int(time.time())
    verifier = world.verifier(SECRET)
    near: dict[str, Any] = {claim: now + sign * 3}
    far: dict[str, Any] = {claim: now + sign * 40}
    assert (await called(verifier, mint(alg, **near))).sub == SUB
    await assert_invalid(verifier, mint(alg, **far))


# Tokens with one fault


@each(REFUSED)
def test_a_token_with_one_fault_is_refused_with_the_secret_and_without(
    standing: Standing, token: str
) -> None:
    for verifier in (standing.verifier, standing.without_secret):
        assert type(standing.of(verifier, f"Bearer {token}")) is TokenInvalid


async def test_a_token_that_says_too_much_about_itself_is_refused_before_any_key_is_fetched(
    world: World,
) -> None:
    verifier = world.verifier(SECRET)
    for token in REFUSED_BEFORE_ANY_KEY.values():
        await assert_invalid(verifier, token)
    assert world.keys.fetches == 0
    for token in (REFUSED_BY_SIGNATURE | REFUSED_BY_CLAIMS).values():
        await assert_invalid(verifier, token)
    assert world.keys.paths == ["/jwks.json"] * 2, "one fetch, and one for unknown kids"


@pytest.mark.parametrize("member", ["jku", "x5u"])
async def test_a_url_inside_a_token_is_never_followed(world: World, member: str) -> None:
    own = f"{world.keys.server.url}/own.json"
    token = mint(header={member: own, "kid": "own"}, sign=FOREIGN_SIGN)
    await assert_invalid(world.verifier(SECRET), token)
    assert "/own.json" not in world.keys.paths


async def test_hs256_is_refused_without_a_secret_even_if_the_key_set_holds_one(
    world: World,
) -> None:
    world.keys.jwks = [
        {"kty": "oct", "k": b64(SECRET.encode()), "kid": "shared", "alg": alg}
        for alg in ("HS256", "ES256")
    ]
    verifier = world.verifier()
    await assert_invalid(verifier, GOOD["HS256"])
    await assert_invalid(verifier, mint("HS256", header={"kid": "shared"}))
    assert world.keys.fetches == 0
    await assert_invalid(verifier, mint(header={"kid": "shared"}, sign=SIGNERS["HS256"]))


async def test_hs256_is_verified_without_fetching_the_published_keys(world: World) -> None:
    await world.keys.server.stop()
    assert (await called(world.verifier(SECRET), GOOD["HS256"])).sub == SUB
    assert world.keys.fetches == 0


async def test_es256_is_refused_by_a_project_that_publishes_no_keys(world: World) -> None:
    world.keys.jwks = []
    verifier = world.verifier(SECRET)
    await assert_invalid(verifier, GOOD["ES256"])
    assert (await called(verifier, GOOD["HS256"])).sub == SUB


@pytest.mark.parametrize(
    "authorization",
    [
        *(None, "", " ", "Bearer", "Bearer ", "bearer   ", "Basic aHI6cGFzcw==", "Token x"),
        *(GOOD["ES256"], f"Bearer:{GOOD['ES256']}", f"Bearer\t{GOOD['ES256']}"),
        *(f"Basic {GOOD['ES256']}", f"XBearer {GOOD['ES256']}", f"Bearer={GOOD['ES256']}"),
    ],
    ids=range(14),
)
async def test_a_header_without_a_bearer_token_is_called_not_signed_in(
    world: World, authorization: str | None
) -> None:
    with pytest.raises(AccessRefused) as caught:
        await world.verifier(SECRET).caller(authorization)
    assert type(caught.value) is TokenMissing
    assert world.keys.fetches == 0


async def test_an_expired_token_is_called_expired_unless_it_is_forged(world: World) -> None:
    told = "The access token has expired"
    assert (await refusal(world.verifier(), mint(exp=NOW - AN_HOUR))).message.startswith(told)
    forged = mint(exp=NOW - AN_HOUR, sign=FOREIGN_SIGN)
    assert not (await refusal(world.verifier(), forged)).message.startswith(told)


async def test_neither_a_message_nor_a_traceback_nor_a_log_holds_anything_of_a_token(
    world: World,
) -> None:
    verifier = world.verifier(SECRET, "boss")
    said = []
    with capture_logs() as logged:
        for token in [*REFUSED.values(), *GOOD.values(), mint(app_metadata={"role": "clerk"})]:
            exc = await refusal(verifier, token)
            said.append("".join(traceback.format_exception(exc)))
    assert {event["event"] for event in logged} == {"jwks_fetched"}
    text = "\n".join(said) + repr(logged)
    for secret in (HEAD[:12], BODY[:12], SUB, "kid-of", "abcdefgh", "hr@", "clerk", "k" * 20):
        assert secret not in text


# Secrets


@pytest.mark.parametrize("secret", ["", "tiny", "s" * 31, "ș" * 15])
def test_a_secret_that_is_too_short_is_refused_at_once(secret: str) -> None:
    assert_refused_secret(secret, "is shorter than 32 bytes")


@pytest.mark.parametrize("name", [name for name in PUBLIC_KEYS if "PEM" in name or "text" in name])
def test_a_secret_that_is_a_public_key_is_refused_at_once(name: str) -> None:
    assert_refused_secret(PUBLIC_KEYS[name].decode(), "is a public key")


def assert_refused_secret(secret: str, fault: str) -> None:
    jwks = Jwks("http://127.0.0.1:9/", httpx.AsyncClient(verify=TLS))
    with pytest.raises(ValueError, match=fault) as caught:
        TokenVerifier(issuer=ISSUER, jwks=jwks, jwt_secret=secret)
    assert secret[:10] not in str(caught.value) or not secret


def test_an_empty_issuer_is_refused_at_once() -> None:
    jwks = Jwks("http://127.0.0.1:9/", httpx.AsyncClient(verify=TLS))
    with pytest.raises(ValueError, match="issuer"):
        TokenVerifier(issuer="", jwks=jwks)


# Roles


@pytest.mark.parametrize(
    ("app_metadata", "roles"),
    [
        ({"role": "hr"}, {"hr"}),
        ({"roles": ["hr", "boss"]}, {"hr", "boss"}),
        ({"role": "hr", "roles": ["boss", "hr"]}, {"hr", "boss"}),
        ({"role": "hr", "roles": "boss"}, {"hr"}),
        ({"role": "hr", "roles": ["boss", 1]}, {"hr"}),
        ({"role": ["hr"], "roles": ["boss"]}, {"boss"}),
        ({"role": "", "roles": [""]}, set()),
        ({"role": None, "roles": None}, set()),
        ({"role": {"hr": True}, "roles": {"hr": True}}, set()),
        ({"Role": "hr", "claims": {"role": "hr"}}, set()),
        ({}, set()),
        (GONE, set()),
        (None, set()),
        ("hr", set()),
        (["hr"], set()),
        ([["role", "hr"]], set()),
        (1, set()),
    ],
)
async def test_roles_are_those_of_app_metadata_and_malformed_ones_are_ignored(
    world: World, app_metadata: object, roles: set[str]
) -> None:
    token = mint(app_metadata=app_metadata, user_metadata={"role": "boss", "roles": ["boss"]})
    assert (await called(world.verifier(), token)).roles == roles


@pytest.mark.parametrize("app_metadata", [{"role": "hr"}, {"roles": ["clerk", "boss"]}])
async def test_a_caller_with_one_of_the_allowed_roles_is_accepted(
    world: World, app_metadata: Json
) -> None:
    token = mint(app_metadata=app_metadata)
    assert (await called(world.verifier(None, "hr", "boss"), token)).sub == SUB


@pytest.mark.parametrize(
    "claims",
    [
        {"app_metadata": {"role": "clerk"}},
        {"app_metadata": {"role": "HR"}},
        {"app_metadata": {"role": "hr,boss"}},
        {"app_metadata": {"roles": "hr"}},
        {"app_metadata": GONE},
        {"app_metadata": {}, "user_metadata": {"role": "hr", "roles": ["hr"]}},
        {"app_metadata": {"user_metadata": {"role": "hr"}}},
        {"roles": ["hr"], "user_role": "hr"},
    ],
    ids=range(8),
)
@pytest.mark.parametrize("alg", ["ES256", "HS256"])
async def test_a_caller_with_none_of_the_allowed_roles_is_forbidden(
    world: World, alg: str, claims: dict[str, Any]
) -> None:
    exc = await refusal(world.verifier(SECRET, "hr", "boss"), mint(alg, **claims))
    assert type(exc) is CallerForbidden


async def test_an_invalid_token_is_called_invalid_whatever_its_role(world: World) -> None:
    token = mint(app_metadata={"role": "hr"}, sign=FOREIGN_SIGN)
    await assert_invalid(world.verifier(None, "hr"), token)
    await assert_invalid(world.verifier(None, "boss"), token)


def test_each_refusal_has_its_status() -> None:
    refusals = (TokenMissing, TokenInvalid, CallerForbidden, KeysUnavailable)
    assert [int(refused.status) for refused in refusals] == [401, 401, 403, 503]


# Any other header or token


@settings(deadline=None, max_examples=300)
@given(
    st.none()
    | TEXTS
    | st.builds("{}{}".format, st.sampled_from(["Bearer ", "bearer ", "Bearer"]), TEXTS)
    | st.lists(TEXTS, min_size=3, max_size=3).map(lambda parts: "Bearer " + ".".join(parts))
    | st.lists(st.binary(max_size=60).map(b64), min_size=2, max_size=6).map(
        lambda parts: "Bearer " + ".".join(parts)
    )
)
def test_any_other_header_is_refused_and_nothing_else_happens(
    standing: Standing, header: str | None
) -> None:
    assert type(standing.outcome(header)) in (TokenMissing, TokenInvalid)


@settings(deadline=None, max_examples=400)
@given(
    token=st.sampled_from(list(GOOD.values())),
    place=st.floats(0, 1),
    length=st.integers(0, 4) | st.integers(0, 600),
    put=st.text("abcXYZ019-_.", max_size=4) | st.text(".=+/\té\ud800", max_size=3) | TEXTS,
)
def test_a_token_is_accepted_only_as_it_was_signed(
    standing: Standing, token: str, place: float, length: int, put: str
) -> None:
    start = int(place * len(token))
    sent = token[:start] + put + token[start + length :]
    found = standing.outcome(f"Bearer {sent}")
    if sent.strip(" ") == token:
        assert found == Caller(sub=SUB, roles=frozenset())
    else:
        assert type(found) in (TokenInvalid, TokenMissing)


NUMBERS = (st.integers() | st.floats() | st.integers(NOW - 10**6, NOW + 10**6)).filter(
    lambda number: not abs(number - NOW) < 600  # where the rules and the code read two clocks
)
CLAIM_CHANGES = st.fixed_dictionaries(
    {},
    optional={
        **{claim: JSON | st.just(CLAIMS[claim]) for claim in CLAIMS},
        **dict.fromkeys(("exp", "iat", "nbf"), JSON | NUMBERS),
        "app_metadata": JSON
        | st.fixed_dictionaries({}, optional={"role": JSON, "roles": JSON | st.lists(st.text())}),
        "client_id": JSON,
        "jti": st.text(),
        "cnf": JSON,
    },
)


def is_a_users(claims: Json) -> bool:
    """Decide by the rules, which are written otherwise than in the code."""
    exp, iat, nbf = (claims.get(name, 0) for name in ("exp", "iat", "nbf"))
    now = time.time()
    return (
        all(type(value) in (int, float) and abs(value) < math.inf for value in (exp, iat, nbf))
        and exp > now - 10
        and max(iat, nbf) < now + 11
        and [claims.get(name) for name in ("iss", "aud", "role")]
        == [ISSUER, "authenticated", "authenticated"]
        and isinstance(claims["sub"], str)
        and 0 < len(claims["sub"]) < 257
        and ("is_anonymous" not in claims or repr(claims["is_anonymous"]) == "False")
        and "client_id" not in claims
    )


@settings(deadline=None, max_examples=500)
@given(alg=st.sampled_from(list(SIGNERS)), changes=CLAIM_CHANGES)
@example(alg="ES256", changes={"exp": 10**400})
@example(alg="ES256", changes={"exp": -(10**400), "iat": 10**400})
@example(alg="ES256", changes={"app_metadata": {"role": {}, "roles": [[], {}]}})
def test_any_claims_are_accepted_by_the_rules_or_refused_as_invalid(
    standing: Standing, alg: str, changes: dict[str, Any]
) -> None:
    token = mint(alg, **changes)
    found = standing.outcome(f"Bearer {token}")
    if len(token) <= 8192 and is_a_users({**CLAIMS, **changes}):
        assert isinstance(found, Caller)
        assert all(isinstance(role, str) for role in found.roles)
    else:
        assert type(found) is TokenInvalid


@settings(deadline=None, max_examples=300)
@given(
    header=st.fixed_dictionaries(
        {},
        optional={
            "alg": JSON | st.sampled_from([*SIGNERS, "none", "PS256", "ES384"]),
            "kid": JSON | st.sampled_from(list(KIDS.values())),
            **dict.fromkeys(("typ", "crit", "b64", "jwk", "jku", "x5c", "zip", "cty"), JSON),
        },
    )
    | JSON
    | st.binary(max_size=60),
    payload=st.just(CLAIMS) | JSON | st.binary(max_size=60),
    sign=st.sampled_from(list(SIGNERS.values())),
)
def test_any_signed_token_gives_a_caller_or_a_refusal(
    standing: Standing, header: object, payload: object, sign: Sign
) -> None:
    found = standing.outcome(f"Bearer {compact(header, payload, sign)}")
    if isinstance(found, Caller):
        assert isinstance(header, dict)
        assert payload == CLAIMS
        assert sign is SIGNERS[header["alg"]]
        assert header["alg"] == "HS256" or header["kid"] == KIDS[header["alg"]]
    else:
        assert type(found) is TokenInvalid
