"""Shared machinery of the interop tests: servers, channels, SQLite reading, the Feast command line, barriers.

Nothing here but `check_it_works` asserts anything about the registry; the test files do.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Template
from typing import Any, Protocol

import grpc
from feast.protos.feast.registry import RegistryServer_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc

HERE = Path(__file__).resolve().parent
STAND_INS = HERE / "stand_ins"
BIN_ENV = "FEAST_REGISTRY_BIN"
WHEEL_ENV = "FEAST_REGISTRY_TEST_WHEEL"
HOST = "127.0.0.1"
UNLIMITED = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A test that starts its own server must not share a connection with another.
    ("grpc.use_local_subchannel_pool", 1),
]


# The tables that our registry has beside Feast's, and that Feast does not know.
OWN_TABLES = ("feast_registry_journal", "feast_registry_journal_head")


class Database(Protocol):
    """What a server needs to know of a database (`databases.Database` is one)."""

    url: str
    folder: Path

    @property
    def path(self) -> Path | None: ...


class SetupProblem(AssertionError):
    """The environment cannot run the tests; the message says what to do."""


def registry_bin(name: str | None = None) -> Path:
    """The server binary under test, or another program that was built with it. Missing is an error, never a skip."""
    remedy = f"build it (cargo build --package feast-registry-server) and set {BIN_ENV}=target/debug/feast-registry"
    value = os.environ.get(BIN_ENV)
    if not value:
        raise SetupProblem(f"{BIN_ENV} is not set: {remedy}")
    path = Path(value).resolve()
    path = path.with_name(name) if name else path
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise SetupProblem(f"{path} is not an executable file: {remedy}")
    return path


def wheel() -> Path:
    """The Python package under test. Missing is an error, never a skip."""
    path = Path(os.environ.get(WHEEL_ENV, "")).absolute()
    if not path.is_file():
        raise SetupProblem(f"{WHEEL_ENV} names no wheel: make one with `cargo xtask wheel`")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def new_project(prefix: str = "p") -> str:
    return f"{prefix}_{uuid.uuid4().hex[:10]}"


def child_env(**extra: str) -> dict[str, str]:
    """Environment for a child: finds our helper modules and stand-ins, sends no usage figures."""
    paths = [str(HERE), str(STAND_INS), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "ignore",
        "FEAST_USAGE": "False",
        "NO_COLOR": "1",
        **extra,
    }


# --- servers -------------------------------------------------------------------------------------


def open_channel(port: int) -> grpc.Channel:
    return grpc.insecure_channel(f"{HOST}:{port}", options=UNLIMITED)


@dataclass
class Server:
    """A registry server in a process of its own; `db` is its file, if it has one."""

    name: str
    db: Path | None
    port: int
    log: Path
    process: subprocess.Popen
    _channel: grpc.Channel | None = field(default=None, repr=False)

    command: list[str] = field(default_factory=list, repr=False)

    def assert_alive(self) -> None:
        code = self.process.poll()
        assert code is None, f"{self.name} died with exit code {code}:\n{self.log_tail()}"

    def revive(self) -> None:
        """After one test has brought the server down, the next ones get it back, on the same file and port."""
        if self.process.poll() is not None:
            self.close_channel()
            fresh = _spawn(self.name, self.command, self.log.parent, self.db, self.port, wait=True)
            self.process = fresh.process
            fresh.close_channel()

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def channel(self) -> grpc.Channel:
        if self._channel is None:
            self._channel = open_channel(self.port)
        return self._channel

    @property
    def stub(self) -> RegistryServer_pb2_grpc.RegistryServerStub:
        return RegistryServer_pb2_grpc.RegistryServerStub(self.channel)

    def says(self, text: str) -> str:
        """The log, once this is in it: a server answers before its line is written."""
        wait_until(lambda: text in self.log.read_text(errors="replace"), 10, f"`{text}` in {self.log}")
        return self.log.read_text(errors="replace")

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def is_serving(self) -> bool:
        try:
            answer = health_pb2_grpc.HealthStub(self.channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    def wait_serving(self, timeout: float = 60) -> Server:
        deadline = time.monotonic() + timeout
        while not self.is_serving():
            code = self.process.poll()
            if code is not None:
                raise AssertionError(f"{self.name} exited with {code} before it served:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} did not serve within {timeout} s:\n{self.log_tail()}")
            time.sleep(0.02)
        return self

    def close_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def stop(self, timeout: float = 30) -> int:
        """SIGTERM, then the exit code."""
        self.close_channel()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} still ran {timeout} s after SIGTERM:\n{self.log_tail()}") from None

    def kill(self) -> None:
        """SIGKILL: no chance to clean up."""
        self.close_channel()
        self.process.kill()
        self.process.wait()


def spawn_logged(command: list[str], folder: Path, log: Path) -> subprocess.Popen:
    with log.open("ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, cwd=folder, env=child_env())


def _spawn(name: str, command: list[str], folder: Path, db: Path | None, port: int, wait: bool) -> Server:
    log = folder / f"{name}-{port}.log"
    process = spawn_logged(command, folder, log)
    server = Server(name, db, port, log, process, command=command)
    return server.wait_serving() if wait else server


def start_ours(
    db: Path | Database,
    *options: str,
    registry: str | None = None,
    port: int | None = None,
    wait: bool = True,
    settings: dict[str, Any] | None = None,
    blocks: dict[str, Any] | None = None,
    program: str | None = None,
) -> Server:
    """Our server over a SQLite file, another database, or the registry that is named; `settings` are those of the
    block `registry` of a feature_store.yaml, `blocks` its other ones. `program` is another one than `feast-registry`."""
    port = port or free_port()
    folder, path = (db.parent, db) if isinstance(db, Path) else (db.folder, db.path)
    config = None
    if not (settings is None and blocks is None):
        config = folder / f"feature_store-{port}.yaml"
        write_registry_config(config, db, blocks=blocks, **(settings or {}))
    command = our_command(config or registry or registry_url(db), port, program)
    return _spawn("ours", [*command, *options], folder, path, port, wait)


def our_command(where: Path | str, port: int, program: str | None = None) -> list[str]:
    """How our server is started over a registry, or over that of a feature_store.yaml."""
    location = ["-c", str(where)] if isinstance(where, Path) else ["--registry", where]
    return [str(registry_bin(program)), "serve", "--host", HOST, "--port", str(port), *location]


def registry_url(db: Path | Database | str) -> str:
    """As Feast takes it, and our server too."""
    return db if isinstance(db, str) else f"sqlite:///{db}" if isinstance(db, Path) else db.url


def write_registry_config(
    config: Path, db: Path | Database, project: str = "rides", blocks: dict[str, Any] | None = None, **settings: Any
) -> None:
    """A feature_store.yaml whose registry is in a database, unless its `path` is among the settings. JSON is YAML."""
    registry = {"registry_type": "sql", "path": registry_url(db), **settings}
    online = {"type": "sqlite", "path": str(config.with_suffix(".online.db"))}
    store = {"project": project, "provider": "local", "registry": registry, "online_store": online}
    config.write_text(json.dumps({**store, "entity_key_serialization_version": 3, **(blocks or {})}, indent=2))


def start_feast(db: Path, *, port: int | None = None, wait: bool = True) -> Server:
    """Feast's own registry server, as `feast serve_registry` runs it, over its SqlRegistry."""
    port = port or free_port()
    command = [sys.executable, str(HERE / "workers.py"), "feast-server", str(db), str(port)]
    return _spawn("feast", command, db.parent, db, port, wait)


