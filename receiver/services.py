"""Builds everything that lives as long as the process, and closes it in reverse."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from receiver.core.logs import get_logger
from receiver.core.metrics import Metrics, Scrapes
from receiver.core.receiver_name import receiver_name
from receiver.core.settings import Settings
from receiver.core.stop_signals import told_to_stop
from receiver.on_demand.drift import Drifts
from receiver.on_demand.runs import Runs
from receiver.on_demand.status import StatusReport
from receiver.photos import fetch
from receiver.photos.album import Album
from receiver.photos.fetch import PhotoFetcher
from receiver.supabase import jwks, rest
from receiver.supabase.access_tokens import TokenVerifier
from receiver.supabase.company import Company
from receiver.supabase.ledger import Ledger
from receiver.sync.gate import Gate
from receiver.sync.photo_watch import PhotoWatch
from receiver.sync.push import Pushes
from receiver.sync.verification import Verifications
from receiver.sync.visit import Visits
from receiver.sync.worker import Worker
from receiver.terminals import http_client

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Services:
    """The services that the routes call."""

    worker: Worker
    runs: Runs
    drifts: Drifts
    photo_watch: PhotoWatch
    status: StatusReport
    tokens: TokenVerifier
    metrics: Metrics
    scrapes: Scrapes

    def stop(self) -> None:
        """Let no further call to a terminal begin; calls in flight end by themselves."""
        self.worker.stop()
        self.photo_watch.stop()
        self.runs.stop_all()
        self.drifts.stop_all()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Services]:
    """Run everything; on exit let the calls in flight end and give the terminals back."""
    async with (
        rest.http_client() as supabase_http,
        http_client.http_client() as terminals_http,
        jwks.http_client() as keys_http,
        fetch.http_client() as photos_http,
    ):
        client = await rest.connect(settings.supabase_url, settings.service_role_key, supabase_http)
        ledger = Ledger(
            client,
            receiver_name(),
            look_s=settings.look_s,
            verify_s=settings.verify_s,
            policy=settings.leaver_policy,
        )
        company = Company(client, settings.supabase_url)
        gate = Gate(lanes=settings.device_lanes, pause_s=settings.device_delay_s)
        fetcher = PhotoFetcher(
            photos_http,
            supabase_url=settings.supabase_url,
            service_role_key=settings.service_role_key,
            allowed_hosts=settings.photo_hosts,
        )
        album = Album(fetcher.fetch)
        metrics = Metrics()
        visits = Visits(settings, ledger, gate, terminals_http, album.jpeg, metrics)
        pushes = Pushes(settings.leaver_policy)
        verifications = Verifications(settings.leaver_policy, company)
        worker = Worker(settings, ledger, company, gate, visits, pushes, verifications)
        runs = Runs(company, visits, pushes, wake=worker.wake)
        drifts = Drifts(settings.leaver_policy, ledger, company, visits)
        published = jwks.Jwks(settings.jwks_url, keys_http)
        verifier = TokenVerifier(
            issuer=f"{settings.supabase_url}/auth/v1",
            jwks=published,
            jwt_secret=settings.jwt_secret,
            allowed_roles=settings.allowed_roles,
        )
        photo_watch = PhotoWatch(ledger, company, fetcher.seen, wake=worker.wake)
        working = asyncio.create_task(worker.run())
        watching = asyncio.create_task(photo_watch.run())
        prefetching = asyncio.create_task(published.prefetch())
        log.info("worker_started", lanes=settings.device_lanes, poll_s=settings.poll_s)
        services = Services(
            worker=worker,
            runs=runs,
            drifts=drifts,
            photo_watch=photo_watch,
            status=StatusReport(ledger, company),
            tokens=verifier,
            metrics=metrics,
            scrapes=Scrapes(metrics, ledger.standings),
        )
        try:
            with told_to_stop(services.stop):
                yield services
        finally:
            services.stop()
            await asyncio.gather(working, watching, runs.ended(), drifts.ended(), prefetching)
            log.info("worker_stopped")
