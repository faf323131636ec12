"""Proves that Feast's SqlRegistry and our server can share one SQLite file.

The schema is the same down to the text of its statements; what one writes the other reads, for every kind of
object, version history and metadata, in both directions; and both can write at the same time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from feast import Field
from feast.infra.registry.sql import SqlRegistry
from feast.protos.feast.registry import RegistryServer_pb2 as api
from feast.types import Float64

import harness
import kinds
from differential import ask, comparable, difference_of
from kinds import Kind

PROJECT = "shared"
MORE = [*kinds.RIDES, Field(name="rating", dtype=Float64)]
WINDOWS = harness.hour_windows(4)
USER_METADATA = b"\x00\x01 anything \xff"


# --- schema -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_schemas(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A file that our server made, and one that Feast's SqlRegistry made."""
    folder = tmp_path_factory.mktemp("schemas")
    with harness.running(harness.start_ours(folder / "ours.db")):
        pass
    registry = harness.sql_registry(folder / "feast.db", PROJECT)
    registry.write_engine.dispose()
    return folder / "ours.db", folder / "feast.db"


def statements(db: Path) -> dict[str, str]:
    """Every table and index with its statement, blanks evened out."""
    found = harness.rows(db, "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
    return {row["name"]: re.sub(r"\s+", " ", row["sql"]).replace("( ", "(").replace(" )", ")").strip() for row in found}


def test_the_statements_are_the_same(two_schemas: tuple[Path, Path]) -> None:
    ours, theirs = map(statements, two_schemas)
    assert ours.keys() == theirs.keys()
    assert len(theirs) > 25, "Feast's schema has shrunk?"
    for name in theirs:
        assert ours[name] == theirs[name], f"{name}\nFeast: {theirs[name]}\nours:  {ours[name]}"


@pytest.mark.parametrize("pragma", ["table_info", "index_list", "foreign_key_list", "table_xinfo"])
def test_tables_are_the_same(pragma: str, two_schemas: tuple[Path, Path]) -> None:
    ours, theirs = two_schemas
    for table in harness.table_names(theirs):
        found, expected = (harness.rows(db, f'PRAGMA {pragma}("{table}")') for db in (ours, theirs))
        assert found == expected, f"{pragma} of {table}"


def test_indexes_are_the_same(two_schemas: tuple[Path, Path]) -> None:
    ours, theirs = two_schemas
    names = [r["name"] for r in harness.rows(theirs, "SELECT name FROM sqlite_master WHERE type = 'index'")]
    for name in names:
        found, expected = (harness.rows(db, f'PRAGMA index_xinfo("{name}")') for db in (ours, theirs))
        assert found == expected, f"columns of the index {name}"


# --- one writes, the other reads ------------------------------------------------------------------------------


class Side:
    """One of the two on the shared file."""

    def __init__(self, name: str, server: harness.Server) -> None:
        self.name, self.server = name, server
        self.registry: Any = None

    def __enter__(self) -> Side:
        if self.name == "ours":
            self.registry = harness.remote_registry(self.server.port, PROJECT)
        else:
            self.registry = harness.sql_registry(self.server.db, PROJECT)
        return self

    def __exit__(self, *_: Any) -> None:
        self.registry.close() if self.name == "ours" else self.registry.write_engine.dispose()

    def refresh(self) -> None:
        """Forget what is cached, so that the other side's writes are seen."""
        self.registry.refresh(PROJECT)


@pytest.fixture(params=["ours writes", "feast writes"])
def sides(request: pytest.FixtureRequest, own_server: harness.Server) -> Iterator[tuple[Side, Side]]:
    """(writer, reader)"""
    ours, feast = Side("ours", own_server), Side("feast", own_server)
    with ours, feast:
        yield (ours, feast) if request.param == "ours writes" else (feast, ours)


def applier(kind: Kind, registry: Any) -> Callable[[Any], None]:
    if kind is kinds.PROJECT:
        return registry.apply_project
    name = "feature_view" if kind.is_view else kind.name
    return lambda thing: getattr(registry, f"apply_{name}")(thing, PROJECT)


def getter(kind: Kind, registry: Any) -> Callable[[str, bool], Any]:
    if kind is kinds.PROJECT:
        return lambda _, cached: registry.get_project(PROJECT, allow_cache=cached)
    return lambda name, cached: getattr(registry, f"get_{kind.name}")(name, PROJECT, allow_cache=cached)


def name_of(kind: Kind) -> str:
    return PROJECT if kind is kinds.PROJECT else f"a_{kind}"


def definition(thing: Any) -> Any:
    """What was applied, without what the registry adds: its moments and the version number."""
    proto = comparable(thing.to_proto())
    if "meta" in proto.DESCRIPTOR.fields_by_name:
        proto.ClearField("meta")
    return proto


def test_every_kind_crosses_over(sides: tuple[Side, Side]) -> None:
    """All twelve kinds, read by name, as a list, and from the reader's cache."""
    writer, reader = sides
    writer.registry.apply_feature_view(kinds.feature_view("driver_rides"), PROJECT)
    written = {kind: kind.build(name_of(kind), tags={"n": "1"}) for kind in kinds.ALL}
    for kind, thing in written.items():
        applier(kind, writer.registry)(thing)
    infra = kinds.Infra.from_proto(kinds.infra("t1"))
    writer.registry.update_infra(infra, PROJECT)

    reader.refresh()
    for kind, thing in written.items():
        for cached in (False, True):
            read = getter(kind, reader.registry)(name_of(kind), cached)
            found, expected = definition(read), definition(thing)
            assert found == expected, (
                f"{reader.name} reads another {kind} than {writer.name} wrote:\n{difference_of(expected, found)}"
            )
            again = getter(kind, writer.registry)(name_of(kind), cached)
            assert comparable(read.to_proto()) == comparable(again.to_proto())
    assert reader.registry.get_infra(PROJECT) == infra or [
        o.name for o in reader.registry.get_infra(PROJECT).infra_objects
    ] == ["t1"]
    listed = reader.registry.list_all_feature_views(PROJECT)
    assert {v.name for v in listed} >= {f"a_{k}" for k in kinds.VIEWS[:3]}


def test_changes_and_deletes_cross_over(sides: tuple[Side, Side]) -> None:
    """The reader changes what the writer made, the writer deletes it, the reader finds nothing."""
    writer, reader = sides
    writer.registry.apply_feature_view(kinds.feature_view("driver_rides"), PROJECT)
    for kind in kinds.IN_PROJECT:
        name = name_of(kind)
        for side, number in ((writer, "1"), (reader, "2")):
            # Feast does not see a change of an on demand view's tags alone.
            described = {"description": number} if kind.described else {}
            applier(kind, side.registry)(kind.build(name, tags={"n": number}, **described))
        assert getter(kind, writer.registry)(name, False).tags == {"n": "2"}
        delete = "feature_view" if kind.is_view else kind.name
        getattr(writer.registry, f"delete_{delete}")(name, PROJECT)
        with pytest.raises(Exception, match=name):
            getter(kind, reader.registry)(name, False)
    reader.registry.delete_project(PROJECT)
    with pytest.raises(Exception, match=PROJECT):
        writer.registry.get_project(PROJECT)


def test_an_equal_apply_of_the_other_writes_nothing(sides: tuple[Side, Side]) -> None:
    """Each recognizes the other's row as unchanged, but where Feast does not recognize its own either."""
    writer, reader = sides
    writer.registry.apply_feature_view(kinds.feature_view("driver_rides"), PROJECT)
    careless = {kinds.PROJECT, kinds.STREAM_FEATURE_VIEW, kinds.SAVED_DATASET, kinds.VALIDATION_REFERENCE}
    careless = careless if reader.name == "feast" else set()
    things = {k: k.build(name_of(k), tags={"n": "1"}) for k in kinds.ALL if k not in careless}
    for kind, thing in things.items():
        applier(kind, writer.registry)(thing)
    before = harness.project_snapshot(reader.server.db, PROJECT)
    for kind in things:
        applier(kind, reader.registry)(kind.build(name_of(kind), tags={"n": "1"}))
    after = harness.project_snapshot(reader.server.db, PROJECT)
    for table in before:
        assert before[table] == after[table], f"{reader.name} wrote {table} though nothing had changed"


def test_versions_cross_over(sides: tuple[Side, Side]) -> None:
    """The history goes on where the other left it; a pin restores what the other saved."""
    writer, reader = sides
    db = reader.server.db
    writer.registry.apply_feature_view(kinds.feature_view("v"), PROJECT)
    reader.registry.apply_feature_view(kinds.feature_view("v", fields=MORE), PROJECT)
    writer.registry.apply_feature_view(kinds.feature_view("v", fields=[*MORE, Field(name="x", dtype=Float64)]), PROJECT)
    assert [row["version_number"] for row in harness.versions(db, PROJECT, "v")] == [0, 1, 2]
    for side in (reader, writer):
        assert side.registry.get_feature_view("v", PROJECT).current_version_number == 2
    pinned = reader.registry.get_feature_view("v", PROJECT)
    pinned.version = "v0"
    reader.registry.apply_feature_view(pinned, PROJECT)
    restored = writer.registry.get_feature_view("v", PROJECT)
    assert sorted(f.name for f in restored.features) == ["rides"] and restored.current_version_number == 0
    # Feast's own reading of the history, whoever wrote it.
    feast: SqlRegistry = next(s.registry for s in sides if s.name == "feast")
    assert [v["version"] for v in feast.list_feature_view_versions("v", PROJECT)] == ["v0", "v1", "v2"]
    assert len(feast.get_feature_view_by_version("v", PROJECT, 1).features) == 2


def test_intervals_cross_over(sides: tuple[Side, Side]) -> None:
    writer, reader = sides
    view = kinds.feature_view("v")
    writer.registry.apply_feature_view(view, PROJECT)
    for side, window in zip((writer, reader, writer, reader), WINDOWS):
        side.registry.apply_materialization(view, PROJECT, *window)
    for side in sides:
        harness.assert_intervals(side.registry.get_feature_view("v", PROJECT).to_proto(), WINDOWS)


def test_project_metadata_crosses_over(sides: tuple[Side, Side]) -> None:
    """One uuid per project, whoever made it; last_updated moves with either's writes; keys of others stay."""
    writer, reader = sides
    writer.registry.apply_entity(kinds.entity("e"), PROJECT)
    uuids = {side.registry.list_project_metadata(PROJECT)[0].project_uuid for side in sides}
    assert len(uuids) == 1 and len(uuids.pop()) == 36
    feast: SqlRegistry = next(s.registry for s in sides if s.name == "feast")
    feast.set_project_metadata(PROJECT, "color", "green")
    reader.registry.apply_entity(kinds.entity("f"), PROJECT)
    writer.registry.apply_entity(kinds.entity("g"), PROJECT)
    assert feast.get_project_metadata(PROJECT, "color") == "green"
    keys = harness.rows(reader.server.db, "SELECT metadata_key FROM feast_metadata WHERE project_id = ?", PROJECT)
    assert sorted(k["metadata_key"] for k in keys) == ["color", "last_updated_timestamp", "project_uuid"]
    assert feast._get_last_updated_metadata(PROJECT) is not None


@pytest.mark.parametrize("kind", kinds.VIEWS, ids=str)
def test_user_metadata_survives_our_writes(kind: Kind, own_server: harness.Server) -> None:
    """Feast's remote protocol has no user metadata; what a direct user stored stays when we write the row."""
    registry = harness.sql_registry(own_server.db, PROJECT)
    view = kind.build("v")
    ask(own_server, *kind.apply(kind.proto("v"), PROJECT)).ok()
    registry.apply_user_metadata(PROJECT, view, USER_METADATA)
    ask(own_server, *kind.apply(kind.proto("v", tags={"a": "b"}), PROJECT)).ok()
    if kind in (kinds.FEATURE_VIEW, kinds.STREAM_FEATURE_VIEW):
        request = api.ApplyMaterializationRequest(project=PROJECT, commit=True)
        request.feature_view.spec.name = "v"
        request.start_date.seconds, request.end_date.seconds = 60, 120
        ask(own_server, "ApplyMaterialization", request).ok()
    assert registry.get_user_metadata(PROJECT, view) == USER_METADATA
    registry.write_engine.dispose()


def test_the_tables_go_with_the_last_project_and_come_back_with_the_next(own_server: harness.Server) -> None:
    """`feast teardown` deletes every project; with the last one the tables go, and both sides can start over."""
    ask(own_server, *kinds.ENTITY.apply(kinds.ENTITY.proto("e"), PROJECT)).ok()
    ask(own_server, *kinds.ENTITY.apply(kinds.ENTITY.proto("e"), "other")).ok()
    ask(own_server, "DeleteProject", api.DeleteProjectRequest(name=PROJECT, commit=True)).ok()
    assert harness.table_names(own_server.db), "a project is left, and so are the tables"
    ask(own_server, "DeleteProject", api.DeleteProjectRequest(name="other", commit=True)).ok()
    assert not harness.table_names(own_server.db), "no project is left, and neither are the tables"
    assert not ask(own_server, *kinds.ENTITY.list(PROJECT)).ok().entities
    registry = harness.sql_registry(own_server.db, PROJECT)
    registry.apply_entity(kinds.entity("f"), PROJECT)
    ask(own_server, "Refresh", api.RefreshRequest(project=PROJECT)).ok()
    assert [e.spec.name for e in ask(own_server, *kinds.ENTITY.list(PROJECT)).ok().entities] == ["f"]
    registry.write_engine.dispose()


# --- both at once -----------------------------------------------------------------------------------------------


def test_both_write_at_the_same_time(own_server: harness.Server, nursery: harness.Nursery, tmp_path: Path) -> None:
    """Two processes through us and two with Feast's SqlRegistry, each 25 entities of its own: all are there."""
    targets = [str(own_server.port), str(own_server.port), str(own_server.db), str(own_server.db)]
    ask(own_server, *kinds.ENTITY.apply(kinds.ENTITY.proto("first"), PROJECT)).ok()
    jobs = [["entities", target, PROJECT, f"e{i}", "25"] for i, target in enumerate(targets)]
    finished = harness.Workers(nursery, tmp_path / "race", jobs).go().finish()
    harness.assert_overlap(finished)
    acknowledged = {name for worker in finished for name in worker.result["acknowledged"]}
    assert len(acknowledged) == 100
    ask(own_server, "Refresh", api.RefreshRequest(project=PROJECT)).ok()
    for allow_cache in (False, True):
        listed = ask(own_server, *kinds.ENTITY.list(PROJECT, allow_cache=allow_cache)).ok().entities
        assert {e.spec.name for e in listed} == acknowledged | {"first"}
    registry = harness.sql_registry(own_server.db, PROJECT)
    assert {e.name for e in registry.list_entities(PROJECT)} == acknowledged | {"first"}
    registry.write_engine.dispose()
    harness.assert_sound(own_server.db)
