"""Feast's web UI, in a browser, before our server: every page shows what it shows before Feast's own.

Two windows look at the same objects, one served by `feast ui`, the other by own. What a page shows has to be the same in both,
and nothing may fail that does not fail there. So each page names a few texts of its own: two pages that are equally empty
would be the same, too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from feast.project import Project

import browser
import harness
import web_ui
from browser import Visitor
from ui_forms import FORMS, Form, button
from web_ui import Ui

RIDES, ALL = f"/p/{web_ui.PROJECT}", "/p/all"
# What the UI asks for that is there only in deployments with an OpenLineage server, or with monitoring.
NO_OPENLINEAGE = {f"404 GET /api/v1/lineage/openlineage/{name}" for name in ("namespaces", "graph")}
NO_MONITORING = {
    f"503 GET /api/v1/monitoring/metrics/{name}" for name in ("features", "feature_views", "feature_services")
}


@dataclass(frozen=True)
class Shown:
    """A page, what is on it, and what it asks for in vain."""

    path: str
    texts: tuple[str, ...]
    refused: set[str] = field(default_factory=set)
    complaints: str = ""

    def __str__(self) -> str:
        return self.path


def shown(path: str, *texts: str, refused: set[str] = frozenset(), complaints: str = "") -> Shown:
    return Shown(path, texts, set(refused), complaints)


PAGES = [
    shown("/", "Welcome to Feast", "Rides", "Everything that moves", "Food Delivery", "All Projects"),
    shown(RIDES, "Project: Rides", "Everything that moves", "Feature Views", "Explore this Project", "growth (1)"),
    shown(f"/p/{web_ui.SECOND}", "Project: Food Delivery", "Project: food_delivery"),
    shown("/p/nothing", "Error Loading Project", "There is no project with id nothing"),
    shown(f"{RIDES}/data-source", "driver_stats_source", "trip_request", "PUSH_SOURCE", "STREAM_KAFKA"),
    shown(f"{RIDES}/data-source/driver_stats_source", "BATCH_FILE", "Hourly statistics of drivers", "driver_fresh"),
    shown(f"{RIDES}/data-source/driver_push_source", "PUSH_SOURCE", "Consuming Views"),
    shown(f"{RIDES}/data-source/rides_topic", "STREAM_KAFKA", "driver_rides_stream"),
    shown(f"{RIDES}/data-source/trip_request", "REQUEST_SOURCE", "distance_km", "DOUBLE", "trip_price"),
    shown(f"{RIDES}/data-source/driver_stats_source/fs-demo-tab", "Hello World", "driver_stats_source"),
    shown(f"{RIDES}/entity", "driver_id", "INT64", "customer_id", "STRING"),
    shown(f"{RIDES}/entity/driver", "by the number that the fleet system gave them", "fraud_label", "label view"),
    shown(f"{RIDES}/features", "acceptance", "Float32", "spend_rounded", "Array(Int64)", "trip_price"),
    shown(f"{RIDES}/feature-view", "driver_stats", "stream", "ondemand", "customer_profile"),
    shown(f"{RIDES}/feature-view/driver_stats", "Consuming Services", "acceptance", "2024-01-01", "handover"),
    shown(f"{RIDES}/feature-view/driver_stats/lineage", "pricing", "trip_price", "driver_stats_source"),
    shown(f"{RIDES}/feature-view/driver_stats/versions", "No version history available."),
    shown(f"{RIDES}/feature-view/driver_stats/curl-generator", "driver_stats:acceptance", "get-online-features"),
    shown(f"{RIDES}/feature-view/driver_stats/data-tab", "Data Item Name"),
    shown(f"{RIDES}/feature-view/customer_profile", "visited", "INT64_LIST", "data/customers.parquet"),
    shown(f"{RIDES}/feature-view/driver_stats_batch", "Trips, doubled by a function of ours", "batch"),
    shown(f"{RIDES}/feature-view/driver_rides_stream", "@stream_feature_view(", "sum_trips_3600s", "localhost:9092"),
    shown(f"{RIDES}/feature-view/trip_price", "def trip_price(", "accepted_price", "Request Data", "distance_km"),
    shown(f"{RIDES}/feature-view/driver_stats/feature/trips", "Feature: trips", "Int64", "Trips in the last hour"),
    shown(f"{RIDES}/feature-service", "pricing", "handover"),
    shown(f"{RIDES}/feature-service/pricing", "accepted_price", "customer_profile", "stable"),
    shown(f"{RIDES}/label-view", "fraud_label", "LAST_WRITE_WINS", "Which drivers were found to cheat"),
    shown(f"{RIDES}/label-view/fraud_label/lineage", "fraud_push_source", "fraud_source", "driver"),
    shown(f"{RIDES}/label-view/fraud_label/integrations", "ORIGIN/api/v1/webhook/label-ingest", "reviewed_at"),
    shown(f"{RIDES}/label-view/fraud_label/label/is_fraud", "Feature: is_fraud", "Int64", "fraud_label"),
    shown(f"{RIDES}/data-set", "july", "data/july.parquet", "season: summer", "pricing"),
    shown(f"{RIDES}/data-set/july", "rides", "driver_id", "data/july.parquet", "summer"),
    shown(f"{RIDES}/data-set/july/usage", 'store.get_saved_dataset("july")'),
    shown(f"{RIDES}/data-set/july/sample", "Preview dataset contents"),
    shown(f"{RIDES}/permissions", "read_rides", "Feature View, Feature Service", "READ_ONLINE", "Roles: rides-reader"),
    shown(
        f"{RIDES}/lineage", "handover", "customer_spend", "fraud_label", "july", "rides_topic", refused=NO_OPENLINEAGE
    ),
    shown(
        f"{RIDES}/monitoring", "Monitoring Is Not Enabled", "data_quality_monitoring:",
        refused=NO_MONITORING, complaints="console: .*Failed to fetch /monitoring/metrics/.*: 503",
    ),
    shown(f"{RIDES}/compute-engine", "LocalComputeEngine", "driver_rides_stream", "1/1/2024, 2:00:00 AM", "Never"),
    shown(f"{RIDES}/compute-engine/jobs", "driver_stats-1", "driver_stats-0", "SUCCEEDED"),
    shown(ALL, "All Projects Overview", "Total Across All Projects", "Food Delivery", "Projects (2)"),
    shown(f"{ALL}/data-source", "driver_stats_source", "rides"),
    shown(f"{ALL}/entity", "courier", "food_delivery", "driver", "rides"),
    shown(f"{ALL}/features", "acceptance", "rides", "trip_price"),
    shown(f"{ALL}/feature-view", "customer_spend", "rides"),
    shown(f"{ALL}/feature-service", "handover", "rides"),
    shown(f"{ALL}/label-view", "fraud_label", "Which drivers were found to cheat"),
    shown(f"{ALL}/data-set", "july", "data/july.parquet"),
    shown(f"{ALL}/permissions", "No permissions yet"),
    shown(f"{ALL}/lineage", "Project Selection Required", refused=NO_OPENLINEAGE),
    shown(f"{ALL}/compute-engine", "Compute engines and jobs across all projects"),
]  # fmt: skip


@pytest.fixture(scope="module")
def uis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Ui]]:
    """Feast's own UI, and ours: both have the same objects, each in a file of its own."""
    browser.program()
    theirs, own = (tmp_path_factory.mktemp(name) / "registry.db" for name in ("feast", "ours"))
    web_ui.fill(theirs)
    shutil.copy(theirs, own)
    with web_ui.running(web_ui.start_feast(theirs)) as feast, web_ui.running(web_ui.start_ours(own)) as ours:
        yield [feast, ours]