def start_feast_ui(db: Path, project: str, port: int) -> Server:
    """Feast's web UI over its SqlRegistry, as `feast ui` runs it; it may not answer yet."""
    write_registry_config(db.parent / "feature_store.yaml", db, project)
    command = [sys.executable, str(HERE / "workers.py"), "cli", "-c", str(db.parent), "ui", "-h", HOST, "-p", str(port)]
    return _spawn("feast", command, db.parent, db, port, wait=False)


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        server.close_channel()
        if server.process.poll() is None:
            server.process.terminate()
            try:
                server.process.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()


# --- Feast's own classes -------------------------------------------------------------------------


def remote_registry(where: int | str, project: str, auth_config: Any = None, **settings: Any):
    """The client class that `registry_type: remote` uses, for a port of this machine or another address, with other settings of the
    block `registry`."""
    from feast.infra.registry.remote import RemoteRegistry, RemoteRegistryConfig
    from feast.permissions.auth_model import NoAuthConfig

    path = where if isinstance(where, str) else f"{HOST}:{where}"
    config = RemoteRegistryConfig(registry_type="remote", path=path, **settings)
    return RemoteRegistry(config, project=project, repo_path=None, auth_config=auth_config or NoAuthConfig())


def check_it_works(registry: Any, project: str) -> None:
    """Writes to a registry that is new, and reads."""
    from feast import Entity, Project

    registry.apply_project(Project(name=project))
    registry.apply_entity(Entity(name="driver"), project)
    assert [entity.name for entity in registry.list_entities(project)] == ["driver"]


