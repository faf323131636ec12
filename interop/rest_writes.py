"""The writes that are sent to Feast's REST server and to ours: per kind a sequence of requests, each with what is read back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rest_repo import AWKWARD, LABELLED

W = "written"
"""The project that is written to; it exists and has the entity `driver` and the data source `trips`."""


@dataclass(frozen=True)
class Step:
    """One request."""

    method: str
    path: str
    body: Any = None
    raw: str | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.raw if self.raw is not None else self.body or ''}"[:160]


def post(kind: str, **body: Any) -> Step:
    return Step("POST", f"/{kind}", body)


def get(kind: str, name: str = "", project: str = W) -> Step:
    return Step("GET", f"/{kind}/{name}?project={project}" if name else f"/{kind}?project={project}")


def delete(kind: str, name: str, project: str = W) -> Step:
    return Step("DELETE", f"/{kind}/{name}?project={project}")


FULL: dict[str, Any] = {"description": AWKWARD, "tags": LABELLED, "owner": "ann@example.com"}
BLANK: dict[str, Any] = {"description": None, "tags": None, "owner": None}


def entities() -> list[Step]:
    def made(name: str, **more: Any) -> list[Step]:
        return [post("entities", name=name, project=W, **more), get("entities", name)]

    return [
        *made("plain"),
        *made("full", join_key="full_id", value_type=4, **FULL),
        *made("blank", join_key=None, value_type=None, **BLANK),
        *made("no_key", join_key="", value_type=0),
        *made("plain", description="again", value_type=2),
        *made("plain"),
        *made("big_type", value_type=99),
        *made("negative", value_type=-1),
        *made("beyond", value_type=2**40),
        *made("number_text", value_type="4"),
        *made("number_float", value_type=4.0),
        *made("number_half", value_type=4.5),
        *made("enum_name", value_type="STRING"),
        *made("true_type", value_type=True),
        *made("bad_tags", tags={"a": 1}),
        *made("list_tags", tags=["a"]),
        *made("null_tag", tags={"a": None}),
        *made("extra", nonsense=1, spec={"x": 1}),
        *made("naïve 日本"),
        *made("with space"),
        *made("dash-ed"),
        *made(""),
        *made("number_description", description=5),
        post("entities", project=W),
        post("entities", name="lost"),
        post("entities", name=5, project=W),
        post("entities", name=None, project=W),
        post("entities", name="nowhere", project=""),
        post("entities", name="new_project", project="made_by_post"),
        get("entities", "new_project", "made_by_post"),
        Step("GET", "/projects/made_by_post"),
        post("entities"),
        Step("POST", "/entities", [1]),
        Step("POST", "/entities", raw="null"),
        Step("POST", "/entities", raw='"text"'),
        Step("POST", "/entities", raw="{"),
        Step("POST", "/entities", raw=""),
        Step("POST", "/entities"),
        Step("POST", "/entities", raw='{"name": "twice", "name": "second", "project": "written"}'),
        get("entities", "second"),
        Step("POST", "/entities", raw='{"name": "nan", "project": "written", "value_type": NaN}'),
        Step("POST", f"/entities?project={W}", {"name": "by_query"}),
        Step("POST", "/entities/", {"name": "slash", "project": W}),
        Step("POST", "/entities/plain", {"name": "slash", "project": W}),
        Step("PUT", "/entities", {"name": "put", "project": W}),
        Step("PATCH", "/entities/plain", {"description": "x"}),
        get("entities"),
        delete("entities", "plain"),
        delete("entities", "plain"),
        delete("entities", "full", "nowhere"),
        delete("entities", "full", ""),
        Step("DELETE", "/entities/full"),
        Step("DELETE", f"/entities?project={W}"),
        Step("DELETE", f"/entities/all?project={W}"),
        Step("DELETE", f"/entities/full/?project={W}"),
        delete("entities", "na%C3%AFve%20%E6%97%A5%E6%9C%AC"),
        get("entities"),
    ]


def data_sources() -> list[Step]:
    options: dict[str, tuple[int, dict[str, Any]]] = {
        "file": (1, {"file_options": {"uri": "a dir/é.parquet", "s3_endpoint_override": "http://s3", "file_format": "delta"}}),
        "bigquery": (2, {"bigquery_options": {"table": "a.b.c", "query": "SELECT 1"}}),
        "snowflake": (8, {"snowflake_options": {"table": "t", "database": "d", "schema_": "s", "query": "q", "warehouse": "w"}}),
        "redshift": (5, {"redshift_options": {"table": "t", "database": "d", "schema_": "s", "query": "q"}}),
        "kafka": (3, {"kafka_options": {"kafka_bootstrap_servers": "k:9092", "topic": "t", "message_format": "avro"}}),
        "kinesis": (4, {"kinesis_options": {"region": "r", "stream_name": "s", "record_format": "json"}}),
        "spark": (11, {"spark_options": {"table": "t", "path": "p", "query": "q", "file_format": "parquet",
                                         "date_partition_column_format": "%Y"}}),
        "trino": (10, {"trino_options": {"table": "t", "query": "q"}}),
        "athena": (12, {"athena_options": {"table": "t", "query": "q", "database": "d", "data_source": "c"}}),
        "custom": (6, {"custom_options": {"configuration": '{"a": "日本"}', "class_name": "x.Y", "config": "z"}}),
    }  # fmt: skip
    one_only = {
        "spark_path": (11, {"spark_options": {"path": "p", "file_format": "parquet"}}),
        "spark_table": (11, {"spark_options": {"table": "t"}}),
        "file_bare": (1, {"file_options": {}}),
        "bigquery_table": (2, {"bigquery_options": {"table": "a.b.c"}}),
        "snowflake_table": (8, {"snowflake_options": {"table": "t"}}),
        "snowflake_schema": (8, {"snowflake_options": {"table": "t", "schema": "by alias"}}),
        "redshift_table": (5, {"redshift_options": {"table": "t", "database": "d"}}),
        "athena_table": (12, {"athena_options": {"table": "t", "database": "d", "data_source": "c"}}),
        "custom_class": (6, {
            "custom_options": {"configuration": '{"table_ref": "T"}'},
            "data_source_class_type": "feast.infra.offline_stores.contrib.oracle_offline_store.oracle_source.OracleSource",
        }),
        "custom_unknown": (6, {"custom_options": {"configuration": "{}"}, "data_source_class_type": "no.such.Class"}),
        "custom_empty": (6, {"custom_options": {}}),
        "file_class": (1, {
            "file_options": {"uri": "x"},
            "data_source_class_type": "feast.infra.offline_stores.file_source.FileSource",
        }),
        "push": (9, {}),
        "request": (7, {}),
        "invalid": (0, {}),
        "beyond": (99, {"file_options": {"uri": "x"}}),
        "negative": (-1, {"file_options": {"uri": "x"}}),
        "mismatch": (2, {"file_options": {"uri": "x"}}),
        "kafka_batchless": (3, {"file_options": {"uri": "x"}}),
        "two": (1, {"file_options": {"uri": "first"}, "bigquery_options": {"table": "second"}}),
        "two_reversed": (2, {"bigquery_options": {"table": "second"}, "snowflake_options": {"table": "third"}}),
        "null_options": (1, {"file_options": None, "bigquery_options": None}),
        "null_uri": (1, {"file_options": {"uri": None}}),
        "text_options": (1, {"file_options": "x"}),
        "empty_columns": (1, {"file_options": {"uri": "x"}, "timestamp_field": None, "created_timestamp_column": None}),
        "partitioned": (1, {"file_options": {"uri": "x"}, "date_partition_column": "day", "created_timestamp_column": "c"}),
        "spark_partitioned": (11, {"spark_options": {"table": "t"}, "date_partition_column": "day"}),
    }  # fmt: skip
    steps = []
    for name, (number, more) in options.items():
        steps += [post("data_sources", name=name, project=W, type=number, timestamp_field="ts", **more), get("data_sources", name)]
    for name, (number, more) in one_only.items():
        steps += [post("data_sources", name=name, project=W, type=number, **more), get("data_sources", name)]
    for name in options:
        body = {"name": f"untyped_{name}", "project": W, **options[name][1]}
        steps += [post("data_sources", **body), get("data_sources", f"untyped_{name}")]
    return [
        *steps,
        post("data_sources", name="described", project=W, type=1, file_options={"uri": "x"}, **FULL),
        get("data_sources", "described"),
        post("data_sources", name="blank", project=W, type=1, file_options={"uri": "x"}, **BLANK),
        get("data_sources", "blank"),
        post("data_sources", name="described", project=W, type=1, file_options={"uri": "changed"}),
        get("data_sources", "described"),
        post("data_sources", name="bare", project=W),
        post("data_sources", project=W, type=1),
        post("data_sources", name="x", type=1),
        post("data_sources", name="x", project=W, type="BATCH_FILE"),
        post("data_sources", name="", project=W, type=1, file_options={"uri": "x"}),
        get("data_sources"),
        delete("data_sources", "described"),
        delete("data_sources", "described"),
        delete("data_sources", "blank", "nowhere"),
    ]


def feature_views() -> list[Step]:
    def made(name: str, **more: Any) -> list[Step]:
        return [post("feature_views", name=name, project=W, **more), get("feature_views", name)]

    usual: dict[str, Any] = {
        "entities": ["driver"],
        "features": [{"name": "rides", "value_type": 4, "description": AWKWARD}, {"name": "text"}],
        "batch_source": "trips",
    }
    types = [{"name": f"t{number}", "value_type": number} for number in range(0, 40)]
    return [
        *made("usual", **usual, ttl_seconds=90, **FULL),
        *made("blank", **usual, ttl_seconds=None, online=None, **BLANK),
        *made("offline", **usual, online=False, ttl_seconds=0),
        *made("negative_ttl", **usual, ttl_seconds=-5),
        *made("huge_ttl", **usual, ttl_seconds=10**13),
        *made("ttl_text", **usual, ttl_seconds="60"),
        *made("ttl_float", **usual, ttl_seconds=1.5),
        *made("online_text", **usual, online="no"),
        *made("online_number", **usual, online=2),
        *made("unknown_entity", **{**usual, "entities": ["nobody"]}),
        *made("dummy_entity", **{**usual, "entities": ["__dummy"]}),
        *made("two_entities", **{**usual, "entities": ["driver", "driver"]}),
        *made("no_entities", **{**usual, "entities": []}),
        *made("null_entities", **{**usual, "entities": None}),
        *made("unknown_source", **{**usual, "batch_source": "nobody"}),
        *made("no_source", **{**usual, "batch_source": ""}),
        *made("null_source", **{**usual, "batch_source": None}),
        *made("stream_source", **{**usual, "batch_source": "pushed"}),
        *made("kafka_source", **{**usual, "batch_source": "topic"}),
        *made("request_source", **{**usual, "batch_source": "bonus"}),
        *made("no_features", **{**usual, "features": []}),
        *made("null_features", **{**usual, "features": None}),
        *made("absent_features", entities=["driver"], batch_source="trips"),
        *made("every_type", **{**usual, "features": types}),
        *made("bad_type", **{**usual, "features": [{"name": "a", "value_type": 99}]}),
        *made("null_type", **{**usual, "features": [{"name": "a", "value_type": None}]}),
        *made("nameless_feature", **{**usual, "features": [{"value_type": 1}]}),
        *made("empty_feature", **{**usual, "features": [{"name": ""}]}),
        *made("same_features", **{**usual, "features": [{"name": "a"}, {"name": "a"}]}),
        *made("join_key_feature", **{**usual, "features": [{"name": "driver_id", "value_type": 4}, {"name": "a"}]}),
        *made("timestamp_feature", **{**usual, "features": [{"name": "event_timestamp", "value_type": 8}]}),
        *made("bad name", **usual),
        *made("dots.in", **usual),
        *made("colon:in", **usual),
        *made("at@v1", **usual),
        *made("", **usual),
        *made("usual", **{**usual, "features": [{"name": "rides", "value_type": 5}]}),
        *made("usual", **usual, ttl_seconds=90, **FULL),
        post("feature_views", **usual),
        post("feature_views", name="usual", **usual),
        post("feature_views", name="x", project=W, features=[1]),
        post("feature_views", name="x", project=W, entities=[1]),
        post("feature_views", name="x", project=W, entities="driver"),
        post("feature_views", name="x", project="nowhere", **usual),
        # A name that another kind of view has.
        *made("labelled", **usual),
        *made("demanded", **usual),
        get("feature_views"),
        get("features"),
        Step("GET", f"/lineage/registry?project={W}"),
        delete("feature_views", "usual"),
        delete("feature_views", "usual"),
        delete("feature_views", "demanded"),
        delete("feature_views", "labelled"),
        delete("feature_views", "offline", "nowhere"),
        get("feature_views"),
        get("label_views"),
    ]


def feature_services() -> list[Step]:
    def made(name: str, features: Any, **more: Any) -> list[Step]:
        return [post("feature_services", name=name, project=W, features=features, **more), get("feature_services", name)]

    def ref(view: Any, names: Any = None) -> dict[str, Any]:
        return {"feature_view_name": view} if names is None else {"feature_view_name": view, "feature_names": names}

    return [
        *made("whole", [ref("rides_view")], **FULL),
        *made("some", [ref("rides_view", ["rating"])], **BLANK),
        *made("empty_names", [ref("rides_view", [])]),
        *made("null_names", [{"feature_view_name": "rides_view", "feature_names": None}]),
        *made("two", [ref("rides_view", ["rating"]), ref("demanded")]),
        *made("same_view", [ref("rides_view", ["rating"]), ref("rides_view", ["rides"])]),
        *made("labels", [ref("labelled")]),
        *made("labels_some", [ref("labelled", ["is_fraud"])]),
        *made("unknown_view", [ref("nobody")]),
        *made("unknown_feature", [ref("rides_view", ["nobody"])]),
        *made("unknown_both", [ref("nobody", ["nothing"])]),
        *made("join_key", [ref("rides_view", ["driver_id"])]),
        *made("with_version", [ref("rides_view@v1")]),
        *made("with_latest", [ref("rides_view@latest")]),
        *made("with_feature", [ref("rides_view:rating")]),
        *made("order", [ref("rides_view", ["rides", "rating"])]),
        *made("repeated", [ref("rides_view", ["rating", "rating"])]),
        *made("none", []),
        *made("null", None),
        *made("numbers", [1]),
        *made("texts", ["rides_view"]),
        *made("nameless_view", [ref("")]),
        *made("number_view", [ref(1)]),
        *made("null_view", [ref(None)]),
        *made("", [ref("rides_view")]),
        *made("odd name", [ref("rides_view")]),
        *made("whole", [ref("rides_view", ["rides"])]),
        post("feature_services", name="x", project=W),
        post("feature_services", name="x", features=[ref("rides_view")]),
        post("feature_services", project=W, features=[ref("rides_view")]),
        post("feature_services", name="x", project="nowhere", features=[ref("rides_view")]),
        get("feature_services"),
        delete("feature_services", "whole"),
        delete("feature_services", "whole"),
        delete("feature_services", "some", "nowhere"),
        get("feature_services"),
    ]


TYPES = [
    "FEATURE_VIEW", "ON_DEMAND_FEATURE_VIEW", "BATCH_FEATURE_VIEW", "STREAM_FEATURE_VIEW", "ENTITY", "FEATURE_SERVICE",
    "DATA_SOURCE", "VALIDATION_REFERENCE", "SAVED_DATASET", "PERMISSION", "PROJECT", "LABEL_VIEW",
]  # fmt: skip
ACTIONS = ["CREATE", "DESCRIBE", "UPDATE", "DELETE", "READ_ONLINE", "READ_OFFLINE", "WRITE_ONLINE", "WRITE_OFFLINE"]


def permissions() -> list[Step]:
    roles = {"role_based_policy": {"roles": ["admin"]}}

    def made(name: str, **more: Any) -> list[Step]:
        body = {"types": ["ENTITY"], "actions": ["DESCRIBE"], "policy": roles, **more}
        return [post("permissions", name=name, project=W, **body), get("permissions", name)]

    return [
        *made("plain"),
        *made("full", types=TYPES, actions=ACTIONS, name_patterns=["a.*", 'q"\\d'], tags=LABELLED, required_tags={"t": "1"}),
        *made("by_group", policy={"group_based_policy": {"groups": ["g", "h"]}}),
        *made("by_namespace", policy={"namespace_based_policy": {"namespaces": ["n"]}}),
        *made("combined", policy={"combined_group_namespace_policy": {"groups": ["g"], "namespaces": ["n"]}}),
        *made("no_groups", policy={"group_based_policy": {"groups": []}}),
        *made("no_roles", policy={"role_based_policy": {"roles": []}}),
        *made("first_wins", policy={"group_based_policy": {"groups": ["g"]}, "role_based_policy": {"roles": ["r"]}}),
        *made("empty_policy", policy={}),
        *made("null_policy", policy=None),
        *made("unknown_policy", policy={"magic": {}}),
        *made("roleless", policy={"role_based_policy": {}}),
        *made("half_combined", policy={"combined_group_namespace_policy": {"groups": ["g"]}}),
        *made("no_types", types=[]),
        *made("no_actions", actions=[]),
        *made("absent_types", types=["ENTITY"]),
        *made("unknown_type", types=["ENTITY", "WIZARD", "entity"]),
        *made("unknown_action", actions=["FLY", "describe"]),
        *made("both_unknown", types=["WIZARD"], actions=["FLY"]),
        *made("numbers", types=[1]),
        *made("null_types", types=None),
        *made("repeated", types=["ENTITY", "ENTITY"], actions=["DESCRIBE", "DESCRIBE"]),
        *made("bad_pattern", name_patterns=["("]),
        *made("null_patterns", name_patterns=None),
        *made("null_tags", tags=None, required_tags=None),
        *made("odd name", tags={"a": 1}),
        *made(""),
        *made("plain", actions=["UPDATE"], types=["PROJECT"]),
        post("permissions", name="minimal", project=W, policy=roles),
        get("permissions", "minimal"),
        post("permissions", name="x", project=W),
        post("permissions", name="x", policy=roles),
        post("permissions", project=W, policy=roles),
        post("permissions", name="x", project="nowhere", policy=roles, actions=["CREATE"], types=["ENTITY"]),
        get("permissions"),
        delete("permissions", "plain"),
        delete("permissions", "plain"),
        delete("permissions", "full", "nowhere"),
        get("permissions"),
    ]


STORAGES = ["file", "bigquery", "redshift", "snowflake", "trino", "spark", "athena", "postgres", "clickhouse", "couchbase", "custom", "", "FILE", "x"]


def saved_datasets() -> list[Step]:
    def made(name: str, **more: Any) -> list[Step]:
        body = {"features": ["rides_view:rating"], "join_keys": ["driver_id"], "storage_path": "a/b.parquet", **more}
        return [post("saved_datasets", name=name, project=W, **body), get("saved_datasets", name)]

    stored = [step for kind in STORAGES for step in made(f"stored_{kind}", storage_type=kind, storage_path=" db.scope.coll.x ")]
    return [
        *made("plain"),
        *made(
            "full", tags=LABELLED, full_feature_names=True, namespace="ns", collection="c", description=AWKWARD,
            feature_service_name="rides_service",
        ),
        *stored,
        *made("couch_short", storage_type="couchbase", storage_path="db"),
        *made("spark_format", storage_type="spark", storage_file_format="delta"),
        *made("spark_no_format", storage_type="spark", storage_file_format=None),
        *made("file_format", storage_file_format="delta"),
        *made("by_service", features=[], join_keys=[], feature_service_name="rides_service"),
        *made("by_service_features", features=["x:y"], join_keys=[], feature_service_name="rides_service"),
        *made("by_service_keys", features=[], feature_service_name=" rides_service "),
        *made("by_unknown_service", features=[], join_keys=[], feature_service_name="nobody"),
        *made("no_features", features=[], join_keys=[]),
        *made("plain"),
        *made("plain", allow_override=True, description="replaced"),
        *made("plain", allow_override=True, storage_path="other.parquet"),
        *made(" padded "),
        *made("  "),
        *made(""),
        *made("no_path", storage_path=""),
        *made("blank_path", storage_path="  "),
        *made("null_path", storage_path=None),
        *made("null_format", storage_file_format=None),
        *made("null_features", features=None),
        *made("null_tags", tags=None),
        *made("null_namespace", namespace=None),
        *made("number_feature", features=[1]),
        *made("odd", features=["", "a", "a:b:c", "rides_view:"]),
        *made("odd name"),
        post("saved_datasets", name="x", project="", storage_path="p"),
        post("saved_datasets", name="x", project=" ", storage_path="p"),
        post("saved_datasets", name="x", storage_path="p"),
        post("saved_datasets", project=W, storage_path="p"),
        post("saved_datasets", name="x", project="nowhere", storage_path="p"),
        get("saved_datasets", "x", "nowhere"),
        get("saved_datasets"),
        delete("saved_datasets", "plain"),
        delete("saved_datasets", "plain"),
        delete("saved_datasets", "full", "nowhere"),
        Step("DELETE", f"/saved_datasets/jobs?project={W}"),
        get("saved_datasets"),
    ]


def refresh() -> list[Step]:
    return [
        Step("POST", "/registry/refresh"),
        Step("POST", "/registry/refresh", {"project": W}),
        Step("GET", "/registry/refresh"),
        Step("POST", "/projects", {"name": "x"}),
        Step("DELETE", f"/projects/{W}"),
        Step("POST", "/label_views", {"name": "x", "project": W}),
        Step("DELETE", f"/label_views/labelled?project={W}"),
        Step("POST", "/search?query=x"),
        Step("POST", "/lineage", {}),
        Step("POST", "/features", {"name": "x"}),
    ]


SEQUENCES = {
    "entities": entities, "data_sources": data_sources, "feature_views": feature_views,
    "feature_services": feature_services, "permissions": permissions, "saved_datasets": saved_datasets, "refresh": refresh,
}  # fmt: skip
