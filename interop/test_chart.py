"""Proves that the Helm chart makes what Kubernetes takes, refuses what cannot work, and that its container serves.

There is no cluster here. The chart is rendered by Helm's own engine; each document is held against the schemas of the oldest and the newest
Kubernetes that there are schemas of, strictly; and the arguments, environment and files of the container run the server (`pods.py`), which is
asked by its own probes and by Feast's client. The examples of docs/kubernetes.md go the same way.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import helm_python
import jsonschema
import pytest
import requests
import yaml
from feast import Entity, Project
from feast.infra.registry.remote import RemoteRegistry, RemoteRegistryConfig
from feast.permissions.auth_model import KubernetesAuthConfig
from feast.repo_config import RepoConfig
from kubernetes_validate import utils as kubernetes

import databases
import harness
import kubernetes_api
import pods
from certificates import Authority
from kubernetes_api import KubernetesApi
from pods import Secrets, Values

PROJECT = "rides"
ROOT = harness.HERE.parent
GUIDE = ROOT / "docs" / "kubernetes.md"
POSTGRES = {"registry_type": "sql", "path": "postgresql+psycopg://feast:${DB_PASSWORD}@db.feast.svc:5432/feast"}
DB_PASSWORD = {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "feast-db", "key": "password"}}}
TLS = {"secretName": "registry-tls", "clientCA": {"secretName": "clients", "key": "ca.crt"}, "clientCertIdentity": True}
METRICS_PEERS = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
USUAL = ["Deployment", "Service", "ServiceAccount"]


def store(registry: Any, **blocks: Any) -> dict[str, Any]:
    """A server's feature_store.yaml."""
    return {"project": PROJECT, "provider": "local", "registry": registry, **blocks}


def encoded(content: Any) -> str:
    return base64.b64encode(yaml.safe_dump(content).encode()).decode()


# --- what is rendered ------------------------------------------------------------------------------

