"""Files that HR's people upload as photos, and the outcome of each on three kinds of terminals.

The files go all the way: into the company's bucket, by the receiver, onto a terminal or not; and
the reason why one did not arrive is given in words that help the person who chose it.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image, ImageChops

from receiver.sandbox.database.postgres import PostgresServer
from receiver.sandbox.hr import Hr
from receiver.sandbox.portraits import likeness, portrait
from receiver.sandbox.terminal.profiles import PROFILES
from receiver.sandbox.world import World, open_world
from tests.support.pictures import ORIENTATION, changed, saved
from tests.support.profile_stories import assert_well_treated
from tests.support.sample_pictures import jpeg_bomb, png_bomb
from tests.support.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

MAX_MB = 200
TERMINALS = ("modern", "upload_only", "url_only")

Outcomes = Mapping[str, str]
"""By terminal: what it says of the photo, empty where it arrives."""


def phones_photo() -> bytes:
    """Return 24 MB of 4000 x 3000, lying on its side with Exif that says so; full of grain."""
    size = (3000, 4000)
    with Image.open(BytesIO(portrait("phone"))) as small:
        large = small.resize(size)
    grains = [Image.effect_noise(size, 70) for _ in range(3)]
    grainy = ImageChops.overlay(large, Image.merge("RGB", grains))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    lying = grainy.transpose(Image.Transpose.ROTATE_90)
    return saved(lying, quality=95, subsampling=0, exif=exif)


def tiny_photo() -> bytes:
    """Return a JPEG of exactly 300 bytes: eight by eight pixels, and a comment."""
    with Image.open(BytesIO(portrait("tiny"))) as large:
        small = large.convert("L").resize((8, 8))
    bare = len(saved(small, optimize=True, quality=20, comment=b"-"))
    return saved(small, optimize=True, quality=20, comment=b"-" * (301 - bare))


def see_through_photo() -> bytes:
    """Return a PNG whose border is transparent, as from a tool that cuts people out."""
    with Image.open(BytesIO(portrait("alpha"))) as opened:
        picture = opened.convert("RGBA").resize((240, 320))
    alpha = Image.new("L", picture.size, 0)
    alpha.paste(255, (10, 10, picture.width - 10, picture.height - 10))
    picture.putalpha(alpha)
    return saved(picture, "PNG")


def cmyk_photo() -> bytes:
    with Image.open(BytesIO(portrait("cmyk"))) as opened:
        return saved(opened.convert("CMYK"))


def web_page() -> bytes:
    return b"<!DOCTYPE html><html><body>Sign in to see this photo</body></html>" * 20


@dataclass(frozen=True, kw_only=True)
class Specimen:
    """One file, and its outcomes."""

    file: str
    make: Callable[[], bytes]
    outcomes: Outcomes


ARRIVES: Outcomes = dict.fromkeys(TERMINALS, "")


WEB_PAGE = "the photo is not a picture: it is a web page."
GIF = "the photo is a GIF or a BMP, which terminals do not take; save it as a JPEG."
NO_PICTURE = "the photo is not a picture format the terminal takes"
MANY_PIXELS = "too many pixels for a {} file: 50000 by 50000 pixels; save it smaller"

ZOO = (
    # A photo that a terminal fetched it judges in its own words; the other words are ours.
    Specimen(
        file="tiny.jpg",
        make=tiny_photo,
        outcomes={
            "modern": "the photo's quality is too low",
            "upload_only": "too small: 8 by 8 pixels; take one of 600 by 600 or more",
            "url_only": "the photo's quality is too low",
        },
    ),
    Specimen(file="alpha.png", make=see_through_photo, outcomes=ARRIVES),
    Specimen(file="cmyk.jpg", make=cmyk_photo, outcomes=ARRIVES),
    Specimen(
        file="picture.gif",
        make=lambda: changed(portrait("gif"), "GIF"),
        outcomes={"modern": NO_PICTURE, "upload_only": GIF, "url_only": NO_PICTURE},
    ),
    Specimen(
        file="page.jpg",
        make=web_page,
        outcomes={"modern": NO_PICTURE, "upload_only": WEB_PAGE, "url_only": NO_PICTURE},
    ),
    Specimen(
        file="bomb.png",
        make=png_bomb,
        outcomes={
            "modern": "the photo is too large for the terminal (200 KB)",
            "upload_only": MANY_PIXELS.format("PNG"),
            "url_only": "the photo is too large for the terminal (200 KB)",
        },
    ),
    Specimen(
        file="bomb.jpg",
        make=jpeg_bomb,
        outcomes={
            "modern": NO_PICTURE,
            "upload_only": MANY_PIXELS.format("JPEG"),
            "url_only": NO_PICTURE,
        },
    ),
    # Last: a terminal that could not download this is given uploads from then on.
    Specimen(
        file="phone.jpg",
        make=phones_photo,
        outcomes={**ARRIVES, "url_only": "could not download the photo"},
    ),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(embedded_postgres: PostgresServer) -> AsyncIterator[World]:
    async with open_world(
        {name: PROFILES[name] for name in TERMINALS},
        pause_s=0.05,
        poll_s=1.0,
        lanes=len(TERMINALS),
        postgres=embedded_postgres,
    ) as world:
        await world.receiver.start()
        yield world
        peak = peak_mb(world)
        await world.receiver.stop()
        print(f"\nThe receiver took {peak:.0f} MB at most.")
        assert peak < MAX_MB
        for site in world.sites:
            assert_well_treated(site)


def peak_mb(world: World) -> float:
    status = Path(f"/proc/{world.receiver.pid}/status").read_text(encoding="utf-8")
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1000


async def test_the_phones_photo_is_what_it_is_meant_to_be() -> None:
    photo = phones_photo()
    with Image.open(BytesIO(photo)) as opened:
        assert opened.size == (4000, 3000)
    assert 23e6 < len(photo) < 25e6
    assert likeness(photo) == likeness(portrait("phone"))
    assert len(tiny_photo()) == 300


@pytest.mark.parametrize("specimen", ZOO, ids=lambda specimen: specimen.file)
async def test_each_photo_arrives_or_the_reason_is_reported(
    world: World, specimen: Specimen
) -> None:
    photo = specimen.make()
    world.supabase.photos[specimen.file] = photo
    async with Hr(world.supabase) as hr:
        person = await hr.insert("angajati", {"nume": "Popescu", "prenume": "Ion"})
        row = await hr.insert(
            "angajati_biometrie",
            {
                "angajat_id": person["id"],
                "foto_fata_url": world.supabase.photo_url(specimen.file),
            },
        )
    number = str(row["employee_no"])

    async def told() -> dict[str, tuple[str, str]]:
        found = await world.execute(
            "select d.nume, p.status, p.message from hikvision_sync.pairs p"
            " join dispozitive_pontaj d on d.id = p.terminal_id"
            " where p.employee_id = %s and p.status in ('success', 'partial')"
            " and not exists (select from hikvision_sync.edits)",
            person["id"],
        )
        return {str(r["nume"]): (str(r["status"]), str(r["message"])) for r in found}

    async def all_told() -> bool:
        return len(await told()) == len(TERMINALS)

    await eventually(all_told)
    for site in world.sites:
        status, message = (await told())[site.name]
        words, face = specimen.outcomes[site.name], site.terminal.persons[number].face
        if words:
            assert (status, face, words in message) == ("partial", None, True), message
            assert message.startswith("The person is on the terminal, the photo is not.")
        else:
            assert face is not None, message
            assert (status, face.likeness) == ("success", likeness(photo))
