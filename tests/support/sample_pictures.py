"""Pictures that HR's people upload, and pictures that nobody should upload."""

import random
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import Image

ORIENTATION = 0x0112
QUARTER_TURN = 6
"""Exif's orientation of a phone held upright."""
BOMB = 50_000


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Grain, which no format can make small."""
    raw = random.Random(width).randbytes(width * height * len(mode))
    return Image.frombytes(mode, (width, height), raw)


def picture(width: int = 120, height: int = 96, mode: str = "RGB") -> Image.Image:
    """A picture with soft shapes, as photos have."""
    return noise(8, 8).resize((width, height)).convert(mode)


def turned(orientation: int = QUARTER_TURN) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def photo_of_24_mb() -> bytes:
    return saved(noise(4000, 3000), "JPEG", quality=92, subsampling=0, exif=turned())


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    crc = zlib.crc32(kind + data)
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", crc)


def png_bomb(side: int = BOMB) -> bytes:
    """A valid PNG of one bit a pixel: 2.5 billion black pixels in 300 kB."""
    packer = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND")


def jpeg_bomb(**options: Any) -> bytes:
    """A JPEG whose frame says that it is of 50,000 by 50,000."""
    jpeg = saved(picture(), "JPEG", **options)
    return jpeg.replace(struct.pack(">HH", 96, 120), struct.pack(">HH", BOMB, BOMB), 1)


BOMBS: dict[str, Callable[[], bytes]] = {
    "png": png_bomb,
    "jpeg": jpeg_bomb,
    "progressive jpeg": lambda: jpeg_bomb(progressive=True),
}

KINDS: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: saved(picture(), "JPEG", exif=turned()),
    "progressive": lambda: saved(picture(), "JPEG", progressive=True),
    "grey jpeg": lambda: saved(picture(mode="L"), "JPEG"),
    "cmyk": lambda: saved(picture(mode="CMYK"), "JPEG"),
    "mpo": lambda: saved(picture(), "MPO", save_all=True, append_images=[picture(mode="L")]),
    "png": lambda: saved(picture(), "PNG", exif=turned()),
    "rgba": lambda: saved(picture(mode="RGBA"), "PNG"),
    "la": lambda: saved(picture(mode="LA"), "PNG"),
    "l": lambda: saved(picture(mode="L"), "PNG", transparency=3),
    "p": lambda: saved(picture(mode="P"), "PNG", transparency=bytes([0, 9, 200])),
    "1": lambda: saved(picture(mode="1"), "PNG", transparency=1),
    "i16": lambda: saved(picture(mode="I").convert("I;16"), "PNG"),
    "webp": lambda: saved(picture(), "WEBP", exif=turned().tobytes()),
    "lossless webp": lambda: saved(picture(mode="RGBA"), "WEBP", lossless=True),
    "moving webp": lambda: saved(
        picture(), "WEBP", save_all=True, append_images=[picture(mode="L")]
    ),
}
