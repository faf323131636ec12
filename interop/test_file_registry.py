"""Proves that Feast's file registry and our server can share one registry file.

What one writes the other reads, for every kind of object, version history and metadata, in both directions; what
Feast's message has no field for outlives Feast's rewriting of the file; and Feast's command line works on a file
that we wrote, through our server and without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from feast import Field
from feast.protos.feast.core.FeatureTable_pb2 import FeatureTable
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.protos.feast.registry import RegistryServer_pb2 as api
from feast.types import Float64

import harness
import kinds
from differential import ask, comparable, difference_of
from test_shared_database import MORE, WINDOWS, applier, definition, getter, name_of

PROJECT = "shared"
FROM_THE_FUTURE = b"\xfa\xff\x01\x04text"  # field 4095, which no message of Feast has


class Side:
    """One of the two on the shared file."""

    def __init__(self, name: str, server: harness.Server) -> None:
        self.name, self.server, self.project = name, server, PROJECT
        self.registry: Any = None

    def __enter__(self) -> Side:
        if self.name == "ours":
            self.registry = harness.remote_registry(self.server.port, PROJECT)
        else:
            self.registry = harness.file_registry(self.server.db, PROJECT)
        return self

    def __exit__(self, *_: Any) -> None:
        if self.name == "ours":
            self.registry.close()

    def refresh(self) -> None:
        """Forget what is cached. Feast's file registry also *writes* from its cache, all of the file."""
        self.registry.refresh(PROJECT)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[harness.Server]:
    db = tmp_path / "registry.db"
    with harness.running(harness.start_ours(db, registry=str(db))) as server:
        yield server


@pytest.fixture(params=["ours writes", "feast writes"])
def sides(request: pytest.FixtureRequest, server: harness.Server) -> Iterator[tuple[Side, Side]]:
    """(writer, reader)"""
    ours, feast = Side("ours", server), Side("feast", server)
    with ours, feast:
        yield (ours, feast) if request.param == "ours writes" else (feast, ours)


def contents(server: harness.Server) -> RegistryProto:
    return RegistryProto.FromString(server.db.read_bytes())


def test_every_kind_crosses_over(sides: tuple[Side, Side]) -> None:
    writer, reader = sides
    writer.registry.apply_feature_view(kinds.feature_view("driver_rides"), PROJECT)
    written = {kind: kind.build(name_of(kind, PROJECT), tags={"n": "1"}) for kind in kinds.ALL}
    for kind, thing in written.items():
        applier(kind, writer)(thing)
    writer.registry.update_infra(kinds.Infra.from_proto(kinds.infra("t1")), PROJECT)

    reader.refresh()
    for kind, thing in written.items():
        for cached in (False, True):
            found, expected = definition(getter(kind, reader)(name_of(kind, PROJECT), cached)), definition(thing)
            assert found == expected, (
                f"{reader.name} reads another {kind} than {writer.name} wrote:\n{difference_of(expected, found)}"
            )
            again = getter(kind, writer)(name_of(kind, PROJECT), cached)
            assert comparable(getter(kind, reader)(name_of(kind, PROJECT), cached).to_proto()) == comparable(
                again.to_proto()
            )
    assert [o.name for o in reader.registry.get_infra(PROJECT).infra_objects] == ["t1"]
    assert {v.name for v in reader.registry.list_all_feature_views(PROJECT)} >= {f"a_{k}" for k in kinds.VIEWS[:3]}


def test_changes_and_deletes_cross_over(sides: tuple[Side, Side]) -> None:
    """The reader changes what the writer made, the writer deletes it, the reader finds nothing."""
    writer, reader = sides
    writer.registry.apply_feature_view(kinds.feature_view("driver_rides"), PROJECT)
    for kind in kinds.IN_PROJECT:
        name = name_of(kind, PROJECT)
        for side, number in ((writer, "1"), (reader, "2")):
            side.refresh()
            applier(kind, side)(
                kind.build(name, tags={"n": number}, **({"description": number} if kind.described else {}))
            )
        assert getter(kind, writer)(name, False).tags == {"n": "2"}
        delete = "feature_view" if kind.is_view else kind.name
        getattr(writer.registry, f"delete_{delete}")(name, PROJECT)
        with pytest.raises(Exception, match=name):
            getter(kind, reader)(name, False)


def test_versions_cross_over(sides: tuple[Side, Side]) -> None:
    writer, reader = sides
    for side, fields in ((writer, None), (reader, MORE), (writer, [*MORE, Field(name="x", dtype=Float64)])):
        side.refresh()
        side.registry.apply_feature_view(kinds.feature_view("v", fields=fields), PROJECT)
    for side in sides:
        side.refresh()
        assert side.registry.get_feature_view("v", PROJECT).current_version_number == 2, side.name
    records = contents(writer.server).feature_view_version_history.records
    assert [(r.feature_view_name, r.version_number) for r in records] == [("v", 0), ("v", 1), ("v", 2)]
    feast = next(s.registry for s in sides if s.name == "feast")
    assert [v["version"] for v in feast.list_feature_view_versions("v", PROJECT)] == ["v0", "v1", "v2"]
    assert len(feast.get_feature_view_by_version("v", PROJECT, 1).features) == 2


