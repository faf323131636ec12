"""What Feast's REST server says of an object as Python code (`featureDefinition`), for the texts that ours is tested with.

    python interop/printed_definitions.py

writes `registry-server/src/rest/definition/tests/golden.json`: objects, each with the text that Feast's own routers answer
with. `test_printed_definitions.py` fails when the installed Feast would write something else.
"""

from __future__ import annotations

import base64
import json
import sys
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from fastapi import APIRouter
from feast.api.registry.rest import (
    data_sources,
    entities,
    feature_services,
    feature_views,
    features,
    rest_utils,
    saved_datasets,
)
from feast.feature_view import FeatureView as PythonFeatureView
from feast.labeling.label_view import LabelView as PythonLabelView
from feast.protos.feast.core.DataSource_pb2 import DataSource
from feast.protos.feast.core.Entity_pb2 import Entity
from feast.protos.feast.core.Feature_pb2 import FeatureSpecV2
from feast.protos.feast.core.FeatureService_pb2 import FeatureService, LoggingConfig
from feast.protos.feast.core.FeatureView_pb2 import FeatureView
from feast.protos.feast.core.LabelView_pb2 import LabelView
from feast.protos.feast.core.OnDemandFeatureView_pb2 import OnDemandFeatureView, OnDemandSource
from feast.protos.feast.core.SavedDataset_pb2 import SavedDataset
from feast.protos.feast.core.StreamFeatureView_pb2 import StreamFeatureView
from feast.protos.feast.registry import RegistryServer_pb2 as api
from feast.protos.feast.types.Value_pb2 import ValueType
from feast.registry_server import RegistryServer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

GOLDEN = Path(__file__).resolve().parents[1] / "registry-server/src/rest/definition/tests/golden.json"

AnyView = FeatureView | StreamFeatureView | OnDemandFeatureView | LabelView


@dataclass(frozen=True)
class Case:
    """An object, or with `feature` one feature of a view."""

    title: str
    message: Message
    feature: str = ""

    def as_json(self) -> dict[str, str]:
        """The case with Feast's text."""
        fields = {
            "title": self.title,
            "kind": KINDS[type(self.message)].name,
            "proto": base64.b64encode(self.message.SerializeToString(deterministic=True)).decode(),
        }
        return fields | ({"feature": self.feature} if self.feature else {}) | {"text": definition(self)}


# --- Feast's side ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """How one kind of object is asked for."""

    name: str
    router: Callable[[Any], APIRouter]
    path: str
    rpc: str
    answer: Callable[[Any], Message] = lambda message: message


def any_view(field: str) -> Callable[[Any], Message]:
    """The answer that holds a view in one of its fields."""

    def answer(view: AnyView) -> Message:
        response = api.GetAnyFeatureViewResponse(any_feature_view=api.AnyFeatureView(**{field: view}))
        answered = getattr(response.any_feature_view, field)
        # Feast's registry makes this of a view that it reads and writes: `test_no_time_to_live_is_one_of_zero`.
        if answered.HasField("spec") and "ttl" in answered.spec.DESCRIPTOR.fields_by_name:
            answered.spec.ttl.SetInParent()
        return response

    return answer


VIEWS = (feature_views.get_feature_view_router, "/feature_views/{name}", "GetAnyFeatureView")
KINDS: dict[type, Kind] = {
    Entity: Kind("entity", entities.get_entity_router, "/entities/{name}", "GetEntity"),
    DataSource: Kind("data source", data_sources.get_data_source_router, "/data_sources/{name}", "GetDataSource"),
    FeatureView: Kind("feature view", *VIEWS, any_view("feature_view")),
    StreamFeatureView: Kind("stream feature view", *VIEWS, any_view("stream_feature_view")),
    OnDemandFeatureView: Kind("on demand feature view", *VIEWS, any_view("on_demand_feature_view")),
    LabelView: Kind("label view", *VIEWS, any_view("label_view")),
    FeatureService: Kind(
        "feature service",
        feature_services.get_feature_service_router,
        "/feature_services/{name}",
        "GetFeatureService",
    ),
    SavedDataset: Kind(
        "saved dataset", saved_datasets.get_saved_dataset_router, "/saved_datasets/{name}", "GetSavedDataset"
    ),
}


