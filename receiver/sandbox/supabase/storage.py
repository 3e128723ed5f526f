"""The storage of the sandbox: one bucket of photos, in memory.

Supabase Storage refuses with HTTP 400 and says the real status in the body; so does this. Source:
github.com/supabase/storage, `src/internal/errors`.
"""

import hashlib
import mimetypes
import time
from collections.abc import Callable
from email.utils import formatdate

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from receiver.sandbox.multipart import FORM, FormMalformed, read_form
from receiver.sandbox.supabase.auth import AccessDenied, Caller
from receiver.sandbox.supabase.bodies import read_body

BUCKET = "pontaj-photos"


class Files(dict[str, bytes]):
    """Files by name; `changed_at` says when each was last written."""

    def __init__(self) -> None:
        super().__init__()
        self.changed_at: dict[str, float] = {}

    def __setitem__(self, name: str, body: bytes) -> None:
        self.changed_at[name] = time.time()
        super().__setitem__(name, body)


class Storage:
    """The bucket `pontaj-photos`; `photos` maps a file's name to its bytes.

    With `public` off it is an installation that made the bucket private.
    """

    def __init__(self, identify: Callable[[Request], Caller]) -> None:
        self._identify = identify
        self.photos = Files()
        self.public = True

    async def public_object(self, request: Request) -> Response:
        """Serve a file of a public bucket to anyone."""
        if request.path_params["bucket"] != BUCKET or not self.public:
            return _refused(404, "Bucket not found", "Bucket not found")
        return self._file(request, request.path_params["file"])

    async def private_object(self, request: Request) -> Response:
        """Serve a file to the service key only, whether the bucket is public or not."""
        if self._role(request) != "service_role":
            return _refused(404, "not_found", "Object not found")
        return self._file(
            request, request.path_params["file"], bucket=request.path_params["bucket"]
        )

    async def upload(self, request: Request) -> Response:
        """Take a file from the service key or a signed-in user, raw or as a form's only file."""
        name = request.path_params["file"]
        if self._role(request) not in {"service_role", "authenticated"}:
            return _refused(403, "Unauthorized", "new row violates row-level security policy")
        if request.path_params["bucket"] != BUCKET:
            return _refused(404, "Bucket not found", "Bucket not found")
        overwrite = request.method == "PUT" or request.headers.get("x-upsert") == "true"
        if name in self.photos and not overwrite:
            return _refused(409, "Duplicate", "The resource already exists")
        body = await read_body(request)
        content_type = request.headers.get("content-type", "")
        if content_type.startswith(FORM):
            body = _form_file(content_type, body)
        self.photos[name] = body
        return JSONResponse({"Key": f"{BUCKET}/{name}", "Id": name})

    def _role(self, request: Request) -> str | None:
        try:
            return self._identify(request).role
        except AccessDenied:
            return None

    def _file(self, request: Request, name: str, *, bucket: str = BUCKET) -> Response:
        photo = self.photos.get(name) if bucket == BUCKET else None
        if photo is None:
            return _refused(404, "not_found", "Object not found")
        etag = f'"{hashlib.sha256(photo).hexdigest()[:32]}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"ETag": etag})
        media_type, _ = mimetypes.guess_type(name)
        media_type = media_type or "application/octet-stream"
        changed_at = formatdate(self.photos.changed_at.get(name, 0.0), usegmt=True)
        headers = {"ETag": etag, "Last-Modified": changed_at}
        return Response(photo, media_type=media_type, headers=headers)


def _refused(status: int, error: str, message: str) -> Response:
    body = {"statusCode": str(status), "error": error, "message": message}
    return JSONResponse(body, status_code=400)


def _form_file(content_type: str, body: bytes) -> bytes:
    """Return the file of a form, or nothing where it has none."""
    try:
        parts = read_form(content_type, body)
    except FormMalformed:
        return b""
    return next((part.content for part in parts if part.filename is not None), b"")
