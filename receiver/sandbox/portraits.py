"""Faces of no one: JPEGs that say whose they are, even resized and compressed again.

A receiver may change a photo before a terminal gets it, so a referee cannot compare bytes.
Each portrait is a grid of light and dark blocks, bits of the SHA-256 of its name, and `likeness`
reads them back.
"""

import functools
import hashlib
import io
import itertools
import struct

from PIL import Image, ImageDraw, ImageOps

WIDTH, HEIGHT = 480, 640
_COLUMNS, _ROWS = 6, 8
_BLOCK = 70
_LEFT, _TOP = (WIDTH - _COLUMNS * _BLOCK) // 2, (HEIGHT - _ROWS * _BLOCK) // 2
_DARK, _BORDER, _LIGHT = 70, 128, 186
_GRAIN = 0.04
_QUALITY = 85
_SHRINK = 10  # a block becomes 7 x 7 pixels, of which the middle one is read

UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow raises for bytes that are no picture, or a cut one."""


@functools.lru_cache(maxsize=512)
def portrait(name: str) -> bytes:
    """Return a baseline JPEG of 480 x 640, some 20 KB, that differs from name to name."""
    picture = Image.new("L", (WIDTH, HEIGHT), _BORDER)
    draw = ImageDraw.Draw(picture)
    cells = itertools.product(range(_ROWS), range(_COLUMNS))
    for (row, column), light in zip(cells, _bits(name), strict=True):
        x, y = _LEFT + column * _BLOCK, _TOP + row * _BLOCK
        shade = _LIGHT if light else _DARK
        draw.rectangle((x, y, x + _BLOCK - 1, y + _BLOCK - 1), fill=shade)
    file = io.BytesIO()
    grained = Image.blend(picture, _grain(name), _GRAIN).convert("RGB")
    grained.save(file, "JPEG", quality=_QUALITY, subsampling="4:2:0")
    return file.getvalue()


@functools.lru_cache(maxsize=512)
def likeness(picture: bytes, *, obeys_exif: bool = True) -> str:
    """Return whose portrait a picture is: 12 hex digits, the same for every copy of it.

    Without `obeys_exif` the picture is read as it lies, which is how a terminal sees it
    (terminals/README.md, Limits). Bytes that Pillow cannot read are like nothing but themselves.
    """
    size = (WIDTH // _SHRINK, HEIGHT // _SHRINK)
    try:
        with Image.open(io.BytesIO(picture)) as opened:
            opened.draft("L", (WIDTH // 4, HEIGHT // 4))  # faster for a large photo
            upright = ImageOps.exif_transpose(opened) if obeys_exif else opened
            pixels = upright.convert("L").resize(size, Image.Resampling.BOX).tobytes()
    except UNREADABLE:
        return f"sha256:{hashlib.sha256(picture).hexdigest()}"
    bits = 0
    for row, column in itertools.product(range(_ROWS), range(_COLUMNS)):
        x = (_LEFT + column * _BLOCK + _BLOCK // 2) // _SHRINK
        y = (_TOP + row * _BLOCK + _BLOCK // 2) // _SHRINK
        bits = bits << 1 | (pixels[y * size[0] + x] > _BORDER)
    return f"{bits:012x}"


def _bits(name: str) -> list[bool]:
    count = _COLUMNS * _ROWS
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()) >> (256 - count)
    return [bool(number >> shift & 1) for shift in reversed(range(count))]


def _grain(name: str) -> Image.Image:
    """Return noise, so that the picture is about as long as a photo of its size."""
    size = (WIDTH // 4, HEIGHT // 4)
    noise = hashlib.shake_256(name.encode()).digest(size[0] * size[1])
    return Image.frombytes("L", size, noise).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
