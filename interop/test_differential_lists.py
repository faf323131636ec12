"""Proves that filters, paging, sorting and feature listings answer as Feast's own server answers."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest
from feast import Field, RequestSource
from feast import types as feast_types
from feast.protos.feast.registry import RegistryServer_pb2 as api
from feast.types import Array, Float64, Int32, Int64, Set, String, Struct

import kinds
from differential import Pair, ask, failed
from kinds import Kind

every_kind = pytest.mark.parametrize("kind", kinds.ALL, ids=str)


def names(kind: Kind, response: Any) -> list[str]:
    return [kind.name_of(o) for o in kind.listed(response)]


@pytest.fixture(params=kinds.ALL, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


# --- tags --------------------------------------------------------------------------------------------------

TAGGED: list[dict[str, str]] = [{}, {"a": "1"}, {"a": "2"}, {"a": "1", "b": "1"}, {"a": ""}]


def test_tags_filter(kind: Kind, pair: Pair) -> None:
    """All requested tags must be there with exactly the requested values."""
    if kind is kinds.FEATURE_SERVICE:
        pair.ok(*kinds.FEATURE_VIEW.apply(kinds.FEATURE_VIEW.proto("driver_rides"), pair.project))
    run = {"run": pair.project} if kind is kinds.PROJECT else {}
    # Feast cannot filter permissions when one has no tags: see the next test.
    all_tags = [tags for tags in TAGGED if tags or kind is not kinds.PERMISSION]
    made = [f"{pair.project}_{i}" if kind is kinds.PROJECT else f"o{i}" for i in range(len(all_tags))]
    try:
        for name, tags in zip(made, all_tags):
            pair.ok(*kind.apply(kind.proto(name, tags={**tags, **run}), pair.project))
        for wanted in ({}, {"a": "1"}, {"a": "1", "b": "1"}, {"a": ""}, {"b": ""}, {"c": "1"}, {"A": "1"}):
            for allow_cache in (False, True):
                found = pair.ok(*kind.list(pair.project, tags={**wanted, **run}, allow_cache=allow_cache))
                expected = [n for n, tags in zip(made, all_tags) if wanted.items() <= tags.items()]
                assert [n for n in names(kind, found) if n != "driver_rides"] == expected, wanted
    finally:
        if kind is kinds.PROJECT:
            for name in made:
                pair.both("DeleteProject", api.DeleteProjectRequest(name=name, commit=True))


def test_a_permission_without_tags_can_be_filtered_out(pair: Pair) -> None:
    pair.ok(*kinds.PERMISSION.apply(kinds.PERMISSION.proto("bare"), pair.project))
    pair.ok(*kinds.PERMISSION.apply(kinds.PERMISSION.proto("tagged", tags={"a": "1"}), pair.project))
    pair.differs(
        "permissions-without-tags",
        *kinds.PERMISSION.list(pair.project, tags={"a": "1"}),
        theirs=failed(grpc.StatusCode.UNKNOWN),
        ours=lambda a: names(kinds.PERMISSION, a.ok()) == ["tagged"],
    )


# --- paging --------------------------------------------------------------------------------------------------

PAGES = [
    (0, 0),
    (1, 0),
    (0, 2),
    (1, 2),
    (2, 2),
    (3, 2),
    (4, 2),
    (99, 2),
    (1, 5),
    (1, 6),
    (2, 5),
    (-1, 2),
    (1, -2),
    (1, 2**31 - 1),
]


@pytest.fixture(scope="module")
def five_entities(ours: Any, oracle: Any) -> Any:
    """Entities whose names, owners and tags sort differently."""
    from harness import new_project

    pair = Pair(ours, oracle, new_project())
    rows = [
        ("delta", "zoe", {"team": "b"}, "Fourth"),
        ("Alpha", "", {}, "first"),
        ("charlie", "Adam", {"team": "a"}, ""),
        ("bravo", "adam", {"team": "B"}, "second"),
        ("écho", "zoe", {"x": "1"}, "first"),
    ]
    for name, owner, tags, description in rows:
        proto = kinds.ENTITY.proto(name, owner=owner, tags=tags, description=description)
        pair.ok(*kinds.ENTITY.apply(proto, pair.project))
    yield pair
    pair.both("DeleteProject", api.DeleteProjectRequest(name=pair.project, commit=True))


@pytest.mark.parametrize("page, limit", PAGES)
def test_pages_of_five(page: int, limit: int, five_entities: Pair) -> None:
    """A page beyond the end is empty, page or limit 0 or less means everything."""
    pages = api.PaginationParams(page=page, limit=limit)
    five_entities.ok(*kinds.ENTITY.list(five_entities.project, pagination=pages))
    sorting = api.SortingParams(sort_by="name", sort_order="desc")
    five_entities.ok(*kinds.ENTITY.list(five_entities.project, pagination=pages, sorting=sorting))
    five_entities.ok(*kinds.ENTITY.list(five_entities.project, pagination=pages, tags={"team": "a"}))
    five_entities.ok(*kinds.ENTITY.list(five_entities.project, pagination=pages, tags={"team": "nobody"}))


def test_every_list_can_be_paged_and_sorted(kind: Kind, pair: Pair) -> None:
    if kind is kinds.FEATURE_SERVICE:
        pair.ok(*kinds.FEATURE_VIEW.apply(kinds.FEATURE_VIEW.proto("driver_rides"), pair.project))
    run = {"run": pair.project}
    made = [pair.project if kind is kinds.PROJECT else name for name in ("b", "c", "a")]
    for name in made:
        pair.ok(*kind.apply(kind.proto(name, tags=run), pair.project))
    for page in (1, 2, 3):
        for order in ("asc", "desc"):
            options = {
                "pagination": api.PaginationParams(page=page, limit=2),
                "sorting": api.SortingParams(sort_by="name", sort_order=order),
                "tags": run,
            }
            pair.ok(*kind.list(pair.project, **options))


# --- sorting ---------------------------------------------------------------------------------------------------

ORDERS = ["asc", "desc", "DESC", "", "sideways"]
ENTITY_PATHS = [
    "name", "description", "owner", "created_timestamp", "last_updated_timestamp", "tags.team", "tags.x",
    "join_key", "value_type", "nonsense", "name.nonsense", "spec.name", "meta.created_timestamp", " ", " name", "", ".",
    "name.", "Name", "project",
]  # fmt: skip
VIEW_PATHS = [
    "name", "owner", "online", "offline", "enabled", "org", "version", "state", "current_version_number",
    "batch_source.name", "batch_source.timestamp_field", "batch_source.path", "batch_source.tags.a",
    "batch_source.description", "stream_source.name", "tags.a", "created_timestamp", "mode", "enable_validation",
]  # fmt: skip


@pytest.mark.parametrize("path", ENTITY_PATHS)
def test_sorting_of_entities(path: str, five_entities: Pair) -> None:
    for order in ORDERS:
        sorting = api.SortingParams(sort_by=path, sort_order=order)
        five_entities.ok(*kinds.ENTITY.list(five_entities.project, sorting=sorting))


@pytest.fixture(scope="module")
def sortable_views(ours: Any, oracle: Any) -> Any:
    """Feature views of different sources, lifetimes and flags, one of them materialized."""
    from datetime import timedelta

    from feast import PushSource

    from harness import new_project, stamp, utc

    pair = Pair(ours, oracle, new_project())
    push = PushSource(name="a_push", batch_source=kinds.trips("zebra"))
    views = [
        kinds.feature_view("b", source=kinds.trips("Mango", description="x", tags={"a": "2"}), owner="o"),
        kinds.feature_view("a", source=kinds.trips("apple"), ttl=timedelta(days=10), online=False, org="ads"),
        kinds.feature_view("C", source=push, ttl=timedelta(0), offline=True, tags={"a": "1"}),
        kinds.feature_view("d", source=kinds.trips("banana", tags={"a": "1"}), enabled=False, entities=None),
        kinds.feature_view("e", source=kinds.trips("mango"), ttl=timedelta(hours=36), enable_validation=True),
    ]
    for view in views:
        pair.ok(*kinds.FEATURE_VIEW.apply(view.to_proto(), pair.project))
    request = api.ApplyMaterializationRequest(project=pair.project, commit=True)
    request.feature_view.CopyFrom(views[1].to_proto())
    request.start_date.CopyFrom(stamp(utc(2024, 1, 1)))
    request.end_date.CopyFrom(stamp(utc(2024, 1, 2)))
    pair.ok("ApplyMaterialization", request)
    yield pair
    pair.both("DeleteProject", api.DeleteProjectRequest(name=pair.project, commit=True))


@pytest.mark.parametrize("path", VIEW_PATHS)
def test_sorting_of_views(path: str, sortable_views: Pair) -> None:
    for order in ("asc", "desc"):
        sorting = api.SortingParams(sort_by=path, sort_order=order)
        sortable_views.ok(*kinds.FEATURE_VIEW.list(sortable_views.project, sorting=sorting))
        sortable_views.ok(
            "ListAllFeatureViews", api.ListAllFeatureViewsRequest(project=sortable_views.project, sorting=sorting)
        )


NO_SCALARS = ["tags", "ttl", "batch_source", "stream_source", "entities", "join_keys", "features", "entity_columns",
              "materialization_intervals", "spec", "meta", "projection"]  # fmt: skip


@pytest.mark.parametrize("path", NO_SCALARS)
def test_sorting_by_what_has_no_order(path: str, sortable_views: Pair) -> None:
    for order in ("asc", "desc"):
        sorting = api.SortingParams(sort_by=path, sort_order=order)
        sortable_views.differs(
            "sort-of-no-scalar",
            *kinds.FEATURE_VIEW.list(sortable_views.project, sorting=sorting),
            theirs=lambda a: sorted(names(kinds.FEATURE_VIEW, a.ok())) == ["C", "a", "b", "d", "e"],
            ours=lambda a: sorted(names(kinds.FEATURE_VIEW, a.ok())) == ["C", "a", "b", "d", "e"],
        )


# --- all feature views together ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(ours: Any, oracle: Any) -> Any:
    """Views of all four kinds that share entities, features, sources and services."""
    from harness import new_project

    pair = Pair(ours, oracle, new_project())
    rides = kinds.feature_view("driver_rides", tags={"team": "rides"})
    other = kinds.feature_view(
        "customers",
        fields=[Field(name="spend", dtype=Float64), Field(name="rides", dtype=Int64)],
        source=kinds.trips("purchases"),
        entities=[kinds.entity("customer")],
    )
    demand = kinds.on_demand_feature_view("demand", tags={"team": "rides"})
    stream = kinds.stream_feature_view("stream", tags={"team": "growth"})
    for kind, view in (
        (kinds.FEATURE_VIEW, rides),
        (kinds.FEATURE_VIEW, other),
        (kinds.FEATURE_VIEW, kinds.batch_feature_view("batch")),
        (kinds.ON_DEMAND_FEATURE_VIEW, demand),
        (kinds.STREAM_FEATURE_VIEW, stream),
        (kinds.LABEL_VIEW, kinds.label_view("labels", tags={"team": "rides"})),
    ):
        pair.ok(*kind.apply(view.to_proto(), pair.project))
    for name, views in (("one", [rides]), ("two", [other.with_name("alias"), demand]), ("three", [stream])):
        pair.ok(*kinds.FEATURE_SERVICE.apply(kinds.FEATURE_SERVICE.proto(name, views=views), pair.project))
    yield pair
    pair.both("DeleteProject", api.DeleteProjectRequest(name=pair.project, commit=True))


FILTERS: list[dict[str, Any]] = [
    {},
    {"entity": "driver"}, {"entity": "customer"}, {"entity": "__dummy"}, {"entity": "driver_id"}, {"entity": "absent"},
    {"feature": "rides"}, {"feature": "rides_plus_bonus"}, {"feature": "is_fraud"}, {"feature": "absent"},
    {"feature": "driver_id"},
    {"feature_service": "one"}, {"feature_service": "two"}, {"feature_service": "three"}, {"feature_service": "absent"},
    {"data_source": "trips"}, {"data_source": "rides_topic"}, {"data_source": "bonus"}, {"data_source": "absent"},
    {"data_source": "purchases", "feature": "rides"}, {"entity": "driver", "feature_service": "one"},
    {"tags": {"team": "rides"}}, {"tags": {"team": "rides"}, "entity": "driver"}, {"tags": {"team": "nobody"}},
]  # fmt: skip


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_filters_of_all_feature_views(wanted: dict[str, Any], mixed: Pair) -> None:
    for allow_cache in (False, True):
        mixed.ok(
            "ListAllFeatureViews",
            api.ListAllFeatureViewsRequest(project=mixed.project, allow_cache=allow_cache, **wanted),
        )
    pages = api.PaginationParams(page=1, limit=2)
    sorting = api.SortingParams(sort_by="name", sort_order="asc")
    mixed.ok(
        "ListAllFeatureViews",
        api.ListAllFeatureViewsRequest(project=mixed.project, pagination=pages, sorting=sorting, **wanted),
    )


@pytest.mark.parametrize("view", ["driver_rides", "customers", "alias", "demand", "stream", "absent", ""])
def test_services_of_a_view(view: str, mixed: Pair) -> None:
    for options in ({}, {"pagination": api.PaginationParams(page=1, limit=1)}, {"tags": {"a": "1"}}):
        mixed.ok(*kinds.FEATURE_SERVICE.list(mixed.project, feature_view=view, **options))


def test_updated_since(pair: Pair) -> None:
    """Uncached, whole seconds of the row count; both servers have the same clock."""
    pair.ok(*kinds.FEATURE_VIEW.apply(kinds.FEATURE_VIEW.proto("old"), pair.project))
    time.sleep(2.1)
    pair.ok(*kinds.FEATURE_VIEW.apply(kinds.FEATURE_VIEW.proto("new"), pair.project))
    pair.ok(*kinds.ON_DEMAND_FEATURE_VIEW.apply(kinds.ON_DEMAND_FEATURE_VIEW.proto("newer"), pair.project))
    stored = ask(pair.ours, *kinds.FEATURE_VIEW.get("new", pair.project)).ok()
    moment = stored.meta.last_updated_timestamp.seconds
    seen = set()
    for shift in (-3600, -1, 3600, -moment):
        for allow_cache in (False, True):
            request = api.ListAllFeatureViewsRequest(project=pair.project, allow_cache=allow_cache)
            request.updated_since.FromSeconds(moment + shift)
            seen.add(len(pair.ok("ListAllFeatureViews", request).feature_views))
    assert seen == {3, 2, 0}


# --- features ----------------------------------------------------------------------------------------------------

PRIMITIVES = [feast_types.PrimitiveFeastType(n) for n in range(18)]


def every_type() -> list[tuple[str, Any]]:
    """A field of each type that feast.types knows: primitives, arrays, sets, structs, and nests of them."""
    out: list[tuple[str, Any]] = [(f"plain {t}", t) for t in PRIMITIVES]
    for wrapper in (Array, Set):
        for primitive in PRIMITIVES:
            try:
                dtype = wrapper(primitive)
                dtype.to_value_type()
            except (ValueError, KeyError):
                continue  # Feast has no such type
            out.append((f"{wrapper.__name__} {primitive}", dtype))
    point = Struct({"x": Float64, "label": String, "parts": Array(Int32)})
    out += [
        ("struct", point),
        ("array of struct", Array(point)),
        ("struct in struct", Struct({"inner": point, "n": Int64})),
        ("array of array", Array(Array(Int64))),
        ("array of set", Array(Set(String))),
        ("set of array", Set(Array(Float64))),
        ("three deep", Array(Array(Array(String)))),
    ]
    return out


def test_features_of_every_type(pair: Pair) -> None:
    fields = [Field(name=name, dtype=dtype, description=name, tags={"n": name}) for name, dtype in every_type()]
    assert len(fields) > 45
    proto = kinds.FEATURE_VIEW.proto("types", fields=fields)
    pair.ok(*kinds.FEATURE_VIEW.apply(proto, pair.project))
    pair.ok(*kinds.FEATURE_VIEW.get("types", pair.project))
    pair.ok("ListFeatures", api.ListFeaturesRequest(project=pair.project))
    for name, _ in every_type():
        request = api.GetFeatureRequest(project=pair.project, feature_view="types", name=name)
        assert pair.ok("GetFeature", request).name == name
    for path in ("type", "name", "feature_view", "description", "owner", "nonsense"):
        sorting = api.SortingParams(sort_by=path, sort_order="desc")
        pages = api.PaginationParams(page=2, limit=7)
        pair.ok("ListFeatures", api.ListFeaturesRequest(project=pair.project, sorting=sorting, pagination=pages))


@pytest.mark.parametrize(
    "wanted",
    [
        {}, {"kind": "feature"}, {"kind": "label"}, {"kind": "nonsense"}, {"name": "rides"}, {"name": "absent"},
        {"feature_view": "labels"}, {"feature_view": "demand"}, {"feature_view": "absent"},
        {"feature_view": "driver_rides", "name": "rides"}, {"feature_view": "labels", "kind": "feature"},
    ],
    ids=str,
)  # fmt: skip
def test_features_of_mixed_views(wanted: dict[str, str], mixed: Pair) -> None:
    for allow_cache in (False, True):
        mixed.ok(
            "ListFeatures",
            api.ListFeaturesRequest(project=mixed.project, allow_cache=allow_cache, **wanted),
            view=unordered_within_streams,
        )


def unordered_within_streams(response: Any) -> Any:
    """stream-features-order: Feast lists a stream view's features in the order of a set."""
    features = list(response.features)
    for index, feature in enumerate(features):
        feature.ClearField("created_timestamp")
        feature.ClearField("last_updated_timestamp")
        if feature.feature_view == "stream":
            features[index] = None
    streamed = sorted((f.name, f.type, f.kind) for f in response.features if f.feature_view == "stream")
    return features, streamed, response.pagination