class Registry:
    """Stands in for the gRPC service behind the routers: it has one object."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def __getattr__(self, rpc: str) -> Callable[..., Message]:
        kind = KINDS[type(self.case.message)]
        answers: dict[str, Callable[[Any], Message]] = {
            "ListDataSources": lambda request: api.ListDataSourcesResponse(),
            "ListFeatureViews": lambda request: api.ListFeatureViewsResponse(),
            "ListAllFeatureViews": lambda request: api.ListAllFeatureViewsResponse(),
            "GetObjectRelationships": lambda request: api.GetObjectRelationshipsResponse(),
            "GetFeature": self.feature,
            kind.rpc: lambda request: kind.answer(self.case.message),
        }
        return lambda request, context: answers[rpc](request)

    def feature(self, request: Any) -> Message:
        """What Feast's own service says of a feature of the view."""
        python_class = PythonLabelView if isinstance(self.case.message, LabelView) else PythonFeatureView
        view = python_class.from_proto(self.case.message)
        registry = SimpleNamespace(list_all_feature_views=lambda project, allow_cache: [view])
        return RegistryServer.GetFeature(SimpleNamespace(proxied_registry=registry), request, None)


class InOrder(dict):
    """A set that keeps the order in which its members came; Feast's own has another one in each process."""

    def add(self, member: str) -> None:
        self[member] = None


def sorted_maps(message: Message) -> dict[str, Any]:
    """A message as JSON, maps sorted: their order too is another one in each process."""
    return _sorted(MessageToDict(message))


def _sorted(value: Any) -> Any:
    match value:
        case dict():
            sort = lambda key, map: dict(sorted(map.items())) if key in ("tags", "sources", "config") else map
            return {key: sort(key, _sorted(entry)) for key, entry in value.items()}
        case list():
            return [_sorted(entry) for entry in value]
        case _:
            return value


def definition(case: Case) -> str:
    """What Feast's router says of the object."""
    kind = KINDS[type(case.message)]
    router, path = kind.router, kind.path
    names = {"name": getattr(case.message, "spec", case.message).name}
    if case.feature:
        router, path = features.get_feature_router, "/features/{feature_view}/{name}"
        names = {"feature_view": names["name"], "name": case.feature}
    routes = router(Registry(case)).routes
    get = next(route.endpoint for route in routes if route.path == path and "GET" in route.methods)
    with (
        patch.object(rest_utils, "MessageToDict", sorted_maps),
        patch.object(feature_views, "set", InOrder, create=True),
        patch.object(data_sources, "set", InOrder, create=True),
    ):
        return get(**names, project="p", include_relationships=False, allow_cache=False)["featureDefinition"]


# --- the objects -------------------------------------------------------------------------------------

# Texts that Python prints in quotes of one or the other kind, and with escapes of each kind.
QUOTED = [
    "plain",
    "it's",
    'say "hi"',
    "back\\slash",
    "\\'",
    "\x00\x01\x1f\x7f",
    "\x80\x85\xa0\xad\xff",
    "é e\u0301 \u0301first",
    "日本語",
    "\u2028\u2029\u202e\ufeff\u200b\u3000",
    "\ue000\U000f0000\U0010fffd\ufffe\U0010ffff",
]
# What stands unquoted in a text is there as it is.
ANYWHERE = ["", 'it\'s "both"', "new\nline\ttab\rreturn\\", "😀👩\u200d👧 🇩🇪", "{{ name }} {% if x %} {name} %s"]


def characters() -> str:
    """The first and the last characters of each general category, all that Python must know to print a text."""
    categories: dict[str, list[str]] = {}
    for number in range(sys.maxunicode + 1):
        categories.setdefault(unicodedata.category(chr(number)), []).append(chr(number))
    del categories["Cs"]
    # What is not assigned may be in the next version of Unicode, except for those that never will be.
    categories["Cn"] = [c for c in categories["Cn"] if ord(c) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(c) <= 0xFDEF]
    return "".join("".join(some[:3] + some[-3:]) for some in categories.values())


def text_cases() -> Iterator[Case]:
    yield Case("characters of every category", Entity(spec={"name": "e", "join_key": characters()}))
    yield Case("accents by themselves", Entity(spec={"name": "e", "tags": {"\u0300": "\u0300\u0300", "\u20dd": "'"}}))
    for text in QUOTED:
        yield Case(
            f"text {text!a}", Entity(spec={"name": "e", "join_key": text, "tags": {text: text, "a": text + '"'}})
        )
    for text in ANYWHERE:
        yield from cases_with(text)


