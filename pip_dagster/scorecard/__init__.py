"""The ML Test Score of a pipeline, from evidence of ledger, registry and declaration, and from signed statements."""
