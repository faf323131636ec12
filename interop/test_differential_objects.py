"""Proves that apply, get, list and delete answer as Feast's own server answers, for every kind of object.

The same calls go to Feast's registry server (SqlRegistry on SQLite) and to ours; see differential.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from feast import Field
from feast.protos.feast.core.FeatureService_pb2 import FeatureService
from feast.protos.feast.registry import RegistryServer_pb2 as api
from feast.types import Int64
from google.protobuf.empty_pb2 import Empty

import harness
import kinds
from differential import Answer, Pair, ask, comparable, failed, succeeded
from kinds import Kind

every_kind = pytest.mark.parametrize("kind", kinds.ALL, ids=str)
every_kind_in_a_project = pytest.mark.parametrize("kind", kinds.IN_PROJECT, ids=str)
NOT_FOUND = grpc.StatusCode.NOT_FOUND


def name_for(kind: Kind, pair: Pair, name: str) -> str:
    """A project is named by itself; everything else lives in the test's project."""
    return pair.project if kind is kinds.PROJECT else name


def metadata(kind: Kind, description: str = "first", **more: Any) -> dict[str, Any]:
    out = {"tags": {"team": "rides"}, "description": description, "owner": "one@example.com", **more}
    if not kind.described:
        del out["description"]
    if not kind.owned:
        del out["owner"]
    return out


def prepare(kind: Kind, pair: Pair) -> None:
    """A feature service needs the view that it is made of."""
    if kind is kinds.FEATURE_SERVICE:
        pair.ok(*kinds.FEATURE_VIEW.apply(kinds.FEATURE_VIEW.proto("driver_rides"), pair.project))


def only(kind: Kind, pair: Pair) -> dict[str, Any]:
    """Options that restrict a list to this test's objects: projects are listed for the whole registry."""
    return {"tags": {"run": pair.project}} if kind is kinds.PROJECT else {}


@every_kind
@pytest.mark.parametrize("commit", [True, False], ids=["commit", "no-commit"])
def test_life_of_an_object(kind: Kind, commit: bool, pair: Pair) -> None:
    """Apply, read cached and uncached, apply again unchanged and changed, delete; `commit: false` is no different."""
    prepare(kind, pair)
    name = name_for(kind, pair, "thing")
    first = kind.proto(name, **metadata(kind, tags={"team": "rides", **only(kind, pair).get("tags", {})}))
    second = kind.proto(name, **metadata(kind, "second", tags={"team": "growth", **only(kind, pair).get("tags", {})}))
    for proto in (first, first, second):
        pair.ok(*kind.apply(proto, pair.project, commit=commit))
        for allow_cache in (False, True):
            pair.ok(*kind.get(name, pair.project, allow_cache))
            response = pair.ok(*kind.list(pair.project, allow_cache=allow_cache, **only(kind, pair)))
            assert [kind.name_of(o) for o in kind.listed(response)] == [name], "listed once"
    pair.ok(*kind.delete(name, pair.project))
    if kind is kinds.PROJECT:  # deleted-project-in-cache, see below
        pair.ok("Refresh", api.RefreshRequest(project=pair.project))
    for allow_cache in (False, True):
        if not (kind is kinds.PERMISSION and not allow_cache):
            pair.same(*kind.get(name, pair.project, allow_cache))
        response = pair.ok(*kind.list(pair.project, allow_cache=allow_cache, **only(kind, pair)))
        assert kind.listed(response) == []


def moments(answer: Answer) -> tuple[Any, Any]:
    meta = answer.ok().meta
    return tuple(
        getattr(meta, f).ToNanoseconds() if meta.HasField(f) else None
        for f in ("created_timestamp", "last_updated_timestamp")
    )


