"""One table of the kinds of object that the registry keeps, so that tests can be written once for all.

A `Kind` knows the RPCs, the request and response fields, the SQL table, and how to build a realistic
object of the given name with Feast's own classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, KafkaSource, PushSource, RequestSource
from feast.aggregation import Aggregation
from feast.batch_feature_view import BatchFeatureView
from feast.data_format import JsonFormat
from feast.infra.infra_object import Infra
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.labeling.label_view import LabelView
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.permissions.action import AuthzedAction
from feast.permissions.permission import Permission
from feast.permissions.policy import RoleBasedPolicy
from feast.project import Project
from feast.protos.feast.core.InfraObject_pb2 import Infra as InfraProto
from feast.protos.feast.core.ValidationProfile_pb2 import ValidationReference as ValidationReferenceProto
from feast.protos.feast.registry import RegistryServer_pb2 as api
from feast.saved_dataset import SavedDataset, ValidationReference
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64, String
from feast.value_type import ValueType
from google.protobuf.message import Message

# --- samples ---------------------------------------------------------------------------------------
# Their functions pretend to live in __main__, as Feast's decorators arrange: dill then stores them by
# value, and a server that unpickles them (Feast's own does) needs no module of ours.


def _portable(function: Callable) -> Callable:
    function.__module__ = "__main__"
    return function


@_portable
def double_rides(frame):  # type: ignore[no-untyped-def]
    frame["rides"] = frame["rides"] * 2
    return frame


@_portable
def rides_plus_bonus(inputs):  # type: ignore[no-untyped-def]
    out = inputs[["rides"]].copy()
    out["rides_plus_bonus"] = inputs["rides"] + inputs["bonus"]
    return out[["rides_plus_bonus"]]


@_portable
def no_expectations(dataset):  # type: ignore[no-untyped-def]
    return dataset


DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
RIDES = [Field(name="driver_id", dtype=Int64), Field(name="rides", dtype=Int64)]


def trips(name: str = "trips", **meta: Any) -> FileSource:
    return FileSource(name=name, path=f"data/{name}.parquet", timestamp_field="event_timestamp", **meta)


def entity(name: str, **meta: Any) -> Entity:
    return Entity(name=name, join_keys=[f"{name}_id"], value_type=ValueType.STRING, **meta)


def feature_view(name: str, fields: list[Field] | None = None, source: Any = None, **meta: Any) -> FeatureView:
    return FeatureView(
        name=name,
        entities=meta.pop("entities", [DRIVER]),
        schema=fields or RIDES,
        ttl=meta.pop("ttl", timedelta(days=3)),
        source=source or trips(),
        **meta,
    )


def batch_feature_view(name: str, **meta: Any) -> BatchFeatureView:
    return BatchFeatureView(
        name=name,
        mode="pandas",
        entities=[DRIVER],
        schema=RIDES,
        ttl=timedelta(days=1),
        source=trips(),
        online=True,
        udf=double_rides,
        udf_string="double_rides",
        **meta,
    )


def stream_feature_view(name: str, **meta: Any) -> StreamFeatureView:
    return StreamFeatureView(
        name=name,
        entities=[DRIVER],
        schema=RIDES,
        ttl=timedelta(hours=6),
        source=KafkaSource(
            name="rides_topic",
            kafka_bootstrap_servers="localhost:9092",
            topic="rides",
            message_format=JsonFormat(schema_json="driver_id integer, rides integer"),
            batch_source=trips(),
            timestamp_field="event_timestamp",
            watermark_delay_threshold=timedelta(minutes=1),
        ),
        aggregations=[Aggregation(column="rides", function="sum", time_window=timedelta(hours=1))],
        timestamp_field="event_timestamp",
        mode="python",
        udf=double_rides,
        udf_string="double_rides",
        **meta,
    )


def on_demand_feature_view(name: str, **meta: Any) -> OnDemandFeatureView:
    return OnDemandFeatureView(
        name=name,
        schema=meta.pop("fields", [Field(name="rides_plus_bonus", dtype=Float64)]),
        sources=[
            feature_view("driver_rides"),
            RequestSource(name="bonus", schema=[Field(name="bonus", dtype=Float64)]),
        ],
        udf=rides_plus_bonus,
        udf_string="rides_plus_bonus",
        mode="pandas",
        **meta,
    )


def label_view(name: str, **meta: Any) -> LabelView:
    return LabelView(
        name=name,
        entities=[DRIVER],
        schema=[*RIDES[:1], Field(name="is_fraud", dtype=Int64), Field(name="labeler", dtype=String)],
        source=PushSource(name="fraud_labels", batch_source=trips("labels")),
        ttl=timedelta(days=30),
        reference_feature_view="driver_rides",
        **meta,
    )


def feature_service(name: str, views: list | None = None, **meta: Any) -> FeatureService:
    return FeatureService(name=name, features=views or [feature_view("driver_rides").with_name("alias")], **meta)


def saved_dataset(name: str, **meta: Any) -> SavedDataset:
    return SavedDataset(
        name=name,
        features=["driver_rides:rides"],
        join_keys=["driver_id"],
        storage=SavedDatasetFileStorage(path=f"data/{name}.parquet"),
        feature_service_name=meta.pop("feature_service_name", "rides_service"),
        **meta,
    )


def validation_reference(name: str, **meta: Any) -> ValidationReferenceProto:
    # Built lazily: Feast's profiler imports great_expectations (see stand_ins/).
    from feast.dqm.profilers.ge_profiler import GEProfiler

    profiler = GEProfiler(no_expectations, with_feature_metadata=False)
    return ValidationReference(name, "a_dataset", profiler, **meta)


def permission(name: str, **meta: Any) -> Permission:
    meta.pop("description", None)
    return Permission(
        name=name,
        types=meta.pop("types", [FeatureView, Entity]),
        name_patterns=["driver.*"],
        actions=[AuthzedAction.READ_ONLINE, AuthzedAction.DESCRIBE],
        policy=RoleBasedPolicy(roles=["reader", "admin"]),
        required_tags={"team": "rides"},
        **meta,
    )


# --- the table -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    name: str  # as in a request's field
    rpc: str  # as in GetEntity
    plural: str  # as in ListEntities and in its response
    build: Callable[..., Any]  # (name, **metadata) -> an object of Feast's class
    python_class: type
    error: str  # the class in feast.errors of its not-found error
    table: str
    key_column: str
    proto_column: str
    is_view: bool = False
    in_project: bool = True
    described: bool = True  # has a description of its own
    owned: bool = True

    def __str__(self) -> str:
        return self.name

    def proto(self, name: str, **metadata: Any) -> Message:
        return self.build(name, **metadata).to_proto()

    def _scope(self, project: str) -> dict[str, str]:
        return {"project": project} if self.in_project else {}

    def apply(self, proto: Message, project: str, commit: bool = True) -> tuple[str, Message]:
        rpc = "ApplyFeatureView" if self.is_view else f"Apply{self.rpc}"
        request = getattr(api, f"{rpc}Request")(commit=commit, **{self.name: proto}, **self._scope(project))
        return rpc, request

    def get(self, name: str, project: str, allow_cache: bool = False) -> tuple[str, Message]:
        rpc = f"Get{self.rpc}"
        return rpc, getattr(api, f"{rpc}Request")(name=name, allow_cache=allow_cache, **self._scope(project))

    def list(self, project: str, **options: Any) -> tuple[str, Message]:
        rpc = f"List{self.plural}"
        return rpc, getattr(api, f"{rpc}Request")(**self._scope(project), **options)

    def delete(self, name: str, project: str) -> tuple[str, Message]:
        rpc = "DeleteFeatureView" if self.is_view else f"Delete{self.rpc}"
        return rpc, getattr(api, f"{rpc}Request")(name=name, commit=True, **self._scope(project))

    def listed(self, response: Message) -> list[Message]:
        return list(getattr(response, self.list_field))

    @property
    def list_field(self) -> str:
        out = "".join(f"_{c.lower()}" if c.isupper() else c for c in self.plural)
        return out.lstrip("_")

    def name_of(self, proto: Any) -> str:
        return proto.spec.name if "spec" in proto.DESCRIPTOR.fields_by_name else proto.name

    def spec(self, proto: Any) -> Any:
        """The message that carries name, project, tags: `spec` where there is one."""
        return proto.spec if "spec" in proto.DESCRIPTOR.fields_by_name else proto


def _kind(name: str, rpc: str, plural: str, build: Callable, cls: type, error: str, **more: Any) -> Kind:
    view, table = more.get("is_view", False), more.pop("table", None)
    column = "feature_view" if view else name
    return Kind(name, rpc, plural, build, cls, error, table or f"{name}s", f"{column}_name", f"{column}_proto", **more)


PROJECT = _kind(
    "project", "Project", "Projects", lambda name, **meta: Project(name=name, **meta), Project,
    "ProjectObjectNotFoundException", in_project=False,
)  # fmt: skip
ENTITY = _kind("entity", "Entity", "Entities", entity, Entity, "EntityNotFoundException", table="entities")
DATA_SOURCE = _kind(
    "data_source", "DataSource", "DataSources", trips, FileSource, "DataSourceObjectNotFoundException"
)  # fmt: skip
FEATURE_VIEW = _kind(
    "feature_view", "FeatureView", "FeatureViews", feature_view, FeatureView,
    "FeatureViewNotFoundException", is_view=True,
)  # fmt: skip
STREAM_FEATURE_VIEW = _kind(
    "stream_feature_view", "StreamFeatureView", "StreamFeatureViews", stream_feature_view, StreamFeatureView,
    "FeatureViewNotFoundException", is_view=True,
)  # fmt: skip
ON_DEMAND_FEATURE_VIEW = _kind(
    "on_demand_feature_view", "OnDemandFeatureView", "OnDemandFeatureViews", on_demand_feature_view,
    OnDemandFeatureView, "FeatureViewNotFoundException", is_view=True,
)  # fmt: skip
LABEL_VIEW = _kind(
    "label_view", "LabelView", "LabelViews", label_view, LabelView, "FeatureViewNotFoundException", is_view=True
)  # fmt: skip
FEATURE_SERVICE = _kind(
    "feature_service", "FeatureService", "FeatureServices", feature_service, FeatureService,
    "FeatureServiceNotFoundException",
)  # fmt: skip
SAVED_DATASET = _kind(
    "saved_dataset", "SavedDataset", "SavedDatasets", saved_dataset, SavedDataset, "SavedDatasetNotFound", owned=False
)  # fmt: skip
VALIDATION_REFERENCE = _kind(
    "validation_reference", "ValidationReference", "ValidationReferences", validation_reference,
    ValidationReference, "ValidationReferenceNotFound", owned=False,
)  # fmt: skip
PERMISSION = _kind(
    "permission", "Permission", "Permissions", permission, Permission, "PermissionObjectNotFoundException",
    described=False, owned=False,
)  # fmt: skip

VIEWS = [FEATURE_VIEW, STREAM_FEATURE_VIEW, ON_DEMAND_FEATURE_VIEW, LABEL_VIEW]
IN_PROJECT = [ENTITY, DATA_SOURCE, *VIEWS, FEATURE_SERVICE, SAVED_DATASET, VALIDATION_REFERENCE, PERMISSION]
ALL = [PROJECT, *IN_PROJECT]
"""Eleven kinds that have Apply, Get, List and Delete; the twelfth, infra, has only Update and Get."""

BY_NAME = {kind.name: kind for kind in ALL}


def infra(*tables: str) -> InfraProto:
    """What `feast apply` stores for the sqlite online store; the relative path is for Feast's server, which opens it."""
    out = Infra().to_proto()
    for table in tables:
        added = out.infra_objects.add(infra_object_class_type="feast.infra.online_stores.sqlite.SqliteTable")
        added.sqlite_table.path, added.sqlite_table.name = "interop_online.db", table
    return out
