"""Proves what callers see when the database goes away under load: UNAVAILABLE, soon, and never a wrong answer.

A server of the test's own (PostgreSQL, MariaDB, MySQL) is stopped, crashed, paused, or ends all sessions again and again.
Whatever was acknowledged is there afterwards, and no interval twice; our server never restarts and needs no help;
and its gRPC health says what is so.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import databases
import harness
import kinds
import loads
import throwaway
from databases import Database
from differential import Answer, ask
from throwaway import Throwaway

CLIENTS = 4
SERVING, NOT_SERVING = (health_pb2.HealthCheckResponse.ServingStatus.Value(s) for s in ("SERVING", "NOT_SERVING"))

# The storage is asked every five seconds, and has five to answer.
HEALTH_S = 15
# How long an answer may take while the database is away. It is far more than it takes, and far less than forever.
BOUND_S = 15

# What makes the server give up soon on a database that is silent.
IMPATIENT = {
    "postgres": {"options": "-cstatement_timeout=2s", "connect_timeout": "2"},
    "mariadb": {"read_timeout": "2", "write_timeout": "2", "connect_timeout": "2"},
}
IMPATIENT["mysql"] = IMPATIENT["mariadb"]


@pytest.fixture(scope="module", params=databases.SERVICES)
def db_server(request: pytest.FixtureRequest) -> Iterator[Throwaway]:
    with throwaway.running(request.param) as server:
        yield server


class Health:
    """What the server says of itself, as it changes."""

    def __init__(self, server: harness.Server) -> None:
        self.seen: list[int] = []
        stub = health_pb2_grpc.HealthStub(server.channel)
        self.stream = stub.Watch(health_pb2.HealthCheckRequest())
        self.thread = threading.Thread(target=self.follow)
        self.thread.start()

    def follow(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for answer in self.stream:
                self.seen.append(answer.status)

    def wait(self, *statuses: int) -> None:
        """Until it has said exactly this, from the beginning on."""
        harness.wait_until(lambda: self.seen == list(statuses), HEALTH_S, f"health {statuses}")

    def __enter__(self) -> Health:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.cancel()
        self.thread.join(10)


class Load:
    """Clients that write and read without a pause, each in a process of its own."""

    def __init__(self, nursery: harness.Nursery, server: harness.Server, folder: Path, project: str) -> None:
        self.server, self.folder, self.project = server, folder, project
        jobs = [["outage-load", str(server.port), project, "view", str(client)] for client in range(CLIENTS)]
        self.workers = harness.Workers(nursery, folder, jobs).go()

    def wait_for_writes(self) -> None:
        goal = loads.count(self.folder) + 5 * CLIENTS
        harness.wait_until(lambda: loads.count(self.folder) > goal, 30, "acknowledged writes")

    def finish(self, away: float = 0) -> None:
        """Ends it: all that was acknowledged is there, and no call took longer than it may.

        What was under way waits for a database that is silent, for `away` seconds, to learn what became of it.
        """
        (self.folder / "stop").touch()
        self.finished = self.workers.finish(60)
        harness.assert_overlap(self.finished)
        loads.assert_kept(self.server, self.project, self.folder)
        assert max(self.failed, default=0) < BOUND_S + away, f"it took {max(self.failed):.1f} s to say UNAVAILABLE"
        slowest = max(worker.result["slowest"] for worker in self.finished)
        assert slowest < 2 * HEALTH_S + BOUND_S, f"a call took {slowest:.1f} s"

    @property
    def failed(self) -> list[float]:
        """How long the calls took that failed."""
        return [s for worker in self.finished for kind in worker.result["failed"].values() for s in kind]

    def assert_hit(self) -> None:
        """Every client had a call that failed, or one that had to wait."""
        for worker in self.finished:
            assert any(worker.result["failed"].values()) or worker.result["slowest"] > 1, worker.result


@contextlib.contextmanager
def under_load(
    db_server: Throwaway, nursery: harness.Nursery, folder: Path, project: str, **options: str
) -> Iterator[tuple[harness.Server, Load]]:
    database = db_server.database(**options)
    database.folder = folder
    with harness.running(harness.start_ours(database)) as server:
        ask(server, *kinds.FEATURE_VIEW.apply(kinds.FEATURE_VIEW.proto("view"), project)).ok()
        load = Load(nursery, server, folder / "load", project)
        try:
            load.wait_for_writes()
            yield server, load
        except BaseException:
            load.workers.kill()
            raise


def timed(server: harness.Server, rpc: str, request: object) -> tuple[Answer, float]:
    began = time.monotonic()
    answer = ask(server, rpc, request, timeout=90)
    return answer, time.monotonic() - began


def assert_unavailable(server: harness.Server, project: str) -> None:
    """Calls that begin while the database is away: reads, writes, and one that memory answers."""
    calls = {
        "a read": kinds.FEATURE_VIEW.get("view", project),
        "a list": kinds.ENTITY.list(project),
        "a write": kinds.ENTITY.apply(kinds.ENTITY.proto("too_late"), project),
    }
    answers: dict[str, tuple[Answer, float]] = {}
    threads = [
        threading.Thread(target=lambda n, call: answers.update({n: timed(server, *call)}), args=item)
        for item in calls.items()
    ]
    for thread in threads:
        thread.start()
    cached, seconds = timed(server, *kinds.FEATURE_VIEW.get("view", project, allow_cache=True))
    assert cached.ok().spec.name == "view" and seconds < 5, "a cached read needs no database"
    for thread in threads:
        thread.join(90)
    for name, (answer, seconds) in answers.items():
        assert answer.code is grpc.StatusCode.UNAVAILABLE, f"{name}: {answer}"
        assert seconds < BOUND_S, f"{name} took {seconds:.1f} s"
    assert len(answers) == len(calls)


def find_silence(server: harness.Server, project: str) -> None:
    """A read that is not answered closes all idle connections.

    A write that is sent on one of them may have arrived: it waits for the database to come back, to learn what became of
    it, as those of the load do. So writes that are to be refused must not find one.
    """
    answer, seconds = timed(server, *kinds.FEATURE_VIEW.get("view", project))
    assert answer.code is grpc.StatusCode.UNAVAILABLE and seconds < BOUND_S, f"{answer} after {seconds:.1f} s"


def fill_cache(server: harness.Server, project: str) -> None:
    ask(server, *kinds.FEATURE_VIEW.get("view", project, allow_cache=True)).ok()


def test_stopped_and_started_again(
    db_server: Throwaway, nursery: harness.Nursery, project: str, tmp_path: Path
) -> None:
    """Once in good order and for a while, once by a crash, each under load."""
    with under_load(db_server, nursery, tmp_path, project) as (server, load), Health(server) as health:
        health.wait(SERVING)
        fill_cache(server, project)
        db_server.end(db_server.stop)
        assert_unavailable(server, project)
        health.wait(SERVING, NOT_SERVING)
        db_server.start()
        health.wait(SERVING, NOT_SERVING, SERVING)
        load.wait_for_writes()
        db_server.end(db_server.crash)
        time.sleep(1)
        db_server.start()
        load.wait_for_writes()
        load.finish()
        load.assert_hit()
        server.assert_alive()


# For MySQL, what MariaDB shows: it is the same backend, and all that counts here is how long it waits.
@pytest.mark.parametrize("db_server", ["postgres", "mariadb"], indirect=True)
def test_paused(db_server: Throwaway, nursery: harness.Nursery, project: str, tmp_path: Path) -> None:
    """A database that keeps its connections, takes new ones and answers nothing, as behind a broken network."""
    impatient = IMPATIENT[db_server.service]
    with under_load(db_server, nursery, tmp_path, project, **impatient) as (server, load), Health(server) as health:
        health.wait(SERVING)
        fill_cache(server, project)
        paused = time.monotonic()
        db_server.pause()
        try:
            find_silence(server, project)
            assert_unavailable(server, project)
            health.wait(SERVING, NOT_SERVING)
        finally:
            db_server.resume()
        away = time.monotonic() - paused
        health.wait(SERVING, NOT_SERVING, SERVING)
        load.wait_for_writes()
        load.finish(away)
        load.assert_hit()
        server.assert_alive()


def test_sessions_that_are_ended(db_server: Throwaway, nursery: harness.Nursery, project: str, tmp_path: Path) -> None:
    """The database ends every connection, again and again: most calls do not notice, and none is misled."""
    with under_load(db_server, nursery, tmp_path, project) as (server, load):
        ended, rounds = 0, 20
        for _ in range(rounds):
            ended += db_server.end_sessions()
            time.sleep(0.1)
        assert ended >= rounds, f"only {ended} connections were there to be ended"
        # It needs no time to recover.
        for number in range(5):
            ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto(f"after_{number}"), project)).ok()
        load.wait_for_writes()
        load.finish()
        server.assert_alive()


def test_over_a_unix_socket(db_server: Throwaway, project: str, tmp_path: Path) -> None:
    """As PostgreSQL's users write it (`?host=/folder`), and those of MariaDB (`?unix_socket=/file`); Feast beside us."""
    database = Database(db_server.service, db_server.socket_url(), tmp_path)
    with harness.running(harness.start_ours(database)) as server:
        ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto("e"), project)).ok()
        assert db_server.sessions_over_network() == 0
        registry = harness.sql_registry(database, project)
        assert [entity.name for entity in registry.list_entities(project)] == ["e"]
        registry.write_engine.dispose()
