"""A code location with a dbt project and a pipeline that scores what dbt builds."""
