"""Access tokens, against a key server of their own; signed here, without the library that verifies.

The monotonic clock is the test's; nothing here waits for time to pass.
"""

import asyncio
import base64
import gzip
import hmac
import json
import math
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from structlog.testing import capture_logs

from receiver.core.errors import (
    AccessRefused,
    CallerForbidden,
    KeysUnavailable,
    TokenInvalid,
    TokenMissing,
)
from receiver.sandbox.loopback import LoopbackServer
from receiver.sandbox.supabase.auth import Auth, SigningKeys
from receiver.supabase import access_tokens as tokens
from receiver.supabase.access_tokens import Caller, Jwks, TokenVerifier

Json: TypeAlias = Mapping[str, Any]
Sign: TypeAlias = Callable[[bytes], bytes]
Answer: TypeAlias = Callable[[Request], Awaitable[Response]]

ISSUER = "https://abcdefgh.supabase.co/auth/v1"
SUB = "5b0b8a53-7d1d-4a5f-9b55-7f8f6d2c1e00"
SECRET = "a-legacy-secret-of-more-than-32-characters"
ES_KEY = ec.generate_private_key(ec.SECP256R1())
NEW_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
SHORT_RSA_KEY = rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused
ED_KEY = ed25519.Ed25519PrivateKey.generate()
KIDS = {"ES256": "kid-of-es", "RS256": "kid-of-rs", "EdDSA": "kid-of-ed"}
GONE: Any = object()
"""Instead of a value: this claim or header is left out."""
NOW = int(time.time())
TLS = httpx.create_ssl_context()
"""Made once, because it takes longer than most of these tests."""
AN_HOUR = 3600
"""More than these tests ever take from being collected to being run."""


