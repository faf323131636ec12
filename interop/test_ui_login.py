"""Feast's web UI before a server that asks who calls: people log in at the identity provider, and see what they may."""

from __future__ import annotations

import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
from feast import Entity, FeatureView
from feast.permissions.action import AuthzedAction
from feast.permissions.permission import Permission
from feast.permissions.policy import RoleBasedPolicy
from feast.project import Project

import browser
import harness
import kinds
import ui_forms
import web_ui
from browser import Visitor
from certificates import Authority
from login_page import LoginPage
from web_ui import PROJECT, Ui


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "ca")


@pytest.fixture(scope="module")
def provider(ca: Authority) -> Iterator[LoginPage]:
    browser.program()
    provider = LoginPage(*ca.server(name="provider"), "feast")
    provider.user("rita", resource_access={"feast": {"roles": ["reader"]}})
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def ui(provider: LoginPage, ca: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """Readers may see entities and feature views, and nobody may change anything."""
    db = tmp_path_factory.mktemp("ui") / "registry.db"
    registry = harness.sql_registry(db, PROJECT)
    registry.apply_project(Project(name=PROJECT, description="Everything that moves"))
    registry.apply_entity(kinds.DRIVER, PROJECT)
    registry.apply_feature_view(kinds.feature_view("driver_rides"), PROJECT)
    policy = RoleBasedPolicy(roles=["reader"])
    seen, actions = [Entity, FeatureView], [AuthzedAction.DESCRIBE]
    registry.apply_permission(Permission(name="readers", types=seen, actions=actions, policy=policy), PROJECT)
    auth = {
        "type": "oidc",
        "auth_discovery_url": provider.discovery_url,
        "client_id": "feast",
        "ui_client_id": "feast-ui",
        "audience": "feast",
        "ca_cert_path": str(ca.path),
    }
    with web_ui.running(web_ui.start_ours(db, auth=auth)) as ui:
        provider.redirects_to = ui.origin()
        yield ui


@pytest.fixture
def visitor(ui: Ui, provider: LoginPage, tmp_path: Path) -> Iterator[Visitor]:
    """Whom the provider takes for Rita."""
    provider.visitor = "rita"
    with browser.started() as window:
        yield Visitor("rita", ui.origin(), window, browser.screenshots(tmp_path), ignore_https_errors=True)


def test_people_log_in_and_see_what_they_may(visitor: Visitor, provider: LoginPage) -> None:
    visitor.load(f"/p/{PROJECT}/entity")
    visitor.settle("driver_id").shoot("logged in")
    assert "rita" in visitor.everything()
    assert ("authorization_code", "rita") in provider.granted
    visitor.assert_content()
    visitor.visit(f"/p/{PROJECT}/feature-view/driver_rides")
    visitor.settle("rides", "INT64").assert_content()


def test_what_they_may_not_do_is_told_in_the_form(visitor: Visitor) -> None:
    visitor.load(f"/p/{PROJECT}/entity")
    visitor.settle("driver_id")
    form = next(form for form in ui_forms.FORMS if form.kind == "entities")
    form.create(visitor)
    refusal = "`rita` is not permitted to create or update entity `vehicle`"
    visitor.page.locator(".euiModal").get_by_text(refusal).wait_for()
    visitor.shoot("not permitted")
    visitor.assert_content({"403 POST /api/v1/entities"}, f"console: Error: {refusal}")


def test_who_has_not_logged_in_is_told_names_alone(ui: Ui) -> None:
    (entry,) = web_ui.get(ui, "/projects-list.json")["projects"]
    assert (entry["id"], entry["description"]) == (PROJECT, f"Project: {PROJECT}")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        web_ui.get(ui, f"/api/v1/entities?project={PROJECT}")
