"""The GET requests that are sent to Feast's REST server and to ours: tables, one row each, without the prefix."""

from __future__ import annotations

from itertools import product
from urllib.parse import quote

from rest_repo import RIDES

P = f"project={RIDES}"
ODD_TAG = quote('odd "key":it\'s \\ 日本')
LISTS = [
    "entities",
    "data_sources",
    "feature_views",
    "label_views",
    "feature_services",
    "features",
    "labels",
    "permissions",
    "saved_datasets",
]
"""What `/X?project=` lists; all but permissions have `/X/all` too."""

ACROSS = [kind for kind in LISTS if kind != "permissions"]

NAMED = {
    "entities": ["driver", "customer", "Zone", "lonely", "__dummy"],
    "data_sources": [
        "trips", "purchases", "by_query", "snow", "shifted", "sparked", "sparked_table", "athena", "mssql", "oracle",
        "rides_topic", "clicks", "pushed", "fraud_labels", "bonus",
    ],
    "feature_views": [
        "driver_rides", "everything", "Pushed_rides", "no_entity", "derived", "stream_rides", "batched", "demand",
        "fraud", "Abuse",
    ],
    "label_views": ["fraud", "Abuse"],
    "feature_services": ["whole", "some", "Streamed", "derived_too"],
    "permissions": ["by_role", "by_group", "By_namespace", "combined"],
    "saved_datasets": ["training", "Validation", "bare"],
    "features": [
        "driver_rides/rides", "driver_rides/rating", "driver_rides/zones", "driver_rides/driver_id",
        "everything/int32", "everything/bytes", "everything/bool_list", "everything/unixtimestamp",
        "everything/int32_list", "everything/customer_id", "stream_rides/rides", "demand/rides_plus_bonus",
        "fraud/is_fraud", "fraud/labeler", "derived/rides_per_day", "no_entity/rainfall", "batched/rides",
    ],
}  # fmt: skip
"""Names of the repository, kind by kind; a feature has its view's before it."""

UNKNOWN = [
    "entities/nobody", "data_sources/nobody", "feature_views/nobody", "label_views/nobody", "label_views/driver_rides",
    "feature_services/nobody", "permissions/nobody", "saved_datasets/nobody", "features/nobody/rides",
    "features/driver_rides/nobody", "entities/DRIVER", "feature_views/driver",
]  # fmt: skip

SORTABLE = {
    "entities": ["name", "join_key", "value_type", "description", "owner", "created_timestamp"],
    "data_sources": ["name", "description", "owner", "created_timestamp"],
    "feature_views": ["name", "online", "description", "owner", "batch_source.name", "created_timestamp"],
    "label_views": ["name", "description", "owner", "created_timestamp"],
    "feature_services": ["name", "description", "owner", "created_timestamp"],
    "features": ["name", "feature_view", "featureView", "type", "dtype", "description", "kind"],
    "labels": ["name", "feature_view", "type", "description"],
    "permissions": ["name", "created_timestamp"],
    "saved_datasets": ["name", "namespace", "collection", "description", "full_feature_names"],
}
"""Attributes of Feast's Python classes; the tests add one that does not exist."""

OF_CLASSES = {"data_sources": ["timestamp_field", "path"]}
"""Attributes of Feast's Python classes that are not what its answers show."""

NO_SCALARS = {
    "entities": ["tags"], "data_sources": ["tags", "field_mapping"], "feature_views": ["tags", "ttl", "features"],
    "permissions": ["tags", "types", "policy"], "saved_datasets": ["tags", "storage", "features"], "features": ["tags"],
}  # fmt: skip
"""Attributes whose order is a Python text's in Feast."""


def lists() -> list[str]:
    """Plain lists, with and without their relationships, the cache, and another project."""
    options = ["", "&include_relationships=true", "&allow_cache=false"]
    of_rides = [f"/{kind}?{P}{option}" for kind, option in product(LISTS, options)]
    elsewhere = [f"/{kind}?project={p}" for kind, p in product(LISTS, ["market", "empty", "nowhere"])]
    elsewhere += [f"/{kind}?project=locked" for kind in LISTS if kind not in ("feature_views", "features")]
    related = [f"/{kind}?project={p}&include_relationships=true" for kind, p in product(LISTS, ["market", "nowhere"])]
    return of_rides + elsewhere + related


def pages() -> list[str]:
    paging = ["page=1&limit=2", "page=2&limit=2", "page=99&limit=2", "page=1&limit=100", "page=2", "limit=1"]
    return [f"/{kind}?{P}&{page}" for kind, page in product(LISTS, paging)] + [
        f"/{kind}?{P}&page=2&limit=1&include_relationships=true" for kind in LISTS
    ]


