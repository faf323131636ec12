"""Proves that Feast's SqlRegistry and our server can share one database: a SQLite file, PostgreSQL, MariaDB, MySQL.

The tables are the same, whoever made them; what one writes the other reads, for every kind of object, version history
and metadata, in both directions; and both can write at the same time.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from feast import Field
from feast.infra.registry.sql import SqlRegistry
from feast.protos.feast.registry import RegistryServer_pb2 as api
from feast.types import Float64

import databases
import harness
import kinds
from databases import Database
from differential import ask, comparable, difference_of
from kinds import Kind

MORE = [*kinds.RIDES, Field(name="rating", dtype=Float64)]
WINDOWS = harness.hour_windows(4)
USER_METADATA = b"\x00\x01 anything \xff"


# --- schema -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def feasts_database(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A second database of the same kind, in which Feast's SqlRegistry has made the tables."""
    with databases.own_database(database.service, tmp_path_factory.mktemp("feasts")) as feasts:
        registry = harness.sql_registry(feasts, "first")
        registry.write_engine.dispose()
        yield feasts


POSTGRES = {
    "columns": """
        SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull, a.attnum, a.attstorage,
               a.attcollation::regcollation::text AS collation, pg_get_expr(d.adbin, d.adrelid) AS standard
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = to_regclass(:table) AND a.attnum > 0 ORDER BY a.attnum""",
    "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = :table ORDER BY indexname",
    "constraints": """
        SELECT conname, contype, pg_get_constraintdef(oid) AS definition FROM pg_constraint
        WHERE conrelid = to_regclass(:table) ORDER BY conname""",
}
SQLITE = {
    pragma: f"SELECT * FROM pragma_{pragma}(:table)"
    for pragma in ("table_info", "index_list", "foreign_key_list", "table_xinfo")
} | {"statements": "SELECT name, sql FROM sqlite_master WHERE tbl_name = :table ORDER BY name"}


def described(database: Database, table: str) -> dict[str, Any]:
    """Everything that the database tells about a table."""
    if database.service in ("mariadb", "mysql"):
        (row,) = database.rows(f"SHOW CREATE TABLE {table}")
        # Feast takes the database's collation, to which `driver` and `Driver` are one; ours tells all names apart.
        text, collations = re.subn(r" COLLATE[ =]\w+", "", row["Create Table"])
        assert collations >= 1, row
        return {"statement": text}
    queries = POSTGRES if database.service == "postgres" else SQLITE
    told = {name: database.rows(query, table=table) for name, query in queries.items()}
    for row in told.get("statements", []):
        blanks = re.sub(r"\s+", " ", row["sql"] or "")
        row["sql"] = blanks.replace("( ", "(").replace(" )", ")").strip()
    return told


def test_the_tables_are_the_same(server: harness.Server, database: Database, feasts_database: Database) -> None:
    """Columns, types, keys and indexes: nobody can tell who has made them."""
    assert server.is_serving()
    assert database.tables() == feasts_database.tables()
    assert len(database.tables()) >= 14, "Feast's schema has shrunk?"
    assert set(database.all_tables()) - set(database.tables()) <= set(harness.OWN_TABLES)
    for table in database.tables():
        ours, theirs = described(database, table), described(feasts_database, table)
        assert theirs and all(theirs[part] for part in theirs if part != "foreign_key_list"), theirs
        for part in theirs:
            assert ours[part] == theirs[part], f"{part} of {table}\nFeast: {theirs[part]}\nours:  {ours[part]}"


MYSQLS = pytest.mark.parametrize("database", ["mariadb", "mysql"], indirect=True)


@MYSQLS
def test_names_that_differ_in_case_or_by_a_blank(server: harness.Server, project: str) -> None:
    """Tables that we make tell them apart, as SQLite and PostgreSQL do."""
    names = ["driver", "Driver", "driver ", "dríver"]
    for name in names:
        ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto(name), project)).ok()
    listed = ask(server, *kinds.ENTITY.list(project)).ok().entities
    assert sorted(entity.spec.name for entity in listed) == sorted(names)


