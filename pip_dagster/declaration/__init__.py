"""What may be declared, a pipeline with its files, the project it lives in, and the grid of its partitions."""
