"""Fetches a photo from where that is allowed, and from nowhere else, within its limits.

A photo's URL comes out of a table that many may write, so it is fetched only from the project's own
storage and from the hosts of PHOTO_HOSTS, whatever redirects say. Foreign exceptions end here, and
stay neither as cause nor as context: httpx's texts and requests contain the URL and the key.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from io import BytesIO
from typing import Final
from urllib.parse import unquote

import httpx

from receiver.core.errors import PhotoNotFetched, PhotoUnusable

MAX_BYTES: Final = 30_000_000
MAX_HOPS: Final = 3
TOTAL_TIMEOUT_S: Final = 20.0
"""For one photo, redirects and the second request included."""
LONGEST_URL: Final = 4096
_PERHAPS_PRIVATE: Final = (400, 401, 403, 404)
"""What storage answers where a file is not public (400 with the status in the body)."""
_PORTS: Final = {"http": 80, "https": 443}
_PUBLIC: Final = "object/public/"
_REQUEST_FAILS: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    httpx.CookieConflict,
    OSError,
    ValueError,
)
"""What httpx raises at a URL, a server or a line that is not as it should be."""


def http_client() -> httpx.AsyncClient:
    """Return the HTTP client for photos; the caller closes it. It asks for nothing packed."""
    return httpx.AsyncClient(
        trust_env=False,
        timeout=10.0,
        # JPEG first: a host that converts pictures would rather send WebP.
        headers={"Accept": "image/jpeg, image/*;q=0.8", "Accept-Encoding": "identity"},
        limits=httpx.Limits(max_connections=4, max_keepalive_connections=2),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


class PhotoFetcher:
    """Fetches photos for this project."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        supabase_url: str,
        service_role_key: str,
        allowed_hosts: frozenset[str],
    ) -> None:
        self._http = http
        self._storage = httpx.URL(f"{supabase_url}/storage/v1/")
        self._key = {"apikey": service_role_key, "Authorization": f"Bearer {service_role_key}"}
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)

    async def fetch(self, url: str) -> bytes:
        """Return the file at a URL, of 30 MB at most.

        Raises PhotoUnusable where it must not be fetched or cannot be used, PhotoNotFetched where
        it is worth asking again.
        """
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT_S):
                return await self._fetch(url)
        except (TimeoutError, httpx.TimeoutException):
            why = "it did not arrive in time"
        except _REQUEST_FAILS as exc:
            why = f"the connection failed ({type(exc).__name__})"
        raise PhotoNotFetched(f"The photo cannot be fetched: {why}.")

    async def seen(self, url: str, known: str | None) -> tuple[str | None, datetime | None]:
        """Return the ETag of a photo in the project's own storage, and when it was last changed.

        The ETag is `known` where that still holds. None where the photo lies elsewhere, or storage
        does not say. Raises PhotoNotFetched and PhotoUnusable as `fetch` does.
        """
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT_S):
                return await self._seen(url, known)
        except _REQUEST_FAILS as exc:  # TimeoutError is an OSError
            raise PhotoNotFetched(
                f"Storage did not say which photo it has ({type(exc).__name__})."
            ) from None

    async def _seen(self, text: str, known: str | None) -> tuple[str | None, datetime | None]:
        url = self._allowed(text)
        if not self._is_ours(url):
            return None, None
        condition = {"If-None-Match": known} if known else {}
        response = await self._head(url, condition)
        if response.status_code in _PERHAPS_PRIVATE and (private := self._private(url)):
            response = await self._head(private, {**condition, **self._key})
        if response.status_code == httpx.codes.NOT_MODIFIED:
            return known, None
        if response.status_code != httpx.codes.OK:
            raise PhotoNotFetched(f"Storage answered HTTP {response.status_code}.")
        return response.headers.get("ETag") or None, _time(response.headers.get("Last-Modified"))

    async def _head(self, url: httpx.URL, headers: Mapping[str, str]) -> httpx.Response:
        request = self._http.build_request("HEAD", url, headers=headers)
        return await self._http.send(request, auth=None, follow_redirects=False)

    async def _fetch(self, text: str) -> bytes:
        url = self._allowed(text)
        status, picture = await self._follow(url, {})
        if status in _PERHAPS_PRIVATE and (private := self._private(url)) is not None:
            status, picture = await self._follow(private, self._key)
        if status != httpx.codes.OK:
            whom = "storage" if self._is_ours(url) else "its host"
            raise PhotoNotFetched(f"The photo cannot be fetched: {whom} answered HTTP {status}.")
        return picture

    async def _follow(self, url: httpx.URL, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Return status and body after all redirects; only the first request has `headers`."""
        for _ in range(1 + MAX_HOPS):
            request = self._http.build_request("GET", url, headers=headers)
            response = await self._http.send(
                request, auth=None, follow_redirects=False, stream=True
            )
            try:
                if not response.has_redirect_location:
                    return response.status_code, await _body(response)
                url, headers = self._allowed(response.headers["Location"], url), {}
            finally:
                await response.aclose()
        raise PhotoUnusable("The photo's URL redirects too often.")

    def _allowed(self, text: str, base: httpx.URL | None = None) -> httpx.URL:
        """Return a URL that may be fetched, as the client itself parses it."""
        try:
            url = base.join(text) if base else httpx.URL(text)
            plain = url.scheme in _PORTS and bool(url.host) and not url.userinfo
            plain = plain and len(str(url)) <= LONGEST_URL
            allowed = plain and (self._is_ours(url) or self._is_allowed_host(url))
        except (httpx.InvalidURL, ValueError):
            plain = allowed = False
        if not plain:
            raise PhotoUnusable("The photo's URL is not a plain http(s) URL.")
        if not allowed:
            raise PhotoUnusable(
                "The photo lies on a host that the receiver may not fetch from (PHOTO_HOSTS)."
            )
        return url

    def _is_ours(self, url: httpx.URL) -> bool:
        """Return whether a URL lies in the project's storage."""
        if _origin(url) != _origin(self._storage):
            return False
        if not url.raw_path.startswith(self._storage.raw_path):
            return False
        # A server that decodes the path once more must not be led out of storage by it.
        path = url.path
        while (decoded := unquote(path)) != path:
            path = decoded
        return not {".", ".."} & set(path.replace("\\", "/").split("/"))

    def _is_allowed_host(self, url: httpx.URL) -> bool:
        _, host, port = _origin(url)
        if f"{host}:{port}" in self._allowed_hosts:
            return True
        return host in self._allowed_hosts and port == _PORTS[url.scheme]

    def _private(self, url: httpx.URL) -> httpx.URL | None:
        """Return where the service key gets a file that is not public after all."""
        public = self._storage.raw_path + _PUBLIC.encode()
        if not self._is_ours(url) or not url.raw_path.startswith(public):
            return None
        path = self._storage.raw_path + b"object/" + url.raw_path.removeprefix(public)
        return url.copy_with(raw_path=path)


def _time(text: str | None) -> datetime | None:
    try:
        time = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    host = url.raw_host.decode("ascii").lower()
    host = f"[{host}]" if ":" in host else host
    return url.scheme, host, _PORTS.get(url.scheme) if url.port is None else url.port


async def _body(response: httpx.Response) -> bytes:
    """Return the body of a 200 as it is sent, up to MAX_BYTES; nothing of any other answer."""
    if response.status_code != httpx.codes.OK:
        return b""
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise PhotoUnusable("The photo's host sends it compressed, which it was not asked for.")
    too_large = PhotoUnusable(f"The photo is larger than {MAX_BYTES // 1_000_000} MB.")
    if int(response.headers.get("Content-Length", 0)) > MAX_BYTES:
        raise too_large
    body = BytesIO()
    async for chunk in response.aiter_raw():
        body.write(chunk)
        if body.tell() > MAX_BYTES:
            raise too_large
    return body.getvalue()
