"""Proves that lists and objects are read over HTTP as from Feast's own REST server."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote

import pytest

import rest_requests
from rest import Answer
from rest_pair import RestPair, parts
from rest_requests import P, prefixed


def each(*tables: Iterable[str]) -> Any:
    return pytest.mark.parametrize("path", [path for table in tables for path in table])


@each(rest_requests.lists(), rest_requests.pages(), rest_requests.tags(), rest_requests.filters())
def test_a_list(path: str, rest_reads: RestPair) -> None:
    """Items, their order, pagination and relationships."""
    rest_reads.same("GET", prefixed(path))


@each(rest_requests.sorts())
def test_a_sorted_list(path: str, rest_reads: RestPair) -> None:
    """By an attribute of Feast's Python classes, in both directions; one that is unknown sorts nothing."""
    rest_reads.same("GET", prefixed(path))


def without_order(body: Any) -> None:
    for listed in body.values():
        if isinstance(listed, list):
            listed.sort(key=lambda item: json.dumps(item, sort_keys=True))


def attributes(table: dict[str, list[str]]) -> Any:
    return pytest.mark.parametrize(
        "kind, attribute", [(kind, one) for kind, several in table.items() for one in several]
    )


@attributes(rest_requests.NO_SCALARS)
def test_a_list_sorted_by_no_scalar(kind: str, attribute: str, rest_reads: RestPair) -> None:
    """sort-of-no-scalar: the same items are there."""
    rest_reads.same("GET", prefixed(f"/{kind}?{P}&sort_by={attribute}&sort_order=desc"), without_order)


@attributes(rest_requests.OF_CLASSES)
def test_a_list_sorted_by_what_is_not_shown(kind: str, attribute: str, rest_reads: RestPair) -> None:
    """sorted-as-shown: the same items are there."""
    rest_reads.same("GET", prefixed(f"/{kind}?{P}&sort_by={attribute}"), without_order)


@each(rest_requests.across())
def test_a_list_across_projects(path: str, rest_reads: RestPair) -> None:
    """Each item names its project; always paged; sorted by what is at the top of the JSON."""
    rest_reads.same("GET", prefixed(path))


@pytest.mark.parametrize("kind", rest_requests.ACROSS)
def test_a_list_across_projects_sorted_by_an_object(kind: str, rest_reads: RestPair) -> None:
    path = prefixed(f"/{kind}/all?sort_by=spec")
    if kind in ("data_sources", "features", "labels"):
        rest_reads.same("GET", path)  # These have no `spec`.
        return
    unsorted = rest_reads.ours.ask("GET", prefixed(f"/{kind}/all")).body
    rest_reads.differs(
        "unsortable", "GET", path,
        theirs=lambda answer: answer.status == 500,
        ours=lambda answer: (answer.status, answer.body) == (200, unsorted),
    )  # fmt: skip


@each(rest_requests.objects(), rest_requests.projects())
def test_an_object(path: str, rest_reads: RestPair) -> None:
    """With its definition as code, its relationships where they are asked for, or why it is not there."""
    rest_reads.same("GET", prefixed(path))


@each(rest_requests.missing())
def test_what_is_not_there(path: str, rest_reads: RestPair) -> None:
    """The error names it."""
    answer = rest_reads.same("GET", prefixed(path))
    assert unquote(path.partition("?")[0].rpartition("/")[2]) in answer.body["detail"]


def test_a_permission_that_does_not_exist(rest_reads: RestPair) -> None:
    rest_reads.differs(
        "missing-permission", "GET", prefixed(f"/permissions/nobody?{P}&allow_cache=false"),
        theirs=lambda answer: answer.status == 500,
        ours=lambda answer: answer.status == 404 and "nobody" in answer.body["detail"],
    )  # fmt: skip


@pytest.mark.parametrize("group", rest_requests.GROUPS)
def test_paths_without_prefix(group: str, rest_reads: RestPair) -> None:
    """`/X` is `/api/v1/X`; a few of each kind of request."""
    for path in rest_requests.GROUPS[group]()[::17]:
        if group != "search_everywhere":
            rest_reads.same("GET", path)


def test_what_is_shown_of_the_project(rest_reads: RestPair) -> None:
    """spec-project: where ours shows it, it is the right one."""
    for kind in ("entities", "feature_views", "feature_services", "saved_datasets", "label_views"):
        for part in parts(rest_reads.ours.ask("GET", prefixed(f"/{kind}?{P}")).body):
            if "spec" in part:
                assert part["spec"].get("project", "rides") == "rides", part["spec"]


@pytest.mark.parametrize(
    "path", ["/feature_views/described", "/feature_views", "/features/described/bonus", "/features"]
)
def test_the_features_of_an_on_demand_view(path: str, rest_reads: RestPair) -> None:
    def told(answer: Answer) -> list[tuple[str, dict[str, str]]]:
        named = (part for part in parts(answer.body) if part.get("name") == "bonus")
        fields = (part for part in named if "valueType" in part or "featureView" in part)
        return [(part["description"], part["tags"]) for part in fields if "description" in part]

    rest_reads.differs(
        "demand-features-keep-more", "GET", prefixed(f"{path}?project=locked"),
        theirs=lambda answer: answer.status == 200 and not told(answer),
        ours=lambda answer: told(answer) == [("On top", {"unit": "euro"})],
    )  # fmt: skip


def test_a_name_with_a_slash(rest_reads: RestPair) -> None:
    name = "odd name/with ünïcode"
    rest_reads.differs(
        "slash-in-name", "GET", prefixed(f"/data_sources/{quote(name, safe='')}?{P}"),
        theirs=lambda answer: (answer.status, answer.body) == (404, {"detail": "Not Found"}),
        ours=lambda answer: (answer.status, answer.body["name"]) == (200, name),
    )  # fmt: skip


def test_the_version(rest_reads: RestPair) -> None:
    rest_reads.differs(
        "server-named", "GET", prefixed("/version"),
        theirs=lambda answer: list(answer.body) == ["version"],
        ours=lambda answer: answer.body["version"] == rest_reads.oracle.ask("GET", "/version").body["version"]
        and answer.body["server"].startswith("feast-registry "),
    )  # fmt: skip
