"""Proves that lineage and relationships are what Feast's own server computes.

Feast walks protobuf maps and Python sets, whose order it does not fix: relationships are compared sorted,
except where the request sorts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from feast import Field, RequestSource
from feast.protos.feast.registry import RegistryServer_pb2 as api
from feast.types import Float64, Int64

import kinds
from differential import Pair, succeeded


def sorted_relationships(response: Any) -> Any:
    def key(relation: Any) -> tuple[str, ...]:
        return relation.source.type, relation.source.name, relation.target.type, relation.target.name

    out = {"direct": sorted(key(r) for r in response.relationships)}
    for field, value in response.ListFields():
        if field.name == "indirect_relationships":
            out["indirect"] = sorted(key(r) for r in value)
        elif field.name.endswith("pagination"):
            out[field.name] = value
    return out


@pytest.fixture(scope="module")
def web(ours: Any, oracle: Any) -> Iterator[Pair]:
    """A project with every kind of relationship that Feast's lineage knows."""
    from harness import new_project

    pair = Pair(ours, oracle, new_project())
    for name in ("driver", "customer", "lonely"):
        pair.ok(*kinds.ENTITY.apply(kinds.ENTITY.proto(name), pair.project))
    for source in (kinds.trips(), kinds.trips("purchases"), kinds.trips("unused")):
        pair.ok(*kinds.DATA_SOURCE.apply(source.to_proto(), pair.project))
    rides = kinds.feature_view("driver_rides")
    both = kinds.feature_view(
        "both",
        fields=[Field(name="spend", dtype=Float64), Field(name="rides", dtype=Int64)],
        source=kinds.trips("purchases"),
        entities=[kinds.DRIVER, kinds.entity("customer")],
    )
    sources = [rides, both, RequestSource(name="bonus", schema=[Field(name="bonus", dtype=Float64)])]
    demand = kinds.OnDemandFeatureView(
        name="demand",
        schema=[Field(name="rides_plus_bonus", dtype=Float64)],
        sources=sources,
        udf=kinds.rides_plus_bonus,
        udf_string="rides_plus_bonus",
        mode="pandas",
    )
    labels, stream = kinds.label_view("labels"), kinds.stream_feature_view("stream")
    for kind, proto in (
        (kinds.FEATURE_VIEW, rides.to_proto()),
        (kinds.FEATURE_VIEW, both.to_proto()),
        (kinds.FEATURE_VIEW, kinds.batch_feature_view("batch").to_proto()),
        (kinds.ON_DEMAND_FEATURE_VIEW, demand.to_proto()),
        (kinds.STREAM_FEATURE_VIEW, stream.to_proto()),
        (kinds.LABEL_VIEW, labels.to_proto()),
    ):
        pair.ok(*kind.apply(proto, pair.project))
    for name, views in (
        ("one", [rides]),
        ("aliased", [rides.with_name("a"), rides.with_name("b")]),
        ("all", [rides, both, demand, stream, labels]),
    ):
        pair.ok(*kinds.FEATURE_SERVICE.apply(kinds.FEATURE_SERVICE.proto(name, views=views), pair.project))
    for name, service in (("from_service", "one"), ("from_nothing", None)):
        proto = kinds.SAVED_DATASET.proto(name, feature_service_name=service)
        pair.ok(*kinds.SAVED_DATASET.apply(proto, pair.project))
    yield pair
    pair.both("DeleteProject", api.DeleteProjectRequest(name=pair.project, commit=True))


OBJECTS = [
    ("entity", "driver"), ("entity", "customer"), ("entity", "lonely"), ("entity", "absent"),
    ("dataSource", "trips"), ("dataSource", "purchases"), ("dataSource", "bonus"), ("dataSource", "rides_topic"),
    ("dataSource", "fraud_labels"), ("dataSource", "unused"),
    ("featureView", "driver_rides"), ("featureView", "both"), ("featureView", "demand"), ("featureView", "stream"),
    ("featureView", "batch"), ("featureView", "labels"), ("labelView", "labels"),
    ("featureService", "one"), ("featureService", "aliased"), ("featureService", "all"),
    ("feature", "rides"), ("feature", "spend"), ("feature", "rides_plus_bonus"), ("feature", "is_fraud"),
    ("savedDataset", "from_service"), ("savedDataset", "from_nothing"),
]  # fmt: skip


@pytest.mark.parametrize("allow_cache", [False, True], ids=["uncached", "cached"])
def test_the_whole_lineage(allow_cache: bool, web: Pair) -> None:
    request = api.GetRegistryLineageRequest(project=web.project, allow_cache=allow_cache)
    response = web.ok("GetRegistryLineage", request, view=sorted_relationships)
    assert len(response.relationships) > 25 and len(response.indirect_relationships) > 15