@MYSQLS
def test_names_that_feasts_tables_take_for_one(feasts_server: harness.Server, project: str) -> None:
    """They are refused where they cannot be kept apart, and what is there stays; Feast would write over it."""
    first = kinds.ENTITY.proto("driver", description="the first")
    ask(feasts_server, *kinds.ENTITY.apply(first, project)).ok()
    answer = ask(feasts_server, *kinds.ENTITY.apply(kinds.ENTITY.proto("Driver"), project))
    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT and "Driver" in answer.error_text, answer
    assert ask(feasts_server, *kinds.ENTITY.get("driver", project)).ok().spec.description == "the first"
    assert ask(feasts_server, *kinds.ENTITY.get("Driver", project)).code is grpc.StatusCode.NOT_FOUND
    assert ask(feasts_server, *kinds.ENTITY.delete("DRIVER", project)).code is grpc.StatusCode.NOT_FOUND
    listed = ask(feasts_server, *kinds.ENTITY.list(project)).ok().entities
    assert [entity.spec.name for entity in listed] == ["driver"]


# --- one writes, the other reads ------------------------------------------------------------------------------


class Side:
    """One of the two on the shared database."""

    def __init__(self, name: str, server: harness.Server, database: Database, project: str) -> None:
        self.name, self.server, self.database, self.project = name, server, database, project
        self.registry: Any = None

    def __enter__(self) -> Side:
        if self.name == "ours":
            self.registry = harness.remote_registry(self.server.port, self.project)
        else:
            self.registry = harness.sql_registry(self.database, self.project, schema_mode="verify")
        return self

    def __exit__(self, *_: Any) -> None:
        self.registry.close() if self.name == "ours" else self.registry.write_engine.dispose()

    def refresh(self) -> None:
        """Forget what is cached, so that the other side's writes are seen."""
        self.registry.refresh(self.project)


@pytest.fixture(scope="module")
def feasts_server(feasts_database: Database) -> Iterator[harness.Server]:
    """Our server over tables that Feast has made."""
    with harness.running(harness.start_ours(feasts_database, settings={"schema_mode": "verify"})) as server:
        yield server


@pytest.fixture(params=["ours writes", "feast writes"])
def sides(
    request: pytest.FixtureRequest,
    server: harness.Server,
    database: Database,
    feasts_server: harness.Server,
    feasts_database: Database,
    project: str,
) -> Iterator[tuple[Side, Side]]:
    """(writer, reader). The tables are the writer's too; the other has only verified that they are there."""
    is_ours = request.param == "ours writes"
    place = (server, database) if is_ours else (feasts_server, feasts_database)
    with Side("ours", *place, project) as ours, Side("feast", *place, project) as feast:
        yield (ours, feast) if is_ours else (feast, ours)


def applier(kind: Kind, side: Side) -> Callable[[Any], None]:
    if kind is kinds.PROJECT:
        return side.registry.apply_project
    name = "feature_view" if kind.is_view else kind.name
    return lambda thing: getattr(side.registry, f"apply_{name}")(thing, side.project)


def getter(kind: Kind, side: Side) -> Callable[[str, bool], Any]:
    if kind is kinds.PROJECT:
        return lambda name, cached: side.registry.get_project(name, allow_cache=cached)
    return lambda name, cached: getattr(side.registry, f"get_{kind.name}")(name, side.project, allow_cache=cached)


def name_of(kind: Kind, project: str) -> str:
    return project if kind is kinds.PROJECT else f"a_{kind}"


def definition(thing: Any) -> Any:
    """What was applied, without what the registry adds: its moments and the version number."""
    proto = comparable(thing.to_proto())
    if "meta" in proto.DESCRIPTOR.fields_by_name:
        proto.ClearField("meta")
    return proto