def sorts() -> list[str]:
    out = []
    for kind, attributes in SORTABLE.items():
        for attribute, order in product([*attributes, "no_such_attribute"], ["asc", "desc"]):
            out.append(f"/{kind}?{P}&sort_by={attribute}&sort_order={order}")
        out.append(f"/{kind}?{P}&sort_by=name")
        out.append(f"/{kind}?{P}&sort_order=desc")
        out.append(f"/{kind}?{P}&sort_by=name&sort_order=desc&page=2&limit=2")
        out.append(f"/{kind}?{P}&sort_by=%20")
    return out


def tags() -> list[str]:
    filters = [
        "tags=team:rides", "tags=team:rides&tags=tier:gold", "tags=team:nobody", "tags=team", "tags=", "tags=team:",
        "tags=empty:", "tags=Team:rides", "tags=:rides", "tags=team:rides&tags=team:market",
        f"tags={ODD_TAG}", "tags=team:rides&page=1&limit=1",
    ]  # fmt: skip
    return [
        f"/{kind}?{P}&{one}" for kind, one in product([k for k in LISTS if k not in ("features", "labels")], filters)
    ]


def filters() -> list[str]:
    views = [
        "entity=driver", "entity=customer", "entity=nobody", "entity=", "feature=rides", "feature=nobody",
        "feature=driver_id", "feature=rides_plus_bonus", "feature_service=whole", "feature_service=some",
        "feature_service=nobody", "feature_service=Streamed", "data_source=trips", "data_source=pushed",
        "data_source=rides_topic", "data_source=bonus", "data_source=nobody", "entity=driver&data_source=trips",
        "entity=driver&tags=team:rides", "feature_service=whole&page=1&limit=1", "updated_since=2000-01-01T00:00:00Z",
        "updated_since=2999-01-01T00:00:00Z", "updated_since=2000-01-01", "updated_since=2000-01-01T00:00:00",
        "updated_since=2000-01-01T00:00:00.123456%2B02:00", "updated_since=2999-01-01T00:00:00-05:00",
        "updated_since=yesterday", "updated_since=", "updated_since=2000-13-01", "updated_since=946684800",
    ]  # fmt: skip
    services = [
        "feature_view=driver_rides", "feature_view=alias", "feature_view=everything", "feature_view=fraud",
        "feature_view=nobody", "feature_view=", "feature_view=driver_rides&tags=team:rides",
    ]  # fmt: skip
    features = [
        "feature_view=driver_rides", "feature_view=nobody", "feature_view=fraud", "feature_view=demand", "name=rides",
        "name=nobody", "name=rides&feature_view=driver_rides", "name=", "feature_view=", "name=is_fraud",
        "feature_view=everything&sort_by=name&sort_order=desc", "feature_view=stream_rides", "feature_view=batched",
    ]  # fmt: skip
    datasets = [
        "namespace=science", "collection=2024", "namespace=science&collection=2024", "namespace=", "namespace=nobody",
        "collection=nobody", "namespace=science&tags=team:market", "namespace=Science",
    ]  # fmt: skip
    return [
        *(f"/feature_views?{P}&{one}" for one in views),
        *(f"/feature_services?{P}&{one}" for one in services),
        *(f"/{kind}?{P}&{one}" for kind, one in product(["features", "labels"], features)),
        *(f"/saved_datasets?{P}&{one}" for one in datasets),
        *(f"/saved_datasets/all?{one}" for one in datasets),
        f"/label_views?{P}&entity=nobody",
        f"/entities?{P}&nonsense=1",
    ]


def across() -> list[str]:
    """The lists across all projects, which page always and sort by keys of the answer's JSON."""
    options = [
        "", "?include_relationships=true", "?allow_cache=false", "?page=2&limit=3", "?page=99", "?limit=1", "?limit=100",
        "?sort_by=name", "?sort_by=name&sort_order=desc", "?sort_by=project&sort_order=desc", "?sort_by=nothing",
        "?sort_by=nothing&sort_order=desc", "?sort_by=type", "?sort_by=featureView", "?sort_by=name&sort_order=DESC",
        "?sort_by=description&sort_order=desc", "?page=2&limit=2&include_relationships=true",
        "?sort_order=desc", "?sort_by=name&sort_order=nonsense", "?sort_by=", "?project=rides",
    ]  # fmt: skip
    return [f"/{kind}/all{option}" for kind, option in product(ACROSS, options)]


