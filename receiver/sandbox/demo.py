"""`receiver demo`: one HR day in the embedded world, and a table at its end."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from receiver.sandbox.hr import Hr
from receiver.sandbox.terminal.simulated import Profile
from receiver.sandbox.world import Site, Standing, World, open_world

PAUSE_S = 0.1
POLL_S = 2.0
STEP_WITHIN_S = 12.0

PROFILES = {
    "Poarta Nord": Profile(name="modern"),
    "Șantier Est": Profile(name="xml", answers="xml", has_fd_setup=False),
    # It cannot fetch photos by itself, and is slow with them.
    "Depozit": Profile(name="upload", downloads_photos=False, delay_s=0.15, face_delay_s=0.3),
}

NAMES = (
    ("Popescu", "Ion"),
    ("Ștefănescu", "Ana-Maria"),
    ("Țîrlea-Brânză", "Gheorghe"),
    ("Mureșan", "Ilinca"),
    ("Văcărescu", "Nicușor"),
)


def play() -> int:
    """Play the day; return 0 only if in the end every terminal holds what HR says."""
    return asyncio.run(_play())


async def _play() -> int:
    started = time.monotonic()
    print("Starting Postgres, Supabase's stand-in, three terminals and the receiver …", flush=True)
    print(
        f"(Real devices get a pause of 1 s between calls and a poll every 30 s; here {PAUSE_S:g} s"
        f" and {POLL_S:g} s; three terminals side by side.)\n",
        flush=True,
    )
    async with open_world(PROFILES, pause_s=PAUSE_S, poll_s=POLL_S, lanes=3) as world:
        await world.receiver.start()
        async with Hr(world.supabase) as hr:
            await _day(world, hr)
        await _print_table(world)
        disagreeing = await world.disagreeing()
    seconds = time.monotonic() - started
    if disagreeing:
        print(f"\n✗ {', '.join(s.name for s in disagreeing)}: not what HR says ({seconds:.0f} s)")
        return 1
    print(f"\n✓ every terminal holds what HR says ({seconds:.0f} s)")
    return 0


async def _day(world: World, hr: Hr) -> None:
    east = world.sites[1]
    async with _step(world, f"HR hires {len(NAMES)} people, with photos"):
        hired = [await hr.hire(*n, photo=f"{i}.jpg") for i, n in enumerate(NAMES)]
    async with _step(world, "Ana-Maria Ștefănescu marries and is renamed"):
        await hr.rename(hired[1], "Ștefănescu-Brâncoveanu")
    async with _step(world, "Ion Popescu gets a new photo"):
        await hr.new_photo(hired[0], "0-nou.jpg")
    await east.terminal.switch_off()
    async with _step(world, "Șantier Est is switched off; HR hires one more and renames one", east):
        await hr.hire("Ciobanu", "Măriuca", photo="5.jpg")
        await hr.rename(hired[3], "Mureșan-Pop")
    async with _step(world, "Șantier Est is switched on again"):
        await east.terminal.switch_on()
    async with _step(world, "HR renames one more; the webhook is lost on its way"):
        world.pg_net.lose_next()
        await hr.rename(hired[2], "Țîrlea")
    async with _step(world, "Nicușor Văcărescu leaves the company"):
        await hr.set_status(hired[4], "inactiv")
    async with _step(world, "A fourth terminal is put up at Birouri"):
        await world.add_site("Birouri", Profile(name="names of 32 bytes", name_bytes=32))


@asynccontextmanager
async def _step(world: World, words: str, off: Site | None = None) -> AsyncIterator[None]:
    print(f"● {words}", flush=True)
    yield
    begun = time.monotonic()
    agreed = await world.agreed(but=[off] if off else [], within_s=STEP_WITHIN_S)
    whom = "the others have it" if off else "all terminals have it"
    seconds = time.monotonic() - begun
    result = f"  ✓ {whom} after {seconds:.1f} s" if agreed else "  ✗ not in time"
    print(result, flush=True)


async def _print_table(world: World) -> None:
    """Print what each terminal holds beside what HR says."""
    wanted = await world.wanted()
    held = [world.standing_on(site.terminal) for site in world.sites]
    numbers = sorted(wanted.keys() | {n for persons in held for n in persons})
    heads = ["No.", "Supabase says", *(site.name for site in world.sites)]
    rows = [
        [n, _words(wanted.get(n)), *(_words(persons.get(n)) for persons in held)] for n in numbers
    ]
    widths = [max(len(line[i]) for line in (heads, *rows)) for i in range(len(heads))]
    print()
    for line in (heads, ["─" * width for width in widths], *rows):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))


def _words(standing: Standing | None) -> str:
    if standing is None:
        return "may not pass"
    photo = f"photo {standing.photo[:6]}" if standing.photo else "no photo"
    return f"{standing.name}, {photo}"
