"""Proves what becomes of our writes while Feast's SqlRegistry writes to the same database, and to the same objects.

Feast reads an object, and writes it whole a moment later: what was stored in between is gone, and no other writer can
keep it from that. What we promise is that none of *our* writes undoes one of Feast's, or is lost to anything else.
The final state alone cannot show it. So triggers of the test keep a log of every row that is stored, with who stored
it and what was there before, and the log is what is checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from feast.protos.feast.core.Entity_pb2 import Entity
from feast.protos.feast.core.FeatureView_pb2 import FeatureView
from feast.protos.feast.registry import RegistryServer_pb2 as api
from google.protobuf.message import Message
from sqlalchemy import make_url

import databases
import harness
import kinds
from databases import Database, spelled
from differential import ask

WRITERS = 3  # of either
OUR_ROUNDS, FEASTS_ROUNDS = 40, 12  # ours takes less time for each
TURNS = 12  # how often the log must change from one to the other, at least
LOGGED = {"feature_views": ("feature_view", FeatureView), "entities": ("entity", Entity)}


def keep_a_log(database: Database) -> None:
    """Triggers that copy every stored row into the table `log`: in the order in which the rows were locked."""
    if database.service == "postgres":
        who, number, blob = "current_setting('application_name')", "bigserial", "bytea"
    else:
        who, number, blob = "coalesce(@who, 'feast-registry')", "bigint AUTO_INCREMENT", "longblob"
    database.run(
        f"CREATE TABLE log (number {number} PRIMARY KEY, who varchar(50), kind varchar(50), project varchar(255), "
        f"name varchar(255), before_it {blob}, after_it {blob})"
    )
    for table, (column, _) in LOGGED.items():
        insert = "INSERT INTO log (who, kind, project, name, before_it, after_it) VALUES "
        row = f"({who}, '{table}', NEW.project_id, NEW.{column}_name, %s, NEW.{column}_proto)"
        old = {"insert": "NULL", "update": f"OLD.{column}_proto"}
        for event, value in old.items():
            trigger, body = f"log_{table}_{event}", f"{insert}{row % value};"
            if database.service == "postgres":
                database.run(
                    f"CREATE FUNCTION {trigger}() RETURNS trigger LANGUAGE plpgsql AS "
                    f"$$ BEGIN {body} RETURN NULL; END $$",
                    f"CREATE TRIGGER {trigger} AFTER {event} ON {table} FOR EACH ROW EXECUTE FUNCTION {trigger}()",
                )
            else:
                database.run(f"CREATE TRIGGER {trigger} AFTER {event} ON {table} FOR EACH ROW {body}")


def url_of_feast(database: Database) -> str:
    """By which the triggers know Feast's connections."""
    own = {"application_name": "feast"} if database.service == "postgres" else {"init_command": "SET @who = 'feast'"}
    return spelled(make_url(database.url).update_query_dict(own))


@dataclass
class Stored:
    """One row of the log."""

    is_ours: bool
    before: Any
    now: Any

    @property
    def intervals(self) -> list[tuple]:
        return harness.intervals(self.now)

    @property
    def mark(self) -> str:
        return self.now.spec.tags["mark"]


def read_log(database: Database, project: str, table: str, name: str) -> list[Stored]:
    found = database.rows(
        "SELECT who, before_it, after_it FROM log WHERE kind = :table AND project = :project AND name = :name "
        "ORDER BY number",
        table=table,
        project=project,
        name=name,
    )
    message: type[Message] = LOGGED[table][1]
    parse = lambda value: message.FromString(value or b"")
    assert {row["who"] for row in found} == {"feast-registry", "feast"}
    for earlier, later in zip(found, found[1:]):
        assert later["before_it"] == earlier["after_it"], "the log has a gap, or its order is not that of the writes"
    return [Stored(row["who"] == "feast-registry", parse(row["before_it"]), parse(row["after_it"])) for row in found]


def switches(log: list[Stored]) -> int:
    return sum(a.is_ours != b.is_ours for a, b in zip(log, log[1:]))


@pytest.fixture(scope="module", params=databases.SERVICES)
def logged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with databases.own_database(request.param, tmp_path_factory.mktemp(request.param)) as database:
        yield database


@pytest.fixture(scope="module")
def logged_server(logged: Database) -> Iterator[harness.Server]:
    with harness.running(harness.start_ours(logged)) as server:
        keep_a_log(logged)
        yield server