def sql_registry(db: Path | Database | str, project: str, **options: Any):
    """Feast's own SqlRegistry on the database, in this process."""
    from feast.infra.registry.sql import SqlRegistry, SqlRegistryConfig

    config = SqlRegistryConfig(registry_type="sql", path=registry_url(db), cache_ttl_seconds=600, **options)
    return SqlRegistry(config, project=project, repo_path=None)


def file_registry(db: Path, project: str, **options: Any):
    """Feast's own Registry on one file, in this process."""
    from feast.infra.registry.registry import Registry
    from feast.repo_config import RegistryConfig

    config = RegistryConfig(registry_type="file", path=str(db), cache_ttl_seconds=600, **options)
    return Registry(project, config, repo_path=db.parent)


# --- time ----------------------------------------------------------------------------------------


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def from_seconds(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def stamp(moment: datetime) -> Timestamp:
    out = Timestamp()
    out.FromDatetime(moment)
    return out


def hour_windows(count: int) -> list[tuple[datetime, datetime]]:
    """Distinct, adjacent windows of one hour."""
    return [(DATA_START + timedelta(hours=i), DATA_START + timedelta(hours=i + 1)) for i in range(count)]


def intervals(view: Any) -> list[tuple[datetime, datetime]]:
    """The materialization intervals of a view's proto, in order of storage."""
    return [(i.start_time.ToDatetime(UTC), i.end_time.ToDatetime(UTC)) for i in view.meta.materialization_intervals]


def assert_intervals(view: Any, expected: Iterable[tuple[datetime, datetime]]) -> None:
    """Every expected interval is there once, and nothing else."""
    stored, expected = intervals(view), list(expected)
    missing = set(expected) - set(stored)
    twice = {i for i in stored if stored.count(i) > 1}
    strange = set(stored) - set(expected)
    assert not (missing or twice or strange), (
        f"view {view.spec.name}: {len(expected)} intervals were acknowledged, {len(stored)} are stored; "
        f"missing {len(missing)}: {sorted(missing)[:3]}; twice: {sorted(twice)[:3]}; "
        f"never written: {sorted(strange)[:3]}"
    )


# --- SQLite --------------------------------------------------------------------------------------


def rows(db: Path, sql: str, *args: Any) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True, timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql, args)]


def assert_sound(db: Path) -> None:
    answer = rows(db, "PRAGMA integrity_check")
    assert answer == [{"integrity_check": "ok"}], f"{db.name} is damaged: {answer}"


def versions(db: Path, project: str, name: str) -> list[dict[str, Any]]:
    """A view's version history, read straight from the file."""
    where = "project_id = ? AND feature_view_name = ? ORDER BY version_number"
    return rows(db, f"SELECT * FROM feature_view_version_history WHERE {where}", project, name)


def table_names(db: Path) -> list[str]:
    """Feast's tables."""
    sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    return [row["name"] for row in rows(db, sql) if row["name"] not in OWN_TABLES]


def project_snapshot(db: Path, project: str, skip: Sequence[str] = ()) -> dict[str, list[tuple]]:
    """Every row of a project in Feast's tables, table by table: equal snapshots mean that nothing was written."""
    out = {}
    for table in table_names(db):
        if table not in skip:
            found = rows(db, f'SELECT * FROM "{table}" WHERE project_id = ?', project)
            out[table] = sorted((tuple(row.values()) for row in found), key=repr)
    return out


# --- child processes --------------------------------------------------------------------------------


