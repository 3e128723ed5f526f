"""The baseline: the smallest FastAPI endpoint that verifies with the reference package.

No ledger behind it, no log, no limits, one secret: what a tutorial ends with.
"""

import os
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from standardwebhooks.webhooks import Webhook, WebhookVerificationError


def create_app() -> FastAPI:
    """Return the app; it reads the same secret as ours."""
    app = FastAPI()
    webhook = Webhook(os.environ["WEBHOOK_SECRET"])

    @app.post("/webhooks/supabase", status_code=202)
    async def supabase_webhook(request: Request) -> dict[str, Any]:
        try:
            event = webhook.verify(await request.body(), dict(request.headers))
        except WebhookVerificationError:
            raise HTTPException(401) from None
        return {"accepted": True, "angajat_id": event["record"]["id"]}

    return app
