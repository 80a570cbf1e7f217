"""New projects and pipelines: what a table of the user's proposes, and the files that are written."""
