"""Proves that feature views behave as in Feast: unique names, versions, materialization; and where ours is better.

The same calls go to Feast's registry server and to ours; version histories are read from both SQLite files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc
import pytest
from feast import Field
from feast.protos.feast.core.FeatureView_pb2 import FeatureViewState
from feast.protos.feast.registry import RegistryServer_pb2 as api
from feast.types import Float64, Int64, String

import harness
import kinds
from differential import Answer, Pair, ask, failed, succeeded
from kinds import Kind

every_view = pytest.mark.parametrize("kind", kinds.VIEWS, ids=str)
WINDOWS = harness.hour_windows(6)
ONLINE = FeatureViewState.AVAILABLE_ONLINE


def apply(pair: Pair, kind: Kind, name: str = "v", change: Callable[[Any], None] = lambda _: None, **more: Any) -> Any:
    proto = kind.proto(name, **more)
    change(proto)
    return kind.apply(proto, pair.project)


def materialization(project: str, name: str, start: Any, end: Any) -> tuple[str, Any]:
    request = api.ApplyMaterializationRequest(project=project, commit=True)
    request.feature_view.spec.name = name
    request.start_date.CopyFrom(harness.stamp(start))
    request.end_date.CopyFrom(harness.stamp(end))
    return "ApplyMaterialization", request


def names_it(answer: Answer, name: str = "v") -> bool:
    """The message quotes the name, in whatever quotes."""
    return re.search(f"['`\"]{re.escape(name)}['`\"]", answer.error_text) is not None


# --- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", kinds.VIEWS, ids=lambda k: f"then-{k}")
@pytest.mark.parametrize("first", kinds.VIEWS, ids=str)
def test_a_name_belongs_to_one_kind(first: Kind, second: Kind, pair: Pair) -> None:
    """The second kind is refused with ConflictingFeatureViewNames and the first view stays as it is."""
    pair.ok(*apply(pair, first))
    answer = pair.same(*apply(pair, second, description="second"))
    if first is second:
        answer.ok()
    else:
        assert answer.error_class == "ConflictingFeatureViewNames" and names_it(answer)
    pair.ok("GetAnyFeatureView", api.GetAnyFeatureViewRequest(name="v", project=pair.project))
    # The name is free again once the first is deleted.
    pair.ok(*first.delete("v", pair.project))
    pair.ok(*apply(pair, second))


def test_names_that_differ_in_case_are_different_names(pair: Pair) -> None:
    for name in ("v", "V"):
        pair.ok(*apply(pair, kinds.FEATURE_VIEW, name))
    pair.ok(*apply(pair, kinds.ON_DEMAND_FEATURE_VIEW, "w"))
    pair.ok(*apply(pair, kinds.STREAM_FEATURE_VIEW, "W"))
    pair.ok("ListAllFeatureViews", api.ListAllFeatureViewsRequest(project=pair.project))


@every_view
@pytest.mark.parametrize("name", ["a@b", "@", "v@v2", "a:b", ":", ""])
def test_bad_names_are_refused(kind: Kind, name: str, pair: Pair) -> None:
    pair.refused(*apply(pair, kind, name), naming=name)
    assert pair.ok("ListAllFeatureViews", api.ListAllFeatureViewsRequest(project=pair.project)).feature_views == []


@pytest.mark.parametrize("kind", [k for k in kinds.IN_PROJECT if not k.is_view], ids=str)
def test_other_kinds_may_have_any_name_but_none(kind: Kind, pair: Pair) -> None:
    if kind is kinds.FEATURE_SERVICE:
        pair.ok(*apply(pair, kinds.FEATURE_VIEW, "driver_rides"))
    for name in ("a@b", "a:b", "with space", "ünï", "x" * 200):
        pair.ok(*kind.apply(kind.proto(name), pair.project))
        pair.ok(*kind.get(name, pair.project))
    nameless = kind.proto("x")
    kind.spec(nameless).ClearField("name")
    call = kind.apply(nameless, pair.project)
    if kind is kinds.DATA_SOURCE:
        pair.differs("nameless-file-source", *call, theirs=succeeded, ours=failed(grpc.StatusCode.INVALID_ARGUMENT))
    else:
        pair.refused(*call)


@pytest.mark.parametrize("name", ["", "with space", "a@b", "_x"])
def test_names_of_projects(name: str, pair: Pair) -> None:
    """The CLI checks a project's name, the registry only that there is one."""
    proto = kinds.PROJECT.proto(name and f"{pair.project}{name}")
    if name:
        pair.ok(*kinds.PROJECT.apply(proto, ""))
        pair.ok("DeleteProject", api.DeleteProjectRequest(name=proto.spec.name, commit=True))
    else:
        pair.refused(*kinds.PROJECT.apply(proto, ""))


