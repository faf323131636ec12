"""A feature repository of a ride-hailing company, with every kind of object that `feast apply` can declare.

The tests copy this folder, write feature_store.yaml from the template, and put small parquet files in data/.
"""

from datetime import timedelta

import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource, KafkaSource, PushSource, RequestSource
from feast.aggregation import Aggregation
from feast.batch_feature_view import batch_feature_view
from feast.data_format import JsonFormat
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination
from feast.labeling.label_view import LabelView
from feast.on_demand_feature_view import on_demand_feature_view
from feast.permissions.action import AuthzedAction
from feast.permissions.permission import Permission
from feast.permissions.policy import RoleBasedPolicy
from feast.stream_feature_view import stream_feature_view
from feast.types import Array, Float32, Float64, Int64, String, UnixTimestamp
from feast.value_type import ValueType

TEAM = {"team": "rides", "tier": "1"}

# --- entities: an integer and a string join key, one of another name than its entity ---------------

driver = Entity(
    name="driver",
    join_keys=["driver_id"],
    value_type=ValueType.INT64,
    description="A driver, by the number that the fleet system gave them",
    tags=TEAM,
    owner="fleet@example.com",
)
customer = Entity(
    name="customer",
    join_keys=["customer_id"],
    value_type=ValueType.STRING,
    description="A customer, by the identifier of the billing system",
    tags={"team": "growth"},
    owner="growth@example.com",
)

# --- sources ---------------------------------------------------------------------------------------

driver_stats_source = FileSource(
    name="driver_stats_source",
    path="data/driver_stats.parquet",
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
    description="Hourly statistics of drivers",
    tags=TEAM,
    owner="fleet@example.com",
)
customer_source = FileSource(
    name="customer_source",
    path="data/customers.parquet",
    timestamp_field="event_timestamp",
)
fraud_source = FileSource(
    name="fraud_source",
    path="data/fraud_labels.parquet",
    timestamp_field="event_timestamp",
)
driver_push_source = PushSource(name="driver_push_source", batch_source=driver_stats_source)
fraud_push_source = PushSource(name="fraud_push_source", batch_source=fraud_source)
rides_topic = KafkaSource(
    name="rides_topic",
    kafka_bootstrap_servers="localhost:9092",
    topic="rides",
    timestamp_field="event_timestamp",
    batch_source=driver_stats_source,
    message_format=JsonFormat(schema_json="driver_id integer, event_timestamp timestamp, trips integer"),
    watermark_delay_threshold=timedelta(minutes=5),
)
request = RequestSource(
    name="trip_request",
    schema=[Field(name="distance_km", dtype=Float64), Field(name="surge", dtype=Float64)],
)

# --- feature views ---------------------------------------------------------------------------------

driver_stats = FeatureView(
    name="driver_stats",
    entities=[driver],
    ttl=timedelta(days=365 * 20),
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="acceptance", dtype=Float32, description="Share of offers accepted", tags={"unit": "ratio"}),
        Field(name="trips", dtype=Int64, description="Trips in the last hour"),
        # INTEROP-NEW-FIELD
    ],
    source=driver_stats_source,
    tags=TEAM,
    description="What the fleet system knows of a driver",
    owner="fleet@example.com",
)
driver_fresh = FeatureView(
    name="driver_fresh",
    entities=[driver],
    ttl=timedelta(days=365 * 20),
    schema=[Field(name="driver_id", dtype=Int64), Field(name="trips", dtype=Int64)],
    source=driver_push_source,
    tags={"freshness": "push"},
)
customer_profile = FeatureView(
    name="customer_profile",
    entities=[customer],
    ttl=timedelta(0),
    schema=[
        Field(name="customer_id", dtype=String),
        Field(name="segment", dtype=String),
        Field(name="spend", dtype=Float64),
        Field(name="visited", dtype=Array(Int64)),
    ],
    source=customer_source,
    tags={"team": "growth"},
    owner="growth@example.com",
)


@batch_feature_view(
    name="driver_stats_batch",
    mode="pandas",
    entities=[driver],
    ttl=timedelta(days=365 * 20),
    schema=[Field(name="driver_id", dtype=Int64), Field(name="trips", dtype=Int64)],
    source=driver_stats_source,
    online=True,
    offline=False,
    tags={"kind": "batch"},
    description="Trips, doubled by a function of ours",
)
def driver_stats_batch(frame):
    frame["trips"] = frame["trips"] * 2
    return frame


@stream_feature_view(
    entities=[driver],
    ttl=timedelta(hours=2),
    mode="python",
    schema=[Field(name="driver_id", dtype=Int64), Field(name="sum_trips_3600s", dtype=Int64)],
    timestamp_field="event_timestamp",
    online=True,
    source=rides_topic,
    aggregations=[
        Aggregation(column="trips", function="sum", time_window=timedelta(hours=1)),
        Aggregation(column="trips", function="max", time_window=timedelta(minutes=30)),
    ],
    tags={"kind": "stream"},
    description="Rides of the last hour, from the topic",
)
def driver_rides_stream(frame):
    return frame


@on_demand_feature_view(
    sources=[driver_stats, request],
    schema=[Field(name="price", dtype=Float64), Field(name="accepted_price", dtype=Float64)],
    mode="pandas",
    description="What a trip costs, on request",
    tags={"kind": "on-demand"},
    owner="pricing@example.com",
)
def trip_price(inputs: pd.DataFrame) -> pd.DataFrame:
    out = pd.DataFrame()
    out["price"] = inputs["distance_km"] * inputs["surge"]
    out["accepted_price"] = out["price"] * inputs["acceptance"]
    return out


@on_demand_feature_view(
    sources=[customer_profile],
    schema=[Field(name="spend_rounded", dtype=Int64)],
    mode="python",
)
def customer_spend(inputs):
    return {"spend_rounded": [int(value or 0) for value in inputs["spend"]]}


fraud_label = LabelView(
    name="fraud_label",
    entities=[driver],
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="is_fraud", dtype=Int64),
        Field(name="reviewed_at", dtype=UnixTimestamp),
        Field(name="labeler", dtype=String),
    ],
    source=fraud_push_source,
    ttl=timedelta(days=365),
    reference_feature_view="driver_stats",
    tags={"team": "risk"},
    owner="risk@example.com",
    description="Which drivers were found to cheat",
)

# --- feature services: all of a view, a part of one, an alias with another join key, a logged one ------

pricing_service = FeatureService(
    name="pricing",
    features=[driver_stats[["acceptance"]], trip_price, customer_profile],
    tags={"release": "stable"},
    owner="pricing@example.com",
    description="What the pricing model reads",
    logging_config=LoggingConfig(destination=FileLoggingDestination(path="data/pricing_log"), sample_rate=0.5),
)
handover_service = FeatureService(
    name="handover",
    features=[
        driver_stats.with_name("from_driver").with_join_key_map({"driver_id": "from_id"}),
        driver_stats.with_name("to_driver").with_join_key_map({"driver_id": "to_id"}),
    ],
)

# --- permissions -------------------------------------------------------------------------------------

read_rides = Permission(
    name="read_rides",
    types=[FeatureView, FeatureService],
    name_patterns=["driver_.*"],
    actions=[AuthzedAction.DESCRIBE, AuthzedAction.READ_ONLINE],
    policy=RoleBasedPolicy(roles=["rides-reader"]),
    tags={"reviewed": "yes"},
)
