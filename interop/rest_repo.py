"""The repository that the REST tests ask about: every kind of object, twice over, written by Feast's own SqlRegistry.

Four projects: `rides` has everything, `market` repeats some of its names, `locked` is protected, `empty` has nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import (
    BigQuerySource,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    KafkaSource,
    KinesisSource,
    PushSource,
    RedshiftSource,
    RequestSource,
    SnowflakeSource,
)
from feast.data_format import AvroFormat, JsonFormat
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig
from feast.feature_view import DUMMY_ENTITY
from feast.infra.offline_stores.bigquery_source import SavedDatasetBigQueryStorage
from feast.infra.offline_stores.contrib.athena_offline_store.athena_source import AthenaSource
from feast.infra.offline_stores.contrib.mssql_offline_store.mssqlserver_source import MsSqlServerSource
from feast.infra.offline_stores.contrib.oracle_offline_store.oracle_source import OracleSource
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.labeling.label_view import LabelView
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.permissions.action import ALL_ACTIONS, AuthzedAction
from feast.permissions.permission import Permission
from feast.permissions.policy import (
    CombinedGroupNamespacePolicy,
    GroupBasedPolicy,
    NamespaceBasedPolicy,
    RoleBasedPolicy,
)
from feast.project import Project
from feast.saved_dataset import SavedDataset
from feast.types import (
    Array,
    Bool,
    Bytes,
    Float32,
    Float64,
    Int32,
    Int64,
    PrimitiveFeastType,
    String,
    UnixTimestamp,
)
from feast.value_type import ValueType

import harness
import kinds

RIDES, MARKET, LOCKED, EMPTY = "rides", "market", "locked", "empty"
# What JSON, URLs and quotation in code must not break.
AWKWARD = 'naïve "quoted" \\ back\\slash, 日本 🚕 <b>&amp;</b> it\'s\nnext line'
LABELLED = {"team": "rides", "tier": "gold", 'odd "key"': "it's \\ 日本", "empty": ""}

DRIVER = Entity(
    name="driver",
    join_keys=["driver_id"],
    value_type=ValueType.INT64,
    description=AWKWARD,
    tags=LABELLED,
    owner="ann@example.com",
)
CUSTOMER = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING, description="Who pays")
ZONE = Entity(
    name="Zone", join_keys=["zone_id"], value_type=ValueType.UNIX_TIMESTAMP, tags={"team": "maps"}, owner="bob"
)
LONELY = Entity(name="lonely", join_keys=["lonely"])


TRIPS = FileSource(
    name="trips",
    path="s3://lake/trips.parquet",
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
    s3_endpoint_override="http://minio:9000",
    field_mapping={"d": "driver_id"},
    description="All trips",
    tags={"team": "rides", "source": "file"},
    owner="ann@example.com",
)
PURCHASES = BigQuerySource(
    name="purchases", table="shop.sales.purchases", timestamp_field="ts", tags={"team": "market"}
)
BY_QUERY = BigQuerySource(name="by_query", query='SELECT "a", b FROM t WHERE x > 1', timestamp_field="ts")
TOPIC = KafkaSource(
    name="rides_topic",
    kafka_bootstrap_servers="kafka-1:9092,kafka-2:9092",
    topic="rides",
    message_format=JsonFormat(schema_json="driver_id integer, rides integer"),
    batch_source=TRIPS,
    timestamp_field="event_timestamp",
    watermark_delay_threshold=timedelta(minutes=1, milliseconds=500),
)
STREAM = KinesisSource(
    name="clicks",
    region="eu-west-1",
    stream_name="clicks",
    record_format=AvroFormat(schema_json='{"type": "record"}'),
    timestamp_field="event_timestamp",
    batch_source=TRIPS,
)
PUSHED = PushSource(name="pushed", batch_source=TRIPS, description="From the app")
LABEL_PUSH = PushSource(
    name="fraud_labels", batch_source=FileSource(name="labels", path="labels.parquet", timestamp_field="ts")
)
BONUS = RequestSource(
    name="bonus",
    schema=[
        Field(name="bonus", dtype=Float64),
        Field(name="codes", dtype=Array(String)),
        Field(name="at", dtype=UnixTimestamp),
    ],
    description="Sent with the call",
    tags={"team": "rides"},
)
SOURCES: list[DataSource] = [
    TRIPS,
    PURCHASES,
    BY_QUERY,
    SnowflakeSource(name="snow", database="DB", schema="PUBLIC", table="T", warehouse="WH", timestamp_field="ts"),
    RedshiftSource(name="shifted", database="db", schema="public", table="t", timestamp_field="ts"),
    SparkSource(name="sparked", path="hdfs:///t", file_format="parquet", timestamp_field="ts"),
    SparkSource(name="sparked_table", table="db.t", timestamp_field="ts", date_partition_column="day"),
    AthenaSource(name="athena", table="t", database="db", data_source="AwsDataCatalog", timestamp_field="ts"),
    # These two are custom sources to the registry: their options are bytes.
    MsSqlServerSource(name="mssql", table_ref="dbo.t", event_timestamp_column="ts", connection_str="mssql://h/db"),
    OracleSource(name="oracle", table_ref="T", event_timestamp_column="ts"),
    TOPIC,
    STREAM,
    PUSHED,
    LABEL_PUSH,
    BONUS,
    FileSource(name="odd name/with ünïcode", path="odd dir/ü.parquet", timestamp_field="ts", description=AWKWARD),
]
EVERY_TYPE: list[PrimitiveFeastType | Array] = [Int32, Int64, Float32, Float64, String, Bytes, Bool, UnixTimestamp]
EVERY_FIELD = [
    *(Field(name=str(t).lower(), dtype=t) for t in EVERY_TYPE),
    *(Field(name=f"{t}_list".lower(), dtype=Array(t)) for t in EVERY_TYPE),
]
DRIVER_FIELDS = [
    Field(name="driver_id", dtype=Int64),
    Field(name="rides", dtype=Int64, description=AWKWARD, tags=LABELLED),
    Field(name="rating", dtype=Float32, description="Mean of stars", tags={"unit": "stars"}),
    Field(name="zones", dtype=Array(String)),
]
DRIVER_RIDES = FeatureView(
    name="driver_rides",
    entities=[DRIVER],
    schema=DRIVER_FIELDS,
    ttl=timedelta(days=3),
    source=TRIPS,
    description=AWKWARD,
    tags=LABELLED,
    owner="ann@example.com",
)
EVERYTHING = FeatureView(
    name="everything",
    entities=[DRIVER, CUSTOMER],
    schema=[Field(name="driver_id", dtype=Int64), Field(name="customer_id", dtype=String), *EVERY_FIELD],
    ttl=timedelta(0),
    source=PURCHASES,
    online=False,
    tags={"team": "market", "tier": "gold"},
)
PUSHED_RIDES = FeatureView(
    name="Pushed_rides",
    entities=[DRIVER],
    schema=DRIVER_FIELDS[:2],
    ttl=timedelta(seconds=90),
    source=PUSHED,
    offline=True,
)
NO_ENTITY = FeatureView(
    name="no_entity", entities=[], schema=[Field(name="rainfall", dtype=Float64)], source=TRIPS, tags={"team": "rides"}
)
DERIVED = FeatureView(
    name="derived",
    source=[DRIVER_RIDES, PUSHED_RIDES],
    sink_source=FileSource(name="sink", path="sink.parquet", timestamp_field="event_timestamp"),
    entities=[DRIVER],
    schema=[Field(name="driver_id", dtype=Int64), Field(name="rides_per_day", dtype=Float64)],
    ttl=timedelta(hours=1, milliseconds=250),
)


def _stream_view() -> Any:
    """One feature beside the join key: Feast's stream views keep features in a set, whose order is random."""
    view = kinds.stream_feature_view(
        "stream_rides",
        description="Rides as they happen",
        tags={"team": "rides", "tier": "silver"},
        owner="ann@example.com",
    )
    return view


