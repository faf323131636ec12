"""Database servers that a test may stop, kill, pause and start again: each in a folder of its own.

The programs are those that the environment names, as `cargo xtask test` does, or those that are installed:
FEAST_REGISTRY_TEST_POSTGRES_BIN is a folder; FEAST_REGISTRY_TEST_MARIADBD and FEAST_REGISTRY_TEST_MYSQLD are files. Scripts
in their place know themselves what root has to do, and which options of the system are not to be read.
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
MYSQLD = "FEAST_REGISTRY_TEST_MYSQLD"
DATABASE = "registry"


class Throwaway:
    """A server with one empty database; made once, then started and stopped at will."""

    service: str
    standard: str  # a database that is there from the beginning
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
        # The parent first: after that nothing is forked that would go on.
        parent = psutil.Process(self.process.pid)
        parent.suspend()
        for process in parent.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        parent = psutil.Process(self.process.pid)
        # A process that serves one connection ends with it, perhaps just now.
        for process in parent.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        parent.resume()

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
        if os.geteuid() == 0 and not is_script(self.bin / "postgres"):
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


class MySql(Throwaway):
    service, standard, user = "mysql", "mysql", "root"
    crash, stop = signal.SIGKILL, signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.binary = self.find()
        # The first of all options, and the last.
        self.first = [] if is_script(self.binary) else ["--no-defaults"]
        self.last = [] if is_script(self.binary) else [f"--user={getpass.getuser()}"]
        self.make_data()

    def find(self) -> Path:
        return program("MySQL", MYSQLD, "mysqld")

    def make_data(self) -> None:
        self.run(self.binary, *self.first, "--initialize-insecure", f"--datadir={self.data}", *self.last)

    def command(self) -> list[str | Path]:
        options = [f"--bind-address={harness.HOST}", f"--port={self.port}", f"--socket={self.socket}"]
        options += ["--innodb-buffer-pool-size=32M", f"--pid-file={self.folder / 'pid'}"]
        return [self.binary, *self.first, f"--datadir={self.data}", *options, *self.last]

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


class MariaDb(MySql):
    service = "mariadb"

    def find(self) -> Path:
        return program("MariaDB", MARIADBD, "mariadbd", "/usr/sbin/mariadbd")

    def make_data(self) -> None:
        if is_script(self.binary):
            super().make_data()
        else:
            install = shutil.which("mariadb-install-db") or self.binary.parent.parent / "bin" / "mariadb-install-db"
            options = [f"--datadir={self.data}", "--auth-root-authentication-method=normal", "--skip-test-db"]
            self.run(install, *self.first, *options, *self.last)


KINDS: dict[str, type[Throwaway]] = {kind.service: kind for kind in (Postgres, MariaDb, MySql)}


def is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def program(name: str, variable: str, *places: str) -> Path:
    named = os.environ.get(variable)
    for candidate in [named] if named else map(shutil.which, places):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    raise harness.SetupProblem(f"no {places[0]} is to be found: install {name}'s server, or set {variable}")


def postgres_bin() -> Path:
    candidates = [os.environ.get(POSTGRES_BIN)]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        candidates.append(subprocess.check_output(["pg_config", "--bindir"], text=True).strip())
    candidates += sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    for candidate in filter(None, candidates):
        if (Path(candidate) / "initdb").is_file():
            return Path(candidate)
    raise harness.SetupProblem(f"no initdb is to be found: install PostgreSQL's server, or set {POSTGRES_BIN}")


@contextlib.contextmanager
def running(service: str) -> Iterator[Throwaway]:
    if databases.is_left_out(service):
        pytest.skip(f"this run does without {service} ({databases.WITHOUT})")
    # Not pytest's folder: that is for the user of the tests alone, and its path is too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="interop-"))
    server: Throwaway | None = None
    try:
        server = KINDS[service](folder)
        server.start()
        server.database(server.standard).run(f"CREATE DATABASE {DATABASE}")
        yield server
    finally:
        if server is not None and server.process is not None:
            server.resume()
            server.end(server.crash)
        shutil.rmtree(folder, ignore_errors=True)
