"""Proves what stands around the registry's RPCs: starting from Feast's own configuration file, health, reflection.

A user points the server at the feature_store.yaml that they have; orchestration asks grpc.health.v1; tools ask
for reflection; and a start that cannot succeed says why and exits with an error.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
from feast.protos.feast.registry import RegistryServer_pb2
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import harness
import kinds
from differential import ask

SERVICE = RegistryServer_pb2.DESCRIPTOR.services_by_name["RegistryServer"]
CONFIG = """
project: rides
provider: local
registry:
  registry_type: sql
  path: sqlite:///{db}
  cache_ttl_seconds: 60
online_store:
  type: sqlite
  path: online.db
entity_key_serialization_version: 3
"""


def fails(*arguments: str, cwd: Path) -> str:
    """What the server says when it cannot start; it must say so soon and exit with an error."""
    command = [str(harness.registry_bin()), "serve", *arguments]
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=20)
    assert ran.returncode not in (0, None) and ran.returncode > 0, f"exit code {ran.returncode}: {ran.stderr}"
    assert "panicked" not in ran.stderr and ran.stderr.strip(), ran.stderr
    return ran.stderr


def serve(folder: Path, *arguments: str, db: Path) -> harness.Server:
    port = harness.free_port()
    command = [str(harness.registry_bin()), "serve", *arguments, "--host", harness.HOST, "--port", str(port)]
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=out)
    return harness.Server("ours", db, port, log, process)


def test_from_feasts_own_configuration(tmp_path: Path) -> None:
    """`-c feature_store.yaml`, the file that Feast's own server would use; Feast reads what was written."""
    db = tmp_path / "registry.db"
    (tmp_path / "feature_store.yaml").write_text(CONFIG.format(db=db))
    with harness.running(serve(tmp_path, "-c", "feature_store.yaml", db=db)) as server:
        server.wait_serving()
        ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto("e"), "rides")).ok()
        from feast import FeatureStore

        store = FeatureStore(repo_path=str(tmp_path))
        assert [entity.name for entity in store.registry.list_entities("rides")] == ["e"]


def test_the_start_up_line(tmp_path: Path) -> None:
    """One line that says what is served from where; requests add none."""
    db = tmp_path / "registry.db"
    harness.start_ours(db).stop()
    with harness.running(serve(tmp_path, "--registry", f"sqlite:///{db}", db=db)) as server:
        server.wait_serving()
        ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto("e"), "rides")).ok()
        (line,) = server.says("serving ").splitlines()
        assert str(server.port) in line and "registry.db" in line


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--registry", "nonsense://x"], "sqlite"),
        (["--registry", "sqlite:////no/such/folder/registry.db"], "/no/such/folder"),
        (["-c", "absent.yaml"], "absent.yaml"),
        (["--port", "99999"], "99999"),
        (["--nonsense"], "--nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_start_that_cannot_succeed(arguments: Sequence[str], says: str, tmp_path: Path) -> None:
    assert says in fails(*arguments, cwd=tmp_path)


def test_a_setting_that_is_not_understood(tmp_path: Path) -> None:
    text = CONFIG.format(db=tmp_path / "registry.db").replace("cache_ttl_seconds", "cache_ttl_secons")
    (tmp_path / "feature_store.yaml").write_text(text)
    said = fails("-c", "feature_store.yaml", cwd=tmp_path)
    line = next(n for n, row in enumerate(text.splitlines(), 1) if "cache_ttl" in row)
    assert "cache_ttl_secons" in said and str(line) in said, said


def test_a_port_that_is_taken(own_server: harness.Server, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'other.db'}"
    said = fails("--registry", database, "--host", harness.HOST, "--port", str(own_server.port), cwd=tmp_path)
    assert str(own_server.port) in said


@pytest.mark.parametrize("service", ["", SERVICE.full_name])
def test_health(service: str, ours: harness.Server) -> None:
    stub = health_pb2_grpc.HealthStub(ours.channel)
    assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == health_pb2.HealthCheckResponse.SERVING
    stream = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert next(stream).status == health_pb2.HealthCheckResponse.SERVING
    stream.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nonsense"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection(ours: harness.Server) -> None:
    """v1alpha, which Feast's server offers and older tools ask for: the services and their descriptors."""
    stub = reflection_pb2_grpc.ServerReflectionStub(ours.channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE.full_name),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="feast.core.FeatureView"),
    ]
    listed, service_file, view_file = stub.ServerReflectionInfo(iter(requests), timeout=10)
    names = {service.name for service in listed.list_services_response.service}
    assert {SERVICE.full_name, "feast_registry.v1.History", "grpc.health.v1.Health"} <= names
    for answer, expected in ((service_file, "RegistryServer"), (view_file, "FeatureView")):
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(body)
            for body in answer.file_descriptor_response.file_descriptor_proto
        ]
        assert any(expected in {*(m.name for m in f.message_type), *(s.name for s in f.service)} for f in files)