# Values, and what is made of them besides the usual.
VALUES: dict[str, tuple[Values, list[str]]] = {
    "defaults": ({}, ["PersistentVolumeClaim"]),
    "PostgreSQL and three pods": (
        {"config": store(POSTGRES), "env": [DB_PASSWORD], "replicaCount": 3},
        ["PodDisruptionBudget", "Secret"],
    ),
    "PostgreSQL and as many pods as needed": (
        {
            "config": yaml.safe_dump(store(POSTGRES)),
            "env": [DB_PASSWORD],
            "autoscaling": {"enabled": True},
            "podDisruptionBudget": {"maxUnavailable": "25%"},
        },
        ["HorizontalPodAutoscaler", "PodDisruptionBudget", "Secret"],
    ),
    "an object store": (
        {
            "config": store({"registry_type": "file", "path": "s3://bucket/registry.db"}),
            "replicaCount": 2,
            "podDisruptionBudget": {"enabled": False},
            "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/feast"}},
            "envFrom": [{"secretRef": {"name": "s3"}}],
        },
        ["Secret"],
    ),
    "SQLite, on a volume as it should be": (
        {
            "config": store({"registry_type": "sql", "path": "sqlite:////var/lib/feast/registry.db?timeout=10"}),
            "persistence": {
                "mountPath": "/var/lib/feast",
                "size": "20Gi",
                "storageClass": "fast",
                "accessModes": ["ReadWriteOncePod"],
                "annotations": {"example.com/backup": "daily"},
            },
        },
        ["PersistentVolumeClaim", "Secret"],
    ),
    "a registry file on a claim that is there": (
        {"config": store("/data/registry.db"), "persistence": {"existingClaim": "registry"}},
        ["Secret"],
    ),
    # Names that YAML would take for a number, a boolean or a mapping.
    "odd names": (
        {
            "fullnameOverride": "true",
            "nameOverride": "null",
            "existingSecret": {"name": "456", "key": "y: z"},
            "storage": "local",
            "persistence": {"mountPath": "/da ta: x", "storageClass": "-"},
            "serviceAccount": {"name": "789"},
            "tls": {"secretName": "1e3"},
        },
        ["PersistentVolumeClaim"],
    ),
    "a trial": ({"persistence": {"enabled": False}}, []),
    "TLS": ({"tls": {"secretName": "registry-tls"}}, ["PersistentVolumeClaim"]),
    "TLS of both sides, and REST": (
        {"tls": TLS, "rest": {"enabled": True, "service": {"type": "LoadBalancer", "port": 8443}}},
        ["PersistentVolumeClaim", "Service"],
    ),
    "Kubernetes says who calls": (
        {"config": store(POSTGRES, auth={"type": "kubernetes"}), "env": [DB_PASSWORD]},
        ["ClusterRole", "ClusterRoleBinding", "Secret"],
    ),
    "Feast's own way": ({"featureStoreYamlBase64": encoded(store(POSTGRES)), "env": [DB_PASSWORD]}, ["Secret"]),
    "a secret that is there": (
        {
            "existingSecret": {"name": "feast", "key": "server.yaml"},
            "storage": "shared",
            "rbac": {"create": True},
            "serviceAccount": {"create": False, "name": "feast"},
            "replicaCount": 2,
        },
        ["ClusterRole", "ClusterRoleBinding", "PodDisruptionBudget"],
    ),
    "a URL in the environment": (
        {
            "storage": "shared",
            "env": [{"name": "FEAST_REGISTRY_URL", "valueFrom": {"secretKeyRef": {"name": "feast-db", "key": "url"}}}],
        },
        [],
    ),
    "a closed network": (
        {
            "rest": {"enabled": True},
            "networkPolicy": {
                "enabled": True,
                "from": [{"podSelector": {"matchLabels": {"uses-feast": "true"}}}],
                "metricsFrom": METRICS_PEERS,
                "egress": [{"ports": [{"port": 5432}]}],
            },
        },
        ["NetworkPolicy", "PersistentVolumeClaim", "Service"],
    ),
    "an open network, but for metrics": (
        {"networkPolicy": {"enabled": True}},
        ["NetworkPolicy", "PersistentVolumeClaim"],
    ),
    "Prometheus' operator": (
        {
            "tls": {"secretName": "registry-tls"},
            "serviceMonitor": {
                "enabled": True,
                "labels": {"release": "prometheus"},
                "tlsConfig": {"ca": {"secret": {"name": "registry-tls", "key": "ca.crt"}}, "serverName": "registry"},
            },
        },
        ["PersistentVolumeClaim", "Service", "ServiceMonitor"],
    ),
    "where it runs": (
        {
            "image": {"digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
            "imagePullSecrets": [{"name": "registry"}],
            "command": ["feast-registry"],
            "listenHost": "::",
            "extraArgs": ["--compress-above=65536"],
            "podAnnotations": {"example.com/team": "platform"},
            "podLabels": {"team": "platform"},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "dedicated", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "topology.kubernetes.io/zone",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "feast-registry"}},
                }
            ],
            "priorityClassName": "high",
            "podSecurityContext": {"fsGroup": 2000},
            "fullnameOverride": "a-name-that-is-longer-than-any-name-may-be-in-kubernetes-with-a-suffix",
            "extraVolumes": [{"name": "tokens", "secret": {"secretName": "tokens"}}],
            "extraVolumeMounts": [{"name": "tokens", "mountPath": "/etc/feast-registry/tokens", "readOnly": True}],
            "global": {"of": "a parent chart"},
        },
        ["PersistentVolumeClaim"],
    ),
}
each = pytest.mark.parametrize("name", VALUES)

# What the chart uses of the resource of Prometheus' operator, of which there is no schema here.
SERVICE_MONITOR = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["selector", "endpoints"],
            "additionalProperties": False,
            "properties": {
                "selector": {"type": "object", "required": ["matchLabels"], "additionalProperties": False}
                | {"properties": {"matchLabels": {"type": "object"}}},
                "endpoints": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string"},
                            "scheme": {"enum": ["http", "https"]},
                            "interval": {"type": "string"},
                            "tlsConfig": {"type": "object"},
                        },
                    },
                },
            },
        }
    },
}


