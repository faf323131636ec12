"""The same calls sent to Feast's own registry server and to ours; answers compared, differences named.

`Pair` sends a request to both and compares. What cannot be equal (moments, uuids) is masked; what differs on
purpose is in `DIFFERENCES`, and a test that meets such a difference says so by its name, through
`Pair.differs`. `test_differences.py` checks that every entry is used and that no test uses an unknown name.
"""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from feast.protos.feast.core import DataSource_pb2, StreamFeatureView_pb2, ValidationProfile_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

import harness

DIFFERENCES = {
    "spec-project": "Feast stores the project in an object's spec but loses it when it answers: spec.project is empty "
    "in every answer of its server, Proto included. Ours is filled.",
    "stream-features-order": "Feast keeps a stream feature view's features in a Python set: each answer lists them in "
    "another order. Ours keeps the order that was applied.",
    "refused-with-a-code": "Feast's server answers a plain Python exception (bad name, bad version, wrong kind, empty "
    "oneof) with UNKNOWN 'Exception calling application: …'. Ours answers INVALID_ARGUMENT.",
    "missing-permission": "A permission that does not exist is INTERNAL PermissionNotFoundException when Feast reads "
    "SQL, but NOT_FOUND PermissionObjectNotFoundException when it reads its cache. Ours is always the latter.",
    "description-keeps-version": "A change of the description alone makes Feast set current_version_number back to 0. "
    "Ours keeps the number.",
    "apply-keeps-state": "A re-apply after a materialization makes Feast reset the state to unspecified. Ours keeps it.",
    "apply-merges-intervals": "An apply that brings intervals of its own replaces the stored ones in Feast. Ours keeps "
    "the union: `feast materialize` applies a view with intervals that it read earlier.",
    "nanoseconds": "Feast passes the ends of an interval through a float and through microseconds; ours keeps them.",
    "materialize-stream": "ApplyMaterialization carries a FeatureView message even for a stream feature view, and Feast "
    "then says NOT_FOUND. For ours the name decides.",
    "materialize-other-kinds": "For an on demand or a label view Feast says NOT_FOUND, because it looks only among "
    "feature views; ours says that this kind cannot be materialized.",
    "dataset-jobs": "The four RPCs that run Feast's offline store in Python answer UNIMPLEMENTED.",
    "project-leaves-nothing": "Deleting a project leaves its version history behind in Feast. Ours deletes it.",
    "deleted-project-in-cache": "After a project is deleted, Feast's cached reads show its objects until the next write "
    "or the end of the cache's life. Ours do not.",
    "permissions-without-tags": "Feast's ListPermissions with a tags filter fails (UNKNOWN) as soon as one permission "
    "has no tags. Ours filters.",
    "nameless-file-source": "A file source without a name gets its path for a name from Feast's Python class, in the "
    "client already. Ours refuses an object without a name.",
    "cached-project-metadata": "Feast's cache has no project metadata: a cached list is empty. Ours shows it.",
    "saved-dataset-updated": "Feast drops a saved dataset's last_updated_timestamp when it answers. Ours shows it.",
    "unchanged-project": "Feast writes a project again that has not changed: its class compares the moments that the "
    "client put in. Ours writes nothing.",
    "demand-view-changes": "Feast takes an on demand feature view whose tags, owner, features or entities alone changed "
    "for unchanged and drops the change. Ours stores it.",
    "disabled-is-a-change": "Feast takes a view that was only disabled for unchanged. Ours stores it.",
    "defaults-stay-unsaid": "Feast answers version 'latest' and view_type 'featureView' where nothing was sent. Ours "
    "answers what was sent; Feast's client fills in the same.",
    "projection-keeps-more": "Where Feast fills a projection from the registry it loses the alias and the class of the "
    "source. Ours keeps both.",
    "sort-of-no-scalar": "Feast sorts by the Python text of what is no text or number (maps, lists, durations). Ours has "
    "an order of its own, and no such field can make the call fail.",
    "unnamed-source": "Lineage in Feast has a source `unnamed_source_…`, the hash of an empty text, for a view without "
    "a batch source. Ours has none.",
    "functions-as-sent": "Feast unpickles a view's function and pickles it again: the bytes that it stores and answers are "
    "not those that were sent. Ours are.",
    "unchanged-stream-view": "Feast writes an unchanged stream feature view again, now and then: it compares the byte code "
    "of functions that it has rebuilt. Ours does not.",
    "no-code-is-run": "Feast unpickles functions found in metadata, so bytes that are no pickle are UNKNOWN. Ours "
    "stores and returns them as they are.",
}