# Tokens and keys, made by hand


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64_of(number: int, size: int | None = None) -> str:
    return b64(number.to_bytes(size or (number.bit_length() + 7) // 8, "big"))


def signing_es256(key: ec.EllipticCurvePrivateKey) -> Sign:
    def sign(message: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return sign


def signing_rs256(key: rsa.RSAPrivateKey) -> Sign:
    return lambda message: key.sign(message, padding.PKCS1v15(), SHA256())


def signing_hmac(key: bytes | str, hash_name: str = "sha256") -> Sign:
    secret = key.encode() if isinstance(key, str) else key
    return lambda message: hmac.digest(secret, message, hash_name)


SIGNERS: Mapping[str, Sign] = {
    "ES256": signing_es256(ES_KEY),
    "RS256": signing_rs256(RSA_KEY),
    "EdDSA": ED_KEY.sign,
    "HS256": signing_hmac(SECRET),
}


def es_jwk(key: ec.EllipticCurvePrivateKey, kid: object, **changes: object) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    size = (key.curve.key_size + 7) // 8
    crv = {256: "P-256", 384: "P-384"}[key.curve.key_size]
    jwk = {"kty": "EC", "crv": crv, "x": b64_of(numbers.x, size), "y": b64_of(numbers.y, size)}
    return without_gone({**jwk, "kid": kid, "alg": "ES256", "use": "sig"} | changes)


def rsa_jwk(key: rsa.RSAPrivateKey, kid: str, **changes: object) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    jwk = {"kty": "RSA", "n": b64_of(numbers.n), "e": b64_of(numbers.e), "kid": kid}
    return without_gone({**jwk, "alg": "RS256", "use": "sig", "key_ops": ["verify"]} | changes)


def ed_jwk(x: bytes, kid: str, **changes: object) -> dict[str, Any]:
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(x), "kid": kid, "alg": "EdDSA"}
    return without_gone(jwk | changes)


def without_gone(members: Mapping[str, object]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not GONE}


ES_JWK = es_jwk(ES_KEY, KIDS["ES256"])
NEW_JWK = es_jwk(NEW_KEY, "kid-of-new")
RSA_JWK = rsa_jwk(RSA_KEY, KIDS["RS256"])
ED_JWK = ed_jwk(ED_KEY.public_key().public_bytes_raw(), KIDS["EdDSA"])
JWKS = [ES_JWK, RSA_JWK, ED_JWK]

CLAIMS: Json = {
    "iss": ISSUER,
    "aud": "authenticated",
    "role": "authenticated",
    "sub": SUB,
    "exp": NOW + AN_HOUR,
    "iat": NOW,
    "session_id": "0b5d0d5c-53a5-4a59-8c0a-5f1f4f5d9a11",
    "aal": "aal1",
    "amr": [{"method": "password", "timestamp": NOW}],
    "email": "hr@example.com",
    "phone": "",
    "is_anonymous": False,
    "app_metadata": {"provider": "email", "providers": ["email"]},
    "user_metadata": {},
}


def compact(header: object, payload: object, sign: Sign) -> str:
    """Return a JWS of anything; bytes are taken as they are."""
    parts = (p if isinstance(p, bytes) else json.dumps(p).encode() for p in (header, payload))
    signed = ".".join(b64(part) for part in parts)
    return f"{signed}.{b64(sign(signed.encode()))}"


def mint(
    alg: str = "ES256", *, header: Json | None = None, sign: Sign | None = None, **claims: Any
) -> str:
    """Return a Supabase access token, with the given claims and header members changed."""
    whole_header = {"typ": "JWT", "alg": alg, "kid": KIDS.get(alg, GONE), **(header or {})}
    payload = without_gone({**CLAIMS, **claims})
    return compact(without_gone(whole_header), payload, sign or SIGNERS[alg])


def tampered(token: str, part: int, change: Callable[[bytes], bytes]) -> str:
    parts = token.split(".")
    raw = base64.urlsafe_b64decode(parts[part] + "==")
    parts[part] = b64(change(raw))
    return ".".join(parts)


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


GOOD = {
    "ES256": mint("ES256"),
    "RS256": mint("RS256"),
    "EdDSA": mint("EdDSA"),
    "HS256": mint("HS256"),
    "HS256 with the kid of the legacy secret": mint("HS256", header={"kid": "legacy"}),
}


# The table: every token here has one fault and is otherwise good

FOREIGN_ES_KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC_KEYS = {
    "the EC key's PEM": ES_KEY.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    ),
    "the RSA key's PEM": RSA_KEY.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    ),
    "the RSA key's PKCS 1 PEM": RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1),
    "the RSA key's DER": RSA_KEY.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    ),
    "the Ed25519 key's bytes": ED_KEY.public_key().public_bytes_raw(),
    "the JWK's text": json.dumps(ES_JWK).encode(),
    "the JWK's text without spaces": json.dumps(ES_JWK, separators=(",", ":")).encode(),
    "the key set's text": json.dumps({"keys": JWKS}, separators=(",", ":")).encode(),
    "the JWK's x": ES_JWK["x"].encode(),
    "no bytes at all": b"",
}
LEGACY = Auth("https://abcdefgh.supabase.co", SigningKeys(signing="HS256"))
LEGACY.keys.jwt_secret = SECRET
HEAD, BODY, SIGNATURE = GOOD["ES256"].split(".")

