"""Proves that Feast's own command line and SDK work, with each auth type, against a server that asks who calls.

A story runs with each of them: somebody applies a project that was not there, to a server that grants nothing by itself
(`default: deny`), plans, materializes, and so owns it; who has a role, a group or a namespace then sees what the project's own
Permission objects, applied by Feast, let them see, and can change nothing; and an outsider sees nothing. `no_auth` runs the same
story without the limits. Everybody has a feature_store.yaml of their own and nothing else, as users have.

The identity provider and the API of Kubernetes are stand-ins (`stand_ins/`) on this machine, which speak HTTPS and note what they are asked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from feast import Entity, FeatureStore, Project
from feast.errors import FeastObjectNotFoundException, FeastPermissionError
from feast.permissions.action import AuthzedAction
from feast.permissions.client import oidc_authentication_client_manager as oidc_client
from feast.permissions.client.kubernetes_auth_client_manager import KubernetesAuthClientManager
from feast.permissions.permission import Permission
from feast.permissions.policy import RoleBasedPolicy

import harness
import kubernetes_api
from certificates import Authority
from harness import DRIVERS, Ran, driver_facts
from identity_provider import IdentityProvider, new_key
from kubernetes_api import CLUSTER_ROLE_BINDINGS, REVIEWS, ROLE_BINDINGS, KubernetesApi, account, group, user

PROJECT = "rides"
AUDIENCE = "feast-registry"
END = harness.DATA_START.replace(day=2)
WINDOW = (harness.DATA_START.isoformat()[:19], END.isoformat()[:19])
LAST = harness.DATA_HOURS - 1


@dataclass(frozen=True)
class Sees:
    """The names that somebody finds in the project's lists."""

    projects: frozenset[str] = frozenset()
    entities: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    views: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    permissions: frozenset[str] = frozenset()

    @staticmethod
    def of(store: FeatureStore) -> Sees:
        """What the SDK's lists have."""
        names = lambda found: frozenset(one.name for one in found)
        return Sees(
            projects=names(store.list_projects()),
            entities=names(store.list_entities()),
            sources=names(store.list_data_sources()),
            views=names(store.list_feature_views()),
            services=names(store.list_feature_services()),
            permissions=names(store.list_permissions()),
        )


ALL = Sees(
    projects=frozenset({PROJECT}),
    entities=frozenset({"driver", "customer"}),
    sources=frozenset({"driver_source", "customer_source"}),
    views=frozenset({"driver_stats", "customer_profile"}),
    services=frozenset({"driver_service", "customer_service"}),
    permissions=frozenset({"read_project", "read_drivers", "audit_views", "share_customers"}),
)
READER = Sees(
    projects=frozenset({PROJECT}),
    entities=frozenset({"driver"}),
    views=frozenset({"driver_stats"}),
    services=frozenset({"driver_service"}),
)
AUDITOR = Sees(views=ALL.views)
GROWTH = Sees(views=frozenset({"customer_profile"}), services=frozenset({"customer_service"}))
NOTHING = Sees()


@dataclass
class Person:
    """Somebody with a feature_store.yaml: what its block `auth` is, and what their environment has."""

    auth: dict[str, Any] | None
    sees: Sees
    #: Who they are to the server, as its audit log has it.
    principal: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)


@dataclass
class Way:
    """An auth type, a server that has it, and people. `owner`, `reader` and `outsider` are the story's."""

    kind: str
    folder: Path
    nursery: harness.Nursery
    server: harness.Server
    people: dict[str, Person]
    outputs: dict[str, str] = field(default_factory=dict)
    stored: dict[str, Any] = field(default_factory=dict)

    def repo(self, name: str, project: str = PROJECT) -> Path:
        """A folder of their own with the feature repository."""
        folder = self.folder / f"{name}-{project}"
        if not folder.exists():
            shutil.copytree(harness.HERE / "guarded_repo", folder, ignore=shutil.ignore_patterns("__pycache__"))
            harness.write_data(folder / "data")
            write_store(folder, self.server, self.people[name].auth, project)
        return folder

    def store(self, name: str, project: str = PROJECT) -> FeatureStore:
        """The SDK, in this process."""
        return FeatureStore(repo_path=str(self.repo(name, project)))

    def feast(self, name: str, *command: str) -> str:
        """The installed executable."""
        (ran,) = harness.feast_cli(self.repo(name), command, env=self.people[name].env)
        return ran.ok().out

    def quick(self, name: str, *commands: tuple[str, ...]) -> list[Ran]:
        """The command line in processes that are forked, which takes a tenth of the time, all at once."""
        return harness.feast_fast(self.nursery, self.repo(name), *commands, env=self.people[name].env)

    def snapshot(self, project: str = PROJECT) -> dict[str, list[tuple]]:
        return harness.project_snapshot(self.server.db, project)

    def audit(self) -> list[dict[str, Any]]:
        path = self.folder / "audit.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


