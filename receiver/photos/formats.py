"""What a picture's file says of itself: format, size, orientation, and what decoding it will cost.

Read from the bytes alone, before any decoder runs. It hands on only the parts that a decoder needs:
Pillow unpacks metadata as soon as it opens a file (a PNG of 77 kB with packed texts takes 240 MB),
keeps each segment of a JPEG once more, and warns about what is wrong in Exif.

Sources: ITU-T T.81 annex B (JPEG), the PNG specification §5, RFC 9649 (WebP), Exif 2.32 §4.6.
Reading past a file's end raises ValueError, IndexError or struct.error; `fit` calls each a damaged
file.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from struct import unpack_from
from typing import Final

from receiver.core.errors import PhotoUnusable

MAX_PARTS: Final = 200_000
"""Segments or chunks of a file; 30 MB of the smallest would keep a core busy for a long time."""
MAX_SCANS: Final = 100
"""Passes over the whole picture that a JPEG may ask for (cameras: up to some 15). A crafted one
asks for thousands, which takes hours (libjpeg-turbo, "Two Issues with the JPEG Standard")."""

AS_IT_IS: Final = 1
"""Exif's orientation of a picture that need not be turned."""
RARE_JPEG: Final = "The photo is a JPEG of a rare kind; save it as an ordinary JPEG."


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """A picture that has not been decoded yet."""

    format: str
    """As Pillow names it."""
    width: int
    height: int
    orientation: int = AS_IT_IS
    """Exif's 1 to 8."""
    file: BytesIO
    bytes_per_pixel: float
    """What decoding takes for each pixel, as measured with Pillow 13."""
    copies: int
    """How often opening and decoding copy the file's bytes."""


def read(picture: bytes) -> PictureFile | None:
    """Return what the file says of itself; None for a format that is not ours."""
    if picture.startswith(b"\xff\xd8\xff"):
        return _jpeg(picture)
    if picture.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(picture)
    if picture.startswith(b"RIFF") and picture[8:12] == b"WEBP":
        return _webp(picture)
    return None


_SOF_BASELINE, _SOF_EXTENDED, _SOF_PROGRESSIVE = 0xC0, 0xC1, 0xC2
_RARE_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, *range(0xC9, 0xCC), *range(0xCD, 0xD0)}
_TABLES = {0xC4, 0xDB, 0xDD}  # DHT, DQT, DRI
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA
_ALONE = {0x00, 0x01, *range(0xD0, 0xD9)}  # markers without a length
_DECIDES_COLOURS = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}
_EXIF = 0xE1


def _jpeg(picture: bytes) -> PictureFile:
    """Read a JPEG, or the first picture of an MPO, which without its index is a JPEG."""
    file = BytesIO()
    file.write(picture[:2])
    frame, frame_body, orientation = 0, b"", 0
    kept: set[int] = set()
    for marker, start, end in _segments(picture):
        body = picture[start + 4 : end]
        if marker == _START_OF_SCAN:
            break
        if marker in _RARE_FRAMES:
            raise PhotoUnusable(RARE_JPEG)
        if marker == _EXIF and body.startswith(b"Exif\0\0"):
            orientation = orientation or _orientation(body[6:])
        elif marker in (_SOF_BASELINE, _SOF_EXTENDED, _SOF_PROGRESSIVE):
            if frame:
                raise ValueError("two frames")
            frame, frame_body = marker, body
            file.write(picture[start:end])
        elif marker in _TABLES:
            file.write(picture[start:end])
        elif marker not in kept and body.startswith(_DECIDES_COLOURS.get(marker, b"no such")):
            kept.add(marker)
            file.write(picture[start:end])
    else:
        raise ValueError("no scan")
    file.write(memoryview(picture)[start:])
    height, width, components = unpack_from(">HHB", frame_body, 1)
    # In one scan it is decoded row by row and already shrunk; in several, all stays in memory.
    in_one_scan = frame != _SOF_PROGRESSIVE and body[0] == components
    # Within scans no FF is followed by DA (B.1.1.5).
    if not in_one_scan and picture.count(b"\xff\xda", start) > MAX_SCANS:
        raise PhotoUnusable(RARE_JPEG)
    return PictureFile(
        format="JPEG",
        width=width,
        height=height,
        orientation=orientation or AS_IT_IS,
        file=file,
        bytes_per_pixel=0.0 if in_one_scan else _coefficients(frame_body, components),
        copies=1,
    )