@pytest.mark.parametrize("kind", [k for k in kinds.ALL if k is not kinds.VALIDATION_REFERENCE], ids=str)
def test_created_stays_and_updated_moves(kind: Kind, pair: Pair) -> None:
    """An unchanged apply moves neither moment, a changed one moves last_updated alone; the client's are ignored."""
    prepare(kind, pair)
    name = name_for(kind, pair, "thing")
    first, second = (kind.proto(name, **metadata(kind, n, tags={"n": n})) for n in "12")
    for proto in (first, second):
        if "created_timestamp" in proto.meta.DESCRIPTOR.fields_by_name:
            proto.meta.created_timestamp.FromSeconds(1_000_000_000)

    def observe(server: Any) -> dict[str, Any]:
        seen = []
        for proto in (first, first, second):
            ask(server, *kind.apply(proto, pair.project)).ok()
            seen.append(moments(ask(server, *kind.get(name, pair.project))))
        (created, updated), same, (created_after, updated_after) = seen
        return {
            "the client's moment is ignored": created != 1_000_000_000 * 10**9,
            "unchanged apply changes nothing": same == (created, updated),
            "created stays": created_after == created,
            "updated moves": updated is None or updated_after > updated,
            "shows updated": updated is not None,
        }

    ours, theirs = observe(pair.ours), observe(pair.oracle)
    for known, fact in ((kinds.SAVED_DATASET, "shows updated"), (kinds.PROJECT, "unchanged apply changes nothing")):
        if kind is known:  # saved-dataset-updated, unchanged-project: see below
            assert (theirs.pop(fact), ours.pop(fact)) == (False, True), fact
    if kind is kinds.STREAM_FEATURE_VIEW:  # unchanged-stream-view: Feast's answer is not always the same
        theirs["unchanged apply changes nothing"] = True
    assert ours == theirs, f"{kind}: Feast {theirs}, ours {ours}"


def test_an_unchanged_project_is_not_written(pair: Pair) -> None:
    before = {}
    for _ in range(2):
        pair.ok(*kinds.PROJECT.apply(kinds.PROJECT.proto(pair.project), pair.project))
        if not before:
            answers = pair.both(*kinds.PROJECT.get(pair.project, pair.project))
            before["ours"], before["theirs"] = map(moments, answers)
    pair.differs(
        "unchanged-project",
        *kinds.PROJECT.get(pair.project, pair.project),
        theirs=lambda a: moments(a) != before["theirs"],
        ours=lambda a: moments(a) == before["ours"],
    )


def test_a_saved_dataset_shows_when_it_was_updated(pair: Pair) -> None:
    pair.ok(*kinds.SAVED_DATASET.apply(kinds.SAVED_DATASET.proto("d"), pair.project))
    pair.differs(
        "saved-dataset-updated",
        *kinds.SAVED_DATASET.get("d", pair.project),
        theirs=lambda a: not a.ok().meta.HasField("last_updated_timestamp"),
        ours=lambda a: a.ok().meta.HasField("last_updated_timestamp"),
    )


@every_kind_in_a_project
def test_spec_project_is_filled(kind: Kind, pair: Pair) -> None:
    prepare(kind, pair)
    pair.ok(*kind.apply(kind.proto("thing"), pair.project))
    pair.differs(
        "spec-project",
        *kind.get("thing", pair.project),
        theirs=lambda a: kind.spec(a.ok()).project == "",
        ours=lambda a: kind.spec(a.ok()).project == pair.project,
    )
    ours, _ = pair.both(*kind.list(pair.project))
    assert [kind.spec(o).project for o in kind.listed(ours.ok()) if kind.name_of(o) == "thing"] == [pair.project]


@pytest.mark.parametrize("kind", [kinds.FEATURE_VIEW, kinds.STREAM_FEATURE_VIEW, kinds.ON_DEMAND_FEATURE_VIEW], ids=str)
def test_functions_are_answered_as_they_were_sent(kind: Kind, pair: Pair) -> None:
    """functions-as-sent: byte for byte, by get and by list. (What Feast answers is sometimes the same.)"""
    sent = kinds.batch_feature_view("v").to_proto() if kind is kinds.FEATURE_VIEW else kind.proto("v")
    pair.ok(*kind.apply(sent, pair.project))
    pair.ok(*kind.get("v", pair.project))
    answers = [ask(pair.ours, *kind.get("v", pair.project, c)).ok() for c in (False, True)]
    answers += kind.listed(ask(pair.ours, *kind.list(pair.project)).ok())
    for answer in answers:
        assert answer.spec.feature_transformation == sent.spec.feature_transformation
        if kind is kinds.STREAM_FEATURE_VIEW:
            assert answer.spec.user_defined_function == sent.spec.user_defined_function