def test_none_of_our_writes_is_lost_or_undoes_one_of_feasts(
    logged_server: harness.Server, logged: Database, nursery: harness.Nursery, project: str, tmp_path: Path
) -> None:
    server, feast = logged_server, url_of_feast(logged)
    ask(server, *kinds.FEATURE_VIEW.apply(kinds.FEATURE_VIEW.proto("view"), project)).ok()
    ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto("same"), project)).ok()
    jobs = [["mixed", str(server.port), project, str(OUR_ROUNDS)] for _ in range(WRITERS)]
    jobs += [["mixed", feast, project, str(FEASTS_ROUNDS)] for _ in range(WRITERS)]
    finished = harness.Workers(nursery, tmp_path / "race", jobs).go().finish()
    harness.assert_overlap(finished)
    ours, feasts = finished[:WRITERS], finished[WRITERS:]

    def acknowledged(kind: str, workers: list[harness.Finished]) -> list[Any]:
        return [each for worker in workers for each in worker.result[kind]]

    # What only one writes is all there, whoever it is.
    own = set(acknowledged("own", ours))
    assert len(own) == WRITERS * OUR_ROUNDS
    stored = {e.spec.name for e in ask(server, *kinds.ENTITY.list(project)).ok().entities}
    assert own | set(acknowledged("own", feasts)) <= stored

    # Each of our writes to the entity that all write was stored, once. What replaced it, if anything, came later.
    log = read_log(logged, project, "entities", "same")
    assert switches(log) >= TURNS, f"the writers took turns {switches(log)} times only"
    times = Counter(each.mark for each in log if each.is_ours and each.mark)
    assert times == Counter(acknowledged("same", ours))
    assert ask(server, *kinds.ENTITY.get("same", project)).ok().spec.tags["mark"] == log[-1].mark

    # Each of our writes to the view left every interval that was there when it was stored, Feast's too, and added its own.
    log = read_log(logged, project, "feature_views", "view")
    assert switches(log) >= TURNS, f"the writers took turns {switches(log)} times only"
    added: Counter[tuple] = Counter()
    for each in log:
        before, now = harness.intervals(each.before), each.intervals
        if each.is_ours:
            assert now[: len(before)] == before, "an interval that was stored is gone with a write of ours"
            assert len(now) <= len(before) + 1
            added.update(now[len(before) :])
    expected = Counter(tuple(map(harness.from_seconds, pair)) for pair in acknowledged("intervals", ours))
    assert len(expected) == WRITERS * OUR_ROUNDS
    assert added == expected, "each acknowledged interval is stored by one write of ours"
    tagged = Counter(each.mark for each in log if each.is_ours and each.mark != each.before.spec.tags["mark"])
    assert tagged == Counter(acknowledged("views", ours))
    # What is gone nevertheless went with a write of Feast's.
    final = ask(server, *kinds.FEATURE_VIEW.get("view", project)).ok()
    assert harness.intervals(final) == log[-1].intervals
    for interval in set(expected) - set(harness.intervals(final)):
        *_, last = (a for a, b in zip(log[1:], log) if interval in b.intervals and interval not in a.intervals)
        assert not last.is_ours

    slowest = max(worker.result["slowest"] for worker in ours)
    assert slowest < 15, f"a write of ours took {slowest:.1f} s"


def test_after_feast_has_stopped_nothing_is_lost(
    logged_server: harness.Server, logged: Database, nursery: harness.Nursery, project: str, tmp_path: Path
) -> None:
    """The plain half: intervals that we write after Feast's last write are all there, beside those that it left."""
    registry = harness.sql_registry(url_of_feast(logged), project)
    view = kinds.feature_view("view")
    registry.apply_feature_view(view, project)
    windows = harness.hour_windows(12)
    for window in windows[:2]:
        registry.apply_materialization(view, project, *window)
    registry.write_engine.dispose()
    jobs = [["materialize", str(logged_server.port), project, "view", str(2 + 5 * i), "5"] for i in range(2)]
    harness.assert_overlap(harness.Workers(nursery, tmp_path / "race", jobs).go().finish())
    request = api.GetFeatureViewRequest(name="view", project=project)
    harness.assert_intervals(ask(logged_server, "GetFeatureView", request).ok(), windows)
