"""Proves that a user of Feast's command line can change one line of configuration and go on as before.

The real `feast` commands run in processes of their own over the repository in repo/: plan, apply, apply again,
change and apply, materialize, read back, push, list, delete, teardown, and a second project beside it. Plan,
apply, materialize and teardown run the installed executable at least once (its hash seed differs each time, as a
user's does); the rest are forked from one process that has imported Feast already, which takes a tenth of the time.

The fixtures are chained, each a chapter of one story, so that any test can be run alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast.protos.feast.core.FeatureView_pb2 import FeatureViewState
from feast.protos.feast.registry import RegistryServer_pb2 as api

import harness
import kinds
from differential import ask
from harness import DRIVERS, Ran, driver_facts

PROJECT, NEIGHBOUR = "rides", "neighbour"
VIEWS = {"driver_stats", "driver_fresh", "customer_profile", "driver_stats_batch"}
HALF_TIME = harness.DATA_START + timedelta(hours=12)
END = harness.DATA_START + timedelta(hours=harness.DATA_HOURS)
LAST = harness.DATA_HOURS - 1


def iso(moment: Any) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


@dataclass
class Story:
    server: harness.Server
    nursery: harness.Nursery
    repo: Path
    outputs: dict[str, str] = field(default_factory=dict)
    snapshots: dict[str, dict[str, list[tuple]]] = field(default_factory=dict)

    def feast(self, *command: str) -> str:
        """The installed executable."""
        (ran,) = harness.feast_cli(self.repo, command)
        return ran.ok().out

    def quick(self, *commands: tuple[str, ...]) -> list[Ran]:
        """Forked from the nursery, all at once."""
        return [ran.ok() for ran in harness.feast_fast(self.nursery, self.repo, *commands)]

    def snapshot(self, project: str = PROJECT) -> dict[str, list[tuple]]:
        return harness.project_snapshot(self.server.db, project)

    def get(self, kind: kinds.Kind, name: str, project: str = PROJECT) -> Any:
        return ask(self.server, *kind.get(name, project)).ok()

    def names(self, kind: kinds.Kind, project: str = PROJECT) -> set[str]:
        return {kind.name_of(o) for o in kind.listed(ask(self.server, *kind.list(project)).ok())}


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, nursery: harness.Nursery) -> Iterator[Story]:
    """A second project is there before; the first is planned while it does not exist."""
    folder = tmp_path_factory.mktemp("story")
    with harness.running(harness.start_ours(folder / "registry.db")) as server:
        neighbour = Story(server, nursery, harness.make_repo(folder / "neighbour", server, NEIGHBOUR))
        neighbour.quick(("apply",))
        story = Story(server, nursery, harness.make_repo(folder / "repo", server, PROJECT))
        story.snapshots["neighbour"] = story.snapshot(NEIGHBOUR)
        story.outputs["first plan"] = story.feast("plan")
        story.snapshots["after the first plan"] = story.snapshot()
        yield story


@pytest.fixture(scope="module")
def applied(planned: Story) -> Story:
    planned.outputs["apply"] = planned.feast("apply")
    planned.snapshots["applied"] = planned.snapshot()
    planned.outputs["second apply"] = planned.feast("apply")
    planned.snapshots["applied again"] = planned.snapshot()
    planned.outputs["second plan"] = planned.quick(("plan",))[0].out
    return planned


@pytest.fixture(scope="module")
def changed(applied: Story) -> Story:
    """One more field in a feature view."""
    definitions = applied.repo / "definitions.py"
    text = definitions.read_text()
    new = 'Field(name="rating", dtype=Float32, description="Stars, one to five"),'
    definitions.write_text(text.replace("# INTEROP-NEW-FIELD", new))
    applied.outputs["changed plan"] = applied.quick(("plan",))[0].out
    applied.snapshots["before the change"] = applied.snapshot()
    applied.outputs["changed apply"] = applied.feast("apply")
    return applied


@pytest.fixture(scope="module")
def materialized(changed: Story) -> Story:
    # Not the batch view: once it has an interval, Feast's own plan and apply fail on it, with any registry
    # (ValueError: Protocol message FeatureViewSpec has no "user_defined_function" field).
    views = ("-v", "driver_stats", "-v", "driver_fresh", "-v", "customer_profile")
    changed.feast("materialize", iso(harness.DATA_START), iso(HALF_TIME), *views)
    half = changed.get(kinds.FEATURE_VIEW, "driver_stats")
    harness.assert_intervals(half, [(harness.DATA_START, HALF_TIME)])
    changed.quick(("materialize-incremental", iso(END), *views))
    changed.quick(("apply",))
    return changed


@pytest.fixture(scope="module")
def deleted(materialized: Story) -> Story:
    """Of each kind that `feast delete` knows, one by one."""
    story = materialized
    registry = harness.remote_registry(story.server.port, PROJECT)
    registry.apply_saved_dataset(kinds.saved_dataset("a_dataset"), PROJECT)
    registry.apply_validation_reference(kinds.validation_reference("a_reference"), PROJECT)
    story.outputs["datasets"] = "".join(
        r.out for r in story.quick(("saved-datasets", "list"), ("validation-references", "list"))
    )
    for name in ("handover", "driver_fresh", "customer_spend", "driver_rides_stream", "no_such_thing"):
        story.outputs[f"delete {name}"] = story.quick(("delete", name))[0].out
    # `feast delete` looks for these two through the data that they name, of which there is none here.
    registry.delete_validation_reference("a_reference", PROJECT)
    registry.delete_saved_dataset("a_dataset", PROJECT)
    return story


# --- plan and apply ----------------------------------------------------------------------------------------------


def test_a_plan_writes_nothing(planned: Story) -> None:
    out = planned.outputs["first plan"]
    assert "Created feature view" in plain(out) and "driver_stats" in out
    assert not any(planned.snapshots["after the first plan"].values()), "plan has made rows of a project"


def test_apply_registers_everything(applied: Story) -> None:
    assert applied.names(kinds.ENTITY) == {"driver", "customer", "__dummy"}
    assert applied.names(kinds.FEATURE_VIEW) == VIEWS
    assert applied.names(kinds.STREAM_FEATURE_VIEW) == {"driver_rides_stream"}
    assert applied.names(kinds.ON_DEMAND_FEATURE_VIEW) == {"trip_price", "customer_spend"}
    assert applied.names(kinds.LABEL_VIEW) == {"fraud_label"}
    assert applied.names(kinds.FEATURE_SERVICE) == {"pricing", "handover"}
    assert applied.names(kinds.PERMISSION) == {"read_rides"}
    sources = {"driver_stats_source", "customer_source", "fraud_source", "driver_push_source", "fraud_push_source"}
    assert applied.names(kinds.DATA_SOURCE) == sources | {"rides_topic", "trip_request"}
    infra = ask(applied.server, "GetInfra", api.GetInfraRequest(project=PROJECT)).ok()
    assert {o.sqlite_table.name for o in infra.infra_objects} >= {f"{PROJECT}_{v}" for v in VIEWS}
    stats = applied.get(kinds.FEATURE_VIEW, "driver_stats")
    assert stats.spec.owner == "fleet@example.com" and dict(stats.spec.tags) == {"team": "rides", "tier": "1"}
    assert stats.spec.features[0].tags["unit"] == "ratio"


def test_applying_again_changes_no_row(applied: Story) -> None:
    """Byte for byte, in every table: the objects, their versions, the infra, and when the project last changed."""
    before, after = applied.snapshots["applied"], applied.snapshots["applied again"]
    written = {
        table: [new[:2] for old, new in zip(before[table], after[table]) if old != new] or "another number of rows"
        for table in before
        if before[table] != after[table]
    }
    assert not written, f"an apply without a change has written {written}"


def test_a_plan_after_an_apply_finds_no_infrastructure_to_change(applied: Story) -> None:
    """And no object but the stream view, whose fields Feast's client lists in the random order of a set."""
    out = plain(applied.outputs["second plan"])
    assert "No changes to infrastructure" in out
    touched = re.findall(
        r"^(?:Created|Updated|Deleted) (?:.*view|entity|.*service|permission|project) (\S+)", out, re.M
    )
    assert set(touched) <= {"driver_rides_stream"}, touched


