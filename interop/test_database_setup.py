"""Proves how our server starts on a database, and that it honours what Feast's users configure for theirs.

Several servers come up on one empty database; `schema_mode` means what it means to Feast; `read_path`,
`sqlalchemy_config_kwargs` with its `connect_args`, and a schema of PostgreSQL's that is not `public` work as in
Feast, which opens the same feature_store.yaml.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from feast import FeatureStore, Field
from feast.protos.feast.registry import RegistryServer_pb2 as api
from feast.types import Float64
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

import databases
import harness
import kinds
from databases import Database
from differential import ask

MORE = [*kinds.RIDES, Field(name="rating", dtype=Float64)]


@pytest.fixture(params=databases.ALL)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with databases.own_database(request.param, tmp_path) as database:
        yield database


def entities(server: harness.Server, project: str, **options: Any) -> set[str]:
    return {entity.spec.name for entity in ask(server, *kinds.ENTITY.list(project, **options)).ok().entities}


def apply_entity(server: harness.Server, name: str, project: str) -> None:
    ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto(name), project)).ok()


@contextlib.contextmanager
def store_of(server: harness.Server) -> Iterator[FeatureStore]:
    """Feast over the configuration file that the server was started with."""
    config = server.command[server.command.index("-c") + 1]
    store = FeatureStore(fs_yaml_file=Path(config))
    yield store
    for engine in (store.registry.read_engine, store.registry.write_engine):
        engine.dispose()


# --- starting -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def nobody_makes_tables(database: Database) -> Iterator[None]:
    """Whoever makes the registry's tables waits until this is over, and then finds none."""
    with database.engine.connect() as connection:
        run = connection.exec_driver_sql
        if database.service in ("mariadb", "mysql"):
            # The lock on the table's name is held until the statement is killed, which leaves no table behind.
            number = run("SELECT connection_id()").scalar_one()

            def hold() -> None:
                with pytest.raises(DBAPIError, match="interrupted"):
                    run("CREATE TABLE projects AS SELECT SLEEP(60) AS x FROM information_schema.schemata")

            held = threading.Thread(target=hold)
            held.start()
            try:
                yield
            finally:
                database.run(f"KILL QUERY {number}")
                held.join(10)
            return
        run("BEGIN IMMEDIATE" if database.service == "sqlite" else "BEGIN")
        if database.service == "postgres":
            run("CREATE TABLE projects (project_id text)")
        try:
            yield
        finally:
            run("ROLLBACK")


def waiting(database: Database) -> int:
    """How many connections wait for a lock; that of `nobody_makes_tables` is none of them."""
    if database.service == "postgres":
        where = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    else:
        where = (
            "information_schema.processlist WHERE db = database() AND (state LIKE 'Waiting for table metadata lock%'"
        )
        where += " OR state LIKE 'User lock%')"
    return database.rows(f"SELECT count(*) AS n FROM {where}")[0]["n"]


SERVERS = 3


def test_servers_come_up_together_on_an_empty_database(empty: Database, project: str) -> None:
    """All of them have found no tables and are about to make them, when the first one can."""
    with contextlib.ExitStack() as stack:
        with nobody_makes_tables(empty):
            servers = [
                stack.enter_context(harness.running(harness.start_ours(empty, wait=False))) for _ in range(SERVERS)
            ]
            if empty.service == "sqlite":
                time.sleep(0.3)  # Who waits for SQLite's lock cannot be asked.
            else:
                harness.wait_until(lambda: waiting(empty) == SERVERS, 20, "all servers to wait for a lock")
            assert not any(server.is_serving() for server in servers)
        for server in servers:
            server.wait_serving(20)
        assert len(empty.tables()) >= 14
        for number, server in enumerate(servers):
            apply_entity(server, f"e{number}", project)
        for server in servers:
            assert entities(server, project) == {f"e{number}" for number in range(SERVERS)}


