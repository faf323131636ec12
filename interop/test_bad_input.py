"""Proves that no input harms the registry: each is a clear gRPC error or a faithful round trip.

Requests go out as raw bytes where the generated classes would refuse to make them. After every test the
server answers, and SQLite finds its file sound.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from feast.protos.feast.registry import RegistryServer_pb2 as api
from google.protobuf import descriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError

import harness
import kinds
from differential import Answer, ask
from kinds import Kind

SERVICE = api.DESCRIPTOR.services_by_name["RegistryServer"]
REFUSALS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL}
"""A body that is no protobuf is INTERNAL in tonic and in grpcio; everything that we look at is INVALID_ARGUMENT."""

every_kind = pytest.mark.parametrize("kind", kinds.IN_PROJECT, ids=str)


@pytest.fixture(autouse=True)
def unharmed(ours: harness.Server, project: str) -> Iterator[None]:
    """Whatever the test sends: afterwards the server lives, keeps what it is given, and its file is sound."""
    yield
    assert ours.process.poll() is None, f"the server died:\n{ours.log_tail()}"
    assert "panicked" not in ours.log.read_text(errors="replace"), ours.log_tail(60)
    ask(ours, *kinds.ENTITY.apply(kinds.ENTITY.proto("alive"), project)).ok()
    for allow_cache in (False, True):
        ask(ours, *kinds.ENTITY.get("alive", project, allow_cache)).ok()
    ask(ours, "Proto", Empty()).ok()
    harness.assert_sound(ours.db)
    ask(ours, "DeleteProject", api.DeleteProjectRequest(name=project, commit=True)).ok()


def send(server: harness.Server, rpc: str, body: bytes, timeout: float = 60) -> Answer:
    """Raw bytes in, raw bytes out."""
    call = server.channel.unary_unary(f"/{SERVICE.full_name}/{rpc}")
    try:
        output = SERVICE.methods_by_name[rpc].output_type._concrete_class
        return Answer(output.FromString(call(body, timeout=timeout)))
    except grpc.RpcError as error:
        return Answer(code=error.code(), detail=error.details() or "")


def refused(answer: Answer, *codes: grpc.StatusCode) -> None:
    assert answer.code in (codes or REFUSALS), f"not refused clearly: {answer}"
    assert answer.detail.strip(), "an error without a message"


def stored(server: harness.Server, kind: Kind, name: str, project: str, allow_cache: bool = False) -> Any:
    return ask(server, *kind.get(name, project, allow_cache)).ok()


# --- bytes that are no message -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", SERVICE.methods, ids=lambda m: m.name)
def test_bytes_that_are_no_message(method: descriptor.MethodDescriptor, ours: harness.Server) -> None:
    """A tag without its value, a length beyond the end, an endless varint, an end-group, field number 0."""
    for body in (b"\x0a", b"\x0a\xff", b"\x0a\x05abc", b"\xff" * 11, b"\x0c", b"\x02\x00", b"\x0f\x00"):
        if method.input_type.full_name == "google.protobuf.Empty" or method.name == "UpdateInfra":
            continue
        refused(send(ours, method.name, body))


@every_kind
def test_truncated_messages(kind: Kind, ours: harness.Server, project: str) -> None:
    """Cut at many places: an error, or, where the cut ends a field, the shorter message that it then is."""
    rpc, request = kind.apply(kind.proto("cut", tags={"a": "b"}), project)
    whole = request.SerializeToString()
    for end in range(1, len(whole), max(1, len(whole) // 40)):
        answer = send(ours, rpc, whole[:end])
        if answer.code is None:
            type(request).FromString(whole[:end])  # a message indeed
        else:
            assert answer.code in REFUSALS | {grpc.StatusCode.NOT_FOUND}, f"cut at {end}: {answer}"
    # A cut message may have lost its project or its name; what it left behind is listed without an error.
    ask(ours, *kind.list(project)).ok()


def test_invalid_utf8(ours: harness.Server, project: str) -> None:
    """Protobuf strings are UTF-8; Feast's own parser refuses anything else."""
    body = api.ApplyEntityRequest(entity=kinds.ENTITY.proto("MARK"), project=project, commit=True).SerializeToString()
    body = body.replace(b"MARK", b"\xff\xfe\x80M")
    with pytest.raises(DecodeError):
        api.ApplyEntityRequest.FromString(body)
    refused(send(ours, "ApplyEntity", body))


# --- size --------------------------------------------------------------------------------------------------