def test_a_new_field_is_planned_and_applied(changed: Story) -> None:
    out = plain(changed.outputs["changed plan"])
    assert "Updated feature view driver_stats" in out and "rating" in out
    stats = changed.get(kinds.FEATURE_VIEW, "driver_stats")
    assert [f.name for f in stats.spec.features] == ["acceptance", "trips", "rating"]
    assert stats.meta.current_version_number == 1
    assert [v["version_number"] for v in harness.versions(changed.server.db, PROJECT, "driver_stats")] == [0, 1]
    # The other views are as they were.
    before = {row[0]: row for row in changed.snapshots["before the change"]["feature_views"]}
    after = {row[0]: row for row in changed.snapshot()["feature_views"]}
    for name in VIEWS - {"driver_stats", "driver_fresh", "customer_profile"}:
        assert before[name] == after[name], name


# --- materialize and read -------------------------------------------------------------------------------------------


def test_materializing_and_applying_keeps_the_intervals(materialized: Story) -> None:
    """materialize, materialize-incremental from its end on, then an apply, whose views know no intervals."""
    for view in ("driver_stats", "driver_fresh", "customer_profile"):
        stored = materialized.get(kinds.FEATURE_VIEW, view)
        harness.assert_intervals(stored, [(harness.DATA_START, HALF_TIME), (HALF_TIME, END)])
        assert stored.meta.state == FeatureViewState.AVAILABLE_ONLINE
    assert len(harness.versions(materialized.server.db, PROJECT, "driver_stats")) == 2