def test_verify_refuses_an_empty_database(empty: Database, project: str) -> None:
    """It names what is missing, makes nothing and exits; once Feast has made the tables, it starts."""
    refused = harness.start_ours(empty, settings={"schema_mode": "verify"}, wait=False)
    with harness.running(refused):
        assert refused.process.wait(20) > 0
    said = refused.log_tail()
    assert "schema_mode" in said and "panicked" not in said, said
    for table in ("projects", "entities", "feature_view_version_history", "feast_metadata", "managed_infra"):
        assert table in said, said
    assert empty.all_tables() == []
    harness.sql_registry(empty, project).write_engine.dispose()
    with harness.running(harness.start_ours(empty, settings={"schema_mode": "verify"})) as server:
        apply_entity(server, "e", project)
        assert entities(server, project) == {"e"}


def test_skip_starts_on_an_empty_database(empty: Database, project: str) -> None:
    """It makes nothing, says what is missing, and works (and says so) as soon as Feast has made the tables."""
    with harness.running(harness.start_ours(empty, settings={"schema_mode": "skip"}, wait=False)) as server:
        deadline = time.monotonic() + 20
        while ask(server, *kinds.ENTITY.list(project)).code == grpc.StatusCode.UNAVAILABLE:
            assert time.monotonic() < deadline, server.log_tail()
            time.sleep(0.1)
        answers = [
            ask(server, *kinds.ENTITY.list(project)),
            ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto("e"), project)),
        ]
        assert [answer.code for answer in answers] == [grpc.StatusCode.FAILED_PRECONDITION] * 2, answers
        assert all("schema_mode" in answer.detail for answer in answers), answers
        assert empty.all_tables() == []
        harness.sql_registry(empty, project).write_engine.dispose()
        server.wait_serving(20)
        apply_entity(server, "e", project)
        assert entities(server, project) == {"e"}


# --- what users configure -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=databases.SERVICES)
def configured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database for the tests below; each has a schema or a project of its own."""
    with databases.own_database(request.param, tmp_path_factory.mktemp(request.param)) as database:
        yield database


def test_reads_go_to_read_path(configured: Database, project: str, tmp_path: Path) -> None:
    """Writes, and what they are decided from, go to `path`; what callers read comes from `read_path`, as in Feast."""
    with databases.own_database(configured.service, tmp_path, "replica") as replica:
        registry = harness.sql_registry(replica, project)
        registry.apply_entity(kinds.entity("of_the_replica"), project)
        settings = {"read_path": replica.url}
        with harness.running(harness.start_ours(configured, settings=settings)) as server:
            apply_entity(server, "e", project)
            # The replica lags behind: the second apply must be decided from what `path` has.
            for fields in (kinds.RIDES, MORE):
                ask(server, *kinds.FEATURE_VIEW.apply(kinds.FEATURE_VIEW.proto("v", fields=fields), project)).ok()
            assert [row["version_number"] for row in configured.versions(project, "v")] == [0, 1]
            stored = configured.rows("SELECT entity_name FROM entities WHERE project_id = :p", p=project)
            assert [row["entity_name"] for row in stored] == ["e"]
            assert entities(server, project) == {"of_the_replica"}
            missing = ask(server, *kinds.FEATURE_VIEW.get("v", project))
            assert missing.code is grpc.StatusCode.NOT_FOUND, missing
            with store_of(server) as store:
                assert [e.name for e in store.registry.list_entities(project)] == ["of_the_replica"]
            registry.apply_entity(kinds.entity("e"), project)
            assert entities(server, project) == {"of_the_replica", "e"}
            ask(server, "Refresh", api.RefreshRequest(project=project)).ok()
            assert entities(server, project, allow_cache=True) == {"of_the_replica", "e"}
        registry.write_engine.dispose()


CONNECT_ARGS: dict[str, dict[str, Any]] = {
    "postgres": {"application_name": "interop", "options": "-csearch_path=configured", "connect_timeout": 5},
    "mariadb": {"connect_timeout": 5},
    "mysql": {"connect_timeout": 5},
}


def sessions_of_ours(database: Database) -> set[int]:
    """The connections to the database, but none of the test's, which looks from another one."""
    elsewhere = Database(database.service, databases.service_url(database.service), database.folder)
    postgres = "SELECT pid AS id FROM pg_stat_activity WHERE datname = :name AND application_name = 'interop'"
    mysql = "SELECT id AS id FROM information_schema.processlist WHERE db = :name"
    query = postgres if database.service == "postgres" else mysql
    return {row["id"] for row in elsewhere.rows(query, name=make_url(database.url).database)}


