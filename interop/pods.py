"""The Helm chart as Helm's own engine renders it, and its pod run as a process: what a kubelet does, as far as that needs no container.

Mounts are folders of the test, and ports are free ones, which arguments and files name instead. Everything else is as rendered: the
arguments, the environment with nothing of ours in it, the working folder.
"""

from __future__ import annotations

import base64
import contextlib
import re
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import yaml
from kubernetes_validate import utils as kubernetes

import harness

CHART = harness.HERE.parent / "deploy" / "charts" / "feast-registry"
RELEASE, NAMESPACE = "feast-registry", "feast"
YAML_VARIABLE = "FEATURE_STORE_YAML_BASE64"

Values = dict[str, Any]
Secrets = dict[str, dict[str, bytes]]

# --- values of examples ----------------------------------------------------------------------------

PROJECT = "rides"
DB_PASSWORD = {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "feast-db", "key": "password"}}}
URL_IN_ENVIRONMENT: Values = {
    "storage": "shared",
    "env": [{"name": "FEAST_REGISTRY_URL", "valueFrom": {"secretKeyRef": {"name": "feast-db", "key": "url"}}}],
}
TLS = {"secretName": "registry-tls", "clientCA": {"secretName": "clients", "key": "ca.crt"}, "clientCertIdentity": True}


def store(registry: Any, **blocks: Any) -> dict[str, Any]:
    """A server's feature_store.yaml."""
    return {"project": PROJECT, "provider": "local", "registry": registry, **blocks}


def encoded(content: Any) -> str:
    return base64.b64encode(yaml.safe_dump(content).encode()).decode()


SQLITE = store({"registry_type": "sql", "path": "sqlite:////data/registry.db"})

# --- what is rendered ------------------------------------------------------------------------------