def objects() -> list[str]:
    out = []
    for kind, names in NAMED.items():
        for name, option in product(names, ["", "&include_relationships=true"]):
            out.append(f"/{kind}/{quote(name)}?{P}{option}")
        out.append(f"/{kind}/{quote(names[0])}?{P}&allow_cache=false")
    out += [
        "/entities/secret?project=locked",
        "/entities/driver?project=market",
        "/feature_views/driver_rides?project=market",
    ]
    out += [
        "/feature_views/driver_rides?project=market&include_relationships=true",
        "/saved_datasets/training?project=market",
    ]
    return out


def missing() -> list[str]:
    """What is not there; the name is the last part of the path."""
    out = [
        f"/entities/{quote('ünïcode')}?{P}",
        f"/entities/a%20b?{P}",
        "/projects/nowhere",
        "/projects/nowhere?allow_cache=false",
    ]
    out += [f"/{path}?{P}" for path in UNKNOWN]
    out += [f"/{path}?{P}&allow_cache=false" for path in UNKNOWN if not path.startswith("permissions/")]
    out += [f"/{kind}/{quote(names[0])}?project=nowhere" for kind, names in NAMED.items()]
    out += [f"/{kind}/{quote(names[0])}?project=nowhere&include_relationships=true" for kind, names in NAMED.items()]
    return [
        *out,
        "/entities/driver?project=",
        f"/permissions/all?{P}",
        f"/feature_views/%20?{P}",
        f"/entities/..?{P}",
        "/projects/all",
    ]


def projects() -> list[str]:
    return [
        "/projects", "/projects?allow_cache=false", "/projects?page=1&limit=1", "/projects?page=3&limit=2",
        "/projects?sort_by=name", "/projects?sort_by=name&sort_order=desc", "/projects?sort_by=description",
        "/projects?sort_by=nothing", "/projects?sort_by=owner&sort_order=desc", "/projects?page=0", "/projects?limit=101",
        "/projects?sort_order=down", "/projects/rides", "/projects/rides?allow_cache=false", "/projects/market",
        "/projects/locked", "/projects/empty",
    ]  # fmt: skip


def lineage() -> list[str]:
    filters = [
        "", "filter_object_type=featureView", "filter_object_type=entity&filter_object_name=driver",
        "filter_object_name=driver_rides", "filter_object_type=feature&filter_object_name=rides",
        "filter_object_type=labelView", "filter_object_type=nonsense", "filter_object_name=nobody",
        "filter_object_type=dataSource", "filter_object_type=featureService&filter_object_name=whole",
        "filter_object_type=savedDataset", "allow_cache=false", "filter_object_type=feature", "filter_object_type=",
    ]  # fmt: skip
    registry = [f"/lineage/registry?{P}&{one}" for one in filters]
    every = [f"/lineage/registry/all?{one}" for one in filters]
    kinds = {
        "dataSource": ["trips", "pushed", "bonus", "purchases", "rides_topic", "nobody"],
        "entity": ["driver", "customer", "lonely"],
        "featureView": [
            "driver_rides",
            "everything",
            "stream_rides",
            "demand",
            "derived",
            "fraud",
            "no_entity",
            "nobody",
        ],
        "featureService": ["whole", "some", "Streamed", "derived_too"],
        "feature": ["rides", "rating", "is_fraud", "driver_rides:rides", "rides_plus_bonus"],
        "savedDataset": ["training", "Validation", "bare"],
    }
    of = [f"/lineage/objects/{t}/{name}?{P}" for t, names in kinds.items() for name in names]
    indirect = [f"{path}&include_indirect=true" for path in of]
    refused = [
        f"/lineage/objects/{t}/x?{P}" for t in ("labelView", "label", "permission", "project", "DataSource", "all")
    ]
    complete = ["", "&allow_cache=false", "&sort_by=name&sort_order=desc"]
    return [
        *registry, *every, *of, *indirect, *refused,
        *(f"/lineage/complete?{P}{one}" for one in complete),
        "/lineage/complete?project=market", "/lineage/complete?project=empty", "/lineage/complete?project=nowhere",
        "/lineage/registry?project=nowhere", "/lineage/registry?project=empty",
        "/lineage/objects/entity/driver?project=nowhere",
        "/lineage/complete/all", "/lineage/complete/all?allow_cache=false",
    ]  # fmt: skip


