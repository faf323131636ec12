"""What a server tells of itself: over HTTP, in its log, and as traces."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

import harness

T = TypeVar("T")
PROMETHEUS_BIN = "FEAST_REGISTRY_TEST_PROMETHEUS_BIN"


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{harness.HOST}:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def until(look: Callable[[], T], is_so: Callable[[T], bool], within: float = 30) -> T:
    """Looks until it is so, and returns what it saw."""
    deadline = time.monotonic() + within
    while True:
        seen = look()
        if is_so(seen):
            return seen
        assert time.monotonic() < deadline, f"within {within} s it was not so: {seen}"
        time.sleep(0.1)


@dataclass
class Scraped:
    """What /metrics says at one moment."""

    text: str
    samples: dict[str, list[tuple[dict[str, str], float]]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, port: int) -> Scraped:
        status, text = get(port, "/metrics")
        assert status == 200, text
        scraped = cls(text)
        for family in text_string_to_metric_families(text):
            scraped.kinds[family.name] = family.type
            for sample in family.samples:
                scraped.samples.setdefault(sample.name, []).append((sample.labels, sample.value))
        return scraped

    def sum(self, name: str, **labels: str) -> float:
        fitting = [value for of, value in self.samples.get(name, []) if labels.items() <= of.items()]
        return sum(fitting)

    def labels(self, name: str, label: str) -> set[str]:
        return {labels[label] for labels, _ in self.samples.get(name, []) if label in labels}


class Collector(contextlib.AbstractContextManager["Collector"]):
    """In place of an OpenTelemetry collector: it takes traces over HTTP and keeps their spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        spans, services = self.spans, self.services

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/traces", self.path
                for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for attribute in of_resource.resource.attributes:
                        if attribute.key == "service.name":
                            services.add(attribute.value.string_value)
                    for of_scope in of_resource.scope_spans:
                        spans.extend(of_scope.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer((harness.HOST, 0), Handler)
        self.url = f"http://{harness.HOST}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@dataclass
class Prometheus:
    """A real one, which scrapes every second."""

    port: int

    def ask(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        status, text = get(self.port, f"/api/v1/{path}?{query}")
        answer = json.loads(text)
        assert status == 200 and answer["status"] == "success", f"{parameters}: {text}"
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        return self.ask("query", query=expression)["result"]


def prometheus_program(name: str) -> Path:
    folder = os.environ.get(PROMETHEUS_BIN)
    program = Path(folder or "", name)
    if not folder or not program.is_file():
        raise harness.SetupProblem(
            f"there is no {name}: run `cargo xtask test`, which finds or fetches Prometheus, or set {PROMETHEUS_BIN} to "
            "the folder of its programs"
        )
    return program


@contextlib.contextmanager
def prometheus(folder: Path, scrapes: int, rules: Path) -> Iterator[Prometheus]:
    port = harness.free_port()
    config = folder / "prometheus.yml"
    job = {"job_name": "feast-registry", "static_configs": [{"targets": [f"{harness.HOST}:{scrapes}"]}]}
    times = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config.write_text(json.dumps({"global": times, "scrape_configs": [job], "rule_files": [str(rules)]}))
    command = [prometheus_program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    log = folder / "prometheus.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, f"--web.listen-address={harness.HOST}:{port}"], stdout=out, stderr=out, cwd=folder
        )
    try:

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(OSError):
                return get(port, "/-/ready")[0] == 200
            return False

        until(is_ready, bool)
        yield Prometheus(port)
    finally:
        process.kill()
        process.wait()
