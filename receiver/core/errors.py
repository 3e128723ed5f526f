"""Every exception of ours, in one tree.

ReceiverError
├── SettingsInvalid                 the environment; stops start-up
├── RequestRefused                  a request to us, with the HTTP status it deserves
│   ├── BodyNotJson                 400
│   ├── BodyTooSlow                 408
│   ├── BodyTooLarge                413
│   ├── WebhookRefused              at /webhooks/supabase
│   │   ├── SignatureInvalid        401
│   │   └── EventNotOurs            422
│   ├── AccessRefused               at /api/hikvision, before anything else
│   │   ├── TokenMissing            401
│   │   ├── TokenInvalid            401
│   │   ├── CallerForbidden         403
│   │   ├── TooManyRequests         429
│   │   └── KeysUnavailable         503
│   └── RunRefused                  at /api/hikvision, for what was asked
│       ├── OptionsInvalid          422
│       ├── EmployeeUnknown         404
│       ├── RunUnknown              404
│       ├── DeviceUnknown           404
│       ├── NoActiveTerminal        409
│       ├── RunGoingOn              409
│       ├── TooManyRuns             429
│       └── ReceiverStopping        503
├── SupabaseError                   the database, seen through PostgREST
│   ├── SupabaseUnreachable         worth asking again
│   └── SupabaseRefused             wrong key, missing column: somebody must act
│       └── SqlOutdated             it has no such function, or another version of sql/
├── TerminalError                   one terminal, or one call to it
│   ├── TerminalUnusable            its row in the database cannot be worked with
│   ├── TerminalUnreachable         no connection, or cut mid-answer
│   ├── TerminalTimeout             connected, but no answer in time
│   ├── TerminalBusy                busy, upgrading, modelling a face, 5xx
│   ├── LoginRefused                401: wrong password or locked account
│   ├── TerminalRefused             it names a fault of its own: no permission, no library
│   │   └── TerminalFull            it has no room for another person or face
│   ├── DataRefused                 it will not take this employee's data
│   │   └── PhotoUnusable           no terminal would take a picture made of this
│   ├── PersonAbsent                it does not hold the person whose photo this is
│   ├── PhotoNotFetched             it could not download the photo
│   ├── NotSupported                this firmware does not have the call
│   ├── NotKept                     it confirmed a push, and does not hold what was pushed
│   └── AnswerUnexplained           any other answer
└── CallForbidden                   no further call may be made to the terminal
    ├── TerminalReplaced            other hardware stands behind its row: all must be decided again
    ├── LeaseLost                   the lease may be another receiver's
    ├── RunStopped                  the run was told to end
    └── Stopping                    this receiver is shutting down

Messages are for the person at the gate: they say what was wrong and never contain a password, a
key, a token, a photo's URL or a request's body.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import ClassVar, Self


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

    Also a SystemExit, so that any program that starts the app, uvicorn included, prints the
    message alone, without a traceback, and exits with 1.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message


class RequestRefused(ReceiverError):
    """The request is refused."""

    status: ClassVar[HTTPStatus] = HTTPStatus.BAD_REQUEST
    headers: ClassVar[Mapping[str, str]] = {}


class BodyNotJson(RequestRefused):
    """The body is not JSON."""


class BodyTooSlow(RequestRefused):
    """The body did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT
    # The rest of a body that was not read to its end must not keep the connection open.
    headers: ClassVar[Mapping[str, str]] = {"Connection": "close"}


class BodyTooLarge(RequestRefused):
    """The body is larger than 1 MiB."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    headers: ClassVar[Mapping[str, str]] = {"Connection": "close"}


class WebhookRefused(RequestRefused):
    """The request is not a webhook of ours."""


class SignatureInvalid(WebhookRefused):
    """The signature does not match: check that the sender has the receiver's WEBHOOK_SECRET."""

    # Without WWW-Authenticate (RFC 9110 §15.5.2): no scheme is registered for Standard Webhooks.
    status = HTTPStatus.UNAUTHORIZED