def test_online_features_are_those_of_the_files(materialized: Story) -> None:
    store = harness.feature_store(materialized.repo)
    answer = store.get_online_features(
        ["driver_stats:acceptance", "driver_stats:trips", "driver_stats:rating"], [{"driver_id": d} for d in DRIVERS]
    ).to_dict()
    facts = [driver_facts(d, LAST) for d in DRIVERS]
    assert answer["acceptance"] == [a for a, _ in facts]
    assert answer["trips"] == [t for _, t in facts]
    assert answer["rating"] == [t / 2 for _, t in facts]
    customers = store.get_online_features(
        ["customer_profile:segment", "customer_profile:spend", "customer_profile:visited"],
        [{"customer_id": c} for c in harness.CUSTOMERS],
    ).to_dict()
    assert customers["spend"] == [i + 0.5 for i in range(len(harness.CUSTOMERS))]
    assert customers["visited"] == [list(range(i)) for i in range(len(harness.CUSTOMERS))]


def test_a_feature_service_online(materialized: Story) -> None:
    """A service of a part of a view, a whole view and an on demand view, with request data."""
    store = harness.feature_store(materialized.repo)
    row = {"driver_id": 1001, "customer_id": "c-b", "distance_km": 10.0, "surge": 1.5}
    answer = store.get_online_features(store.get_feature_service("pricing"), [row]).to_dict()
    acceptance, _ = driver_facts(1001, LAST)
    assert answer["acceptance"] == [acceptance] and answer["segment"] == ["gold"]
    assert answer["price"] == [15.0] and answer["accepted_price"] == [15.0 * acceptance]
    handover = store.get_online_features(store.get_feature_service("handover"), [{"from_id": 1001, "to_id": 1002}],
                                         full_feature_names=True).to_dict()  # fmt: skip
    trips = [handover[f"{name}_driver__trips"][0] for name in ("from", "to")]
    assert trips == [driver_facts(d, LAST)[1] for d in (1001, 1002)]