class Nursery:
    """Client of `workers.py nursery`: starts jobs as processes that have feast imported already."""

    def __init__(self, python: Path | str = sys.executable) -> None:
        command = [str(python), str(HERE / "workers.py"), "nursery"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=child_env(), bufsize=1)
        self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        assert line, f"the nursery of worker processes died, exit code {self._process.wait()}"
        return json.loads(line)

    def _ask(self, **order: Any) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(order) + "\n")
        return self._answer()

    def start(self, job: Sequence[str], log: Path, cwd: Path, **env: str) -> int:
        return self._ask(job=list(job), log=str(log), cwd=str(cwd), env=env)["pid"]

    def poll(self, pid: int) -> int | None:
        return self._ask(pid=pid, wait=False)["code"]

    def wait(self, pid: int, timeout: float) -> int | None:
        deadline = time.monotonic() + timeout
        while (code := self.poll(pid)) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return code

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(30)


@dataclass
class Finished:
    """What a worker process left: one JSON object."""

    index: int
    result: dict[str, Any]

    @property
    def span(self) -> tuple[float, float]:
        return self.result["started"], self.result["ended"]


class Workers:
    """Jobs behind a common barrier, each a process of its own.

    A worker connects, creates `ready-N`, waits for `go`, works, and writes `result-N`.
    """

    def __init__(
        self, nursery: Nursery, folder: Path, jobs: Sequence[Sequence[str]], cwd: Path | None = None, **env: str
    ) -> None:
        folder.mkdir(parents=True)
        self.nursery, self.folder, self.jobs = nursery, folder, jobs
        env["INTEROP_BARRIER"] = str(folder)
        self.pids = [
            nursery.start(job, folder / f"log-{i}", cwd or folder, INTEROP_INDEX=str(i), **env)
            for i, job in enumerate(jobs)
        ]
        self.codes: list[int | None] = [None] * len(jobs)

    def go(self, timeout: float = 60) -> Workers:
        """Waits until every worker is ready and lets all go at once."""
        ready = [self.folder / f"ready-{i}" for i in range(len(self.jobs))]
        deadline = time.monotonic() + timeout
        while not all(path.exists() for path in ready):
            self._check_alive()
            assert time.monotonic() < deadline, f"not all {len(ready)} workers were ready after {timeout} s"
            time.sleep(0.02)
        (self.folder / "go").touch()
        return self

    def _check_alive(self) -> None:
        for index, pid in enumerate(self.pids):
            code = self.nursery.poll(pid)
            if code is not None:
                self.codes[index] = code
                self._report(index)

    def _report(self, index: int) -> None:
        text = (self.folder / f"log-{index}").read_text(errors="replace")
        raise AssertionError(
            f"worker {index} ({' '.join(self.jobs[index][:3])}) ended with {self.codes[index]}:\n{text[-3000:]}"
        )

    def finish(self, timeout: float = 120) -> list[Finished]:
        out = []
        for index, pid in enumerate(self.pids):
            self.codes[index] = self.nursery.wait(pid, timeout)
            if self.codes[index] != 0:
                self.kill()
                self._report(index)
            out.append(Finished(index, json.loads((self.folder / f"result-{index}").read_text())))
        return out

    def kill(self) -> None:
        for index, pid in enumerate(self.pids):
            if self.codes[index] is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self.codes[index] = self.nursery.wait(pid, 10)


def assert_overlap(finished: Sequence[Finished]) -> None:
    """Every worker was at work at one common moment; a race that did not race proves nothing."""
    last_start = max(f.span[0] for f in finished)
    first_end = min(f.span[1] for f in finished)
    assert last_start < first_end, (
        f"the {len(finished)} workers did not overlap: the last began {last_start - first_end:.3f} s "
        f"after the first had finished; spans {[f.span for f in finished]}"
    )


def wait_until(condition: Callable[[], Any], timeout: float, what: str) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s in vain for {what}")
        time.sleep(0.01)


# --- the Feast command line ------------------------------------------------------------------------


@dataclass
class Ran:
    args: tuple[str, ...]
    code: int
    out: str

    def ok(self) -> Ran:
        assert self.code == 0, f"feast {' '.join(self.args)} exited with {self.code}:\n{self.out[-4000:]}"
        return self


def feast_executable() -> str:
    path = Path(sys.executable).with_name("feast")
    if not path.exists():
        raise SetupProblem(f"no `feast` beside {sys.executable}: pip install -r interop/requirements.txt")
    return str(path)


