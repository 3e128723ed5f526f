"""The OpenAPI document of all routes, written by hand and held to the code by tests."""

from typing import Any, Final

Json = dict[str, Any]

_UUID: Final[Json] = {"type": "string", "format": "uuid"}
_UUID_TEXT: Final = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_TEXT: Final[Json] = {"type": "string"}
_MAYBE_TEXT: Final[Json] = {"type": ["string", "null"]}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_STATUS: Final[Json] = {"enum": ["success", "partial", "skipped", "fatal"]}


def _object(properties: Json, *, required: list[str] | None = None) -> Json:
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _body(schema: Json, media_type: str = "application/json") -> Json:
    return {media_type: {"schema": schema}}


def _answer(description: str, schema: Json) -> Json:
    return {"description": description, "content": _body(schema)}


def _refusals(*statuses: int) -> Json:
    return {
        str(status): {
            "description": _REFUSALS[status],
            "content": _body(_ref("Problem"), "application/problem+json"),
        }
        for status in statuses
    }


_REFUSALS: Final = {
    400: "The body is not JSON.",
    401: "Not signed, or not signed in: missing, wrong or too old.",
    403: "Signed in, but the role may not.",
    404: "No such employee, run or active terminal.",
    408: "The body did not arrive within 10 s.",
    409: "No active terminal, or a sync of all is going on already (its id is in run_id).",
    413: "The body is larger than 1 MiB.",
    422: "The body does not say what is needed.",
    429: "Pressed too often, or too many runs go on; Retry-After says how many seconds to wait.",
    503: "Supabase cannot be reached, or the receiver is not ready.",
}
_SIGNED_IN: Final = (401, 403, 503)
_PRESSED: Final = (400, 401, 403, 404, 408, 409, 413, 422, 429, 503)

_RESULT: Final[Json] = {
    "device_id": _UUID,
    "status": _STATUS,
    "step": {"enum": ["person", "photo", "done"]},
    "message": _TEXT,
}
_ENDING: Final[Json] = {
    "run_id": _UUID,
    "summary": _ref("Summary"),
    "stopped_because": _MAYBE_TEXT,
    "not_reached": _list(_object({"angajat_id": _UUID, "device_ids": _list(_UUID)})),
}
_PROGRESS: Final[Json] = {
    "run_id": _UUID,
    "state": {"enum": ["running", "ended"]},
    "done": _COUNT,
    "total": _COUNT,
    "summary": _ref("Summary"),
}

_PERSON: Final[Json] = {
    "employee_no": _TEXT,
    "angajat_id": _UUID,
    "name": _TEXT,
    "waiting": {"type": "boolean"},
}

_VERIFIED: Final[Json] = _object(
    {"persons": _COUNT, "different": _COUNT, "missing": _COUNT, "unknown": _COUNT}
)

