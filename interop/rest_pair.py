"""The same HTTP requests sent to Feast's REST server and to ours; answers compared, differences named.

What cannot be equal is normalised by `comparable`, one small function per reason; what differs on purpose is in
`DIFFERENCES`, and a test that meets such a difference names it, through `RestPair.differs` or a step's `differs`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from differential import difference_of
from rest import Answer, RestServer

DIFFERENCES = {
    "spec-project": "Feast loses the project in an object's spec when it answers. Ours shows it where it is stored.",
    "stream-features-order": "Feast keeps a stream feature view's features in a Python set: each process lists them in "
    "another order. Ours keeps the order that was applied.",
    "functions-as-sent": "Feast unpickles a view's function and pickles it again: the bytes it answers are not those stored.",
    "invented-moments": "Feast answers the present moment as that of a request source inside an on demand feature view. "
    "Ours answers what is stored.",
    "relationships-order": "Feast walks protobuf maps and Python sets: relationships come in another order in each "
    "process, unless the request sorts them.",
    "printed-sets": "Feast prints maps and sets into a definition in an order that differs from process to process.",
    "projects-order": "Feast searches the projects in the order of a Python set.",
    "error-text": "Errors are told in words of our own; Feast's RequestValidationError has a file of the server in its text.",
    "sort-of-no-scalar": "Feast sorts by the Python text of what is no text or number (maps, lists, durations). Ours has "
    "an order of its own.",
    "sorted-as-shown": "Feast sorts by attributes of its Python classes: a push source has no timestamp field there, whatever its "
    "answer shows. Ours sorts by what it answers.",
    "demand-features-keep-more": "Feast's on demand feature views lose the descriptions and tags of their features. Ours keep them.",
    "head-answers": "Feast's server knows no HEAD. Ours answers it as GET, without the body.",
    "unchanged-answers": "Feast's answers have no ETag. Ours has one, and says so when nothing has changed.",
    "slash-in-name": "An object whose name has a slash cannot be read or deleted in Feast. In ours it can.",
    "server-named": "The version that Feast names is its own. Ours names the one it speaks, and itself beside it.",
    "far-pages": "A page beyond 32 bits is another error, or none, in Feast, as the list is of one project or of all. Ours takes pages "
    "of 32 bits everywhere.",
    "moments": "Feast reads every form of ISO 8601 that Python does. Ours reads dates and RFC 3339, where a plus sign may have "
    "become a blank on its way.",
    "errors-have-codes": "What a request cannot have is an internal error of Feast's in many cases: no name, a name that another kind of "
    "view has, options of another type. In ours it is the request's error.",
    "refused-at-once": "Feast takes what it cannot answer or use later: a source without a name, a feature without one, a time to "
    "live beyond what protobuf has, or a pattern that is no regular expression. Ours refuses it.",
    "no-class-is-needed": "Feast loads the Python class of a source or storage before it stores one, and so fails where a driver is not "
    "installed, or for a stream without a format. Ours stores it.",
    "defaults-stay-unsaid": "Feast names a source's class, and shows empty options and a default format of partitions, where nothing was "
    "sent. Ours answers what was sent.",
    "saved-dataset-updated": "Feast drops the moment of a saved dataset's last update when it answers. Ours shows it.",
    "whole-objects": "Feast knows no PUT. Ours writes a whole object with it.",
    "label-views": "Feast deletes label views below /feature_views alone. Ours writes and deletes them below /label_views too.",
    "not-text": "Feast reads what is not UTF-8 with a character in place of what it cannot read, so two names may become one. "
    "Ours refuses it.",
    "encodings": "Feast reads JSON in any encoding that Python recognizes. Ours reads UTF-8, as JSON is defined.",
    "missing-permission": "A permission that does not exist is an internal error when Feast reads SQL, and not found when it "
    "reads its cache. Ours is never an internal error.",
    "unsortable": "Feast answers an internal error when it is to sort lists across projects by a part that is no text or "
    "number. Ours sorts nothing.",
    "online-as-stored": "Feast's compute engines show every view as online: false is not in its JSON, and what is not there is taken for "
    "true. Ours shows what is stored.",
    "unpaged-jobs": "Feast lists no materialization jobs unless page and limit are both given. Ours lists them all, and pages where "
    "one of the two is given.",
    "stray-pagination": "Feast has the pagination object among the feature views of a project's complete lineage. Ours "
    "has feature views only.",
}

MOMENTS = {"createdTimestamp", "lastUpdatedTimestamp", "registryLastUpdated"}
SOURCE_TYPE = re.compile("(BATCH|STREAM|PUSH|REQUEST|CUSTOM)_")
PRINTED_TAGS = re.compile(r"(?:tags|labels)=(\{.*?\})(?=[,)]|$)", re.MULTILINE)
PRINTED_TYPES = re.compile(r"^(from feast\.types import )(.*)$", re.MULTILINE)
PRINTED_SOURCES = re.compile(r'\{("\w+": \w+(?:, "\w+": \w+)*)\}')
PRINTED_FIELDS = re.compile(r"(?:^ {8}Field\(.*\),\n)+", re.MULTILINE)


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object in a body, the outer ones first."""
    if isinstance(value, dict):
        yield value
        for inner in list(value.values()):
            yield from parts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from parts(inner)


