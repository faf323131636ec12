"""Proves that the OpenAPI document is valid, that the server keeps to it, and that nothing that is sent to it brings it down."""

from __future__ import annotations

import gzip
import json
import random
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openapi_spec_validator import validate

import harness
import rest
import rest_requests
from openapi_document import PREFIX, Document
from rest import RestServer
from rest_requests import prefixed


@pytest.fixture(scope="module")
def served(rest_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestServer]:
    """A server over a rich registry of its own, which must not panic, whatever it is sent."""
    registry = rest.copy_of(rest_registry, tmp_path_factory.mktemp("openapi"))
    with rest.start_our_rest(registry) as server:
        yield server.wait_serving()
        assert server.process.poll() is None, server.log_text()[-3000:]
        server.close()  # It may have been idle for longer than it is kept.
        assert server.ask("GET", "/version").status == 200
        assert "panic" not in server.log_text()


@pytest.fixture(scope="module")
def document(served: RestServer) -> Document:
    return Document(served.ask("GET", "/openapi.json").body)


# --- the document and the pages ------------------------------------------------------------------------------


def test_the_document_is_valid(document: Document) -> None:
    """By the rules of OpenAPI, references and defaults included."""
    validate(document.document)
    assert document.document["servers"] == [{"url": PREFIX}]


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "", "/docs/", "/openapi.json/"])
def test_what_needs_no_token(path: str, guarded: RestServer) -> None:
    """The pages and the document are there for everybody, with the prefix and without it; the registry is not."""
    assert guarded.ask("GET", "/projects").status == 401
    for asked in (path, prefixed(path)):
        answer = guarded.ask("GET", asked or "/")
        if path.rstrip("/") != path != "/":
            assert (answer.status, answer.headers["location"]) == (307, asked.rstrip("/"))
        else:
            assert answer.status == 200, answer
            assert guarded.ask("POST", asked or "/", {}).status == 405


@pytest.fixture(scope="module")
def guarded(rest_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestServer]:
    """A server that asks for tokens. Where they would come from does not matter here: nobody has one."""
    registry = rest.copy_of(rest_registry, tmp_path_factory.mktemp("guarded"))
    nowhere = f"https://{harness.HOST}:{harness.free_port()}/.well-known/openid-configuration"
    auth = {"type": "oidc", "auth_discovery_url": nowhere, "client_id": "feast"}
    with rest.start_our_rest(registry, blocks={"auth": auth}) as server:
        yield server.wait_serving()


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_needs_nothing_from_elsewhere(path: str, served: RestServer) -> None:
    """No script, no asset, and a policy under which a browser would load none."""
    answer = served.ask("GET", path)
    page = answer.raw.decode()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"<(script|img|link|iframe|object|form)|@import|url\(|\bsrc=|\son\w+=", page)
    targets = set(re.findall(r'href="#([^"]+)"', page))
    assert targets <= set(re.findall(r'id="([^"]+)"', page)), "every link within the page leads somewhere"


def test_the_page_has_every_operation(served: RestServer, document: Document) -> None:
    page = served.ask("GET", "/docs").raw.decode()
    operations = [one for methods in document.document["paths"].values() for one in methods.values()]
    assert len(operations) > 60
    for operation in operations:
        assert f'id="{operation["operationId"]}"' in page
    assert page.count('<pre class="copy"') >= len(operations), "each with a line for curl"