def test_online_features_from_the_command_line(materialized: Story) -> None:
    (ran,) = materialized.quick(("get-online-features", "-e", "driver_id=1003", "-f", "driver_stats:trips"))
    assert json.loads(ran.out[ran.out.index("{") :])["trips"] == [driver_facts(1003, LAST)[1]]


def test_historical_features(materialized: Story) -> None:
    store = harness.feature_store(materialized.repo)
    asked = [(d, harness.DATA_START + timedelta(hours=h, minutes=30), h) for d in DRIVERS for h in (0, 7, LAST)]
    frame = pd.DataFrame([(d, when) for d, when, _ in asked], columns=["driver_id", "event_timestamp"])
    out = store.get_historical_features(frame, ["driver_stats:trips", "driver_stats:acceptance"]).to_df()
    found = {(row.driver_id, row.event_timestamp): (row.acceptance, row.trips) for row in out.itertuples()}
    for driver, when, hour in asked:
        assert found[driver, pd.Timestamp(when)] == driver_facts(driver, hour)


def test_a_push_reaches_the_online_store(materialized: Story) -> None:
    store = harness.feature_store(materialized.repo)
    later = END + timedelta(hours=1)
    frame = pd.DataFrame(
        {"driver_id": [1001], "event_timestamp": [later], "created": [later], "acceptance": [0.5], "trips": [777]}
    )
    store.push("driver_push_source", frame)
    answer = store.get_online_features(["driver_fresh:trips"], [{"driver_id": 1001}, {"driver_id": 1002}]).to_dict()
    assert answer["trips"] == [777, driver_facts(1002, LAST)[1]]


# --- lists ----------------------------------------------------------------------------------------------------------

LISTS: dict[tuple[str, ...], set[str]] = {
    ("feature-views", "list"): VIEWS | {"trip_price", "customer_spend", "AVAILABLE_ONLINE"},
    ("feature-views", "list", "--tags", "team:growth"): {"customer_profile"},
    ("feature-views", "describe", "driver_stats"): {
        "acceptance",
        "rating",
        "fleet@example.com",
        "currentVersionNumber: 1",
    },
    ("stream-feature-views", "list"): {"driver_rides_stream"},
    ("stream-feature-views", "describe", "driver_rides_stream"): {"rides_topic"},
    ("on-demand-feature-views", "list"): {"trip_price", "customer_spend"},
    ("on-demand-feature-views", "describe", "trip_price"): {"accepted_price"},
    ("label-views", "list"): {"fraud_label"},
    ("entities", "list"): {"driver", "customer"},
    ("entities", "describe", "driver"): {"driver_id", "fleet@example.com"},
    ("data-sources", "list"): {"driver_stats_source", "driver_push_source", "rides_topic", "trip_request"},
    ("data-sources", "describe", "rides_topic"): {"localhost:9092"},
    ("feature-services", "list"): {"pricing", "handover", "driver_stats:acceptance"},
    ("feature-services", "describe", "handover"): {"from_driver", "to_id"},
    ("features", "list"): {"acceptance", "rating", "spend_rounded", "price"},
    ("features", "describe", "trips"): {"driver_stats", "driver_fresh"},
    ("permissions", "list"): {"read_rides", "rides-reader"},
    ("permissions", "describe", "read_rides"): {"READ_ONLINE"},
    ("permissions", "list-roles"): {"rides-reader"},
    ("permissions", "check"): {"pricing", "rides_topic"},
    ("projects", "list"): {PROJECT, NEIGHBOUR},
    ("projects", "describe", PROJECT): {PROJECT},
    ("projects", "current_project"): {PROJECT},
}
"""Not `feast registry-dump`: Feast's client fails on an on demand view in Python mode (KeyError: 'substraitPlan')."""


@pytest.fixture(scope="module")
def lists(materialized: Story) -> dict[tuple[str, ...], Ran]:
    commands, at_once = list(LISTS), 6
    batches = (commands[i : i + at_once] for i in range(0, len(commands), at_once))
    run = (harness.feast_fast(materialized.nursery, materialized.repo, *batch) for batch in batches)
    return {ran.args: ran for batch in run for ran in batch}


