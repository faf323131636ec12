"""Proves that Feast's remote client raises from our answers exactly the exceptions that it raises from Feast's.

For each error class that a client of a registry can meet: the class, no sub- or superclass of it, and a
message that names the object and the project.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from feast import Field, errors
from feast.types import Float64

import harness
import kinds
from kinds import Kind

GETTERS: dict[str, Callable[[Any], Callable]] = {
    "entity": lambda r: r.get_entity,
    "data_source": lambda r: r.get_data_source,
    "feature_view": lambda r: r.get_feature_view,
    "stream_feature_view": lambda r: r.get_stream_feature_view,
    "on_demand_feature_view": lambda r: r.get_on_demand_feature_view,
    "label_view": lambda r: r.get_label_view,
    "feature_service": lambda r: r.get_feature_service,
    "saved_dataset": lambda r: r.get_saved_dataset,
    "validation_reference": lambda r: r.get_validation_reference,
    "permission": lambda r: r.get_permission,
}
DELETERS: dict[str, Callable[[Any], Callable]] = {
    "entity": lambda r: r.delete_entity,
    "data_source": lambda r: r.delete_data_source,
    "feature_view": lambda r: r.delete_feature_view,
    "feature_service": lambda r: r.delete_feature_service,
    "saved_dataset": lambda r: r.delete_saved_dataset,
    "validation_reference": lambda r: r.delete_validation_reference,
    "permission": lambda r: r.delete_permission,
}


@pytest.fixture
def registry(ours: harness.Server, project: str) -> Any:
    """Feast's remote client; the project exists."""
    registry = harness.remote_registry(ours.port, project)
    registry.apply_entity(kinds.entity("other"), project)
    yield registry
    registry.delete_project(project)


def raised(error_class: str, call: Callable, *args: Any, **options: Any) -> str:
    """The message of the exception, whose class is exactly `feast.errors.<error_class>`."""
    expected = getattr(errors, error_class)
    with pytest.raises(Exception) as caught:
        call(*args, **options)
    assert type(caught.value) is expected, f"{type(caught.value).__name__} instead of {error_class}: {caught.value}"
    return str(caught.value)


@pytest.mark.parametrize("allow_cache", [False, True], ids=["uncached", "cached"])
@pytest.mark.parametrize("name", GETTERS)
def test_getting_what_is_not_there(name: str, allow_cache: bool, registry: Any, project: str) -> None:
    kind = kinds.BY_NAME[name]
    for where in (project, f"{project}_absent"):
        message = raised(kind.error, GETTERS[name](registry), "absent_one", where, allow_cache=allow_cache)
        assert "absent_one" in message and where in message


@pytest.mark.parametrize("name", DELETERS)
def test_deleting_what_is_not_there(name: str, registry: Any, project: str) -> None:
    kind = kinds.BY_NAME[name]
    for where in (project, f"{project}_absent"):
        message = raised(kind.error, DELETERS[name](registry), "absent_one", where)
        assert "absent_one" in message and where in message


def test_any_feature_view_that_is_not_there(registry: Any, project: str) -> None:
    message = raised("FeatureViewNotFoundException", registry.get_any_feature_view, "absent_one", project)
    assert "absent_one" in message and project in message


@pytest.mark.parametrize("allow_cache", [False, True], ids=["uncached", "cached"])
def test_a_project_that_is_not_there(allow_cache: bool, registry: Any) -> None:
    message = raised("ProjectObjectNotFoundException", registry.get_project, "absent_one", allow_cache=allow_cache)
    assert "absent_one" in message


def test_deleting_a_project_that_is_not_there(registry: Any) -> None:
    assert "absent_one" in raised("ProjectObjectNotFoundException", registry.delete_project, "absent_one")


@pytest.mark.parametrize("first, second", itertools.permutations(kinds.VIEWS, 2), ids=str)
def test_a_name_that_another_kind_has(first: Kind, second: Kind, registry: Any, project: str) -> None:
    registry.apply_feature_view(first.build("taken"), project)
    message = raised("ConflictingFeatureViewNames", registry.apply_feature_view, second.build("taken"), project)
    assert "taken" in message


def test_pinning_a_view_that_is_changed_too(registry: Any, project: str) -> None:
    registry.apply_feature_view(kinds.feature_view("pinned"), project)
    registry.apply_feature_view(kinds.feature_view("pinned", description="a second one"), project)
    fields = [*kinds.RIDES, Field(name="more", dtype=Float64)]
    changed = kinds.feature_view("pinned", fields=fields, version="v0")
    message = raised("FeatureViewPinConflict", registry.apply_feature_view, changed, project)
    assert "pinned" in message and "v0" in message


def test_materializing_what_is_not_there(registry: Any, project: str) -> None:
    view = kinds.feature_view("absent_one")
    start, end = harness.hour_windows(1)[0]
    message = raised("FeatureViewNotFoundException", registry.apply_materialization, view, project, start, end)
    assert "absent_one" in message and project in message


def test_a_service_of_a_view_that_is_not_there(registry: Any, project: str) -> None:
    service = kinds.feature_service("broken")
    service.feature_view_projections[0].features = []
    message = raised("FeastObjectNotFoundException", registry.apply_feature_service, service, project)
    assert "driver_rides" in message and project in message


def test_the_feature_that_is_not_there(ours: harness.Server, registry: Any, project: str) -> None:
    """GetFeature has no method in the client; its detail is what a client would read."""
    from feast.protos.feast.registry import RegistryServer_pb2 as api

    from differential import ask

    answer = ask(ours, "GetFeature", api.GetFeatureRequest(project=project, feature_view="v", name="absent_one"))
    assert answer.code is grpc.StatusCode.NOT_FOUND
    error = errors.FeastError.from_error_detail(answer.detail)
    assert type(error) is errors.FeastObjectNotFoundException and "absent_one" in str(error)


@pytest.mark.parametrize("name", ["a@b", "a:b", ""])
def test_a_bad_name_says_what_is_wrong(name: str, registry: Any, project: str) -> None:
    """Feast's server lets these through as UNKNOWN; ours is the general FeastError, and says what is wrong."""
    view = kinds.feature_view("good")
    view.name = name
    message = raised("FeastError", registry.apply_feature_view, view, project)
    assert name in message and "name" in message
