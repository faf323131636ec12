"""The texts that our REST server's `featureDefinition` is tested with are those of the installed Feast."""

from __future__ import annotations

import json
from typing import Any

import pytest
from feast.feature_view import FeatureView
from feast.labeling.label_view import LabelView
from feast.protos.feast.core.DataSource_pb2 import DataSource
from feast.protos.feast.core.FeatureView_pb2 import FeatureView as FeatureViewProto
from feast.protos.feast.core.LabelView_pb2 import LabelView as LabelViewProto
from google.protobuf.duration_pb2 import Duration

import printed_definitions

MADE_BY = "python interop/printed_definitions.py writes the file anew"


def test_the_texts_are_those_of_the_installed_feast() -> None:
    committed = {case["title"]: case for case in json.loads(printed_definitions.GOLDEN.read_text(encoding="utf-8"))}
    made = {case["title"]: case for case in json.loads(printed_definitions.golden())}
    assert committed.keys() == made.keys(), MADE_BY
    for title, case in made.items():
        assert committed[title] == case, f"{title}: {MADE_BY}"


@pytest.mark.parametrize(
    ("view", "message", "source"),
    [(FeatureView, FeatureViewProto, "batch_source"), (LabelView, LabelViewProto, "source")],
)
def test_no_time_to_live_is_one_of_zero(view: Any, message: Any, source: str) -> None:
    file = DataSource(name="s", type=DataSource.BATCH_FILE, file_options={"uri": "u"}, timestamp_field="t")
    applied = message(spec={"name": "v", source: file})
    assert not applied.spec.HasField("ttl")
    stored = view.from_proto(applied).to_proto()
    assert stored.spec.HasField("ttl") and stored.spec.ttl == Duration()
