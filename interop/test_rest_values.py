"""Proves that odd values, odd paths, odd bodies and other methods are answered as by Feast's own REST server."""

from __future__ import annotations

from itertools import product

import pytest

import rest_requests
from rest_pair import RestPair
from rest_requests import P, prefixed


@pytest.mark.parametrize("path", rest_requests.bad_values())
def test_a_value(path: str, rest_reads: RestPair) -> None:
    """Refused or understood, as FastAPI does."""
    rest_reads.same("GET", prefixed(path))


@pytest.mark.parametrize("path", rest_requests.shapes())
def test_a_path_that_is_nearly_right(path: str, rest_reads: RestPair) -> None:
    rest_reads.same("GET", prefixed(path))


OTHERS = list(product(["PUT", "PATCH", "OPTIONS", "DELETE", "POST"], rest_requests.read_only_routes()))
# Ours has these: see `test_put`, and `label_views` in rest_writes.py.
OURS = {("PUT", "/projects/rides"), *product(["PUT", "DELETE"], ["/label_views/all", "/label_views/fraud"])}
OTHERS = [other for other in OTHERS if other not in OURS]


@pytest.mark.parametrize("method, path", OTHERS)
def test_another_method(method: str, path: str, rest_reads: RestPair) -> None:
    """Not allowed."""
    rest_reads.same(method, prefixed(f"{path}?{P}"))


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("kind", rest_requests.WRITTEN)
def test_another_method_where_objects_are_written(method: str, kind: str, rest_reads: RestPair) -> None:
    for path in (f"/{kind}", f"/{kind}/x")[: 1 if method == "PUT" else 2]:
        rest_reads.same(method, prefixed(f"{path}?{P}"))


@pytest.mark.parametrize("kind", ["projects", *rest_requests.WRITTEN])
def test_put(kind: str, rest_reads: RestPair) -> None:
    rest_reads.differs(
        "whole-objects", "PUT", prefixed(f"/{kind}/x?{P}"),
        theirs=lambda answer: answer.status == 405,
        ours=lambda answer: (answer.status, answer.body["error_type"]) == (422, "RequestValidationError"),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["Accept", "Accept-Encoding", "Range", "Content-Type"])
def test_a_header_that_changes_nothing(name: str, rest_reads: RestPair) -> None:
    rest_reads.same("GET", prefixed(f"/entities?{P}"), headers={name: "text/html;q=1, identity, *, bytes=0-1"})


@pytest.mark.parametrize("path", ["/entities/%FF?", "/search?query=%FF&", "/search?query=%ED%A0%80&projects=rides&"])
def test_bytes_that_are_no_text(path: str, rest_reads: RestPair) -> None:
    rest_reads.differs(
        "not-text", "GET", prefixed(f"{path}{P}"),
        theirs=lambda answer: answer.status in (200, 404),
        ours=lambda answer: (answer.status, answer.body["error_type"]) == (422, "RequestValidationError"),
    )  # fmt: skip


def test_bytes_that_are_no_text_where_nothing_is_read(rest_reads: RestPair) -> None:
    rest_reads.same("GET", prefixed(f"/entities?tags=%FF&{P}"))


@pytest.mark.parametrize(
    "path", [*rest_requests.read_only_routes(), "/entities", "/feature_views/driver_rides", "/nothing"]
)
def test_head(path: str, rest_reads: RestPair) -> None:
    path = prefixed(f"{path}?{P}")
    status = rest_reads.ours.ask("GET", path).status
    rest_reads.differs(
        "head-answers", "HEAD", path,
        theirs=lambda answer: answer.status == (404 if "nothing" in path else 405),
        ours=lambda answer: (answer.status, answer.raw) == (status, b""),
    )  # fmt: skip


@pytest.mark.parametrize("path", ["/entities", "/feature_views/driver_rides", "/lineage/registry", "/projects"])
def test_an_answer_that_has_not_changed(path: str, rest_reads: RestPair) -> None:
    path = prefixed(f"{path}?{P}")
    tag = rest_reads.ours.ask("GET", path).headers["etag"]
    rest_reads.differs(
        "unchanged-answers", "GET", path, headers={"If-None-Match": tag},
        theirs=lambda answer: answer.status == 200 and "etag" not in answer.headers,
        ours=lambda answer: (answer.status, answer.raw, answer.headers["etag"]) == (304, b"", tag),
    )  # fmt: skip
    assert rest_reads.ours.ask("GET", path, headers={"If-None-Match": '"another"'}).status == 200


@pytest.mark.parametrize("page", ["99999999999999999999", "3000000000"])
@pytest.mark.parametrize("path, feast", [("/entities", (422, "ValueError")), ("/entities/all", (200, None))])
def test_a_page_far_away(path: str, feast: tuple[int, str | None], page: str, rest_reads: RestPair) -> None:
    rest_reads.differs(
        "far-pages", "GET", prefixed(f"{path}?{P}&page={page}&limit=1"),
        theirs=lambda answer: (answer.status, answer.body.get("error_type")) == feast,
        ours=lambda answer: (answer.status, answer.body["error_type"]) == (422, "RequestValidationError"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "since, feast, ours",
    [("20000101", 200, 400), ("2000-W01-1", 200, 400), ("2000-01-01T00:00:00+02:00", 400, 200)],
)
def test_moments(since: str, feast: int, ours: int, rest_reads: RestPair) -> None:
    rest_reads.differs(
        "moments", "GET", prefixed(f"/feature_views?{P}&updated_since={since}"),
        theirs=lambda answer: answer.status == feast,
        ours=lambda answer: answer.status == ours,
    )  # fmt: skip