def _segments(picture: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment up to the first scan's."""
    position, marker = 2, 0
    for _ in range(MAX_PARTS):
        # Bytes between segments are passed over, as decoders do.
        position = picture.index(b"\xff", position)
        marker = picture[position + 1]
        if marker == 0xFF:  # noqa: PLR2004 - any number of them may precede a marker (B.1.1.2)
            position += 1
            continue
        if marker in _ALONE:
            position += 2
            continue
        if marker == _END_OF_IMAGE:
            return
        end = position + 2 + int.from_bytes(picture[position + 2 : position + 4])
        yield marker, position, end
        if marker == _START_OF_SCAN:
            return
        position = max(end, position + 2)


def _coefficients(frame: bytes, components: int) -> float:
    """Return the bytes that libjpeg keeps per pixel: two for each coefficient."""
    factors = [(frame[7 + 3 * n] >> 4, frame[7 + 3 * n] & 15) for n in range(components)]
    widest, highest = max(h for h, _ in factors), max(v for _, v in factors)
    return 2 * sum(h * v for h, v in factors) / (widest * highest)


_NEEDED_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_GREY, _INDEXED, _ONE_BYTE = 0, 3, 8


def _png(picture: bytes) -> PictureFile:
    """Read a PNG; of an animated one, the picture for viewers that cannot animate."""
    file = BytesIO()
    file.write(picture[:8])
    position, orientation, headers = 8, AS_IT_IS, 0
    for _ in range(MAX_PARTS):
        length, kind = unpack_from(">I4s", picture, position)
        end = position + 12 + length
        headers += kind == b"IHDR"
        if kind in _NEEDED_CHUNKS:
            file.write(memoryview(picture)[position:end])
        elif kind == b"eXIf":
            orientation = _orientation(picture[position + 8 : end])
        if kind == b"IEND" or end >= len(picture):
            break
        position = end
    if headers != 1:
        raise ValueError("not one header")
    width, height, depth, colours = unpack_from(">IIBB", picture, 16)
    in_memory = depth // _ONE_BYTE or 1 if colours == _GREY else 1 if colours == _INDEXED else 4
    return PictureFile(
        format="PNG",
        width=width,
        height=height,
        orientation=orientation,
        file=file,
        bytes_per_pixel=in_memory,
        copies=1,
    )


def _webp(picture: bytes) -> PictureFile:
    kind = picture[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(picture[24:27], "little") + 1
        height = int.from_bytes(picture[27:30], "little") + 1
    elif kind == b"VP8L":
        [bits] = unpack_from("<I", picture, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in unpack_from("<HH", picture, 26))
    orientation, position = AS_IT_IS, 12
    for _ in range(MAX_PARTS):
        if position + 8 > len(picture):
            break
        chunk, length = unpack_from("<4sI", picture, position)
        if chunk == b"EXIF":
            exif = picture[position + 8 : position + 8 + length]
            orientation = _orientation(exif.removeprefix(b"Exif\0\0"))
        position += 8 + length + length % 2
    return PictureFile(
        format="WEBP",
        width=width,
        height=height,
        orientation=orientation,
        file=BytesIO(picture),
        bytes_per_pixel=16,
        copies=4,
    )


def _orientation(exif: bytes) -> int:
    """Return the orientation that Exif gives (tag 274), or that of a picture as it is."""
    order = "<" if exif.startswith(b"II") else ">"
    try:
        [directory] = unpack_from(f"{order}I", exif, 4)
        [entries] = unpack_from(f"{order}H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, value = unpack_from(f"{order}H6xH", exif, entry)
            if tag == 274:  # noqa: PLR2004 - Exif 2.32 §4.6.4
                return value if 1 <= value <= 8 else AS_IT_IS  # noqa: PLR2004
    except (ValueError, IndexError, struct.error):
        pass
    return AS_IT_IS
