"""Proves that the REST API asks who calls as Feast's own REST server does, and that a usual client of HTTP gets along with it.

Both servers have the same feature_store.yaml, with tokens of an identity provider, over registries that are equal.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from feast import Entity, Project
from feast.permissions.action import AuthzedAction
from feast.permissions.permission import Permission
from feast.permissions.policy import RoleBasedPolicy

import harness
import rest
from certificates import Authority
from identity_provider import IdentityProvider
from rest import Answer
from rest_pair import RestPair

PROJECT = "rides"
AUDIENCE = "feast-registry"
DRIVER = f"/api/v1/entities/driver?project={PROJECT}"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "ca")


@pytest.fixture(scope="module")
def provider(ca: Authority) -> Iterator[IdentityProvider]:
    """Rita may read, wim may do everything, and carol nothing."""
    provider = IdentityProvider(*ca.server(name="provider"), AUDIENCE)
    provider.client("feast")
    for name, roles in (("rita", ["reader"]), ("wim", ["writer"]), ("carol", [])):
        provider.user(name, resource_access={"feast": {"roles": roles}})
    yield provider
    provider.close()


def fill(db: Path) -> None:
    """A project with two entities, which readers may see and writers change."""
    registry = harness.sql_registry(db, PROJECT)
    registry.apply_project(Project(name=PROJECT))
    for name in ("driver", "customer"):
        registry.apply_entity(Entity(name=name, join_keys=[f"{name}_id"], description=f"a {name}"), PROJECT)
    writes = [AuthzedAction.CREATE, AuthzedAction.DESCRIBE, AuthzedAction.UPDATE, AuthzedAction.DELETE]
    for name, actions in (("reader", [AuthzedAction.DESCRIBE]), ("writer", writes)):
        # With a pattern, Feast leaves out of lists what may not be seen; without, it refuses them.
        policy = RoleBasedPolicy(roles=[name])
        permission = Permission(name=f"{name}s", policy=policy, actions=actions, name_patterns=".*")
        registry.apply_permission(permission, PROJECT)


@pytest.fixture(scope="module")
def pair(provider: IdentityProvider, ca: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestPair]:
    theirs, ours = (tmp_path_factory.mktemp(side) / "registry.db" for side in ("feast-rest", "our-rest"))
    fill(theirs)
    shutil.copy(theirs, ours)
    auth = {
        "type": "oidc",
        "auth_discovery_url": provider.discovery_url,
        "client_id": "feast",
        "client_secret": provider.clients["feast"].secret,
        "ca_cert_path": str(ca.path),
        "audience": AUDIENCE,
    }
    blocks = {"auth": auth}
    with (
        rest.start_feast_rest(theirs, blocks, PROJECT) as oracle,
        rest.start_our_rest(ours, blocks=blocks, project=PROJECT) as own,
    ):
        yield RestPair(own.wait_serving(), oracle.wait_serving())


def shape(answer: Answer) -> tuple[int, Any, Any]:
    """What clients go by in an error; its words are each server's own."""
    body = answer.body
    assert isinstance(body["detail"], str) and body["detail"], body
    return answer.status, body.get("status_code"), body.get("error_type")


CREDENTIALS = {
    "none": lambda p: None,
    "another scheme": lambda p: "Basic cm9vdDpyb290",
    "no token at all": lambda p: "Bearer nothing",
    "an expired token": lambda p: f"Bearer {p.sign(p.claims('rita', exp=int(time.time()) - 60))}",
}


@pytest.mark.parametrize("what", CREDENTIALS)
def test_who_does_not_say_who_they_are(what: str, pair: RestPair, provider: IdentityProvider) -> None:
    credentials = CREDENTIALS[what](provider)
    headers = {"Authorization": credentials} if credentials else {}
    for method, path in (("GET", DRIVER), ("GET", "/api/v1/entities"), ("DELETE", DRIVER), ("GET", "/api/v1/projects")):
        ours, theirs = pair.both(method, path, headers=headers)
        assert shape(ours) == shape(theirs) == (401, 401, "HTTPException"), f"{method} {path}: {ours} {theirs}"
        assert ours.headers["www-authenticate"] == "Bearer"
    ours, theirs = pair.both("GET", "/api/v1/nothing", headers=headers)
    assert (ours.status, ours.body) == (theirs.status, theirs.body) == (404, {"detail": "Not Found"})