REFUSED_BEFORE_ANY_KEY = {
    **{
        f"alg {alg} {how}": compact({"typ": "JWT", "alg": alg, "kid": KIDS["ES256"]}, CLAIMS, sign)
        for alg in ("none", "None", "NONE", "nOnE", "", " ")
        for how, sign in {
            "unsigned": lambda _: b"",
            "signed with the secret": SIGNERS["HS256"],
            "signed with the EC key": SIGNERS["ES256"],
        }.items()
    },
    **{
        f"alg {alg!r}": mint(header={"alg": alg})
        for alg in (
            *("es256", "Es256", "ES256 ", "ES256K", "ES384", "ES512", "RS384", "RS512", "PS256"),
            *("PS512", "rs256", "EDDSA", "eddsa", "Ed25519", "Ed448", "hs256", "Hs256", "dir"),
            *("RSA-OAEP", "ECDH-ES", "HS256,ES256", "x" * 300),
            *(None, True, 256, ["ES256"], {"ES256": 1}),
        )
    },
    "alg HS384 signed with the secret": mint("HS384", sign=signing_hmac(SECRET, "sha384")),
    "alg HS512 signed with the secret": mint("HS512", sign=signing_hmac(SECRET, "sha512")),
    "alg hs256 signed with the secret": mint("hs256", sign=SIGNERS["HS256"]),
    "no alg": mint(header={"alg": GONE}),
    **{
        f"HS256 signed with {name}": mint(
            "HS256", header={"kid": KIDS["ES256"]}, sign=signing_hmac(key)
        )
        for name, key in PUBLIC_KEYS.items()
    },
    "HS256 signed with another secret": mint("HS256", sign=signing_hmac(SECRET + "!")),
    "HS256 with a tampered signature": tampered(GOOD["HS256"], 2, flipped),
    "HS256 with a cut signature": tampered(GOOD["HS256"], 2, lambda raw: raw[:16]),
    "HS256 that has run out": mint("HS256", exp=NOW - AN_HOUR),
    "the anon key": LEGACY.anon_key,
    "the service_role key": LEGACY.service_role_key,
    "the service_role key, with a user's claims": mint("HS256", role="service_role"),
    "no kid": mint(header={"kid": GONE}),
    "an empty kid": mint(header={"kid": ""}),
    "a kid of 257 characters": mint(header={"kid": "k" * 257}),
    "a kid of 5,000 characters": mint(header={"kid": "k" * 5000}),
    **{
        f"the kid {kid!r}": mint(header={"kid": kid})
        for kid in (None, 1, True, ["kid-of-es"], {"kid": "kid-of-es"})
    },
    "crit of something unknown": mint(header={"crit": ["exp2"], "exp2": 1}),
    "crit of b64, which the library understands": mint(header={"crit": ["b64"], "b64": True}),
    "crit that is empty": mint(header={"crit": []}),
    "crit that is null": mint(header={"crit": None}),
    "HS256 with crit": mint("HS256", header={"crit": ["b64"], "b64": True}),
    "b64 false": mint(header={"b64": False}),
    "a stripped signature": f"{HEAD}.{BODY}.",
    "no signature": f"{HEAD}.{BODY}",
    "four segments": f"{HEAD}.{BODY}.{SIGNATURE}.{SIGNATURE}",
    "an empty payload segment": f"{HEAD}..{SIGNATURE}",
    "an empty header segment": f".{BODY}.{SIGNATURE}",
    "only dots": "..",
    "one segment": HEAD,
    "a JWE of five segments": ".".join(
        [b64(b'{"alg":"dir","enc":"A256GCM"}'), "", b64(b"12"), b64(b"3"), b64(b"4")]
    ),
    "a JWE's header": compact({"alg": "RSA-OAEP", "enc": "A256GCM"}, CLAIMS, SIGNERS["RS256"]),
    "9 KiB": mint(user_metadata={"note": "x" * 6900}),
    "base64 with padding": f"{HEAD}.{BODY}.{SIGNATURE}==",
    "base64 that is not for URLs": f"{HEAD}.{BODY}.{'+/' * 43}",
    "a header that is a list": compact([{"alg": "ES256"}], CLAIMS, SIGNERS["ES256"]),
    "a header that is not JSON": compact(b"{alg:ES256}", CLAIMS, SIGNERS["ES256"]),
    "a header that is not UTF-8": compact(b'{"alg":"\xff"}', CLAIMS, SIGNERS["ES256"]),
    "a header that nests too deep": compact(b"[" * 4000, CLAIMS, SIGNERS["ES256"]),
    "a header with a number too long": compact(
        b'{"alg":"ES256","x":' + b"9" * 4500 + b"}", {}, SIGNERS["ES256"]
    ),
    "characters beyond ASCII": f"{HEAD}.{BODY}.{SIGNATURE[:-1]}é",
    "digits of another script": f"{HEAD}.{BODY}.{SIGNATURE[:-1]}٣",
    "half of a surrogate pair": f"{HEAD}.{BODY}.{SIGNATURE[:-1]}\ud800",
    "a line feed at the end": f"{GOOD['ES256']}\n",
    "a second token": f"{GOOD['ES256']}, Bearer {GOOD['ES256']}",
}