@every_view
def test_views_without_entities(kind: Kind, pair: Pair) -> None:
    """Feast refuses a view whose list of entities is empty; its own clients send a placeholder."""
    call = apply(pair, kind, change=lambda p: p.spec.ClearField("entities"))
    if kind is kinds.ON_DEMAND_FEATURE_VIEW:
        pair.ok(*call)
    else:
        pair.refused(*call)


def test_an_empty_request_is_refused(pair: Pair) -> None:
    pair.refused("ApplyFeatureView", api.ApplyFeatureViewRequest(project=pair.project, commit=True))


# --- versions ----------------------------------------------------------------------------------------------


def history(pair: Pair, name: str = "v") -> list[tuple[int, str, int, list[str]]]:
    """(number, kind, the number inside the snapshot, its features), equal in both files."""

    def read(db: Any) -> list[Any]:
        out = []
        for row in harness.versions(db, pair.project, name):
            kind = kinds.BY_NAME[row["feature_view_type"]]
            proto = kind.proto("x")
            proto.ParseFromString(row["feature_view_proto"])
            number = getattr(proto.meta, "current_version_number", 0)
            assert len(row["version_id"]) == 36 and row["created_timestamp"] > 1_700_000_000
            assert proto.spec.project in ("", pair.project)
            out.append((row["version_number"], str(kind), number, sorted(f.name for f in proto.spec.features)))
        return out

    ours, theirs = read(pair.ours.db), read(pair.oracle.db)
    assert ours == theirs, f"version history of {name}: Feast {theirs}, ours {ours}"
    return ours


def current(pair: Pair, kind: Kind = kinds.FEATURE_VIEW, name: str = "v") -> Any:
    proto = pair.ok(*kind.get(name, pair.project))
    return getattr(proto.meta, "current_version_number", 0)


ONE_MORE = {"fields": [*kinds.RIDES, Field(name="rating", dtype=Float64)]}
TWO_MORE = {"fields": [*ONE_MORE["fields"], Field(name="city", dtype=String)]}


def test_each_change_of_schema_is_a_version(pair: Pair) -> None:
    for expected, change in enumerate(({}, ONE_MORE, TWO_MORE, {})):
        pair.ok(*apply(pair, kinds.FEATURE_VIEW, **change))
        assert current(pair) == expected
        assert [v[0] for v in history(pair)] == list(range(expected + 1))