def feast_fast(
    nursery: Nursery, repo: Path, *commands: Sequence[str], timeout: float = 120, env: dict[str, str] | None = None
) -> list[Ran]:
    """Runs `feast ARGS…` in the repository, all at the same time, in processes forked from the nursery."""
    logs = [repo.parent / f"cli-{uuid.uuid4().hex}.log" for _ in commands]
    pids = [nursery.start(["cli", *command], log, repo, **(env or {})) for command, log in zip(commands, logs)]
    codes = [nursery.wait(pid, timeout) for pid in pids]
    texts = [log.read_text(errors="replace") for log in logs]
    return [Ran(tuple(c), -1 if code is None else code, text) for c, code, text in zip(commands, codes, texts)]


def feast_cli(
    repo: Path, *commands: Sequence[str], timeout: float = 240, env: dict[str, str] | None = None
) -> list[Ran]:
    """Runs the executable `feast ARGS…` in the repository, all commands at the same time."""
    started = [
        subprocess.Popen(
            [feast_executable(), *command],
            cwd=repo,
            env=child_env(**(env or {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in commands
    ]
    try:
        done = [(process.communicate(timeout=timeout)[0], process.returncode) for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
    return [Ran(tuple(command), code, out) for command, (out, code) in zip(commands, done)]


# --- a copy of the feature repository ---------------------------------------------------------------

DATA_START = utc(2024, 1, 1)
DATA_HOURS = 24
DRIVERS = range(1001, 1006)
CUSTOMERS = [f"c-{letter}" for letter in "abcde"]


def driver_facts(driver: int, hour: int) -> tuple[float, int]:
    """(acceptance, trips) in the generated data: simple enough to be computed again by a test."""
    return (driver % 100 + hour) / 128, driver % 10 * 100 + hour


def write_data(folder: Path) -> None:
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    hours = [DATA_START + timedelta(hours=h) for h in range(DATA_HOURS)]
    drivers = [
        (driver, when, when + timedelta(minutes=1), *driver_facts(driver, h), driver_facts(driver, h)[1] / 2)
        for driver in DRIVERS
        for h, when in enumerate(hours)
    ]
    columns = ["driver_id", "event_timestamp", "created", "acceptance", "trips", "rating"]
    frame = pd.DataFrame(drivers, columns=columns).astype({"acceptance": "float32", "rating": "float32"})
    frame.to_parquet(folder / "driver_stats.parquet")
    pd.DataFrame(
        {
            "customer_id": CUSTOMERS,
            "event_timestamp": hours[0],
            "segment": ["gold" if i % 2 else "basic" for i in range(len(CUSTOMERS))],
            "spend": [i + 0.5 for i in range(len(CUSTOMERS))],
            "visited": [list(range(i)) for i in range(len(CUSTOMERS))],
        }
    ).to_parquet(folder / "customers.parquet")
    pd.DataFrame(
        {
            "driver_id": list(DRIVERS),
            "event_timestamp": hours[0],
            "is_fraud": [0] * len(DRIVERS),
            "reviewed_at": hours[1],
            "labeler": "seed",
        }
    ).to_parquet(folder / "fraud_labels.parquet")


def make_repo(folder: Path, server: Server, project: str) -> Path:
    """Copies interop/repo, points it at the server, gives it data of its own."""
    folder.mkdir(parents=True)
    # Feast imports it by its name, and the modules of these tests come first.
    assert not (HERE / "definitions.py").exists(), (
        "interop/definitions.py would be imported in place of the repository's"
    )
    (folder / "definitions.py").write_text((HERE / "repo" / "definitions.py").read_text())
    write_data(folder / "data")
    write_store_config(folder / "feature_store.yaml", server, project)
    return folder


def write_store_config(path: Path, server: Server, project: str, online: str = "data/online.db") -> Path:
    template = Template((HERE / "repo" / "feature_store.yaml.template").read_text())
    path.write_text(template.substitute(project=project, registry=server.address, online=online))
    return path


def feature_store(repo: Path):
    """The SDK's FeatureStore over the repository, in this process."""
    from feast import FeatureStore

    return FeatureStore(repo_path=str(repo))
