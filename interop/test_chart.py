"""Proves that the Helm chart makes what Kubernetes takes, and refuses what cannot work.

There is no cluster here. The chart is rendered by Helm's own engine, and each document is held against the schemas of the oldest and the newest
Kubernetes that there are schemas of, strictly. `test_chart_pods.py` runs what is rendered, `test_kubernetes_guide.py` the examples of the guide.
"""

from __future__ import annotations

import json
import shutil
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

import harness
import pods
from pods import DB_PASSWORD, SQLITE, TLS, URL_IN_ENVIRONMENT, Values, encoded, is_valid, store

ROOT = harness.HERE.parent
POSTGRES = {"registry_type": "sql", "path": "postgresql+psycopg://feast:${DB_PASSWORD}@db.feast.svc:5432/feast"}
METRICS_PEERS = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]

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
    "a URL in the environment": (URL_IN_ENVIRONMENT, []),
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
