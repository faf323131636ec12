"""Proves that concurrent schema changes all become versions: through two servers on one database, without an error.

(Feast's SqlRegistry takes 36 of the 80 on PostgreSQL and fails the others with a raw UniqueViolation.)
"""

from __future__ import annotations

from pathlib import Path

from feast.protos.feast.core.FeatureView_pb2 import FeatureView
from feast.protos.feast.registry import RegistryServer_pb2 as api

import harness
import kinds
from databases import Database
from differential import ask

PROCESSES = 8
ROUNDS = 10


def test_eighty_schema_changes_of_one_view(
    server: harness.Server,
    second_server: harness.Server,
    database: Database,
    nursery: harness.Nursery,
    project: str,
    tmp_path: Path,
) -> None:
    """Ten rounds, eight processes at once in each: versions 1 to 80, and each schema is one of them."""
    servers = [server, second_server]
    ask(server, *kinds.FEATURE_VIEW.apply(kinds.FEATURE_VIEW.proto("view"), project)).ok()
    jobs = [
        ["schemas", str(servers[i % 2].port), project, "view", str(ROUNDS), str(PROCESSES)] for i in range(PROCESSES)
    ]
    finished = harness.Workers(nursery, tmp_path / "race", jobs).go().finish()
    harness.assert_overlap(finished)
    assert_met([worker.result["calls"] for worker in finished])

    stored = database.versions(project, "view")
    assert [row["version_number"] for row in stored] == list(range(PROCESSES * ROUNDS + 1))
    views = [FeatureView.FromString(row["feature_view_proto"]) for row in stored]
    known = {field.name for field in kinds.RIDES}
    added = [[f.name for f in view.spec.features if f.name not in known] for view in views]
    assert added[0] == [], "version 0 is the view as it was before"
    applied = sorted(call["field"] for worker in finished for call in worker.result["calls"])
    assert sorted(name for names in added for name in names) == applied, "each schema is one version"
    assert len({row["version_id"] for row in stored}) == len(stored)
    for each in servers:
        ask(each, "Refresh", api.RefreshRequest(project=project)).ok()
        for allow_cache in (False, True):
            current = ask(each, *kinds.FEATURE_VIEW.get("view", project, allow_cache)).ok()
            assert current.meta.current_version_number == PROCESSES * ROUNDS
            assert [f.name for f in current.spec.features if f.name not in known] == added[-1]
    database.assert_sound()


def assert_met(calls: list[list[dict]]) -> None:
    """In most rounds calls to both servers were under way at one moment."""
    met = 0
    for round_number in range(ROUNDS):
        spans = [(worker[round_number]["began"], worker[round_number]["ended"]) for worker in calls]
        met += any(
            max(a[0], b[0]) < min(a[1], b[1]) for a in spans[::2] for b in spans[1::2]
        )  # even workers use one server, odd ones the other
    assert met >= ROUNDS * 0.8, f"calls to both servers met in {met} of {ROUNDS} rounds only"
