"""Servers of the REST API, Feast's own and ours, and what is asked of them over HTTP."""

from __future__ import annotations

import http.client
import json
import re
import sqlite3
import subprocess
import sys
import time
import uuid
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness

REST_LINE = re.compile(r"REST API over HTTP on \S+:(\d+)$", re.MULTILINE)


@dataclass
class Answer:
    """What came back over HTTP."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        """The JSON, or None where there is none."""
        try:
            return json.loads(self.raw)
        except ValueError:
            return None


@dataclass
class RestServer:
    """A server of the REST API in a process of its own."""

    name: str
    db: Path
    log: Path
    process: subprocess.Popen
    port: int = 0
    _connection: http.client.HTTPConnection | None = field(default=None, repr=False)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_serving(self, timeout: float = 120) -> RestServer:
        deadline = time.monotonic() + timeout
        while not self._is_serving():
            code = self.process.poll()
            ended = f"exited with {code}" if code is not None else f"did not serve within {timeout} s"
            assert code is None and time.monotonic() < deadline, f"{self.name} {ended}:\n{self.log_text()[-3000:]}"
            time.sleep(0.02)
        return self

    def _is_serving(self) -> bool:
        if not self.port:
            found = REST_LINE.search(self.log_text())
            self.port = int(found[1]) if found else 0
        try:
            # Where tokens are asked for, who has none is answered too.
            return self.port != 0 and self.ask("GET", "/version").status in (200, 401)
        except OSError:
            return False

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request whose redirects are not followed; `body` is sent as JSON, `raw` as it is."""
        payload = raw if raw is not None or body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if payload is not None else {}
        sent |= headers or {}
        try:
            answer = self._exchange(method, path, payload, sent)
        except (http.client.HTTPException, OSError):
            # The next request needs a connection that is not in the middle of an answer.
            self.close()
            raise
        if answer.status == 500:
            # Feast's server then closes the connection without saying so in its answer.
            self.close()
        return answer

    def _exchange(self, method: str, path: str, payload: bytes | None, headers: dict[str, str]) -> Answer:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(harness.HOST, self.port, timeout=60)
        self._connection.request(method, path, payload, headers)
        response = self._connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> RestServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_feast_rest(registry: Path, blocks: dict[str, Any] | None = None, project: str = "rides") -> RestServer:
    """Feast's own REST registry server over its SqlRegistry; `blocks` are other ones of its feature_store.yaml."""
    port = harness.free_port()
    config = _config(registry, blocks, project, cache_ttl_seconds=600)
    command = [sys.executable, str(harness.HERE / "feast_rest.py"), str(config), str(port)]
    return _start("feast-rest", command, registry, port)


def start_our_rest(
    registry: Path, *options: str, blocks: dict[str, Any] | None = None, project: str = "rides"
) -> RestServer:
    """Our server with its REST API alone."""
    # The project matters to what the REST API counts as its own: only a feature_store.yaml can name it.
    command = harness.our_command(_config(registry, blocks, project), 0)
    return _start("our-rest", [*command, "--no-grpc", "--rest-api", "--rest-port", "0", *options], registry, 0)


def copy_of(registry: Path, folder: Path) -> Path:
    """The same registry in another folder, to be written to."""
    copy = folder / "registry.db"
    with closing(sqlite3.connect(registry)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def _config(registry: Path, blocks: dict[str, Any] | None, project: str, **settings: Any) -> Path:
    config = registry.parent / f"rest-{uuid.uuid4().hex[:8]}.yaml"
    harness.write_registry_config(config, registry, project, blocks, **settings)
    return config


def _start(name: str, command: list[str], registry: Path, port: int) -> RestServer:
    log = registry.parent / f"{name}-{uuid.uuid4().hex[:8]}.log"
    process = harness.spawn_logged(command, registry.parent, log)
    return RestServer(name, registry, log, process, port)
