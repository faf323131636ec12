"""Proves that whoever watches a registry is told of everything, once and in one order, whichever process has written it.

Eight of Feast's own clients write through two servers of ours on one database, and Feast's SqlRegistry writes into it as
well, which keeps no journal. Three watchers follow; one of them is cut off and goes on at the other server.

INTEROP_HISTORY_ROUNDS has them write longer: 300 rounds are about a minute.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from feast.protos.feast.core.FeatureViewVersion_pb2 import FeatureViewVersionRecord
from feast.protos.feast.registry import RegistryServer_pb2 as api

import harness
import kinds
from databases import Database
from differential import ask
from history import Watcher, changes_of, key_of, replayed
from test_writers_together import url_of_feast

PROCESSES = 8
ROUNDS = os.environ.get("INTEROP_HISTORY_ROUNDS", "25")
OUTSIDE = "outside"
#: Feast's tables of objects, and the number that `feast_registry.v1.Kind` gives their kind.
TABLES = {
    "projects": 1,
    "entities": 2,
    "data_sources": 3,
    "feature_views": 4,
    "stream_feature_views": 5,
    "on_demand_feature_views": 6,
    "label_views": 7,
    "feature_services": 8,
    "saved_datasets": 9,
    "validation_references": 10,
    "permissions": 11,
    "managed_infra": 12,
}


def stored(database: Database, project: str) -> dict[tuple, bytes]:
    """What a project has in Feast's tables, under the keys of `replayed`."""
    found: dict[tuple, bytes] = {}
    for table, rows in ((table, rows_of(database, table, project)) for table in database.tables()):
        for row in rows:
            if table in TABLES:
                (name,) = (value for column, value in row.items() if column.endswith("_name") and column != "project_name") \
                    if table != "projects" else (row["project_name"],)
                (proto,) = (value for column, value in row.items() if column.endswith("_proto"))
                found["object", project, TABLES[table], name] = bytes(proto)
                if row.get("user_metadata") is not None:
                    found["user_metadata", project, TABLES[table], name] = bytes(row["user_metadata"])
            elif table == "feast_metadata":
                found["fact", project, row["metadata_key"]] = row["metadata_value"].encode()
            elif table == "feature_view_version_history":
                key = ("version", project, row["feature_view_name"], row["version_number"])
                found[key] = bytes(row["feature_view_proto"])
            else:
                raise AssertionError(f"what is in {table}?")
    return found


def rows_of(database: Database, table: str, project: str) -> list[dict[str, Any]]:
    return database.rows(f"SELECT * FROM {table} WHERE project_id = :project", project=project)


def as_stored(replay: dict[tuple, bytes], project: str) -> dict[tuple, bytes]:
    """Of a version, Feast's table has the parts of the record in columns."""
    def value_of(key: tuple, value: bytes) -> bytes:
        return FeatureViewVersionRecord.FromString(value).feature_view_proto if key[0] == "version" else value

    return {key: value_of(key, value) for key, value in replay.items() if key[1] == project}


def test_each_commit_is_seen_once_and_in_one_order_and_their_replay_is_what_is_stored(
    server: harness.Server,
    second_server: harness.Server,
    database: Database,
    nursery: harness.Nursery,
    project: str,
    tmp_path: Path,
) -> None:
    ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto("first"), "before_" + project)).ok()
    for each in (server, second_server):
        ask(each, *kinds.FEATURE_VIEW.list(project, allow_cache=True)).ok()
    steady, other, cut = (Watcher(each) for each in (server, second_server, server))
    for watcher in (steady, other, cut):
        assert watcher.began.wait(30), "a watcher is told at once where it begins"
    ask(server, *kinds.FEATURE_VIEW.apply(kinds.FEATURE_VIEW.proto("view"), project)).ok()
    targets = [str((server, second_server)[i % 2].port) for i in range(PROCESSES)]
    jobs = [["mixed", target, project, ROUNDS] for target in [*targets, url_of_feast(database)]]
    workers = harness.Workers(nursery, tmp_path / "race", jobs).go(120)
    harness.wait_until(lambda: len(cut.commits) > 20, 60, "the first commits")
    cut.cut_off()
    seen_before = len(cut.commits)
    time.sleep(0.5)
    resumed = Watcher(second_server, after=cut.reached)
    finished = workers.finish(600)
    harness.assert_overlap(finished)
    feasts = finished[-1].result
    assert feasts["own"], "Feast's own registry has written something"

    def is_told() -> bool:
        return as_stored(replayed(steady.commits), project) == stored(database, project)

    try:
        harness.wait_until(is_told, 45, "the replay of what was watched to be what is stored")
    except AssertionError:
        told, there = as_stored(replayed(steady.commits), project), stored(database, project)
        differing = sorted({k for k in told.keys() | there.keys() if told.get(k) != there.get(k)}, key=repr)
        raise AssertionError(f"told and stored differ in {differing[:20]}") from None
    last = steady.commits[-1].revision
    for watcher in (other, resumed):
        harness.wait_until(lambda: watcher.reached >= last, 30, "the other watchers to come as far")  # noqa: B023
    everything = [commit.SerializeToString() for commit in steady.commits]
    assert [commit.SerializeToString() for commit in other.commits][: len(everything)] == everything
    both = [*cut.commits, *resumed.commits]
    assert seen_before == len(cut.commits) and len(resumed.commits) > 20, "it was cut off in the midst"
    assert [commit.SerializeToString() for commit in both][: len(everything)] == everything
    revisions = steady.revisions()
    assert revisions == sorted(set(revisions)), "each commit is told once, and in order"
    # What Feast's own registry has written last is told as made outside, each change of an object once.
    outside = [commit for commit in steady.commits if commit.author == OUTSIDE]
    told = [(key_of(change), change.before.value, change.after.value) for change in changes_of(outside)]
    assert len(told) == len(set(told)) or has_changed_back(told), "a change is told twice"
    of_feast = {key[3] for key, _, _ in told if key[0] == "object"}
    assert set(feasts["own"]) <= of_feast, set(feasts["own"]) - of_feast
    for watcher in (steady, other, resumed):
        assert watcher.error is None, watcher.error
        watcher.cut_off()
    assert ask(server, "GetProject", api.GetProjectRequest(name=project)).ok()


def has_changed_back(told: list[tuple]) -> bool:
    """Whether what was told more than once was changed back in between."""
    latest: dict[tuple, bytes] = {}
    for key, _, after in told:
        if latest.get(key) == after:
            return False
        latest[key] = after
    return True
