"""Data quality: Great Expectations judge every partition of a range, in one pass over the range."""
