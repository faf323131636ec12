"""What a person does with the forms of the web UI, kind by kind: create one object, and delete it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from playwright.sync_api import Locator, Page

from browser import Visitor


@dataclass(frozen=True)
class Form:
    """How one kind of object is made: where its list is, what opens the form, and what is typed."""

    kind: str  # as the REST API names it
    page: str  # the last part of the list's path
    name: str
    fill: Callable[[Visitor, Locator], None]
    opens: str
    submits: str
    says: str
    on_list: bool = False  # is deleted there, and has no page of its own

    def __str__(self) -> str:
        return self.kind

    def open(self, visitor: Visitor) -> Locator:
        """The empty form."""
        button(visitor.page, self.opens).first.click()
        if self.kind == "data_sources":
            choose_file_source(visitor)
        # Not by its role, which a menu that closes has too.
        dialog = visitor.page.locator(".euiModal")
        dialog.wait_for()
        return dialog

    def create(self, visitor: Visitor) -> None:
        dialog = self.open(visitor)
        visitor.settle()
        self.fill(visitor, dialog)
        button(dialog, self.submits).click()

    def delete(self, visitor: Visitor) -> None:
        if self.on_list:
            row = visitor.page.get_by_role("row").filter(has_text=self.name)
            row.get_by_role("button", name="Delete permission").click()
        else:
            button(visitor.page, "Delete").click()
        button(visitor.page.get_by_role("alertdialog"), "Delete").click()


def button(within: Page | Locator, name: str) -> Locator:
    return within.get_by_role("button", name=name, exact=True)


def choose(visitor: Visitor, combobox: Locator, option: str) -> None:
    """Picks one option of those that a box proposes."""
    combobox.click()
    combobox.fill(option)
    # By its title: the text may be in pieces, of which those that match are marked.
    visitor.page.locator(f'button[role="option"][title="{option}"]').click()


def choose_file_source(visitor: Visitor) -> None:
    cards = visitor.page.locator(".euiPanel").filter(has_text="File (Parquet / CSV)")
    button(cards.last, "Create Connection").click()


def tag(dialog: Locator, key: str, value: str) -> None:
    button(dialog, "Add label").click()
    dialog.get_by_placeholder("key", exact=False).last.fill(key)
    dialog.get_by_placeholder("value", exact=False).last.fill(value)


def entity(visitor: Visitor, dialog: Locator) -> None:
    dialog.get_by_label("Name", exact=True).fill("vehicle")
    dialog.get_by_label("Description").fill("What is driven")
    dialog.get_by_placeholder("e.g. customer_id").last.fill("vehicle_id")
    dialog.get_by_label("Value Type").select_option("INT64")
    tag(dialog, "team", "fleet")


def data_source(visitor: Visitor, dialog: Locator) -> None:
    dialog.get_by_label("Name", exact=True).fill("vehicle_source")
    dialog.get_by_label("Description").fill("Where vehicles are")
    dialog.get_by_label("File Path / URI").fill("s3://bucket/vehicles.parquet")
    dialog.get_by_label("Timestamp Field").fill("seen_at")


def feature_view(visitor: Visitor, dialog: Locator) -> None:
    dialog.get_by_label("Name", exact=True).fill("vehicle_stats")
    dialog.get_by_label("Description").fill("What is known of a vehicle")
    choose(visitor, dialog.get_by_label("Entities"), "driver")
    dialog.get_by_label("Batch Source").select_option("driver_stats_source")
    button(dialog, "Add feature").click()
    dialog.get_by_placeholder("feature_name").fill("mileage")
    dialog.get_by_placeholder("Optional description").fill("Kilometres until now")


def feature_service(visitor: Visitor, dialog: Locator) -> None:
    dialog.get_by_label("Name", exact=True).fill("fleet_model")
    dialog.get_by_label("Owner").fill("fleet@example.com")
    choose(visitor, dialog.get_by_label("Feature view", exact=True), "driver_stats")
    choose(visitor, dialog.get_by_label("Features (optional)"), "trips")


def permission(visitor: Visitor, dialog: Locator) -> None:
    dialog.get_by_placeholder("e.g. data-team-read-access").fill("fleet_only")
    for label in ("Entity", "Data Source", "Describe", "Update"):
        dialog.get_by_label(label, exact=True).check()
    button(dialog, "Add role").click()
    dialog.get_by_placeholder("e.g. admin, data-engineer").fill("fleet-manager")


def saved_dataset(visitor: Visitor, dialog: Locator) -> None:
    dialog.get_by_label("Dataset Name").fill("august")
    dialog.get_by_label("Description").fill("What August was like")
    dialog.get_by_label("Namespace").fill("fleet")
    dialog.get_by_label("Collection").fill("monthly")
    dialog.get_by_label("Path / Table Reference").fill("s3://bucket/august.parquet")
    choose(visitor, dialog.get_by_label("Features", exact=True), "driver_stats:trips")
    choose(visitor, dialog.get_by_label("Join Keys", exact=True), "driver")


FORMS = [
    Form(
        "entities", "entity", "vehicle", entity, "Create Entity", "Create Entity",
        'Entity "vehicle" created successfully.',
    ),
    Form(
        "data_sources", "data-source", "vehicle_source", data_source, "Create Data Source", "Create Connection",
        'Data source "vehicle_source" created successfully.',
    ),
    Form(
        "feature_views", "feature-view", "vehicle_stats", feature_view, "Create Feature View", "Create Feature View",
        'Feature view "vehicle_stats" created successfully.',
    ),
    Form(
        "feature_services", "feature-service", "fleet_model", feature_service, "Create Feature Service",
        "Create Feature Service", 'Feature service "fleet_model" created successfully.',
    ),
    Form(
        "permissions", "permissions", "fleet_only", permission, "Create Permission", "Create Permission",
        'Permission "fleet_only" created successfully.', on_list=True,
    ),
    Form(
        "saved_datasets", "data-set", "august", saved_dataset, "Add to Catalog", "Link Existing Dataset",
        'Dataset "august" registered successfully.',
    ),
]  # fmt: skip
