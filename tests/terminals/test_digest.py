"""Digest challenges as terminals may write them, and the answer to one; no network at all."""

import re
from typing import Final

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from receiver.terminals.digest import Challenge, answerable, digests

PLAIN: Final = Challenge(realm=b"DS", nonce=b"n", algorithm=b"MD5", has_qop=True)
HEADER: Final = b'Digest realm="DS", nonce="n", qop="auth"'
READ_AS_PLAIN: Final = {
    "plain": [HEADER],
    "auth-int too": [b'Digest realm="DS", nonce="n", qop="auth-int, auth"'],
    "without quotes": [b"Digest realm=DS,nonce=n,qop=auth,algorithm=MD5"],
    "a quoted algorithm": [HEADER + b', algorithm="MD5"'],
    "a scheme in another case": [HEADER.replace(b"Digest", b"DIGEST")],
    "names in another case": [b'Digest Realm="DS", NONCE="n", QOP="auth"'],
    "a qop in another case": [HEADER.replace(b'"auth"', b'"AUTH"')],
    "blanks around the equals sign": [b'Digest realm = "DS", nonce\t="n", qop= "auth"'],
    "empty elements": [b'Digest realm="DS",, nonce="n", , qop="auth",'],
    "after Basic in its line": [b'Basic realm="x", ' + HEADER],
    "before Basic in its line": [HEADER + b', Basic realm="x", charset="UTF-8"'],
    "after a token68 in its line": [b"Negotiate YWJj==, " + HEADER],
    "after a bare scheme in its line": [b"NTLM, " + HEADER],
    "after Basic": [b'Basic realm="x"', HEADER],
    "after an unknown algorithm": [HEADER + b", algorithm=SHA-512-256", HEADER],
    "after auth-int alone": [HEADER.replace(b'"auth"', b'"auth-int"'), HEADER],
    "after an algorithm of nothing": [HEADER + b", algorithm=", HEADER],
    "after a session that nothing can prove": [
        b'Digest realm="DS", nonce="n", algorithm=MD5-sess',
        HEADER,
    ],
    "after one without a nonce": [b'Digest realm="DS", qop="auth"', HEADER],
    "all of it in one line": [HEADER + b", algorithm=SHA-512-256, " + HEADER],
    "a parameter without a value": [HEADER + b", stale"],
    "parameters that nobody knows": [HEADER + b', domain="/, /x", userhash=false, charset=UTF-8'],
    "after a quote without an end": [b'Basic realm="x, Digest realm="y', HEADER],
}


@pytest.mark.parametrize("values", READ_AS_PLAIN.values(), ids=READ_AS_PLAIN)
def test_a_challenge_is_read_however_http_lets_it_be_written(values: list[bytes]) -> None:
    assert answerable(digests(values)) == PLAIN


@pytest.mark.parametrize(
    ("written", "realm"),
    [
        (rb'"Poarta \"Nord\""', b'Poarta "Nord"'),
        (rb'"a\\b"', rb"a\b"),
        (b'"a, b=c"', b"a, b=c"),
        (b'""', b""),
        ('"Șantier Est"'.encode(), "Șantier Est".encode()),
        ('"Fântâna"'.encode("latin-1"), "Fântâna".encode("latin-1")),
    ],
)
def test_a_realm_is_what_was_quoted_to_the_byte(written: bytes, realm: bytes) -> None:
    challenge = answerable(digests([b"Digest realm=" + written + b', nonce="n"']))
    assert challenge
    assert challenge.realm == realm


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Digest",
        b'Basic realm="x"',
        b'Digest realm="DS"',
        b'Digest nonce="n"',
        b'Digest realm="DS", nonce="n", algorithm=SHA3-FOO',
        b'Digest realm="DS", nonce="n", qop="auth-int"',
        b'Digest realm="DS", nonce="n", qop=""',
    ],
)
def test_a_challenge_that_cannot_be_answered_is_not_chosen(value: bytes) -> None:
    assert answerable(digests([value])) is None


def test_the_order_of_the_server_is_kept() -> None:
    first = answerable(digests([HEADER + b", algorithm=SHA-256", HEADER]))
    assert first
    assert first.algorithm == b"SHA-256"


