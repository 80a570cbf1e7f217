"""Published rows are in DuckDB files from here on, so the next run publishes everything again."""

SQL = "DELETE FROM ledger.publications;"