OWN_JWK = es_jwk(FOREIGN_ES_KEY, KIDS["ES256"])
FOREIGN_SIGN = signing_es256(FOREIGN_ES_KEY)
REFUSED_BY_SIGNATURE = {
    "a tampered payload": tampered(
        GOOD["ES256"], 1, lambda raw: raw.replace(b"hr@example.com", b"me@example.com")
    ),
    "a payload of another's token": f"{HEAD}.{mint(sub='somebody-else').split('.')[1]}.{SIGNATURE}",
    "a tampered header": tampered(GOOD["ES256"], 0, lambda raw: raw.replace(b"JWT", b"jwt")),
    **{
        f"{alg} with a tampered signature": tampered(GOOD[alg], 2, flipped)
        for alg in ("ES256", "RS256", "EdDSA")
    },
    **{
        f"{alg} with a cut signature": tampered(GOOD[alg], 2, lambda raw: raw[:-1])
        for alg in ("ES256", "RS256", "EdDSA")
    },
    **{
        f"{alg} with a signature of zeros": tampered(GOOD[alg], 2, lambda raw: bytes(len(raw)))
        for alg in ("ES256", "RS256", "EdDSA")
    },
    "ES256 with a signature in DER": mint(sign=lambda m: ES_KEY.sign(m, ec.ECDSA(SHA256()))),
    "ES256 signed with another key": mint(sign=FOREIGN_SIGN),
    "ES256 signed with the secret": mint(sign=SIGNERS["HS256"]),
    "ES256 of the RSA key": mint(header={"kid": KIDS["RS256"]}),
    "ES256 of the RSA key, signed with it": mint(
        header={"kid": KIDS["RS256"]}, sign=SIGNERS["RS256"]
    ),
    "RS256 of the EC key": mint("RS256", header={"kid": KIDS["ES256"]}),
    "EdDSA of the EC key": mint("EdDSA", header={"kid": KIDS["ES256"]}),
    "an unknown kid": mint(header={"kid": "kid-of-nobody"}),
    "a kid in other case": mint(header={"kid": KIDS["ES256"].upper()}),
    "a kid that is a path": mint(header={"kid": "../../dev/null"}),
    "a key of its own": mint(header={"jwk": OWN_JWK}, sign=FOREIGN_SIGN),
    "a key of its own under an unknown kid": mint(
        header={"jwk": OWN_JWK | {"kid": "own"}, "kid": "own"}, sign=FOREIGN_SIGN
    ),
    "certificates of its own": mint(header={"x5c": ["MIIB"], "kid": "own"}, sign=FOREIGN_SIGN),
}