@pytest.fixture(scope="module")
def visitors(uis: list[Ui], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Visitor]]:
    """One before each."""
    with browser.started() as window:
        shots = browser.screenshots(tmp_path_factory.mktemp("screenshots"))
        yield [Visitor(ui.name, ui.origin(), window, shots) for ui in uis]


@pytest.fixture
def own(visitors: list[Visitor]) -> Visitor:
    visitors[1].forget()
    return visitors[1]


def assert_same(visitors: list[Visitor]) -> None:
    """Both come to show the same. In whatever order: that of tags, and of what depends on them, is that of a map, in JSON too.

    A graph is drawn anew some time after the last answer for it, and while that is done its objects are not to be seen.
    """
    theirs, own = visitors

    def lines(visitor: Visitor) -> list[str]:
        return sorted(line.rstrip(",") for line in visitor.text().splitlines())

    own.until(lambda: lines(own) == lines(theirs) != [], lambda: f"differs from\n{theirs.text()}\nsince it shows")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_each_page_shows_what_it_shows_before_feast(page: Shown, visitors: list[Visitor]) -> None:
    for visitor in visitors:
        visitor.visit(page.path)
    for visitor in visitors:
        visitor.settle(*page.texts)
        visitor.shoot(page.path)
        visitor.assert_content(page.refused, page.complaints)
    assert_same(visitors)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (f"{RIDES}/feature-view/driver_stats", "What the fleet system knows of a driver"),
        (f"{RIDES}/feature-view/driver_stats/feature/trips", "Trips in the last hour"),
        (f"{ALL}/entity", "courier"),
    ],
)
def test_a_link_from_elsewhere_leads_there(path: str, text: str, own: Visitor) -> None:
    """A page that is loaded anew by its own address, as from a bookmark; and the page before it by the button for that."""
    own.load(path)
    own.settle(text)
    own.page.reload()
    own.settle(text).assert_content()
    own.visit("/")
    own.settle("Welcome to Feast")
    own.page.go_back()
    own.settle(text).assert_content()


