"""Proves that the lists of known differences from Feast are honest: every entry is used, and none is unknown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import differential
import rest_pair

HERE = Path(__file__).resolve().parent
REST = {*HERE.glob("test_rest_*.py"), HERE / "rest_pair.py", HERE / "rest_writes.py"}
GRPC = {*HERE.glob("test_*.py"), HERE / "differential.py"} - REST


@pytest.mark.parametrize(
    "documented, files", [(differential.DIFFERENCES, GRPC), (rest_pair.DIFFERENCES, REST)], ids=["gRPC", "REST"]
)
def test_every_documented_difference_is_met_by_a_test(documented: dict[str, str], files: set[Path]) -> None:
    used = set()
    for path in files:
        text = path.read_text()
        used |= set(re.findall(r'(?:differs|differing|otherwise)\(\s*"([a-z-]+)"', text))
        # A mask and a test of what Feast does only sometimes name theirs first in the docstring.
        used |= set(re.findall(r'"""([a-z]+(?:-[a-z]+)+): ', text))
    assert used == set(documented), f"unused: {set(documented) - used}; unknown: {used - set(documented)}"
