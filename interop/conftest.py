"""Fixtures: our server, Feast's own server, a project of its own for every test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "stand_ins")]

# What the other modules assert is explained when it fails, as in tests.
pytest.register_assert_rewrite(*(path.stem for path in HERE.glob("*.py") if path.stem != "conftest"))

import databases  # noqa: E402  (needs the path above)
import harness  # noqa: E402

if TYPE_CHECKING:
    from differential import Pair
    from rest_pair import RestPair


@pytest.fixture(scope="session")
def our_session_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[harness.Server]:
    """Our server over a SQLite file; one for the whole run, so tests must keep to their project."""
    with harness.running(harness.start_ours(tmp_path_factory.mktemp("ours") / "registry.db")) as server:
        yield server


@pytest.fixture(scope="session")
def ours(our_session_server: harness.Server) -> harness.Server:
    return our_session_server


@pytest.fixture(autouse=True)
def alive_again(request: pytest.FixtureRequest) -> None:
    """One test that brings the server down fails; it does not take all later ones with it."""
    if {"ours", "pair"} & set(request.fixturenames):
        request.getfixturevalue("our_session_server").revive()


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[harness.Server]:
    """Feast's own registry server over its own SQLite file, to compare with."""
    with harness.running(harness.start_feast(tmp_path_factory.mktemp("feast") / "registry.db")) as server:
        yield server


@pytest.fixture(scope="session")
def nursery() -> Iterator[harness.Nursery]:
    """Starts worker processes quickly."""
    nursery = harness.Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[harness.Server]:
    """A server of our own for one test that stops it, damages it or counts its rows."""
    with harness.running(harness.start_ours(tmp_path / "registry.db")) as server:
        yield server


@pytest.fixture(scope="module", params=databases.ALL)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[databases.Database]:
    """A database for the tests of one module, of each kind that there is; tests must keep to their project."""
    with databases.own_database(request.param, tmp_path_factory.mktemp(request.param)) as database:
        yield database


@pytest.fixture(scope="module")
def server(database: databases.Database) -> Iterator[harness.Server]:
    """Our server over the module's database."""
    with harness.running(harness.start_ours(database)) as server:
        yield server


@pytest.fixture(scope="module")
def second_server(server: harness.Server, database: databases.Database) -> Iterator[harness.Server]:
    """Another one of ours over the same database, as behind a load balancer."""
    with harness.running(harness.start_ours(database)) as second:
        yield second


@pytest.fixture
def project() -> str:
    return harness.new_project()


@pytest.fixture
def pair(ours: harness.Server, oracle: harness.Server, project: str) -> Iterator[Pair]:
    """Both servers and a project that is deleted afterwards (Feast's server grows slower with each object)."""
    from feast.protos.feast.registry import RegistryServer_pb2 as api

    from differential import Pair, ask

    pair = Pair(ours, oracle, project)
    yield pair
    for server in (ours, oracle):
        ask(server, "DeleteProject", api.DeleteProjectRequest(name=project, commit=True))


@pytest.fixture(scope="session")
def rest_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with everything in it, which is not written to: `rest.copy_of` it."""
    import rest_repo

    registry = tmp_path_factory.mktemp("rest") / "registry.db"
    rest_repo.fill(registry)
    return registry


@pytest.fixture(scope="session")
def rest_reads(rest_registry: Path) -> Iterator[RestPair]:
    """Feast's REST server and ours over one registry that is not written to."""
    import rest
    from rest_pair import RestPair

    with rest.start_feast_rest(rest_registry) as oracle, rest.start_our_rest(rest_registry) as ours:
        yield RestPair(ours.wait_serving(), oracle.wait_serving())
