-- The lake's catalog, beside Dagster's own database.
CREATE DATABASE lake;