def test_the_search_palette_finds_and_leads(own: Visitor) -> None:
    own.load(RIDES)
    own.settle("Project: Rides")
    own.page.keyboard.press("Control+k")
    own.page.get_by_label("Search registry").first.fill("segm")
    result = own.page.get_by_role("link", name="segment")
    result.wait_for()
    assert "Features (1)" in own.everything()
    own.shoot("search palette")
    result.click()
    own.settle("Feature: segment", "String").assert_content()
    assert own.page.url.endswith(f"{RIDES}/feature-view/customer_profile/feature/segment")


def test_refresh_shows_what_others_have_written(own: Visitor, uis: list[Ui]) -> None:
    """The button has the server read its registry anew; a project that has come since is there at once."""
    own.load("/")
    own.settle("Welcome to Feast")
    assert "Latecomer" not in own.text()
    harness.sql_registry(uis[1].db, "latecomer").apply_project(Project(name="latecomer"))
    own.forget()
    button(own.page, "Refresh").first.click()
    own.settle("Latecomer").assert_content()
    assert "Refresh successful" in own.everything()
    assert {"POST /api/v1/registry/refresh", "GET /projects-list.json"} <= set(own.asked)


def test_the_box_of_projects_leads_to_each(own: Visitor) -> None:
    own.load(RIDES)
    own.settle("Project: Rides")
    projects = own.page.get_by_role("combobox").first
    projects.select_option(label="Food Delivery")
    own.settle("Project: Food Delivery")
    projects.select_option(label="All Projects")
    own.settle("All Projects Overview").assert_content()


def test_the_lineage_of_one_object(visitors: list[Visitor]) -> None:
    for visitor in visitors:
        visitor.load(f"{RIDES}/lineage")
    for visitor in visitors:
        visitor.settle("handover", "customer_spend")
        visitor.page.get_by_label("Select object type").select_option("dataSource")
        visitor.page.get_by_label("Select object", exact=True).select_option("customer_source")
        visitor.until(lambda visitor=visitor: "handover" not in visitor.text(), lambda: "still shows handover")
        visitor.settle("customer_profile", "pricing").shoot("lineage of customer_source")
        visitor.assert_content(NO_OPENLINEAGE)
    assert_same(visitors)


