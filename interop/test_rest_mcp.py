"""Proves that Feast's own MCP server, which passes its tools' calls on to a REST registry server, works with ours unchanged."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client

import harness
import rest
from certificates import Authority
from identity_provider import IdentityProvider
from rest import RestServer
from rest_requests import prefixed

FEAST = Path(sys.executable).with_name("feast")
AUDIENCE = "feast-registry"
RIDES = {"project": "rides"}

TOOLS: dict[str, tuple[dict[str, Any], str]] = {
    "list_projects": ({}, "/projects"),
    "get_project": ({"name": "rides"}, "/projects/rides"),
    "list_entities": (RIDES, "/entities?project=rides"),
    "get_entity": ({"name": "driver", **RIDES}, "/entities/driver?project=rides"),
    "list_feature_views": ({"entity": "driver", **RIDES}, "/feature_views?project=rides&entity=driver"),
    "get_feature_view": ({"name": "driver_rides", **RIDES}, "/feature_views/driver_rides?project=rides"),
    "list_features": ({"feature_view": "driver_rides", **RIDES}, "/features?project=rides&feature_view=driver_rides"),
    "list_feature_services": (
        {"feature_view": "driver_rides", **RIDES},
        "/feature_services?project=rides&feature_view=driver_rides",
    ),
    "get_feature_service": ({"name": "whole", **RIDES}, "/feature_services/whole?project=rides"),
    "list_data_sources": (RIDES, "/data_sources?project=rides"),
    "get_data_source": ({"name": "trips", **RIDES}, "/data_sources/trips?project=rides"),
    # Feast passes the project on under a name that no REST server knows.
    "search_registry": ({"query": "driver", **RIDES}, "/search?query=driver&project=rides"),
    "get_lineage": (
        {"object_type": "entity", "object_name": "driver", **RIDES},
        "/lineage/objects/entity/driver?project=rides",
    ),
}
"""Each tool of Feast's, what it is called with, and what it then asks."""

WHOLE_LINEAGE = ("get_lineage", RIDES, "/lineage/complete?project=rides")
UNKNOWN = {
    "get_project": {"name": "nowhere"},
    "get_entity": {"name": "nobody", **RIDES},
    "get_feature_view": {"name": "a/b?c#d", **RIDES},
    "get_feature_service": {"name": "..", **RIDES},
    "get_data_source": {"name": "日本\u0000", **RIDES},
    "get_lineage": {"object_type": "feature_view", "object_name": "driver_rides", **RIDES},
}


@dataclass
class Told:
    """What a tool answered."""

    is_error: bool
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)


async def call(client: Client, tool: str, arguments: dict[str, Any]) -> Told:
    result = await client.call_tool(f"registry_{tool}", arguments)
    return Told(bool(result.is_error), "".join(getattr(part, "text", "") for part in result.content))


@pytest.fixture(scope="module")
def served(rest_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestServer]:
    registry = rest.copy_of(rest_registry, tmp_path_factory.mktemp("mcp"))
    with rest.start_our_rest(registry) as server:
        yield server.wait_serving()


@dataclass
class Conversation:
    """What a client of Feast's MCP server got over stdio."""

    tools: list[Any]
    known: dict[str, Told]
    whole_lineage: Told
    unknown: dict[str, Told]
    after: Told


@pytest.fixture(scope="module")
def conversation(served: RestServer, tmp_path_factory: pytest.TempPathFactory) -> Conversation:
    """All calls in one process of `feast mcp`: it takes long to start."""
    folder = tmp_path_factory.mktemp("client")
    url = f"http://{harness.HOST}:{served.port}"
    environment = {**os.environ, "FEAST_MCP_REGISTRY_URL": url}
    server = StdioServerParameters(command=str(FEAST), args=["mcp"], env=environment, cwd=str(folder))

    async def converse() -> Conversation:
        async with Client(server, read_timeout_seconds=120) as client:
            listed = (await client.list_tools()).tools
            known = {tool: await call(client, tool, arguments) for tool, (arguments, _) in TOOLS.items()}
            whole = await call(client, *WHOLE_LINEAGE[:2])
            unknown = {tool: await call(client, tool, arguments) for tool, arguments in UNKNOWN.items()}
            return Conversation(listed, known, whole, unknown, await call(client, "list_projects", {}))

    return asyncio.run(converse())