_SCHEMAS: Final[Json] = {
    "Problem": _object(
        {
            "type": _TEXT,
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "run_id": _UUID,
        },
        required=["type", "title", "status", "detail"],
    ),
    "Summary": _object(
        {
            "success": _COUNT,
            "partial": _COUNT,
            "skipped": _COUNT,
            "fatal": _COUNT,
            "first_fatal": _MAYBE_TEXT,
        }
    ),
    "Result": _object(_RESULT),
    "OneResult": _object({**_ENDING, "per_device": _list(_ref("Result"))}),
    "AllResult": _object(
        {
            **_ENDING,
            "results": _list(
                _object({"angajat_id": _UUID, "name": _TEXT, "per_device": _list(_ref("Result"))})
            ),
        }
    ),
    "Progress": _object(
        {**_PROGRESS, "result": {"anyOf": [_ref("OneResult"), _ref("AllResult")]}},
        required=list(_PROGRESS),
    ),
    "StreamLine": {
        "description": "One line of a stream; `type` tells which.",
        "anyOf": [
            _object(
                {
                    "type": {"const": "start"},
                    "run_id": _UUID,
                    "total": _COUNT,
                    "employees": _COUNT,
                    "devices": _COUNT,
                }
            ),
            _object(
                {
                    "type": {"const": "result"},
                    "angajat_id": _UUID,
                    "name": _TEXT,
                    **_RESULT,
                    "done": _COUNT,
                    "total": _COUNT,
                }
            ),
            _object(
                {
                    "type": {"const": "amended"},
                    "angajat_id": _UUID,
                    "name": _TEXT,
                    **_RESULT,
                    "done": _COUNT,
                    "total": _COUNT,
                }
            ),
            _object({"type": {"const": "ping"}, "done": _COUNT, "total": _COUNT}),
            _object({"type": {"const": "end"}, **_ENDING}),
        ],
    },
    "Status": _object(
        {
            "devices": _list(
                _object(
                    {
                        "device_id": _UUID,
                        "host": _MAYBE_TEXT,
                        "reachable": {"type": ["boolean", "null"]},
                        "why_not": _MAYBE_TEXT,
                        "rests_until": _MAYBE_TEXT,
                        "looked_at": _MAYBE_TEXT,
                        "model": _MAYBE_TEXT,
                        "firmware": _MAYBE_TEXT,
                        "in_step": _COUNT,
                        "wanted": _COUNT,
                        "failed": _COUNT,
                        "unknown": _COUNT,
                        "oldest_wanted_at": _MAYBE_TEXT,
                        "confirmed_at": _MAYBE_TEXT,
                        "verified_at": _MAYBE_TEXT,
                        "verified": {"anyOf": [_VERIFIED, {"type": "null"}]},
                    }
                )
            ),
            "failed": _list(
                _object(
                    {
                        "angajat_id": _UUID,
                        "name": _MAYBE_TEXT,
                        "device_id": _UUID,
                        "status": _STATUS,
                        "step": {"enum": ["person", "photo", "done"]},
                        "message": _TEXT,
                        "since": _MAYBE_TEXT,
                        "last_attempt_at": _MAYBE_TEXT,
                        "next_attempt_at": _MAYBE_TEXT,
                    }
                )
            ),
            "next": _MAYBE_TEXT,
        }
    ),
    "Drift": _object(
        {
            "device_id": _UUID,
            "complete": {"type": "boolean"},
            "error": _MAYBE_TEXT,
            "summary": _object(
                {"persons": _COUNT, "missing": _COUNT, "different": _COUNT, "unknown": _COUNT}
            ),
            "missing": _list(_object(_PERSON)),
            "different": _list(_object({**_PERSON, "differences": _list(_TEXT)})),
            "unknown": _list(_object({"employee_no": _TEXT, "name": _MAYBE_TEXT})),
        }
    ),
    "Options": _object(
        {"on_fatal": {"enum": ["stop", "continue"], "default": "stop"}}, required=[]
    ),
    "EmployeeOptions": _object(
        {"angajat_id": _UUID, "on_fatal": {"enum": ["stop", "continue"], "default": "stop"}},
        required=["angajat_id"],
    ),
    "Event": _object(
        {
            "type": {"enum": ["INSERT", "UPDATE", "DELETE"]},
            "table": {"enum": ["angajati", "angajati_biometrie"]},
            "schema": {"const": "public"},
            "record": {"type": ["object", "null"]},
            "old_record": {"type": ["object", "null"]},
        },
        required=["type", "table", "schema"],
    ),
}


def _button(summary: str, options: str, result: str, *, needs_body: bool) -> Json:
    return {
        "post": {
            "summary": summary,
            "description": (
                "A run that was carried out answers 200 whatever its results say. With "
                "`Accept: application/x-ndjson` it is streamed, one JSON object a line."
            ),
            "security": [{"accessToken": []}],
            "requestBody": {"required": needs_body, "content": _body(_ref(options))},
            "responses": {
                "200": {
                    "description": "The run has ended, or is streamed.",
                    "headers": {"X-Run-Id": {"required": True, "schema": _UUID}},
                    "content": {
                        **_body(_ref(result)),
                        **_body(_ref("StreamLine"), "application/x-ndjson"),
                    },
                },
                **_refusals(*_PRESSED),
            },
        }
    }


def _header(name: str) -> Json:
    return {"name": name, "in": "header", "required": True, "schema": _TEXT}


