"""Photos for terminals that cannot fetch them: fetched here, from where it is allowed, made fit.

A photo's URL comes out of a table that many may write, so it is fetched only from the project's own
storage and from the hosts of PHOTO_HOSTS, whatever redirects say. Foreign exceptions end here, and
leave neither as cause nor as context: httpx's texts and requests hold the URL, and the key.
"""

import asyncio
import contextlib
import ctypes
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from io import BytesIO
from typing import Final
from urllib.parse import unquote

import httpx

from receiver.core.errors import PhotoNotFetched, PhotoUnusable
from receiver.photos.fit import fit

MOST_BYTES: Final = 30_000_000
MOST_HOPS: Final = 3
TOTAL_TIMEOUT_S: Final = 20.0
"""For one photo, redirects and the second request included."""
LONGEST_URL: Final = 4096
CACHED: Final = 32
CACHED_FOR_S: Final = 10.0
"""Enough for terminals in a row; a photo replaced under its old name must not wait for longer."""

_PERHAPS_PRIVATE: Final = (400, 401, 403, 404)
"""What storage answers to those who may not know (400 with the status in the body)."""
_M_MMAP_THRESHOLD: Final = -3  # glibc's malloc.h
_PORTS: Final = {"http": 80, "https": 443}
_PUBLIC: Final = "object/public/"


def http_client() -> httpx.AsyncClient:
    """Return the HTTP client for photos; the caller closes it. It unpacks nothing on its way."""
    return httpx.AsyncClient(
        trust_env=False,
        timeout=10.0,
        # JPEG first: a host that makes the picture itself would rather send WebP.
        headers={"Accept": "image/jpeg, image/*;q=0.8", "Accept-Encoding": "identity"},
        limits=httpx.Limits(max_connections=4, max_keepalive_connections=2),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


Fault = PhotoUnusable | PhotoNotFetched


@dataclass
class _Flight:
    """A photo on its way, and how many wait for it."""

    task: asyncio.Task[bytes | Fault]
    waiting: int = 0


class Photos:
    """Fetches photos and makes them fit, one at a time, and keeps the last ones for a moment."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        supabase_url: str,
        service_role_key: str,
        allowed_hosts: frozenset[str],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._storage = httpx.URL(f"{supabase_url}/storage/v1/")
        self._key = {"apikey": service_role_key, "Authorization": f"Bearer {service_role_key}"}
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._monotonic = monotonic
        self._one_at_a_time = asyncio.Semaphore(1)
        """Only one file, which may be of 30 MB, and its pixels are in memory."""
        self._flights: dict[str, _Flight] = {}
        self._fitted: dict[str, tuple[float, bytes]] = {}
        _give_memory_back()

    async def jpeg(self, url: str) -> bytes:
        """Return the photo as terminals take it.

        Raises PhotoUnusable where it cannot be used as it is, PhotoNotFetched where it is worth
        asking again. Whoever asks while it is on its way gets the same photo, or the same error.
        """
        if (fitted := self._cached(url)) is not None:
            return fitted
        flight = self._flights.get(url)
        if flight is None:
            flight = _Flight(asyncio.create_task(self._fetch_and_fit(url), name="photo"))
            self._flights[url] = flight
        flight.waiting += 1
        try:
            fitted_or_fault = await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting:  # it is over, or nobody wants it any more
                flight.task.cancel()
                del self._flights[url]
        if isinstance(fitted_or_fault, bytes):
            return fitted_or_fault
        raise type(fitted_or_fault)(fitted_or_fault.message)

    def _cached(self, url: str) -> bytes | None:
        until, fitted = self._fitted.get(url, (0.0, None))
        return fitted if self._monotonic() < until else None

    async def _fetch_and_fit(self, url: str) -> bytes | Fault:
        """Return the fitted photo, or what is wrong; raised, that would keep the file in memory.

        A traceback holds the variables of all that it went through, and a task its traceback.
        """
        async with self._one_at_a_time:
            try:
                fitted = await _fitted_in_a_thread(await self._fetched(url))
            except (PhotoUnusable, PhotoNotFetched) as fault:
                return fault.with_traceback(None)
        self._fitted.pop(url, None)
        self._fitted[url] = (self._monotonic() + CACHED_FOR_S, fitted)
        while len(self._fitted) > CACHED:
            del self._fitted[next(iter(self._fitted))]
        return fitted

    async def _fetched(self, url: str) -> bytes:
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT_S):
                return await self._fetch(url)
        except (TimeoutError, httpx.TimeoutException):
            why = "it did not arrive in time"
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            httpx.StreamError,
            httpx.CookieConflict,
            OSError,
            ValueError,
        ) as exc:
            why = f"the connection failed ({type(exc).__name__})"
        raise PhotoNotFetched(f"The photo cannot be fetched: {why}.")

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
        """Return status and body at the end of all redirects; headers are for the first alone."""
        for _ in range(1 + MOST_HOPS):
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
        # Whoever decodes the path once more than we do must not be led out of storage by it.
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
        """Return where the service key gets what is not public after all."""
        public = self._storage.raw_path + _PUBLIC.encode()
        if not self._is_ours(url) or not url.raw_path.startswith(public):
            return None
        path = self._storage.raw_path + b"object/" + url.raw_path.removeprefix(public)
        return url.copy_with(raw_path=path)


async def _fitted_in_a_thread(picture: bytes) -> bytes:
    """Fit a picture; even if cancelled, return only when its memory is free again."""
    fitting = asyncio.create_task(asyncio.to_thread(fit, picture))
    fitting.add_done_callback(lambda done: done.cancelled() or done.exception())  # is looked at
    del picture
    try:
        await asyncio.wait({fitting})  # which leaves it alone when cancelled itself
    finally:
        await asyncio.wait({fitting})  # a thread cannot be stopped
    return fitting.result()


def _give_memory_back() -> None:
    """Have glibc return large blocks to the system as soon as they are freed.

    Otherwise it raises what counts as large to 32 MB as it goes (mallopt(3), M_MMAP_THRESHOLD), and
    each thread that ever fitted a picture keeps up to 64 MB: 185 MB at rest instead of 77.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # where there is no glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    host = url.raw_host.decode("ascii").lower()
    host = f"[{host}]" if ":" in host else host
    return url.scheme, host, _PORTS.get(url.scheme) if url.port is None else url.port


async def _body(response: httpx.Response) -> bytes:
    """Return the body of a 200 as it is sent, up to MOST_BYTES; nothing of another's."""
    if response.status_code != httpx.codes.OK:
        return b""
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise PhotoUnusable("The photo's host sends it compressed, which it was not asked for.")
    too_large = PhotoUnusable(f"The photo is larger than {MOST_BYTES // 1_000_000} MB.")
    if int(response.headers.get("Content-Length", 0)) > MOST_BYTES:
        raise too_large
    body = BytesIO()
    async for chunk in response.aiter_raw():
        body.write(chunk)
        if body.tell() > MOST_BYTES:
            raise too_large
    return body.getvalue()
