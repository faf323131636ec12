"""What the load of `workers.py` was told, held against what is stored: nothing that was acknowledged may be lost."""

from __future__ import annotations

from pathlib import Path

import harness
import kinds
from differential import ask


def acknowledged(folder: Path) -> tuple[set[str], set[tuple[int, int]]]:
    """Entities and intervals, as the workers noted them."""
    entities, intervals = set(), set()
    for path in folder.glob("acknowledged-*"):
        for line in path.read_text().splitlines():
            kind, *rest = line.split()
            if kind == "entity":
                entities.add(rest[0])
            else:
                intervals.add((int(rest[0]), int(rest[1])))
    return entities, intervals


def count(folder: Path) -> int:
    return sum(map(len, acknowledged(folder)))


def assert_kept(server: harness.Server, project: str, folder: Path) -> int:
    """All of it is there, and no interval twice; how much that is."""
    entities, intervals = acknowledged(folder)
    listed = {e.spec.name for e in ask(server, *kinds.ENTITY.list(project)).ok().entities}
    view = ask(server, *kinds.FEATURE_VIEW.get("view", project)).ok()
    stored = [(i.start_time.seconds, i.end_time.seconds) for i in view.meta.materialization_intervals]
    lost = (entities - listed, intervals - set(stored))
    assert lost == (set(), set()), (
        f"{len(lost[0])} entities and {len(lost[1])} intervals were acknowledged and are lost"
    )
    assert len(stored) == len(set(stored)), "an interval was written twice"
    return len(entities) + len(intervals)
