"""Proves what operators rely on: metrics that count what happened, health over HTTP, a log that can be followed, traces; and
that the dashboard and the alert rules in docs/monitoring ask for what there is, in a real Prometheus.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from feast.protos.feast.registry import RegistryServer_pb2 as api
from feast.protos.feast.registry import RegistryServer_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

import databases
import harness
import kinds
import throwaway
from differential import ask
from monitoring import Collector, Scraped, get, prometheus, prometheus_program, until

DOCS = harness.HERE.parent / "docs"
SERVICE = "feast.registry.RegistryServer"


def start(db: Any, *options: str, **more: Any) -> tuple[harness.Server, int]:
    """A server, and the port of its metrics."""
    port = harness.free_port()
    return harness.start_ours(db, "--metrics-addr", f"{harness.HOST}:{port}", *options, **more), port


def store(server: harness.Server, project: str, name: str = "driver") -> None:
    ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto(name), project)).ok()


def read(server: harness.Server, project: str, name: str = "driver") -> Any:
    return ask(server, *kinds.ENTITY.get(name, project))


def log_lines(server: harness.Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def test_metrics_count_what_happened(tmp_path: Path, project: str) -> None:
    server, metrics = start(tmp_path / "registry.db")
    with harness.running(server):
        store(server, project)
        for _ in range(3):
            read(server, project).ok()
        read(server, project, "nobody")
        unknown = server.channel.unary_unary("/not/there", lambda x: x, lambda x: x)
        with pytest.raises(grpc.RpcError):
            unknown(b"")
        scraped = until(lambda: Scraped.of(metrics), lambda seen: seen.sum("grpc_server_in_flight_calls") == 0)

        def handled(method: str, code: str, service: str = SERVICE) -> float:
            return scraped.sum("grpc_server_handled_total", grpc_service=service, grpc_method=method, grpc_code=code)

        assert handled("ApplyEntity", "OK") == 1
        assert handled("GetEntity", "OK") == 3
        assert handled("GetEntity", "NotFound") == 1
        assert handled("unknown", "Unimplemented", "unknown") == 1
        assert scraped.sum("grpc_server_started_total", grpc_method="GetEntity") == 4
        assert scraped.sum("grpc_server_handling_seconds_count", grpc_method="GetEntity") == 4
        assert 0 < scraped.sum("grpc_server_handling_seconds_sum", grpc_method="GetEntity") < 4
        for direction in ("received", "sent"):
            assert scraped.sum(f"grpc_server_{direction}_bytes_total", grpc_method="GetEntity") > 4 * 10
        operations = "feast_registry_storage_operations_total"
        assert scraped.sum(operations, operation="commit", outcome="ok", storage="primary") == 1
        assert scraped.sum(operations, operation="read", outcome="ok") >= 4
        assert scraped.sum("feast_registry_storage_operation_seconds_count", operation="commit") == 1
        revision = scraped.sum("feast_registry_journal_revision")
        assert revision > 0
        assert scraped.sum("feast_registry_connections") == 1
        assert scraped.sum("feast_registry_ready") == 1
        assert scraped.labels("feast_registry_build_info", "version") == {"0.1.0"}
        assert scraped.sum("process_resident_memory_bytes") > 1 << 20
        assert scraped.sum("process_open_fds") > 3
        # So that the first of these can raise an alarm.
        unknown_outcome = {"operation": "commit", "storage": "primary", "outcome": "unknown_outcome"}
        assert (unknown_outcome, 0) in scraped.samples[operations]
        assert ({**unknown_outcome, "outcome": "conflict"}, 0) in scraped.samples[operations]
        assert ({"outcome": "error"}, 0) in scraped.samples["feast_registry_cache_refreshes_total"]
        for reason in ("limit", "system"):
            assert ({"reason": reason}, 0) in scraped.samples["feast_registry_connections_refused_total"]
        # These are a database server's.
        for of_databases in ("storage_retries_total", "lost_answers_total", "pool_limit"):
            assert not scraped.samples.get(f"feast_registry_{of_databases}"), of_databases
        # Names are for nobody's time series.
        assert project not in scraped.text and "driver" not in scraped.text

        store(server, project, "rider")
        assert Scraped.of(metrics).sum("feast_registry_journal_revision") > revision
        ask(server, "Refresh", api.RefreshRequest()).ok()
        scraped = Scraped.of(metrics)
        assert scraped.sum("feast_registry_cache_refreshes_total", outcome="ok") == 1
        assert time.time() - 60 < scraped.sum("feast_registry_cache_refreshed_timestamp_seconds") <= time.time()
        # Two entities and their project.
        assert scraped.sum("feast_registry_cache_objects") == 3
        assert scraped.sum("feast_registry_cache_bytes") > 20


def test_every_metric_is_documented(tmp_path: Path) -> None:
    """Each name that docs/operations.md says is there, and the other way round."""
    documented = set(
        re.findall(r"^\| `((?:feast_registry|grpc_server)_\w+)`", (DOCS / "operations.md").read_text(), re.M)
    )
    with databases.own_database("postgres", tmp_path) as database:
        server, metrics = start(database)
        with harness.running(server):
            store(server, "p")
            ask(server, "Refresh", api.RefreshRequest()).ok()
            text = Scraped.of(metrics).text
    there = set(re.findall(r"^# HELP ((?:feast_registry|grpc_server)_\w+)", text, re.M))
    # Only where there is one; registry-server/tests/tls.rs looks at it.
    there.add("feast_registry_tls_certificate_not_after_timestamp_seconds")
    assert there == documented, there ^ documented


def test_the_pool_and_retries_of_a_database(tmp_path: Path, project: str) -> None:
    with throwaway.running("postgres") as postgres:
        server, metrics = start(
            postgres.database(), settings={"sqlalchemy_config_kwargs": {"pool_size": 3, "max_overflow": 1}}
        )
        with harness.running(server):
            store(server, project)
            pool = "feast_registry_pool_connections"
            # Others are told of a commit a moment after it is answered, on a connection of the pool.
            scraped = until(lambda: Scraped.of(metrics), lambda scraped: scraped.sum(pool, state="in_use") == 0)
            assert scraped.sum("feast_registry_pool_limit") == 4
            assert scraped.sum(pool, state="idle") >= 1, scraped.text
            assert scraped.sum("feast_registry_pool_wait_seconds_count") >= 2
            (location,) = scraped.labels(pool, "database")
            assert location == f"{harness.HOST}:{postgres.url().port}/{postgres.url().database}"
            assert scraped.sum("feast_registry_storage_retries_total") == 0

            # Life and readiness are two questions.
            assert get(metrics, "/livez") == (200, "ok\n") and get(metrics, "/readyz") == (200, "ok\n")
            postgres.end(signal.SIGKILL)
            until(lambda: get(metrics, "/readyz")[0], lambda status: status == 503)
            assert get(metrics, "/livez")[0] == 200
            scraped = Scraped.of(metrics)
            assert scraped.sum("feast_registry_ready") == 0
            # A client is told that the database is away, and not where it is.
            refused = read(server, project)
            assert refused.code == grpc.StatusCode.UNAVAILABLE, refused
            assert str(postgres.url().port) not in str(refused) and "postgresql" not in str(refused), refused
            server.says("a request failed, since the storage did")
            assert Scraped.of(metrics).sum("feast_registry_storage_retries_total", reason="connection") >= 1
            postgres.start()
            until(lambda: get(metrics, "/readyz")[0], lambda status: status == 200)


def test_a_server_that_stops_says_so_first(tmp_path: Path) -> None:
    server, metrics = start(tmp_path / "registry.db", "--drain", "3")
    with harness.running(server):
        server.close_channel()
        server.process.send_signal(signal.SIGTERM)
        until(lambda: get(metrics, "/readyz")[0], lambda status: status == 503, within=2)
        assert get(metrics, "/livez")[0] == 200
        assert server.process.wait(20) == 0


def test_a_call_can_be_followed_in_the_log(tmp_path: Path, project: str) -> None:
    """A request is named by its client or by the server, and a slow one says what it waited for."""
    server = harness.start_ours(tmp_path / "registry.db", "--log-format", "json", "--slow-call", "0.2")
    with harness.running(server):
        store(server, project)
        stub = RegistryServer_pb2_grpc.RegistryServerStub(server.channel)
        request = api.GetEntityRequest(name="driver", project=project)
        named = stub.GetEntity.with_call(request, metadata=[("x-request-id", "deploy-7")])[1]
        assert ("x-request-id", "deploy-7") in [tuple(pair) for pair in named.initial_metadata()]
        written = stub.ApplyEntity.with_call(kinds.ENTITY.apply(kinds.ENTITY.proto("driver"), project)[1])[1]
        with pytest.raises(grpc.RpcError) as failed:
            stub.GetEntity(api.GetEntityRequest(name="nobody", project=project))
        for metadata in (written.initial_metadata(), failed.value.trailing_metadata()):
            assert re.fullmatch("[0-9a-f]{16}", dict(metadata)["x-request-id"])
        # Of a read that went well nobody asks.
        assert "x-request-id" not in dict(stub.GetEntity.with_call(request)[1].initial_metadata())
        assert not [line for line in log_lines(server) if line["level"] == "WARN" and "took" in line["message"]]

        # Another program holds the lock of the file for a while.
        locked, release = threading.Event(), threading.Event()

        def hold() -> None:
            import sqlite3

            connection = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
            connection.execute("BEGIN IMMEDIATE")
            locked.set()
            release.wait(20)
            connection.execute("ROLLBACK")
            connection.close()

        holder = threading.Thread(target=hold)
        holder.start()
        locked.wait(20)
        threading.Timer(0.6, release.set).start()
        rpc, slow = kinds.ENTITY.apply(kinds.ENTITY.proto("rider"), project)
        getattr(stub, rpc)(slow, metadata=[("x-request-id", "slow-one")])
        holder.join()
        (line,) = until(
            lambda: [line for line in log_lines(server) if line["level"] == "WARN" and "took" in line["message"]], bool
        )
        assert line["span"]["id"] == "slow-one" and line["span"]["method"] == "ApplyEntity"
        assert line["code"] == "OK" and re.search(r"its commit \(0\.[456789]", line["message"]), line


def test_traces_go_on_from_the_client_to_the_storage(tmp_path: Path, project: str) -> None:
    with Collector() as collector:
        server = harness.start_ours(tmp_path / "registry.db", "--otlp-endpoint", collector.url)
        with harness.running(server):
            trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
            context = [("traceparent", f"00-{trace}-{parent}-01")]
            rpc, request = kinds.ENTITY.apply(kinds.ENTITY.proto("driver"), project)
            stub = RegistryServer_pb2_grpc.RegistryServerStub(server.channel)
            getattr(stub, rpc)(request, metadata=context)
            with pytest.raises(grpc.RpcError):
                stub.GetEntity(api.GetEntityRequest(name="nobody", project=project), metadata=context)
            # What was not sent yet is sent at the end.
            assert server.stop() == 0
        spans = [span for span in collector.spans if span.trace_id.hex() == trace]
        by_name = {span.name: span for span in spans}
        call = by_name[f"{SERVICE}/ApplyEntity"]
        assert call.parent_span_id.hex() == parent and call.kind == Span.SPAN_KIND_SERVER
        of_call = [span for span in spans if span.parent_span_id == call.span_id]
        assert {span.name for span in of_call} == {"read", "commit"}, [span.name for span in spans]
        for span in of_call:
            assert span.kind == Span.SPAN_KIND_CLIENT
            assert (
                call.start_time_unix_nano
                <= span.start_time_unix_nano
                < span.end_time_unix_nano
                <= call.end_time_unix_nano
            )
        attributes = {item.key: item.value for item in call.attributes}
        assert attributes["rpc.method"].string_value == "ApplyEntity"
        assert attributes["rpc.grpc.status_code"].int_value == 0
        # That something is not there is no fault of the server.
        assert by_name[f"{SERVICE}/GetEntity"].status.code == Status.STATUS_CODE_UNSET
        assert collector.services == {"feast-registry"}


def entities(stub: Any, project: str, count: int, characters: int) -> None:
    for number in range(count):
        entity = kinds.ENTITY.proto(f"e{number}")
        entity.spec.description = ("what an entity is, at great length; " * characters)[:characters]
        rpc, request = kinds.ENTITY.apply(entity, project)
        getattr(stub, rpc)(request)


@pytest.mark.parametrize(
    "compression", [grpc.Compression.Gzip, grpc.Compression.Deflate, grpc.Compression.NoCompression]
)
def test_large_answers_are_compressed_if_told_to(compression: grpc.Compression, tmp_path: Path, project: str) -> None:
    """grpc-core's clients offer gzip by themselves; also those that compress what they send themselves are answered."""
    server, metrics = start(tmp_path / "registry.db", "--compress-above", "100000")
    with harness.running(server):
        channel = grpc.insecure_channel(server.address, options=harness.UNLIMITED, compression=compression)
        stub = RegistryServer_pb2_grpc.RegistryServerStub(channel)
        for count, most in ((10, 200_000), (100, 30_000)):
            entities(stub, project, count, 9_000)
            before = Scraped.of(metrics).sum("grpc_server_sent_bytes_total", grpc_method="ListEntities")
            for allow_cache in (False, True):
                listed = stub.ListEntities(api.ListEntitiesRequest(project=project, allow_cache=allow_cache)).entities
                assert len(listed) == count and all(len(entity.spec.description) == 9_000 for entity in listed)
            sent = until(
                lambda: Scraped.of(metrics).sum("grpc_server_sent_bytes_total", grpc_method="ListEntities"),
                lambda sent, before=before: sent > before,
            )
            # Ten have 90 kB, which is not worth it; a hundred have 900 kB.
            assert 1_000 < sent - before < most, (count, sent - before)
        channel.close()