NO_TIMES: Sequence[Any] = (
    *(None, True, False, "", str(NOW), "soon", [NOW], {}, math.nan, math.inf),
)
OTHER_TYPES: Sequence[Any] = (None, True, 0, [], {}, ["authenticated"], "")
REFUSED_BY_CLAIMS = {
    **{
        f"no {claim}": mint(**{claim: GONE})
        for claim in ("exp", "iat", "sub", "aud", "iss", "role")
    },
    **{
        f"{claim} {value!r}": mint(**{claim: value})
        for claim in ("sub", "aud", "iss", "role")
        for value in OTHER_TYPES
    },
    **{
        f"{claim} {value!r}": mint(**{claim: value})
        for claim in ("exp", "iat", "nbf")
        for value in NO_TIMES
    },
    **{
        f"{claim} 1e400": compact(
            {"alg": "ES256", "kid": KIDS["ES256"]},
            json.dumps({**CLAIMS, claim: 0}).replace(f'"{claim}": 0', f'"{claim}": 1e400').encode(),
            SIGNERS["ES256"],
        )
        for claim in ("exp", "iat", "nbf")
    },
    "expired": mint(exp=NOW - AN_HOUR),
    "expired at the beginning of time": mint(exp=0),
    "expired before it": mint(exp=-(10**20)),
    "exp in text, in the future": mint(exp=str(NOW + AN_HOUR)),
    "issued in the future": mint(iat=NOW + AN_HOUR),
    "issued unthinkably late": mint(iat=10**400),
    "not valid yet": mint(nbf=NOW + AN_HOUR),
    "aud of another service": mint(aud="anon"),
    "aud in capitals": mint(aud="Authenticated"),
    "two aud": mint(aud=["authenticated", "other"]),
    "role anon": mint(role="anon"),
    "role service_role": mint(role="service_role"),
    "role supabase_admin": mint(role="supabase_admin"),
    "iss of another project": mint(iss=ISSUER.replace("abcdefgh", "hgfedcba")),
    "iss with a slash more": mint(iss=ISSUER + "/"),
    "iss cut short": mint(iss=ISSUER.removesuffix("/v1")),
    "iss of the API keys": mint(iss="supabase"),
    "iss in a list": mint(iss=[ISSUER]),
    "a sub of 257 characters": mint(sub="s" * 257),
    "an anonymous user": mint(is_anonymous=True),
    **{f"is_anonymous {value!r}": mint(is_anonymous=value) for value in ("false", *OTHER_TYPES)},
    "an OAuth client": mint(client_id="9f5c", scope="openid"),
    "an OAuth client that is null": mint(client_id=None),
    "a payload that is a list": compact(
        {"alg": "ES256", "kid": KIDS["ES256"]}, [CLAIMS], SIGNERS["ES256"]
    ),
    "a payload that is not JSON": compact(
        {"alg": "ES256", "kid": KIDS["ES256"]}, b"sub=me", SIGNERS["ES256"]
    ),
    "a payload that is not UTF-8": compact(
        {"alg": "ES256", "kid": KIDS["ES256"]}, b'{"sub":"\xff\xfe"}', SIGNERS["ES256"]
    ),
    "a payload that nests too deep": compact(
        {"alg": "ES256", "kid": KIDS["ES256"]}, b'{"a":' * 1100, SIGNERS["ES256"]
    ),
    "a payload with a number too long": compact(
        {"alg": "ES256", "kid": KIDS["ES256"]}, b'{"exp":' + b"9" * 4500 + b"}", SIGNERS["ES256"]
    ),
    **{f"{alg} that has run out": mint(alg, exp=NOW - AN_HOUR) for alg in ("RS256", "EdDSA")},
}
REFUSED = REFUSED_BEFORE_ANY_KEY | REFUSED_BY_SIGNATURE | REFUSED_BY_CLAIMS


def each(table: Mapping[str, str]) -> pytest.MarkDecorator:
    # Not by their names, which hold the time: whoever runs tests side by side compares them.
    return pytest.mark.parametrize("token", list(table.values()), ids=range(len(table)))


# The world around it


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class KeyServer:
    """Supabase's JWKS endpoint; counts what it is asked for and answers as the test says."""

    def __init__(self) -> None:
        self.jwks: Sequence[object] = JWKS
        self.answer: Answer | None = None
        self.paths: list[str] = []
        self.asked = asyncio.Event()
        self.server = LoopbackServer(Starlette(routes=[Route("/{path:path}", self._answer)]))
        self.url = f"{self.server.url}/jwks.json"

    @property
    def fetches(self) -> int:
        return len(self.paths)

    async def _answer(self, request: Request) -> Response:
        self.paths.append(request.url.path)
        self.asked.set()
        if self.answer is not None and request.url.path == "/jwks.json":
            return await self.answer(request)
        return Response(json.dumps({"keys": self.jwks}), media_type="application/json")


