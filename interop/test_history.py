"""Proves that whoever watches a registry is told of everything, once and in one order, whichever process has written it.

Eight of Feast's own clients write through two servers of ours on one database, and Feast's SqlRegistry writes into it as
well, which keeps no journal. Three watchers follow; one of them is cut off and goes on at the other server.

INTEROP_HISTORY_ROUNDS has them write longer: 300 rounds are about a minute.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

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
                (name,) = (
                    (value for column, value in row.items() if column.endswith("_name") and column != "project_name")
                    if table != "projects"
                    else (row["project_name"],)
                )
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


# --- take it back --------------------------------------------------------------------------------------------------


def command(url: str, *arguments: str) -> str:
    """What our command line prints."""
    environment = {**harness.child_env(), "FEAST_REGISTRY_URL": url, "LOGNAME": "alice", "USER": "alice"}
    ran = subprocess.run([str(harness.registry_bin()), *arguments], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, f"{arguments}: {ran.stdout}{ran.stderr}"
    return ran.stdout


def without_when(rows: dict[tuple, bytes]) -> dict[tuple, bytes]:
    """All but when the project was last changed, which a restore is."""
    return {key: value for key, value in rows.items() if key[2:] != ("last_updated_timestamp",)}


def planned_by(plan: str) -> set[str]:
    """The names of what `feast plan` would change."""
    plan = re.sub(r"\x1b\[[0-9;]*m", "", plan)
    assert "No changes to infrastructure" in plan, plan
    return set(re.findall(r"^(?:Created|Updated|Deleted) (?:.*view|entity|.*service|permission) (\S+)", plan, re.M))


def test_a_real_project_that_was_torn_down_comes_back_whole(nursery: harness.Nursery, tmp_path: Path) -> None:
    """Feast then finds nothing to plan or to apply, and reads online what was materialized before."""
    project, url = "rides", f"sqlite:///{tmp_path / 'registry.db'}"
    with harness.running(harness.start_ours(tmp_path / "registry.db")) as server:
        database = Database("sqlite", url, tmp_path)
        repo = harness.make_repo(tmp_path / "repo", server, project)

        def feast(*arguments: str) -> str:
            (ran,) = harness.feast_fast(nursery, repo, arguments)
            return ran.ok().out

        feast("apply")
        definitions = repo / "definitions.py"
        new = 'Field(name="rating", dtype=Float32, description="Stars, one to five"),'
        definitions.write_text(definitions.read_text().replace("# INTEROP-NEW-FIELD", new))
        feast("apply")
        end = harness.hour_windows(12)[-1][1].strftime("%Y-%m-%dT%H:%M:%S")
        feast("materialize", harness.DATA_START.strftime("%Y-%m-%dT%H:%M:%S"), end, "-v", "driver_stats")
        feast("delete", "customer_spend")
        feast("apply")
        before = stored(database, project)
        assert any(key[0] == "version" and key[3] == 1 for key in before), "a version was made"
        # After a change Feast plans that view again and again: the copies of its source have other times by then.
        planned_before = planned_by(feast("plan")) - {"driver_rides_stream"}
        assert planned_before <= {"driver_stats"}, planned_before
        newest = json.loads(command(url, "log", "-n", "1", "-o", "json"))[0]["revision"]

        command(url, "teardown", "--project", project, "--yes", "--reason", "the wrong terminal")
        assert not database.tables(), "the tables went with the last project"
        assert "the wrong terminal" in command(url, "log", "-n", "1")
        planned = command(url, "restore", "--project", project, "--at", newest, "--dry-run")
        assert "driver_stats" in planned and not database.tables(), planned
        command(url, "restore", "--project", project, "--at", newest, "--yes")
        assert without_when(stored(database, project)) == without_when(before)
        (entry,) = json.loads(command(url, "log", "-n", "1", "-o", "json"))
        assert entry["author"].startswith("alice@") and entry["reason"].startswith("restore of project"), entry

        # Feast's client lists the fields of this one in the random order of a set.
        assert planned_by(feast("plan")) - {"driver_rides_stream"} == planned_before
        feast("apply")
        stream = {key for key in before if key[-1] == "driver_rides_stream" or "driver_rides_stream" in key}
        after = without_when(stored(database, project))
        changed = {key for key in after.keys() | before.keys() if after.get(key) != before.get(key)} - stream
        assert {key for key in changed if key[2:] != ("last_updated_timestamp",)} == set()
        store = harness.feature_store(repo)
        answer = store.get_online_features(
            ["driver_stats:trips"], [{"driver_id": d} for d in harness.DRIVERS]
        ).to_dict()
        # Feast reads both ends of a window, so the row of the following full hour belongs to it.
        assert answer["trips"] == [harness.driver_facts(d, 12)[1] for d in harness.DRIVERS]