def _demand_view(name: str = "demand", **meta: Any) -> OnDemandFeatureView:
    return OnDemandFeatureView(
        name=name,
        schema=meta.pop("schema", [Field(name="rides_plus_bonus", dtype=Float64)]),
        sources=[DRIVER_RIDES, EVERYTHING[["int64"]], BONUS],
        udf=kinds.rides_plus_bonus,
        udf_string="rides_plus_bonus",
        mode="pandas",
        **meta,
    )


def _label_view(name: str = "fraud", **meta: Any) -> LabelView:
    return LabelView(
        name=name,
        entities=[DRIVER],
        schema=[
            Field(name="driver_id", dtype=Int64),
            Field(name="is_fraud", dtype=Int64, description="1 when it is", tags={"kind": "target"}),
            Field(name="labeler", dtype=String),
        ],
        source=LABEL_PUSH,
        ttl=timedelta(days=30),
        reference_feature_view="driver_rides",
        **meta,
    )


def _services(demand: OnDemandFeatureView, stream: Any, labels: LabelView) -> list[FeatureService]:
    return [
        FeatureService(
            name="whole", features=[DRIVER_RIDES, demand], description=AWKWARD, tags=LABELLED, owner="ann@example.com"
        ),
        FeatureService(
            name="some",
            features=[DRIVER_RIDES[["rides", "rating"]], EVERYTHING[["int64", "string_list"]].with_name("alias")],
            tags={"team": "market"},
            logging_config=LoggingConfig(destination=FileLoggingDestination(path="log dir/"), sample_rate=0.5),
        ),
        FeatureService(name="Streamed", features=[stream, labels]),
        FeatureService(name="derived_too", features=[DERIVED, NO_ENTITY], tags={"team": "rides"}),
    ]


