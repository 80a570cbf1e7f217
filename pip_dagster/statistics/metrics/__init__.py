"""The metrics of each task: exact from rows in SQL, and as sums that add up over partitions. docs/figures.md."""
