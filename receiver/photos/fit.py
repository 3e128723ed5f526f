"""A picture made fit for terminals: bytes in, a small baseline JPEG out, or PhotoUnusable.

Pure, and frugal: whatever the file is, the receiver stays under 200 MB. It runs for up to a second
or two, so the caller runs it in a thread, and one at a time.
"""

from io import BytesIO
from math import ceil
from typing import Final

from PIL import Image

from receiver.core.errors import PhotoUnusable
from receiver.photos.formats import AS_IT_IS, PictureFile, read

LONGEST_SIDE: Final = 900
SHORTEST_LONGEST_SIDE: Final = 600
"""Faces on pictures of under some 400 px cannot be modelled (CH); 600 leaves a margin."""
MIN_SIDE: Final = 80
"""The least that a terminal says it takes (SK)."""
MAX_BYTES: Final = 190_000
"""Terminals take 200 KB (CH, SK)."""
QUALITIES: Final = (90, 82, 72, 60, 45)

MAX_PIXELS: Final = 80_000_000
"""Beyond any camera's, and below what Pillow warns of. Only a JPEG in one scan gets near it."""
MAX_MEMORY: Final = 95_000_000
"""The file, its copies and its pixels, in bytes; see `PictureFile` for what is counted. With the
receiver itself (70 MB) and what shrinking and encoding take (20 MB) it stays below 200 MB."""

_STRIP_PIXELS = 400_000
_TURNS = {
    # Exif 2.32 §4.6.4, by what brings the picture upright.
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def fit(picture: bytes) -> bytes:
    """Return the picture as a terminal takes it, or raise PhotoUnusable saying why there is none.

    A baseline JPEG with 4:2:0, upright, on white, without metadata, its longest side 600 to 900 px
    and at most 190 kB.
    """
    try:
        return _fit(picture)
    except PhotoUnusable:
        raise
    except MemoryError:
        fault = "The photo needs more memory than there is."
    except Exception:  # noqa: BLE001 - what decoders raise for damaged files is not documented
        fault = "The photo is damaged: it cannot be read to its end."
    # Out here, so that the exception does not keep the decoder's, which keeps the pixels.
    raise PhotoUnusable(fault)


def _fit(picture: bytes) -> bytes:
    described = read(picture)
    if described is None:
        raise PhotoUnusable(_what_it_is_instead(picture))
    _check(described, len(picture))
    with Image.open(described.file, formats=(described.format,)) as image:
        if image.size != (described.width, described.height):
            raise ValueError("Pillow reads another size")
        # A JPEG is decoded at a half, a quarter or an eighth, but no smaller than it will be.
        scale = LONGEST_SIDE / max(image.size)
        image.draft(None, (ceil(image.width * scale), ceil(image.height * scale)))
        shrunk = _shrunk(image)
    if described.orientation != AS_IT_IS:
        shrunk = shrunk.transpose(_TURNS[described.orientation])
    return _encoded(shrunk)


def _check(described: PictureFile, length: int) -> None:
    """Raise PhotoUnusable for a picture too small for a face, or too large for our memory."""
    width, height = described.width, described.height
    size = f"{width} by {height} pixels"
    if min(width, height) < MIN_SIDE:
        raise PhotoUnusable(f"The photo is too small: {size}; take one of 600 by 600 or more.")
    if min(width, height) * LONGEST_SIDE < MIN_SIDE * max(width, height):
        raise PhotoUnusable(f"The photo is too narrow: {size}.")
    memory = (1 + described.copies) * length + described.bytes_per_pixel * width * height
    if width * height > MAX_PIXELS or memory > MAX_MEMORY:
        raise PhotoUnusable(
            f"The photo has too many pixels for a {described.format} file: {size}; "
            "save it smaller, as an ordinary JPEG."
        )


def _shrunk(image: Image.Image) -> Image.Image:
    """Return the picture in RGB, by a whole factor down to some 900 to 1800 px.

    Strip by strip, because a change of colours costs a second picture of four bytes a pixel.
    """
    image.load()
    factor = max(1, max(image.size) // LONGEST_SIDE)
    shrunk = Image.new("RGB", (ceil(image.width / factor), ceil(image.height / factor)))
    rows = factor * max(1, _STRIP_PIXELS // (image.width * factor))
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        strip = _in_rgb(image.crop((0, top, image.width, bottom)))
        shrunk.paste(strip.reduce(factor), (0, top // factor))
    return shrunk


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I;16":  # Pillow would cut the values at 255
        return image.point(lambda value: value / 256).convert("L").convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    opaque = Image.new("RGB", image.size, "white")
    see_through = image.convert("RGBA")
    opaque.paste(see_through, mask=see_through)
    return opaque


def _encoded(image: Image.Image) -> bytes:
    """Return a JPEG of the best quality that fits, made smaller until one fits."""
    side = float(min(max(*image.size, SHORTEST_LONGEST_SIDE), LONGEST_SIDE))
    while True:
        scale = side / max(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        resized = image.resize(size, Image.Resampling.LANCZOS)
        for quality in QUALITIES:
            file = BytesIO()
            resized.save(file, "JPEG", quality=quality, subsampling="4:2:0", optimize=True)
            if file.tell() <= MAX_BYTES:
                return file.getvalue()
        side *= 0.8


_INSTEAD = (
    (
        (b"<!doctype html", b"<html", b"<head", b"<body", b"<script"),
        "The photo is not a picture: it is a web page.",
    ),
    ((b"%pdf",), "The photo is not a picture: it is a PDF document."),
    ((b"{", b"[", b"<"), "The photo is not a picture: it is a text."),
)
_UNREADABLE = "The photo is of a kind that cannot be read (HEIC, AVIF or TIFF); save it as a JPEG."
_NOT_TAKEN = "The photo is a GIF or a BMP, which terminals do not take; save it as a JPEG."


def _what_it_is_instead(picture: bytes) -> str:
    if not picture:
        return "The photo is an empty file."
    if picture.startswith((b"GIF87a", b"GIF89a", b"BM")):
        return _NOT_TAKEN
    if picture[4:8] == b"ftyp" or picture.startswith((b"II*\0", b"MM\0*")):
        return _UNREADABLE
    start = picture[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for starts, words in _INSTEAD:
        if start.startswith(starts):
            return words
    return "The photo is not a picture of a known kind; save it as a JPEG."