@dataclass(frozen=True)
class World:
    keys: KeyServer
    http: httpx.AsyncClient
    clock: Clock

    def jwks(self) -> Jwks:
        return Jwks(self.keys.url, self.http, clock=self.clock)

    def verifier(self, secret: str | None = None, *roles: str) -> TokenVerifier:
        return TokenVerifier(
            issuer=ISSUER, jwks=self.jwks(), jwt_secret=secret, allowed_roles=frozenset(roles)
        )


@asynccontextmanager
async def new_world() -> AsyncIterator[World]:
    keys = KeyServer()
    async with keys.server, httpx.AsyncClient(verify=TLS) as http:
        yield World(keys, http, Clock())


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with new_world() as world:
        yield world


@dataclass(frozen=True)
class Standing:
    """Verifiers with keys at hand, asked from outside their loop; their clock stands still."""

    world: World
    runner: asyncio.Runner
    verifier: TokenVerifier
    without_secret: TokenVerifier

    def outcome(self, authorization: str | None) -> Caller | AccessRefused:
        return self.of(self.verifier, authorization)

    def of(self, verifier: TokenVerifier, authorization: str | None) -> Caller | AccessRefused:
        return self.runner.run(outcome(verifier, authorization))


async def outcome(verifier: TokenVerifier, authorization: str | None) -> Caller | AccessRefused:
    try:
        return await verifier.caller(authorization)
    except AccessRefused as exc:
        return exc


@pytest.fixture(scope="module")
def standing() -> Iterator[Standing]:
    with asyncio.Runner() as runner:
        context = new_world()
        world = runner.run(context.__aenter__())
        standing = Standing(world, runner, world.verifier(SECRET), world.verifier())
        for verifier in (standing.verifier, standing.without_secret):
            assert isinstance(standing.of(verifier, f"Bearer {GOOD['ES256']}"), Caller)
        yield standing
        runner.run(context.__aexit__(None, None, None))


async def called(verifier: TokenVerifier, token: str) -> Caller:
    return await verifier.caller(f"Bearer {token}")


async def refusal(verifier: TokenVerifier, token: str) -> AccessRefused:
    with pytest.raises(AccessRefused) as caught:
        await called(verifier, token)
    return caught.value


async def assert_invalid(verifier: TokenVerifier, token: str) -> None:
    assert type(await refusal(verifier, token)) is TokenInvalid


async def assert_unavailable(verifier: TokenVerifier, token: str = GOOD["ES256"]) -> None:
    assert type(await refusal(verifier, token)) is KeysUnavailable


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
    assert tokens.MAX_TOKEN_CHARS == 8 * 1024
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


