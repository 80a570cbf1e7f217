"""Deliveries are published, so that readers can tell what a target has: every file of rows gets their table."""

SQL = "DELETE FROM ledger.publications;"