def cases_with(text: str) -> Iterator[Case]:
    """A text in every place where one can stand."""
    tags = {text: text, "b": "'", "a": text + '"'}
    fields = [FeatureSpecV2(name=f"f{text}", value_type=ValueType.INT64, description=text)]
    view = {"name": text, "entities": [text, "e"], "features": fields}
    log = {"file_destination": {"path": text, "partition_by": [text, "'"]}}
    columns = {"feature_view_name": f"v{text}", "feature_columns": [*fields, {"name": text}]}
    yield Case(f"entity {text!a}", Entity(spec={"name": text, "join_key": text, "description": text, "tags": tags}))
    yield Case(
        f"source {text!a}",
        DataSource(
            name=text,
            type=DataSource.BATCH_FILE,
            timestamp_field=text,
            created_timestamp_column=text,
            file_options={"uri": text},
        ),
    )
    yield Case(f"view {text!a}", FeatureView(spec={**view, "tags": tags, "batch_source": {"name": text}}))
    sources = {text: OnDemandSource(), "b": OnDemandSource()}
    yield Case(f"on demand view {text!a}", OnDemandFeatureView(spec={**view, "sources": sources}))
    spec = {"name": text, "description": text, "tags": tags, "features": [columns], "logging_config": log}
    yield Case(f"service {text!a}", FeatureService(spec=spec))
    yield Case(f"dataset {text!a}", SavedDataset(spec={"name": text, "features": [text, f"v:{text}"], "tags": tags}))


def entity_cases() -> Iterator[Case]:
    yield Case("nothing at all", Entity())
    yield Case("an empty spec", Entity(spec={}))
    yield Case("a meta alone", Entity(meta={"created_timestamp": {"seconds": 1}}))
    yield Case("a name", Entity(spec={"name": "driver"}))
    yield Case("a description", Entity(spec={"name": "driver", "join_key": "id", "description": "who drives"}))
    yield Case("a tag", Entity(spec={"name": "driver", "join_key": "id", "tags": {"k": "v"}}))
    tags = {f"k{number:02}": str(number) for number in range(20)}
    yield Case("many tags", Entity(spec={"name": "driver", "value_type": 4, "owner": "o", "tags": tags}))


def source_cases() -> Iterator[Case]:
    options = {
        DataSource.BATCH_FILE: {
            "file_options": {"uri": "s3://bucket/file.parquet", "s3_endpoint_override": "http://s3"}
        },
        DataSource.BATCH_SNOWFLAKE: {"snowflake_options": {"table": "t", "schema": "s"}},
        DataSource.BATCH_BIGQUERY: {"bigquery_options": {"table": "t", "query": "q"}},
        DataSource.BATCH_REDSHIFT: {"redshift_options": {"table": "t"}},
        DataSource.BATCH_TRINO: {"trino_options": {"table": "t"}},
        DataSource.BATCH_SPARK: {"spark_options": {"path": "p"}},
        DataSource.BATCH_ATHENA: {"athena_options": {"table": "t"}},
        DataSource.STREAM_KAFKA: {"kafka_options": {"topic": "t"}, "batch_source": {"name": "batch"}},
        DataSource.STREAM_KINESIS: {"kinesis_options": {"region": "r"}},
        DataSource.CUSTOM_SOURCE: {"custom_options": {"configuration": b"{}"}, "data_source_class_type": "a.B"},
        DataSource.REQUEST_SOURCE: {"request_data_options": {"schema": all_types()}},
        DataSource.PUSH_SOURCE: {"push_options": {}, "batch_source": {"name": "batch"}},
    }
    for number, value in DataSource.SourceType.items():
        fields = {"timestamp_field": "ts", "created_timestamp_column": "created"}
        yield Case(f"a source of type {number}", DataSource(name="s", type=value, **options.get(value, {}), **fields))
        if value:  # Feast has nothing to say of a message without a single field.
            yield Case(f"a source of type {number} and no more", DataSource(type=value))
    yield Case("an empty path", DataSource(name="s", type=DataSource.BATCH_FILE, file_options={}))
    yield Case("a push from nowhere", DataSource(name="s", type=DataSource.PUSH_SOURCE, batch_source={}))
    yield Case("requests for nothing", DataSource(name="s", type=DataSource.REQUEST_SOURCE, request_data_options={}))
    described = [
        {"name": "a", "value_type": 0, "description": "left out"},
        {"name": "b", "value_type": 2, "tags": {"k": "v"}},
        {"name": "c", "value_type": 13},
        {"name": "d", "value_type": 3},
    ]
    requests = {"schema": described}
    yield Case(
        "requests with descriptions",
        DataSource(name="s", type=DataSource.REQUEST_SOURCE, request_data_options=requests),
    )
    yield Case("a file among requests", DataSource(name="s", type=DataSource.REQUEST_SOURCE, file_options={"uri": "u"}))
    yield Case("requests among files", DataSource(name="s", type=DataSource.BATCH_FILE, request_data_options=requests))


