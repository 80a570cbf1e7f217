"""A code location that answers an application's requests."""
