"""Proves that what is written over HTTP is answered, stored and read back as by Feast's own REST server.

Each kind is a sequence of requests; both servers get the whole of it, over registries that were equal, before the
first answer is compared.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cache

import pytest

import rest
import rest_repo
import rest_writes
from rest import Answer
from rest_pair import DIFFERENCES, OF_WRITES, RestPair
from rest_requests import prefixed
from rest_writes import Step


@pytest.fixture(scope="module")
def writes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestPair]:
    """Both servers, each over a registry of its own; the registries are equal."""
    theirs, ours = (tmp_path_factory.mktemp(side) / "registry.db" for side in ("feast-rest", "our-rest"))
    rest_repo.fill_for_writes(theirs, [*map(rest_writes.project_of, rest_writes.SEQUENCES), "visited"])
    shutil.copy(theirs, ours)
    project = rest_writes.project_of("refresh")
    with rest.start_feast_rest(theirs, project=project) as oracle, rest.start_our_rest(ours, project=project) as own:
        yield RestPair(own.wait_serving(), oracle.wait_serving(), OF_WRITES)


@pytest.fixture(scope="module")
def answers(writes: RestPair):  # type: ignore[no-untyped-def]
    """A kind's sequence, and the answers of both to each of its steps."""

    @cache
    def of(kind: str) -> list[tuple[Step, Answer, Answer]]:
        steps = rest_writes.sequence(kind)
        return [(step, *writes.both(step.method, prefixed(step.path), step.body, raw=step.raw)) for step in steps]

    return of


STEPS = [
    (kind, number)
    for kind in rest_writes.SEQUENCES
    for number, step in enumerate(rest_writes.sequence(kind))
    if not step.tidies
]


@pytest.mark.parametrize("kind, number", STEPS, ids=[f"{kind}-{number}" for kind, number in STEPS])
def test_a_step(kind: str, number: int, answers, writes: RestPair) -> None:  # type: ignore[no-untyped-def]
    """The same status and body, or the documented difference."""
    step, ours, theirs = answers(kind)[number]
    if step.differs:
        reason = DIFFERENCES[step.differs]
        assert theirs.status != step.ours, f"Feast no longer differs; delete the entry? {reason}\n{step}: {theirs}"
        assert ours.status == step.ours, f"not as documented: {reason}\n{step}: {ours}"
    else:
        writes.assert_same(str(step), ours, theirs)


@pytest.mark.parametrize(
    "kind_of_content",
    [
        "application/json; charset=utf-8",
        "application/vnd.api+json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "",
    ],
)
def test_the_kind_of_content(kind_of_content: str, writes: RestPair) -> None:
    """Only what says that it is JSON is read as JSON."""
    body = b'{"name": "content", "project": "written_refresh"}'
    writes.same("POST", prefixed("/entities"), raw=body, headers={"Content-Type": kind_of_content})


BODIES = {
    "a byte order mark": '{"name": "marked", "project": "written_refresh"}'.encode("utf-8-sig"),
    "no text": b"\xff\xfe",
    "escapes": b'{"name": "\\u65e5\\ud83d\\ude95", "project": "written_refresh"}',
    "more after the end": b'{"name": "more", "project": "written_refresh"} x',
    "a comma too much": b'{"name": "comma", "project": "written_refresh",}',
    "single quotes": b"{'name': 'single', 'project': 'written_refresh'}",
    "blanks around": b' \n {"name": "blanks", "project": "written_refresh"}\r\n ',
}
NO_UTF_8 = {
    "UTF-16": '{"name": "sixteen", "project": "written_refresh"}'.encode("utf-16"),
    "Latin-1": '{"name": "é", "project": "written_refresh"}'.encode("latin-1"),
    "half a surrogate": b'{"name": "\\ud800", "project": "written_refresh"}',
}


@pytest.mark.parametrize("what", BODIES)
def test_a_body_of_odd_bytes(what: str, writes: RestPair) -> None:
    writes.same("POST", prefixed("/entities"), raw=BODIES[what])


@pytest.mark.parametrize("what", NO_UTF_8)
def test_a_body_that_is_not_in_utf_8(what: str, writes: RestPair) -> None:
    writes.differs(
        "encodings", "POST", prefixed("/entities"), raw=NO_UTF_8[what],
        theirs=lambda answer: answer.body.get("error_type") != "RequestValidationError",
        ours=lambda answer: (answer.status, answer.body["error_type"]) == (422, "RequestValidationError"),
    )  # fmt: skip


def test_visits_are_remembered(writes: RestPair) -> None:
    """Objects that were read, oldest first within a project; lists, failures and other kinds of path do not count."""
    read = [
        "/entities/driver", "/data_sources/trips", "/feature_views/rides_view", "/feature_services/rides_service",
        "/features/rides_view/rides", "/label_views/labelled", "/entities", "/entities/nobody", "/entities/driver",
    ]  # fmt: skip
    for path in read:
        writes.same("GET", prefixed(f"{path}?project=visited"))

    def mask(body: dict) -> None:
        for visit in body["visits"]:
            assert visit["timestamp"].endswith("+00:00"), visit
            visit["timestamp"] = "a moment"

    options = ["", "&object=entities", "&object=nothing", "&page=1&limit=2", "&page=2&limit=2", "&limit=3", "&page=2"]
    for option in [*options, "&sort_by=object_name", "&sort_by=object&sort_order=desc"]:
        answer = writes.same("GET", prefixed(f"/metrics/recently_visited?project=visited{option}"), mask)
    assert len(answer.body["visits"]) == 5
