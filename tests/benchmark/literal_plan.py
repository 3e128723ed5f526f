"""The plan done literally: the baseline that the receiver is measured against.

Each webhook is carried out before it is answered: the employee is read, and person and photo are
sent to every active terminal, one blocking call after another and the pause between them. What a
terminal holds already is sent again; nothing is written down, asked back or tried again. It is not
made worse than the plan: one upsert for the person, one for the face, both by the first call that
current terminals know, and the login answered on the connection of its challenge.
"""

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import requests
from requests.auth import HTTPDigestAuth
from standardwebhooks import Webhook
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

EMPLOYEE = "id,nume,prenume,nume_complet,status,angajati_biometrie(employee_no,foto_fata_url)"
TERMINAL = "id,ip_address,port,username,password_encrypted"
CALL_S = 45.0

Json = dict[str, Any]


class LiteralPlan:
    """Reads employees and terminals over REST, and pushes."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._rest = f"{environ['SUPABASE_URL']}/rest/v1"
        key = environ["SUPABASE_SERVICE_ROLE_KEY"]
        self._headers = {"apikey": key, "Authorization": f"Bearer {key}"}
        self._pause_s = float(environ["DEVICE_DELAY_SECONDS"])
        self._one_call = threading.Lock()
        self._free_at = 0.0

    def push_one(self, employee_id: str) -> int:
        """Push one employee to every terminal; return to how many."""
        found = self._rows("angajati", {"select": EMPLOYEE, "id": f"eq.{employee_id}"})
        return sum(self._push(employee, self._terminals()) for employee in found)

    def push_all(self) -> int:
        """Push all active employees to every terminal; return how many pairs."""
        found = self._rows("angajati", {"select": EMPLOYEE, "status": "eq.activ", "order": "id"})
        terminals = self._terminals()
        return sum(self._push(employee, terminals) for employee in found)

    def _push(self, employee: Json, terminals: list[Json]) -> int:
        biometrics = employee["angajati_biometrie"] or {}
        if employee["status"] != "activ" or biometrics.get("employee_no") is None:
            return 0
        number = str(biometrics["employee_no"])
        for terminal in terminals:
            self._call(terminal, "AccessControl/UserInfo/SetUp", _person(employee, number))
            if url := biometrics["foto_fata_url"]:
                face = {"faceURL": url, "faceLibType": "blackFD", "FDID": "1", "FPID": number}
                self._call(terminal, "Intelligent/FDLib/FDSetUp", face)
        return len(terminals)

    def _terminals(self) -> list[Json]:
        query = {"select": TERMINAL, "status": "eq.activ", "order": "id"}
        return self._rows("dispozitive_pontaj", query)

    def _rows(self, table: str, query: Mapping[str, str]) -> list[Json]:
        answer = requests.get(
            f"{self._rest}/{table}", params=query, headers=self._headers, timeout=CALL_S
        )
        answer.raise_for_status()
        rows: list[Json] = answer.json()
        return rows

    def _call(self, terminal: Json, path: str, body: Json) -> None:
        """Make one call in its turn; raise for every answer that is not a success."""
        login = HTTPDigestAuth(terminal["username"], terminal["password_encrypted"])
        with self._one_call:
            time.sleep(max(0.0, self._free_at - time.monotonic()))
            try:
                answer = requests.put(
                    f"http://{terminal['ip_address']}:{terminal['port']}/ISAPI/{path}?format=json",
                    json=body,
                    auth=login,
                    timeout=CALL_S,
                )
            finally:
                self._free_at = time.monotonic() + self._pause_s
        answer.raise_for_status()


def _person(employee: Json, number: str) -> Json:
    name = f"{employee['nume'] or ''} {employee['prenume'] or ''}".strip()
    return {
        "UserInfo": {
            "employeeNo": number,
            "name": name or employee["nume_complet"],
            "userType": "normal",
            "Valid": {
                "enable": True,
                "beginTime": "2020-01-01T00:00:00",
                "endTime": "2037-12-31T23:59:59",
                "timeType": "local",
            },
            "doorRight": "1",
            "RightPlan": [{"doorNo": 1, "planTemplateNo": "1"}],
        }
    }


def create_app() -> Starlette:
    """Return the service, which reads the receiver's own environment variables."""
    plan = LiteralPlan(os.environ)
    secret = Webhook(os.environ["WEBHOOK_SECRET"])

    async def webhook(request: Request) -> Response:
        event = secret.verify(await request.body(), dict(request.headers))
        record = event["record"] or event["old_record"]
        employee_id = record.get("angajat_id", record["id"])
        return JSONResponse({"pushed": await run_in_threadpool(plan.push_one, employee_id)})

    async def sync_all(_: Request) -> Response:
        return JSONResponse({"pushed": await run_in_threadpool(plan.push_all)})

    async def healthz(_: Request) -> Response:
        return Response()

    return Starlette(
        routes=[
            Route("/webhooks/supabase", webhook, methods=["POST"]),
            Route("/api/hikvision/sync-all-to-all-devices", sync_all, methods=["POST"]),
            Route("/healthz", healthz),
        ]
    )