@pytest.mark.parametrize("command", LISTS, ids=" ".join)
def test_lists_and_descriptions(command: tuple[str, ...], lists: dict[tuple[str, ...], Ran]) -> None:
    out = plain(lists[command].ok().out)
    missing = {text for text in LISTS[command] if text not in out}
    assert not missing, f"feast {' '.join(command)} does not show {missing}:\n{out}"
    if "--tags" in command:
        assert "driver_stats" not in out


@pytest.mark.parametrize(
    "command",
    ["feature-views", "entities", "data-sources", "feature-services", "on-demand-feature-views",
     "stream-feature-views", "permissions", "projects", "label-views"],
)  # fmt: skip
def test_describing_what_is_not_there(command: str, materialized: Story) -> None:
    """The client's exception becomes a sentence and exit code 1, not a traceback."""
    (ran,) = harness.feast_fast(materialized.nursery, materialized.repo, (command, "describe", "no_such_thing"))
    assert ran.code == 1 and "no_such_thing" in ran.out and "Traceback" not in ran.out, ran.out


def plain(text: str) -> str:
    """Without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


# --- delete and teardown ----------------------------------------------------------------------------------------------


def test_deleting_objects_one_by_one(deleted: Story) -> None:
    assert "a_dataset" in deleted.outputs["datasets"] and "a_reference" in deleted.outputs["datasets"]
    for name in ("handover", "driver_fresh", "customer_spend", "driver_rides_stream"):
        assert "Deleted" in deleted.outputs[f"delete {name}"], deleted.outputs[f"delete {name}"]
    assert "not found" in deleted.outputs["delete no_such_thing"]
    assert deleted.names(kinds.FEATURE_SERVICE) == {"pricing"}
    assert deleted.names(kinds.FEATURE_VIEW) == VIEWS - {"driver_fresh"}
    assert deleted.names(kinds.ON_DEMAND_FEATURE_VIEW) == {"trip_price"}
    assert deleted.names(kinds.STREAM_FEATURE_VIEW) == set()
    assert deleted.names(kinds.VALIDATION_REFERENCE) == set()
    assert harness.versions(deleted.server.db, PROJECT, "driver_fresh") == []
    assert deleted.names(kinds.SAVED_DATASET) == set()


def test_the_second_project_is_untouched(deleted: Story) -> None:
    """By the applies, the materializations and the deletes of the first: not a row has changed."""
    assert deleted.snapshot(NEIGHBOUR) == deleted.snapshots["neighbour"]


def test_deleting_a_project_leaves_the_other(deleted: Story) -> None:
    story = deleted
    story.quick(("projects", "delete", "-y", PROJECT))
    assert not any(story.snapshot().values())
    assert story.snapshot(NEIGHBOUR) == story.snapshots["neighbour"]
    (ran,) = harness.feast_fast(story.nursery, story.repo, ("projects", "delete", "-y", PROJECT))
    assert ran.code == 1 and "Traceback" not in ran.out, ran.out


def test_teardown_of_everything(own_server: harness.Server, nursery: harness.Nursery, tmp_path: Path) -> None:
    """`feast teardown` deletes every project that the registry lists: that is Feast's client, not the registry.

    (FeatureStore.teardown calls list_projects, and delete_project for each; feast-dev/feast#3591.) What it
    leaves can be applied again.
    """
    stories = [
        Story(own_server, nursery, harness.make_repo(tmp_path / name, own_server, name))
        for name in (PROJECT, NEIGHBOUR)
    ]
    for story in stories:
        story.quick(("apply",))
    out = stories[0].feast("teardown")
    assert "Traceback" not in out
    assert ask(own_server, "ListProjects", api.ListProjectsRequest()).ok().projects == []
    stories[0].quick(("apply",))
    assert stories[0].names(kinds.FEATURE_VIEW) == VIEWS
    assert [v["version_number"] for v in harness.versions(own_server.db, PROJECT, "driver_stats")] == [0]
    harness.assert_sound(own_server.db)
