"""Proves that lists and objects are read over HTTP as from Feast's own REST server."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

import rest_requests
from rest_pair import RestPair, parts
from rest_requests import NO_SCALARS, P, prefixed


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


@pytest.mark.parametrize("kind, attribute", [(kind, one) for kind, several in NO_SCALARS.items() for one in several])
def test_a_list_sorted_by_no_scalar(kind: str, attribute: str, rest_reads: RestPair) -> None:
    """sort-of-no-scalar: the same items are there."""

    def without_order(body: Any) -> None:
        for listed in body.values():
            if isinstance(listed, list):
                listed.sort(key=lambda item: json.dumps(item, sort_keys=True))

    rest_reads.same("GET", prefixed(f"/{kind}?{P}&sort_by={attribute}&sort_order=desc"), without_order)


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


def test_a_permission_that_does_not_exist(rest_reads: RestPair) -> None:
    rest_reads.differs(
        "missing-permission", "GET", prefixed(f"/permissions/nobody?{P}&allow_cache=false"),
        theirs=lambda answer: answer.status == 500,
        ours=lambda answer: (answer.status, answer.body["detail"])
        == (404, "Permission nobody does not exist in project rides"),
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