def test_what_is_given_to_sqlalchemy(configured: Database, project: str) -> None:
    """A feature_store.yaml as Feast's users have it, `connect_args` included, is obeyed, and Feast opens it too."""
    if configured.service == "postgres":
        configured.run("CREATE SCHEMA configured")
    options = {
        "echo": True,
        "pool_size": 2,
        "max_overflow": 0,
        "pool_pre_ping": True,
        "pool_recycle": 3600,
        "pool_timeout": 20,
        "isolation_level": "SERIALIZABLE",
        "connect_args": CONNECT_ARGS[configured.service],
    }
    settings = {"cache_ttl_seconds": 60, "sqlalchemy_config_kwargs": options}
    with harness.running(harness.start_ours(configured, settings=settings)) as server:
        apply_entity(server, "first", project)
        seen: set[int] = set()
        names = [f"e{number}" for number in range(40)]

        def apply(name: str) -> None:
            apply_entity(server, name, project)
            now = sessions_of_ours(configured)
            assert len(now) <= 2, f"pool_size is 2, and there are {len(now)} connections"
            seen.update(now)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(apply, names))
        assert len(seen) == 2, "both connections of the pool were used, and none was made anew"
        assert entities(server, project) == {"first", *names}
        server.says("INSERT INTO")  # echo
        with store_of(server) as store:
            assert {entity.name for entity in store.registry.list_entities(project)} == {"first", *names}
            store.registry.apply_entity(kinds.entity("feasts"), project)
        assert entities(server, project) == {"first", "feasts", *names}
    if configured.service == "postgres":
        (found,) = configured.rows("SELECT count(*) AS n FROM configured.entities WHERE project_id = :p", p=project)
        assert found["n"] == len(names) + 2


def test_connect_args_that_mean_nothing(configured: Database) -> None:
    """Feast's driver refuses them too; here the setting is named before anything is connected."""
    options = {"connect_args": {"application_nam": "interop"}}
    server = harness.start_ours(configured, settings={"sqlalchemy_config_kwargs": options}, wait=False)
    with harness.running(server):
        assert server.process.wait(20) > 0
    assert "application_nam" in server.log_tail() and "panicked" not in server.log_tail(), server.log_tail()


def test_a_schema_that_is_not_public(tmp_path: Path, project: str) -> None:
    """`options=-csearch_path=…` in the URL: both find and make their tables there, and leave alone what is elsewhere."""
    with databases.own_database("postgres", tmp_path) as database:
        database.run("CREATE SCHEMA team", "CREATE TABLE public.projects (x int)")
        url = make_url(database.url).update_query_dict({"options": "-csearch_path=team"})
        team = Database("postgres", url, tmp_path)

        def tables(schema: str) -> set[str]:
            return {
                r["tablename"] for r in database.rows("SELECT tablename FROM pg_tables WHERE schemaname = :s", s=schema)
            }

        with harness.running(harness.start_ours(team)) as server:
            assert len(tables("team")) >= 14
            apply_entity(server, "e", project)
            registry = harness.sql_registry(team, project, schema_mode="verify")
            assert [entity.name for entity in registry.list_entities(project)] == ["e"]
            registry.apply_entity(kinds.entity("f"), project)
            registry.write_engine.dispose()
            assert entities(server, project) == {"e", "f"}
            ask(server, "DeleteProject", api.DeleteProjectRequest(name=project, commit=True)).ok()
            assert tables("team") == {"feast_registry_journal"}
            assert tables("public") == {"projects"}
