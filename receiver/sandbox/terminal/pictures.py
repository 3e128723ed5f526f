"""Whether a simulated terminal can make a face out of a picture (terminals/README.md, Limits).

It recognises no faces: a picture of a single colour has none, all others have one.
"""

import io

from PIL import Image, ImageStat

from receiver.sandbox.portraits import UNREADABLE, likeness
from receiver.sandbox.terminal.answers import Refusal

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_PICTURE_BYTES = 200 * 1024
_SHORTEST_PICTURE_BYTES = 300
_LONGEST_SIDE_PX = 80  # at least: SK's minimum
_PIXELS = 25_000_000
_PLAIN = 4.0  # the standard deviation of 256 shades; below it a picture shows nothing


def model(picture: bytes, *, uploaded: bool) -> str:
    """Return the likeness that the terminal keeps; it ignores EXIF rotation.

    Uploads must be baseline JPEG; a picture that it fetches may be PNG too. Raises Refusal.
    """
    if not picture.startswith(_JPEG) and (uploaded or not picture.startswith(_PNG)):
        raise Refusal("picFormatError")
    if len(picture) > _PICTURE_BYTES:
        raise Refusal("picSizeExceedError")
    if len(picture) < _SHORTEST_PICTURE_BYTES:
        raise Refusal("faceDataLenShort")
    try:
        deviation = _deviation(picture)
    except UNREADABLE as exc:
        raise Refusal("picFormatError") from exc
    if deviation < _PLAIN:
        raise Refusal("PicAnalysisNoTargetError")
    return likeness(picture, obeys_exif=False)


def _deviation(picture: bytes) -> float:
    """Decode the whole picture and return how far its shades differ."""
    with Image.open(io.BytesIO(picture), formats=("JPEG", "PNG")) as opened:
        if opened.info.get("progressive"):
            raise Refusal("picFormatError")
        if opened.width * opened.height > _PIXELS:
            raise Refusal("picSizeExceedError")
        if max(opened.size) < _LONGEST_SIDE_PX:
            raise Refusal("faceLowQulity")
        return ImageStat.Stat(opened.convert("L")).stddev[0]
