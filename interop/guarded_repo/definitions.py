"""A small feature repository of a team that lets others see some of it: its permissions say who sees what.

test_authentication.py copies this folder, writes feature_store.yaml, and puts small parquet files in data/.
"""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.permissions.action import AuthzedAction
from feast.permissions.permission import Permission
from feast.permissions.policy import GroupBasedPolicy, NamespaceBasedPolicy, RoleBasedPolicy
from feast.project import Project
from feast.types import Float32, Int64, String
from feast.value_type import ValueType

TAGS = {"team": "rides"}

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64, tags=TAGS)
customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)

driver_source = FileSource(name="driver_source", path="data/driver_stats.parquet", timestamp_field="event_timestamp")
customer_source = FileSource(name="customer_source", path="data/customers.parquet", timestamp_field="event_timestamp")

driver_stats = FeatureView(
    name="driver_stats",
    entities=[driver],
    ttl=timedelta(days=365 * 20),
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="acceptance", dtype=Float32),
        Field(name="trips", dtype=Int64),
    ],
    source=driver_source,
)
customer_profile = FeatureView(
    name="customer_profile",
    entities=[customer],
    ttl=timedelta(0),
    schema=[Field(name="customer_id", dtype=String), Field(name="segment", dtype=String)],
    source=customer_source,
)

driver_service = FeatureService(name="driver_service", features=[driver_stats])
customer_service = FeatureService(name="customer_service", features=[customer_profile])

# Who has the role sees the project and what is about drivers.
read_project = Permission(
    name="read_project", types=[Project], actions=[AuthzedAction.DESCRIBE], policy=RoleBasedPolicy(roles=["reader"])
)
read_drivers = Permission(
    name="read_drivers",
    types=[Entity, FeatureView, FeatureService],
    name_patterns=["driver.*"],
    actions=[AuthzedAction.DESCRIBE, AuthzedAction.READ_ONLINE],
    policy=RoleBasedPolicy(roles=["reader"]),
)
# Who is in the group sees the views, all of them.
audit_views = Permission(
    name="audit_views",
    types=[FeatureView],
    actions=[AuthzedAction.DESCRIBE],
    policy=GroupBasedPolicy(groups=["auditors"]),
)
# Whose service account is in the namespace sees what is about customers.
share_customers = Permission(
    name="share_customers",
    types=[FeatureView, FeatureService],
    name_patterns=["customer_.*"],
    actions=[AuthzedAction.DESCRIBE],
    policy=NamespaceBasedPolicy(namespaces=["team-growth"]),
)
