"""Structured logs, with one rule: no secret and no personal data is ever written.

Two nets: a value whose key suggests a secret is replaced whole, and anything that looks like a
secret is cut out of every other text. Libraries' records (uvicorn's, httpx's) go through both.
"""

import contextlib
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, TextIO, cast
from uuid import UUID

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from receiver.core.settings import LogFormat

REDACTED = "[redacted]"
SHORT = 24
"""The redaction of texts shorter than this is cached; no usable secret is so short."""
_ENCODER = json.JSONEncoder(ensure_ascii=False)

_SECRET_KEY = re.compile(
    r"(?i)pass|secret|token|authorization|api_?key|service_role|signature|cookie|photo_url|faceurl"
    r"|foto|body|payload|^name$|nume|cnp|iban"
)
_SECRET_TEXT = re.compile(
    r"whsec_[A-Za-z0-9+/=_-]+"  # webhook secrets
    r"|v1,[A-Za-z0-9+/]{20,}=*"  # signatures
    r"|sb_(?:secret|publishable)_[\w-]+"  # API keys
    r"|eyJ(?:(?!eyJ)[\w-])+\.[\w-]+(?:\.[\w-]*)?"  # JWTs
    r"|(?i:authorization)[\"']?\s*[:=][^\n]*"  # headers
    r"|\b(?i:bearer|basic)\s+[\w.~+/-]{16,}=*"  # tokens on their own
    r"|\b(?i:digest)\s+\w+=[^\n]*"
    r"|(?i:https?)://(?:(?!://)[^\s\"'<>])*?/storage/[^\s\"'<>]*"  # photos
    r"|(?<=://)[^\s\"'<>@:/]*:[^\s\"'<>]{0,300}(?=@)"  # user:password in a URL
)


def printable(text: str) -> str:
    """Return text on one line, without control characters and halves of surrogate pairs."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def redact(text: str) -> str:
    """Return text with everything that looks like a secret cut out."""
    return _SECRET_TEXT.sub(REDACTED, text)


def _json(event: EventDict, **_options: Any) -> str:
    return _ENCODER.encode(event)


def redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Redact every value of a log event; a structlog processor."""
    return cast("EventDict", _redacted(event))


def _redacted(value: object) -> object:
    if isinstance(value, str):
        return _short(value) if len(value) < SHORT else redact(value)
    if isinstance(value, Mapping):
        redacted = {}
        for key, item in value.items():
            shown, is_secret = _key(str(key))
            redacted[shown] = REDACTED if item and is_secret else _redacted(item)
        return redacted
    if isinstance(value, list | tuple | set):
        return [_redacted(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, UUID):
        return str(value)  # 32 digits and dashes: nothing to cut out
    return redact(str(value))


# Names of events, tables, kinds: a few dozen words, and each line has some of them.
_short = lru_cache(maxsize=512)(redact)


@lru_cache(maxsize=256)  # keys are few, too
def _key(key: str) -> tuple[str, bool]:
    """Return a key as it is written, and whether its value is secret."""
    return redact(key), bool(_SECRET_KEY.search(key))


class _Lines:
    """Writes our own events; never raises, because the code that logs has other work to do.

    Not through `logging`, whose records cost as much as all the rest of a webhook.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self.name = name

    def write(self, line: str) -> None:
        """Write one line at once; where that fails, only the logger's name, to stderr."""
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError) as error:
            _say_unwritten(self.name, error)

    debug = info = warning = error = exception = critical = write


def _say_unwritten(name: str, error: BaseException | None) -> None:
    # Where stdout cannot be written (a full disk, a reader that is gone), stderr often cannot
    # either.
    with contextlib.suppress(OSError, ValueError):
        kind = type(error).__name__
        sys.stderr.write(f"A log record of {name} could not be written ({kind}).\n")


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to stdout; of a record that cannot be written, only the logger's name."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say so on stderr; logging's own handler prints the record's arguments unredacted."""
        _say_unwritten(record.name, sys.exc_info()[1])


class Trickle:
    """A budget of log lines for events that anybody may cause by the thousand: many, then few.

    Without it an attacker could fill the disk. Metrics count what is left out.
    """

    def __init__(
        self,
        write: Callable[..., object],
        *,
        at_once: int = 100,
        per_s: float = 10.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._at_once = at_once
        self._per_s = per_s
        self._now = now
        self._at = now()
        self._left = float(at_once)
        self._left_out = 0

    def __call__(self, event: str, **values: object) -> None:
        """Write an event with the number left out before it, or leave it out too."""
        at = self._now()
        self._left = min(self._at_once, self._left + (at - self._at) * self._per_s)
        self._at = at
        if self._left < 1:
            self._left_out += 1
            return
        self._left -= 1
        if self._left_out:
            values["left_out"] = self._left_out
            self._left_out = 0
        self._write(event, **values)


def configure(log_format: LogFormat) -> None:
    """Send the log events of the whole process to stdout, redacted, one per line."""
    renderer: Processor = (
        structlog.processors.JSONRenderer(_json)
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    )
    marks: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.format_exc_info,
            redact_event,
            *marks,
            renderer,
        ],
        logger_factory=partial(_Lines, sys.stdout),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )
    handler = _Handler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.ExtraAdder(),
                *marks,  # before the record, which tells the name, is redacted to a text
                structlog.processors.format_exc_info,
                redact_event,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        if logger.handlers:  # set up by uvicorn before it called create_app; none: switched off
            logger.handlers.clear()
            logger.propagate = True
    for name in ("httpx", "httpcore", "hpack"):  # they log whole URLs at INFO
        logging.getLogger(name).setLevel(logging.WARNING)


def get_logger(name: str) -> FilteringBoundLogger:
    """Return a logger; its events are named in the past tense: `pair_synced`."""
    return cast("FilteringBoundLogger", structlog.get_logger(name))