async def test_what_says_too_much_about_itself_is_refused_before_any_key_is_asked_for(
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


async def test_hs256_is_verified_without_ever_looking_at_the_published_keys(world: World) -> None:
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


async def test_who_was_signed_in_too_long_ago_is_told_so(world: World) -> None:
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
async def test_roles_are_those_of_app_metadata_and_malformed_ones_are_none(
    world: World, app_metadata: object, roles: set[str]
) -> None:
    token = mint(app_metadata=app_metadata, user_metadata={"role": "boss", "roles": ["boss"]})
    assert (await called(world.verifier(), token)).roles == roles


@pytest.mark.parametrize("app_metadata", [{"role": "hr"}, {"roles": ["clerk", "boss"]}])
async def test_who_has_one_of_the_allowed_roles_may(world: World, app_metadata: Json) -> None:
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
async def test_whose_roles_are_all_others_is_forbidden(
    world: World, alg: str, claims: dict[str, Any]
) -> None:
    exc = await refusal(world.verifier(SECRET, "hr", "boss"), mint(alg, **claims))
    assert type(exc) is CallerForbidden


async def test_an_invalid_token_is_called_invalid_whatever_its_role(world: World) -> None:
    token = mint(app_metadata={"role": "hr"}, sign=FOREIGN_SIGN)
    await assert_invalid(world.verifier(None, "hr"), token)
    await assert_invalid(world.verifier(None, "boss"), token)


def test_the_refusals_have_the_statuses_they_deserve() -> None:
    refusals = (TokenMissing, TokenInvalid, CallerForbidden, KeysUnavailable)
    assert [int(refused.status) for refused in refusals] == [401, 401, 403, 503]


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
async def test_a_key_that_is_unfit_is_passed_over_and_the_others_go_on(
    world: World, jwk: Json
) -> None:
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
async def test_a_key_may_say_little_or_more_than_is_needed(
    world: World, alg: str, jwk: Json
) -> None:
    world.keys.jwks = [jwk]
    assert (await called(world.verifier(), mint(alg, header={"kid": "odd"}))).sub == SUB


async def test_of_two_keys_with_one_id_the_first_counts(world: World) -> None:
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


async def test_a_stream_of_unknown_kids_causes_one_fetch_in_thirty_seconds(world: World) -> None:
    verifier = world.verifier()
    assert (await called(verifier, GOOD["ES256"])).sub == SUB
    for after, fetches in [(0, 2), (1, 2), (29, 2), (30, 3), (59, 3), (60, 4)]:
        world.clock.now = 1000.0 + after
        for number in range(40):
            await assert_invalid(verifier, mint(header={"kid": f"unknown-{number}"}))
        assert world.keys.fetches == fetches


async def test_so_it_does_while_the_fetches_fail(world: World) -> None:
    verifier = world.verifier()
    assert (await called(verifier, GOOD["ES256"])).sub == SUB
    world.keys.answer = status_500
    for after, fetches in [(0, 2), (29, 2), (30, 3), (59, 3), (570, 4), (600, 5), (629, 5)]:
        world.clock.now = 1000.0 + after
        for number in range(40):
            await assert_invalid(verifier, mint(header={"kid": f"unknown-{number}"}))
            assert (await called(verifier, GOOD["ES256"])).sub == SUB
        assert world.keys.fetches == fetches


async def test_unknown_kids_fetch_nothing_more_while_there_are_no_keys_at_all(
    world: World,
) -> None:
    world.keys.answer = status_500
    verifier = world.verifier()
    for after, fetches in [(0, 1), (4.9, 1), (5, 2), (9.9, 2), (10, 3)]:
        world.clock.now = 1000.0 + after
        for number in range(20):
            await assert_unavailable(verifier, mint(header={"kid": f"unknown-{number}"}))
        assert world.keys.fetches == fetches


async def test_keys_go_on_being_used_for_an_hour_while_none_can_be_fetched(world: World) -> None:
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


async def test_a_server_that_goes_down_later_is_not_missed(world: World) -> None:
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


async def test_a_client_that_was_closed_is_a_server_that_is_down(world: World) -> None:
    await world.http.aclose()
    await assert_unavailable(world.verifier())
    await world.jwks().prefetch()


async def test_a_url_that_is_none_is_a_server_that_is_down(world: World) -> None:
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


async def test_a_body_without_an_end_is_not_read_to_it(world: World) -> None:
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
async def test_a_server_that_keeps_us_waiting_is_waited_for_only_so_long(
    world: World, monkeypatch: pytest.MonkeyPatch, *, begun: bool
) -> None:
    assert tokens.FETCH_TIMEOUT_S == 5
    verifier = world.verifier()
    assert (await called(verifier, GOOD["ES256"])).sub == SUB
    monkeypatch.setattr(tokens, "FETCH_TIMEOUT_S", 0.05)
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
class Held:
    """An answer that is kept back until the test lets it go."""

    release: asyncio.Event

    async def __call__(self, _: Request) -> Response:
        await self.release.wait()
        return JSONResponse({"keys": [NEW_JWK, *JWKS]})


@pytest.fixture
def held(world: World) -> Iterator[Held]:
    held = Held(asyncio.Event())
    world.keys.answer = held
    yield held
    held.release.set()


async def test_fifty_at_once_cause_one_fetch(world: World, held: Held) -> None:
    verifier = world.verifier()
    waiting = [asyncio.create_task(called(verifier, GOOD["ES256"])) for _ in range(50)]
    await world.keys.asked.wait()
    held.release.set()
    assert {caller.sub for caller in await asyncio.gather(*waiting)} == {SUB}
    assert world.keys.fetches == 1


async def test_fifty_at_once_fail_with_one_fetch(world: World) -> None:
    world.keys.answer = status_500
    verifier = world.verifier()
    waiting = [called(verifier, GOOD["ES256"]) for _ in range(50)]
    failed = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(exc) for exc in failed} == {KeysUnavailable}
    assert world.keys.fetches == 1


