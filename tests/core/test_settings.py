"""The environment: every fault named at once, no value repeated, the defaults of the design."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.core.errors import SettingsInvalid
from receiver.core.setting_values import MAX_SECRETS
from receiver.core.settings import Settings

SECRET = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"
OTHER_SECRET = f"whsec_{base64.b64encode(bytes(range(32, 64))).decode()}"
REQUIRED = {
    "SUPABASE_URL": "https://abcdefgh.supabase.co",
    "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_abc",
    "WEBHOOK_SECRET": SECRET,
}
REPOSITORY = Path(__file__).parents[2]


def read(**changes: str) -> Settings:
    return Settings.from_env(REQUIRED | changes)


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsInvalid) as caught:
        Settings.from_env(environ)
    return caught.value.message


def named(message: str) -> list[str]:
    """The variables that a refusal names, one to a line."""
    return [line.split(":")[0].strip() for line in message.splitlines()[1:]]


def test_the_defaults_are_those_of_the_design() -> None:
    found = read()
    assert found.supabase_url == "https://abcdefgh.supabase.co"
    assert found.service_role_key == "sb_secret_abc"
    assert found.webhook_keys == (bytes(range(32)),)
    assert found.device_delay_s == 1.0
    assert found.device_timeout_s == 15.0
    assert found.face_timeout_s == 45.0
    assert found.device_lanes == 1
    assert found.leaver_policy == "expire"
    assert found.poll_s == 30.0
    assert found.log_format == "json"


@pytest.mark.parametrize(
    ("name", "text", "attribute", "expected"),
    [
        ("SUPABASE_URL", "https://abc.supabase.co/", "supabase_url", "https://abc.supabase.co"),
        ("SUPABASE_URL", " http://127.0.0.1:54321\n", "supabase_url", "http://127.0.0.1:54321"),
        ("SUPABASE_URL", "http://[::1]:8000", "supabase_url", "http://[::1]:8000"),
        ("SUPABASE_SERVICE_ROLE_KEY", " eyJhbGciOi.eyJyb2.c2ln ", "service_role_key",
         "eyJhbGciOi.eyJyb2.c2ln"),
        ("WEBHOOK_SECRET", f" {SECRET}\n  {OTHER_SECRET} ", "webhook_keys",
         (bytes(range(32)), bytes(range(32, 64)))),
        ("DEVICE_DELAY_SECONDS", "0", "device_delay_s", 0.0),
        ("DEVICE_DELAY_SECONDS", "2.5", "device_delay_s", 2.5),
        ("DEVICE_DELAY_SECONDS", "60", "device_delay_s", 60.0),
        ("DEVICE_TIMEOUT_SECONDS", "0.1", "device_timeout_s", 0.1),
        ("DEVICE_TIMEOUT_SECONDS", "300", "device_timeout_s", 300.0),
        ("DEVICE_TIMEOUT_SECONDS", "44", "face_timeout_s", 45.0),
        ("DEVICE_TIMEOUT_SECONDS", "90", "face_timeout_s", 90.0),
        ("DEVICE_LANES", "256", "device_lanes", 256),
        ("LEAVER_POLICY", "delete", "leaver_policy", "delete"),
        ("LEAVER_POLICY", "keep", "leaver_policy", "keep"),
        ("POLL_SECONDS", "3600", "poll_s", 3600.0),
        ("LOG_FORMAT", "console", "log_format", "console"),
        ("SUPABASE_JWT_SECRET", f" {'s' * 40} ", "jwt_secret", "s" * 40),
        ("SUPABASE_JWKS_URL", "https://keys.example/jwks.json", "jwks_url",
         "https://keys.example/jwks.json"),
        ("CORS_ALLOW_LOCALHOST", "FALSE", "cors_allow_localhost", False),
        ("LOOK_SECONDS", "1", "look_s", 1.0),
        ("PORT", "65535", "port", 65535),
    ],
)  # fmt: skip
def test_a_variable_that_is_set_counts(
    name: str, text: str, attribute: str, expected: object
) -> None:
    assert getattr(read(**{name: text}), attribute) == expected


LISTS = ("CORS_ALLOWED_ORIGINS", "SYNC_ALLOWED_ROLES", "PHOTO_HOSTS")


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_a_blank_variable_counts_as_absent(blank: str) -> None:
    optional = ["DEVICE_DELAY_SECONDS", "DEVICE_LANES", "LEAVER_POLICY", "LOG_FORMAT", *LISTS]
    assert read(**dict.fromkeys(optional, blank)) == read()
    assert named(refusal(dict.fromkeys(REQUIRED, blank))) == list(REQUIRED)


@pytest.mark.parametrize("name", [*LISTS, "WEBHOOK_SECRET"])
@pytest.mark.parametrize("text", [",", " , ", ",,\t,\n"])
def test_a_list_that_names_nothing_is_refused(name: str, text: str) -> None:
    """An empty list of allowed roles restricts nothing: a typing mistake would let everybody in."""
    assert named(refusal(REQUIRED | {name: text})) == [name]


@pytest.mark.parametrize("text", ["hr,admin", " hr , admin ", "hr,,admin,"])
def test_allowed_roles_are_those_between_the_commas(text: str) -> None:
    assert read().allowed_roles == frozenset()
    assert read(SYNC_ALLOWED_ROLES=text).allowed_roles == {"hr", "admin"}


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_variable_is_named_alone(name: str) -> None:
    message = refusal({key: value for key, value in REQUIRED.items() if key != name})
    assert named(message) == [name]
    assert f"{name}: is missing" in message


MARKER = "Zx9"
"""In every malformed value below that has room for it; never in a message."""

MALFORMED = [
    ("SUPABASE_URL", f"{MARKER}.supabase.co"),
    ("SUPABASE_URL", f"postgres://{MARKER}"),
    ("SUPABASE_URL", f"https:///{MARKER}"),
    ("SUPABASE_URL", f"https://user:{MARKER}@abc.supabase.co"),
    ("SUPABASE_URL", f"https://{MARKER}@abc.supabase.co"),
    ("SUPABASE_URL", f"https://abc.supabase.co?apikey={MARKER}"),
    ("SUPABASE_URL", f"https://abc.supabase.co#{MARKER}"),
    ("SUPABASE_URL", f"https://abc.supabase.co {MARKER}"),
    ("SUPABASE_URL", f"https://abc.sup\nabase.co/{MARKER}"),
    ("SUPABASE_URL", f"https://abc.supabase.co:{MARKER}"),
    ("SUPABASE_URL", f"https://abc.supabase.co:99999/{MARKER}"),
    ("SUPABASE_URL", f"https://abc.supabase.co:0/{MARKER}"),
    ("SUPABASE_URL", f"https://[{MARKER}"),
    ("SUPABASE_SERVICE_ROLE_KEY", f"sb_secret {MARKER}"),
    ("SUPABASE_SERVICE_ROLE_KEY", f"sb_secret_{MARKER}ă"),
    ("SUPABASE_SERVICE_ROLE_KEY", f"sb_secret_\n{MARKER}"),
    ("SUPABASE_SERVICE_ROLE_KEY", f"sb_secret_\x7f{MARKER}"),
    ("WEBHOOK_SECRET", MARKER),
    ("WEBHOOK_SECRET", f"whsec_{MARKER}"),
    ("WEBHOOK_SECRET", f"v1,{SECRET}{MARKER}"),
    ("WEBHOOK_SECRET", f"{SECRET} whsec_{MARKER}"),
    ("WEBHOOK_SECRET", f"{SECRET},{OTHER_SECRET}{MARKER}"),
    ("WEBHOOK_SECRET", f"{SECRET} " * (MAX_SECRETS + 1)),
    ("WEBHOOK_SECRET", "whsec_QUFBQUFB"),
    *(
        (name, text)
        for name in ("DEVICE_DELAY_SECONDS", "DEVICE_TIMEOUT_SECONDS", "POLL_SECONDS")
        for text in (MARKER, "-1", "nan", "inf", "1e9", "1,5", "3601", "1 2", f"1{MARKER}")
    ),
    ("DEVICE_TIMEOUT_SECONDS", "0"),
    ("POLL_SECONDS", "0"),
    *(("DEVICE_LANES", text) for text in ("0", "-1", "1.0", "257", "1e2", "٣", "9" * 5000, MARKER)),
    *(("LEAVER_POLICY", text) for text in ("Expire", "EXPIRE", "none", MARKER)),
    *(("LOG_FORMAT", text) for text in ("JSON", "text", MARKER)),
    ("CORS_ALLOWED_ORIGINS", f"https://{MARKER}.ro/{MARKER}"),
    ("CORS_ALLOWED_ORIGINS", f"https://ș{MARKER}..ro"),
    ("CORS_ALLOWED_ORIGINS", f"https://hr.example.ro:{MARKER}"),
]


@pytest.mark.parametrize(("name", "text"), MALFORMED)
def test_a_malformed_variable_is_named_alone_and_its_value_is_not_repeated(
    name: str, text: str
) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        read(**{name: text})
    message = caught.value.message
    assert named(message) == [name]
    said = f"{message} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert MARKER not in said
    assert "QUFBQUFB" not in said
    assert SECRET[6:20] not in said


def test_every_fault_is_named_in_one_message() -> None:
    message = refusal(
        {
            "SUPABASE_URL": MARKER,
            "WEBHOOK_SECRET": f"{SECRET} {MARKER}",
            "DEVICE_DELAY_SECONDS": MARKER,
            "DEVICE_TIMEOUT_SECONDS": MARKER,
            "DEVICE_LANES": MARKER,
            "LEAVER_POLICY": MARKER,
            "POLL_SECONDS": MARKER,
            "LOG_FORMAT": MARKER,
        }
    )
    assert named(message) == [
        "SUPABASE_URL",
        "SUPABASE_SERVICE_ROLE_KEY",
        "WEBHOOK_SECRET",
        "DEVICE_DELAY_SECONDS",
        "DEVICE_TIMEOUT_SECONDS",
        "DEVICE_LANES",
        "LEAVER_POLICY",
        "POLL_SECONDS",
        "LOG_FORMAT",
    ]
    assert "secret 2" in message
    assert MARKER not in message


VARIABLES = (
    *REQUIRED, "DEVICE_DELAY_SECONDS", "DEVICE_TIMEOUT_SECONDS", "DEVICE_LANES", "LEAVER_POLICY",
    "POLL_SECONDS", "LOG_FORMAT", *LISTS,
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from(VARIABLES), st.text()))
def test_any_environment_gives_settings_or_one_refusal(environ: dict[str, str]) -> None:
    try:
        Settings.from_env(environ)
    except SettingsInvalid as refused:
        message = refused.message
    else:
        return
    assert set(named(message)) <= set(VARIABLES)
    assert len(message.splitlines()) <= 1 + len(VARIABLES)


def test_a_url_in_capitals_is_passed_on_as_the_supabase_client_takes_it() -> None:
    """supabase-py knows `https://` in small letters only, and would fail after start-up."""
    assert read(SUPABASE_URL="HTTPS://abc.supabase.co").supabase_url == "https://abc.supabase.co"


def test_the_settings_show_no_secret() -> None:
    shown = f"{read()!r} {read()!s}"
    assert "sb_secret_abc" not in shown
    assert repr(bytes(range(32)))[2:20] not in shown
    assert "https://abcdefgh.supabase.co" in shown


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, list(REQUIRED)),
        (REQUIRED | {"WEBHOOK_SECRET": f"whsec_{MARKER}", "DEVICE_LANES": MARKER},
         ["WEBHOOK_SECRET", "DEVICE_LANES"]),
    ],
)  # fmt: skip
def test_under_uvicorn_an_incomplete_environment_ends_the_process_with_the_message_alone(
    environ: dict[str, str], expected: list[str]
) -> None:
    command = [sys.executable, "-m", "uvicorn", "receiver.app:create_app", "--factory"]
    ended = subprocess.run(
        [*command, "--host", "127.0.0.1", "--port", "0"],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"]} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "The receiver cannot start" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    message = ended.stderr[ended.stderr.index("The receiver cannot start") :]
    assert named(message.rstrip()) == expected
    assert MARKER not in ended.stdout + ended.stderr


def test_photo_hosts_are_hosts_with_or_without_a_port_in_small_letters() -> None:
    assert read().photo_hosts == frozenset()
    hosts = read(PHOTO_HOSTS=" CDN.example.com, 10.0.0.7:8080 ,[::1]:80,").photo_hosts
    assert hosts == {"cdn.example.com", "10.0.0.7:8080", "[::1]:80"}


@pytest.mark.parametrize(
    "host", ["https://cdn.example.com", "cdn.example.com/x", "*.example.com", "a b", "h:", "::1"]
)
def test_an_invalid_photo_host_is_named_by_its_place(host: str) -> None:
    said = refusal(REQUIRED | {"PHOTO_HOSTS": f"cdn.example.com,{host}"})
    assert named(said) == ["PHOTO_HOSTS"]
    assert "host 2 must be like" in said
    assert host not in said.replace("cdn.example.com or", "")


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("https://hr.example.ro", "https://hr.example.ro"),
        ("https://HR.Example.ro", "https://hr.example.ro"),
        ("HTTPS://hr.example.ro", "https://hr.example.ro"),
        ("https://hr.example.ro:443", "https://hr.example.ro"),
        ("HTTPS://hr.example.ro:443", "https://hr.example.ro"),
        ("http://10.0.0.7:80", "http://10.0.0.7"),
        ("http://hr.example.ro:443", "http://hr.example.ro:443"),
        ("https://hr.example.ro:80", "https://hr.example.ro:80"),
        ("http://hr.example.ro:8080", "http://hr.example.ro:8080"),
        ("https://hr.example.ro:08443", "https://hr.example.ro:8443"),
        ("https://Șantier.ro", "https://xn--antier-2lc.ro"),
        ("https://s\u0326antier.ro", "https://xn--antier-2lc.ro"),
        ("https://xn--antier-2lc.ro:8443", "https://xn--antier-2lc.ro:8443"),
    ],
)
def test_an_origin_counts_as_browsers_send_it(text: str, sent: str) -> None:
    """Browsers send small letters, punycode and no default port (WHATWG URL)."""
    [origin, *local] = read(CORS_ALLOWED_ORIGINS=f" {text} ,").cors_origins
    assert origin == sent
    assert local == ["http://localhost:3000", "http://localhost:5173"]


@pytest.mark.parametrize(
    "origin",
    ["hr.example.ro", "https://", "https://hr.example.ro/", "https://hr.example.ro/app",
     "https://hr.example.ro?x", "https://u:p@hr.example.ro", "https://@hr.example.ro", "*", "null",
     "https://*.example.ro", "https://hr.example.ro:", "https://hr.example.ro:0",
     "https://hr.example.ro:65536", "https://hr.example.ro:x", "ftp://hr.example.ro",
     "https://hr..example.ro", f"https://{'x' * 64}.ro", f"https://{'ș' * 64}.ro",
     "https://hr\nx.ro", "https://ha\uff0fha.ro", "https://hr.example.ro:\uff18"],
)  # fmt: skip
def test_an_origin_that_no_browser_sends_is_named_by_its_place(origin: str) -> None:
    said = refusal(REQUIRED | {"CORS_ALLOWED_ORIGINS": f"https://a.ro, {origin}"})
    assert named(said) == ["CORS_ALLOWED_ORIGINS"]
    assert said.endswith("origin 2 must be like https://hr.example.com, and no more")