DOCUMENT: Final[Json] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Hikvision receiver",
        "version": "0.1.0",
        "description": "Keeps Hikvision face terminals in step with HR in Supabase.",
    },
    "paths": {
        "/webhooks/supabase": {
            "post": {
                "summary": "An edit of HR's, signed by Standard Webhooks",
                "parameters": [
                    _header(name)
                    for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
                ],
                "requestBody": {"required": True, "content": _body(_ref("Event"))},
                "responses": {
                    "202": _answer(
                        "The worker is awake.",
                        _object(
                            {
                                "accepted": {"const": True},
                                "angajat_id": {"type": ["string", "null"], "format": "uuid"},
                            }
                        ),
                    ),
                    **_refusals(400, 401, 408, 413, 422),
                },
            }
        },
        "/api/hikvision/sync-angajat-all-devices": _button(
            "One employee to all active terminals", "EmployeeOptions", "OneResult", needs_body=True
        ),
        "/api/hikvision/sync-all-to-all-devices": _button(
            "All active employees to all active terminals",
            "Options",
            "AllResult",
            needs_body=False,
        ),
        "/api/hikvision/sync-angajat-photo-only": _button(
            "One employee's photo to all active terminals",
            "EmployeeOptions",
            "OneResult",
            needs_body=True,
        ),
        "/api/hikvision/runs/{run_id}": {
            "parameters": [{"name": "run_id", "in": "path", "required": True, "schema": _TEXT}],
            "get": {
                "summary": "How far a run is, and its result for an hour",
                "security": [{"accessToken": []}],
                "responses": {
                    "200": _answer("The run.", _ref("Progress")),
                    **_refusals(*_SIGNED_IN, 404),
                },
            },
            "delete": {
                "summary": "Have a run end before its next pair",
                "security": [{"accessToken": []}],
                "responses": {
                    "202": _answer("It will end.", _ref("Progress")),
                    **_refusals(*_SIGNED_IN, 404),
                },
            },
        },
        "/api/hikvision/status": {
            "get": {
                "summary": "How every active terminal stands, from the ledger alone",
                "security": [{"accessToken": []}],
                "parameters": [
                    {
                        "name": "limit",
                        "in": "query",
                        "schema": {"type": "integer", "minimum": 1, "maximum": 200},
                    },
                    {
                        "name": "after",
                        "in": "query",
                        "description": "`next` of the page before",
                        "schema": {"type": "string", "pattern": f"^{_UUID_TEXT}[.]{_UUID_TEXT}$"},
                    },
                ],
                "responses": {
                    "200": _answer("Terminals, and a page of failed pairs.", _ref("Status")),
                    **_refusals(*_SIGNED_IN, 422),
                },
            }
        },
        "/api/hikvision/devices/{device_id}/drift": {
            "parameters": [{"name": "device_id", "in": "path", "required": True, "schema": _TEXT}],
            "get": {
                "summary": "What one terminal holds against what HR says, asked of it now",
                "description": (
                    "Changes nothing. With `Accept: application/x-ndjson` it is streamed, one JSON "
                    "object a line."
                ),
                "security": [{"accessToken": []}],
                "responses": {
                    "200": {
                        "description": "It was compared, or `error` says why not.",
                        "content": {
                            **_body(_ref("Drift")),
                            **_body({"type": "object"}, "application/x-ndjson"),
                        },
                    },
                    **_refusals(*_SIGNED_IN, 404, 429),
                },
            },
        },
        "/healthz": {
            "get": {
                "summary": "Whether the process is alive",
                "responses": {"200": _answer("It is.", _object({"status": {"const": "ok"}}))},
            }
        },
        "/readyz": {
            "get": {
                "summary": "Whether the worker can do its work",
                "responses": {
                    "200": _answer("It can.", _object({"status": {"const": "ready"}})),
                    **_refusals(503),
                },
            }
        },
        "/metrics": {
            "get": {
                "summary": "The receiver's figures for Prometheus",
                "responses": {
                    "200": {
                        "description": "In Prometheus' text format.",
                        "content": _body(_TEXT, "text/plain"),
                    }
                },
            }
        },
        "/openapi.json": {
            "get": {
                "summary": "This document",
                "responses": {"200": _answer("This document.", {"type": "object"})},
            }
        },
    },
    "components": {
        "schemas": _SCHEMAS,
        "securitySchemes": {
            "accessToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        },
    },
}
