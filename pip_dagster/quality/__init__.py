"""Data quality: Great Expectations' expectations judge every partition of a range, in one pass over the range."""
