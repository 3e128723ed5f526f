"""The only reader of the environment: one row per variable, with its field, bounds and default.

Refuses to guess: one message names all variables that are missing or malformed, and never their
values.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Annotated, Any, Literal, get_type_hints

from receiver.core import setting_values as parse
from receiver.core.errors import SettingsInvalid
from receiver.core.models import LeaverPolicy

LogFormat = Literal["json", "console"]
LOCAL: tuple[str, ...] = ("http://localhost:3000", "http://localhost:5173")
"""Where the React app runs while it is developed."""
FACE_TIMEOUT_S = 45.0
"""What a terminal may take to model a face (SK: read timeout 45 s)."""


@dataclass(frozen=True)
class Variable:
    """An environment variable: what parses it, and its row in the README."""

    name: str
    parse: Callable[[str], Any]
    meaning: str
    default: str = ""
    """The default in words, where the field's own does not say it."""

    def row(self, default: object) -> str:
        """Return its row of the README's table, with the default of its field."""
        words = self.default
        if not words and default is MISSING:
            words = "required"
        elif not words:
            words = (
                f"`{_as_written(default)}`" if default not in (None, (), frozenset()) else "none"
            )
        return f"| `{self.name}` | {words} | {self.meaning} |"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The environment, parsed. Secrets stay out of its repr."""

    # A parser is named by its module: a bare name would be that of a field of this class.
    supabase_url: Annotated[str, Variable("SUPABASE_URL", parse.http_url, "the project's URL")]
    service_role_key: Annotated[
        str,
        Variable(
            "SUPABASE_SERVICE_ROLE_KEY",
            parse.header_value,
            "the legacy service_role JWT or an `sb_secret_…` key",
        ),
    ] = field(repr=False)
    webhook_keys: Annotated[
        tuple[bytes, ...],
        Variable("WEBHOOK_SECRET", parse.secrets, "one or more `whsec_…`, separated by spaces"),
    ] = field(repr=False)
    jwks_url: Annotated[
        str,
        Variable(
            "SUPABASE_JWKS_URL",
            parse.http_url,
            "the public keys of access tokens",
            "`{SUPABASE_URL}/auth/v1/.well-known/jwks.json`",
        ),
    ] = ""
    jwt_secret: Annotated[
        str | None,
        Variable(
            "SUPABASE_JWT_SECRET",
            parse.jwt_secret,
            "the legacy JWT secret, only for projects that still sign access tokens with it "
            "(HS256)",
        ),
    ] = field(default=None, repr=False)
    cors_origins: Annotated[
        tuple[str, ...],
        Variable(
            "CORS_ALLOWED_ORIGINS",
            parse.origins,
            "the React app's origins, comma-separated: `https://hr.example.com`; capitals, "
            "diacritics and a default port are put as browsers send them",
        ),
    ] = ()
    cors_allow_localhost: Annotated[
        bool,
        Variable(
            "CORS_ALLOW_LOCALHOST",
            parse.yes_or_no,
            f"whether `{LOCAL[0]}` and `{LOCAL[1]}` may call too",
        ),
    ] = True
    allowed_roles: Annotated[
        frozenset[str],
        Variable(
            "SYNC_ALLOWED_ROLES",
            parse.names,
            "comma-separated values of `app_metadata.role` or `app_metadata.roles` that may press "
            "the buttons",
            "everybody signed in",
        ),
    ] = frozenset()
    photo_hosts: Annotated[
        frozenset[str],
        Variable(
            "PHOTO_HOSTS",
            parse.hosts,
            "hosts besides the project's own storage that the receiver may fetch photos from, "
            "comma-separated: `cdn.example.com, 10.0.0.7:8080`",
        ),
    ] = frozenset()
    device_delay_s: Annotated[
        float,
        Variable(
            "DEVICE_DELAY_SECONDS",
            parse.number(0, 60),
            "the pause between two calls to a terminal, and between any two calls of a lane",
        ),
    ] = 1.0
    device_timeout_s: Annotated[
        float,
        Variable(
            "DEVICE_TIMEOUT_SECONDS",
            parse.number(0.1, 300),
            "how long a call to a terminal may take; a face call may take 45 s, or this where it "
            "is more",
        ),
    ] = 15.0
    device_lanes: Annotated[
        int,
        Variable(
            "DEVICE_LANES",
            parse.whole(1, 256),
            "1: one device call at a time over all terminals; N: up to N terminals side by side, "
            "each still one call at a time",
        ),
    ] = 1
    leaver_policy: Annotated[
        LeaverPolicy,
        Variable(
            "LEAVER_POLICY",
            parse.one_of(LeaverPolicy),
            "what happens on the terminals when `status` is no longer `activ`: `expire` ends the "
            "validity window, `delete` erases person, face and cards, `keep` does nothing",
        ),
    ] = "expire"
    poll_s: Annotated[
        float,
        Variable(
            "POLL_SECONDS",
            parse.number(0.1, 3600),
            "how often the worker asks without being nudged",
        ),
    ] = 30.0
    look_s: Annotated[
        float,
        Variable(
            "LOOK_SECONDS",
            parse.number(1, 86400),
            "how often each terminal is asked which hardware and firmware it is; so long may a "
            "replaced one go unnoticed",
        ),
    ] = 900.0
    verify_hours: Annotated[
        float,
        Variable(
            "VERIFY_HOURS",
            parse.number(0.0001, 8760),
            "each terminal is asked for everybody at least this often, behind all other work; "
            "2,000 people are 67 calls",
        ),
    ] = 24.0
    log_format: Annotated[
        LogFormat, Variable("LOG_FORMAT", parse.one_of(LogFormat), "or `console`")
    ] = "json"
    port: Annotated[
        int,
        Variable("PORT", parse.whole(1, 65535), "where `receiver serve` and the Procfile listen"),
    ] = 8000

    @property
    def verify_s(self) -> float:
        """Return how often each terminal is asked for everybody, in seconds."""
        return self.verify_hours * 3600.0

    @property
    def face_timeout_s(self) -> float:
        """Return how long a call that models a face may take, in seconds."""
        return max(FACE_TIMEOUT_S, self.device_timeout_s)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Parse the environment, or raise SettingsInvalid naming every variable at fault."""
        given: dict[str, Any] = {}
        faults: list[str] = []
        variables = variables_by_field()
        for one in fields(cls):
            variable = variables[one.name]
            text = environ.get(variable.name, "").strip()
            try:
                if text:
                    given[one.name] = variable.parse(text)
                elif one.default is MISSING:
                    raise ValueError("is missing")  # noqa: TRY301 - as what is malformed
            except ValueError as fault:
                faults.append(f"  {variable.name}: {fault}")
        if faults:
            raise SettingsInvalid(
                "The receiver cannot start; correct these environment variables:\n"
                + "\n".join(faults)
            )
        given.setdefault("jwks_url", f"{given['supabase_url']}/auth/v1/.well-known/jwks.json")
        if given.get("cors_allow_localhost", True):
            given["cors_origins"] = (*given.get("cors_origins", ()), *LOCAL)
        return cls(**given)


def variables_by_field() -> dict[str, Variable]:
    """Return each field's variable, in the order of the fields."""
    hints = get_type_hints(Settings, include_extras=True)
    return {one.name: hints[one.name].__metadata__[0] for one in fields(Settings)}


def table() -> list[str]:
    """Return the README's table of settings, row by row."""
    variables = variables_by_field()
    rows = [variables[one.name].row(one.default) for one in fields(Settings)]
    return ["| variable | default | meaning |", "|---|---|---|", *rows]


def _as_written(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)