def all_types() -> list[FeatureSpecV2]:
    """A field of each type that Feast can print."""
    return [FeatureSpecV2(name=name, value_type=value) for name, value in ValueType.Enum.items() if name != "NULL"]


def view_cases() -> Iterator[Case]:
    full = {
        "name": "v",
        "project": "p",
        "entities": ["driver", "ride"],
        "features": [{"name": "a", "value_type": 4}, {"name": "b", "value_type": 4, "description": "words"}],
        "tags": {"team": "ml", "a": "b"},
        "description": "left out",
        "owner": "left out",
    }
    yield Case("a view of all types", FeatureView(spec={"name": "v", "features": all_types()}))
    named = {"name": "src", "type": DataSource.BATCH_FILE}
    stored = {"ttl": Duration(seconds=3600), "online": True}
    yield Case("a whole view", FeatureView(spec={**full, **stored, "batch_source": named, "stream_source": named}))
    yield Case("a whole stream view", StreamFeatureView(spec={**full, **stored, "stream_source": named}))
    yield Case("a whole label view", LabelView(spec={**full, **stored, "source": named}))
    yield Case("a whole on demand view", OnDemandFeatureView(spec={**full, "sources": sources()}))
    for view in (FeatureView, StreamFeatureView, LabelView, OnDemandFeatureView):
        yield Case(f"{view.__name__} with an empty spec", view(spec={}))
        yield Case(f"{view.__name__} with a name", view(spec={"name": "v"}))
        yield Case(f"{view.__name__} without entities", view(spec={**full, "entities": []}))
        yield Case(f"{view.__name__} without features", view(spec={**full, "features": []}))
        yield Case(f"{view.__name__} without tags", view(spec={**full, "tags": {}}))
        struct = FeatureSpecV2(
            name="s", value_type=34, description="of a struct", tags={"feast:struct_schema": '{"a": "INT64"}'}
        )
        nested = FeatureSpecV2(name="n", value_type=42, tags={"feast:nested_inner_type": "Array(Array(INT64))"})
        yield Case(f"{view.__name__} with details of types", view(spec={"name": "v", "features": [struct, nested]}))
    yield from source_view_cases(named)
    yield from time_to_live_cases()


def source_view_cases(named: dict[str, Any]) -> Iterator[Case]:
    yield Case("a source without a name", FeatureView(spec={"name": "v", "batch_source": {}}))
    yield Case("a stream without a name", StreamFeatureView(spec={"name": "v", "stream_source": {}}))
    yield Case("a batch behind a stream", StreamFeatureView(spec={"name": "v", "batch_source": named}))
    yield Case("labels without a name", LabelView(spec={"name": "v", "source": {}}))
    of_views = [{"name": "a"}, {}, {"name": "c", "source_views": [{"name": "d"}]}]
    yield Case("source views", FeatureView(spec={"name": "v", "batch_source": named, "source_views": of_views}))
    yield Case("one source view", FeatureView(spec={"name": "v", "source_views": [{}]}))


def sources() -> dict[str, OnDemandSource]:
    return {
        "view": OnDemandSource(feature_view={"spec": {"name": "other"}}),
        "projection": OnDemandSource(feature_view_projection={"feature_view_name": "other"}),
        "request": OnDemandSource(request_data_source={"name": "other"}),
        "Nothing": OnDemandSource(),
    }


def time_to_live_cases() -> Iterator[Case]:
    for seconds, nanos in [
        (0, 0),
        (1, 0),
        (86_400, 0),
        (315_576_000_000, 0),
        (-1, 0),
        (1, 500_000_000),
        (0, 1),
        (-1, -500_000_000),
        (0, -1),
    ]:
        ttl = Duration(seconds=seconds, nanos=nanos)
        for view in (FeatureView, StreamFeatureView, LabelView) if nanos == 0 else (FeatureView,):
            title = f"{view.__name__} of {seconds} s and {nanos} ns"
            yield Case(title, view(spec={"name": "v", "ttl": ttl, "online": seconds > 0}))


