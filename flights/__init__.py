"""The demo: the pipeline `flight_delay`, on real flights."""
