"""What may be declared, a pipeline with its files, the project it is in, and the grid of its partitions."""