async def test_fifty_new_kids_at_once_cause_one_fetch_and_known_ones_do_not_wait_for_it(
    world: World, held: Held
) -> None:
    world.keys.answer = None
    verifier = world.verifier()
    assert (await called(verifier, GOOD["ES256"])).sub == SUB
    world.keys.asked.clear()
    world.keys.answer = held
    waiting = [asyncio.create_task(called(verifier, NEW_TOKEN)) for _ in range(50)]
    await world.keys.asked.wait()
    assert (await called(verifier, GOOD["ES256"])).sub == SUB
    assert not any(task.done() for task in waiting)
    held.release.set()
    assert {caller.sub for caller in await asyncio.gather(*waiting)} == {SUB}
    assert world.keys.fetches == 2


async def test_who_gives_up_waiting_does_not_cancel_the_fetch_for_the_others(
    world: World, held: Held
) -> None:
    verifier = world.verifier()
    waiting = [asyncio.create_task(called(verifier, GOOD["ES256"])) for _ in range(10)]
    await world.keys.asked.wait()
    for task in waiting[:5]:
        task.cancel()
    gone = await asyncio.gather(*waiting[:5], return_exceptions=True)
    assert {type(exc) for exc in gone} == {asyncio.CancelledError}
    held.release.set()
    assert {caller.sub for caller in await asyncio.gather(*waiting[5:])} == {SUB}
    assert (await called(verifier, GOOD["RS256"])).sub == SUB
    assert world.keys.fetches == 1


async def test_a_fetch_that_everybody_has_given_up_is_still_good_for_the_next(
    world: World, held: Held
) -> None:
    verifier = world.verifier()
    only = asyncio.create_task(called(verifier, GOOD["ES256"]))
    await world.keys.asked.wait()
    only.cancel()
    await asyncio.wait({only})
    held.release.set()
    assert (await called(verifier, GOOD["ES256"])).sub == SUB
    assert world.keys.fetches == 1


async def test_the_loop_turns_while_the_whole_table_waits_for_the_keys(
    world: World, held: Held
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
    held.release.set()
    results = await asyncio.gather(*tasks.values(), return_exceptions=True)
    ticker.cancel()
    outcomes = dict(zip(tasks, results, strict=True))
    assert {name for name, found in outcomes.items() if isinstance(found, Caller)} == set(GOOD)
    assert {type(outcomes[name]) for name in REFUSED} == {TokenInvalid}
    assert world.keys.fetches <= 2


# Whatever else may be sent


TEXTS = st.text(max_size=60) | st.text("abcXYZ019-_.=+/ \t\r\n\0é\ud800", max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


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
    """Tell by the rules, in other words than the code's."""
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
def test_whatever_is_claimed_is_accepted_by_the_rules_or_refused_as_invalid(
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
def test_whatever_is_signed_comes_to_a_caller_or_to_a_refusal(
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
def test_whatever_key_is_published_tokens_are_verified_or_refused(
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
def test_whatever_is_published_instead_of_keys_no_token_is_accepted(
    standing: Standing, body: bytes
) -> None:
    standing.world.keys.answer = answering_bytes(body)
    verifier = standing.world.verifier()
    found = standing.of(verifier, f"Bearer {GOOD['ES256']}")
    assert type(found) in (KeysUnavailable, TokenInvalid)