def write_store(folder: Path, server: harness.Server, auth: dict[str, Any] | None, project: str, **more: Any) -> None:
    """What a user has: a feature_store.yaml (JSON is YAML). `more` is of its block `registry`."""
    store = {
        "project": project,
        "provider": "local",
        "registry": {"registry_type": "remote", "path": server.address, **more},
        "online_store": {"type": "sqlite", "path": "data/online.db"},
        "offline_store": {"type": "file"},
        "entity_key_serialization_version": 3,
    }
    folder.mkdir(exist_ok=True)
    (folder / "feature_store.yaml").write_text(json.dumps(store | ({"auth": auth} if auth else {})))


def store_with(folder: Path, server: harness.Server, auth: dict[str, Any] | None, **more: Any) -> FeatureStore:
    """The SDK with this block `auth`, in a folder of its own."""
    write_store(folder, server, auth, PROJECT, **more)
    return FeatureStore(repo_path=str(folder))


def closed(folder: Path, auth: dict[str, Any]) -> dict[str, Any]:
    """The blocks of a server that grants nothing by itself, and notes whom it granted what."""
    return {"auth": auth, "registry_server": {"default": "deny", "audit": {"path": str(folder / "audit.jsonl")}}}


def refused(call: Callable[[], Any]) -> grpc.RpcError:
    """How a call fails that is not let in at all."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def is_unauthenticated(call: Callable[[], Any]) -> str:
    error = refused(call)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED, error
    return error.details()


# --- an identity provider --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Of the certificates of everything in this file."""
    return Authority(tmp_path_factory.mktemp("certificates"), "ca")


@pytest.fixture(scope="module")
def provider(ca: Authority) -> Iterator[IdentityProvider]:
    provider = IdentityProvider(*ca.server(name="provider"), AUDIENCE)
    # It has published a key that it does not sign with yet.
    provider.published.append(new_key())
    provider.client("feast")
    provider.user("bob", resource_access={"feast": {"roles": ["reader", "tester"]}})
    provider.user("rita", roles=["reader"])
    provider.user("gus", groups=["auditors", "/staff"])
    # None of these is a role, a group or a namespace to Feast.
    decoys = {"realm_access": {"roles": ["reader"]}, "role": "reader", "groups": "auditors", "scope": "reader"}
    decoys |= {"resource_access": {"other": {"roles": ["reader"]}}, "namespaces": ["team-growth"]}
    provider.user("carol", **decoys)
    yield provider
    provider.close()


def oidc_auth(provider: IdentityProvider, ca: Authority) -> dict[str, Any]:
    """The block `auth` of the server and of the deployer alike: Feast has one for both."""
    return {
        "type": "oidc",
        "auth_discovery_url": provider.discovery_url,
        "client_id": "feast",
        "client_secret": provider.clients["feast"].secret,
        "ca_cert_path": str(ca.path),
        "audience": AUDIENCE,
    }


def principal(name: str, kind: str, **who: list[str]) -> dict[str, Any]:
    return {"username": name, "roles": [], "groups": [], "namespaces": [], "auth_type": kind, **who}


def oidc_people(provider: IdentityProvider, ca: Authority) -> dict[str, Person]:
    auth = oidc_auth(provider, ca)
    token = lambda name: provider.sign(provider.claims(name))
    given = lambda name: {"type": "oidc", "token": token(name)}
    return {
        "owner": Person(auth, ALL, principal("service-account-feast", "oidc")),
        "reader": Person(
            {**auth, "username": "bob", "password": provider.users["bob"].password},
            READER,
            principal("bob", "oidc", roles=["reader", "tester"]),
        ),
        "outsider": Person(
            {"type": "oidc", "token_env_var": "INTEROP_TOKEN"},
            NOTHING,
            principal("carol", "oidc"),
            env={"INTEROP_TOKEN": token("carol")},
        ),
        "who has a role of the realm": Person(given("rita"), READER, principal("rita", "oidc", roles=["reader"])),
        "who is in a group": Person(given("gus"), AUDITOR, principal("gus", "oidc", groups=["/staff", "auditors"])),
    }


# --- Kubernetes --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kubernetes(ca: Authority) -> Iterator[KubernetesApi]:
    api = KubernetesApi(*ca.server(name="kubernetes"))
    # Some that nobody here has, so that there is more than a page, and one that is bound to nobody.
    for number in range(4):
        api.bind(f"role-{number}", user(f"someone-{number}"))
        api.bind_everywhere(f"role-{number}", group(f"people-{number}"))
    api.bind("idle")
    yield api
    api.close()


def kubernetes_auth(api: KubernetesApi, ca: Authority, folder: Path) -> dict[str, Any]:
    """The block `auth` of the server, which has a service account of its own."""
    mounted = api.mount(folder / "serviceaccount", ca.path)
    return {"type": "kubernetes", "api_server": api.url, "service_account_dir": str(mounted)}