MASKED = {"created_timestamp", "last_updated_timestamp", "last_updated", "createdTimestamp"}
A_MOMENT = Timestamp(seconds=1)


@dataclass
class Answer:
    """A response or an error of one server."""

    message: Message | None = None
    code: grpc.StatusCode | None = None
    detail: str = ""

    @property
    def error_class(self) -> str | None:
        """The class in the JSON detail that Feast's client turns into an exception."""
        try:
            return json.loads(self.detail)["class"]
        except (ValueError, KeyError, TypeError):
            return None

    @property
    def error_text(self) -> str:
        return json.loads(self.detail)["message"] if self.error_class else self.detail

    def ok(self) -> Any:
        assert self.code is None, f"{self.code.name}: {self.detail}"
        return self.message

    def __str__(self) -> str:
        if self.code is not None:
            return f"{self.code.name} {self.error_class}: {self.error_text}"
        return f"{type(self.message).__name__}:\n{self.message}"


def ask(server: harness.Server, rpc: str, request: Message, timeout: float = 60) -> Answer:
    try:
        return Answer(getattr(server.stub, rpc)(request, timeout=timeout))
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            time.sleep(0.2)
            server.assert_alive()
        return Answer(code=error.code(), detail=error.details() or "")


# --- what is masked before a comparison -----------------------------------------------------------------


def submessages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for part in value.values():
                    yield from submessages(part)
        elif isinstance(value, Message):
            yield from submessages(value)
        else:
            for part in value:
                yield from submessages(part)


def mask_moments(message: Message) -> None:
    """Moments become one and the same; whether they are there still counts."""
    for part in submessages(message):
        for field, value in part.ListFields():
            if field.name in MASKED and isinstance(value, Timestamp):
                value.CopyFrom(A_MOMENT)
            elif field.name == "project_uuid":
                assert len(value) == 36, f"a project uuid has 36 characters: {value!r}"
                part.project_uuid = "a uuid"


def mask_project(message: Message) -> None:
    """spec-project: shown to be filled by a test of its own, hence left out of all other comparisons."""
    for part in submessages(message):
        if part.DESCRIPTOR.name.endswith(("Spec", "SpecV2")) and "project" in part.DESCRIPTOR.fields_by_name:
            part.ClearField("project")
    for part in (message, *listed(message)):
        if isinstance(part, (DataSource_pb2.DataSource, ValidationProfile_pb2.ValidationReference)):
            part.ClearField("project")


def mask_saved_dataset_updated(message: Message) -> None:
    """saved-dataset-updated: a test of its own shows it."""
    for part in submessages(message):
        if part.DESCRIPTOR.name == "SavedDatasetMeta":
            part.ClearField("last_updated_timestamp")


def mask_function_bytes(message: Message) -> None:
    """functions-as-sent: a test of its own shows that ours are the bytes that were sent."""
    for part in submessages(message):
        if part.DESCRIPTOR.name in ("UserDefinedFunction", "UserDefinedFunctionV2") and part.body:
            part.body = b"a function"


def sort_stream_features(message: Message) -> None:
    """stream-features-order: compared without their order."""
    for part in submessages(message):
        if isinstance(part, StreamFeatureView_pb2.StreamFeatureViewSpec):
            ordered = sorted(part.features, key=lambda f: f.name)
            del part.features[:]
            part.features.extend(ordered)