def test_the_log_says_once_what_clients_do_not_take(tmp_path: Path, project: str) -> None:
    """Feast's client takes 4 MiB, counts what a message unpacks to as well, and cannot be told otherwise."""
    server = harness.start_ours(tmp_path / "registry.db", "--compress-above", "100000")
    with harness.running(server):
        remote = harness.remote_registry(server.port, project)
        entities(server.stub, project, 50, 100_000)
        for _ in range(2):
            with pytest.raises(grpc.RpcError, match="larger than max"):
                remote.list_entities(project)
        assert server.says("larger than the 4 MiB").count("larger than the 4 MiB") == 1
        server.says("list_entities")
        # A page at a time it has them.
        page = api.ListEntitiesRequest(project=project, pagination=api.PaginationParams(page=1, limit=10))
        assert len(server.stub.ListEntities(page).entities) == 10


def test_a_start_waits_for_its_database_if_told_to(tmp_path: Path, project: str) -> None:
    with throwaway.running("postgres") as postgres:
        postgres.end(signal.SIGKILL)
        at_once = harness.start_ours(postgres.database(), wait=False)
        assert at_once.process.wait(30) == 1 and "--wait-for-storage" in at_once.log.read_text()
        server, metrics = start(postgres.database(), "--wait-for-storage", "60", wait=False)
        with harness.running(server):
            server.says("the storage does not answer; trying again")
            assert get(metrics, "/livez")[0] == 200
            assert get(metrics, "/readyz") == (503, "not ready: it is starting, and the storage does not answer\n")
            assert (
                Scraped.of(metrics).sum("feast_registry_ready") == 0
                and "feast_registry_ready 0" in Scraped.of(metrics).text
            )
            postgres.start()
            server.wait_serving()
            store(server, project)
        postgres.end(signal.SIGKILL)
        waiting = harness.start_ours(postgres.database(), "--wait-for-storage", "60", wait=False)
        with harness.running(waiting):
            waiting.says("trying again")
            assert waiting.stop(timeout=5) == 0, "a signal ends the wait"
        postgres.start()


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_that_nobody_reads_stops_nothing(form: str, tmp_path: Path, project: str) -> None:
    """A pipe holds 64 KiB; then whoever writes into it waits."""
    port = harness.free_port()
    command = [harness.registry_bin(), "serve", "--port", str(port), "--log", "debug", "--log-format", form]
    process = subprocess.Popen(
        [*command, "--registry", f"sqlite:///{tmp_path / 'registry.db'}"], stderr=subprocess.PIPE, cwd=tmp_path
    )
    server = harness.Server("ours", tmp_path / "registry.db", port, tmp_path / "none", process)
    with harness.running(server):
        harness.wait_until(server.is_serving, 30, "the server to serve")
        for number in range(2_000):
            request = api.GetEntityRequest(name=f"{number}" + "x" * 200, project=project)
            with pytest.raises(grpc.RpcError) as failed:
                server.stub.GetEntity(request, timeout=20)
            assert failed.value.code() == grpc.StatusCode.NOT_FOUND
        server.close_channel()
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        server = harness.start_ours(tmp_path / "registry.db", wait=False)
        with harness.running(server):
            assert manager.recv(100).strip() == b"READY=1"
            assert server.is_serving()
            server.close_channel()
            server.process.send_signal(signal.SIGTERM)
            assert manager.recv(100).strip() == b"STOPPING=1"
            assert server.process.wait(20) == 0