def test_no_code_from_metadata_is_run(pair: Pair) -> None:
    """Bytes that are no pickle: Feast tries to unpickle them, we keep them as they came."""
    proto = kinds.ON_DEMAND_FEATURE_VIEW.proto("v")
    proto.spec.feature_transformation.user_defined_function.body = b"no pickle at all"
    pair.differs(
        "no-code-is-run",
        *kinds.ON_DEMAND_FEATURE_VIEW.apply(proto, pair.project),
        theirs=failed(grpc.StatusCode.UNKNOWN),
        ours=succeeded,
    )
    stored = ask(pair.ours, *kinds.ON_DEMAND_FEATURE_VIEW.get("v", pair.project)).ok()
    assert stored.spec.feature_transformation == proto.spec.feature_transformation


# --- what does not exist -------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("allow_cache", [False, True], ids=["uncached", "cached"])
@pytest.mark.parametrize("where", ["a project", "no project"])
def test_a_missing_object(kind: Kind, where: str, allow_cache: bool, pair: Pair) -> None:
    if where == "a project":
        pair.ok(*kinds.ENTITY.apply(kinds.ENTITY.proto("other"), pair.project))
    get = kind.get("nowhere", pair.project, allow_cache)
    if kind is kinds.PERMISSION and not allow_cache:
        theirs, ours = failed(grpc.StatusCode.INTERNAL), failed(NOT_FOUND, "PermissionObjectNotFoundException")
        pair.differs("missing-permission", *get, theirs=theirs, ours=ours)
        pair.differs("missing-permission", *kind.delete("nowhere", pair.project), theirs=theirs, ours=ours)
        return
    for call in (get, kind.delete("nowhere", pair.project)):
        if kind is kinds.PERMISSION and call is not get:
            continue
        answer = pair.same(*call)
        assert answer.code is NOT_FOUND and answer.error_class == kind.error
        assert "nowhere" in answer.error_text


@pytest.mark.parametrize("kind", kinds.VIEWS, ids=str)
def test_a_view_is_not_found_as_another_kind(kind: Kind, pair: Pair) -> None:
    pair.ok(*kind.apply(kind.proto("v"), pair.project))
    for other in kinds.VIEWS:
        if other is not kind:
            answer = pair.same(*other.get("v", pair.project))
            assert answer.error_class == "FeatureViewNotFoundException"
    pair.ok("GetAnyFeatureView", api.GetAnyFeatureViewRequest(name="v", project=pair.project))
    pair.same("GetAnyFeatureView", api.GetAnyFeatureViewRequest(name="w", project=pair.project))


def test_reads_of_an_unknown_project(pair: Pair) -> None:
    """Lists are empty, infra is empty, lineage is empty; only objects asked by name are errors."""
    for kind in kinds.IN_PROJECT:
        for allow_cache in (False, True):
            assert kind.listed(pair.ok(*kind.list(pair.project, allow_cache=allow_cache))) == []
    pair.ok("ListAllFeatureViews", api.ListAllFeatureViewsRequest(project=pair.project))
    pair.ok("ListFeatures", api.ListFeaturesRequest(project=pair.project))
    pair.same("GetFeature", api.GetFeatureRequest(project=pair.project, feature_view="v", name="f"))
    pair.same("GetProject", api.GetProjectRequest(name=pair.project))
    pair.ok("ListProjectMetadata", api.ListProjectMetadataRequest(project=pair.project))
    pair.ok("GetInfra", api.GetInfraRequest(project=pair.project))
    pair.ok("GetRegistryLineage", api.GetRegistryLineageRequest(project=pair.project))
    pair.ok("Refresh", api.RefreshRequest(project=pair.project))
    pair.same("DeleteProject", api.DeleteProjectRequest(name=pair.project, commit=True))
    pair.same("GetProject", api.GetProjectRequest(name=pair.project))


# --- projects, infra, the whole registry ----------------------------------------------------------------