def _permissions() -> list[Permission]:
    return [
        Permission(
            name="by_role",
            types=[FeatureView, Entity],
            name_patterns=["driver.*", "cust\\w+"],
            actions=[AuthzedAction.READ_ONLINE, AuthzedAction.DESCRIBE],
            policy=RoleBasedPolicy(roles=["reader", "admin"]),
            tags={"team": "rides"},
            required_tags={"team": "rides"},
        ),
        Permission(name="by_group", types=[FeatureService], policy=GroupBasedPolicy(groups=["analysts"])),
        Permission(
            name="By_namespace",
            policy=NamespaceBasedPolicy(namespaces=["prod"]),
            actions=[AuthzedAction.CREATE],
            tags={"a": "1"},
        ),
        Permission(
            name="combined",
            types=[Project],
            actions=ALL_ACTIONS,
            policy=CombinedGroupNamespacePolicy(groups=["g"], namespaces=["n", "m"]),
        ),
    ]


def _datasets() -> list[SavedDataset]:
    return [
        SavedDataset(
            name="training",
            features=["driver_rides:rides", "driver_rides:rating", "everything:int64", "demand:rides_plus_bonus"],
            join_keys=["driver_id"],
            storage=SavedDatasetFileStorage(path="training.parquet"),
            tags=LABELLED,
            feature_service_name="whole",
            namespace="science",
            collection="2024",
            description=AWKWARD,
        ),
        SavedDataset(
            name="Validation",
            features=["stream_rides:rides", "gone:x", "no colon"],
            join_keys=["driver_id", "customer_id"],
            storage=SavedDatasetBigQueryStorage(table="a.b.c"),
            full_feature_names=True,
            namespace="science",
            tags={"team": "market"},
        ),
        SavedDataset(
            name="bare",
            features=[],
            join_keys=[],
            storage=SavedDatasetFileStorage(path="bare.parquet"),
            collection="2024",
        ),
    ]


def _fill_rides(registry: Any) -> None:
    for entity in (DUMMY_ENTITY, DRIVER, CUSTOMER, ZONE, LONELY):
        registry.apply_entity(entity, RIDES)
    for source in SOURCES:
        registry.apply_data_source(source, RIDES)
    stream, labels = _stream_view(), _label_view(description=AWKWARD, tags={"team": "trust"})
    demand = _demand_view(description=AWKWARD, tags={"team": "rides"}, owner="bob")
    for view in (DRIVER_RIDES, EVERYTHING, PUSHED_RIDES, NO_ENTITY, DERIVED, stream, demand, labels):
        registry.apply_feature_view(view, RIDES)
    registry.apply_feature_view(_label_view("Abuse"), RIDES)
    registry.apply_feature_view(kinds.batch_feature_view("batched", tags={"tier": "gold"}), RIDES)
    for service in _services(demand, stream, labels):
        registry.apply_feature_service(service, RIDES)
    for permission in _permissions():
        registry.apply_permission(permission, RIDES)
    for dataset in _datasets():
        registry.apply_saved_dataset(dataset, RIDES)
    for view, start, hours in ((DRIVER_RIDES, 0, 24), (EVERYTHING, 5, 1), (DRIVER_RIDES, 24, 1), (stream, 0, 1)):
        begins = harness.DATA_START + timedelta(hours=start)
        registry.apply_materialization(view, RIDES, begins, begins + timedelta(hours=hours, milliseconds=1))


