"""Pictures: any file that is uploaded comes out fit for a terminal, or is refused in words."""

import dataclasses
import subprocess
import sys
import textwrap
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from receiver.core.errors import DataRefused, PhotoUnusable
from receiver.photos import fit as fitting
from receiver.photos import formats
from receiver.photos.fit import MAX_BYTES, fit
from tests.support.sample_pictures import (
    BOMB,
    BOMBS,
    KINDS,
    chunk,
    jpeg_bomb,
    noise,
    photo_of_24_mb,
    picture,
    png_bomb,
    saved,
    turned,
)

MAX_RSS_MB = 200
MAX_RSS_MB_AT_REST = 120
SOURCES = {name: make() for name, make in KINDS.items()}
RED, WHITE = (255, 0, 0), (255, 255, 255)


def opened(jpeg: bytes) -> Image.Image:
    """Return the picture that was made, after checking that a terminal would take it."""
    assert len(jpeg) <= MAX_BYTES
    with Image.open(BytesIO(jpeg), formats=("JPEG",)) as image:
        image.load()
        assert image.mode == "RGB"
        assert "progressive" not in image.info
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi"}
        assert [name for name, _ in image.applist] == ["APP0"]  # type: ignore[attr-defined]
        sampling = [(h, v) for _, h, v, _ in image.layer]  # type: ignore[attr-defined]
        assert sampling == [(2, 2), (1, 1), (1, 1)]
        assert 600 <= max(image.size) <= 900
        return image


def refused(source: bytes) -> str:
    with pytest.raises(PhotoUnusable) as caught:
        fit(source)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value.message


def near(image: Image.Image, at: tuple[int, int], colour: tuple[int, ...]) -> bool:
    pixel = image.getpixel(at)
    assert isinstance(pixel, tuple)
    return all(abs(a - b) < 40 for a, b in zip(pixel, colour, strict=True))


def corners(image: Image.Image) -> list[str]:
    """Return the names of the colours in the corners, clockwise from the top left."""
    right, bottom = image.width - 20, image.height - 20
    names = {"r": RED, "g": (0, 128, 0), "b": (0, 0, 255), "w": WHITE}
    return [
        next(name for name, colour in names.items() if near(image, at, colour))
        for at in ((20, 20), (right, 20), (right, bottom), (20, bottom))
    ]


def flag() -> Image.Image:
    """A landscape with four corners: red, green, blue, white."""
    image = Image.new("RGB", (400, 300), WHITE)
    for box, colour in (
        ((0, 0, 200, 150), "red"),
        ((200, 0, 400, 150), "green"),
        ((200, 150, 400, 300), "blue"),
    ):
        image.paste(colour, box)
    return image


def test_an_unusable_photo_is_bad_data_of_one_employee() -> None:
    assert issubclass(PhotoUnusable, DataRefused)


# Pictures that fit


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_picture_fits(name: str) -> None:
    opened(fit(SOURCES[name]))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((80, 80), (600, 600)),
        ((300, 400), (450, 600)),
        ((600, 450), (600, 450)),
        ((700, 900), (700, 900)),
        ((901, 901), (900, 900)),
        ((1799, 1200), (900, 600)),
        ((2400, 1800), (900, 675)),
        ((880, 80), (880, 80)),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_longest_side_is_brought_to_600_to_900(
    kind: str, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert opened(fit(saved(picture(*size), kind))).size == expected


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        *((1, "rgbw"), (2, "grwb"), (3, "bwrg"), (4, "wbgr")),
        *((5, "rwbg"), (6, "wrgb"), (7, "bgrw"), (8, "gbwr")),
        *((0, "rgbw"), (9, "rgbw")),  # which Exif does not know
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exifs_orientation_is_applied(kind: str, orientation: int, expected: str) -> None:
    image = opened(fit(saved(flag(), kind, exif=turned(orientation).tobytes())))
    assert "".join(corners(image)) == expected
    assert image.size == ((450, 600) if orientation in (5, 6, 7, 8) else (600, 450))


def test_a_4000_by_3000_photo_of_24_mb_on_its_side_fits() -> None:
    source = photo_of_24_mb()
    assert 23e6 < len(source) < 30e6
    assert opened(fit(source)).size == (675, 900)


def test_noise_fits_too() -> None:
    opened(fit(saved(noise(900, 900), "PNG")))


def test_a_picture_that_is_too_large_at_any_quality_is_made_smaller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fitting, "MAX_BYTES", 20_000)
    jpeg = fit(saved(noise(900, 900), "PNG"))
    assert len(jpeg) <= 20_000
    with Image.open(BytesIO(jpeg)) as image:
        assert max(image.size) < 600


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_become_white(mode: str) -> None:
    if mode == "P":
        image = Image.new("P", (400, 300), 0)
        image.putpalette([0, 0, 0, *RED])
        source = saved(image, "PNG", transparency=0)
    else:
        source = saved(Image.new(mode, (400, 300), (0,) * len(mode)), "PNG")
    assert near(opened(fit(source)), (300, 200), WHITE)


