"""Looking into the ledger and at whether the audit holds."""

import pytest

from pip_dagster.ledger.verify import verify
from pip_dagster.warehouse.connect import open_warehouse, workspace


class _Verify:
    def __call__(self, tiny):
        with workspace(threads=1) as con, open_warehouse(con, tiny.project.warehouse, purpose="test", read_only=True):
            return verify(con)

    def tamper(self, tiny, *statements):
        with workspace(threads=1) as con, open_warehouse(con, tiny.project.warehouse, purpose="test"):
            for statement in statements:
                con.execute(statement)


@pytest.fixture
def ledger_verify():
    """The first fault that the audit finds in a project; `tamper` makes one."""
    return _Verify()