def test_every_kind_crosses_over(
    sides: tuple[Side, Side], project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All twelve kinds, read by name, as a list, and from the reader's cache."""
    monkeypatch.chdir(tmp_path)  # Feast opens the online store that it reads of, at a relative path.
    writer, reader = sides
    writer.registry.apply_feature_view(kinds.feature_view("driver_rides"), project)
    written = {kind: kind.build(name_of(kind, project), tags={"n": "1"}) for kind in kinds.ALL}
    for kind, thing in written.items():
        applier(kind, writer)(thing)
    infra = kinds.Infra.from_proto(kinds.infra("t1"))
    writer.registry.update_infra(infra, project)

    reader.refresh()
    for kind, thing in written.items():
        for cached in (False, True):
            read = getter(kind, reader)(name_of(kind, project), cached)
            found, expected = definition(read), definition(thing)
            assert found == expected, (
                f"{reader.name} reads another {kind} than {writer.name} wrote:\n{difference_of(expected, found)}"
            )
            again = getter(kind, writer)(name_of(kind, project), cached)
            assert comparable(read.to_proto()) == comparable(again.to_proto())
            scope = () if kind is kinds.PROJECT else (project,)
            listed = getattr(reader.registry, f"list_{kind.list_field}")(*scope, allow_cache=cached)
            assert name_of(kind, project) in [each.name for each in listed], f"the list of {kind.plural}"
    assert [thing.name for thing in reader.registry.get_infra(project).infra_objects] == ["t1"]
    listed = reader.registry.list_all_feature_views(project)
    assert {v.name for v in listed} >= {f"a_{k}" for k in kinds.VIEWS[:3]}


def test_changes_and_deletes_cross_over(sides: tuple[Side, Side], project: str) -> None:
    """The reader changes what the writer made, the writer deletes it, the reader finds nothing."""
    writer, reader = sides
    writer.registry.apply_feature_view(kinds.feature_view("driver_rides"), project)
    for kind in kinds.IN_PROJECT:
        name = name_of(kind, project)
        for side, number in ((writer, "1"), (reader, "2")):
            # Feast does not see a change of an on demand view's tags alone.
            described = {"description": number} if kind.described else {}
            applier(kind, side)(kind.build(name, tags={"n": number}, **described))
        assert getter(kind, writer)(name, False).tags == {"n": "2"}
        delete = "feature_view" if kind.is_view else kind.name
        getattr(writer.registry, f"delete_{delete}")(name, project)
        with pytest.raises(Exception, match=name):
            getter(kind, reader)(name, False)
    reader.registry.delete_project(project)
    with pytest.raises(Exception, match=project):
        writer.registry.get_project(project)


def test_an_equal_apply_of_the_other_writes_nothing(sides: tuple[Side, Side], project: str) -> None:
    """Each recognizes the other's row as unchanged, but where Feast does not recognize its own either."""
    writer, reader = sides
    writer.registry.apply_feature_view(kinds.feature_view("driver_rides"), project)
    careless = {kinds.PROJECT, kinds.STREAM_FEATURE_VIEW, kinds.SAVED_DATASET, kinds.VALIDATION_REFERENCE}
    careless = careless if reader.name == "feast" else set()
    things = {k: k.build(name_of(k, project), tags={"n": "1"}) for k in kinds.ALL if k not in careless}
    for kind, thing in things.items():
        applier(kind, writer)(thing)
    before = reader.database.snapshot(project)
    for kind in things:
        applier(kind, reader)(kind.build(name_of(kind, project), tags={"n": "1"}))
    after = reader.database.snapshot(project)
    for table in before:
        assert before[table] == after[table], f"{reader.name} wrote {table} though nothing had changed"


ODD_NAMES = [
    "O'Brien",
    'say "hi"',
    "100%s",
    "a\\b",
    "naïve_テスト_🚗",
    "x" * 255,
    "with blank",
    "semi;colon--",
    "?",
    ":n",
    "{}",
]


def test_odd_names_and_large_objects_cross_over(sides: tuple[Side, Side], project: str) -> None:
    """What would not survive a missing escape, a narrow column (64 KiB in old tables of MySQL) or a wrong encoding."""
    writer, reader = sides
    for name in ODD_NAMES:
        writer.registry.apply_entity(kinds.entity(name, description=name, tags={name: name}), project)
    large = "é" * (1 << 20)
    writer.registry.apply_feature_view(kinds.feature_view("large", description=large), project)
    writer.registry.apply_feature_view(kinds.feature_view("large", fields=MORE, description=large), project)
    for name in ODD_NAMES:
        read = reader.registry.get_entity(name, project)
        assert (read.name, read.description, read.tags) == (name, name, {name: name})
    assert {e.name for e in reader.registry.list_entities(project)} == set(ODD_NAMES)
    assert reader.registry.get_feature_view("large", project).description == large
    stored = [len(row["feature_view_proto"]) for row in writer.database.versions(project, "large")]
    assert len(stored) == 2 and min(stored) > 2 << 20
    for name in ODD_NAMES:
        reader.registry.delete_entity(name, project)
    assert writer.registry.list_entities(project) == []


def test_versions_cross_over(sides: tuple[Side, Side], project: str) -> None:
    """The history goes on where the other left it; a pin restores what the other saved."""
    writer, reader = sides
    database = reader.database
    writer.registry.apply_feature_view(kinds.feature_view("v"), project)
    reader.registry.apply_feature_view(kinds.feature_view("v", fields=MORE), project)
    writer.registry.apply_feature_view(kinds.feature_view("v", fields=[*MORE, Field(name="x", dtype=Float64)]), project)
    assert [row["version_number"] for row in database.versions(project, "v")] == [0, 1, 2]
    for side in (reader, writer):
        assert side.registry.get_feature_view("v", project).current_version_number == 2
    pinned = reader.registry.get_feature_view("v", project)
    pinned.version = "v0"
    reader.registry.apply_feature_view(pinned, project)
    restored = writer.registry.get_feature_view("v", project)
    assert sorted(f.name for f in restored.features) == ["rides"] and restored.current_version_number == 0
    # Feast's own reading of the history, whoever wrote it.
    feast: SqlRegistry = next(s.registry for s in sides if s.name == "feast")
    assert [v["version"] for v in feast.list_feature_view_versions("v", project)] == ["v0", "v1", "v2"]
    assert len(feast.get_feature_view_by_version("v", project, 1).features) == 2


def test_intervals_cross_over(sides: tuple[Side, Side], project: str) -> None:
    writer, reader = sides
    view = kinds.feature_view("v")
    writer.registry.apply_feature_view(view, project)
    for side, window in zip((writer, reader, writer, reader), WINDOWS):
        side.registry.apply_materialization(view, project, *window)
    for side in sides:
        harness.assert_intervals(side.registry.get_feature_view("v", project).to_proto(), WINDOWS)


def test_project_metadata_crosses_over(sides: tuple[Side, Side], project: str) -> None:
    """One uuid per project, whoever made it; last_updated moves with either's writes; keys of others stay."""
    writer, reader = sides
    writer.registry.apply_entity(kinds.entity("e"), project)
    uuids = {side.registry.list_project_metadata(project)[0].project_uuid for side in sides}
    assert len(uuids) == 1 and len(uuids.pop()) == 36
    feast: SqlRegistry = next(s.registry for s in sides if s.name == "feast")
    feast.set_project_metadata(project, "color", "green")
    reader.registry.apply_entity(kinds.entity("f"), project)
    writer.registry.apply_entity(kinds.entity("g"), project)
    assert feast.get_project_metadata(project, "color") == "green"
    keys = reader.database.rows("SELECT metadata_key FROM feast_metadata WHERE project_id = :project", project=project)
    assert sorted(k["metadata_key"] for k in keys) == ["color", "last_updated_timestamp", "project_uuid"]
    assert feast._get_last_updated_metadata(project) is not None


@pytest.mark.parametrize("kind", kinds.VIEWS, ids=str)
def test_user_metadata_survives_our_writes(
    kind: Kind, server: harness.Server, database: Database, project: str
) -> None:
    """Feast's remote protocol has no user metadata; what a direct user stored stays when we write the row."""
    registry = harness.sql_registry(database, project)
    # Of the project's own: Feast's get_user_metadata takes the first view of the name in any project.
    name = f"view_of_{project}"
    view = kind.build(name)
    ask(server, *kind.apply(kind.proto(name), project)).ok()
    registry.apply_user_metadata(project, view, USER_METADATA)
    ask(server, *kind.apply(kind.proto(name, tags={"a": "b"}), project)).ok()
    if kind in (kinds.FEATURE_VIEW, kinds.STREAM_FEATURE_VIEW):
        request = api.ApplyMaterializationRequest(project=project, commit=True)
        request.feature_view.spec.name = name
        request.start_date.seconds, request.end_date.seconds = 60, 120
        ask(server, "ApplyMaterialization", request).ok()
    assert registry.get_user_metadata(project, view) == USER_METADATA
    registry.write_engine.dispose()


def test_the_tables_go_with_the_last_project_and_come_back_with_the_next(
    database: Database, tmp_path: Path, project: str
) -> None:
    """`feast teardown` deletes every project; with the last one the tables go, and both sides can start over."""
    with (
        databases.own_database(database.service, tmp_path) as own,
        harness.running(harness.start_ours(own)) as server,
    ):
        ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto("e"), project)).ok()
        ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto("e"), "other")).ok()
        ask(server, "DeleteProject", api.DeleteProjectRequest(name=project, commit=True)).ok()
        assert own.tables(), "a project is left, and so are the tables"
        ask(server, "DeleteProject", api.DeleteProjectRequest(name="other", commit=True)).ok()
        assert not own.tables(), "no project is left, and neither are the tables"
        assert "feast_registry_journal" in own.all_tables(), "the journal says what became of the last deletion"
        assert not ask(server, *kinds.ENTITY.list(project)).ok().entities
        registry = harness.sql_registry(own, project)
        registry.apply_entity(kinds.entity("f"), project)
        ask(server, "Refresh", api.RefreshRequest(project=project)).ok()
        assert [e.spec.name for e in ask(server, *kinds.ENTITY.list(project)).ok().entities] == ["f"]
        # Feast empties the tables and leaves them, and the projects.
        registry.teardown()
        registry.write_engine.dispose()
        ask(server, "Refresh", api.RefreshRequest(project=project)).ok()
        assert not ask(server, *kinds.ENTITY.list(project)).ok().entities
        # All that is left is the project: when we delete it the tables go once more, and come back with our next write.
        ask(server, "DeleteProject", api.DeleteProjectRequest(name=project, commit=True)).ok()
        assert not own.tables()
        ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto("g"), project)).ok()
        assert [e.spec.name for e in ask(server, *kinds.ENTITY.list(project)).ok().entities] == ["g"]
        assert len(own.tables()) >= 14


