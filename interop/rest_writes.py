"""The writes that are sent to Feast's REST server and to ours: per kind a sequence of requests, with what is read back.

Each kind has a project of its own, so that a kind whose answers differ does not disturb the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from feast.protos.feast.types.Value_pb2 import ValueType

from rest_repo import AWKWARD, LABELLED


@dataclass(frozen=True)
class Step:
    """One request; where the servers differ on purpose, by which name, and which status ours must have.

    A step that tidies up after such a difference is not compared.
    """

    method: str
    path: str
    body: Any = None
    raw: str | None = None
    differs: str = ""
    ours: int = 0
    tidies: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.raw if self.raw is not None else self.body or ''}"[:160]

    def otherwise(self, difference: str, ours: int) -> Step:
        return replace(self, differs=difference, ours=ours)


@dataclass(frozen=True)
class Writer:
    """Requests of one kind that write to a project; it has the objects of `rest_repo.fill_for_writes`."""

    kind: str
    project: str

    def post(self, *absent: str, **body: Any) -> Step:
        """Writes an object, by default one of the project; the body lacks the fields that are `absent`."""
        body = {"name": "x", "project": self.project, **body}
        return Step("POST", f"/{self.kind}", {name: value for name, value in body.items() if name not in absent})

    def make(self, name: str, **body: Any) -> list[Step]:
        """Writes an object, reads it back."""
        return [self.post(name=name, **body), self.get(name)]

    def differing(self, difference: str, ours: int, name: str, **body: Any) -> list[Step]:
        """Writes what one of the servers refuses, and deletes it where it was not refused."""
        return [self.post(name=name, **body).otherwise(difference, ours), replace(self.delete(name), tidies=True)]

    def get(self, name: str = "", project: str | None = None, kind: str | None = None) -> Step:
        where = f"/{kind or self.kind}/{quote(name, safe='')}" if name else f"/{kind or self.kind}"
        return Step("GET", f"{where}?project={self.project if project is None else project}")

    def delete(self, name: str, project: str | None = None) -> Step:
        return Step("DELETE", f"/{self.kind}/{quote(name)}?project={self.project if project is None else project}")


# No feature can be NULL, and to those with an unknown inner type Feast adds tags of its own.
VALUE_TYPES = sorted(
    set(ValueType.Enum.values())
    - {ValueType.NULL, ValueType.STRUCT, ValueType.STRUCT_LIST, ValueType.VALUE_LIST, ValueType.VALUE_SET}
)
FULL: dict[str, Any] = {"description": AWKWARD, "tags": LABELLED, "owner": "ann@example.com"}
BLANK: dict[str, Any] = {"description": None, "tags": None, "owner": None}


def entities(at: Writer) -> list[Step]:
    return [
        *at.make("plain"),
        *at.make("full", join_key="full_id", value_type=4, **FULL),
        *at.make("blank", join_key=None, value_type=None, **BLANK),
        *at.make("no_key", join_key="", value_type=0),
        *at.make("plain", description="again", value_type=2),
        *at.make("plain"),
        *at.make("big_type", value_type=99),
        *at.make("negative", value_type=-1),
        *at.make("beyond", value_type=2**40),
        *at.make("number_text", value_type="4"),
        *at.make("number_float", value_type=4.0),
        *at.make("number_half", value_type=4.5),
        *at.make("enum_name", value_type="STRING"),
        *at.make("true_type", value_type=True),
        *at.make("bad_tags", tags={"a": 1}),
        *at.make("list_tags", tags=["a"]),
        *at.make("null_tag", tags={"a": None}),
        *at.make("extra", nonsense=1, spec={"x": 1}),
        *at.make("naïve 日本"),
        *at.make("with space"),
        *at.make("dash-ed"),
        at.post(name="").otherwise("errors-have-codes", 422),
        *at.make("number_description", description=5),
        at.post("name"),
        at.post("project"),
        at.post("name", "project"),
        at.post(name=5),
        at.post(name=None),
        at.post(name="nowhere", project="").otherwise("errors-have-codes", 422),
        at.post(name="new_project", project=f"{at.project}_new"),
        at.get("new_project", f"{at.project}_new"),
        Step("GET", f"/projects/{at.project}_new"),
        Step("POST", "/entities", [1]),
        Step("POST", "/entities", raw="null"),
        Step("POST", "/entities", raw='"text"'),
        Step("POST", "/entities", raw="{"),
        Step("POST", "/entities", raw=""),
        Step("POST", "/entities"),
        Step("POST", "/entities", raw=f'{{"name": "twice", "name": "second", "project": "{at.project}"}}'),
        at.get("second"),
        Step("POST", "/entities", raw=f'{{"name": "nan", "project": "{at.project}", "value_type": NaN}}'),
        Step("POST", f"/entities?project={at.project}", {"name": "by_query"}),
        Step("POST", "/entities/", {"name": "slash", "project": at.project}),
        Step("POST", "/entities/plain", {"name": "slash", "project": at.project}),
        Step("PUT", "/entities", {"name": "put", "project": at.project}),
        Step("PATCH", "/entities/plain", {"description": "x"}),
        at.get(),
        at.delete("plain"),
        at.delete("plain"),
        at.delete("full", "nowhere"),
        at.delete("full", ""),
        Step("DELETE", "/entities/full"),
        Step("DELETE", f"/entities?project={at.project}"),
        Step("DELETE", f"/entities/all?project={at.project}"),
        Step("DELETE", f"/entities/full/?project={at.project}"),
        at.delete("naïve 日本"),
        at.get(),
    ]


def data_sources(at: Writer) -> list[Step]:
    options: dict[str, tuple[int, dict[str, Any]]] = {
        "file": (1, {"file_options": {"uri": "a dir/é.parquet", "s3_endpoint_override": "http://s3", "file_format": "delta"}}),
        "bigquery": (2, {"bigquery_options": {"table": "a.b.c", "query": "SELECT 1"}}),
        "snowflake": (8, {"snowflake_options": {"table": "t", "database": "d", "schema_": "s", "query": "q", "warehouse": "w"}}),
        "redshift": (5, {"redshift_options": {"table": "t", "database": "d", "schema_": "s", "query": "q"}}),
        "spark": (11, {"spark_options": {"table": "t", "path": "p", "query": "q", "file_format": "parquet",
                                         "date_partition_column_format": "%Y"}}),
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
        steps += at.make(name, type=number, timestamp_field="ts", **more)
    for name, (number, more) in one_only.items():
        steps += at.make(name, type=number, **more)
    for name in options:
        steps += at.make(f"untyped_{name}", **options[name][1])
    return [
        *steps,
        at.post(name="described", type=1, file_options={"uri": "x"}, **FULL),
        at.get("described"),
        at.post(name="blank", type=1, file_options={"uri": "x"}, **BLANK),
        at.get("blank"),
        at.post(name="described", type=1, file_options={"uri": "changed"}),
        at.get("described"),
        at.post(name="bare"),
        at.post("name", type=1),
        at.post("project", type=1),
        at.post(type="BATCH_FILE"),
        at.get(),
        *at.differing(
            "no-class-is-needed",
            201,
            "kafka",
            type=3,
            kafka_options={"kafka_bootstrap_servers": "k:9092", "topic": "t"},
        ),
        *at.differing(
            "no-class-is-needed", 201, "kinesis", type=4, kinesis_options={"region": "r", "stream_name": "s"}
        ),
        *at.differing("no-class-is-needed", 201, "trino", type=10, trino_options={"table": "t", "query": "q"}),
        *at.differing(
            "no-class-is-needed", 201, "unknown", type=6, custom_options={}, data_source_class_type="no.such.Class"
        ),
        *at.differing("errors-have-codes", 422, "mismatch", type=2, file_options={"uri": "x"}),
        *at.differing("errors-have-codes", 422, "kafka_file", type=3, file_options={"uri": "x"}),
        at.delete("described"),
        at.delete("described"),
        at.delete("blank", "nowhere"),
        # It comes last: in Feast nothing can delete it.
        at.post(name="", type=1, file_options={"uri": "x"}).otherwise("refused-at-once", 422),
    ]


def feature_views(at: Writer) -> list[Step]:
    usual: dict[str, Any] = {
        "entities": ["driver"],
        "features": [{"name": "rides", "value_type": 4, "description": AWKWARD}, {"name": "text"}],
        "batch_source": "trips",
    }
    types = [{"name": f"t{number}", "value_type": number} for number in VALUE_TYPES]
    return [
        *at.make("usual", **usual, ttl_seconds=90, **FULL),
        *at.make("blank", **usual, ttl_seconds=None, online=None, **BLANK),
        *at.make("offline", **usual, online=False, ttl_seconds=0),
        *at.make("negative_ttl", **usual, ttl_seconds=-5),
        *at.make("ttl_text", **usual, ttl_seconds="60"),
        *at.make("ttl_float", **usual, ttl_seconds=1.5),
        *at.make("online_text", **usual, online="no"),
        *at.make("online_number", **usual, online=2),
        *at.make("unknown_entity", **{**usual, "entities": ["nobody"]}),
        *at.make("dummy_entity", **{**usual, "entities": ["__dummy"]}),
        *at.make("two_entities", **{**usual, "entities": ["driver", "driver"]}),
        *at.make("no_entities", **{**usual, "entities": []}),
        *at.make("null_entities", **{**usual, "entities": None}),
        *at.make("unknown_source", **{**usual, "batch_source": "nobody"}),
        *at.make("no_source", **{**usual, "batch_source": ""}),
        *at.make("null_source", **{**usual, "batch_source": None}),
        *at.make("stream_source", **{**usual, "batch_source": "pushed"}),
        *at.make("kafka_source", **{**usual, "batch_source": "topic"}),
        *at.make("request_source", **{**usual, "batch_source": "bonus"}),
        *at.make("no_features", **{**usual, "features": []}),
        *at.make("null_features", **{**usual, "features": None}),
        *at.make("absent_features", entities=["driver"], batch_source="trips"),
        *at.make("every_type", **{**usual, "features": types}),
        *at.make("bad_type", **{**usual, "features": [{"name": "a", "value_type": 99}]}),
        *at.make("null_as_type", **{**usual, "features": [{"name": "a", "value_type": ValueType.NULL}]}),
        replace(at.delete("null_as_type"), tidies=True),
        *at.make("null_type", **{**usual, "features": [{"name": "a", "value_type": None}]}),
        replace(at.delete("null_type"), tidies=True),
        *at.make("nameless_feature", **{**usual, "features": [{"value_type": 1}]}),
        *at.make("same_features", **{**usual, "features": [{"name": "a"}, {"name": "a"}]}),
        *at.make("join_key_feature", **{**usual, "features": [{"name": "driver_id", "value_type": 4}, {"name": "a"}]}),
        *at.make("timestamp_feature", **{**usual, "features": [{"name": "event_timestamp", "value_type": 8}]}),
        *at.make("bad name", **usual),
        *at.make("dots.in", **usual),
        *at.make("colon:in", **usual),
        *at.make("at@v1", **usual),
        *at.make("", **usual),
        # The number of the version is not in Feast's cache.
        at.post(name="versioned", **usual),
        at.post(name="versioned", **{**usual, "features": [{"name": "rides", "value_type": 5}]}),
        replace(at.get("versioned"), path=f"/feature_views/versioned?project={at.project}&allow_cache=false"),
        at.post(name="versioned", **usual),
        replace(at.get("versioned"), path=f"/feature_views/versioned?project={at.project}&allow_cache=false"),
        *at.make("usual", **usual, ttl_seconds=90, **FULL),
        # Feast gives their source a name of its own in lineage.
        at.delete("no_source"),
        at.delete("null_source"),
        at.post("name", "project", **usual),
        at.post("project", **usual),
        at.post(features=[1]),
        at.post(entities=[1]),
        at.post(entities="driver"),
        at.post(project="nowhere", **usual),
        # A name that another kind of view has.
        at.post(name="labelled", **usual).otherwise("errors-have-codes", 409),
        at.post(name="demanded", **usual).otherwise("errors-have-codes", 409),
        at.get("labelled"),
        at.get(),
        at.get(kind="features"),
        Step("GET", f"/lineage/registry?project={at.project}"),
        *at.differing("refused-at-once", 422, "empty_feature", **{**usual, "features": [{"name": ""}]}),
        *at.differing("refused-at-once", 422, "huge_ttl", **usual, ttl_seconds=10**13),
        at.delete("usual"),
        at.delete("usual"),
        at.delete("demanded"),
        at.delete("labelled"),
        at.delete("offline", "nowhere"),
        at.get(),
        at.get(kind="label_views"),
    ]


def feature_services(at: Writer) -> list[Step]:
    def made(name: str, features: Any, **more: Any) -> list[Step]:
        return [at.post(name=name, features=features, **more), at.get(name)]

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
        at.post(name="", features=[ref("rides_view")]).otherwise("errors-have-codes", 422),
        *made("odd name", [ref("rides_view")]),
        *made("whole", [ref("rides_view", ["rides"])]),
        at.post(),
        at.post("project", features=[ref("rides_view")]),
        at.post("name", features=[ref("rides_view")]),
        at.post(project="nowhere", features=[ref("rides_view")]),
        at.get(),
        at.delete("whole"),
        at.delete("whole"),
        at.delete("some", "nowhere"),
        at.get(),
    ]


TYPES = [
    "FEATURE_VIEW", "ON_DEMAND_FEATURE_VIEW", "BATCH_FEATURE_VIEW", "STREAM_FEATURE_VIEW", "ENTITY", "FEATURE_SERVICE",
    "DATA_SOURCE", "VALIDATION_REFERENCE", "SAVED_DATASET", "PERMISSION", "PROJECT", "LABEL_VIEW",
]  # fmt: skip
ACTIONS = ["CREATE", "DESCRIBE", "UPDATE", "DELETE", "READ_ONLINE", "READ_OFFLINE", "WRITE_ONLINE", "WRITE_OFFLINE"]


def permissions(at: Writer) -> list[Step]:
    roles = {"role_based_policy": {"roles": ["admin"]}}

    def made(name: str, **more: Any) -> list[Step]:
        body = {"types": ["ENTITY"], "actions": ["DESCRIBE"], "policy": roles, **more}
        return [at.post(name=name, **body), at.get(name)]

    return [
        *made("plain"),
        *made(
            "full",
            types=TYPES,
            actions=ACTIONS,
            name_patterns=["a.*", 'q"\\d'],
            tags=LABELLED,
            required_tags={"t": "1"},
        ),
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
        *at.differing("refused-at-once", 422, "bad_pattern", name_patterns=["("], policy=roles, actions=["CREATE"]),
        *made("null_patterns", name_patterns=None),
        *made("null_tags", tags=None, required_tags=None),
        *made("odd name", tags={"a": 1}),
        at.post(name="", policy=roles, actions=["CREATE"]).otherwise("errors-have-codes", 422),
        *made("plain", actions=["UPDATE"], types=["PROJECT"]),
        at.post(name="minimal", policy=roles),
        at.get("minimal"),
        at.post(),
        at.post("project", policy=roles),
        at.post("name", policy=roles),
        at.post(project="nowhere", policy=roles, actions=["CREATE"], types=["ENTITY"]),
        at.get(),
        at.delete("plain"),
        at.delete("plain").otherwise("missing-permission", 404),
        at.delete("full", "nowhere").otherwise("missing-permission", 404),
        at.get(),
    ]


STORAGES = ["file", "bigquery", "redshift", "snowflake", "athena", "", "FILE", "x"]
STORAGES_OF_CLASSES = ["trino", "postgres", "clickhouse", "couchbase", "custom"]
"""Feast writes these once it has imported the class of the store."""


def saved_datasets(at: Writer) -> list[Step]:
    usual: dict[str, Any] = {
        "features": ["rides_view:rating"],
        "join_keys": ["driver_id"],
        "storage_path": "a/b.parquet",
    }
    path = {"storage_path": " db.scope.coll.x "}

    def made(name: str, **more: Any) -> list[Step]:
        return at.make(name, **{**usual, **more})

    stored = [step for kind in STORAGES for step in made(f"stored_{kind}", storage_type=kind, **path)]
    for kind in STORAGES_OF_CLASSES:
        stored += at.differing("no-class-is-needed", 200, f"stored_{kind}", storage_type=kind, **path)
    # Feast knows the storage of Spark once it has read a source of Spark.
    source = {"name": "sparked", "project": at.project, "type": 11, "spark_options": {"table": "t"}}
    spark = [
        Step("POST", "/data_sources", source),
        at.get("sparked", kind="data_sources"),
        *made("spark", storage_type="spark"),
        *made("spark_no_format", storage_type="spark", storage_file_format=None),
        *at.differing(
            "no-class-is-needed", 200, "spark_delta", storage_type="spark", storage_file_format="delta", **path
        ),
    ]
    return [
        *made("plain"),
        *made(
            "full",
            tags=LABELLED,
            full_feature_names=True,
            namespace="ns",
            collection="c",
            description=AWKWARD,
            feature_service_name="rides_service",
        ),
        *stored,
        *spark,
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
        at.post(project="", storage_path="p"),
        at.post(project=" ", storage_path="p"),
        at.post("project", storage_path="p"),
        at.post("name", storage_path="p"),
        at.post(project="nowhere", storage_path="p"),
        at.get("x", "nowhere"),
        at.get(),
        at.delete("plain"),
        at.delete("plain"),
        at.delete("full", "nowhere"),
        Step("DELETE", f"/saved_datasets/jobs?project={at.project}"),
        at.get(),
    ]


def refresh(at: Writer) -> list[Step]:
    return [
        Step("POST", "/registry/refresh"),
        Step("POST", "/registry/refresh", {"project": at.project}),
        Step("GET", "/registry/refresh"),
        Step("POST", "/projects", {"name": "x"}),
        Step("DELETE", f"/projects/{at.project}"),
        Step("POST", "/label_views", {"name": "x", "project": at.project}),
        Step("DELETE", f"/label_views/labelled?project={at.project}").otherwise("label-views", 200),
        Step("POST", "/search?query=x"),
        Step("POST", "/lineage", {}),
        Step("POST", "/features", {"name": "x"}),
    ]


SEQUENCES = {
    "entities": entities, "data_sources": data_sources, "feature_views": feature_views,
    "feature_services": feature_services, "permissions": permissions, "saved_datasets": saved_datasets, "refresh": refresh,
}  # fmt: skip


def project_of(kind: str) -> str:
    """The project that the requests of a kind write to."""
    return f"written_{kind}"


def sequence(kind: str) -> list[Step]:
    return SEQUENCES[kind](Writer(kind, project_of(kind)))
