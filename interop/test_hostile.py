"""Proves that neither what is stored nor the limits of the process end the server, and that its answers can be read.

What is stored here is what other programs may have stored: it goes past our server, into its file.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from feast.protos.feast.core.DataSource_pb2 import DataSource
from feast.protos.feast.core.FeatureService_pb2 import FeatureService
from feast.protos.feast.core.FeatureView_pb2 import FeatureView
from feast.protos.feast.core.OnDemandFeatureView_pb2 import OnDemandFeatureView
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.protos.feast.registry import RegistryServer_pb2 as api
from feast.protos.feast.types.Value_pb2 import ValueType
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

import harness
import kinds
from differential import ask

DEEPEST = 98
"""What `registry-core/src/rules/depth.rs` says: the most messages within each other that an object may have."""


def source(levels: int) -> DataSource:
    """A data source with so many messages below it: each push source has the next one for its batch source."""
    outermost = innermost = DataSource(name="deep", type=DataSource.PUSH_SOURCE)
    for _ in range(levels):
        innermost = innermost.batch_source
        innermost.name = "deep"
    return outermost


def view(levels: int) -> FeatureView:
    made = kinds.FEATURE_VIEW.proto("deep")
    made.spec.batch_source.CopyFrom(source(levels - 2))
    return made


def on_demand_view(levels: int) -> OnDemandFeatureView:
    made = kinds.ON_DEMAND_FEATURE_VIEW.proto("deep")
    made.spec.sources["deep"].request_data_source.CopyFrom(source(levels - 4))
    return made


def service(levels: int) -> FeatureService:
    made = kinds.FEATURE_SERVICE.proto("deep")
    del made.spec.features[:]
    # Complete, so that it needs no view.
    projection = made.spec.features.add(feature_view_name="deep")
    projection.feature_columns.add(name="a", value_type=4)
    projection.batch_source.CopyFrom(source(levels - 3))
    return made


DEEP: list[tuple[kinds.Kind, Callable[[int], Message]]] = [
    (kinds.DATA_SOURCE, source),
    (kinds.FEATURE_VIEW, view),
    (kinds.ON_DEMAND_FEATURE_VIEW, on_demand_view),
    (kinds.FEATURE_SERVICE, service),
]


@pytest.mark.parametrize(("kind", "made"), DEEP, ids=lambda value: str(value) if isinstance(value, kinds.Kind) else "")
def test_what_is_accepted_can_be_read_in_every_answer(
    kind: kinds.Kind, made: Callable[[int], Message], ours: harness.Server, project: str
) -> None:
    ask(ours, *kind.apply(made(DEEPEST), project)).ok()
    asked = [kind.get("deep", project), kind.list(project), ("Proto", Empty())]
    if kind in (kinds.FEATURE_VIEW, kinds.ON_DEMAND_FEATURE_VIEW):
        asked.append(("GetAnyFeatureView", api.GetAnyFeatureViewRequest(name="deep", project=project)))
        asked.append(("ListAllFeatureViews", api.ListAllFeatureViewsRequest(project=project)))
    for rpc, request in asked:
        # Feast's own stubs decode the answer, and raise when they cannot.
        ask(ours, rpc, request).ok()
    refused = ask(ours, *kind.apply(made(DEEPEST + 1), project))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT, refused
    assert "`deep`" in refused.detail, refused
    ask(ours, "DeleteProject", api.DeleteProjectRequest(name=project, commit=True)).ok()


def test_that_is_as_deep_as_feasts_protobuf_reads() -> None:
    """The deepest answer is an object in two messages; one level more, and it is not read."""

    def answer(levels: int) -> bytes:
        any_view = api.AnyFeatureView(feature_view=view(levels))
        return api.ListAllFeatureViewsResponse(feature_views=[any_view]).SerializeToString()

    assert api.ListAllFeatureViewsResponse.FromString(answer(DEEPEST)).feature_views
    with pytest.raises(DecodeError):
        api.ListAllFeatureViewsResponse.FromString(answer(DEEPEST + 1))
    assert Registry.FromString(Registry(feature_views=[view(DEEPEST)]).SerializeToString()).feature_views


@pytest.mark.parametrize(
    "inner_type", ["\u00e9", "", "Array(" * 20_000, "Array(" * 20_000 + "INT64" + ")" * 20_000, "[" * 100_000]
)
def test_types_of_features_that_somebody_stored(inner_type: str, ours: harness.Server, project: str) -> None:
    """A tag says of what type the elements of a feature are, and may say anything."""
    made = kinds.FEATURE_VIEW.proto("v")
    feature = made.spec.features.add(name="nested")
    feature.value_type = ValueType.VALUE_LIST
    feature.tags["feast:nested_inner_type"] = inner_type
    ask(ours, *kinds.FEATURE_VIEW.apply(made, project)).ok()
    listed = ask(ours, "ListFeatures", api.ListFeaturesRequest(project=project)).ok()
    assert "nested" in {found.name for found in listed.features}
    ask(ours, "GetFeature", api.GetFeatureRequest(project=project, feature_view="v", name="nested")).ok()
    ours.assert_alive()
    ask(ours, "DeleteProject", api.DeleteProjectRequest(name=project, commit=True)).ok()


def test_an_apply_replaces_what_cannot_be_decoded(own_server: harness.Server, project: str) -> None:
    made = kinds.FEATURE_VIEW.proto("v")
    ask(own_server, *kinds.FEATURE_VIEW.apply(made, project)).ok()
    with contextlib.closing(sqlite3.connect(own_server.db, timeout=30)) as connection, connection:
        damaged = connection.execute("UPDATE feature_views SET feature_view_proto = x'0affffff'")
        assert damaged.rowcount == 1
    request = api.ApplyMaterializationRequest(project=project, commit=True, feature_view=made)
    request.start_date.seconds, request.end_date.seconds = 0, 60
    answer = ask(own_server, "ApplyMaterialization", request)
    assert answer.code is grpc.StatusCode.DATA_LOSS, answer
    assert all(word in answer.detail for word in ("feature view", "`v`", project)), answer
    ask(own_server, *kinds.FEATURE_VIEW.apply(made, project)).ok()
    ask(own_server, "ApplyMaterialization", request).ok()
    own_server.says("cannot be decoded and is replaced")


# --- the limits of the process -----------------------------------------------------------------------------------

FILE_SIZE_LIMIT = 2048 * 512
"""In bytes: 2048 blocks of 512, which is what `ulimit -f` of a POSIX shell counts in."""


def limited(registry: str, folder: Path, db: Path) -> harness.Server:
    port = harness.free_port()
    command = [str(harness.registry_bin()), "serve", "--port", str(port), "--registry", registry]
    shell = ["sh", "-c", 'ulimit -f 2048 && exec "$@"', "sh"]
    return harness._spawn("limited", [*shell, *command], folder, db, port, wait=True)


@pytest.mark.parametrize("storage", ["file", "sqlite"])
def test_a_write_beyond_the_file_size_limit_is_refused(storage: str, tmp_path: Path, project: str) -> None:
    db = tmp_path / "registry.db"
    registry = f"sqlite:///{db}" if storage == "sqlite" else f"file://{db}"

    def apply(server: harness.Server, name: str) -> Any:
        entity = kinds.ENTITY.proto(name)
        entity.spec.description = "d" * 30_000
        return ask(server, *kinds.ENTITY.apply(entity, project))

    def names(server: harness.Server) -> list[str]:
        return sorted(
            kinds.ENTITY.name_of(found) for found in kinds.ENTITY.listed(ask(server, *kinds.ENTITY.list(project)).ok())
        )

    with harness.running(limited(registry, tmp_path, db)) as server:
        acknowledged = []
        for number in range(FILE_SIZE_LIMIT // 30_000 + 2):
            answer = apply(server, f"e{number:02}")
            if answer.code is not None:
                break
            acknowledged.append(f"e{number:02}")
        server.assert_alive()
        assert answer.code is grpc.StatusCode.UNAVAILABLE, answer
        assert answer.detail.strip(), answer
        assert acknowledged, "not even the first was stored"
        assert names(server) == acknowledged
        assert apply(server, "again").code is grpc.StatusCode.UNAVAILABLE
        server.assert_alive()
        server.stop()
    with harness.running(harness.start_ours(db, registry=registry)) as server:
        assert names(server) == acknowledged
        apply(server, "again").ok()
