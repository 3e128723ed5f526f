"""The firmware of a simulated terminal: from an authenticated request to its answer."""

import asyncio

from receiver.sandbox.terminal.answers import (
    Answer,
    Document,
    Refusal,
    carried_out,
    missing,
    refused,
)
from receiver.sandbox.terminal.endpoints import (
    Endpoint,
    EndpointMissing,
    Endpoints,
    numbers_to_delete,
)
from receiver.sandbox.terminal.memory import Device
from receiver.sandbox.terminal.payloads import Request, parse, parse_upload


class Firmware:
    """Answers requests as the profile of `device` says: busy and lying, too, now and then."""

    def __init__(self, device: Device, endpoints: Endpoints) -> None:
        self._device = device
        self._endpoints = endpoints
        self._writes_seen = 0

    async def answer(self, request: Request, body: bytes) -> Answer:
        """Carry out the call and return the answer."""
        profile = self._device.profile
        await asyncio.sleep(profile.delay_s)
        try:
            document = await self._carry_out(request, body)
        except EndpointMissing:
            return missing(profile=profile, path=request.path)
        except Refusal as refusal:
            return refused(refusal, profile=profile, path=request.path)
        return carried_out(document, profile=profile, path=request.path)

    async def _carry_out(self, request: Request, body: bytes) -> Document:
        endpoint = self._endpoints.find(request, self._device.profile)
        if endpoint.needs_format and request.query.get("format") != "json":
            raise Refusal("badURLFormat", "format")
        if not endpoint.writes:
            if endpoint.has_body:
                request.payload = parse(body)
            return await endpoint.carry_out(request)
        return await self._write(endpoint, request, body)

    async def _write(self, endpoint: Endpoint, request: Request, body: bytes) -> Document:
        profile, sightings = self._device.profile, self._device.sightings
        self._writes_seen += 1
        try:
            if request.is_form and endpoint.takes_uploads and profile.takes_uploads:
                request.payload, request.picture = await asyncio.to_thread(
                    parse_upload, request.content_type, body, profile.upload_parts
                )
            else:
                request.payload = parse(body)
        finally:
            if endpoint.deletes and numbers_to_delete(endpoint, request.payload) != 1:
                sightings.deletions_not_of_one += 1
        sightings.bodies.append(request.payload)
        if self._is_turn(profile.busy_every):
            raise Refusal("deviceBusy", http=profile.busy_http)
        if self._is_turn(profile.lies_every) and (
            profile.lies_about_replaced_faces or not self._replaces_face(endpoint, request)
        ):
            return None
        return await endpoint.carry_out(request)

    def _replaces_face(self, endpoint: Endpoint, request: Request) -> bool:
        person = self._device.persons.get(str(request.payload.get("FPID")))
        return endpoint.takes_uploads and person is not None and person.face is not None

    def _is_turn(self, every: int) -> bool:
        return every > 0 and self._writes_seen % every == 0