def test_a_list_can_be_exported(own: Visitor) -> None:
    own.load(f"{RIDES}/entity")
    own.settle("driver")
    button(own.page, "Export").click()
    with own.page.expect_download() as download:
        button(own.page, "Export JSON").click()
    exported = json.loads(Path(download.value.path()).read_text())
    assert {entity["spec"]["name"] for entity in exported} == {"driver", "customer"}
    own.assert_content()


def test_labels_are_told_to_be_elsewhere(own: Visitor) -> None:
    """Feast's page shows the labels that Feast's stores have. Ours says that it has none of them, and shows all else."""
    own.load(f"{RIDES}/label-view/fraud_label")
    own.settle("Conflict Policy", "is_fraud", "use a FeatureStore").shoot("labels")
    own.assert_content({"501 POST /api/v1/list-labels"})
    own.load(f"{RIDES}/label-view/fraud_label/annotate")
    own.settle("profile: table", "Review & Edit", "Active Learning", "Entity Form").shoot("how people label")
    own.assert_content({"501 POST /api/v1/list-labels"})


@pytest.mark.parametrize("kind", ["webhook/config", "annotation-config"])
def test_the_pages_of_labels_are_told_the_same(kind: str, uis: list[Ui]) -> None:
    theirs, own = (web_ui.get(ui, f"/api/v1/{kind}/fraud_label") for ui in uis)
    assert own == theirs and own["label_view"] == "fraud_label"


def test_the_projects_and_what_mlflow_knows_are_told_the_same(uis: list[Ui]) -> None:
    for name in ("runs", "feature-usage", "feature-models"):
        theirs, own = (web_ui.get(ui, f"/api/mlflow-{name}") for ui in uis)
        assert own == theirs and own, name
    theirs, own = ({each["id"]: each for each in web_ui.get(ui, "/projects-list.json")["projects"]} for ui in uis)
    # That is another test's, and in one registry.
    own.pop("latecomer", None)
    assert own == theirs and set(own) == {"all", web_ui.PROJECT, web_ui.SECOND}


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_an_object_is_made_and_deleted_through_its_form(form: Form, visitors: list[Visitor]) -> None:
    place = f"{RIDES}/{form.page}"
    for visitor in visitors:
        visitor.visit(place)
    for visitor in visitors:
        visitor.settle()
        form.create(visitor)
        visitor.settle(form.says, form.name).shoot(f"{form} made")
        visitor.assert_content()
        visitor.visit(place if form.on_list else f"{place}/{form.name}")
    for visitor in visitors:
        visitor.settle(form.name).shoot(f"{form} page")
        visitor.assert_content()
    assert_same(visitors)
    for visitor in visitors:
        form.delete(visitor)
        visitor.until(lambda visitor=visitor: visitor.page.url.endswith(place), lambda: "did not go to the list")
        visitor.settle()
        # Before it leaves the page, the UI asks once more for what is gone.
        assert visitor.refused <= {f"404 GET /api/v1/{form.kind}/{form.name}"}
        visitor.load(place)
    for visitor in visitors:
        visitor.settle()
        assert form.name not in visitor.text()
        visitor.assert_content()
    assert_same(visitors)


def test_a_form_shows_why_it_is_refused(own: Visitor) -> None:
    """The registry refuses a feature view without an entity; the form stays open and says so."""
    form = next(form for form in FORMS if form.kind == "feature_views")
    own.load(f"{RIDES}/feature-view")
    own.settle("driver_stats")
    dialog = form.open(own)
    dialog.get_by_label("Name", exact=True).fill("nobodys")
    dialog.get_by_label("Batch Source").select_option("driver_stats_source")
    button(dialog, "Add feature").click()
    dialog.get_by_placeholder("feature_name").fill("mileage")
    button(dialog, form.submits).click()
    refusal = "feature view `nobodys` has no entities"
    dialog.get_by_text(refusal).wait_for()
    own.shoot("refused form")
    own.assert_content({"422 POST /api/v1/feature_views"}, f"console: Error: {refusal}")