class EventNotOurs(WebhookRefused):
    """The event is not an edit of angajati or angajati_biometrie."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class AccessRefused(RequestRefused):
    """The caller may not."""


class TokenMissing(AccessRefused):
    """No access token: sign in, and send `Authorization: Bearer <access_token>`."""

    status = HTTPStatus.UNAUTHORIZED
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}


class TokenInvalid(AccessRefused):
    """The access token is not valid: sign in again."""

    status = HTTPStatus.UNAUTHORIZED
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


class CallerForbidden(AccessRefused):
    """You are signed in, but your role may not do this (SYNC_ALLOWED_ROLES)."""

    status = HTTPStatus.FORBIDDEN


class TooManyRequests(AccessRefused):
    """You pressed too often; wait a little."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, message: str | None = None, *, retry_after_s: int = 60) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class KeysUnavailable(AccessRefused):
    """Access tokens cannot be verified now: Supabase's public keys cannot be fetched."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class RunRefused(RequestRefused):
    """The run cannot be started."""


class OptionsInvalid(RunRefused):
    """The body does not say what is needed."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class EmployeeUnknown(RunRefused):
    """There is no employee with this angajat_id."""

    status = HTTPStatus.NOT_FOUND


class RunUnknown(RunRefused):
    """There is no such run, or it ended too long ago."""

    status = HTTPStatus.NOT_FOUND


class DeviceUnknown(RunRefused):
    """There is no active terminal with this device_id."""

    status = HTTPStatus.NOT_FOUND


class NoActiveTerminal(RunRefused):
    """No terminal is active in dispozitive_pontaj."""

    status = HTTPStatus.CONFLICT


class RunGoingOn(RunRefused):
    """A sync of all employees is going on already; watch it, or stop it."""

    status = HTTPStatus.CONFLICT

    def __init__(self, message: str | None = None, *, run_id: str | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id


class TooManyRuns(RunRefused):
    """Too many buttons were pressed at once; wait for one to end."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "10"}  # about one employee's run


class ReceiverStopping(RunRefused):
    """The receiver is shutting down; press again in a moment."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class SupabaseError(ReceiverError):
    """Supabase could not be worked with."""


class SupabaseUnreachable(SupabaseError):
    """Supabase did not answer."""


class SupabaseRefused(SupabaseError):
    """Supabase refused the request."""


class SqlOutdated(SupabaseRefused):
    """The database has another version of sql/ than this receiver needs."""


class TerminalError(ReceiverError):
    """The terminal could not be worked with."""

    kind: ClassVar[str] = "other"
    """The label under which these errors are counted; one of few, unlike a message."""

    def named(self, terminal: str) -> Self:
        """Name the terminal where the message begins with "The terminal"; return self."""
        words = "The terminal"
        if self.message.startswith(words):
            self.args = (f"{terminal[0].upper()}{terminal[1:]}{self.message[len(words) :]}",)
        return self


class TerminalUnusable(TerminalError):
    """The terminal's row in dispozitive_pontaj cannot be worked with."""

    kind = "unusable"


class TerminalUnreachable(TerminalError):
    """The terminal cannot be reached; see that it is switched on and on the network."""

    kind = "unreachable"


class TerminalTimeout(TerminalError):
    """The terminal did not answer in time."""

    kind = "timeout"


class TerminalBusy(TerminalError):
    """The terminal is busy."""

    kind = "busy"


class LoginRefused(TerminalError):
    """The terminal refuses the user name or password of its row in dispozitive_pontaj."""

    kind = "login"

    def __init__(
        self, message: str | None = None, *, locked_s: float = 0.0, locked: bool = False
    ) -> None:
        super().__init__(message)
        self.locked = locked
        """Whether the terminal says that the account is locked, whatever the password."""
        self.locked_s = locked_s
        """How long the terminal says the account is locked, in seconds; 0 where it does not."""


class TerminalRefused(TerminalError):
    """The terminal cannot take this now."""

    kind = "refused"


class TerminalFull(TerminalRefused):
    """The terminal has no room left."""

    kind = "full"


class DataRefused(TerminalError):
    """The terminal will not take this employee's data."""

    kind = "data"


class PhotoUnusable(DataRefused):
    """The photo cannot be used."""


class PersonAbsent(TerminalError):
    """The person is not on this terminal yet."""

    kind = "absent"


class PhotoNotFetched(TerminalError):
    """The terminal could not download the photo."""

    kind = "photo"


class NotSupported(TerminalError):
    """This terminal does not support the call."""

    kind = "unsupported"


class NotKept(TerminalError):
    """The terminal said that it took this, and does not hold it."""

    kind = "not_kept"


class AnswerUnexplained(TerminalError):
    """The terminal answered something unexpected."""

    kind = "unexplained"


class CallForbidden(ReceiverError):
    """No further call may be made to this terminal."""


class TerminalReplaced(CallForbidden):
    """Another terminal stands at this address now; it is being filled."""


class LeaseLost(CallForbidden):
    """The lease of this terminal was lost; another receiver may have it."""


class RunStopped(CallForbidden):
    """It was stopped."""


class Stopping(CallForbidden):
    """The receiver is shutting down."""
