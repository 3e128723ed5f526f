"""PostgREST's errors: `{code, message, details, hint}` and the HTTP status of each.

Source: docs.postgrest.org, "Errors".
"""

from dataclasses import dataclass

import psycopg

# Whole codes first, then the two characters that name a class of them.
STATUS = {
    "21000": 400,
    "22P02": 400,
    "23503": 409,
    "23505": 409,
    "25006": 405,
    "42501": 403,
    "42883": 404,
    "42P01": 404,
    "42P17": 500,
    "53400": 500,
    "57P01": 503,
    "P0001": 400,
}
CLASS_STATUS = {
    "08": 503,
    "09": 500,
    "0L": 403,
    "0P": 403,
    "25": 500,
    "28": 403,
    "2D": 500,
    "38": 500,
    "39": 500,
    "3B": 500,
    "40": 500,
    "53": 503,
    "54": 500,
    "55": 500,
    "57": 500,
    "58": 500,
    "F0": 500,
    "HV": 500,
    "P0": 500,
    "XX": 500,
}
FORBIDDEN = 403


@dataclass(eq=False)  # not frozen: Python notes the traceback on an exception
class RestError(Exception):
    """A request that PostgREST answers with an error."""

    status: int
    code: str
    message: str
    details: str | None = None
    hint: str | None = None

    def as_json(self) -> dict[str, str | None]:
        """Return the body of the answer."""
        return {
            "code": self.code,
            "details": self.details,
            "hint": self.hint,
            "message": self.message,
        }


def from_postgres(error: psycopg.Error, *, anonymous: bool) -> RestError:
    """Return what PostgREST answers to an error of Postgres'.

    A missing right is 401 for a caller who did not sign in, and 403 for all others.
    """
    code = error.sqlstate
    if code is None:
        if isinstance(error, psycopg.OperationalError):
            return RestError(503, "PGRST001", "Database client error. Retrying the connection.")
        return RestError(400, "22P02", str(error))  # a value that no literal can be made of
    status = STATUS.get(code, CLASS_STATUS.get(code[:2], 400))
    if status == FORBIDDEN and anonymous:
        status = 401
    said = error.diag
    return RestError(
        status, code, said.message_primary or "", said.message_detail, said.message_hint
    )
