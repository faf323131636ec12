"""Proves that odd values, odd paths, odd bodies and other methods are answered as by Feast's own REST server."""

from __future__ import annotations

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


@pytest.mark.parametrize("method", ["HEAD", "PUT", "PATCH", "OPTIONS", "DELETE", "POST"])
@pytest.mark.parametrize("path", rest_requests.read_only_routes())
def test_another_method(method: str, path: str, rest_reads: RestPair) -> None:
    """Not allowed, however useful HEAD would be."""
    rest_reads.same(method, prefixed(f"{path}?{P}"))


@pytest.mark.parametrize("method", ["HEAD", "PUT", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("kind", rest_requests.WRITTEN)
def test_another_method_where_objects_are_written(method: str, kind: str, rest_reads: RestPair) -> None:
    for path in (f"/{kind}?{P}", f"/{kind}/x?{P}", f"/{kind}/all"):
        rest_reads.same(method, prefixed(path))


@pytest.mark.parametrize("name", ["Accept", "Accept-Encoding", "If-None-Match", "Range", "Content-Type"])
def test_a_header_that_changes_nothing(name: str, rest_reads: RestPair) -> None:
    rest_reads.same("GET", prefixed(f"/entities?{P}"), headers={name: "text/html;q=1, identity, *, bytes=0-1"})


@pytest.mark.parametrize(
    "path",
    [
        "/entities/%FF?",
        "/entities?tags=%FF&",
        "/search?query=%FF&projects=rides&",
        "/search?query=%ED%A0%80&projects=rides&",
    ],
)
def test_bytes_that_are_no_text(path: str, rest_reads: RestPair) -> None:
    rest_reads.same("GET", prefixed(f"{path}{P}"))
