"""Proves that the pod of the Helm chart serves: the arguments, environment and files of its container run the server (`pods.py`), which is
asked by its own probes and by Feast's client. So are the configurations that Feast's operator and Feast's chart hand over.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
import yaml
from feast.permissions.auth_model import KubernetesAuthConfig

import databases
import harness
import kubernetes_api
import pods
from certificates import Authority
from kubernetes_api import KubernetesApi
from pods import DB_PASSWORD, PROJECT, SQLITE, TLS, URL_IN_ENVIRONMENT, Pod, Secrets, Values, encoded, store


def client(pod: Pod, auth: Any = None, **settings: Any):
    """Feast's."""
    return harness.remote_registry(pod.address("feast-registry"), PROJECT, auth, **settings)


def test_the_defaults_serve_and_end_in_order(tmp_path: Path) -> None:
    with pods.running({}, tmp_path) as pod:
        harness.check_it_works(client(pod), PROJECT)
        assert (pod.root / "data" / "registry.db").is_file()
        pod.is_told_to_end()
        harness.wait_until(lambda: pod.probe("readinessProbe") == 503, 5, "the pod to be taken out of the service")
        # Until that has come round, calls still come.
        assert client(pod).list_projects()
        assert pod.probe("livenessProbe") == 200
        assert pod.ends() == 0


def test_a_registry_file(tmp_path: Path) -> None:
    with pods.running({"config": store("/data/registry.db")}, tmp_path) as pod:
        harness.check_it_works(client(pod), PROJECT)
        assert (pod.root / "data" / "registry.db").is_file()


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[databases.Database]:
    with databases.own_database("postgres", tmp_path) as database:
        yield database


def test_postgresql_with_the_password_of_a_secret(postgres: databases.Database, tmp_path: Path) -> None:
    """Two pods of one deployment."""
    arguments = {"connect_args": {"password": "${DB_PASSWORD}", "application_name": "${NAME}"}}
    values: Values = {
        "config": store({"registry_type": "sql", "path": postgres.url, "sqlalchemy_config_kwargs": arguments}),
        "replicaCount": 2,
        "env": [DB_PASSWORD],
        "envFrom": [{"secretRef": {"name": "names"}}],
    }
    secrets: Secrets = {"feast-db": {"password": b"any: @/ #'{"}, "names": {"NAME": b"of-the-chart"}}
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    with pods.running(values, folders[0], secrets) as one, pods.running(values, folders[1], secrets) as two:
        harness.check_it_works(client(one), PROJECT)
        assert client(two).list_entities(PROJECT, allow_cache=False)
        names = postgres.rows(
            "SELECT DISTINCT application_name AS name FROM pg_stat_activity WHERE datname = current_database()"
        )
        assert {"name": "of-the-chart"} in names


def test_a_url_in_the_environment(postgres: databases.Database, tmp_path: Path) -> None:
    secrets: Secrets = {"feast-db": {"url": postgres.url.encode()}}
    with pods.running(URL_IN_ENVIRONMENT, tmp_path, secrets) as pod:
        harness.check_it_works(client(pod), PROJECT)


def test_a_secret_that_is_there(tmp_path: Path) -> None:
    values = {"existingSecret": {"name": "feast", "key": "server.yaml"}, "storage": "local"}
    with pods.running(
        values, tmp_path, {"feast": {"server.yaml": yaml.safe_dump(SQLITE).encode(), "other": b"\xff"}}
    ) as pod:
        harness.check_it_works(client(pod), PROJECT)
        assert (pod.root / "data" / "registry.db").is_file()


def test_tls_of_both_sides_and_rest(tmp_path: Path) -> None:
    servers, clients = Authority(tmp_path, "servers"), Authority(tmp_path, "clients")
    certificate, key = (Path(path).read_bytes() for path in servers.server())
    secrets: Secrets = {
        "registry-tls": {"tls.crt": certificate, "tls.key": key, "ca.crt": servers.path.read_bytes()},
        "clients": {"ca.crt": clients.path.read_bytes()},
    }
    with pods.running({"tls": TLS, "rest": {"enabled": True}}, tmp_path, secrets) as pod:
        pod.says("with TLS, to clients with a certificate,")
        pod.says("REST API over HTTPS")
        mine, my_key = clients.client("ann", "fleet")
        mutual = client(pod, cert=str(servers.path), client_cert=mine, client_key=my_key)
        harness.check_it_works(mutual, PROJECT)
        with pytest.raises(grpc.RpcError) as caught:
            client(pod, cert=str(servers.path)).list_projects()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        url = f"https://{pod.address('feast-registry-rest')}/api/v1/projects"
        answer = requests.get(url, cert=(mine, my_key), verify=str(servers.path), timeout=10)
        assert [project["spec"]["name"] for project in answer.json()["projects"]] == [PROJECT]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubernetesApi]:
    """The API of Kubernetes, in whose namespace `feast` a service account has a role."""
    authority = Authority(tmp_path, "kubernetes")
    api = KubernetesApi(*authority.server(name="api"))
    api.mount(tmp_path / "serviceaccount", authority.path)
    yield api
    api.close()


