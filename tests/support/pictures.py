"""Pictures for tests: portraits changed as phones, receivers and terminals change photos."""

import io
from typing import Any

from PIL import Image

ORIENTATION = 0x112
"""The EXIF tag that says how a picture lies."""


def changed(
    picture: bytes, form: str = "JPEG", *, size: tuple[int, int] | None = None, **options: Any
) -> bytes:
    """Return the picture in another form, size or quality; `options` are those of Pillow."""
    with Image.open(io.BytesIO(picture)) as opened:
        return saved(opened.resize(size) if size else opened, form, **options)


def lying_on_its_side(picture: bytes) -> bytes:
    """Return the picture as a phone saves it: turned, with EXIF that says how to turn it back."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    with Image.open(io.BytesIO(picture)) as opened:
        return saved(opened.transpose(Image.Transpose.ROTATE_90), exif=exif)


def plain(size: tuple[int, int] = (480, 640), **options: Any) -> bytes:
    """Return a picture of a single colour."""
    return saved(Image.new("RGB", size, "white"), **options)


def saved(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """Return the file of an image."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()
