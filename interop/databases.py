"""Databases that the tests share with Feast: SQLite files, and databases of their own on real servers.

The environment names the servers: FEAST_REGISTRY_TEST_POSTGRES_URL and its like, which `cargo xtask test` sets. One
that is missing is an error, unless FEAST_REGISTRY_TEST_WITHOUT lists its service (names with commas between).
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import URL, NullPool, make_url

import harness

SERVICES = ("postgres", "mariadb", "mysql")
ALL = ("sqlite", *SERVICES)
WITHOUT = "FEAST_REGISTRY_TEST_WITHOUT"
DRIVERS = {"postgres": "postgresql+psycopg", "mariadb": "mysql+pymysql", "mysql": "mysql+pymysql"}


def is_left_out(service: str) -> bool:
    return service in [name.strip().lower() for name in os.environ.get(WITHOUT, "").split(",")]


def service_url(service: str) -> URL:
    """The server that the environment names, with the Python driver in its scheme that Feast asks for."""
    if is_left_out(service):
        pytest.skip(f"this run does without {service} ({WITHOUT})")
    variable = f"FEAST_REGISTRY_TEST_{service.upper()}_URL"
    if not os.environ.get(variable):
        raise harness.SetupProblem(
            f"{variable} is not set: run `cargo xtask test`, name a server whose user may create databases, or list "
            f"{service} in {WITHOUT}"
        )
    return make_url(os.environ[variable]).set(drivername=DRIVERS[service])


def spelled(url: URL) -> str:
    return url.render_as_string(hide_password=False)


class Database:
    """A database that the test looks into itself, beside Feast and our server."""

    def __init__(self, service: str, url: URL | str, folder: Path) -> None:
        self.service, self.folder = service, folder
        self.url = url if isinstance(url, str) else spelled(url)
        # Without a pool: nothing of ours is left that would keep the database from being dropped.
        self.engine = sqlalchemy.create_engine(self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")

    def __str__(self) -> str:
        return self.service

    @property
    def path(self) -> Path | None:
        """The file, if it is SQLite."""
        return Path(make_url(self.url).database) if self.service == "sqlite" else None

    def rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(sqlalchemy.text(sql), values).mappings()]

    def run(self, *statements: str) -> None:
        with self.engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def all_tables(self) -> list[str]:
        return sorted(sqlalchemy.inspect(self.engine).get_table_names())

    def tables(self) -> list[str]:
        """Feast's tables."""
        return [table for table in self.all_tables() if table not in harness.OWN_TABLES]

    def snapshot(self, project: str, skip: Sequence[str] = ()) -> dict[str, list[tuple]]:
        """Every row of a project in Feast's tables, table by table: equal snapshots mean that nothing was written."""
        out = {}
        for table in self.tables():
            if table not in skip:
                found = self.rows(f"SELECT * FROM {table} WHERE project_id = :project", project=project)
                out[table] = sorted((tuple(row.values()) for row in found), key=repr)
        return out

    def versions(self, project: str, name: str) -> list[dict[str, Any]]:
        """A view's version history, read straight from the table."""
        return self.rows(
            "SELECT * FROM feature_view_version_history "
            "WHERE project_id = :project AND feature_view_name = :name ORDER BY version_number",
            project=project,
            name=name,
        )

    def assert_sound(self) -> None:
        if self.path is not None:
            harness.assert_sound(self.path)


@contextlib.contextmanager
def own_database(service: str, folder: Path, prefix: str = "interop") -> Iterator[Database]:
    """A new and empty database, dropped at the end with whoever is still connected."""
    if service == "sqlite":
        yield Database(service, f"sqlite:///{folder / 'registry.db'}", folder)
        return
    server = service_url(service)
    name = f"{prefix}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    administration = Database(service, server, folder)
    administration.run(f"CREATE DATABASE {name}")
    try:
        yield Database(service, server.set(database=name), folder)
    finally:
        administration.run(f"DROP DATABASE {name}" + (" WITH (FORCE)" if service == "postgres" else ""))