def bearer(provider: IdentityProvider, name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {provider.sign(provider.claims(name))}"}


@pytest.mark.parametrize("name", ["rita", "wim", "carol"])
def test_what_each_may_see(name: str, pair: RestPair, provider: IdentityProvider) -> None:
    headers = bearer(provider, name)
    for path in (f"/api/v1/entities?project={PROJECT}", "/api/v1/projects", f"/api/v1/permissions?project={PROJECT}"):
        ours, theirs = pair.both("GET", path, headers=headers)
        assert ours.status == theirs.status == 200, f"{path}: {ours} {theirs}"
        names = [
            sorted(each["spec"]["name"] for each in next(iter(answer.body.values()), [])) for answer in (ours, theirs)
        ]
        assert names[0] == names[1], path
        assert (names[0] == []) == (name == "carol")
    ours, theirs = pair.both("GET", DRIVER, headers=headers)
    assert ours.status == theirs.status == (403 if name == "carol" else 200)
    if name == "carol":
        assert shape(ours) == shape(theirs) == (403, 403, "FeastPermissionError")


def test_what_a_reader_may_not_do(pair: RestPair, provider: IdentityProvider) -> None:
    headers = bearer(provider, "rita")
    changed = {"name": "driver", "project": PROJECT, "join_key": "driver_id", "description": "changed"}
    for method, path, body in (("POST", "/api/v1/entities", changed), ("DELETE", DRIVER, None)):
        ours, theirs = pair.both(method, path, body, headers=headers)
        assert shape(ours) == shape(theirs) == (403, 403, "FeastPermissionError"), f"{method}: {ours} {theirs}"


def test_a_usual_client_reads_changes_and_puts_back(pair: RestPair, provider: IdentityProvider) -> None:
    """One session of `requests`: compression, redirects, entity tags and connections are as it expects them."""
    base = f"http://{harness.HOST}:{pair.ours.port}"
    with requests.Session() as session:
        session.headers.update(bearer(provider, "wim"))
        # It sends the credentials along, since that is the same server.
        read = session.get(f"{base}/api/v1/entities/driver/", params={"project": PROJECT})
        assert (read.status_code, [each.status_code for each in read.history]) == (200, [307])
        seen, entity = read.headers["etag"], read.json()
        again = session.get(base + DRIVER, headers={"If-None-Match": seen})
        assert (again.status_code, again.content) == (304, b"")
        head = session.head(base + DRIVER)
        assert (head.status_code, head.headers["etag"], head.content) == (200, seen, b"")
        assert head.headers["content-length"] == str(len(session.get(base + DRIVER).content))

        assert "x-registry-revision" not in session.put(base + DRIVER, json=entity).headers
        entity["spec"]["description"] = "changed"
        put = session.put(base + DRIVER, json=entity, headers={"If-Match": seen})
        assert (put.status_code, int(put.headers["x-registry-revision"]) > 0) == (200, True)
        late = session.put(base + DRIVER, json=entity, headers={"If-Match": seen})
        assert (late.status_code, late.json()["error_type"]) == (412, "PreconditionFailed")
        assert session.get(base + DRIVER).json()["spec"]["description"] == "changed"

        many = [{"kind": "entity", "apply": {"spec": {"name": f"of_many_{n}", "joinKey": "id"}}} for n in range(300)]
        batch = session.post(f"{base}/api/v1/batch", params={"project": PROJECT}, json={"edits": many})
        assert (batch.status_code, sum(edit["changed"] for edit in batch.json()["edits"])) == (200, 300)
        listed = session.get(f"{base}/api/v1/entities", params={"project": PROJECT})
        assert listed.headers["content-encoding"] == "gzip" and listed.headers["etag"].startswith("W/")
        assert len(listed.json()["entities"]) == 302
        known = {"If-None-Match": listed.headers["etag"]}
        assert session.get(f"{base}/api/v1/entities", params={"project": PROJECT}, headers=known).status_code == 304

        body = json.dumps({"edits": many[:1]})
        refused = session.post(f"{base}/api/v1/batch", params={"project": PROJECT}, data=body)
        assert refused.status_code == 422, "without a content type it is no JSON"
