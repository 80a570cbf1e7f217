"""People in the rows: what stands for them, and who must not return."""