def listed(message: Message) -> Iterator[Message]:
    """The objects in a List response or in Proto's answer."""
    for field, value in message.ListFields():
        if field.message_type is not None and not isinstance(value, Message) and not hasattr(value, "items"):
            yield from value


def comparable(message: Message) -> Message:
    copy = type(message)()
    copy.CopyFrom(message)
    for mask in (mask_moments, mask_project, mask_saved_dataset_updated, mask_function_bytes, sort_stream_features):
        mask(copy)
    return copy


def difference_of(expected: Any, found: Any) -> str:
    lines = [str(side).splitlines() for side in (expected, found)]
    return "\n".join(difflib.unified_diff(*lines, "Feast", "ours", lineterm="", n=4))


# --- the pair -----------------------------------------------------------------------------------------


@dataclass
class Pair:
    """Our server and Feast's, and a project that only this test uses."""

    ours: harness.Server
    oracle: harness.Server
    project: str

    def both(self, rpc: str, request: Message) -> tuple[Answer, Answer]:
        return ask(self.ours, rpc, request), ask(self.oracle, rpc, request)

    def same(self, rpc: str, request: Message, view: Callable[[Any], Any] = comparable) -> Answer:
        """Both answer the same, error or not; `view` is what of a response is compared. Returns our answer."""
        ours, theirs = self.both(rpc, request)
        told = f"{rpc}({str(request)[:600]})"
        if theirs.code is not None or ours.code is not None:
            verdict = f"\n--- Feast answers\n{str(theirs)[:1500]}\n--- ours answers\n{str(ours)[:1500]}"
            assert (ours.code, ours.error_class) == (theirs.code, theirs.error_class), told + verdict
        else:
            expected, found = view(theirs.message), view(ours.message)
            if found != expected:
                raise AssertionError(f"{told}\n{difference_of(expected, found)}")
        return ours

    def ok(self, rpc: str, request: Message, view: Callable[[Any], Any] = comparable) -> Any:
        """Both answer the same and without an error."""
        return self.same(rpc, request, view).ok()

    def refused(self, rpc: str, request: Message, naming: str = "") -> None:
        """refused-with-a-code: Feast's UNKNOWN is our INVALID_ARGUMENT; else both refuse alike."""
        ours, theirs = self.both(rpc, request)
        told = f"{rpc}({str(request)[:600]})\n--- Feast answers\n{theirs}\n--- ours answers\n{ours}"
        assert theirs.code is not None, f"Feast does not refuse this\n{told}"
        if theirs.code is grpc.StatusCode.UNKNOWN:
            assert ours.code is grpc.StatusCode.INVALID_ARGUMENT, told
        else:
            assert (ours.code, ours.error_class) == (theirs.code, theirs.error_class), told
        assert naming in ours.error_text, f"the message does not name {naming!r}\n{told}"

    def differs(
        self,
        difference: str,
        rpc: str,
        request: Message,
        *,
        theirs: Callable[[Answer], Any],
        ours: Callable[[Answer], Any],
    ) -> Any:
        """A documented difference: each side is held to what `DIFFERENCES` says. Returns our response."""
        reason = DIFFERENCES[difference]
        our_answer, their_answer = self.both(rpc, request)
        assert theirs(their_answer), f"Feast no longer differs; delete the entry? {reason}\n{rpc}: {their_answer}"
        assert ours(our_answer), f"not as documented: {reason}\n{rpc}({str(request)[:600]}): {our_answer}"
        return our_answer.message


def failed(code: grpc.StatusCode, error_class: str | None = None) -> Callable[[Answer], bool]:
    return lambda answer: answer.code is code and (error_class is None or answer.error_class == error_class)


def succeeded(answer: Answer) -> bool:
    return answer.code is None