def test_a_half_transparent_png_is_mixed_with_white() -> None:
    source = saved(Image.new("RGBA", (400, 300), (*RED, 128)), "PNG")
    assert near(opened(fit(source)), (300, 200), (255, 127, 127))


def test_a_cmyk_jpeg_as_adobe_inverts_it_keeps_its_colours() -> None:
    image = opened(fit(saved(flag().convert("CMYK"), "JPEG", quality=95)))
    assert "".join(corners(image)) == "rgbw"


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_the_first_frame_of_a_moving_picture_is_taken(kind: str) -> None:
    second = Image.new("RGB", (400, 300), "black")
    image = opened(fit(saved(flag(), kind, save_all=True, append_images=[second], duration=50)))
    assert "".join(corners(image)) == "rgbw"


def test_the_first_picture_of_an_mpo_is_taken() -> None:
    second = Image.new("RGB", (400, 300), "black")
    source = saved(flag(), "MPO", save_all=True, append_images=[second])
    assert "".join(corners(opened(fit(source)))) == "rgbw"


@pytest.mark.parametrize("value", [0, 0x4000, 0x8000, 0xFFFF])
def test_sixteen_bits_of_grey_become_eight(value: int) -> None:
    source = saved(Image.new("I;16", (100, 100), value), "PNG")
    assert near(opened(fit(source)), (300, 300), (value >> 8,) * 3)


