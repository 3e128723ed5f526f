"""Terminals as they hang on real walls, by name: each profile is a firmware that somebody met.

Sources and headings are those of terminals/README.md: G1 and G2 are Hikvision's guides, the others
are public integrations run on real hardware.
"""

from collections.abc import Mapping
from types import MappingProxyType

from receiver.sandbox.terminal.memory import MODERN, Profile

_VER10 = "http://www.hikvision.com/ver10/XMLSchema"

_PROFILES = (
    # What the guides describe and SK's DS-K1T342MFWX-E1 does: everything is there.
    MODERN,
    # HA's DS-KV6124-E1 declares name.@max 32 (Limits).
    Profile(name="names_32", model="DS-KV6124-E1", firmware="V3.9.0", name_bytes=32),
    # FG's DS-K1T672MX keeps 32 bytes of a name (Limits); that it cuts them itself is our reading.
    Profile(
        name="cuts_names",
        model="DS-K1T672MX",
        firmware="V3.18",
        name_bytes=32,
        cuts_names=True,
    ),
    # FG's DS-K1T672MX: FDSetUp and UserInfo/Search are 404; Modify by POST only (BL) (Calls).
    Profile(
        name="no_upsert_no_search",
        model="DS-K1T672MX",
        firmware="V3.18",
        has_set_up=False,
        has_fd_setup=False,
        has_search=False,
        modify_by="POST",
    ),
    # XML where JSON was asked for, another namespace (Calls), errors as HTTP 200 (SK).
    Profile(name="xml", answers="xml", xml_namespace=_VER10, errors_http=200),
    # FC: an external URL is urlDownloadFail; CH's DS-K1T341AMF takes FaceImage on FDSetUp.
    Profile(
        name="upload_only",
        model="DS-K1T341AMF",
        downloads_photos=False,
        upload_parts=("FaceDataRecord", "FaceImage"),
    ),
    # G2's names of the parts (Calls), and a limit of URLs too short for any signed one.
    Profile(
        name="upload_g2",
        upload_parts=("faceURL", "img"),
        face_url_bytes=32,
        fd_capabilities="wrapped",
    ),
    # DS-K1T321MFWX: takes the flat body, and URLs of 1024 bytes (Calls, Limits).
    Profile(name="url_only", model="DS-K1T321MFWX", takes_uploads=False, face_url_bytes=1024),
    # Modelling takes seconds: SK waits 45 s, CH 30 s (Limits). Shorter here, for tests.
    Profile(name="slow_faces", face_delay_s=0.3),
    # deviceBusy, as 503 …
    Profile(name="busy", busy_every=3),
    # … and as HTTP 200 with statusCode 2.
    Profile(name="busy_200", busy_every=3, busy_http=200, errors_http=200),
    # deviceUserFull (codes.csv).
    Profile(name="full", max_persons=3),
    # 200 is not proof (Traps; BL on Modify).
    Profile(name="lying", lies_every=4),
    # notSupport as 403 (G2 §4.2.6).
    Profile(name="no_capabilities", has_capabilities=False, missing="403"),
    # Persons are deleted by UserInfo/Delete (SK, FG) and faces by FDDelete (CH) (Calls).
    Profile(
        name="old_deletes",
        has_user_info_detail=False,
        has_fd_search_delete=False,
        missing="405",
    ),
)

PROFILES: Mapping[str, Profile] = MappingProxyType({profile.name: profile for profile in _PROFILES})
"""Every profile by its name."""
