"""Access tokens made by hand, signed without the library that verifies them.

Good ones, and a table of others that each have one fault and are otherwise good.
"""

import base64
import hmac
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import (
    Response,
)

from receiver.sandbox.supabase.auth import Auth, SigningKeys

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
"""More than these tests take between being collected and being run."""


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
    # Not by their names, which hold the time: workers that run tests side by side compare ids.
    return pytest.mark.parametrize("token", list(table.values()), ids=range(len(table)))


# Anything else that may be sent or published

TEXTS = st.text(max_size=60) | st.text("abcXYZ019-_.=+/ \t\r\n\0é\ud800", max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