def is_valid(document: dict[str, Any]) -> None:
    if document["kind"] == "ServiceMonitor":
        assert document["apiVersion"] == "monitoring.coreos.com/v1"
        jsonschema.validate(document, SERVICE_MONITOR)
        return
    versions = kubernetes.all_versions()
    for version in (versions[0], versions[-1]):
        kubernetes.validate(document, version, strict=True)


@each
def test_helm_finds_nothing_to_complain_of(name: str) -> None:
    report = helm_python.lint(pods.CHART, VALUES[name][0], strict=True)
    # Level 1 is advice; there is no icon.
    assert not report["errors"] and {message["severity"] for message in report["messages"]} <= {1}, report


@each
def test_kubernetes_takes_what_is_rendered(name: str) -> None:
    values, more = VALUES[name]
    rendered = pods.render(values)
    accounts = [] if values.get("serviceAccount", {}).get("create") is False else ["ServiceAccount"]
    assert rendered.kinds == sorted(["Deployment", "Service", *accounts, *more])
    for document in rendered.documents:
        is_valid(document)


@each
def test_its_parts_fit_together(name: str) -> None:
    """What one document says of another, which no schema knows."""
    rendered = pods.render(VALUES[name][0])
    spec, container = rendered.pod["spec"], rendered.container
    labels, ports = rendered.pod["metadata"]["labels"], {port["name"] for port in container["ports"]}
    deployment = rendered.one("Deployment")
    fits = lambda selector: selector.items() <= labels.items()

    assert fits(deployment["spec"]["selector"]["matchLabels"])
    for service in rendered.all("Service"):
        assert fits(service["spec"]["selector"]), service
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports, service
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    for policy in rendered.all("NetworkPolicy"):
        assert fits(policy["spec"]["podSelector"]["matchLabels"])
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} <= ports
    for budget in rendered.all("PodDisruptionBudget"):
        assert fits(budget["spec"]["selector"]["matchLabels"])
    for scaler in rendered.all("HorizontalPodAutoscaler"):
        assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
        assert "replicas" not in deployment["spec"], "Helm would set back what the autoscaler has set"
    for monitor in rendered.all("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        (service,) = [s for s in rendered.all("Service") if wanted <= s["metadata"]["labels"].items()]
        assert [e["port"] for e in monitor["spec"]["endpoints"]] == [p["name"] for p in service["spec"]["ports"]]
    for binding in rendered.all("ClusterRoleBinding"):
        assert binding["roleRef"]["name"] == rendered.one("ClusterRole")["metadata"]["name"]
        (subject,) = binding["subjects"]
        assert (subject["name"], subject["namespace"]) == (spec["serviceAccountName"], pods.NAMESPACE)
        assert spec["automountServiceAccountToken"], "the server calls the API of Kubernetes"
    assert bool(rendered.all("ClusterRoleBinding")) == spec["automountServiceAccountToken"]
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    assert {mount["name"] for mount in container.get("volumeMounts", [])} == volumes
    assert all(len(document["metadata"]["name"]) <= 63 for document in rendered.documents)


@each
def test_nobody_gets_more_rights_than_needed(name: str) -> None:
    """The restricted profile of Kubernetes' Pod Security Standards, for any user id, so that OpenShift may choose one."""
    spec, container = pods.render(VALUES[name][0]).pod["spec"], pods.render(VALUES[name][0]).container
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert not {"runAsUser", "runAsGroup"} & (spec["securityContext"].keys() | context.keys())


def test_a_stop_has_the_time_that_the_server_takes() -> None:
    spec = pods.render({"drain": 20, "grace": 100}).pod["spec"]
    assert spec["terminationGracePeriodSeconds"] > 20 + 100
    assert {"--drain=20", "--grace=100"} <= set(spec["containers"][0]["args"])


def test_a_new_configuration_makes_new_pods() -> None:
    """The server reads it at start only."""
    pod_of = lambda **blocks: pods.render({"config": store("s3://bucket/registry.db", **blocks)}).pod
    assert pod_of(a=1) == pod_of(a=1)
    assert pod_of(a=1) != pod_of(a=2)


def test_one_pod_at_a_time_has_the_file() -> None:
    assert pods.render({}).one("Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    shared = pods.render({"config": store("s3://bucket/registry.db")}).one("Deployment")["spec"]["strategy"]
    assert shared["type"] == "RollingUpdate" and shared["rollingUpdate"]["maxUnavailable"] == 0


def test_the_registry_outlives_the_release() -> None:
    claim = pods.render({}).one("PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_services_are_where_feasts_operator_has_its_own() -> None:
    """What names one of the operator's, with its port, can name one of these."""
    ports = lambda values: [s["spec"]["ports"][0]["port"] for s in pods.render(values).all("Service")]
    containers = lambda values: [port["containerPort"] for port in pods.render(values).container["ports"]]
    plain: Values = {"rest": {"enabled": True}}
    assert (ports(plain), containers(plain)) == ([80, 80], [6570, 6572, 9570])
    encrypted = {**plain, "tls": {"secretName": "tls"}}
    assert (ports(encrypted), containers(encrypted)) == ([443, 443], [6571, 6573, 9570])


@pytest.mark.parametrize(
    ("values", "warnings"),
    [
        ({}, ["may do everything", "not encrypted"]),
        ({"persistence": {"enabled": False}}, ["may do everything", "not encrypted", "lost with its pod"]),
        ({"tls": {"secretName": "tls"}, "config": store("s3://bucket/registry.db", auth="kubernetes")}, []),
        ({"tls": TLS}, []),
    ],
    ids=["defaults", "no volume", "authentication and TLS", "certificates of clients"],
)
def test_the_notes_warn(values: Values, warnings: list[str]) -> None:
    notes = pods.render(values).notes
    assert f"path: {pods.RELEASE}.{pods.NAMESPACE}.svc.cluster.local:" in notes
    found = [line for line in notes.splitlines() if line.startswith("WARNING")]
    assert len(found) == len(warnings) and all(part in line for part, line in zip(warnings, found)), notes


SQLITE = store({"registry_type": "sql", "path": "sqlite:////data/registry.db"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replicaCount": 2}, "which one pod serves"),
        ({"config": SQLITE, "autoscaling": {"enabled": True}}, "which one pod serves"),
        ({"config": store("/data/registry.db"), "replicaCount": 2}, "which one pod serves"),
        ({"existingSecret": {"name": "feast"}, "storage": "local", "replicaCount": 2}, "which one pod serves"),
        ({"existingSecret": {"name": "feast"}}, "cannot see in existingSecret where the registry is"),
        ({"config": store({"registry_type": "sql", "path": "${URL}"})}, "cannot see in config"),
        ({"env": [{"name": "FEAST_REGISTRY_URL", "value": "x"}]}, r"cannot see in env \(FEAST_REGISTRY_URL\)"),
        ({"config": SQLITE, "storage": "shared"}, "storage is shared, but the registry of config is local"),
        ({"config": store(POSTGRES), "storage": "local"}, "storage is local, but the registry of config is shared"),
        ({"config": store("data/registry.db")}, "`data/registry.db` is on no volume"),
        ({"config": store("/database/registry.db")}, "is on no volume"),
        (
            {"featureStoreYamlBase64": encoded(store({"path": "sqlite:///registry.db"}))},
            "`registry.db` is on no volume",
        ),
        ({"config": SQLITE, "existingSecret": {"name": "feast"}}, "set one of config, existingSecret"),
        ({"config": "- a list"}, "config is no feature_store.yaml"),
        ({"config": store(POSTGRES, registry_server={"tls": {"cert": "a"}})}, "set tls.secretName instead"),
        ({"tls": {"clientCA": {"secretName": "clients"}}}, "clientCA needs tls.secretName"),
        ({"tls": {"secretName": "tls", "clientCertIdentity": True}}, "clientCertIdentity needs"),
        ({"replicas": 2}, "replicas"),
        ({"persistence": {"mountPath": "data"}}, "mountPath"),
        ({"config": ["a"]}, "config"),
        ({"service": {"type": "Ingress"}}, "type"),
        ({"log": {"format": "xml"}}, "format"),
        ({"tls": {"secretname": "tls"}}, "secretname"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
def test_what_cannot_work_is_refused(values: Values, message: str) -> None:
    with pytest.raises(helm_python.HelmError, match=message):
        pods.render(values)


def test_a_refusal_shows_no_password() -> None:
    values = {"config": store({"registry_type": "sql", "path": "postgresql://u:hunter2@h/d"}), "storage": "local"}
    with pytest.raises(helm_python.HelmError) as caught:
        pods.render(values)
    assert "hunter2" not in str(caught.value)


def test_its_version_is_the_servers() -> None:
    chart = yaml.safe_load((pods.CHART / "Chart.yaml").read_text())
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
    assert chart["appVersion"] == workspace["version"]
    assert pods.render({}).container["image"] == f"ghcr.io/feast-registry/feast-registry:{workspace['version']}"


def test_every_value_has_its_place_in_the_schema() -> None:
    """And none of the schema is missing in values.yaml, where users look."""
    values = yaml.safe_load((pods.CHART / "values.yaml").read_text())
    schema = json.loads((pods.CHART / "values.schema.json").read_text())

    def compare(values: Values, schema: dict[str, Any], where: str) -> None:
        known = schema["properties"].keys() - {"global", "initialDelaySeconds", "successThreshold", "timeoutSeconds"}
        assert known - values.keys() == set(), where
        for key, value in values.items():
            inner = schema["properties"][key]
            if "properties" in inner:
                assert inner["additionalProperties"] is False, f"{where}{key}"
                compare(value, inner, f"{where}{key}.")

    compare(values, schema, "")


@pytest.fixture
def openshift() -> Iterator[str]:
    """As much of an API as Helm asks what a cluster has."""
    group = {"groupVersion": "security.openshift.io/v1", "version": "v1"}
    resource = {"name": "securitycontextconstraints", "namespaced": False, "verbs": ["get"]}
    answers: dict[str, Any] = {
        "/version": {"major": "1", "minor": "30", "gitVersion": "v1.30.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
        "/apis": {"kind": "APIGroupList", "groups": [{"name": "security.openshift.io", "versions": [group]}]},
        "/apis/security.openshift.io/v1": {"kind": "APIResourceList", "groupVersion": group["groupVersion"]}
        | {"resources": [{**resource, "kind": "SecurityContextConstraints"}]},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            content = json.dumps(answer or {}).encode()
            self.send_response(200 if answer else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer((harness.HOST, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{harness.HOST}:{server.server_port}"
        server.shutdown()


def test_the_volume_has_a_group_but_on_openshift(openshift: str, tmp_path: Path) -> None:
    """OpenShift gives each namespace a group of its own, and refuses pods that name another."""
    assert pods.render({}).pod["spec"]["securityContext"]["fsGroup"] == 65532
    assert pods.render({"podSecurityContext": {"fsGroup": 2000}}).pod["spec"]["securityContext"]["fsGroup"] == 2000
    assert "fsGroup" not in pods.render({"config": store(POSTGRES)}).pod["spec"]["securityContext"]
    # An installation shows what it would send only after it has sent it; a refusal says what is in it at once.
    chart = shutil.copytree(pods.CHART, tmp_path / "chart")
    (chart / "templates" / "shown.yaml").write_text(
        '{{ fail (include (print .Template.BasePath "/deployment.yaml") .) }}'
    )
    with (
        helm_python.Config(kube_apiserver=openshift, namespace=pods.NAMESPACE) as cluster,
        pytest.raises(helm_python.HelmReleaseError) as caught,
    ):
        cluster.install(chart, pods.RELEASE, {}, dry_run="server")
    deployment = yaml.safe_load(str(caught.value).partition("/shown.yaml:1:3): ")[2])
    assert deployment["spec"]["template"]["spec"]["securityContext"].keys() == {"runAsNonRoot", "seccompProfile"}


# --- what is run -----------------------------------------------------------------------------------


def client(address: str, **settings: Any) -> RemoteRegistry:
    """Feast's, with the settings of a block `registry`."""
    config = RemoteRegistryConfig(registry_type="remote", path=address, **settings)
    return RemoteRegistry(config, project=PROJECT, repo_path=None)


def works(registry: RemoteRegistry) -> None:
    registry.apply_project(Project(name=PROJECT))
    registry.apply_entity(Entity(name="driver"), PROJECT)
    assert [entity.name for entity in registry.list_entities(PROJECT)] == ["driver"]


def test_the_defaults_serve_and_end_in_order(tmp_path: Path) -> None:
    with pods.running({}, tmp_path) as pod:
        works(client(pod.address("feast-registry")))
        assert (pod.root / "data" / "registry.db").is_file()
        pod.is_told_to_end()
        harness.wait_until(lambda: pod.probe("readinessProbe") == 503, 5, "the pod to be taken out of the service")
        # Until that has come round, calls still come.
        assert client(pod.address("feast-registry")).list_projects()
        assert pod.probe("livenessProbe") == 200
        assert pod.ends() == 0


def test_a_registry_file(tmp_path: Path) -> None:
    with pods.running({"config": store("/data/registry.db")}, tmp_path) as pod:
        works(client(pod.address("feast-registry")))
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
        works(client(one.address("feast-registry")))
        assert client(two.address("feast-registry")).list_entities(PROJECT, allow_cache=False)
        names = postgres.rows(
            "SELECT DISTINCT application_name AS name FROM pg_stat_activity WHERE datname = current_database()"
        )
        assert {"name": "of-the-chart"} in names


def test_a_url_in_the_environment(postgres: databases.Database, tmp_path: Path) -> None:
    with pods.running(
        VALUES["a URL in the environment"][0], tmp_path, {"feast-db": {"url": postgres.url.encode()}}
    ) as pod:
        works(client(pod.address("feast-registry")))


def test_a_secret_that_is_there(tmp_path: Path) -> None:
    values = {"existingSecret": {"name": "feast", "key": "server.yaml"}, "storage": "local"}
    with pods.running(
        values, tmp_path, {"feast": {"server.yaml": yaml.safe_dump(SQLITE).encode(), "other": b"\xff"}}
    ) as pod:
        works(client(pod.address("feast-registry")))
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
        address = pod.address("feast-registry")
        works(client(address, cert=str(servers.path), client_cert=mine, client_key=my_key))
        with pytest.raises(grpc.RpcError) as caught:
            client(address, cert=str(servers.path)).list_projects()
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
        config = RemoteRegistryConfig(registry_type="remote", path=pod.address("feast-registry"))
        for token in (cluster.account("deployer", "team"), cluster.person("rita")):
            auth = KubernetesAuthConfig(type="kubernetes", user_token=token)
            RemoteRegistry(config, project=PROJECT, repo_path=None, auth_config=auth).list_projects()
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
        works(client(pod.address("feast-registry")))
        assert (pod.root / "feast-data" / "registry.db").is_file()
        assert "`registry.cert`" in pod.says("is for clients of a server")


def test_the_operators_sql_registry(postgres: databases.Database, cluster: KubernetesApi, tmp_path: Path) -> None:
    """With the authentication that the operator sets unless told otherwise."""
    engine = {"echo": False, "pool_pre_ping": True}
    registry = {"registry_type": "sql", "path": postgres.url, "cache_mode": "none", "sqlalchemy_config_kwargs": engine}
    with pods.running(from_operator(registry, of_cluster(cluster, tmp_path)), tmp_path) as pod:
        address = pod.address("feast-registry")
        with pytest.raises(Exception, match="(?i)token|authenticat"):
            client(address).list_projects()
        auth = KubernetesAuthConfig(type="kubernetes", user_token=cluster.account("deployer", "team"))
        config = RemoteRegistryConfig(registry_type="remote", path=address)
        works(RemoteRegistry(config, project=PROJECT, repo_path=None, auth_config=auth))


def test_the_operators_oidc_settings(tmp_path: Path) -> None:
    registry = {"registry_type": "file", "path": "/feast-data/registry.db"}
    with pods.running(from_operator(registry, OPERATORS_OIDC), tmp_path) as pod:
        pod.says("with authentication")


# --- docs/kubernetes.md ---------------------------------------------------------------------------------


@dataclass
class Block:
    """A fenced block of the guide. Its first line says what it is: `# values.yaml`, `# feature_store.yaml`, or a Kubernetes resource."""

    line: int
    text: str

    @property
    def title(self) -> str:
        return self.text.partition("\n")[0]

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [document for document in yaml.safe_load_all(self.text) if document]


FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[Block]:
    text = GUIDE.read_text()
    found = [m for m in FENCE.finditer(text) if m[1] == language]
    return [Block(text[: match.start()].count("\n") + 2, match[2]) for match in found]


YAML = blocks("yaml")
VALUES_BLOCKS = [block for block in YAML if block.title == "# values.yaml"]
CLIENT_BLOCKS = [block for block in YAML if block.title == "# feature_store.yaml"]
RESOURCE_BLOCKS = [block for block in YAML if "apiVersion:" in block.text]
at = lambda block: f"line {block.line}"

# Of the resources of other operators: what the guide uses of them.
FOREIGN: dict[str, dict[str, Any]] = {
    "Certificate": {
        "apiVersion": "cert-manager.io/v1",
        "spec": {"secretName", "dnsNames", "issuerRef", "duration", "renewBefore", "privateKey"},
    },
    "FeatureStore": {"apiVersion": "feast.dev/v1", "spec": {"feastProject", "services", "authz"}},
}


def test_every_example_of_the_guide_is_of_a_known_kind() -> None:
    assert len(VALUES_BLOCKS) >= 5 and CLIENT_BLOCKS and RESOURCE_BLOCKS
    known = [block.line for block in (*VALUES_BLOCKS, *CLIENT_BLOCKS, *RESOURCE_BLOCKS)]
    assert sorted(known) == [block.line for block in YAML]


@pytest.mark.parametrize("block", VALUES_BLOCKS, ids=at)
def test_the_guides_values(block: Block) -> None:
    (values,) = block.documents
    for document in pods.render(values).documents:
        is_valid(document)


@pytest.mark.parametrize("block", RESOURCE_BLOCKS, ids=at)
def test_the_guides_resources(block: Block) -> None:
    for document in block.documents:
        if foreign := FOREIGN.get(document["kind"]):
            assert document["apiVersion"] == foreign["apiVersion"]
            assert document["spec"].keys() <= foreign["spec"]
        else:
            is_valid(document)


@pytest.mark.parametrize("block", CLIENT_BLOCKS, ids=at)
def test_the_guides_client_settings(block: Block) -> None:
    (settings,) = block.documents
    config = RepoConfig(**settings)
    assert config.registry.registry_type == "remote"


def test_the_guide_names_services_that_there_are() -> None:
    """Every address in it is one of the chart's, with a port that it has."""
    ports = {
        f"{service['metadata']['name']}.{pods.NAMESPACE}.svc.cluster.local:{port['port']}"
        for values in ({"rest": {"enabled": True}}, {"rest": {"enabled": True}, "tls": {"secretName": "tls"}})
        for service in pods.render(values).all("Service")
        for port in service["spec"]["ports"]
    }
    named = re.findall(r"[a-z-]+\.[a-z]+\.svc\.cluster\.local:\d+", GUIDE.read_text())
    assert named and set(named) <= ports


def test_a_configuration_from_a_file(tmp_path: Path) -> None:
    """`helm install … --set-file config=feature_store.yaml`."""
    assert "--set-file config=feature_store.yaml" in GUIDE.read_text()
    path = tmp_path / "feature_store.yaml"
    path.write_text(yaml.safe_dump(SQLITE) + "# A comment, and a comma, and {braces}.\n")
    values = helm_python.parse_set_file(f"config={path}")
    with pods.running(values, tmp_path) as pod:
        works(client(pod.address("feast-registry")))
