"""Proves that Feast's own client reaches a server with TLS, by each of its settings: `cert`, `is_tls`, `client_cert`
with `client_key`, and `authority`; and that who must not be let in is not.

The certificates are made here, by a CA of each test's own.
"""

from __future__ import annotations

import ssl
import time
import urllib.request
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from feast import Entity, FeatureStore
from feast.infra.registry.remote import RemoteRegistry

import harness
from certificates import DAY, Authority

PROJECT = "rides"


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


def start(folder: Path, pair: tuple[str, str], *options: str) -> harness.Server:
    """A server with a certificate, once it says that it serves: the harness's own channel does not encrypt."""
    certificate, key = pair
    server = harness.start_ours(folder / "registry.db", "--cert", certificate, "--key", key, *options, wait=False)
    server.says("serving ")
    return server


def registry(server: harness.Server, host: str = "localhost", **settings: object) -> RemoteRegistry:
    return harness.remote_registry(f"{host}:{server.port}", PROJECT, **settings)


def works(registry: RemoteRegistry) -> None:
    harness.check_it_works(registry, PROJECT)


def is_refused(registry: RemoteRegistry) -> str:
    """Why Feast's client cannot reach the server."""
    with pytest.raises(grpc.RpcError) as caught:
        registry.list_projects()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, caught.value
    return str(caught.value.details())


def test_a_client_that_has_the_ca(ca: Authority, tmp_path: Path) -> None:
    with harness.running(start(tmp_path, ca.server())) as server:
        assert " with TLS and " in server.says("serving ")
        works(registry(server, cert=str(ca.path)))
        works(registry(server, host=harness.HOST, cert=str(ca.path)))


def test_a_feature_store(ca: Authority, tmp_path: Path) -> None:
    """The whole of Feast, with a feature_store.yaml."""
    with harness.running(start(tmp_path, ca.server())) as server:
        works(registry(server, cert=str(ca.path)))
        (tmp_path / "feature_store.yaml").write_text(
            f"project: {PROJECT}\n"
            "provider: local\n"
            "registry:\n"
            "  registry_type: remote\n"
            f"  path: localhost:{server.port}\n"
            f"  cert: {ca.path}\n"
            "online_store: {type: sqlite, path: online.db}\n"
            "entity_key_serialization_version: 3\n"
        )
        store = FeatureStore(repo_path=str(tmp_path))
        store.apply([Entity(name="rider")])
        assert {entity.name for entity in store.list_entities()} >= {"driver", "rider"}


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_client_that_has_the_ca_in_its_environment(
    variable: str, ca: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with harness.running(start(tmp_path, ca.server())) as server:
        monkeypatch.setenv(variable, str(ca.path))
        works(registry(server, is_tls=True))


def test_a_client_that_has_another_ca(ca: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    with harness.running(start(tmp_path, ca.server())) as server:
        is_refused(registry(server, cert=str(other.path)))
        server.says("a client does not accept the server's certificate")


def test_the_name_that_a_client_expects(ca: Authority, tmp_path: Path) -> None:
    """A certificate of another name than the one that is called, as behind a tunnel or a balancer."""
    pair = ca.server(x509.DNSName("registry.example"))
    with harness.running(start(tmp_path, pair)) as server:
        is_refused(registry(server, cert=str(ca.path)))
        works(registry(server, cert=str(ca.path), authority="registry.example"))
        is_refused(registry(server, cert=str(ca.path), authority="other.example"))


def test_a_client_that_does_not_encrypt_is_turned_away(ca: Authority, tmp_path: Path) -> None:
    with harness.running(start(tmp_path, ca.server())) as server:
        is_refused(registry(server))
        server.says("it speaks HTTP/2 without TLS")


def test_a_client_that_encrypts_where_the_server_does_not(ca: Authority, tmp_path: Path) -> None:
    with harness.running(harness.start_ours(tmp_path / "registry.db")) as server:
        is_refused(registry(server, cert=str(ca.path)))
        server.says("a client speaks TLS, and this server does not")
        works(registry(server))


def test_mutual_tls(ca: Authority, tmp_path: Path) -> None:
    clients = Authority(tmp_path, "clients")
    others = Authority(tmp_path, "others")
    options = ("--client-ca", str(clients.path), "--client-cert-identity")
    with harness.running(start(tmp_path, ca.server(), *options)) as server:
        certificate, key = clients.client("ann", "fleet")
        works(registry(server, cert=str(ca.path), client_cert=certificate, client_key=key))

        is_refused(registry(server, cert=str(ca.path)))
        server.says("a client without a certificate was refused")
        certificate, key = others.client("eve", "fleet")
        is_refused(registry(server, cert=str(ca.path), client_cert=certificate, client_key=key))
        server.says("a client was refused for its certificate")


def test_a_renewed_certificate_disturbs_no_client(ca: Authority, tmp_path: Path) -> None:
    """What cert-manager does: new files in place of the old ones, while clients are connected."""
    certificate, key = ca.server()
    with harness.running(start(tmp_path, (certificate, key))) as server:
        early = registry(server, cert=str(ca.path))
        works(early)
        renewing = Authority(tmp_path, "renewing")
        for new, old in zip(renewing.server(name="renewed"), (certificate, key)):
            Path(new).rename(old)
        server.says("the TLS certificate was read anew")
        assert [entity.name for entity in early.list_entities(PROJECT)] == ["driver"]
        works(registry(server, cert=str(renewing.path)))


def test_metrics_and_health(ca: Authority, tmp_path: Path) -> None:
    """Over HTTPS, and without a certificate of the client even where calls need one."""
    port = harness.free_port()
    options = ("--client-ca", str(ca.path), "--metrics-addr", f"{harness.HOST}:{port}")
    with harness.running(start(tmp_path, ca.server(), *options)):
        context = ssl.create_default_context(cafile=str(ca.path))

        def get(path: str) -> str:
            with urllib.request.urlopen(f"https://localhost:{port}{path}", timeout=10, context=context) as answer:
                return answer.read().decode()

        assert get("/readyz") == "ok\n"
        name = "feast_registry_tls_certificate_not_after_timestamp_seconds "
        (value,) = [line.removeprefix(name) for line in get("/metrics").splitlines() if line.startswith(name)]
        assert abs(float(value) - (time.time() + 60 * DAY.total_seconds())) < 600