def sorted_lineage() -> list[str]:
    """Feast's order is fixed only where the request sorts, and only between relationships that sort differently."""
    paging = ["page=1&limit=3", "page=2&limit=3", "page=99&limit=10", "page=2&limit=3&sort_order=desc"]
    return [
        *(f"/lineage/registry?{P}&sort_by={key}&{one}" for key, one in product(["source.name", "target.name"], paging)),
        f"/lineage/registry?{P}&sort_by=source.name&page=1", f"/lineage/registry?{P}&sort_by=source.name&limit=3",
        f"/lineage/registry?{P}&sort_by=source.type&sort_order=desc&page=3&limit=2",
        f"/lineage/complete?{P}&sort_by=name&page=2&limit=3", f"/lineage/complete?{P}&page=99&limit=5",
    ]  # fmt: skip


def metrics() -> list[str]:
    return [
        "/metrics/resource_counts", "/metrics/resource_counts?allow_cache=false",
        *(f"/metrics/resource_counts?project={p}" for p in ("rides", "market", "empty", "locked", "nowhere", "")),
        "/metrics/popular_tags", *(f"/metrics/popular_tags?project={p}" for p in ("rides", "market", "empty", "nowhere")),
        *(f"/metrics/popular_tags?{P}&limit={n}" for n in ("1", "100", "0", "-1", "abc")),
        "/metrics/popular_tags?limit=2", "/metrics/popular_tags?limit=50", "/metrics/popular_tags?allow_cache=false&limit=2",
    ]  # fmt: skip


def engines() -> list[str]:
    jobs = [
        "page=1&limit=2", "page=2&limit=2", "page=1&limit=50", "page=1&limit=50&status=succeeded",
        "page=1&limit=50&status=failed", "page=1&limit=50&feature_view=driver_rides",
        "page=1&limit=50&feature_view=nobody", "page=9&limit=9", "page=1&limit=50&sort_by=startTime&sort_order=asc",
        "page=1&limit=50&allow_cache=false",
    ]  # fmt: skip
    return [
        *(f"/compute_engines?project={p}" for p in ("rides", "market", "empty", "nowhere", "locked")),
        f"/compute_engines?{P}&allow_cache=false",
        "/compute_engines/all", "/compute_engines/all?page=2&limit=1", "/compute_engines/all?page=99",
        "/compute_engines/all?limit=101", "/compute_engines/all?page=0", "/compute_engines",
        *(f"/materialization_jobs?{P}&{one}" for one in jobs),
        "/materialization_jobs", "/materialization_jobs?project=nowhere&page=1&limit=5",
    ]  # fmt: skip


def search() -> list[str]:
    one = f"projects={RIDES}"
    queries = [
        "", "driver", "DRIVER", "rides", "team", "team=rides", "gold", "rating", "trips", quote("日本"), "back%5C", "drvier",
        "zzzz", "%20", "fraud", "edirv", "dirver_rides", "%22quoted%22", "its", "e", "tier%3Dgold", "stars", "s3://",
        "eiprsv", "unit=strs", "%F0%9F%9A%95", "2024", "Zone", "is_fruad",
    ]  # fmt: skip
    options = [
        "sort_by=name", "sort_by=name&sort_order=asc", "sort_by=type&sort_order=asc", "sort_by=type", "sort_by=match_score",
        "sort_by=match_score&sort_order=asc", "sort_by=description", "sort_by=", "sort_order=down", "sort_order=",
        "sort_order=asc", "page=2&limit=3", "page=1&limit=100", "page=99", "page=0", "page=-1", "limit=0", "limit=101",
        "limit=abc", "tags=team:rides", "tags=team:nobody", "tags=team", "allow_cache=false",
        "tags=team:rides&tags=tier:gold", "sort_by=name&sort_order=ASC",
    ]  # fmt: skip
    return [
        *(f"/search?query={query}&{one}" for query in queries),
        *(f"/search?query=rides&{one}&{option}" for option in options),
        *(f"/search?query=&{one}&{option}" for option in options),
        "/search", f"/search?{one}", "/search?query=driver&projects=nowhere",
        "/search?query=driver&projects=nowhere&projects=elsewhere", f"/search?query=driver&{one}&projects=nowhere",
        "/search?query=driver&projects=locked", "/search?query=driver&projects=empty",
        "/search?query=driver&projects=market", f"/search?query=driver&{one}&{one}",
        "/search?query=driver&projects=%20rides",
    ]  # fmt: skip