def test_intervals_cross_over(sides: tuple[Side, Side]) -> None:
    writer, reader = sides
    view = kinds.feature_view("v")
    writer.registry.apply_feature_view(view, PROJECT)
    for side, window in zip((writer, reader, writer, reader), WINDOWS):
        side.refresh()
        side.registry.apply_materialization(view, PROJECT, *window)
    for side in sides:
        side.refresh()
        harness.assert_intervals(side.registry.get_feature_view("v", PROJECT).to_proto(), WINDOWS)


def test_the_files_own_fields(sides: tuple[Side, Side]) -> None:
    """The form of the file, an id and a moment of each write, one uuid per project, and keys that Feast's users set."""
    writer, reader = sides
    feast = next(s.registry for s in sides if s.name == "feast")
    writer.registry.apply_entity(kinds.entity("e"), PROJECT)
    first = contents(writer.server)
    assert first.registry_schema_version == "1" and len(first.version_id) == 36
    (metadata,) = first.project_metadata
    assert metadata.project == PROJECT and len(metadata.project_uuid) == 36
    feast.refresh(PROJECT)
    feast.set_project_metadata(PROJECT, "color", "green")
    for side, name in ((reader, "f"), (writer, "g")):
        side.refresh()
        side.registry.apply_entity(kinds.entity(name), PROJECT)
    assert feast.get_project_metadata(PROJECT, "color") == "green"
    last = contents(writer.server)
    assert (
        last.version_id != first.version_id and last.last_updated.ToNanoseconds() > first.last_updated.ToNanoseconds()
    )
    assert {e.spec.name for e in last.entities} == {"e", "f", "g"} and len(last.project_metadata) == 1


def test_what_neither_knows_stays(server: harness.Server) -> None:
    """Fields of a newer Feast, and deprecated ones, in the file and in its objects."""
    ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto("e"), PROJECT)).ok()
    registry = contents(server)
    registry.feature_tables.append(FeatureTable())
    registry.feature_tables[0].spec.name = "of long ago"
    entity = registry.entities[0]
    entity.MergeFromString(FROM_THE_FUTURE)
    server.db.write_bytes(registry.SerializeToString() + FROM_THE_FUTURE)
    for number in range(3):
        ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto(f"e{number}"), PROJECT)).ok()
    after = contents(server)
    assert [t.spec.name for t in after.feature_tables] == ["of long ago"]
    assert server.db.read_bytes().count(FROM_THE_FUTURE) == 2
    # And what we keep in a field that Feast does not know outlives Feast's rewriting of the file.
    feast = harness.file_registry(server.db, PROJECT)
    feast.apply_entity(kinds.entity("theirs"), PROJECT)
    assert server.db.read_bytes().count(FROM_THE_FUTURE) == 2


def test_each_project_keeps_its_infrastructure(server: harness.Server) -> None:
    """Feast's file has room for one; the others are kept where Feast does not look, and it does not drop them."""
    for project in ("p", "q"):
        ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto("e"), project)).ok()
        request = api.UpdateInfraRequest(infra=kinds.infra(f"table_of_{project}"), project=project, commit=True)
        ask(server, "UpdateInfra", request).ok()
    feast = harness.file_registry(server.db, "p")
    feast.apply_entity(kinds.entity("theirs"), "p")
    assert [o.name for o in feast.get_infra("p").infra_objects] == ["table_of_q"], (
        "Feast sees the last, as with its own"
    )
    for project in ("p", "q"):
        with harness.running(harness.start_ours(server.db, registry=str(server.db))) as other:
            registry = harness.remote_registry(other.port, project)
            assert [o.name for o in registry.get_infra(project).infra_objects] == [f"table_of_{project}"]
            registry.close()


def test_the_feast_command_on_our_file(server: harness.Server, nursery: harness.Nursery, tmp_path: Path) -> None:
    """`feast apply` through us; then the same repository with `registry_type: file` on the file that we wrote."""
    repo = harness.make_repo(tmp_path / "repo", server, PROJECT)
    (ran,) = harness.feast_fast(nursery, repo, ("apply",))
    ran.ok()
    ours = {e.spec.name for e in ask(server, *kinds.ENTITY.list(PROJECT)).ok().entities}
    feast = harness.file_registry(server.db, PROJECT)
    assert {e.name for e in feast.list_entities(PROJECT)} == ours and ours
    assert {v.name for v in feast.list_feature_views(PROJECT)} >= {"driver_stats", "driver_fresh"}

    config = repo / "feature_store.yaml"
    text = config.read_text()
    local = text.replace("registry_type: remote", "registry_type: file").replace(server.address, str(server.db))
    assert local != text
    config.write_text(local)
    applied, listed = harness.feast_fast(nursery, repo, ("apply",)) + harness.feast_fast(
        nursery, repo, ("entities", "list")
    )
    assert all(name in listed.ok().out for name in ours - {"__dummy"}), listed.out
    applied.ok()
    assert {e.spec.name for e in ask(server, *kinds.ENTITY.list(PROJECT)).ok().entities} == ours


def test_many_writers_through_us_and_feast_reads(
    server: harness.Server, nursery: harness.Nursery, tmp_path: Path
) -> None:
    ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto("first"), PROJECT)).ok()
    jobs = [["entities", str(server.port), PROJECT, f"e{i}", "25"] for i in range(4)]
    finished = harness.Workers(nursery, tmp_path / "race", jobs).go().finish()
    harness.assert_overlap(finished)
    acknowledged = {name for worker in finished for name in worker.result["acknowledged"]}
    assert len(acknowledged) == 100
    feast = harness.file_registry(server.db, PROJECT)
    assert {e.name for e in feast.list_entities(PROJECT)} == acknowledged | {"first"}
