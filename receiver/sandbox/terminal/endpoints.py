"""The paths and methods of a simulated terminal, as far as its firmware has them.

The table is that of terminals/README.md, Calls. The profile decides which of its rows are there, so
an upgrade changes them.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from receiver.sandbox.terminal.answers import Document, Refusal
from receiver.sandbox.terminal.faces import FaceCalls
from receiver.sandbox.terminal.memory import Profile
from receiver.sandbox.terminal.payloads import Request
from receiver.sandbox.terminal.persons import PersonCalls

CarryOut = Callable[[Request], Awaitable[Document]]

_USER_INFO = "/ISAPI/AccessControl/UserInfo"
_USER_INFO_DETAIL = "/ISAPI/AccessControl/UserInfoDetail"
_FDLIB = "/ISAPI/Intelligent/FDLib"


class EndpointMissing(Exception):
    """This firmware does not have the path at all."""


def _always(_: Profile) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """The call behind a path and a method."""

    carry_out: CarryOut
    has_body: bool = False
    writes: bool = False
    needs_format: bool = True
    """Whether it must be called with `?format=json`."""
    takes_uploads: bool = False
    """Whether it takes uploads, where the profile does so too."""
    deletes: tuple[str, ...] = ()
    """The keys under which its body carries the numbers to delete."""
    there: Callable[[Profile], bool] = _always


class Endpoints:
    """Finds the endpoint of a request."""

    def __init__(self, persons: PersonCalls, faces: FaceCalls, *, device_info: CarryOut) -> None:
        self._table = {
            **_person_endpoints(persons),
            **_face_endpoints(faces),
            "/ISAPI/System/deviceInfo": {
                "GET": Endpoint(carry_out=device_info, needs_format=False)
            },
        }

    def find(self, request: Request, profile: Profile) -> Endpoint:
        """Return the endpoint; raise EndpointMissing, or Refusal for a wrong method."""
        there = {
            method: endpoint
            for method, endpoint in self._table.get(request.path, {}).items()
            if endpoint.there(profile)
        }
        if not there:
            raise EndpointMissing
        if request.method not in there:
            raise Refusal("methodNotAllowed", http=405)
        return there[request.method]


def numbers_to_delete(endpoint: Endpoint, payload: dict[str, object]) -> int:
    """Count the numbers that a request to delete carries, however wrong the rest of it is."""
    found: object = payload
    for key in endpoint.deletes:
        found = found.get(key) if isinstance(found, dict) else None
    return len(found) if isinstance(found, list) else 0


def _reads(carry_out: CarryOut, there: Callable[[Profile], bool] = _always) -> Endpoint:
    return Endpoint(carry_out=carry_out, there=there)


def _searches(carry_out: CarryOut, there: Callable[[Profile], bool] = _always) -> Endpoint:
    return Endpoint(carry_out=carry_out, has_body=True, there=there)


def _writes(carry_out: CarryOut, there: Callable[[Profile], bool] = _always) -> Endpoint:
    return Endpoint(carry_out=carry_out, has_body=True, writes=True, there=there)


def _deletes(
    carry_out: CarryOut, *numbers: str, there: Callable[[Profile], bool] = _always
) -> Endpoint:
    return Endpoint(carry_out=carry_out, has_body=True, writes=True, deletes=numbers, there=there)


def _takes_pictures(carry_out: CarryOut, there: Callable[[Profile], bool] = _always) -> Endpoint:
    return Endpoint(
        carry_out=carry_out, has_body=True, writes=True, takes_uploads=True, there=there
    )


def _person_endpoints(persons: PersonCalls) -> dict[str, dict[str, Endpoint]]:
    return {
        f"{_USER_INFO}/Record": {"POST": _writes(persons.record)},
        f"{_USER_INFO}/Modify": {
            "PUT": _writes(persons.modify, lambda p: p.modify_by == "PUT"),
            "POST": _writes(persons.modify, lambda p: p.modify_by == "POST"),
        },
        f"{_USER_INFO}/SetUp": {"PUT": _writes(persons.set_up, lambda p: p.has_set_up)},
        f"{_USER_INFO}/Search": {"POST": _searches(persons.search, lambda p: p.has_search)},
        f"{_USER_INFO}/Count": {"GET": _reads(persons.count)},
        f"{_USER_INFO}/capabilities": {
            "GET": _reads(persons.capabilities, lambda p: p.has_capabilities)
        },
        f"{_USER_INFO}/Delete": {
            "PUT": _deletes(persons.delete_now, "UserInfoDelCond", "EmployeeNoList")
        },
        f"{_USER_INFO_DETAIL}/Delete": {
            "PUT": _deletes(
                persons.delete,
                "UserInfoDetail",
                "EmployeeNoList",
                there=lambda p: p.has_user_info_detail,
            )
        },
        # the guides write this one without ?format=json
        f"{_USER_INFO_DETAIL}/DeleteProcess": {
            "GET": Endpoint(
                carry_out=persons.delete_process,
                needs_format=False,
                there=lambda p: p.has_user_info_detail,
            )
        },
    }


def _face_endpoints(faces: FaceCalls) -> dict[str, dict[str, Endpoint]]:
    return {
        f"{_FDLIB}/capabilities": {"GET": _reads(faces.capabilities, lambda p: p.has_capabilities)},
        f"{_FDLIB}/FaceDataRecord": {"POST": _takes_pictures(faces.record)},
        f"{_FDLIB}/FDSetUp": {"PUT": _takes_pictures(faces.set_up, lambda p: p.has_fd_setup)},
        f"{_FDLIB}/FDModify": {"PUT": _takes_pictures(faces.modify, lambda p: p.has_fd_modify)},
        f"{_FDLIB}/FDSearch": {"POST": _searches(faces.search)},
        f"{_FDLIB}/FDSearch/Delete": {
            "PUT": _deletes(faces.delete, "FPID", there=lambda p: p.has_fd_search_delete)
        },
        f"{_FDLIB}/FDDelete": {  # CH
            "PUT": _deletes(faces.delete, "FPID", there=lambda p: not p.has_fd_search_delete)
        },
    }
