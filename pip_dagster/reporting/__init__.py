"""The report of a pipeline: one content, read from the ledger, as an HTML page and as JSON."""
