"""Portraits stay recognisable after all changes that a receiver makes to a photo, and no others."""

import hashlib
import io

import pytest
from PIL import Image

from receiver.sandbox.portraits import likeness, portrait
from tests.support.pictures import changed, lying_on_its_side, plain


def test_a_portrait_is_a_baseline_jpeg_of_a_photos_size() -> None:
    picture = portrait("ion.jpg")
    with Image.open(io.BytesIO(picture)) as opened:
        assert (opened.format, opened.size, opened.mode) == ("JPEG", (480, 640), "RGB")
        assert "progressive" not in opened.info
    assert 10_000 < len(picture) < 30_000


def test_a_portrait_depends_on_its_name_only() -> None:
    assert portrait("ion.jpg") == portrait.__wrapped__("ion.jpg")
    assert portrait("ion.jpg") != portrait("ana.jpg")


def test_a_likeness_is_read_back_from_the_picture() -> None:
    for n in range(50):
        name = f"{n}.jpg"
        assert likeness(portrait(name)) == hashlib.sha256(name.encode()).hexdigest()[:12]


@pytest.mark.parametrize("size", [(97, 131), (300, 400), (900, 1200), (480, 480)])
@pytest.mark.parametrize("quality", [20, 95])
def test_a_likeness_survives_resizing_and_compression(size: tuple[int, int], quality: int) -> None:
    picture = portrait("ion.jpg")
    copy = changed(picture, size=size, quality=quality, progressive=True)
    assert copy != picture
    assert likeness(copy) == likeness(picture)


def test_a_likeness_survives_another_format() -> None:
    assert likeness(changed(portrait("ion.jpg"), "PNG")) == likeness(portrait("ion.jpg"))


def test_a_likeness_obeys_exif_unless_it_is_read_as_it_lies() -> None:
    upright = portrait("ion.jpg")
    on_its_side = lying_on_its_side(upright)
    assert likeness(on_its_side) == likeness(upright)
    assert likeness(on_its_side, obeys_exif=False) != likeness(upright)


@pytest.mark.parametrize("junk", [b"", b"\xff\xd8picture", portrait("ion.jpg")[:1000]])
def test_a_file_that_is_no_picture_is_like_nothing_but_itself(junk: bytes) -> None:
    assert likeness(junk) == f"sha256:{hashlib.sha256(junk).hexdigest()}"


def test_a_plain_picture_is_like_no_portrait() -> None:
    assert likeness(plain()) != likeness(portrait("ion.jpg"))