@pytest.mark.parametrize("kind, name", [*OBJECTS, ("nonsense", "driver"), ("entity", ""), ("", "driver")])
def test_the_lineage_of_an_object(kind: str, name: str, web: Pair) -> None:
    request = api.GetRegistryLineageRequest(project=web.project, filter_object_type=kind, filter_object_name=name)
    web.ok("GetRegistryLineage", request, view=sorted_relationships)


@pytest.mark.parametrize("indirect", [False, True], ids=["direct", "indirect"])
@pytest.mark.parametrize("kind, name", OBJECTS)
def test_relationships_of_an_object(kind: str, name: str, indirect: bool, web: Pair) -> None:
    for allow_cache in (False, True):
        request = api.GetObjectRelationshipsRequest(
            project=web.project, object_type=kind, object_name=name, include_indirect=indirect, allow_cache=allow_cache
        )
        web.ok("GetObjectRelationships", request, view=sorted_relationships)


@pytest.mark.parametrize("kind", ["", "nonsense", "Entity", "permission"])
def test_an_unknown_type_of_object_is_refused(kind: str, web: Pair) -> None:
    request = api.GetObjectRelationshipsRequest(project=web.project, object_type=kind, object_name="driver")
    web.refused("GetObjectRelationships", request)


@pytest.mark.parametrize("page, limit", [(1, 3), (2, 3), (99, 3), (0, 3), (1, 1000)])
def test_pages_of_lineage(page: int, limit: int, web: Pair) -> None:
    """Sorted by no attribute that would fix an order, so only the sizes of pages are compared."""
    pages = api.PaginationParams(page=page, limit=limit)

    def sizes(response: Any) -> Any:
        pagination = [v for f, v in response.ListFields() if f.name.endswith("pagination")]
        return len(response.relationships), len(getattr(response, "indirect_relationships", [])), pagination

    web.ok("GetRegistryLineage", api.GetRegistryLineageRequest(project=web.project, pagination=pages), view=sizes)
    web.ok(
        "GetObjectRelationships",
        api.GetObjectRelationshipsRequest(
            project=web.project, object_type="entity", object_name="driver", pagination=pages
        ),
        view=sizes,
    )


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("path", ["source.name", "source.type", "target.name", "target.type", "nonsense"])
def test_sorting_of_lineage(path: str, order: str, web: Pair) -> None:
    """Equal keys keep an order that Feast does not fix: the sequence of keys is compared."""
    side, _, attribute = path.partition(".")

    def keys(response: Any) -> Any:
        lists = (response.relationships, response.indirect_relationships)
        if not attribute:
            return [len(found) for found in lists]
        return [[getattr(getattr(r, side), attribute) for r in found] for found in lists]

    sorting = api.SortingParams(sort_by=path, sort_order=order)
    web.ok("GetRegistryLineage", api.GetRegistryLineageRequest(project=web.project, sorting=sorting), view=keys)


def test_lineage_follows_changes(pair: Pair) -> None:
    """The cached lineage sees our own writes at once, deletes too."""
    request = api.GetRegistryLineageRequest(project=pair.project, allow_cache=True)
    pair.ok(*kinds.FEATURE_VIEW.apply(kinds.FEATURE_VIEW.proto("driver_rides"), pair.project))
    assert pair.ok("GetRegistryLineage", request, view=sorted_relationships).relationships
    pair.ok(*kinds.FEATURE_VIEW.delete("driver_rides", pair.project))
    assert not pair.ok("GetRegistryLineage", request, view=sorted_relationships).relationships


def test_a_view_without_a_source(pair: Pair) -> None:
    sourceless = kinds.FEATURE_VIEW.proto("sourceless")
    sourceless.spec.ClearField("batch_source")
    pair.ok(*kinds.FEATURE_VIEW.apply(sourceless, pair.project))

    def sources(answer: Any) -> list[str]:
        return [r.source.name for r in answer.ok().relationships if r.source.type == "dataSource"]

    pair.differs(
        "unnamed-source",
        "GetRegistryLineage",
        api.GetRegistryLineageRequest(project=pair.project),
        theirs=lambda a: len(sources(a)) == 1 and sources(a)[0].startswith("unnamed_source_"),
        ours=lambda a: sources(a) == [],
    )


def test_project_metadata_from_the_cache(pair: Pair) -> None:
    pair.ok(*kinds.ENTITY.apply(kinds.ENTITY.proto("e"), pair.project))
    pair.differs(
        "cached-project-metadata",
        "ListProjectMetadata",
        api.ListProjectMetadataRequest(project=pair.project, allow_cache=True),
        theirs=lambda a: succeeded(a) and not a.ok().project_metadata,
        ours=lambda a: [len(m.project_uuid) for m in a.ok().project_metadata] == [36],
    )