def kubernetes_people(api: KubernetesApi) -> dict[str, Person]:
    given = lambda token: {"type": "kubernetes", "user_token": token}

    def of_account(name: str, namespace: str, sees: Sees, *roles: str) -> Person:
        groups = ["system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
        who = {"roles": list(roles), "groups": groups, "namespaces": [namespace]}
        auth = given(api.account(name, namespace))
        return Person(auth, sees, principal(f"system:serviceaccount:{namespace}:{name}", "kubernetes", **who))

    def of_person(name: str, sees: Sees, groups: list[str], *roles: str, namespaces: Sequence[str] = ()) -> Person:
        who = {"roles": list(roles), "groups": sorted([*groups, "system:authenticated"])}
        who["namespaces"] = list(namespaces)
        return Person(given(api.person(name, *groups)), sees, principal(name, "kubernetes", **who))

    api.bind("reader", account("bob", "team-rides"))
    api.bind_everywhere("reader", user("rita"))
    api.bind("reader", group("team-rides-people"))
    api.bind_member(user("dan"), "team-growth")
    # Whoever administers another namespace hands out no roles of the registry.
    api.bind("reader", user("eve"), group("team-pricing-people"), namespace="team-pricing")
    # None of these is a role of carol's account: of another namespace than the server's, of others who are called the same, and of the
    # whole cluster.
    api.bind("reader", account("carol", "team-pricing"), namespace="team-pricing")
    api.bind("reader", account("carol", "team-other"), user("carol"), user("team-pricing:carol"), group("carol"))
    api.bind_everywhere("reader", account("carol", "team-pricing"))
    return {
        "owner": of_account("deployer", "team-rides", ALL),
        "reader": of_account("bob", "team-rides", READER, "reader"),
        "outsider": of_account("carol", "team-pricing", NOTHING),
        "whose account is called as the owner's": of_account("deployer", "team-other", NOTHING),
        "whose namespace is let in": of_account("nadia", "team-growth", GROWTH),
        "a user who is bound in the whole cluster": of_person("rita", READER, [], "reader"),
        "a user whose group is bound": of_person("ruth", READER, ["team-rides-people"], "reader"),
        "a user who is bound in another namespace": of_person("eve", NOTHING, ["team-pricing-people"]),
        "a user who is a member of a namespace": of_person("dan", GROWTH, [], namespaces=["team-growth"]),
        "a user whose group is let in": of_person("gus", AUDITOR, ["auditors"]),
        "a user who is called as an account": of_person("team-rides:bob", NOTHING, []),
    }


# --- the story -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["no_auth", "oidc", "kubernetes"])
def way(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, nursery: harness.Nursery, ca: Authority
) -> Iterator[Way]:
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    if kind == "oidc":
        provider = request.getfixturevalue("provider")
        blocks, people = closed(folder, oidc_auth(provider, ca)), oidc_people(provider, ca)
    elif kind == "kubernetes":
        api = request.getfixturevalue("kubernetes")
        blocks, people = closed(folder, kubernetes_auth(api, ca, folder)), kubernetes_people(api)
    else:
        blocks = {"auth": {"type": "no_auth"}}
        # Users may be given tokens before the server asks for any.
        early = {"type": "oidc", "token": "of-a-user"}
        people = {
            name: Person(auth, ALL)
            for name, auth in (("owner", {"type": "no_auth"}), ("outsider", None), ("early", early))
        }
    with (
        harness.running(harness.start_ours(folder / "registry.db", blocks=blocks)) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for person in people.values():
            for name, value in person.env.items():
                patch.setenv(name, value)
        yield Way(kind, folder, nursery, server, people)


@pytest.fixture(autouse=True)
def no_tokens_of_before() -> None:
    """Feast's client keeps tokens for the whole process."""
    oidc_client._token_cache.clear()


@pytest.fixture(scope="module")
def applied(way: Way) -> Way:
    way.outputs["first plan"] = way.quick("owner", ("plan",))[0].ok().out
    way.stored["planned"] = way.snapshot()
    if way.kind == "no_auth":
        # test_feast_cli.py has the installed executable do it.
        way.quick("owner", ("apply",))[0].ok()
    else:
        way.feast("owner", "apply")
    way.stored["applied"] = way.snapshot()
    return way


@pytest.fixture(scope="module")
def materialized(applied: Way) -> Way:
    applied.outputs["second plan"] = applied.quick("owner", ("plan",))[0].ok().out
    applied.quick("owner", ("materialize", *WINDOW))[0].ok()
    return applied


def test_a_plan_writes_nothing_and_names_what_is_new(applied: Way) -> None:
    for name in ALL.entities | ALL.views | ALL.services:
        assert name in applied.outputs["first plan"]
    assert not any(applied.stored["planned"].values())


def test_an_apply_stores_all_of_it(applied: Way) -> None:
    assert any(applied.stored["applied"].values())
    assert Sees.of(applied.store("owner")) == ALL


def test_a_materialization_is_recorded_and_read_back(materialized: Way) -> None:
    assert "No changes to registry" in materialized.outputs["second plan"]
    store = materialized.store("owner")
    for name in ALL.views:
        harness.assert_intervals(store.get_feature_view(name).to_proto(), [(harness.DATA_START, END)])
    rows = [{"driver_id": driver} for driver in DRIVERS]
    found = store.get_online_features(features=store.get_feature_service("driver_service"), entity_rows=rows).to_dict()
    assert found["trips"] == [driver_facts(driver, LAST)[1] for driver in DRIVERS]


def test_lists_have_what_is_granted(materialized: Way) -> None:
    seen = {name: Sees.of(materialized.store(name)) for name in materialized.people}
    assert seen == {name: person.sees for name, person in materialized.people.items()}


def listed(ran: Ran) -> set[str]:
    """The first column of a table that the command line prints."""
    lines = [line for line in ran.ok().out.splitlines() if line.strip()]
    headers = [number for number, line in enumerate(lines) if line.startswith("NAME ")]
    assert headers, ran.out
    return {line.split()[0] for line in lines[headers[0] + 1 :]}


def test_the_command_line_lists_what_is_granted(materialized: Way) -> None:
    for name in {"reader", "outsider"} & materialized.people.keys():
        found = [listed(ran) for ran in materialized.quick(name, ("entities", "list"), ("feature-views", "list"))]
        sees = materialized.people[name].sees
        assert found == [sees.entities, sees.views], name


@pytest.fixture(scope="module")
def guarded(materialized: Way) -> Way:
    """The story where not everybody may do everything."""
    if materialized.kind == "no_auth":
        pytest.fail("ask for `guarded` only where callers are asked who they are")
    return materialized


guarded_ways = pytest.mark.parametrize("way", ["oidc", "kubernetes"], indirect=True)


@guarded_ways
def test_what_is_granted_can_be_got_and_nothing_else(guarded: Way) -> None:
    reader = guarded.store("reader")
    assert reader.get_feature_view("driver_stats").name == "driver_stats"
    assert reader.get_entity("driver").tags == {"team": "rides"}
    for store, view, entity in [
        (reader, "customer_profile", "customer"),
        (guarded.store("outsider"), "driver_stats", "driver"),
    ]:
        for call in (lambda: store.get_feature_view(view), lambda: store.get_entity(entity)):
            with pytest.raises((FeastPermissionError, FeastObjectNotFoundException)):
                call()


@guarded_ways
@pytest.mark.parametrize("name", ["reader", "outsider"])
def test_who_does_not_own_it_cannot_apply(name: str, guarded: Way) -> None:
    """Neither with the command line nor with the SDK: of things that they see, of things that they do not, and of new ones."""
    definitions = guarded.repo(name) / "definitions.py"
    definitions.write_text(definitions.read_text().replace('{"team": "rides"}', '{"team": "theirs"}'))
    before = guarded.snapshot()
    apply, materialize = guarded.quick(name, ("apply",), ("materialize", *WINDOW))
    assert apply.code != 0
    not_permitted = (
        f"feast.errors.FeastPermissionError: `{guarded.people[name].principal['username']}` is not permitted"
    )
    assert not_permitted in apply.out
    # The outsider has no view to materialize.
    assert (not_permitted in materialize.out) == (name == "reader"), materialize.out
    store = guarded.store(name)
    for thing in ("driver", "customer", "rider"):
        with pytest.raises(FeastPermissionError):
            store.apply(Entity(name=thing, join_keys=["their_id"]))
    with pytest.raises(FeastPermissionError):
        store.delete_feature_view("driver_stats")
    assert guarded.snapshot() == before


@guarded_ways
def test_the_owner_goes_on_changing_it(guarded: Way) -> None:
    """What a server grants nobody else: the same calls as those that are refused to others."""
    store = guarded.store("owner")
    rider = Entity(name="rider", join_keys=["rider_id"])
    store.apply(rider)
    assert Sees.of(store).entities == ALL.entities | {"rider"}
    store.apply([], objects_to_delete=[rider], partial=False)
    assert Sees.of(store) == ALL


@guarded_ways
def test_an_outsider_has_a_project_of_their_own(guarded: Way) -> None:
    """So they see nothing of the other because of who they are, and not because their calls fail."""
    theirs = harness.new_project("theirs")
    store = guarded.store("outsider", theirs)
    store.apply(Entity(name="meter", join_keys=["meter_id"]))
    assert Sees.of(store) == Sees(projects=frozenset({theirs}), entities=frozenset({"meter"}))
    for other in ("owner", "reader"):
        others = FeatureStore(config=guarded.store(other).config.model_copy(update={"project": theirs}))
        assert Sees.of(others) == Sees(projects=frozenset({PROJECT}))


@guarded_ways
def test_what_is_taken_away_is_gone_at_once(guarded: Way) -> None:
    owner, reader = guarded.store("owner"), guarded.store("reader")
    permission: Permission = owner.get_permission("read_drivers")
    assert Sees.of(reader) == READER
    owner.registry.delete_permission("read_drivers", PROJECT)
    assert Sees.of(reader) == Sees(projects=READER.projects)
    owner.registry.apply_permission(permission, PROJECT)
    assert Sees.of(reader) == READER


@guarded_ways
def test_the_server_knows_exactly_who_calls(guarded: Way) -> None:
    """Name, roles, groups and namespaces as Feast reads them: what the audit log has of a write of each."""
    found = {}
    for name in guarded.people:
        store, project = guarded.store(name), harness.new_project("mine")
        store.registry.apply_project(Project(name=project))
        mine = lambda: [e for e in guarded.audit() if e["resource"] and e["resource"]["name"] == project]
        harness.wait_until(mine, 10, f"the audit log's line of {project}")
        found[name] = mine()[-1]["principal"]
    assert found == {name: person.principal for name, person in guarded.people.items()}


# --- tokens of an identity provider --------------------------------------------------------------------


@pytest.fixture(scope="module")
def oidc_server(
    provider: IdentityProvider, ca: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[harness.Server]:
    """A server for tests about tokens. The user bob owns its project."""
    folder = tmp_path_factory.mktemp("tokens")
    blocks = closed(folder, oidc_auth(provider, ca))
    with harness.running(harness.start_ours(folder / "registry.db", blocks=blocks)) as server:
        store = store_with(folder / "bob", server, {"type": "oidc", "token": provider.sign(provider.claims("bob"))})
        store.registry.apply_project(Project(name=PROJECT))
        yield server


def projects(store: FeatureStore) -> list[str]:
    return [project.name for project in store.list_projects()]


TOKENS = {
    "client_secret": lambda auth, token: (auth, {}),
    "password": lambda auth, token: ({**auth, "username": "bob", "password": "password-of-bob"}, {}),
    "token": lambda auth, token: ({"type": "oidc", "token": token}, {}),
    "token_env_var": lambda auth, token: ({"type": "oidc", "token_env_var": "INTEROP_OTHER"}, {"INTEROP_OTHER": token}),
    "environment": lambda auth, token: ({"type": "oidc"}, {"FEAST_OIDC_TOKEN": token}),
}


@pytest.mark.parametrize("source", TOKENS)
def test_each_way_of_the_client_to_a_token(
    source: str,
    oidc_server: harness.Server,
    provider: IdentityProvider,
    ca: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whose token it is shows by the project that bob owns and nobody else sees."""
    monkeypatch.delenv("FEAST_OIDC_TOKEN", raising=False)
    auth, env = TOKENS[source](oidc_auth(provider, ca), provider.sign(provider.claims("bob")))
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    provider.granted.clear()
    store = store_with(tmp_path / "store", oidc_server, auth)
    for _ in range(3):
        assert projects(store) == ([] if source == "client_secret" else [PROJECT])
    # What it has once it uses again.
    granted = {"client_secret": [("client_credentials", "feast")], "password": [("password", "bob")]}
    assert provider.granted == granted.get(source, [])


def unsigned(claims: dict[str, Any], signature: Callable[[bytes], bytes], **header: str) -> str:
    """A token that no library makes."""
    part = lambda content: base64.urlsafe_b64encode(content).rstrip(b"=")
    text = b".".join(part(json.dumps(content).encode()) for content in ({"typ": "JWT", **header}, claims))
    return (text + b"." + part(signature(text))).decode()


def with_public_key(provider: IdentityProvider, as_text: Callable[[Any], bytes]) -> str:
    """A token that is signed with what everybody has: the public key, as the secret of an HMAC."""
    secret = as_text(provider.key)
    sign = lambda text: hmac.new(secret, text, hashlib.sha256).digest()
    return unsigned(provider.claims("bob"), sign, alg="HS256", kid=provider.key.kid)


def without_signature(provider: IdentityProvider) -> str:
    return provider.sign(provider.claims("bob")).rpartition(".")[0] + "."


def of_somebody_else(provider: IdentityProvider) -> str:
    """The signature of another token, which is good."""
    header, _, _ = provider.sign(provider.claims("bob")).split(".")
    _, _, signature = provider.sign(provider.claims("carol")).split(".")
    _, claims, _ = provider.sign(provider.claims("bob")).split(".")
    return ".".join((header, claims, signature))


BAD_TOKENS: dict[str, Callable[[IdentityProvider], str]] = {
    "expired": lambda p: p.sign(p.claims("bob", iat=int(time.time()) - 400, exp=int(time.time()) - 60)),
    "never expires": lambda p: p.sign(p.claims("bob", exp=None)),
    "not good yet": lambda p: p.sign(p.claims("bob", nbf=int(time.time()) + 60)),
    "for another audience": lambda p: p.sign(p.claims("bob", aud="another-registry")),
    "for nobody in particular": lambda p: p.sign(p.claims("bob", aud=None)),
    "of another issuer": lambda p: p.sign(p.claims("bob", iss="https://127.0.0.1:1/realms/feast")),
    "of no issuer": lambda p: p.sign(p.claims("bob", iss=None)),
    "alg none": lambda p: unsigned(p.claims("bob"), lambda text: b"", alg="none"),
    "alg none with a key": lambda p: unsigned(p.claims("bob"), lambda text: b"", alg="none", kid=p.key.kid),
    "HS256 with the public key (PEM)": lambda p: with_public_key(p, lambda key: key.as_pem(private=False)),
    "HS256 with the public key (DER)": lambda p: with_public_key(p, lambda key: key.as_der(private=False)),
    "unknown key": lambda p: p.sign(p.claims("bob"), new_key()),
    "another key by the name of a known one": lambda p: p.sign(p.claims("bob"), new_key(), kid=p.key.kid),
    "without a signature": without_signature,
    "with the signature of another": of_somebody_else,
    "of nobody": lambda p: p.sign(p.claims("bob", preferred_username=None, azp=None, sub=None)),
    "no token": lambda p: "bob",
}


def test_tokens_that_let_nobody_in(oidc_server: harness.Server, provider: IdentityProvider, tmp_path: Path) -> None:
    """By Feast's client, which is told UNAUTHENTICATED. The same claims, signed as they should be, let bob in."""
    store = lambda token: store_with(tmp_path / "store", oidc_server, {"type": "oidc", "token": token})
    codes = {}
    for name, make in BAD_TOKENS.items():
        codes[name] = refused(lambda: store(make(provider)).list_projects()).code()
        entity = Entity(name="driver", join_keys=["k"])
        assert refused(lambda: store(make(provider)).registry.apply_entity(entity, PROJECT)).code() is codes[name]
    assert codes == dict.fromkeys(BAD_TOKENS, grpc.StatusCode.UNAUTHENTICATED)
    bob = store(provider.sign(provider.claims("bob")))
    assert projects(bob) == [PROJECT]
    assert not bob.list_entities()
    oidc_server.assert_alive()


def test_a_client_without_a_token(oidc_server: harness.Server, tmp_path: Path) -> None:
    """One that is not told of `auth`, as before the server asked who calls. Whether the server is well, it may ask."""
    for auth in (None, {"type": "no_auth"}):
        assert "no bearer token" in is_unauthenticated(store_with(tmp_path / "store", oidc_server, auth).list_projects)
    assert oidc_server.is_serving()


def test_a_client_that_is_turned_away_gets_itself_a_new_token(
    oidc_server: harness.Server,
    provider: IdentityProvider,
    ca: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It keeps tokens until they expire, but for one that the server says is no good."""
    store = store_with(tmp_path / "store", oidc_server, oidc_auth(provider, ca))
    provider.granted.clear()
    # An administrator has not told the provider yet what its tokens are for.
    monkeypatch.setattr(provider, "audience", "something-else")
    is_unauthenticated(store.list_projects)
    monkeypatch.undo()
    assert len(provider.granted) == 1
    assert projects(store) == []
    assert len(provider.granted) == 2
    assert projects(store) == []
    assert len(provider.granted) == 2


def test_tokens_that_are_short_lived(
    oidc_server: harness.Server,
    provider: IdentityProvider,
    ca: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client gets itself new ones in time, and no call fails."""
    monkeypatch.setattr(provider, "lifetime", 2)
    provider.granted.clear()
    auth = {**oidc_auth(provider, ca), "username": "bob", "password": "password-of-bob"}
    store = store_with(tmp_path / "store", oidc_server, {**auth, "token_refresh_margin_seconds": 1})
    deadline = time.monotonic() + 2.5
    calls = 0
    while time.monotonic() < deadline:
        assert projects(store) == [PROJECT]
        calls += 1
        time.sleep(0.02)
    assert 3 <= len(provider.granted) <= 5 < calls


def test_a_new_key_of_the_provider(
    oidc_server: harness.Server, provider: IdentityProvider, ca: Authority, tmp_path: Path
) -> None:
    """The provider signs with another key from now on, and takes the one before back, while the server runs."""
    given = lambda token: store_with(tmp_path / "given", oidc_server, {"type": "oidc", "token": token})
    assert projects(given(provider.sign(provider.claims("bob")))) == [PROJECT]
    before = provider.rotate()
    provider.published.remove(before)
    auth = {**oidc_auth(provider, ca), "username": "bob", "password": "password-of-bob"}
    client = store_with(tmp_path / "client", oidc_server, auth)

    def lets_in() -> bool:
        try:
            return projects(client) == [PROJECT]
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED, error
            return False

    # The server asks for keys that it does not know every ten seconds at the most.
    harness.wait_until(lets_in, 15, "a token of the new key to be taken")
    is_unauthenticated(given(provider.sign(provider.claims("bob", jti="another"), before)).list_projects)
    assert provider.key in provider.published and len(provider.published) > 1, "there is another key besides"


# --- with TLS ----------------------------------------------------------------------------------------------


def test_a_token_over_tls(
    provider: IdentityProvider, ca: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = ca.server(name="registry")
    blocks = closed(tmp_path, oidc_auth(provider, ca))
    blocks["registry_server"]["tls"] = {"cert": certificate, "key": key}
    with harness.running(harness.start_ours(tmp_path / "registry.db", blocks=blocks, wait=False)) as server:
        server.says("serving ")
        auth = oidc_auth(provider, ca)
        store = store_with(tmp_path / "deployer", server, auth, cert=str(ca.path))
        store.apply(Entity(name="driver", join_keys=["driver_id"]))
        assert (projects(store), {entity.name for entity in store.list_entities()}) == ([PROJECT], {"driver"})

        monkeypatch.setenv("SSL_CERT_FILE", str(ca.path))
        store = store_with(tmp_path / "other", server, {"type": "oidc", "token": "bob"}, is_tls=True)
        is_unauthenticated(store.list_projects)
        is_unauthenticated(store_with(tmp_path / "nobody", server, None, is_tls=True).list_projects)
        store = store_with(
            tmp_path / "bob", server, {"type": "oidc", "token": provider.sign(provider.claims("bob"))}, is_tls=True
        )
        assert projects(store) == []
        error = refused(store_with(tmp_path / "plain", server, auth).list_projects)
        assert error.code() is grpc.StatusCode.UNAVAILABLE, error


# --- tokens of Kubernetes ------------------------------------------------------------------------------------


@pytest.fixture
def kubernetes_server(kubernetes: KubernetesApi, ca: Authority, tmp_path: Path) -> Iterator[harness.Server]:
    """A server of one test's own, so that it knows nobody yet. The account team-rides:deployer owns its project."""
    blocks = closed(tmp_path, kubernetes_auth(kubernetes, ca, tmp_path))
    with harness.running(harness.start_ours(tmp_path / "registry.db", blocks=blocks)) as server:
        auth = {"type": "kubernetes", "user_token": kubernetes.account("deployer", "team-rides")}
        kubernetes.calls.clear()
        store_with(tmp_path / "owner", server, auth).registry.apply_project(Project(name=PROJECT))
        yield server


@pytest.mark.parametrize("source", ["user_token", "file", "environment"])
def test_each_way_of_the_client_to_a_token_of_kubernetes(
    source: str,
    kubernetes_server: harness.Server,
    kubernetes: KubernetesApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = kubernetes.account("deployer", "team-rides")
    auth = {"type": "kubernetes"}
    # Feast's client has one place where it looks for the file; a pod that runs this test may have one there.
    mounted = tmp_path / "mounted-token"
    made = KubernetesAuthClientManager.__init__

    def elsewhere(self: KubernetesAuthClientManager, config: Any) -> None:
        made(self, config)
        self.token_file_path = str(mounted)

    monkeypatch.setattr(KubernetesAuthClientManager, "__init__", elsewhere)
    monkeypatch.delenv("LOCAL_K8S_TOKEN", raising=False)
    if source == "user_token":
        auth["user_token"] = token
    elif source == "file":
        mounted.write_text(token + "\n")
    else:
        monkeypatch.setenv("LOCAL_K8S_TOKEN", token)
    assert projects(store_with(tmp_path / "store", kubernetes_server, auth)) == [PROJECT]
    assert kubernetes.reviews_of(token) >= 1


def test_what_the_server_asks_of_kubernetes(
    kubernetes_server: harness.Server, kubernetes: KubernetesApi, tmp_path: Path
) -> None:
    """Of a service account the role bindings of its own namespace, of a user also all others. Nothing more, and not with
    every call."""
    own = f"{kubernetes_api.RBAC}/namespaces/{kubernetes_api.NAMESPACE}/rolebindings"

    def asked() -> set[tuple[str, str]]:
        assert all(call.status in (200, 201) for call in kubernetes.calls), kubernetes.calls
        found = {(call.method, call.path) for call in kubernetes.calls}
        kubernetes.calls.clear()
        return found

    # What the fixture did.
    assert asked() == {("POST", REVIEWS), ("GET", own)}
    token = kubernetes.person("rita")
    store = store_with(tmp_path / "store", kubernetes_server, {"type": "kubernetes", "user_token": token})
    for _ in range(3):
        store.list_projects()
    assert kubernetes.reviews_of(token) == 1
    assert asked() - {("GET", own)} == {("POST", REVIEWS), ("GET", ROLE_BINDINGS), ("GET", CLUSTER_ROLE_BINDINGS)}


def test_a_token_that_kubernetes_does_not_know(
    kubernetes_server: harness.Server, kubernetes: KubernetesApi, tmp_path: Path
) -> None:
    """What a token says of itself counts for nothing: only the review does."""
    claims = {"sub": "system:serviceaccount:team-rides:deployer", "iss": "https://kubernetes.default.svc"}
    claims |= {"aud": ["https://kubernetes.default.svc"], "exp": int(time.time()) + 300}
    claims["kubernetes.io"] = {"namespace": "team-rides", "serviceaccount": {"name": "deployer"}}
    forged = {
        "none": jwt.encode(claims, "", algorithm="none"),
        "a secret of somebody's": jwt.encode(claims, "s" * 32, algorithm="HS256"),
        "a key of somebody's": jwt.encode(claims, new_key().as_pem(private=True), algorithm="RS256"),
        "a name": "system:serviceaccount:team-rides:deployer",
    }
    codes = {}
    for name, token in forged.items():
        store = store_with(tmp_path / "store", kubernetes_server, {"type": "kubernetes", "user_token": token})
        codes[name] = refused(store.list_projects).code()
        entity = Entity(name="driver", join_keys=["k"])
        assert refused(lambda: store.registry.apply_entity(entity, PROJECT)).code() is codes[name]
    assert codes == dict.fromkeys(forged, grpc.StatusCode.UNAUTHENTICATED)
    for name, token in forged.items():
        assert kubernetes.reviews_of(token) >= 1, f"nobody was asked of {name}"
    is_unauthenticated(store_with(tmp_path / "store", kubernetes_server, None).list_projects)


def test_what_a_token_of_kubernetes_is_for(kubernetes: KubernetesApi, ca: Authority, tmp_path: Path) -> None:
    """Those that were made for something else, such as the API itself, are no good where an audience is set."""
    blocks = closed(tmp_path, {**kubernetes_auth(kubernetes, ca, tmp_path), "audience": AUDIENCE})
    with harness.running(harness.start_ours(tmp_path / "registry.db", blocks=blocks)) as server:
        store = lambda token: store_with(tmp_path / "store", server, {"type": "kubernetes", "user_token": token})
        assert projects(store(kubernetes.account("bob", "team-rides", AUDIENCE))) == []
        is_unauthenticated(store(kubernetes.account("bob", "team-rides")).list_projects)
        is_unauthenticated(store(kubernetes.account("bob", "team-rides", "vault")).list_projects)


def test_nobody_new_is_let_in_while_kubernetes_is_out_of_order(
    kubernetes_server: harness.Server, kubernetes: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lambda token: store_with(tmp_path / "store", kubernetes_server, {"type": "kubernetes", "user_token": token})
    token = kubernetes.account("deployer", "team-rides")
    for failure in (500, 401, 403):
        monkeypatch.setattr(kubernetes, "failure", failure)
        error = refused(store(token).list_projects)
        assert error.code() is grpc.StatusCode.UNAVAILABLE, (failure, error)
        assert kubernetes.own_token not in kubernetes_server.log.read_text()
    monkeypatch.undo()
    harness.wait_until(lambda: let_in(store(token)), 15, "the server to ask again")


def let_in(store: FeatureStore) -> bool:
    try:
        return projects(store) == [PROJECT]
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE, error
        return False


@pytest.fixture
def night_shift(kubernetes: KubernetesApi) -> dict[str, Any]:
    """A role binding that is there before the server has read any."""
    return kubernetes.bind("night-shift", account("nora", "team-rides"))


def test_what_kubernetes_takes_away_holds_within_seconds(
    night_shift: dict[str, Any], kubernetes_server: harness.Server, kubernetes: KubernetesApi, tmp_path: Path
) -> None:
    """A token that was withdrawn, and a role binding that is gone."""
    give = lambda name, token: store_with(
        tmp_path / name, kubernetes_server, {"type": "kubernetes", "user_token": token}
    )
    withdrawn, kept = kubernetes.account("deployer", "team-rides"), kubernetes.account("deployer", "team-rides")
    owner, other = give("kept", kept), give("withdrawn", withdrawn)
    permission = Permission(
        name="night", types=[Project], policy=RoleBasedPolicy(roles=["night-shift"]), actions=[AuthzedAction.DESCRIBE]
    )
    owner.registry.apply_permission(permission, PROJECT)
    nora = give("nora", kubernetes.account("nora", "team-rides"))
    assert [projects(store) for store in (owner, other, nora)] == [[PROJECT]] * 3

    del kubernetes.tokens[withdrawn]
    kubernetes.unbind(night_shift)

    def is_out() -> bool:
        try:
            other.list_projects()
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAUTHENTICATED
        return False

    harness.wait_until(lambda: is_out() and projects(nora) == [], 25, "what was taken away to be gone")
    assert projects(owner) == [PROJECT]


def test_the_server_s_own_token_is_renewed(
    kubernetes_server: harness.Server, kubernetes: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes puts another one in the file every hour or so, and the one before is good for some time more."""
    store = lambda: store_with(
        tmp_path / "store",
        kubernetes_server,
        {"type": "kubernetes", "user_token": kubernetes.account("deployer", "team-rides")},
    )
    assert projects(store()) == [PROJECT]
    monkeypatch.setattr(kubernetes, "own_token", "the-registry-server-an-hour-later")
    (tmp_path / "serviceaccount" / "token").write_text(kubernetes.own_token)
    harness.wait_until(lambda: let_in(store()), 90, "the server to call with its new token")


def test_a_user_who_is_called_as_a_service_account_is_not_it(
    kubernetes_server: harness.Server, kubernetes: KubernetesApi, tmp_path: Path
) -> None:
    """Whose project it is goes by name, and Kubernetes lets a user have a name with a colon in it."""
    token = kubernetes.person("team-rides:deployer")
    store = store_with(tmp_path / "store", kubernetes_server, {"type": "kubernetes", "user_token": token})
    assert projects(store) == []
    with pytest.raises(FeastPermissionError):
        store.registry.apply_entity(Entity(name="driver", join_keys=["driver_id"]), PROJECT)