def fill(pair: Pair, project: str) -> None:
    """One object of each kind."""
    pair.ok(*kinds.FEATURE_VIEW.apply(kinds.FEATURE_VIEW.proto("driver_rides"), project))
    for kind in kinds.IN_PROJECT:
        pair.ok(*kind.apply(kind.proto(f"a_{kind}"), project))
    pair.ok("UpdateInfra", api.UpdateInfraRequest(infra=kinds.infra("t1", "t2"), project=project, commit=True))


def test_a_project_is_made_at_first_use(pair: Pair) -> None:
    pair.ok(*kinds.ENTITY.apply(kinds.ENTITY.proto("e"), pair.project))
    project = pair.ok("GetProject", api.GetProjectRequest(name=pair.project))
    assert project.spec.name == pair.project and project.meta.HasField("created_timestamp")
    metadata = pair.ok("ListProjectMetadata", api.ListProjectMetadataRequest(project=pair.project))
    assert [m.project for m in metadata.project_metadata] == [pair.project]


def test_infra_is_kept_and_replaced(pair: Pair) -> None:
    for tables in (("t1",), ("t1", "t2"), ()):
        pair.ok("UpdateInfra", api.UpdateInfraRequest(infra=kinds.infra(*tables), project=pair.project, commit=True))
        infra = pair.ok("GetInfra", api.GetInfraRequest(project=pair.project))
        assert [o.sqlite_table.name for o in infra.infra_objects] == list(tables)


def test_a_deleted_project_takes_everything_of_its_own(pair: Pair) -> None:
    neighbour = f"{pair.project}_2"
    try:
        for project in (pair.project, neighbour):
            fill(pair, project)
        pair.ok("DeleteProject", api.DeleteProjectRequest(name=pair.project, commit=True))
        pair.ok("Refresh", api.RefreshRequest(project=pair.project))
        for kind in kinds.IN_PROJECT:
            for allow_cache in (False, True):
                assert kind.listed(pair.ok(*kind.list(pair.project, allow_cache=allow_cache))) == []
                assert kind.listed(pair.ok(*kind.list(neighbour, allow_cache=allow_cache))) != []
        pair.ok("GetInfra", api.GetInfraRequest(project=pair.project))
        pair.ok("GetInfra", api.GetInfraRequest(project=neighbour))
        pair.ok("ListProjectMetadata", api.ListProjectMetadataRequest(project=pair.project))
        pair.ok("ListProjectMetadata", api.ListProjectMetadataRequest(project=neighbour))
    finally:
        pair.both("DeleteProject", api.DeleteProjectRequest(name=neighbour, commit=True))


def test_a_deleted_project_leaves_no_row(pair: Pair) -> None:
    """project-leaves-nothing: looked up in the files."""
    fill(pair, pair.project)
    # The answers are equal; it is the rows that differ.
    pair.differs(
        "project-leaves-nothing",
        "DeleteProject",
        api.DeleteProjectRequest(name=pair.project, commit=True),
        theirs=lambda _: harness.project_snapshot(pair.oracle.db, pair.project)["feature_view_version_history"] != [],
        ours=lambda _: not any(harness.project_snapshot(pair.ours.db, pair.project).values()),
    )


def test_a_deleted_project_is_gone_from_cached_reads(pair: Pair) -> None:
    pair.ok(*kinds.ENTITY.apply(kinds.ENTITY.proto("e"), pair.project))
    pair.ok("DeleteProject", api.DeleteProjectRequest(name=pair.project, commit=True))
    pair.differs(
        "deleted-project-in-cache",
        *kinds.ENTITY.get("e", pair.project, allow_cache=True),
        theirs=succeeded,
        ours=failed(NOT_FOUND, "EntityNotFoundException"),
    )


def test_protected_projects_are_not_listed(pair: Pair) -> None:
    """The tag hides a project from ListProjects, not from GetProject."""
    tags = {"run": pair.project}
    for value in ("true", "false", "True"):
        for tag in ("feast:protected", "feast.dev/protected-project", protected_tag()):
            proto = kinds.PROJECT.proto(pair.project, tags={**tags, tag: value})
            pair.ok(*kinds.PROJECT.apply(proto, pair.project))
            pair.ok(*kinds.PROJECT.get(pair.project, pair.project))
            for allow_cache in (False, True):
                listed = pair.ok(*kinds.PROJECT.list(pair.project, tags=tags, allow_cache=allow_cache))
                hidden = tag == protected_tag() and value == "true"
                assert len(listed.projects) == (0 if hidden else 1)


