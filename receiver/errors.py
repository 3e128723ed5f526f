"""Every exception of ours, in one tree.

ReceiverError
├── SettingsInvalid                 the environment; stops start-up
├── WebhookRefused                  a request to /webhooks/supabase, with the status it deserves
│   ├── SignatureInvalid            401
│   ├── BodyNotJson                 400
│   ├── BodyTooSlow                 408
│   ├── BodyTooLarge                413
│   └── EventNotOurs                422
├── SupabaseError                   the database, seen through PostgREST
│   ├── SupabaseUnreachable         worth asking again
│   └── SupabaseRefused             wrong key, missing migration: somebody must act
├── TerminalError                   one terminal, or one call to it
│   ├── TerminalUnusable            its row in the database cannot be worked with
│   ├── TerminalUnreachable         no connection, or cut mid-answer
│   ├── TerminalTimeout             connected, but no answer in time
│   ├── TerminalBusy                busy, upgrading, modelling a face, 5xx
│   ├── LoginRefused                401: wrong password or locked account
│   ├── TerminalRefused             it knows what is wrong with itself: full, no permission
│   ├── DataRefused                 it will not take this employee's data
│   ├── PhotoNotFetched             it could not download the photo
│   ├── NotSupported                this firmware does not have the call
│   └── AnswerUnexplained           anything else it said
└── CallForbidden                   no further call may be made to the terminal
    ├── LeaseLost                   another receiver may hold it
    └── Stopping                    this receiver is shutting down

Messages are for the person at the gate: they say what was wrong and never hold a password, a key,
a token, a photo's URL or a request's body.
"""

from http import HTTPStatus
from typing import ClassVar


class ReceiverError(Exception):
    """Something went wrong in the receiver."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())

    @property
    def message(self) -> str:
        """Return what was wrong, in one sentence."""
        return str(self.args[0])


class SettingsInvalid(ReceiverError, SystemExit):
    """The environment is not complete.

    Also a SystemExit, so that whoever starts the app, uvicorn included, prints the message alone
    and exits with 1, instead of burying it under a traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message


class WebhookRefused(ReceiverError):
    """The request is not a webhook of ours."""

    status: ClassVar[HTTPStatus] = HTTPStatus.BAD_REQUEST


class SignatureInvalid(WebhookRefused):
    """The signature does not match: check that the sender has the receiver's WEBHOOK_SECRET."""

    status = HTTPStatus.UNAUTHORIZED


class BodyNotJson(WebhookRefused):
    """The body is not JSON."""


class BodyTooSlow(WebhookRefused):
    """The body did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT


class BodyTooLarge(WebhookRefused):
    """The body is larger than 1 MiB."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class EventNotOurs(WebhookRefused):
    """The event is not an edit of angajati or angajati_biometrie."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class SupabaseError(ReceiverError):
    """Supabase could not be worked with."""


class SupabaseUnreachable(SupabaseError):
    """Supabase did not answer."""


class SupabaseRefused(SupabaseError):
    """Supabase refused the request."""


class TerminalError(ReceiverError):
    """The terminal could not be worked with."""


class TerminalUnusable(TerminalError):
    """The terminal's row in dispozitive_pontaj cannot be worked with."""


class TerminalUnreachable(TerminalError):
    """The terminal cannot be reached; see that it is switched on and on the network."""


class TerminalTimeout(TerminalError):
    """The terminal did not answer in time."""


class TerminalBusy(TerminalError):
    """The terminal is busy."""


class LoginRefused(TerminalError):
    """The terminal refuses the user name or password of its row in dispozitive_pontaj."""

    def __init__(self, message: str | None = None, *, locked_s: float = 0.0) -> None:
        super().__init__(message)
        self.locked_s = locked_s
        """How long the terminal says the account is locked, in seconds; 0 where it does not."""


class TerminalRefused(TerminalError):
    """The terminal cannot take this now."""


class DataRefused(TerminalError):
    """The terminal will not take this employee's data."""


class PhotoNotFetched(TerminalError):
    """The terminal could not download the photo."""


class NotSupported(TerminalError):
    """This terminal does not support the call."""


class AnswerUnexplained(TerminalError):
    """The terminal answered something unexpected."""


class CallForbidden(ReceiverError):
    """No further call may be made to this terminal."""


class LeaseLost(CallForbidden):
    """The lease of this terminal was lost; another receiver may hold it."""


class Stopping(CallForbidden):
    """The receiver is shutting down."""