def search_everywhere() -> list[str]:
    """Feast walks the projects as a Python set, in another order in each process."""
    queries = ["", "driver", "rides", "whole"]
    return [
        *(f"/search?query={query}&limit=100" for query in queries),
        "/search?query=driver&projects=", "/search?query=driver&projects=%20", "/search?query=driver&projects=rides&projects=market",
        "/search?query=&sort_by=name&sort_order=asc&limit=100",
    ]  # fmt: skip


def bad_values() -> list[str]:
    """What FastAPI refuses before Feast sees it; and what it takes, though it looks wrong."""
    values = [
        "page=0", "page=-1", "page=abc", "page=1.0", "page=1.5", "page=", "limit=0", "limit=101", "limit=abc", "limit=", "page=%201", "page=1%20",
        "sort_order=foo", "sort_order=ASC", "sort_order=", "allow_cache=maybe", "allow_cache=1", "allow_cache=off", "allow_cache=Y",
        "allow_cache=", "include_relationships=maybe", "include_relationships=yes", "include_relationships=on", "allow_cache=TRUE",
        "page=1&page=2&limit=1", "page=%2B1&limit=1", "page=1_0&limit=1",
        "limit=2.0&page=1",
        "page=01&limit=1", "sort_by=name&sort_by=owner", "allow_cache=True%20", "allow_cache=2", "page=1e1",
    ]  # fmt: skip
    refused = [f"/entities?{P}&{value}" for value in values] + [f"/entities/driver?{P}&{v}" for v in values[15:]]
    refused += [f"/entities/all?{value}" for value in values]
    missing = [f"/{kind}" for kind in LISTS] + [f"/{kind}/{quote(names[0])}" for kind, names in NAMED.items()]
    lineage = [
        "/lineage/registry", "/lineage/complete", "/lineage/objects/entity/driver", f"/lineage/registry?{P}&page=0",
        f"/lineage/complete?{P}&limit=101", f"/lineage/objects/entity/driver?{P}&include_indirect=maybe",
        "/saved_datasets/jobs", f"/saved_datasets/jobs?{P}", f"/saved_datasets/jobs?{P}&status=running",
    ]  # fmt: skip
    blank = ["/entities?project=", "/feature_views?project=", "/lineage/registry?project="]
    twice = [
        "/entities?project=rides&project=market",
        "/entities?project=market&project=rides",
        "/entities?PROJECT=rides",
    ]
    return refused + missing + lineage + blank + twice


def shapes() -> list[str]:
    """Paths that are nearly right."""
    return [
        f"/features/driver_rides?{P}", f"/entities/?{P}", f"/entities/driver/?{P}", "/entities/all/", "/version/", "/projects/", f"/search/?query=x&{P}",
        "/nothing", "/nothing/at/all", "/Entities?project=rides", f"/entities//driver?{P}", f"//entities?{P}", "/health",
        "/api/v1", "/api/v2/entities", "/api/v1/api/v1/version", "/features/all/", f"/features/driver_rides/rides/?{P}",
        f"/features/a/b/c?{P}", "/permissions/all", "/metrics", "/metrics/nothing", "/lineage",
        f"/lineage/objects/entity?{P}", "/registry/refresh", "/lineage/openlineage/graph",
        f"/entities/%2e%2e?{P}", "/entities;x?project=rides",
    ]  # fmt: skip


WRITTEN = ["entities", "data_sources", "feature_views", "feature_services", "permissions", "saved_datasets"]
"""What POST and DELETE take."""


def read_only_routes() -> list[str]:
    """Every route that knows GET only."""
    return [
        "/version", "/projects", "/projects/rides", "/label_views", "/label_views/all", "/label_views/fraud", "/features",
        "/features/all", "/features/driver_rides/rides", "/labels", "/labels/all", "/lineage/registry",
        "/lineage/registry/all", "/lineage/objects/entity/driver", "/lineage/complete", "/lineage/complete/all", "/search",
        "/metrics/resource_counts", "/metrics/popular_tags", "/metrics/recently_visited", "/compute_engines",
        "/compute_engines/all", "/materialization_jobs", "/saved_datasets/data/training", "/saved_datasets/jobs/x",
    ]  # fmt: skip


GROUPS = {
    "lists": lists, "pages": pages, "sorts": sorts, "tags": tags, "filters": filters, "across": across,
    "objects": objects, "missing": missing, "projects": projects, "lineage": lineage, "metrics": metrics, "engines": engines,
    "search": search, "search_everywhere": search_everywhere, "bad_values": bad_values, "shapes": shapes,
}  # fmt: skip


def prefixed(path: str) -> str:
    return f"/api/v1{path}"
