"""Builds everything that lives as long as the process, and closes it in reverse."""

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from receiver import isapi, supabase_rest
from receiver.directory import Directory
from receiver.gate import Gate
from receiver.ledger import Ledger
from receiver.logs import get_logger
from receiver.settings import Settings
from receiver.visits import Visits
from receiver.worker import Worker

log = get_logger(__name__)


def receiver_name() -> str:
    """Return a name for this process's leases: where it runs, and never twice the same."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


@asynccontextmanager
async def running_worker(settings: Settings) -> AsyncIterator[Worker]:
    """Run the worker; on exit let it finish its call in flight and give its terminals back."""
    async with supabase_rest.http_client() as supabase_http, isapi.http_client() as terminals_http:
        client = await supabase_rest.connect(
            settings.supabase_url, settings.service_role_key, supabase_http
        )
        ledger = Ledger(client, receiver_name())
        gate = Gate(lanes=settings.device_lanes, pause_s=settings.device_delay_s)
        worker = Worker(
            settings,
            ledger,
            Directory(client, settings.supabase_url),
            gate,
            Visits(settings, ledger, gate, terminals_http),
        )
        task = asyncio.create_task(worker.run())
        log.info("worker_started", lanes=settings.device_lanes, poll_s=settings.poll_s)
        try:
            yield worker
        finally:
            worker.stop()
            await task
            log.info("worker_stopped")
