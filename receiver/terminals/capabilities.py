"""What a terminal declares of itself, read from any form it may choose: pure.

Sources (README.md): HA's recording of UserInfo/capabilities; FDLib/capabilities as a DS-K1T321MFWX
answers it, flat, and others inside `FDLibCap`. Numbers stand alone or as `@max`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from receiver.core.logs import printable
from receiver.core.models import Capabilities

MAX_TEXT: Final = 64
MAX_KEYS: Final = ("@max", "maxSize", "@maxSize")
PAGES: Final = range(1, 31)
"""More than 30 in a search is rejected by some and clamped by others (README.md, Limits)."""
NAMES_BYTES: Final = range(8, 1025)
URLS_BYTES: Final = range(32, 8193)
PERSONS: Final = range(1, 10_000_000)


def declared(
    device: Mapping[str, Any], persons: Mapping[str, Any], faces: Mapping[str, Any]
) -> Capabilities:
    """Return what these three answers declare; a number beyond reason counts as absent."""
    search = _first(persons, "UserInfoSearchCond")
    search = search if isinstance(search, Mapping) else {}
    pages = [
        _most(_first(search, "maxResults"), PAGES),
        _most(_first(search, "EmployeeNoList"), PAGES),
    ]
    return Capabilities(
        serial=_text(device.get("serialNumber")),
        firmware=" ".join(
            _text(device.get(key)) for key in ("firmwareVersion", "firmwareReleasedDate")
        ).strip(),
        model=_text(device.get("model")),
        name_bytes=_most(_first(persons, "name"), NAMES_BYTES),
        most_persons=_most(_first(persons, "maxRecordNum"), PERSONS),
        page=min((page for page in pages if page), default=PAGES[-1]),
        photo_url_bytes=_most(_first(faces, "faceURLLen"), URLS_BYTES) or 256,
        lacks=_lacking(_first(faces, "supportFDFunction")),
    )


def same_firmware(before: Capabilities, device: Mapping[str, Any]) -> bool:
    """Return whether a deviceInfo fits the capabilities before; one without a serial does."""
    now = declared(device, {}, {})
    return not now.serial or (before.serial, before.firmware) == (now.serial, now.firmware)


def _lacking(functions: object) -> tuple[str, ...]:
    if isinstance(functions, Mapping):
        functions = functions.get("@opt")
    if isinstance(functions, list):
        functions = ",".join(str(one) for one in functions)
    if not isinstance(functions, str) or not functions:
        return ()
    return () if "setup" in functions.lower() else ("FDLib/FDSetUp",)


def _first(fields: Mapping[str, Any], key: str) -> object:
    """Return the shallowest value of this key, wherever it is; None where it is not."""
    return next((level[key] for level in _levels(fields) if key in level), None)


def _levels(fields: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    level: list[Mapping[str, Any]] = [fields]
    while level:
        yield from level
        level = [inner for one in level for inner in one.values() if isinstance(inner, Mapping)]


def _most(value: object, sensible: range) -> int | None:
    """Return a number that stands alone, as `@max` or as `maxSize`; in XML `@maxSize`."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in MAX_KEYS if key in value), None)
    try:
        number = int(str(value)[:12])
    except ValueError:
        return None
    return number if number in sensible else None


def _text(value: object) -> str:
    return printable(value)[:MAX_TEXT].strip() if isinstance(value, str) else ""
