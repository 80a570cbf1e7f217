"""Recorded scorings, scored again."""