def protected_tag() -> str:
    from feast.constants import PROTECTED_PROJECT_TAG

    return PROTECTED_PROJECT_TAG


def test_proto_is_the_whole_registry(pair: Pair) -> None:
    """Every object of the project in the same order; without project metadata, infra and version history."""
    fill(pair, pair.project)
    ours, theirs = (answer.ok() for answer in pair.both("Proto", Empty()))
    assert pair.project in {p.spec.name for p in ours.projects} & {p.spec.name for p in theirs.projects}
    for kind in kinds.IN_PROJECT:
        # Feast's objects carry no project; but every other test has deleted its own, so all of them are this test's.
        expected = [comparable(o) for o in getattr(theirs, kind.list_field)]
        found = [comparable(o) for o in getattr(ours, kind.list_field) if kind.spec(o).project == pair.project]
        assert found == expected, f"Proto, {kind.list_field}: Feast has\n{expected}\nours\n{found}"
        assert expected
    for field in ("project_metadata", "feature_view_version_history", "version_id"):
        present = [field in {f.name for f, _ in proto.ListFields()} for proto in (ours, theirs)]
        assert present == [False, False], f"{field} in Proto: ours {present[0]}, Feast {present[1]}"
    assert ours.last_updated.seconds > 0


def test_commit_and_refresh_answer(pair: Pair) -> None:
    pair.ok("Commit", Empty())
    pair.ok(*kinds.ENTITY.apply(kinds.ENTITY.proto("e"), pair.project, commit=False))
    pair.ok("Commit", Empty())
    pair.ok("Refresh", api.RefreshRequest(project=pair.project))
    pair.ok(*kinds.ENTITY.get("e", pair.project, allow_cache=True))


@pytest.mark.parametrize(
    "rpc, request_of",
    [
        ("CreateDatasetFromRetrieval", lambda p: api.CreateDatasetFromRetrievalRequest(name="d", project=p)),
        ("GetDatasetData", lambda p: api.GetDatasetDataRequest(name="d", project=p)),
        ("GetDatasetJobStatus", lambda p: api.GetDatasetJobStatusRequest(job_id="j")),
        ("ListDatasetJobs", lambda p: api.ListDatasetJobsRequest(project=p)),
    ],
)
def test_dataset_jobs_are_not_implemented(rpc: str, request_of: Any, pair: Pair) -> None:
    pair.differs(
        "dataset-jobs",
        rpc,
        request_of(pair.project),
        theirs=lambda a: a.code is not grpc.StatusCode.UNIMPLEMENTED,
        ours=lambda a: a.code is grpc.StatusCode.UNIMPLEMENTED and "offline store" in a.detail,
    )


# --- feature services -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resolvable(ours: Any, oracle: Any) -> Iterator[Pair]:
    """A project with a view of each kind."""
    pair = Pair(ours, oracle, harness.new_project())
    fields = [*kinds.RIDES, Field(name="rating", dtype=Int64, description="stars", tags={"unit": "star"})]
    for kind, proto in (
        (kinds.FEATURE_VIEW, kinds.FEATURE_VIEW.proto("rides_view", fields=fields)),
        (kinds.LABEL_VIEW, kinds.LABEL_VIEW.proto("labels")),
        (kinds.STREAM_FEATURE_VIEW, kinds.STREAM_FEATURE_VIEW.proto("stream")),
        (kinds.ON_DEMAND_FEATURE_VIEW, kinds.ON_DEMAND_FEATURE_VIEW.proto("demand")),
    ):
        pair.ok(*kind.apply(proto, pair.project))
    yield pair
    pair.both("DeleteProject", api.DeleteProjectRequest(name=pair.project, commit=True))


def service(name: str, *projections: tuple[str, str, dict[str, int]]) -> FeatureService:
    """As Feast's UI sends it (`build_apply_request`): views by name alone, or features without their types."""
    proto = FeatureService()
    proto.spec.name = name
    for view, alias, features in projections:
        added = proto.spec.features.add(feature_view_name=view, feature_view_name_alias=alias)
        for feature, value_type in features.items():
            added.feature_columns.add(name=feature, value_type=value_type)
    return proto


