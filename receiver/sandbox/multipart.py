"""Forms as browsers and ISAPI clients send them: multipart/form-data (RFC 7578), read strictly.

The email parser repairs a broken form and says so; here a broken form is refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP

FORM = "multipart/form-data"
_PARTS = 10


class FormMalformed(Exception):
    """The body is not the form that its Content-Type promises."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a form; `filename` is None where none was sent."""

    name: str
    filename: str | None
    content_type: str
    content: bytes


def read_form(content_type: str, body: bytes) -> list[Part]:
    """Return the parts in their order; raise FormMalformed."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    form = BytesParser(EmailMessage, policy=HTTP).parsebytes(head + body)
    if form.get_content_type() != FORM or not form.is_multipart() or form.defects:
        raise FormMalformed("no whole form")  # a missing end is among the defects
    if form.preamble or (form.epilogue or "").strip():
        raise FormMalformed("there is more than the form")
    parts = list(_parts(form))
    if len(parts) > _PARTS:
        raise FormMalformed("too many parts")
    return parts


def _parts(form: EmailMessage) -> Iterator[Part]:
    for part in form.iter_parts():
        content = part.get_payload(decode=True)
        name = part.get_param("name", header="content-disposition")
        if (
            part.defects
            or part.get_content_disposition() != "form-data"
            or not isinstance(name, str)
            or not isinstance(content, bytes)  # a form within the form
        ):
            raise FormMalformed("a part is no field of a form")
        yield Part(
            name=name,
            filename=part.get_filename(),
            content_type=part.get_content_type(),
            content=content,
        )