def test_the_teardown_command(database: Database, tmp_path: Path, project: str) -> None:
    """`feast-registry teardown` on tables that Feast made and filled: one project, and then all."""
    with databases.own_database(database.service, tmp_path) as own:
        for name in (project, "other"):
            registry = harness.sql_registry(own, name)
            registry.apply_entity(kinds.entity("e"), name)
            registry.apply_feature_view(kinds.feature_view("v"), name)
            registry.write_engine.dispose()

        def teardown(*arguments: str) -> None:
            command = [str(harness.registry_bin()), "teardown", "--registry", own.url, "--yes", *arguments]
            ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert ran.returncode == 0, ran.stderr

        teardown("--project", project)
        assert not any(own.snapshot(project).values())
        registry = harness.sql_registry(own, "other", schema_mode="verify")
        assert [entity.name for entity in registry.list_entities("other")] == ["e"]
        assert len(own.versions("other", "v")) == 1
        registry.write_engine.dispose()
        teardown("--all")
        assert own.tables() == []


# --- both at once -----------------------------------------------------------------------------------------------


def test_both_write_at_the_same_time(
    server: harness.Server, database: Database, nursery: harness.Nursery, project: str, tmp_path: Path
) -> None:
    """Two processes through us and two with Feast's SqlRegistry, each 25 entities of its own: all are there."""
    targets = [str(server.port), str(server.port), database.url, database.url]
    ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto("first"), project)).ok()
    jobs = [["entities", target, project, f"e{i}", "25"] for i, target in enumerate(targets)]
    finished = harness.Workers(nursery, tmp_path / "race", jobs).go().finish()
    harness.assert_overlap(finished)
    acknowledged = {name for worker in finished for name in worker.result["acknowledged"]}
    assert len(acknowledged) == 100
    ask(server, "Refresh", api.RefreshRequest(project=project)).ok()
    for allow_cache in (False, True):
        listed = ask(server, *kinds.ENTITY.list(project, allow_cache=allow_cache)).ok().entities
        assert {e.spec.name for e in listed} == acknowledged | {"first"}
    registry = harness.sql_registry(database, project)
    assert {e.name for e in registry.list_entities(project)} == acknowledged | {"first"}
    registry.write_engine.dispose()
    database.assert_sound()