def test_every_tool_is_called(conversation: Conversation) -> None:
    """Those that Feast offers for a registry are those that are tried here."""
    assert sorted(tool.name for tool in conversation.tools) == sorted(f"registry_{tool}" for tool in TOOLS)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_tells_what_the_registry_has(tool: str, conversation: Conversation, served: RestServer) -> None:
    told, answer = conversation.known[tool], served.ask("GET", prefixed(TOOLS[tool][1]))
    assert not told.is_error and answer.status == 200, told
    assert told.body == answer.body
    name = TOOLS[tool][0].get("name", "driver" if tool != "list_projects" else "rides")
    assert f'"{name}' in told.text, "it is not empty"


def test_the_whole_lineage(conversation: Conversation, served: RestServer) -> None:
    told = conversation.whole_lineage
    assert not told.is_error and told.body == served.ask("GET", prefixed(WHOLE_LINEAGE[2])).body
    assert told.body["objects"]["entities"] and told.body["relationships"]


@pytest.mark.parametrize("tool", UNKNOWN)
def test_what_is_not_there_is_an_error_that_says_so(tool: str, conversation: Conversation) -> None:
    told = conversation.unknown[tool]
    assert told.is_error and "Feast returned HTTP 4" in told.text, told
    assert next(iter(UNKNOWN[tool].values())) in told.text, told


def test_it_goes_on_after_errors(conversation: Conversation) -> None:
    assert not conversation.after.is_error and conversation.after.body == conversation.known["list_projects"].body


# --- tokens ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[IdentityProvider, Authority]]:
    ca = Authority(tmp_path_factory.mktemp("certificates"), "ca")
    provider = IdentityProvider(*ca.server(name="provider"), AUDIENCE)
    provider.client("feast")
    provider.user("rita", roles=["reader"])
    provider.user("carol")
    yield provider, ca
    provider.close()


def wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with socket.create_connection((harness.HOST, port), timeout=1):
                return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)


def test_the_token_of_a_caller_is_passed_on(
    provider: tuple[IdentityProvider, Authority], rest_registry: Path, tmp_path: Path
) -> None:
    """Over HTTP, where callers can have one: our server lets in who has a good one, and shows each what they may see."""
    identities, ca = provider
    auth = {
        "type": "oidc", "auth_discovery_url": identities.discovery_url, "client_id": "feast", "ca_cert_path": str(ca.path),
        "audience": AUDIENCE,
    }  # fmt: skip
    blocks = {"auth": auth, "registry_server": {"default": "deny"}}
    registry, port, log = rest.copy_of(rest_registry, tmp_path), harness.free_port(), tmp_path / "mcp.log"
    with rest.start_our_rest(registry, blocks=blocks) as server:
        url = f"http://{harness.HOST}:{server.wait_serving().port}"
        options = ["--registry-url", url, "--transport", "http", "--host", harness.HOST, "--port", str(port)]
        process = harness.spawn_logged([str(FEAST), "mcp", *options], tmp_path, log)
        try:
            wait_for(port, process, log)

            async def entities(token: str | None) -> Told:
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                http = create_mcp_http_client(headers=headers)
                transport = streamable_http_client(f"http://{harness.HOST}:{port}/mcp", http_client=http)
                async with http, Client(transport) as client:
                    return await call(client, "list_entities", RIDES)

            token = lambda name: identities.sign(identities.claims(name))
            reader, other = asyncio.run(entities(token("rita"))), asyncio.run(entities(token("carol")))
            assert not reader.is_error and not other.is_error, (reader, other)
            names = [entity["spec"]["name"] for entity in reader.body["entities"]]
            assert names == ["driver"], "what the permission `by_role` lets readers see"
            assert other.body["entities"] == []
            for refused in (None, "of-nobody", token("rita")[:-9] + "aaaaaaaaa"):
                told = asyncio.run(entities(refused))
                assert told.is_error and "HTTP 401" in told.text, told
        finally:
            process.terminate()
            process.wait(30)