# Refused files


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"", "The photo is an empty file."),
        (b"<!DOCTYPE html><html>", "The photo is not a picture: it is a web page."),
        (b"\xef\xbb\xbf\n <HTML lang='ro'>", "The photo is not a picture: it is a web page."),
        (b"%PDF-1.7", "The photo is not a picture: it is a PDF document."),
        (b'{"statusCode": "404"}', "The photo is not a picture: it is a text."),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "The photo is not a picture: it is a text."),
        (b"\0\0\0\x18ftypheic\0\0", "HEIC"),
        (saved(picture(), "TIFF"), "TIFF"),
        (saved(picture(), "TGA"), "not a picture of a known kind"),
        (saved(picture(), "JPEG2000"), "not a picture of a known kind"),
        (saved(picture(79, 400), "JPEG"), "too small: 79 by 400 pixels"),
        (saved(picture(2000, 100), "JPEG"), "too narrow: 2000 by 100 pixels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_cannot_be_used_is_refused_in_words(source: bytes, said: str) -> None:
    assert said in refused(source)


def test_a_photo_of_300_bytes_is_refused_whatever_it_is() -> None:
    tiny = saved(Image.new("L", (4, 4)), "PNG").ljust(300, b"\0")
    assert "too small: 4 by 4 pixels" in refused(tiny)
    assert "damaged" in refused(photo_cut_at(300))
    assert "not a picture of a known kind" in refused(bytes(300))


def photo_cut_at(length: int) -> bytes:
    return saved(picture(400, 300), "JPEG")[:length]


@pytest.mark.parametrize("name", KINDS)
def test_a_truncated_picture_is_called_damaged(name: str) -> None:
    source = SOURCES[name]
    for length in (20, 60, len(source) // 3):
        assert "photo" in refused(source[:length])


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_is_decoded(name: str) -> None:
    source = BOMBS[name]()
    tracemalloc.start()
    said = refused(source)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "too many pixels" in said
    assert f"{BOMB} by {BOMB}" in said
    assert peak < 4 * len(source) + 100_000


def test_a_picture_between_pillows_warning_and_its_error_is_refused_like_any_other() -> None:
    assert "too many pixels" in refused(png_bomb(10_000))  # a warning would fail this test


def test_metadata_is_not_unpacked() -> None:
    """If Pillow opened this file of 77 kB as it is, it would take 240 MB."""
    packed = zlib.compress("😀".encode() + b"x" * 10**6)
    texts = (chunk(b"iTXt", b"text %d\0\1\0\0\0" % n + packed) for n in range(60))
    png = SOURCES["rgba"]
    source = png[:33] + b"".join(texts) + png[33:]
    tracemalloc.start()
    opened(fit(source))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize(
    "exif",
    [b"", b"MM", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 300, b"\0" * 60],
)
def test_exif_that_makes_no_sense_does_no_harm(exif: bytes) -> None:
    segment = b"\xff\xe1" + (len(exif) + 8).to_bytes(2) + b"Exif\0\0" + exif
    jpeg = saved(flag(), "JPEG")
    for source in (jpeg[:2] + segment + jpeg[2:], saved(flag(), "WEBP", exif=exif or b"\0")):
        assert "".join(corners(opened(fit(source)))) == "rgbw"


def test_a_jpeg_of_thousands_of_scans_is_refused_at_once() -> None:
    jpeg = SOURCES["progressive"]
    scan = jpeg.index(b"\xff\xda")
    assert "rare kind" in refused(jpeg[:scan] + jpeg[scan:-2] * 200 + jpeg[-2:])


@pytest.mark.parametrize("marker", [0xC3, 0xC9, 0xCA])
def test_a_jpeg_of_a_rare_kind_is_refused(marker: int) -> None:
    source = SOURCES["jpeg"].replace(b"\xff\xc0", bytes((0xFF, marker)), 1)
    assert "save it as an ordinary JPEG" in refused(source)


@pytest.mark.parametrize("text", [b"Bmw.jpg is not here", b"\n bm", b"gif8x"])
def test_a_text_that_begins_as_a_gif_or_a_bmp_does_is_called_neither(text: bytes) -> None:
    assert "known kind" in refused(text)


@pytest.mark.parametrize("kind", ["GIF", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_a_gif_and_a_bmp_are_to_be_saved_as_a_jpeg(kind: str, mode: str) -> None:
    words = "The photo is a GIF or a BMP, which terminals do not take; save it as a JPEG."
    assert refused(saved(picture(mode=mode), kind)) == words


def test_a_jpeg_of_several_scans_counts_as_kept_whole_though_it_is_not_progressive() -> None:
    """Its components come one after the other, so that no row is complete before the last."""
    jpeg = bytearray(jpeg_bomb())
    in_one = formats.read(bytes(jpeg))
    jpeg[jpeg.index(b"\xff\xda") + 4] = 1
    in_several = formats.read(bytes(jpeg))
    assert in_one is not None
    assert in_several is not None
    assert (in_one.bytes_per_pixel, in_several.bytes_per_pixel) == (0, 3)


def test_a_size_that_pillow_reads_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    described = formats.read(SOURCES["png"])
    assert described is not None
    smaller = dataclasses.replace(described, width=100)
    monkeypatch.setattr(fitting, "read", lambda _: smaller)
    assert "damaged" in refused(SOURCES["png"])


def test_the_error_says_so_where_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(_: Image.Image) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(fitting, "_shrunk", no_more)
    assert "memory" in refused(SOURCES["png"])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid file with some bytes changed, left out, doubled or cut off."""
    source = bytearray(SOURCES[draw(st.sampled_from(sorted(SOURCES)))])
    for _ in range(draw(st.integers(1, 6))):
        end = draw(st.sampled_from((64, 1024, len(source))))
        at = draw(st.integers(0, max(0, min(end, len(source)) - 1)))
        match draw(st.sampled_from(("change", "insert", "omit", "cut"))):
            case "change":
                source[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
            case "insert":
                source[at:at] = source[at : at + draw(st.integers(1, 64))]
            case "omit":
                del source[at : at + draw(st.integers(1, 64))]
            case _:
                del source[max(at, len(source) // 2) :]
    return bytes(source)


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged())
def test_a_damaged_file_raises_nothing_but_photo_unusable(source: bytes) -> None:
    try:
        jpeg = fit(source)
    except PhotoUnusable:
        return
    assert len(jpeg) <= MAX_BYTES


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM"]), st.binary())
def test_any_other_bytes_raise_photo_unusable(start: bytes, rest: bytes) -> None:
    refused(start + rest)


# Memory


def heaviest() -> dict[str, bytes]:
    """Return the accepted files that take the most memory, by kind."""
    soft = picture(4000, 3000)
    colours = picture(8000, 8000, "L")
    colours.putpalette(bytes(range(256)) * 3)
    return {
        "photo of 24 MB": photo_of_24_mb(),
        "jpeg of 80 MP": saved(picture(8900, 8900, "L"), "JPEG"),
        "jpeg with 24 MB of metadata": padded(saved(soft, "JPEG")),
        "progressive jpeg": saved(soft, "JPEG", progressive=True, subsampling=0),
        "cmyk jpeg": saved(noise(3400, 3400, "CMYK"), "JPEG", quality=80),
        "png with alpha": saved(picture(4900, 4000, "RGBA"), "PNG", compress_level=1),
        "png of noise": saved(noise(2600, 2600), "PNG", compress_level=1),
        "png with colours": saved(colours, "PNG", compress_level=1),
        "webp": saved(picture(2700, 2000), "WEBP"),
        "webp of noise": saved(noise(2000, 1500), "WEBP", lossless=True, method=0, quality=0),
    }


def padded(jpeg: bytes) -> bytes:
    return jpeg[:2] + (b"\xff\xe5\xff\xff" + bytes(65533)) * 380 + jpeg[2:]


MEASURE = textwrap.dedent("""
    import asyncio, pathlib, re, sys
    import httpx
    import receiver.app
    from receiver.core.errors import PhotoUnusable
    from receiver.photos.album import Album
    from receiver.photos.fetch import PhotoFetcher, http_client

    def memory(which):
        # Not getrusage's peak: that is handed down from the process that started this one.
        status = pathlib.Path("/proc/self/status").read_text()
        return int(re.search(which + r":\\s+(\\d+) kB", status)[1]) / 1024

    async def chunks(path):
        with path.open("rb") as file:
            while chunk := file.read(65536):
                yield chunk

    async def main():
        paths = [pathlib.Path(name) for name in sys.argv[1:]]
        def answer(request):
            return httpx.Response(200, content=chunks(paths[int(request.url.path[1:])]))
        async with http_client(), httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            fetcher = PhotoFetcher(http, supabase_url="http://project.example",
                service_role_key="key", allowed_hosts=frozenset({"cdn.example"}))
            photos = Album(fetcher.fetch)
            print(f"{memory('VmHWM'):5.0f} MB before the first photo")
            for n, path in enumerate(paths):
                try:
                    said = f"{len(await photos.jpeg(f'http://cdn.example/{n}'))} bytes"
                except PhotoUnusable as fault:
                    said = fault.message
                print(f"{memory('VmHWM'):5.0f} MB after {path.name}: {said}")
            print(memory("VmHWM"), memory("VmRSS"))

    asyncio.run(main())
""")


def measured(*paths: Path) -> tuple[float, float, str]:
    """Return the MB that a fresh receiver takes at most and at the end, and its output.

    It fetches the photos one after the other and makes them fit.
    """
    command = [sys.executable, "-c", MEASURE, *map(str, paths)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    *said, memory = ran.stdout.splitlines()
    sys.stdout.write(ran.stdout)
    peak, rest = map(float, memory.split())
    return peak, rest, "\n".join(said)


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@on_linux
def test_the_receiver_stays_under_200_mb_with_files_that_people_and_others_upload(
    tmp_path: Path,
) -> None:
    """The list of the issue, one after the other in one process."""
    issue = {
        "24 MB, on its side": photo_of_24_mb(),
        "tiny": bytes(300),
        "png with alpha": saved(picture(2000, 1500, "RGBA"), "PNG"),
        "cmyk": saved(picture(2000, 1500, "CMYK"), "JPEG"),
        "gif": saved(picture(mode="P"), "GIF"),
        "page.jpg": b"<!doctype html><title>Sign in</title>",
    } | {f"bomb, {name}": make() for name, make in BOMBS.items()}
    for name, source in issue.items():
        (tmp_path / name).write_bytes(source)
    peak, _, said = measured(*(tmp_path / name for name in issue))
    assert said.count(" bytes") == 3
    assert said.count("too many pixels") == 3
    assert peak < MAX_RSS_MB


@on_linux
def test_the_receiver_stays_under_200_mb_with_the_heaviest_files_it_takes(tmp_path: Path) -> None:
    """All in one process, where freed memory may lie in pieces."""
    paths = []
    for name, source in heaviest().items():
        (tmp_path / name).write_bytes(source)
        paths.append(tmp_path / name)
    peak, rest, said = measured(*paths, *paths)
    assert said.count(" bytes") == 2 * len(paths), "something is not among what it takes"
    assert peak < MAX_RSS_MB
    assert rest < MAX_RSS_MB_AT_REST