RFC_7616: Final = (
    b'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=%b, '
    b'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
    b'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        (b"MD5", b"8ca523f5e9506fed4657c9700eebdbec"),
        (b"SHA-256", b"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_examples_of_rfc_7616_give_their_responses(algorithm: bytes, response: bytes) -> None:
    challenge = answerable(digests([RFC_7616 % algorithm]))
    assert challenge
    answer = challenge.answer(
        username="Mufasa",
        password="Circle of Life",
        method="GET",
        target=b"/dir/index.html",
        cnonce=b"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    )
    assert b'response="' + response + b'"' in answer


@pytest.mark.parametrize(
    "algorithm",
    [
        *("", "MD5", "md5", "MD5-sess", "SHA", "SHA-SESS"),
        *("SHA-256", "SHA-256-sess", "SHA-512", "SHA-512-SESS"),
    ],
)
@pytest.mark.parametrize("qop", ["", ', qop="auth"', ', qop="auth,auth-int"'])
def test_a_plain_challenge_is_answered_to_the_letter_as_httpx_does(
    algorithm: str, qop: str
) -> None:
    if "sess" in algorithm.lower() and not qop:
        return
    header = f'Digest realm="Santier", nonce="a+b/c=", opaque="o"{qop}'
    header += f", algorithm={algorithm}" if algorithm else ""
    request = httpx.Request("PUT", "http://terminal/ISAPI/x y?format=json")
    flow = httpx.DigestAuth("ștefan", "parolă").auth_flow(request)
    next(flow)
    flow.send(httpx.Response(401, headers={"WWW-Authenticate": header}, request=request))
    expected = request.headers["Authorization"].encode()
    cnonce = re.search(rb'cnonce="(\w+)"', expected)
    challenge = answerable(digests([header.encode()]))
    assert challenge
    answer = challenge.answer(
        username="ștefan",
        password="parolă",
        method="PUT",
        target=request.url.raw_path,
        cnonce=cnonce[1] if cnonce else b"",
    )
    assert answer == expected


QUOTED = st.binary(max_size=20)


def quoted(value: bytes) -> bytes:
    return b'"' + re.sub(rb'(["\\])', rb"\\\1", value) + b'"'


@given(QUOTED, QUOTED, QUOTED)
def test_a_quoted_value_goes_back_as_it_was_meant(
    realm: bytes, nonce: bytes, opaque: bytes
) -> None:
    written = b", ".join(
        [b"Digest realm=" + quoted(realm), b"nonce=" + quoted(nonce), b"opaque=" + quoted(opaque)]
    )
    challenge = answerable(digests([written]))
    assert challenge
    answer = challenge.answer(
        username='a"b\\', password="x", method="GET", target=b"/", cnonce=b"c"
    )
    [said] = digests([answer])
    assert (said[b"realm"], said[b"nonce"], said[b"username"]) == (realm, nonce, b'a"b\\')
    assert said.get(b"opaque", b"") == opaque


PIECES = st.sampled_from(
    [
        *(b"Digest", b"Basic", b" ", b",", b"=", b'"', b"\\", b"\t", b";", b"\xc8\x98"),
        *(b"realm", b"nonce", b"qop", b"auth", b"algorithm", b"MD5-sess", b"stale", b"true"),
        *(b'realm="x"', b'nonce="y"'),
    ]
)


@settings(deadline=None, max_examples=1000)
@given(st.lists(st.lists(PIECES | st.binary(max_size=5)).map(b"".join), max_size=4))
@example([b'Digest realm="abc\\'])
@example([b"Digest realm=, nonce=, opaque=, algorithm=, qop="])
def test_any_header_is_read_without_an_error(values: list[bytes]) -> None:
    challenge = answerable(digests(values))
    if challenge:
        challenge.answer(username="a", password="b", method="GET", target=b"/", cnonce=b"c")


@pytest.mark.parametrize("piece", [b'"', b"a", b" ", b",", b'\\"', b"a ", b"a=", b'"a', b"Digest "])
def test_a_very_long_header_is_read_quickly(piece: bytes) -> None:
    digests([b"Digest realm=" + piece * 100_000])