def test_a_program_at_the_root_is_told_where_to_look(served: RestServer) -> None:
    answer = served.ask("GET", "/", headers={"Accept": "application/json"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.body["docs"] == "/docs" and served.ask("GET", answer.body["openapi"]).status == 200


@pytest.mark.parametrize(
    "path", ["/openapi.json", "/docs", "/", "/entities?project=rides", "/entities/driver?project=rides"]
)
def test_what_a_client_has_is_not_sent_again(path: str, served: RestServer, document: Document) -> None:
    first = served.ask("GET", path)
    again = served.ask("GET", path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.raw, again.headers["etag"]) == (304, b"", first.headers["etag"])
    packed = served.ask("GET", path, headers={"Accept-Encoding": "gzip"})
    whole = gzip.decompress(packed.raw) if packed.headers.get("content-encoding") == "gzip" else packed.raw
    # Maps of a message come in any order.
    assert (json.loads(whole) == first.body) if first.body else (whole == first.raw)


# --- answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [group for group in rest_requests.GROUPS if group != "shapes"])
def test_answers_are_as_documented(group: str, served: RestServer, document: Document) -> None:
    """Each answer that is compared with Feast's elsewhere: its status, its kind of content, and every field of it."""
    checked = 0
    for path in map(prefixed, rest_requests.GROUPS[group]()):
        operation = document.operation("GET", path)
        answer = served.ask("GET", path)
        if operation and answer.status != 307:
            document.check(operation, answer)
            checked += 1
    assert checked > 2, "the requests are of the document"


# --- schemathesis ----------------------------------------------------------------------------------------------

CHECKS = [
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "response_headers_conformance",
]  # fmt: skip
CONFIGURATION = """
# What only Feast's Python does is answered with 501.
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "501"]
"""
RUNS = {
    # Whole objects have so many values at bounds that it takes minutes.
    "bounds": ["--phases", "examples,coverage", "--exclude-method", "PUT", "--exclude-path", "/batch"],
    "chance": ["--phases", "examples,fuzzing", "--max-examples", "8"],
}


@pytest.mark.parametrize("run", RUNS)
def test_schemathesis_finds_nothing(run: str, served: RestServer, document: Document, tmp_path: Path) -> None:
    """Valid and invalid requests, made from the document: no error of the server, no answer that is not documented."""
    (tmp_path / "openapi.json").write_text(json.dumps(document.document))
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url",
        f"http://{harness.HOST}:{served.port}{PREFIX}", "--checks", ",".join(CHECKS), "--seed", "67", "--no-color",
        "--warnings", "off", "--generation-database", "none", "--continue-on-failure", *RUNS[run],
    ]  # fmt: skip
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    assert "No issues found" in ran.stdout, ran.stdout[-3000:]


# --- requests of no document -----------------------------------------------------------------------------------

ODD = [
    b"%00", b"%FF", b"%", b"%2", b"%zz", b"%2F", b"%2e%2e", b"..", b"%ED%A0%80", b"%F0%9F%9A%95", b"'", b"\\", b"%0d%0aX:y",
    b"{name}", b"*", b";", b"+", b"a" * 5000, b"%41" * 2000, b"-1", b"NaN", b"9" * 400, b"null", b"all", b"\xc3\xa9", b"\x80",
]  # fmt: skip
PATHS = [
    b"/entities", b"/data_sources", b"/feature_views", b"/label_views", b"/features", b"/feature_services", b"/permissions",
    b"/saved_datasets", b"/projects", b"/lineage/objects/entity", b"/lineage/complete", b"/search", b"/metrics/popular_tags",
    b"/compute_engines", b"/materialization_jobs", b"/monitoring", b"/docs", b"",
]  # fmt: skip
NAMES = [
    b"project", b"page", b"limit", b"sort_by", b"sort_order", b"tags", b"allow_cache", b"query", b"projects", b"entity",
    b"updated_since", b"include_relationships", b"dry_run", b"",
]  # fmt: skip


def odd_target(chance: random.Random) -> bytes:
    path = chance.choice([b"", b"/api/v1", b"/api/v1/api/v1", b"/"]) + chance.choice(PATHS)
    path += b"".join(b"/" + chance.choice(ODD) for _ in range(chance.randrange(4)))
    pairs = [
        chance.choice(NAMES) + chance.choice([b"=", b"", b"=="]) + chance.choice([*ODD, b"rides", b"1", b"true"])
        for _ in range(chance.choice([0, 1, 2, 4, 40]))
    ]
    return (path or b"/") + (b"?project=rides&" + b"&".join(pairs) if pairs else chance.choice([b"", b"?"]))


def deep(opening: bytes, inner: bytes, closing: bytes) -> bytes:
    return opening * 100_000 + inner + closing * 100_000


BODIES = [
    b"", b"null", b"[]", b"{}", b"0", b'"', b"\x00", b"\xff\xfe", b"{" * 50, deep(b"[", b"1", b"]"), deep(b'{"a":', b"1", b"}"),
    b'{"name":"x","project":"rides","tags":' + deep(b'{"a":', b"1", b"}") + b"}", b'{"spec":' * 2000 + b"1" + b"}" * 2000,
    b'{"name":"\\u0000","project":"rides"}', b'{"name":"x","project":"\\ud800"}', b'{"name":"x","project":"rides","value_type":1e999}',
    b'{"name":"x","project":"rides","value_type":' + b"9" * 5000 + b"}", b'{"name":"x","name":"y","project":"rides"}',
    b'{"name":' + json.dumps("\u65e5" * 40_000).encode() + b',"project":"rides"}', b'{"edits":[{"kind":"entity"}]}',
    b'{"edits":' + b"[" * 500 + b"]" * 500 + b"}", b'{"type":7,"name":"x","project":"rides","file_options":null}',
    b'{"batchSource":' * 300 + b"{}" + b"}" * 300, b'{"spec":{"name":"x","ttl":"1e9s"}}', b'{"spec":{"name":"x","tags":{"a":null}}}',
    b'{"meta":{"createdTimestamp":"9999-12-31T23:59:60Z"},"spec":{"name":"x"}}', b'{"spec":{"name":"x","valueType":99999999999}}',
]  # fmt: skip
WRITES = [
    (b"POST", [b"/entities", b"/data_sources", b"/feature_views", b"/feature_services", b"/permissions", b"/saved_datasets",
               b"/batch?project=rides", b"/registry/refresh", b"/saved_datasets/create"]),
    (b"PUT", [b"/entities/x?project=rides", b"/data_sources/x?project=rides", b"/feature_views/x?project=rides",
              b"/feature_services/x?project=rides", b"/permissions/x?project=rides", b"/saved_datasets/x?project=rides",
              b"/projects/x"]),
]  # fmt: skip


def exchange(port: int, head: bytes, body: bytes = b"") -> int:
    """The status of the answer to bytes that no client library would send; 0 if there is none."""
    with socket.create_connection((harness.HOST, port), timeout=30) as connection:
        connection.sendall(head + b"Host: localhost\r\nConnection: close\r\n\r\n" + body)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:  # What was not read when the connection was closed.
            pass
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", received)
    assert found or not received, received[:200]
    return int(found[1]) if found else 0


def assert_no_fault(statuses: dict[bytes, int]) -> None:
    faults = {asked[:300]: status for asked, status in statuses.items() if status >= 500 and status not in (501, 503)}
    assert not faults, faults


def test_odd_paths_and_queries(served: RestServer) -> None:
    """Bytes, escapes, what is long, repeated, or of another alphabet: an answer, and no error of the server."""
    chance = random.Random(67)
    targets = [odd_target(chance) for _ in range(400)]
    statuses = {target: exchange(served.port, b"GET " + target + b" HTTP/1.1\r\n") for target in targets}
    assert_no_fault(statuses)
    assert {200, 404, 422} <= set(statuses.values()), "some are understood"


def test_odd_bodies(served: RestServer) -> None:
    """Not JSON, not what is expected, deeper than anything, with numbers that nothing holds."""
    statuses = {}
    for method, paths in WRITES:
        for path in paths:
            for body in BODIES:
                head = (
                    method
                    + b" "
                    + path
                    + b" HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
                )
                statuses[method + path + body] = exchange(served.port, head, body)
    assert_no_fault(statuses)
    assert {200, 201, 422} <= set(statuses.values()), sorted(set(statuses.values()))


@pytest.mark.parametrize(
    "head",
    [
        b'GET /entities?project=rides HTTP/1.1\r\nIf-None-Match: \xff\x80,,"\r\n',
        b"GET /entities?project=rides HTTP/1.1\r\nAccept-Encoding: gzip;q=,;;,*;q=x\r\n",
        b"GET / HTTP/1.1\r\nAccept: ;;q=,/,*/;q=nan,application/json;q=inf\r\n",
        b"GET /entities?project=rides HTTP/1.1\r\nOrigin: \xff\r\n",
        b'DELETE /entities/nobody?project=rides HTTP/1.1\r\nIf-Match: ,"",W/,*,\xff\r\n',
        b'DELETE /entities/nobody?project=rides HTTP/1.1\r\nIf-None-Match: "x"\r\n',
        b"POST /entities HTTP/1.1\r\nContent-Type: application/json; charset=\xff\r\nContent-Length: 2\r\n",
        b"GET /entities?project=rides HTTP/1.1\r\nAuthorization: Bearer \xff\r\n",
        b"BREW /entities HTTP/1.1\r\n",
        b"GET http://elsewhere/entities?project=rides HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
    ],
)
def test_odd_headers(head: bytes, served: RestServer) -> None:
    status = exchange(served.port, head, b"{}" if b"Content-Length" in head else b"")
    assert 200 <= status < 500, status
