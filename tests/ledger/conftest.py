"""A project on which a promotion has been lived through: every day scored by v1, then by v2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pip_dagster.ledger.promotions import alias_moves, record_promotions
from pip_dagster.ledger.verify import Fault, verify
from pip_dagster.warehouse.connect import open_warehouse, workspace


@pytest.fixture
def promoted_template(scored_template: Path, helpers: Any, backend: Any) -> Path:
    def make(root: Path) -> None:
        tiny = helpers.Tiny(root)
        record_promotions(tiny.project)
        promote(tiny, 2)
        assert not any(result.error for result in tiny.run().values())

    return backend.once("promoted", scored_template, make)


@pytest.fixture
def promoted(promoted_template: Path, helpers: Any, backend: Any, tmp_path: Path) -> Any:
    """The test's own copy: v2 is champion and live, v1's scores are there."""
    return helpers.with_own_views(helpers.Tiny(backend.copied(promoted_template, tmp_path / "shop")))


def promote(tiny: Any, version: int, why: str = "better") -> None:
    tiny.registry.set_alias("returns", "champion", version, by="eve", why=why)
    record_promotions(tiny.project)


def verified(tiny: Any, **options: Any) -> Fault | None:
    with workspace(threads=1) as con, open_warehouse(con, tiny.project.warehouse, purpose="test", read_only=True):
        return verify(con, moves=alias_moves(tiny.registry), **options)


@pytest.fixture(scope="session")
def ledger() -> Any:
    """This module, for tests that want its functions."""
    import sys

    return sys.modules[__name__]