def test_messages_beyond_four_mebibytes(ours: harness.Server, project: str) -> None:
    """gRPC's usual limit is no limit of ours, neither in nor out."""
    big = kinds.ENTITY.proto("big", description="x" * (9 << 20))
    ask(ours, *kinds.ENTITY.apply(big, project)).ok()
    assert stored(ours, kinds.ENTITY, "big", project).spec == with_project(big, project).spec
    assert stored(ours, kinds.ENTITY, "big", project, allow_cache=True).spec.description == big.spec.description


def test_a_message_of_64_mebibytes(ours: harness.Server, project: str) -> None:
    """Taken or refused by size, but never a crash and never the half of it."""
    big = kinds.ENTITY.proto("huge", description="x" * (64 << 20))
    answer = ask(ours, *kinds.ENTITY.apply(big, project))
    if answer.code is None:
        assert stored(ours, kinds.ENTITY, "huge", project).spec.description == big.spec.description
    else:
        refused(answer, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert ask(ours, *kinds.ENTITY.get("huge", project)).code is grpc.StatusCode.NOT_FOUND


def test_the_limit_of_size_is_an_option(tmp_path: Any, project: str) -> None:
    with harness.running(harness.start_ours(tmp_path / "r.db", "--max-message-size", str(1 << 20))) as server:
        ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto("small", description="x" * 500_000), project)).ok()
        answer = ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto("big", description="x" * (2 << 20)), project))
        refused(answer, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert stored(server, kinds.ENTITY, "small", project)


# --- names ---------------------------------------------------------------------------------------------------

NAMES = {
    "10,000 characters": "n" * 10_000,
    "10,000 characters beyond the BMP": "𝔫" * 10_000,
    "NUL": "a\0b",
    "only NUL": "\0",
    "line breaks": "a\r\nb\n",
    "SQL": "x'; DROP TABLE entities; --",
    "wildcards": "%_*?",
    "right to left": "\u202egnp.exe",
    "emoji": "👩‍👩‍👧",
    "blank": " ",
    "path": "../../etc/passwd",
}


@every_kind
@pytest.mark.parametrize("label", NAMES)
def test_unusual_names(kind: Kind, label: str, ours: harness.Server, project: str) -> None:
    """A round trip through get, list and delete, or a refusal that leaves nothing behind."""
    name = NAMES[label]
    prepare(kind, ours, project)
    answer = ask(ours, *kind.apply(kind.proto(name), project))
    if answer.code is not None:
        refused(answer, grpc.StatusCode.INVALID_ARGUMENT)
        assert ask(ours, *kind.get(name, project)).code is not None
        return
    for allow_cache in (False, True):
        assert kind.name_of(stored(ours, kind, name, project, allow_cache)) == name
        listed = kind.listed(ask(ours, *kind.list(project, allow_cache=allow_cache)).ok())
        assert name in [kind.name_of(o) for o in listed]
    ask(ours, *kind.delete(name, project)).ok()
    assert ask(ours, *kind.get(name, project)).code is grpc.StatusCode.NOT_FOUND


def prepare(kind: Kind, server: harness.Server, project: str) -> None:
    if kind is kinds.FEATURE_SERVICE:
        ask(server, *kinds.FEATURE_VIEW.apply(kinds.FEATURE_VIEW.proto("driver_rides"), project)).ok()


SIMILAR = [
    "straße",
    "STRASSE",
    "Straße",
    "é",
    unicodedata.normalize("NFD", "é"),
    "É",
    "a",
    "A",
    "a ",
    " a",
    "ａ",
    "ﬁ",
    "fi",
    "ı",
    "i",
    "I",
    "İ",
]


@every_kind
def test_similar_names_are_different_names(kind: Kind, ours: harness.Server, project: str) -> None:
    """Case, Unicode normal form, trailing blanks: nothing is folded."""
    prepare(kind, ours, project)
    for number, name in enumerate(SIMILAR):
        ask(ours, *kind.apply(kind.proto(name, tags={"n": str(number)}), project)).ok()
    for number, name in enumerate(SIMILAR):
        for allow_cache in (False, True):
            found = stored(ours, kind, name, project, allow_cache)
            assert (kind.name_of(found), dict(kind.spec(found).tags)) == (name, {"n": str(number)})
    ask(ours, *kind.delete(SIMILAR[0], project)).ok()
    left = [kind.name_of(o) for o in kind.listed(ask(ours, *kind.list(project)).ok())]
    assert [n for n in left if n != "driver_rides"] == SIMILAR[1:]


def test_projects_whose_names_are_similar(ours: harness.Server, project: str) -> None:
    names = [f"{project}_{name}" for name in SIMILAR]
    for number, name in enumerate(names):
        ask(ours, *kinds.ENTITY.apply(kinds.ENTITY.proto("e", tags={"n": str(number)}), name)).ok()
    ask(ours, "DeleteProject", api.DeleteProjectRequest(name=names[0], commit=True)).ok()
    for number, name in enumerate(names):
        answer = ask(ours, *kinds.ENTITY.get("e", name))
        assert (answer.code is not None) if number == 0 else answer.ok().spec.tags["n"] == str(number)
    for name in names[1:]:
        ask(ours, "DeleteProject", api.DeleteProjectRequest(name=name, commit=True)).ok()


@every_kind
def test_no_project(kind: Kind, ours: harness.Server) -> None:
    """An object must belong to a project; reading from none finds nothing."""
    before = len(ask(ours, "ListProjects", api.ListProjectsRequest()).ok().projects)
    refused(ask(ours, *kind.apply(kind.proto("x"), "")), grpc.StatusCode.INVALID_ARGUMENT)
    assert kind.listed(ask(ours, *kind.list("")).ok()) == []
    refused(ask(ours, *kind.get("x", "")), grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
    assert len(ask(ours, "ListProjects", api.ListProjectsRequest()).ok().projects) == before


# --- wrong contents --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [m for m in SERVICE.methods if m.input_type.fields], ids=lambda m: m.name)
def test_empty_requests(method: descriptor.MethodDescriptor, ours: harness.Server) -> None:
    """No field set: lists are empty, everything else is refused or not found, nothing is written."""
    before = ask(ours, "ListProjects", api.ListProjectsRequest()).ok()
    answer = send(ours, method.name, b"")
    if method.name.startswith(("Apply", "Update")):
        refused(answer, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert ask(ours, "ListProjects", api.ListProjectsRequest()).ok() == before


@pytest.mark.parametrize("as_kind", kinds.VIEWS, ids=lambda k: f"as-{k}")
@pytest.mark.parametrize("kind", kinds.VIEWS, ids=str)
def test_a_view_under_a_wrong_field(kind: Kind, as_kind: Kind, ours: harness.Server, project: str) -> None:
    """One kind's bytes under another's field: what they then say is stored or refused, and can be read again."""
    fields = api.ApplyFeatureViewRequest.DESCRIPTOR.fields_by_name
    body = kind.proto("v").SerializeToString()
    head = api.ApplyFeatureViewRequest(project=project, commit=True).SerializeToString()
    answer = send(ours, "ApplyFeatureView", head + delimited(fields[as_kind.name].number, body))
    if answer.code is None:
        assert as_kind.name_of(stored(ours, as_kind, "v", project)) == "v"
    else:
        refused(answer)
    ask(ours, "ListAllFeatureViews", api.ListAllFeatureViewsRequest(project=project)).ok()
    ask(ours, "ListFeatures", api.ListFeaturesRequest(project=project)).ok()


def test_two_kinds_in_one_request(ours: harness.Server, project: str) -> None:
    """Protobuf: the last member of a oneof wins."""
    fields = api.ApplyFeatureViewRequest.DESCRIPTOR.fields_by_name
    body = api.ApplyFeatureViewRequest(project=project, commit=True).SerializeToString()
    for kind in (kinds.LABEL_VIEW, kinds.FEATURE_VIEW):
        body += delimited(fields[kind.name].number, kind.proto("v").SerializeToString())
    assert send(ours, "ApplyFeatureView", body).code is None
    assert stored(ours, kinds.FEATURE_VIEW, "v", project)
    assert ask(ours, *kinds.LABEL_VIEW.get("v", project)).code is grpc.StatusCode.NOT_FOUND


def delimited(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def with_project(proto: Any, project: str) -> Any:
    out = type(proto).FromString(proto.SerializeToString())
    (out.spec if "spec" in out.DESCRIPTOR.fields_by_name else out).project = project
    return out


def test_unknown_enum_values(ours: harness.Server, project: str) -> None:
    """Protobuf's enums are open: a value of the future is kept as it came."""
    view = kinds.FEATURE_VIEW.proto("v")
    view.spec.features[0].value_type = 4711
    view.spec.batch_source.type = 4712
    view.meta.state = 4713
    label = kinds.LABEL_VIEW.proto("l")
    label.spec.conflict_policy = 4714
    permission = kinds.PERMISSION.proto("p")
    permission.spec.actions.append(4715)
    permission.spec.types.append(4716)
    entity = kinds.ENTITY.proto("e")
    entity.spec.value_type = 4717
    source = kinds.DATA_SOURCE.proto("s")
    source.type = 4718
    for kind, proto in (
        (kinds.FEATURE_VIEW, view),
        (kinds.LABEL_VIEW, label),
        (kinds.PERMISSION, permission),
        (kinds.ENTITY, entity),
        (kinds.DATA_SOURCE, source),
    ):
        ask(ours, *kind.apply(proto, project)).ok()
        for allow_cache in (False, True):
            found = stored(ours, kind, kind.name_of(proto), project, allow_cache)
            assert kind.spec(found) == kind.spec(with_project(proto, project)) or kind is kinds.DATA_SOURCE
    assert stored(ours, kinds.FEATURE_VIEW, "v", project).meta.state == 4713
    assert stored(ours, kinds.DATA_SOURCE, "s", project).type == 4718
    # Listings that look into types do not trip over them either.
    ask(ours, "ListFeatures", api.ListFeaturesRequest(project=project)).ok()
    ask(ours, "GetRegistryLineage", api.GetRegistryLineageRequest(project=project)).ok()
    ask(ours, *kinds.ENTITY.list(project, sorting=api.SortingParams(sort_by="value_type", sort_order="asc"))).ok()


INVALID_MOMENTS = [
    (-(2**63), 0),
    (2**63 - 1, 0),
    (0, -1),
    (0, 10**9),
    (0, 2**31 - 1),
    (253402300800, 0),
    (-62135596801, 0),
]


@pytest.mark.parametrize("seconds, nanos", INVALID_MOMENTS)
def test_invalid_moments(seconds: int, nanos: int, ours: harness.Server, project: str) -> None:
    """Years beyond 1 to 9999 and impossible nanoseconds: in an interval refused or kept, elsewhere harmless."""
    view = kinds.FEATURE_VIEW.proto("v")
    ask(ours, *kinds.FEATURE_VIEW.apply(view, project)).ok()
    request = api.ApplyMaterializationRequest(feature_view=view, project=project, commit=True)
    request.start_date.seconds, request.start_date.nanos = seconds, nanos
    request.end_date.seconds = 1
    answer = ask(ours, "ApplyMaterialization", request)
    found = stored(ours, kinds.FEATURE_VIEW, "v", project).meta.materialization_intervals
    if answer.code is None:
        assert [(i.start_time.seconds, i.start_time.nanos) for i in found] == [(seconds, nanos)]
    else:
        refused(answer, grpc.StatusCode.INVALID_ARGUMENT)
        assert len(found) == 0
    # The client's created_timestamp is replaced, whatever it is.
    view.spec.name = "w"
    view.meta.created_timestamp.seconds, view.meta.created_timestamp.nanos = seconds, nanos
    if ask(ours, *kinds.FEATURE_VIEW.apply(view, project)).code is None:
        assert 1_700_000_000 < stored(ours, kinds.FEATURE_VIEW, "w", project).meta.created_timestamp.seconds < 2**33
    since = api.ListAllFeatureViewsRequest(project=project)
    since.updated_since.seconds, since.updated_since.nanos = seconds, nanos
    for since.allow_cache in (False, True):
        answer = ask(ours, "ListAllFeatureViews", since)
        assert answer.code in (None, grpc.StatusCode.INVALID_ARGUMENT), answer


def test_an_interval_without_ends(ours: harness.Server, project: str) -> None:
    view = kinds.FEATURE_VIEW.proto("v")
    ask(ours, *kinds.FEATURE_VIEW.apply(view, project)).ok()
    answer = ask(ours, "ApplyMaterialization", api.ApplyMaterializationRequest(feature_view=view, project=project))
    assert answer.code in (None, grpc.StatusCode.INVALID_ARGUMENT), answer
    stored(ours, kinds.FEATURE_VIEW, "v", project)


def test_deep_nesting(ours: harness.Server, project: str) -> None:
    """A feature view made of views, 90 deep: beneath protobuf's own limit of 100, and 5,000 deep: above it."""
    spec = api.ApplyFeatureViewRequest.DESCRIPTOR.fields_by_name["feature_view"].message_type.fields_by_name["spec"]
    views = spec.message_type.fields_by_name["source_views"].number
    for depth in (40, 5_000):
        body = delimited(1, f"v{depth}".encode()) + delimited(3, b"driver")
        for _ in range(depth):
            body = delimited(1, f"v{depth}".encode()) + delimited(3, b"driver") + delimited(views, body)
        head = api.ApplyFeatureViewRequest(project=project, commit=True).SerializeToString()
        answer = send(ours, "ApplyFeatureView", head + delimited(1, delimited(1, body)))
        if depth == 5_000:
            refused(answer)
        elif answer.code is None:
            assert stored(ours, kinds.FEATURE_VIEW, f"v{depth}", project)


# --- fields that we do not know --------------------------------------------------------------------------------

FUTURE_FIELDS = [
    delimited(2047, b"from a newer client"),
    varint(2046 << 3) + varint(2**64 - 1),
    varint(2045 << 3 | 5) + b"\1\2\3\4",
]
FUTURE = b"".join(FUTURE_FIELDS)
"""One field of each wire type. Their order among themselves means nothing, their bytes do."""


@every_kind
def test_unknown_fields_survive(kind: Kind, ours: harness.Server, project: str) -> None:
    """At the top, in the spec and in the meta: through apply, get, list, materialize and re-apply, byte for byte."""
    prepare(kind, ours, project)
    proto = kind.proto("x", tags={"a": "1"})
    proto.MergeFromString(FUTURE)
    parts = [p for p in ("spec", "meta") if p in proto.DESCRIPTOR.fields_by_name]
    if kind is kinds.DATA_SOURCE:
        parts = ["file_options"]
    for part in parts:
        getattr(proto, part).MergeFromString(FUTURE)

    def check(found: Any, where: str) -> None:
        for part in ("", *parts):
            message = getattr(found, part) if part else found
            for field in FUTURE_FIELDS:
                count = message.SerializeToString().count(field) - sum(
                    getattr(message, p).SerializeToString().count(field) for p in parts if not part
                )
                assert count == 1, f"{where}: {part or 'the top level'} has the unknown field {field!r} {count} times"

    def check_all(where: str) -> None:
        for allow_cache in (False, True):
            check(stored(ours, kind, "x", project, allow_cache), f"{where}, get")
            for found in kind.listed(ask(ours, *kind.list(project, allow_cache=allow_cache)).ok()):
                if kind.name_of(found) == "x":
                    check(found, f"{where}, list")
        (row,) = harness.rows(
            ours.db, f"SELECT * FROM {kind.table} WHERE project_id = ? AND {kind.key_column} = 'x'", project
        )
        check(type(proto).FromString(row[kind.proto_column]), f"{where}, SQLite")

    ask(ours, *kind.apply(proto, project)).ok()
    check_all("apply")
    ask(ours, *kind.apply(proto, project)).ok()
    check_all("the same again")
    if kind in (kinds.FEATURE_VIEW, kinds.STREAM_FEATURE_VIEW):
        request = api.ApplyMaterializationRequest(project=project, commit=True)
        request.feature_view.spec.name = "x"
        request.start_date.seconds, request.end_date.seconds = 0, 60  # the epoch is a moment like any other
        ask(ours, "ApplyMaterialization", request).ok()
        check_all("materialize")
        (version,) = harness.versions(ours.db, project, "x")
        check(type(proto).FromString(version["feature_view_proto"]), "version history")
    kind.spec(proto).tags["a"] = "2"
    ask(ours, *kind.apply(proto, project)).ok()
    check_all("a change")
    assert dict(kind.spec(stored(ours, kind, "x", project)).tags) == {"a": "2"}


@every_kind
def test_a_change_in_an_unknown_field_is_a_change(kind: Kind, ours: harness.Server, project: str) -> None:
    """What only a newer client understands is still its user's change."""
    prepare(kind, ours, project)
    proto = kind.proto("x")
    ask(ours, *kind.apply(proto, project)).ok()
    proto.MergeFromString(FUTURE)
    ask(ours, *kind.apply(proto, project)).ok()
    assert FUTURE in stored(ours, kind, "x", project).SerializeToString()


def test_unknown_fields_of_a_request_are_ignored(ours: harness.Server, project: str) -> None:
    _, request = kinds.ENTITY.apply(kinds.ENTITY.proto("x"), project)
    send(ours, "ApplyEntity", FUTURE + request.SerializeToString() + FUTURE).ok()
    assert stored(ours, kinds.ENTITY, "x", project)


def test_unknown_methods_and_services(ours: harness.Server) -> None:
    for path in (f"/{SERVICE.full_name}/Nonsense", "/feast.registry.Nonsense/Get", "/"):
        with pytest.raises(grpc.RpcError) as caught:
            ours.channel.unary_unary(path)(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
