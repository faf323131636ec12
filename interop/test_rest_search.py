"""Proves that search, lineage, metrics and compute engines are answered over HTTP as by Feast's own REST server."""

from __future__ import annotations

import json
from typing import Any

import pytest

import rest
import rest_requests
from rest import Answer
from rest_pair import RestPair, is_a_view, sort_relationships
from rest_requests import P, prefixed

ENGINE = {"type": "local", "backend": "polars"}


@pytest.mark.parametrize("path", rest_requests.search())
def test_a_search(path: str, rest_reads: RestPair) -> None:
    """What is found, its score and its order."""
    rest_reads.same("GET", prefixed(path))


def without_order_of_projects(body: Any) -> None:
    """projects-order: the results are compared without their order, which depends on that of the projects."""
    body["projects_searched"].sort()
    body["results"].sort(key=lambda result: json.dumps(result, sort_keys=True))


@pytest.mark.parametrize("path", rest_requests.search_everywhere())
def test_a_search_in_all_projects(path: str, rest_reads: RestPair) -> None:
    rest_reads.same("GET", prefixed(path), without_order_of_projects)


@pytest.mark.parametrize("path", rest_requests.lineage())
def test_lineage(path: str, rest_reads: RestPair) -> None:
    rest_reads.same("GET", prefixed(path))


@pytest.mark.parametrize("path", rest_requests.sorted_lineage())
def test_sorted_lineage(path: str, rest_reads: RestPair) -> None:
    """The order that the request asks for."""
    rest_reads.same("GET", prefixed(path), without=(sort_relationships,))


@pytest.mark.parametrize("project", ["rides", "market", "empty", "nowhere"])
def test_complete_lineage_has_views_among_its_views(project: str, rest_reads: RestPair) -> None:
    def stray(answer: Any) -> list[dict[str, Any]]:
        return [view for view in answer.body["objects"]["featureViews"] if not is_a_view(view)]

    rest_reads.differs(
        "stray-pagination", "GET", prefixed(f"/lineage/complete?project={project}"),
        theirs=lambda answer: len(stray(answer)) == 1,
        ours=lambda answer: answer.status == 200 and not stray(answer),
    )  # fmt: skip


@pytest.mark.parametrize("path", rest_requests.metrics())
def test_metrics(path: str, rest_reads: RestPair) -> None:
    rest_reads.same("GET", prefixed(path))


@pytest.mark.parametrize("path", rest_requests.engines())
def test_engines_and_jobs(path: str, rest_reads: RestPair) -> None:
    rest_reads.same("GET", prefixed(path))


def test_views_that_are_not_online(rest_reads: RestPair) -> None:
    def offline(answer: Answer) -> list[str]:
        return [view["name"] for view in answer.body["featureViews"] if not view["online"]]

    rest_reads.differs(
        "online-as-stored", "GET", prefixed(f"/compute_engines?{P}"),
        theirs=lambda answer: offline(answer) == [],
        ours=lambda answer: offline(answer) == ["everything"],
    )  # fmt: skip


@pytest.mark.parametrize("paging, count", [("", 3), ("&page=1", 3), ("&page=2", 0), ("&limit=2", 2)])
def test_jobs_without_both_page_and_limit(paging: str, count: int, rest_reads: RestPair) -> None:
    every = rest_reads.ours.ask("GET", prefixed(f"/materialization_jobs?{P}&page=1&limit=100")).body["jobs"]
    assert len(every) == 3
    rest_reads.differs(
        "unpaged-jobs", "GET", prefixed(f"/materialization_jobs?{P}{paging}"),
        theirs=lambda answer: answer.body["jobs"] == [] and answer.body["pagination"]["total"] == 3,
        ours=lambda answer: answer.body["jobs"] == every[:count] and answer.body["pagination"]["total"] == 3,
    )  # fmt: skip


def test_the_engine_of_a_feature_store_yaml(rest_reads: RestPair) -> None:
    """The block `batch_engine` names the engine of every project."""
    registry, blocks = rest_reads.oracle.db, {"batch_engine": ENGINE}
    with rest.start_feast_rest(registry, blocks) as oracle, rest.start_our_rest(registry, blocks=blocks) as ours:
        pair = RestPair(ours.wait_serving(), oracle.wait_serving())
        for path in (f"/compute_engines?{P}", "/compute_engines/all"):
            answer = pair.same("GET", prefixed(path))
    assert [engine["config"] for engine in answer.body["engines"]] == [ENGINE] * 3