# --- Prometheus ----------------------------------------------------------------------------------


def expressions() -> list[str]:
    """All that the dashboard asks for, with its variables set as Grafana sets them for all instances."""
    panels = json.loads((DOCS / "monitoring" / "dashboard.json").read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    assert len(asked) > 25
    return [expression.replace("$instance", ".*").replace("$__rate_interval", "10s") for expression in asked]


def test_the_dashboard_and_the_alerts_show_what_there_is(tmp_path: Path, project: str) -> None:
    rules = DOCS / "monitoring" / "alerts.yaml"
    subprocess.run([prometheus_program("promtool"), "check", "rules", str(rules)], check=True, capture_output=True)
    with databases.own_database("postgres", tmp_path) as database:
        server, metrics = start(database)
        with harness.running(server), prometheus(tmp_path, metrics, rules) as seen:
            until(lambda: seen.query('up{job="feast-registry"} == 1'), bool)
            # What nothing was ever counted of has no series.
            rare = ("retries", "lost_answers", "unknown_outcome", "undecodable", 'outcome="conflict"')
            common = [expression for expression in expressions() if not any(name in expression for name in rare)]

            def traffic() -> Iterator[None]:
                number = 0
                while True:
                    number += 1
                    store(server, project, f"driver_{number % 5}")
                    read(server, project)
                    ask(server, "Refresh", api.RefreshRequest()).ok()
                    time.sleep(0.2)
                    yield

            work = traffic()

            def empty() -> list[str]:
                next(work)
                return [expression for expression in common if not seen.query(expression)]

            until(empty, lambda expressions: not expressions, within=60)
            for expression in expressions():
                seen.query(expression)
            groups = seen.ask("rules")["groups"]
            alerts = {rule["name"]: rule for group in groups for rule in group["rules"]}
            assert len(alerts) == 11 and all(rule["health"] == "ok" for rule in alerts.values()), alerts
            quiet = {name for name, rule in alerts.items() if rule["state"] == "inactive"}
            assert quiet == set(alerts), alerts

            server.kill()
            firing = until(lambda: seen.query('ALERTS{alertname="FeastRegistryDown"}'), bool)
            assert firing[0]["metric"]["alertstate"] in ("pending", "firing")