@dataclass
class Rendered:
    documents: list[dict[str, Any]]
    notes: str

    @property
    def kinds(self) -> list[str]:
        return sorted(document["kind"] for document in self.documents)

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [document for document in self.documents if document["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> dict[str, Any]:
        (document,) = [d for d in self.all(kind) if name in (None, d["metadata"]["name"])]
        return document

    @property
    def pod(self) -> dict[str, Any]:
        return self.one("Deployment")["spec"]["template"]

    @property
    def container(self) -> dict[str, Any]:
        (container,) = self.pod["spec"]["containers"]
        return container


def render(values: Values) -> Rendered:
    """What `helm install` would send. It holds values against the schema first, which rendering alone does not."""
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name=RELEASE, namespace=NAMESPACE)
    notes = files.pop(f"{chart_name()}/templates/NOTES.txt")
    texts = [text for _, text in sorted(files.items())]
    return Rendered([found for text in texts for found in yaml.safe_load_all(text) if found], notes)


def chart_name() -> str:
    return yaml.safe_load((CHART / "Chart.yaml").read_text())["name"]


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


# --- what is run -----------------------------------------------------------------------------------


class Pod:
    """The container of a rendered deployment, as a process. `secrets` are those of the cluster that are not the chart's."""

    def __init__(self, rendered: Rendered, folder: Path, secrets: Secrets) -> None:
        self.rendered, self.root = rendered, folder / "root"
        self.container = rendered.container
        self.secrets = {**secrets, **{s["metadata"]["name"]: decoded(s) for s in rendered.all("Secret")}}
        self.ports = {port["name"]: harness.free_port() for port in self.container["ports"]}
        mounts = [mount["mountPath"] for mount in self.container.get("volumeMounts", [])]
        self._mounts = re.compile(f"({'|'.join(map(re.escape, mounts))})(?=/|$)") if mounts else None
        self._mount()
        self._server = harness.Server(
            "pod", None, self.ports["grpc"], folder / "pod.log", self._start(folder / "pod.log")
        )

    def _moved(self, text: str) -> str:
        """A text with the folders of this test in place of the container's."""
        return self._mounts.sub(rf"{self.root}\1", text) if self._mounts else text

    def _mount(self) -> None:
        self.root.mkdir()
        volumes = {volume["name"]: volume for volume in self.rendered.pod["spec"].get("volumes", [])}
        for mount in self.container.get("volumeMounts", []):
            target = Path(self._moved(mount["mountPath"]))
            target.mkdir(parents=True)
            if secret := volumes[mount["name"]].get("secret"):
                content = self.secrets[secret["secretName"]]
                items = secret.get("items") or [{"key": key, "path": key} for key in content]
                for item in items:
                    data = content[item["key"]]
                    is_ours = item["path"].endswith(".yaml")
                    (target / item["path"]).write_bytes(self._moved(data.decode()).encode() if is_ours else data)

    def arguments(self) -> list[str]:
        arguments = [self._moved(argument) for argument in self.container["args"]]
        for declared in self.container["ports"]:
            pattern = re.compile(rf"(?<=[=:]){declared['containerPort']}$")
            named = [argument for argument in arguments if pattern.search(argument)]
            assert len(named) == 1, f"port {declared} is declared, and named by {named}"
            arguments = [pattern.sub(str(self.ports[declared["name"]]), argument) for argument in arguments]
        return arguments

    def environment(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in self.container.get("envFrom", []):
            found |= {key: value.decode() for key, value in self.secrets[source["secretRef"]["name"]].items()}
        for variable in self.container.get("env", []):
            if "value" in variable:
                value = variable["value"]
            else:
                reference = variable["valueFrom"]["secretKeyRef"]
                value = self.secrets[reference["name"]][reference["key"]].decode()
            found[variable["name"]] = value
        if YAML_VARIABLE in found:
            text = self._moved(base64.b64decode(found[YAML_VARIABLE]).decode())
            found[YAML_VARIABLE] = base64.b64encode(text.encode()).decode()
        return found

    def _start(self, log: Path) -> subprocess.Popen:
        assert "command" not in self.container, "the image's own entrypoint is the server"
        folder = self._moved(self.container.get("workingDir", str(self.root)))
        command = [str(harness.registry_bin()), *self.arguments()]
        with log.open("wb") as out:
            return subprocess.Popen(command, cwd=folder, env=self.environment(), stdout=out, stderr=out)

    def probe(self, name: str) -> int | None:
        """The status that a kubelet gets, which verifies no certificate; None if there is no answer."""
        asked = self.container[name]["httpGet"]
        url = f"{asked['scheme'].lower()}://{harness.HOST}:{self.ports[asked['port']]}{asked['path']}"
        try:
            with urllib.request.urlopen(url, timeout=5, context=ssl._create_unverified_context()) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def passes(self, name: str, within: float = 30) -> None:
        def is_passed() -> bool:
            self._server.assert_alive()
            return self.probe(name) == 200

        try:
            harness.wait_until(is_passed, within, name)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._server.log_tail()}") from error

    def become_ready(self) -> Pod:
        startup = self.container["startupProbe"]
        self.passes("startupProbe", startup["periodSeconds"] * startup["failureThreshold"])
        self.passes("livenessProbe")
        self.passes("readinessProbe")
        return self

    def address(self, service: str) -> str:
        """Where a service leads to."""
        (port,) = self.rendered.one("Service", service)["spec"]["ports"]
        return f"localhost:{self.ports[port['targetPort']]}"

    def says(self, text: str) -> str:
        return self._server.says(text)

    def is_told_to_end(self) -> None:
        self._server.process.terminate()

    def ends(self) -> int:
        """Its exit code, in the time that Kubernetes gives it after SIGTERM. A second one would end it at once."""
        return self._server.process.wait(self.rendered.pod["spec"]["terminationGracePeriodSeconds"])

    def kill(self) -> None:
        self._server.kill()


def decoded(secret: dict[str, Any]) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in secret["data"].items()}


@contextlib.contextmanager
def running(values: Values, folder: Path, secrets: Secrets | None = None) -> Iterator[Pod]:
    """The pod of these values, once its probes pass."""
    pod = Pod(render(values), folder, secrets or {})
    try:
        yield pod.become_ready()
    finally:
        pod.kill()