def service_cases() -> Iterator[Case]:
    yield Case("a service without a spec", FeatureService(meta={"created_timestamp": {"seconds": 1}}))
    yield Case("a service with an empty spec", FeatureService(spec={}))
    projections = [
        {"feature_view_name": "all"},
        {"feature_view_name": "one", "feature_columns": [{"name": "a", "value_type": 4}]},
        {
            "feature_view_name": "two",
            "feature_view_name_alias": "alias",
            "feature_columns": [{"name": "a"}, {"name": "b"}],
        },
        {"feature_view_name": "unnamed", "feature_columns": [{}, {"value_type": 2}]},
        {"feature_view_name_alias": "of nothing", "feature_columns": [{"name": "a"}]},
        {"feature_view_name": "versioned", "version_tag": 3, "join_key_map": {"a": "b"}},
    ]
    spec = {"name": "svc", "features": projections, "owner": "left out"}
    yield Case("projections", FeatureService(spec=spec))
    yield Case("projections and tags", FeatureService(spec={**spec, "tags": {"b": "1", "a": "2"}}))
    yield Case("projections and words", FeatureService(spec={**spec, "description": "words"}))
    for title, config in logging_configs():
        yield Case(f"logs {title}", FeatureService(spec={"name": "svc", "logging_config": config}))
    config = LoggingConfig(sample_rate=1.0, file_destination={"path": "logs"})
    yield Case(
        "everything", FeatureService(spec={**spec, "tags": {"a": "b"}, "description": "d", "logging_config": config})
    )


def logging_configs() -> Iterator[tuple[str, LoggingConfig]]:
    yield "nowhere", LoggingConfig()
    file = {"path": "p", "s3_endpoint_override": "http://s3", "partition_by": ["a", "b"]}
    yield "to a file", LoggingConfig(sample_rate=0.5, file_destination=file)
    yield "to an empty file", LoggingConfig(file_destination={})
    yield "to BigQuery", LoggingConfig(sample_rate=1, bigquery_destination={"table_ref": "a.b"})
    yield "to Redshift", LoggingConfig(redshift_destination={"table_name": "t"})
    yield "to Snowflake", LoggingConfig(snowflake_destination={"table_name": "t"})
    yield "to Athena", LoggingConfig(athena_destination={"table_name": "t"})
    custom = {"kind": "k", "config": {"b": "1", "a": "it's"}}
    yield "elsewhere", LoggingConfig(custom_destination=custom)
    yield "to nothing else", LoggingConfig(custom_destination={})
    couchbase = {"database": "d", "scope": "s", "collection": "c"}
    yield "to Couchbase", LoggingConfig(couchbase_columnar_destination=couchbase)
    rates = [0.1, 0.9, 1 / 3, 0.0001, 0.00001, 1e-7, 1.5e-30, 123456.7, 16777217, 1e15, 1e16, 3.4028235e38, 1e-45]
    for rate in [*rates, -0.25, -0.0, float("inf"), float("-inf"), float("nan"), 5.684341886080802e-14]:
        yield f"at a rate of {rate}", LoggingConfig(sample_rate=rate)


def dataset_cases() -> Iterator[Case]:
    yield Case("a dataset with an empty spec", SavedDataset(spec={}))
    yield Case("a dataset of features", SavedDataset(spec={"name": "d", "features": ["v:a", "v:b", "w:c"]}))
    spec = {"name": "d", "features": ["v:a"], "tags": {"b": "1", "a": "2"}, "description": "left out"}
    yield Case("a dataset with tags", SavedDataset(spec={**spec, "join_keys": ["id"], "feature_service_name": "s"}))


def feature_cases() -> Iterator[Case]:
    details = {"feast:struct_schema": '{"a": "INT64"}', "more": "tags"}
    fields = [
        *(field for field in all_types() if field.name in ("INVALID", "BYTES", "DOUBLE", "FLOAT_LIST", "VALUE_SET")),
        FeatureSpecV2(name="described", value_type=4, description="in words"),
        FeatureSpecV2(name="tagged", value_type=12, tags={"b": "it's", "a": "2"}),
        FeatureSpecV2(name="both", value_type=12, tags={"a": "é\n"}, description='"quoted"\n\\'),
        FeatureSpecV2(name="struct", value_type=34, tags=details),
    ]
    source = {"name": "s", "type": DataSource.BATCH_FILE, "file_options": {"uri": "u"}, "timestamp_field": "t"}
    for field in fields:
        spec = {"name": "v", "entities": ["e"], "features": [field]}
        yield Case(f"feature {field.name}", FeatureView(spec={**spec, "batch_source": source}), field.name)
        yield Case(f"label {field.name}", LabelView(spec={**spec, "source": source}), field.name)


def cases() -> list[Case]:
    """All of them; titles are unique, each case says what it is about."""
    parts = [text_cases, entity_cases, source_cases, view_cases, service_cases, dataset_cases, feature_cases]
    return [case for part in parts for case in part()]


def golden() -> str:
    """The file's content: a case a line."""
    lines = [json.dumps(case.as_json(), ensure_ascii=True) for case in cases()]
    return "[\n" + ",\n".join(lines) + "\n]\n"


if __name__ == "__main__":
    GOLDEN.write_text(golden(), encoding="utf-8")