def of_cluster(api: KubernetesApi, folder: Path) -> dict[str, Any]:
    return {"type": "kubernetes", "api_server": api.url, "service_account_dir": str(folder / "serviceaccount")}


def may(role: dict[str, Any], call: kubernetes_api.Call) -> bool:
    """Whether a ClusterRole permits a call."""
    group, resource = call.path.split("/")[2], call.path.split("/")[-1]
    verb = {"POST": "create", "GET": "list"}[call.method]
    return any(group in r["apiGroups"] and resource in r["resources"] and verb in r["verbs"] for r in role["rules"])


def test_its_rights_are_those_that_the_server_needs(cluster: KubernetesApi, tmp_path: Path) -> None:
    values = {"config": {**SQLITE, "auth": of_cluster(cluster, tmp_path)}}
    with pods.running(values, tmp_path) as pod:
        for token in (cluster.account("deployer", "team"), cluster.person("rita")):
            client(pod, KubernetesAuthConfig(type="kubernetes", user_token=token)).list_projects()
        role = pod.rendered.one("ClusterRole")
    calls = {call.path: call for call in cluster.calls}
    assert all(may(role, call) for call in calls.values()), calls
    # And no others.
    used = {path.split("/")[-1] for path in calls}
    assert used == {resource for rule in role["rules"] for resource in rule["resources"]}


# --- what Feast's operator and Feast's chart hand over ------------------------------------------------

# The blocks that the operator writes for the servers, besides `registry` and `auth`.
OPERATOR = {
    "project": PROJECT,
    "provider": "local",
    "online_store": {"type": "redis", "connection_string": "${REDIS}"},
    "offline_store": {"type": "dask"},
    "batch_engine": {"type": "local"},
    "feature_server": {"type": "local", "enabled": True, "metrics": {"enabled": True}, "mcp_enabled": False},
    "materialization": {"online_write_batch_size": 1000},
    "openlineage": {"enabled": False},
    "mlflow": {"enabled": False},
    "data_quality_monitoring": {"auto_baseline": False},
    "entity_key_serialization_version": 3,
}
OPERATORS_REGISTRY = {
    "cert": "/tls/registry/tls.crt",
    "s3_additional_kwargs": {"ServerSideEncryption": "AES256"},
    "cache_ttl_seconds": 60,
    "mcp": {"enabled": True},
}
OPERATORS_OIDC = {
    "type": "oidc",
    "auth_discovery_url": "https://idp.invalid/realms/feast/.well-known/openid-configuration",
    "client_id": "feast",
    "client_secret": "secret",
    "username": "reader",
    "password": "password",
    "audience": "feast",
    "issuer": "https://idp.invalid/realms/feast",
    "verify_ssl": True,
    "ca_cert_path": "",
    "token_env_var": "FEAST_TOKEN",
    "jwks_cache_lifespan_seconds": 300,
    "jwks_request_timeout_seconds": 10,
}


def from_operator(registry: dict[str, Any], auth: dict[str, Any]) -> Values:
    content = {**OPERATOR, "registry": {**OPERATORS_REGISTRY, **registry}, "auth": auth}
    return {
        "featureStoreYamlBase64": encoded(content),
        "persistence": {"mountPath": "/feast-data"},
        # What Feast's chart sets in every container.
        "env": [{"name": "INTRA_COMMUNICATION_BASE64", "value": encoded("intra-server-communication")}],
        "rbac": {"create": True},
    }


@pytest.mark.parametrize("cache_mode", ["none", "sync", "thread"])
def test_the_operators_file_registry(cache_mode: str, tmp_path: Path) -> None:
    registry = {"registry_type": "file", "path": "/feast-data/registry.db", "cache_mode": cache_mode}
    with pods.running(from_operator(registry, {"type": "no_auth"}), tmp_path) as pod:
        harness.check_it_works(client(pod), PROJECT)
        assert (pod.root / "feast-data" / "registry.db").is_file()
        assert "`registry.cert`" in pod.says("is for clients of a server")


def test_the_operators_sql_registry(postgres: databases.Database, cluster: KubernetesApi, tmp_path: Path) -> None:
    """With the authentication that the operator sets unless told otherwise."""
    engine = {"echo": False, "pool_pre_ping": True}
    registry = {"registry_type": "sql", "path": postgres.url, "cache_mode": "none", "sqlalchemy_config_kwargs": engine}
    with pods.running(from_operator(registry, of_cluster(cluster, tmp_path)), tmp_path) as pod:
        with pytest.raises(Exception, match="(?i)token|authenticat"):
            client(pod).list_projects()
        auth = KubernetesAuthConfig(type="kubernetes", user_token=cluster.account("deployer", "team"))
        harness.check_it_works(client(pod, auth), PROJECT)


def test_the_operators_oidc_settings(tmp_path: Path) -> None:
    registry = {"registry_type": "file", "path": "/feast-data/registry.db"}
    with pods.running(from_operator(registry, OPERATORS_OIDC), tmp_path) as pod:
        pod.says("with authentication")
