import logging

import duckdb
import pytest


@pytest.fixture
def con():
    connection = duckdb.connect()
    connection.execute("SET TimeZone='UTC'; SET threads=1")
    yield connection
    connection.close()


@pytest.fixture(autouse=True, scope="session")
def quiet_great_expectations():
    """It logs every exception of a metric with its traceback; the verdicts are what these tests look at."""
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)
