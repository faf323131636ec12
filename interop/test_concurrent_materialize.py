"""Proves that concurrent materialization loses nothing: what Feast's own registry does not manage.

Eight real `feast materialize` processes over distinct views, eight over distinct windows of one view, and
eight client processes with 25 calls of apply_materialization each on one view; through one server, and through
two on one database. All start together, and the tests insist that they overlapped. (Feast's SqlRegistry keeps
41 of the 200 on SQLite and 33 on PostgreSQL, without an error, which is why none of this is run against it.)
"""

from __future__ import annotations

from pathlib import Path

import pytest
from feast.protos.feast.core.FeatureView_pb2 import FeatureViewState
from feast.protos.feast.registry import RegistryServer_pb2 as api

import databases
import harness
import kinds
from databases import Database
from differential import ask

PROCESSES = 8
CALLS = 25


def materialize(repo: Path, config: Path, start: object, end: object, *views: str) -> list[str]:
    moments = [moment.strftime("%Y-%m-%dT%H:%M:%S") for moment in (start, end)]
    options = [option for view in views for option in ("-v", view)]
    return ["raced-cli", "--chdir", str(repo), "-f", str(config), "materialize", *moments, *options]


@pytest.fixture
def servers(server: harness.Server, second_server: harness.Server) -> list[harness.Server]:
    return [server, second_server]


@pytest.fixture
def repo(servers: list[harness.Server], tmp_path: Path, project: str) -> Path:
    """The feature repository's data, and eight views over it, registered through Feast's client."""
    repo = harness.make_repo(tmp_path / "repo", servers[0], project)
    # Feast's SQLite online store is not made for many writers; each process gets a store of its own.
    for index in range(PROCESSES):
        server = servers[index % len(servers)]
        harness.write_store_config(repo / f"store-{index}.yaml", server, project, online=f"data/online-{index}.db")
    registry = harness.remote_registry(servers[0].port, project)
    source = kinds.FileSource(
        name="driver_stats", path=str(repo / "data" / "driver_stats.parquet"), timestamp_field="event_timestamp"
    )
    fields = [kinds.RIDES[0], kinds.Field(name="trips", dtype=kinds.Int64)]
    registry.apply_entity(kinds.DRIVER, project)
    for index in range(PROCESSES):
        registry.apply_feature_view(kinds.feature_view(f"view_{index}", fields=fields, source=source), project)
    make_online_tables(repo, project)
    return repo


def make_online_tables(repo: Path, project: str) -> None:
    """What `feast apply` would do for each of the eight online stores."""
    from feast import FeatureStore

    for index in range(PROCESSES):
        store = FeatureStore(repo_path=str(repo), fs_yaml_file=repo / f"store-{index}.yaml")
        views = store.list_batch_feature_views()
        store._get_provider().update_infra(project, [], views, [], [], partial=True)


def assert_materialized(servers: list[harness.Server], project: str, name: str, expected: list[tuple]) -> None:
    """Both servers show every interval, from the database and from memory."""
    for server in servers:
        if len(servers) > 1:
            ask(server, "Refresh", api.RefreshRequest(project=project)).ok()
        for allow_cache in (False, True):
            view = ask(server, *kinds.FEATURE_VIEW.get(name, project, allow_cache)).ok()
            harness.assert_intervals(view, expected)
            assert view.meta.state == FeatureViewState.AVAILABLE_ONLINE


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_eight_processes_over_distinct_views(
    repo: Path,
    servers: list[harness.Server],
    database: Database,
    nursery: harness.Nursery,
    project: str,
    tmp_path: Path,
) -> None:
    start, end = harness.DATA_START, harness.hour_windows(12)[-1][1]
    jobs = [materialize(repo, repo / f"store-{i}.yaml", start, end, f"view_{i}") for i in range(PROCESSES)]
    finished = harness.Workers(nursery, tmp_path / "race", jobs, cwd=repo).go().finish()
    harness.assert_overlap(finished)
    for index in range(PROCESSES):
        assert_materialized(servers, project, f"view_{index}", [(start, end)])
    database.assert_sound()


@pytest.mark.parametrize(
    "database, before",
    [("sqlite", "never materialized"), *((service, "materialized before") for service in databases.ALL)],
    indirect=["database"],
)
def test_eight_processes_over_windows_of_one_view(
    before: str,
    repo: Path,
    servers: list[harness.Server],
    nursery: harness.Nursery,
    project: str,
    tmp_path: Path,
) -> None:
    """The harder half: a view that is online is first applied whole, with the intervals that the process read."""
    windows = harness.hour_windows(PROCESSES + 1)
    expected = windows[:PROCESSES]
    if before == "materialized before":
        registry = harness.remote_registry(servers[0].port, project)
        registry.apply_materialization(registry.get_feature_view("view_0", project), project, *windows[-1])
        expected = windows
    jobs = [materialize(repo, repo / f"store-{i}.yaml", *windows[i], "view_0") for i in range(PROCESSES)]
    finished = harness.Workers(nursery, tmp_path / "race", jobs, cwd=repo).go().finish()
    harness.assert_overlap(finished)
    assert_materialized(servers, project, "view_0", expected)
    # Each process wrote its last hour into its own online store.
    from feast import FeatureStore

    for index in range(PROCESSES):
        store = FeatureStore(repo_path=str(repo), fs_yaml_file=repo / f"store-{index}.yaml")
        answer = store.get_online_features(["view_0:trips"], [{"driver_id": d} for d in harness.DRIVERS]).to_dict()
        # Feast reads both ends of a window, so the row of the following full hour belongs to it.
        assert answer["trips"] == [harness.driver_facts(d, index + 1)[1] for d in harness.DRIVERS]


@pytest.mark.parametrize("count", [1, 2], ids=["one server", "two servers"])
def test_two_hundred_calls_on_one_view(
    count: int,
    servers: list[harness.Server],
    database: Database,
    nursery: harness.Nursery,
    project: str,
    tmp_path: Path,
) -> None:
    servers = servers[:count]
    ask(servers[0], *kinds.FEATURE_VIEW.apply(kinds.FEATURE_VIEW.proto("view"), project)).ok()
    ports = [str(servers[i % count].port) for i in range(PROCESSES)]
    jobs = [["materialize", port, project, "view", str(i * CALLS), str(CALLS)] for i, port in enumerate(ports)]
    finished = harness.Workers(nursery, tmp_path / "race", jobs).go().finish()
    harness.assert_overlap(finished)
    assert sum(worker.result["acknowledged"] for worker in finished) == PROCESSES * CALLS
    assert_materialized(servers, project, "view", harness.hour_windows(PROCESSES * CALLS))
    # Neither a version nor anything else came of it.
    assert len(database.versions(project, "view")) == 1
    listed = ask(servers[0], "ListAllFeatureViews", api.ListAllFeatureViewsRequest(project=project)).ok()
    assert len(listed.feature_views) == 1
    database.assert_sound()