# --- what is normalised before a comparison ---------------------------------------------------------------


def drop_error_text(body: Any) -> None:
    """error-text: status and type are compared, and that there is a text: people read it in the web UI."""
    if isinstance(body, dict) and "error_type" in body:
        assert isinstance(body["detail"], str) and body["detail"], body
        body["detail"] = "a text"


def drop_spec_project(body: Any) -> None:
    """spec-project: a test of its own shows that ours is right."""
    for part in parts(body):
        if isinstance(part.get("spec"), dict):
            part["spec"].pop("project", None)


def drop_function_bytes(body: Any) -> None:
    """functions-as-sent: the bytes are compared where objects are read over gRPC."""
    for part in parts(body):
        if "body" in part and "bodyText" in part:
            part["body"] = "a function"


def sort_stream_features(body: Any) -> None:
    """stream-features-order: compared without their order."""
    for part in parts(body):
        view = part.get("streamFeatureView", part if part.get("type") == "streamFeatureView" else None)
        if isinstance(view, dict) and "spec" in view:
            view["spec"]["features"].sort(key=lambda feature: feature["name"])


def drop_invented_moments(body: Any) -> None:
    """invented-moments: whether there are any is left open."""
    for part in parts(body):
        if isinstance(part.get("requestDataSource"), dict):
            part["requestDataSource"].pop("meta", None)


def sort_printed_sets(body: Any) -> None:
    """printed-sets: what is printed from a map or a set is put in order."""
    for part in parts(body):
        if isinstance(part.get("featureDefinition"), str):
            code = PRINTED_TAGS.sub(_sorted_tags, part["featureDefinition"])
            code = PRINTED_TYPES.sub(lambda found: found[1] + _sorted_list(found[2]), code)
            code = PRINTED_SOURCES.sub(lambda found: "{" + _sorted_list(found[1]) + "}", code)
            part["featureDefinition"] = PRINTED_FIELDS.sub(_sorted_lines, code) if "StreamFeature" in code else code


def _sorted_tags(found: re.Match[str]) -> str:
    return found[0].replace(found[1], repr(dict(sorted(ast.literal_eval(found[1]).items()))))


def _sorted_list(several: str) -> str:
    return ", ".join(sorted(several.split(", ")))


def _sorted_lines(found: re.Match[str]) -> str:
    return "".join(sorted(found[0].splitlines(keepends=True)))


def sort_relationships(body: Any) -> None:
    """relationships-order: compared without their order."""
    for part in parts(body):
        for name in RELATIONSHIP_KEYS & part.keys():
            relations = part[name]
            for listed in relations.values() if isinstance(relations, dict) else [relations]:
                if isinstance(listed, list):  # A page's numbers go by the same name.
                    listed.sort(key=lambda relation: json.dumps(relation, sort_keys=True))


RELATIONSHIP_KEYS = {"relationships", "indirect_relationships", "indirectRelationships"}


def drop_stray_pagination(body: Any) -> None:
    """stray-pagination: a test of its own shows that it is Feast's only."""
    for part in parts(body):
        if isinstance(part.get("objects"), dict):
            views = part["objects"]["featureViews"]
            views[:] = [view for view in views if is_a_view(view)]


def is_a_view(listed: dict[str, Any]) -> bool:
    """Whether this has a view of some kind in it, as the complete lineage does."""
    return any(key.lower().endswith("featureview") for key in listed)


