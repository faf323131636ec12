"""Proves that the examples of docs/kubernetes.md work, as far as that needs no cluster: values of the chart are rendered, resources are held against
schemas, settings of clients are read by Feast.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from feast.repo_config import RepoConfig

import harness
import pods
from pods import PROJECT, SQLITE, is_valid

GUIDE = harness.HERE.parent / "docs" / "kubernetes.md"


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
        harness.check_it_works(harness.remote_registry(pod.address("feast-registry"), PROJECT), PROJECT)