BARE: dict[str, list[tuple[str, str, dict[str, int]]]] = {
    "all of a view": [("rides_view", "", {})],
    "names only": [("rides_view", "", {"rating": 0})],
    "two names": [("rides_view", "", {"rating": 0, "rides": 0})],
    "typed": [("rides_view", "", {"rides": 4})],
    "typed wrongly": [("rides_view", "", {"rides": 2})],
    "typed and not": [("rides_view", "", {"rides": 4, "rating": 0})],
    "aliased": [("rides_view", "other", {})],
    "aliased and named": [("rides_view", "other", {"rides": 0})],
    "aliased and typed": [("rides_view", "other", {"rides": 4})],
    "a label view": [("labels", "", {})],
    "an on demand view": [("demand", "", {})],
    "one full and one bare": [("rides_view", "", {"rides": 4}), ("labels", "", {})],
    "all kinds": [("rides_view", "", {}), ("labels", "", {}), ("demand", "", {})],
    "nothing": [],
}


def but_for_what_is_kept(message: Any) -> Any:
    """projection-keeps-more: and defaults-stay-unsaid; both have a test of their own."""
    message = comparable(message)
    for projection in message.spec.features:
        if projection.HasField("batch_source"):
            projection.batch_source.ClearField("data_source_class_type")
        projection.view_type = projection.view_type or "featureView"
    return message


LOSING_THE_ALIAS = ["aliased", "aliased and named"]


@pytest.mark.parametrize("label", [label for label in BARE if label not in LOSING_THE_ALIAS])
def test_bare_projections_are_filled_from_the_registry(label: str, resolvable: Pair) -> None:
    resolvable.ok(*kinds.FEATURE_SERVICE.apply(service(label, *BARE[label]), resolvable.project))
    resolvable.ok(*kinds.FEATURE_SERVICE.get(label, resolvable.project), view=but_for_what_is_kept)


@pytest.mark.parametrize("label", LOSING_THE_ALIAS)
def test_a_filled_projection_keeps_its_alias_and_the_class_of_its_source(label: str, resolvable: Pair) -> None:
    proto = service("kept", *BARE[label])
    resolvable.ok(*kinds.FEATURE_SERVICE.apply(proto, resolvable.project))

    def kept(answer: Answer) -> tuple[str, bool]:
        (projection,) = answer.ok().spec.features
        return projection.feature_view_name_alias, bool(projection.batch_source.data_source_class_type)

    resolvable.differs(
        "projection-keeps-more",
        *kinds.FEATURE_SERVICE.get("kept", resolvable.project),
        theirs=lambda a: kept(a) == ("", False),
        ours=lambda a: kept(a) == ("other", True),
    )


def test_a_bare_projection_of_a_stream_view(resolvable: Pair) -> None:
    """stream-features-order: only the names of the features are compared."""
    proto = service("streaming", ("stream", "", {}))
    resolvable.ok(*kinds.FEATURE_SERVICE.apply(proto, resolvable.project))
    resolvable.ok(
        *kinds.FEATURE_SERVICE.get("streaming", resolvable.project),
        view=lambda m: sorted(c.name for p in m.spec.features for c in p.feature_columns),
    )


def test_projections_that_cannot_be_filled(resolvable: Pair) -> None:
    unknown_view, unknown_feature = service("b", ("absent", "", {})), service("b", ("rides_view", "", {"absent": 0}))
    resolvable.same(*kinds.FEATURE_SERVICE.apply(unknown_view, resolvable.project))
    resolvable.refused(*kinds.FEATURE_SERVICE.apply(unknown_feature, resolvable.project))
    resolvable.same(*kinds.FEATURE_SERVICE.get("b", resolvable.project))


def test_a_refused_service_makes_no_project(pair: Pair) -> None:
    pair.same(*kinds.FEATURE_SERVICE.apply(service("s", ("absent", "", {})), pair.project))
    pair.same("GetProject", api.GetProjectRequest(name=pair.project))