def drop_source_project(body: Any) -> None:
    """spec-project: a data source has no spec, its project is beside its name."""
    for part in parts(body):
        if SOURCE_TYPE.match(str(part.get("type", ""))):
            part.pop("project", None)


def drop_defaults(body: Any) -> None:
    """defaults-stay-unsaid: where a source's class is known from its type."""
    for part in parts(body):
        for name in [name for name, value in part.items() if name.endswith("Options") and not value]:
            del part[name]
        if not str(part.get("type", "")).startswith("CUSTOM"):
            part.pop("dataSourceClassType", None)
        for options in ("sparkOptions", "sparkStorage"):
            if options in part and part[options].get("datePartitionColumnFormat") == "%Y-%m-%d":
                del part[options]["datePartitionColumnFormat"]


def drop_saved_dataset_updated(body: Any) -> None:
    """saved-dataset-updated: only ours shows it."""
    for part in parts(body):
        if "storage" in part.get("spec", {}):
            part["meta"].pop("lastUpdatedTimestamp", None)


def drop_online(body: Any) -> None:
    """online-as-stored: a test of its own shows that ours is right."""
    if isinstance(body, dict) and "engine" in body:
        for view in body["featureViews"]:
            del view["online"]


def mask_moments(body: Any) -> None:
    """For registries that were written to at different moments: whether there is one still counts."""
    for part in parts(body):
        for name in MOMENTS & part.keys():
            part[name] = "a moment"


NORMAL = (
    drop_error_text,
    drop_spec_project,
    drop_function_bytes,
    sort_stream_features,
    drop_invented_moments,
    sort_printed_sets,
    sort_relationships,
    drop_stray_pagination,
    drop_online,
)
OF_WRITES = (drop_source_project, drop_defaults, drop_saved_dataset_updated, mask_moments)
"""What is normalised besides where the servers have written on their own."""
Normalise = Callable[[Any], None]


def comparable(answer: Answer, also: tuple[Normalise, ...] = (), without: tuple[Normalise, ...] = ()) -> dict[str, Any]:
    """Status, kind of content, target of a redirect, and the body, in one form."""
    body = answer.body
    for normalise in (*NORMAL, *also):
        if normalise not in without:
            normalise(body)
    location = answer.headers.get("location")
    return {
        "status": answer.status,
        "content": answer.headers.get("content-type", "").partition(";")[0],
        "location": location and re.sub(r"^http://[^/]+", "", location),
        "body": body if body is not None else answer.raw.decode(errors="replace"),
    }


def shown(side: dict[str, Any]) -> str:
    return json.dumps(side, indent=1, sort_keys=True, ensure_ascii=False)


# --- the pair ----------------------------------------------------------------------------------------------


@dataclass
class RestPair:
    """Our server and Feast's, over the same registry or over equal ones."""

    ours: RestServer
    oracle: RestServer
    also: tuple[Normalise, ...] = field(default=())

    def both(self, method: str, path: str, body: Any = None, **how: Any) -> tuple[Answer, Answer]:
        return self.ours.ask(method, path, body, **how), self.oracle.ask(method, path, body, **how)

    def same(self, method: str, path: str, *also: Normalise, without: tuple[Normalise, ...] = (), **how: Any) -> Answer:
        """Both answer the same. Returns our answer."""
        ours, theirs = self.both(method, path, **how)
        self.assert_same(f"{method} {path}", ours, theirs, *also, without=without)
        return ours

    def assert_same(
        self, told: str, ours: Answer, theirs: Answer, *also: Normalise, without: tuple[Normalise, ...] = ()
    ) -> None:
        found, expected = (comparable(side, (*self.also, *also), without) for side in (ours, theirs))
        if found != expected:
            raise AssertionError(f"{told}\n{difference_of(shown(expected), shown(found))}")

    def differs(
        self,
        difference: str,
        method: str,
        path: str,
        *,
        theirs: Callable[[Answer], Any],
        ours: Callable[[Answer], Any],
        **how: Any,
    ) -> Answer:
        """A documented difference: each side is held to what `DIFFERENCES` says. Returns our answer."""
        reason = DIFFERENCES[difference]
        our_answer, their_answer = self.both(method, path, **how)
        told = f"{reason}\n{method} {path}"
        assert theirs(their_answer), f"Feast no longer differs; delete the entry? {told}: {their_answer}"
        assert ours(our_answer), f"not as documented: {told}: {our_answer}"
        return our_answer
