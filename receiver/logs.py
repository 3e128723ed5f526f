"""Structured logs, with one rule: no secret and no personal data is ever written.

Two nets: keys that may hold something secret are replaced whole, and what looks like a secret
inside any other text is cut out of it. Everybody's records (uvicorn's, httpx's) go through both.
"""

import contextlib
import logging
import re
import sys
from collections.abc import Mapping
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from receiver.settings import LogFormat

REDACTED = "[redacted]"

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


def redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Redact every value of a log event; a structlog processor."""
    return cast("EventDict", _redacted(event))


def _redacted(value: object) -> object:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            redact(str(key)): (
                REDACTED if item and _SECRET_KEY.search(str(key)) else _redacted(item)
            )
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set):
        return [_redacted(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(str(value))


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to stdout; of a record that cannot be written, only the logger's name."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say so on stderr; logging's own way prints the record's arguments, unredacted."""
        kind = sys.exc_info()[0]
        name = kind.__name__ if kind else "?"
        # Where stdout cannot be written (a full disk, a reader that is gone), stderr often cannot
        # either; and whoever logs must not fail by it.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"A log record of {record.name} could not be written ({name}).\n")


def configure(log_format: LogFormat) -> None:
    """Send the log events of the whole process to stdout, redacted, one per line."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact_event,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _Handler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
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


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger; its events are named as past tenses: `pair_synced`."""
    return cast("structlog.stdlib.BoundLogger", structlog.get_logger(name))