@pytest.mark.parametrize(
    "change",
    [
        {"description": "other"}, {"tags": {"a": "b"}}, {"owner": "someone"}, {"ttl": timedelta(days=9)},
        {"online": False}, {"source": kinds.trips("elsewhere")}, {"org": "ads"}, {"enable_validation": True},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_other_changes_are_no_version(change: dict[str, Any], pair: Pair) -> None:
    pair.ok(*apply(pair, kinds.FEATURE_VIEW))
    pair.ok(*apply(pair, kinds.FEATURE_VIEW, **change))
    assert current(pair) == 0
    assert len(history(pair)) == 1


def test_disabling_is_a_change_but_no_version(pair: Pair) -> None:
    pair.ok(*apply(pair, kinds.FEATURE_VIEW))
    pair.ok(*apply(pair, kinds.FEATURE_VIEW, enabled=False))
    pair.differs(
        "disabled-is-a-change",
        *kinds.FEATURE_VIEW.get("v", pair.project),
        theirs=lambda a: not a.ok().spec.disabled,
        ours=lambda a: a.ok().spec.disabled,
    )
    assert len(history(pair)) == 1


@pytest.mark.parametrize(
    "attribute, value, is_version",
    [("tags", {"a": "b"}, False), ("owner", "someone", False), ("fields", [Field(name="other", dtype=Float64)], True)],
)
def test_every_change_of_an_on_demand_view_is_stored(attribute: str, value: Any, is_version: bool, pair: Pair) -> None:
    kind = kinds.ON_DEMAND_FEATURE_VIEW
    pair.ok(*apply(pair, kind))
    changed = kind.proto("v", **{attribute: value})
    pair.ok(*kind.apply(changed, pair.project))
    field = "features" if attribute == "fields" else attribute
    pair.differs(
        "demand-view-changes",
        *kind.get("v", pair.project),
        theirs=lambda a: getattr(a.ok().spec, field) != getattr(changed.spec, field),
        ours=lambda a: getattr(a.ok().spec, field) == getattr(changed.spec, field),
    )
    assert len(harness.versions(pair.ours.db, pair.project, "v")) == (2 if is_version else 1)


@pytest.mark.parametrize("kind", kinds.VIEWS, ids=str)
def test_a_description_makes_no_version(kind: Kind, pair: Pair) -> None:
    """A client builds its objects anew each time: sources that are embedded carry new moments, which mean nothing."""
    pair.ok(*apply(pair, kind))
    pair.ok(*apply(pair, kind, description="other"))
    pair.ok(*kind.get("v", pair.project))
    assert len(history(pair)) == 1


@pytest.mark.parametrize("kind", kinds.VIEWS, ids=str)
def test_the_same_view_made_anew_is_no_change(kind: Kind, pair: Pair) -> None:
    """unchanged-stream-view: nothing is written of what `feast apply` sends again and again."""
    servers = (pair.ours,) if kind is kinds.STREAM_FEATURE_VIEW else (pair.ours, pair.oracle)
    pair.ok(*apply(pair, kind))
    before = [harness.project_snapshot(server.db, pair.project) for server in servers]
    pair.ok(*apply(pair, kind))
    after = [harness.project_snapshot(server.db, pair.project) for server in servers]
    for server, first, second in zip(servers, before, after):
        assert first == second, f"{server.name} writes an unchanged {kind}"


@pytest.mark.parametrize(
    "change",
    [
        {"fields": [*kinds.RIDES[:1], Field(name="rides", dtype=String)]},
        {"fields": [*kinds.RIDES[:1], Field(name="rides", dtype=Int64, description="new")]},
        {"fields": [*kinds.RIDES[:1], Field(name="rides", dtype=Int64, tags={"a": "b"})]},
        {"fields": [*reversed(ONE_MORE["fields"])]},
        {"entities": [kinds.DRIVER, kinds.entity("customer")]},
    ],
    ids=["type", "description", "tags", "order", "entities"],
)  # fmt: skip
def test_what_counts_as_a_change_of_schema(change: dict[str, Any], pair: Pair) -> None:
    first = ONE_MORE if len(change.get("fields", [])) == 3 else {}
    pair.ok(*apply(pair, kinds.FEATURE_VIEW, **first))
    pair.ok(*apply(pair, kinds.FEATURE_VIEW, **change))
    current(pair)
    history(pair)


def set_udf(text: str) -> Callable[[Any], None]:
    def change(proto: Any) -> None:
        for spec in (proto.spec, proto.spec.feature_transformation):
            if spec.HasField("user_defined_function"):
                spec.user_defined_function.body_text = text

    return change


@pytest.mark.parametrize("kind", kinds.VIEWS[1:], ids=str)
def test_versions_of_the_other_kinds(kind: Kind, pair: Pair) -> None:
    """Schema, functions, aggregations, modes, sources: whatever Feast counts, ours counts."""

    def retyped(proto: Any) -> None:
        # A stream view lists its entity column too, at a random place. And Feast does not see a change of an on
        # demand view's features alone (demand-view-changes).
        next(f for f in proto.spec.features if f.name != "driver_id").value_type = 2
        proto.spec.description = "retyped"

    def more_aggregations(proto: Any) -> None:
        proto.spec.aggregations.add(column="rides", function="max")

    changes: list[Callable[[Any], None]] = [lambda _: None, retyped]
    if kind is not kinds.LABEL_VIEW:
        changes += [set_udf("other text"), more_aggregations]
    if kind is kinds.STREAM_FEATURE_VIEW:
        changes.append(lambda p: setattr(p.spec, "timestamp_field", "other"))
    for change in changes:
        pair.ok(*apply(pair, kind, change=lambda _: None))
        pair.ok(*apply(pair, kind, change=change))
        pair.ok(*kind.get("v", pair.project))
        history(pair)
    pair.ok(*kind.delete("v", pair.project))
    assert history(pair) == []


def test_the_order_of_a_stream_views_features_means_nothing(pair: Pair) -> None:
    """Feast's client lists them in the order of a set, another one in each process that runs `feast apply`."""
    kind = kinds.STREAM_FEATURE_VIEW
    proto = kind.proto("v")
    ask(pair.ours, *kind.apply(proto, pair.project)).ok()
    before = harness.project_snapshot(pair.ours.db, pair.project)
    turned = list(proto.spec.features)[::-1]
    assert len(turned) > 1
    del proto.spec.features[:]
    proto.spec.features.extend(turned)
    ask(pair.ours, *kind.apply(proto, pair.project)).ok()
    assert harness.project_snapshot(pair.ours.db, pair.project) == before


def test_where_an_on_demand_view_is_stored_makes_no_version(pair: Pair) -> None:
    pair.ok(*apply(pair, kinds.ON_DEMAND_FEATURE_VIEW))
    pair.ok(*apply(pair, kinds.ON_DEMAND_FEATURE_VIEW, change=lambda p: setattr(p.spec, "write_to_online_store", True)))
    assert pair.ok(*kinds.ON_DEMAND_FEATURE_VIEW.get("v", pair.project)).spec.write_to_online_store
    assert len(history(pair)) == 1


def test_pinning_to_an_old_version(pair: Pair) -> None:
    """`version="v0"` brings the snapshot back; the history stays; the next latest goes on from its end."""
    for change in ({}, ONE_MORE, TWO_MORE):
        pair.ok(*apply(pair, kinds.FEATURE_VIEW, **change))
    for version in ("v0", "version1", "V2", "v0"):
        # Pinning takes the definition as it stands now and changes the version alone.
        active = pair.ok(*kinds.FEATURE_VIEW.get("v", pair.project))
        active.spec.version = version
        pair.ok(*kinds.FEATURE_VIEW.apply(active, pair.project))
        assert current(pair) == int(version[-1])
        assert len(history(pair)) == 3
    pair.ok(*apply(pair, kinds.FEATURE_VIEW, fields=[*kinds.RIDES[:1], Field(name="new", dtype=Int64)]))
    pair.ok(*kinds.FEATURE_VIEW.get("v", pair.project))
    history(pair)


def test_pinning_and_changing_at_once_is_a_conflict(pair: Pair) -> None:
    for change in ({}, ONE_MORE):
        pair.ok(*apply(pair, kinds.FEATURE_VIEW, **change))
    answer = pair.same(*apply(pair, kinds.FEATURE_VIEW, version="v0", **TWO_MORE))
    assert answer.error_class == "FeatureViewPinConflict" and names_it(answer)
    answer = pair.same(*apply(pair, kinds.FEATURE_VIEW, version="v0", description="new", **ONE_MORE))
    assert answer.error_class == "FeatureViewPinConflict"
    pair.ok(*kinds.FEATURE_VIEW.get("v", pair.project))
    history(pair)


def test_a_version_declared_ahead_is_made(pair: Pair) -> None:
    """`version="v9"` of a view that has none such is created as v9; the next latest is v10."""
    pair.ok(*apply(pair, kinds.FEATURE_VIEW, version="v9"))
    assert current(pair) == 9 and [v[0] for v in history(pair)] == [9]
    pair.ok(*apply(pair, kinds.FEATURE_VIEW, **ONE_MORE))
    pair.ok(*kinds.FEATURE_VIEW.get("v", pair.project))
    assert [v[0] for v in history(pair)] == [9, 10]
    pair.ok(*apply(pair, kinds.FEATURE_VIEW, version="v20", **TWO_MORE))
    assert current(pair) == 20 and [v[0] for v in history(pair)] == [9, 10, 20]


@pytest.mark.parametrize("version", ["nonsense", "v", "v-1", "v1.0", "1", "vv1", " v1", "latest "])
def test_bad_versions_are_refused(version: str, pair: Pair) -> None:
    pair.refused(*apply(pair, kinds.FEATURE_VIEW, version=version), naming=version)
    pair.same(*kinds.FEATURE_VIEW.get("v", pair.project))


def test_no_version_is_the_latest(pair: Pair) -> None:
    pair.ok(*apply(pair, kinds.FEATURE_VIEW, change=lambda p: p.spec.ClearField("version")))
    pair.differs(
        "defaults-stay-unsaid",
        *kinds.FEATURE_VIEW.get("v", pair.project),
        theirs=lambda a: a.ok().spec.version == "latest",
        ours=lambda a: a.ok().spec.version == "",
    )
    pair.ok(*apply(pair, kinds.FEATURE_VIEW))
    assert len(history(pair)) == 1


@pytest.mark.parametrize("version", ["latest", "LATEST", "v0", "VERSION0", "v007"])
def test_good_versions_are_taken(version: str, pair: Pair) -> None:
    pair.ok(*apply(pair, kinds.FEATURE_VIEW, change=lambda p: setattr(p.spec, "version", version)))
    current(pair)
    history(pair)


def test_a_change_of_description_keeps_the_version(pair: Pair) -> None:
    for change in ({}, ONE_MORE):
        pair.ok(*apply(pair, kinds.FEATURE_VIEW, **change))
    pair.ok(*apply(pair, kinds.FEATURE_VIEW, description="only this", **ONE_MORE))
    pair.differs(
        "description-keeps-version",
        *kinds.FEATURE_VIEW.get("v", pair.project),
        theirs=lambda a: a.ok().meta.current_version_number == 0,
        ours=lambda a: a.ok().meta.current_version_number == 1,
    )


# --- materialization -----------------------------------------------------------------------------------------


def test_a_materialization_adds_its_interval(pair: Pair) -> None:
    """Duplicates and an end before its start are taken as they come, in order; the state becomes online."""
    pair.ok(*apply(pair, kinds.FEATURE_VIEW))
    (a, b), (c, d) = WINDOWS[:2]
    epoch = harness.utc(1970, 1, 1)  # what `feast materialize --disable-event-timestamp` sends
    for start, end in ((a, b), (c, d), (a, b), (d, a), (a, a), (epoch, a)):
        pair.ok(*materialization(pair.project, "v", start, end))
        stored = pair.ok(*kinds.FEATURE_VIEW.get("v", pair.project))
        assert stored.meta.state == ONLINE
    assert harness.intervals(stored) == [(a, b), (c, d), (a, b), (d, a), (a, a), (epoch, a)]
    # A materialization is no version and changes no schema.
    assert len(history(pair)) == 1
    pair.same(*materialization(pair.project, "absent", a, b))
    pair.same(*materialization(f"{pair.project}_absent", "v", a, b))


def test_nanoseconds_are_kept(pair: Pair) -> None:
    pair.ok(*apply(pair, kinds.FEATURE_VIEW))
    rpc, request = materialization(pair.project, "v", *WINDOWS[0])
    request.start_date.nanos, request.end_date.nanos = 123_456_789, 999_999_999
    for server in (pair.ours, pair.oracle):
        ask(server, rpc, request).ok()

    def nanos(answer: Answer) -> tuple[int, int]:
        interval = answer.ok().meta.materialization_intervals[0]
        return interval.start_time.nanos, interval.end_time.nanos

    pair.differs(
        "nanoseconds",
        *kinds.FEATURE_VIEW.get("v", pair.project),
        theirs=lambda a: nanos(a) != (123_456_789, 999_999_999),
        ours=lambda a: nanos(a) == (123_456_789, 999_999_999),
    )


def test_a_materialization_of_a_stream_view(pair: Pair) -> None:
    pair.ok(*apply(pair, kinds.STREAM_FEATURE_VIEW))
    call = materialization(pair.project, "v", *WINDOWS[0])
    theirs = failed(grpc.StatusCode.NOT_FOUND, "FeatureViewNotFoundException")
    pair.differs("materialize-stream", *call, theirs=theirs, ours=succeeded)
    stored = ask(pair.ours, *kinds.STREAM_FEATURE_VIEW.get("v", pair.project)).ok()
    assert harness.intervals(stored) == WINDOWS[:1] and stored.meta.state == ONLINE


@pytest.mark.parametrize("kind", [kinds.ON_DEMAND_FEATURE_VIEW, kinds.LABEL_VIEW], ids=str)
def test_other_kinds_cannot_be_materialized(kind: Kind, pair: Pair) -> None:
    pair.ok(*apply(pair, kind))
    before = pair.ok(*kind.get("v", pair.project))
    pair.differs(
        "materialize-other-kinds",
        *materialization(pair.project, "v", *WINDOWS[0]),
        theirs=failed(grpc.StatusCode.NOT_FOUND),
        ours=lambda a: a.code is grpc.StatusCode.INVALID_ARGUMENT and "v" in a.error_text,
    )
    assert pair.ok(*kind.get("v", pair.project)) == before


def test_an_apply_keeps_intervals(pair: Pair) -> None:
    """A repository knows no intervals; applying it must not lose the stored ones. Nor must an equal apply."""
    pair.ok(*apply(pair, kinds.FEATURE_VIEW))
    for window in WINDOWS[:2]:
        pair.ok(*materialization(pair.project, "v", *window))
    for change in ({}, {"tags": {"a": "b"}}, ONE_MORE):
        for server in (pair.ours, pair.oracle):
            ask(server, *apply(pair, kinds.FEATURE_VIEW, **change)).ok()
            stored = ask(server, *kinds.FEATURE_VIEW.get("v", pair.project)).ok()
            assert harness.intervals(stored) == WINDOWS[:2], f"{server.name} after {change}"


def test_an_apply_keeps_the_state(pair: Pair) -> None:
    pair.ok(*apply(pair, kinds.FEATURE_VIEW))
    pair.ok(*materialization(pair.project, "v", *WINDOWS[0]))
    pair.ok(*apply(pair, kinds.FEATURE_VIEW, tags={"a": "b"}))
    pair.differs(
        "apply-keeps-state",
        *kinds.FEATURE_VIEW.get("v", pair.project),
        theirs=lambda a: a.ok().meta.state == FeatureViewState.STATE_UNSPECIFIED,
        ours=lambda a: a.ok().meta.state == ONLINE,
    )


@pytest.mark.parametrize("state", [1, 2, 3, 4])
def test_an_apply_may_set_a_state(state: int, pair: Pair) -> None:
    """`feast feature-views set-state` and `feast materialize` send a state with an otherwise changed view."""
    pair.ok(*apply(pair, kinds.FEATURE_VIEW))

    def change(proto: Any) -> None:
        proto.spec.tags["state"] = str(state)
        proto.meta.state = state

    pair.ok(*apply(pair, kinds.FEATURE_VIEW, change=change))
    assert pair.ok(*kinds.FEATURE_VIEW.get("v", pair.project)).meta.state == state


def test_an_apply_merges_intervals(pair: Pair) -> None:
    """What `feast materialize` does while others do too: apply with the intervals that it read some time ago."""
    pair.ok(*apply(pair, kinds.FEATURE_VIEW))
    pair.ok(*materialization(pair.project, "v", *WINDOWS[0]))
    stale = [ask(server, *kinds.FEATURE_VIEW.get("v", pair.project)).ok() for server in (pair.ours, pair.oracle)]
    pair.ok(*materialization(pair.project, "v", *WINDOWS[1]))
    for server, proto in zip((pair.ours, pair.oracle), stale):
        proto.meta.state = FeatureViewState.MATERIALIZING
        ask(server, *kinds.FEATURE_VIEW.apply(proto, pair.project)).ok()
    pair.differs(
        "apply-merges-intervals",
        *kinds.FEATURE_VIEW.get("v", pair.project),
        theirs=lambda a: harness.intervals(a.ok()) == WINDOWS[:1],
        ours=lambda a: harness.intervals(a.ok()) == WINDOWS[:2],
    )
    assert ask(pair.ours, *kinds.FEATURE_VIEW.get("v", pair.project)).ok().meta.state == FeatureViewState.MATERIALIZING


def test_intervals_that_come_with_a_new_view_are_kept(pair: Pair) -> None:
    def change(proto: Any) -> None:
        added = proto.meta.materialization_intervals.add()
        added.start_time.CopyFrom(harness.stamp(WINDOWS[0][0]))
        added.end_time.CopyFrom(harness.stamp(WINDOWS[0][1]))

    for kind in (kinds.FEATURE_VIEW, kinds.STREAM_FEATURE_VIEW):
        pair.ok(*apply(pair, kind, f"v_{kind}", change))
        stored = pair.ok(*kind.get(f"v_{kind}", pair.project))
        assert harness.intervals(stored) == WINDOWS[:1]
