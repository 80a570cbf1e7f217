"""Figures from columns of scores: agreement, metrics, intervals. SQL and numpy over relations that the caller names."""