@pytest.mark.parametrize("view, name", [("labels", "is_fraud"), ("demand", "rides_plus_bonus"), ("stream", "rides"),
                                        ("driver_rides", "absent"), ("absent", "rides"), ("", "")])  # fmt: skip
def test_one_feature(view: str, name: str, mixed: Pair) -> None:
    for allow_cache in (False, True):
        request = api.GetFeatureRequest(project=mixed.project, feature_view=view, name=name, allow_cache=allow_cache)
        mixed.same("GetFeature", request)


def test_saved_datasets_by_namespace_and_collection(pair: Pair) -> None:
    for name, namespace, collection in (("a", "", ""), ("b", "n", ""), ("c", "n", "c"), ("d", "", "c")):
        proto = kinds.SAVED_DATASET.proto(name, namespace=namespace, collection=collection)
        pair.ok(*kinds.SAVED_DATASET.apply(proto, pair.project))
    for wanted in (
        {},
        {"namespace": "n"},
        {"collection": "c"},
        {"namespace": "n", "collection": "c"},
        {"namespace": "x"},
    ):
        for allow_cache in (False, True):
            pair.ok(*kinds.SAVED_DATASET.list(pair.project, allow_cache=allow_cache, **wanted))


def test_lists_keep_the_order_of_insertion(pair: Pair) -> None:
    """A changed object keeps its place; a deleted and new one goes to the end."""
    source = RequestSource(name="ask", schema=[Field(name="x", dtype=Float64)])
    for proto in (kinds.DATA_SOURCE.proto("c"), source.to_proto(), kinds.DATA_SOURCE.proto("a")):
        pair.ok(*kinds.DATA_SOURCE.apply(proto, pair.project))
    pair.ok(*kinds.DATA_SOURCE.apply(kinds.DATA_SOURCE.proto("c", description="changed"), pair.project))
    assert names(kinds.DATA_SOURCE, pair.ok(*kinds.DATA_SOURCE.list(pair.project))) == ["c", "ask", "a"]
    pair.ok(*kinds.DATA_SOURCE.delete("c", pair.project))
    pair.ok(*kinds.DATA_SOURCE.apply(kinds.DATA_SOURCE.proto("c"), pair.project))
    assert names(kinds.DATA_SOURCE, pair.ok(*kinds.DATA_SOURCE.list(pair.project))) == ["ask", "a", "c"]
