"""Database servers that a test may stop, kill, pause and start again: PostgreSQL and MariaDB, each in a folder of its own.

The programs are those that FEAST_REGISTRY_TEST_POSTGRES_BIN (a folder) and FEAST_REGISTRY_TEST_MARIADBD (a file) name, or
those that are installed.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

import databases
import harness
from databases import Database

POSTGRES_BIN = "FEAST_REGISTRY_TEST_POSTGRES_BIN"
MARIADBD = "FEAST_REGISTRY_TEST_MARIADBD"
SERVICES = ("postgres", "mariadb")
DATABASE = "registry"


class Throwaway:
    """A server with one empty database; made once, then started and stopped at will."""

    service: str
    user: str
    crash: signal.Signals  # ends it without any cleaning up
    stop: signal.Signals  # ends it, with whoever is connected, in good order

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self.port = harness.free_port()
        self.log = folder / "log"
        self.process: subprocess.Popen | None = None
        # What the server's programs run as: PostgreSQL's do not want to be root's.
        self.identity: dict[str, Any] = {}

    def command(self) -> list[str | Path]:
        raise NotImplementedError

    def run(self, *command: str | Path) -> None:
        ran = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=120, **self.identity)
        assert ran.returncode == 0, f"{command[0]} failed:\n{ran.stdout}\n{ran.stderr}"

    def url(self, database: str = DATABASE, **options: str) -> URL:
        driver = databases.DRIVERS[self.service]
        return URL.create(driver, self.user, host=harness.HOST, port=self.port, database=database, query=options)

    def socket_url(self) -> URL:
        """The registry's database over the server's Unix socket."""
        raise NotImplementedError

    def database(self, name: str = DATABASE, **options: str) -> Database:
        return Database(self.service, self.url(name, **options), self.folder)

    def start(self) -> None:
        assert self.process is None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command(), cwd=self.folder, stdout=log, stderr=log, **self.identity)
        harness.wait_until(self.answers, 60, f"{self.service} to start; {self.log} says why it does not")

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text(errors="replace")[-3000:]
        try:
            return self.database(self.standard).rows("SELECT 1 AS one") == [{"one": 1}]
        except DBAPIError:
            return False

    def end(self, how: signal.Signals) -> None:
        """Stops it, or has it crash."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(how)
        self.process.wait(30)
        psutil.wait_procs(children, 30)
        self.process = None

    def pause(self) -> None:
        """It keeps its connections, and the system takes new ones for it; it answers nothing."""
        for process in self.processes():
            process.suspend()

    def resume(self) -> None:
        for process in self.processes():
            process.resume()

    def processes(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def end_sessions(self) -> int:
        """Ends every connection to the registry's database; how many that were."""
        raise NotImplementedError

    def sessions_over_network(self) -> int:
        """How many connections to the registry's database do not come over the Unix socket."""
        raise NotImplementedError


class Postgres(Throwaway):
    service, standard, user = "postgres", "postgres", "postgres"
    crash, stop = signal.SIGQUIT, signal.SIGINT

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bin = postgres_bin()
        if os.geteuid() == 0:
            self.identity = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(folder, "postgres", "postgres")
        self.run(self.bin / "initdb", "-D", self.data, "-U", self.user, "-A", "trust", "-E", "UTF8", "-N", "--locale=C")

    def command(self) -> list[str | Path]:
        options = [f"-clisten_addresses={harness.HOST}", f"-cunix_socket_directories={self.folder}"]
        return [self.bin / "postgres", "-D", self.data, "-p", str(self.port), *options]

    def end_sessions(self) -> int:
        ended = self.database("postgres").rows(
            f"SELECT pg_terminate_backend(pid) AS it FROM pg_stat_activity WHERE datname = '{DATABASE}'"
        )
        return sum(row["it"] for row in ended)

    def socket_url(self) -> URL:
        options = {"host": str(self.folder), "port": str(self.port)}
        return URL.create(databases.DRIVERS[self.service], self.user, database=DATABASE, query=options)

    def sessions_over_network(self) -> int:
        where = f"datname = '{DATABASE}' AND client_addr IS NOT NULL"
        return len(self.database("postgres").rows(f"SELECT pid FROM pg_stat_activity WHERE {where}"))


class MariaDb(Throwaway):
    service, standard, user = "mariadb", "mysql", "root"
    crash, stop = signal.SIGKILL, signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.binary = mariadbd()
        install = shutil.which("mariadb-install-db") or self.binary.parent.parent / "bin" / "mariadb-install-db"
        self.run(
            install,
            "--no-defaults",
            f"--datadir={self.data}",
            f"--user={getpass.getuser()}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )

    def command(self) -> list[str | Path]:
        return [
            self.binary,
            "--no-defaults",
            f"--datadir={self.data}",
            f"--user={getpass.getuser()}",
            f"--bind-address={harness.HOST}",
            f"--port={self.port}",
            f"--socket={self.socket}",
            "--innodb-buffer-pool-size=32M",
        ]

    @property
    def socket(self) -> Path:
        return self.folder / "socket"

    def socket_url(self) -> URL:
        return self.url(unix_socket=str(self.socket)).set(host="localhost", port=None)

    def sessions_over_network(self) -> int:
        where = f"db = '{DATABASE}' AND host LIKE '%:%'"
        return len(self.database("mysql").rows(f"SELECT id FROM information_schema.processlist WHERE {where}"))

    def end_sessions(self) -> int:
        ended = 0
        administration = self.database("mysql")
        for row in administration.rows(f"SELECT id FROM information_schema.processlist WHERE db = '{DATABASE}'"):
            with contextlib.suppress(DBAPIError):  # It has gone by itself.
                administration.run(f"KILL CONNECTION {row['id']}")
                ended += 1
        return ended


def postgres_bin() -> Path:
    candidates = [os.environ.get(POSTGRES_BIN)]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        candidates.append(subprocess.check_output(["pg_config", "--bindir"], text=True).strip())
    candidates += sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    for candidate in filter(None, candidates):
        if (Path(candidate) / "initdb").is_file():
            return Path(candidate)
    raise harness.SetupProblem(f"no initdb is to be found: install PostgreSQL's server, or set {POSTGRES_BIN}")


def mariadbd() -> Path:
    for candidate in filter(None, [os.environ.get(MARIADBD), shutil.which("mariadbd"), "/usr/sbin/mariadbd"]):
        if Path(candidate).is_file():
            return Path(candidate).resolve()
    raise harness.SetupProblem(f"no mariadbd is to be found: install MariaDB's server, or set {MARIADBD}")


@contextlib.contextmanager
def running(service: str) -> Iterator[Throwaway]:
    if databases.is_left_out(service):
        pytest.skip(f"this run does without {service} ({databases.WITHOUT})")
    # Not pytest's folder: that is for the user of the tests alone, and its path is too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="interop-"))
    server: Throwaway | None = None
    try:
        server = {"postgres": Postgres, "mariadb": MariaDb}[service](folder)
        server.start()
        server.database(server.standard).run(f"CREATE DATABASE {DATABASE}")
        yield server
    finally:
        if server is not None and server.process is not None:
            server.resume()
            server.end(server.crash)
        shutil.rmtree(folder, ignore_errors=True)