def _fill_market(registry: Any) -> None:
    """A second project: the same names mean other things here."""
    registry.apply_entity(
        Entity(name="driver", join_keys=["d"], value_type=ValueType.STRING, description="Another one"), MARKET
    )
    registry.apply_entity(Entity(name="buyer", join_keys=["buyer_id"], tags={"team": "market"}), MARKET)
    registry.apply_data_source(PURCHASES, MARKET)
    buyer = Entity(name="buyer", join_keys=["buyer_id"])
    fields = [
        Field(name="buyer_id", dtype=String),
        Field(name="spend", dtype=Float64),
        Field(name="rides", dtype=Int32),
    ]
    view = FeatureView(name="driver_rides", entities=[buyer], schema=fields, source=PURCHASES, tags={"tier": "gold"})
    registry.apply_feature_view(view, MARKET)
    registry.apply_feature_view(_label_view("returns", tags={"team": "market"}), MARKET)
    registry.apply_feature_service(FeatureService(name="whole", features=[view]), MARKET)
    storage = SavedDatasetFileStorage(path="m.parquet")
    dataset = SavedDataset(name="training", features=["driver_rides:spend"], join_keys=["buyer_id"], storage=storage)
    registry.apply_saved_dataset(dataset, MARKET)
    registry.apply_permission(Permission(name="by_role", policy=RoleBasedPolicy(roles=["seller"])), MARKET)


def fill(db: Path) -> None:
    """Writes the whole repository into a new SQLite registry."""
    registry = harness.sql_registry(db, RIDES)
    registry.apply_project(Project(name=RIDES, description=AWKWARD, tags=LABELLED, owner="ann@example.com"))
    registry.apply_project(Project(name=MARKET))
    registry.apply_project(Project(name=LOCKED, tags={"feast.dev/protected-project": "true"}, description="Not listed"))
    registry.apply_project(Project(name=EMPTY, description="Nothing in it"))
    _fill_rides(registry)
    _fill_market(registry)
    registry.apply_entity(Entity(name="secret", join_keys=["secret_id"]), LOCKED)
    described = Field(name="bonus", dtype=Float64, description="On top", tags={"unit": "euro"})
    registry.apply_feature_view(_demand_view("described", schema=[described]), LOCKED)
    registry.apply_validation_reference(kinds.validation_reference("reference"), RIDES)
    registry.commit()


def fill_for_writes(db: Path, projects: Iterable[str]) -> None:
    """Small projects for the tests of writes: what they refer to is there, the rest they make."""
    for project in projects:
        _fill_for_writes(harness.sql_registry(db, project), project)


def _fill_for_writes(registry: Any, project: str) -> None:
    registry.apply_project(Project(name=project))
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    registry.apply_entity(driver, project)
    trips = FileSource(
        name="trips", path="trips.parquet", timestamp_field="event_timestamp", created_timestamp_column="created"
    )
    pushed = PushSource(name="pushed", batch_source=trips)
    topic = KafkaSource(
        name="topic",
        kafka_bootstrap_servers="k:9092",
        topic="t",
        timestamp_field="ts",
        batch_source=trips,
        message_format=JsonFormat(schema_json="a integer"),
    )
    bonus = RequestSource(name="bonus", schema=[Field(name="bonus", dtype=Float64)])
    for source in (trips, pushed, topic, bonus):
        registry.apply_data_source(source, project)
    fields = [
        Field(name="driver_id", dtype=Int64),
        Field(name="rides", dtype=Int64),
        Field(name="rating", dtype=Float32),
    ]
    view = FeatureView(name="rides_view", entities=[driver], schema=fields, source=trips, ttl=timedelta(days=1))
    demanded = OnDemandFeatureView(
        name="demanded",
        schema=[Field(name="rides_plus_bonus", dtype=Float64)],
        sources=[view, bonus],
        udf=kinds.rides_plus_bonus,
        udf_string="rides_plus_bonus",
        mode="pandas",
    )
    for one in (view, demanded, _label_view("labelled")):
        registry.apply_feature_view(one, project)
    registry.apply_feature_service(FeatureService(name="rides_service", features=[view, demanded]), project)
    registry.commit()
