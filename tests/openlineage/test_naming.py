"""Datasets are named by their place, as OpenLineage's naming says, and never with a secret."""

from pathlib import Path

import pytest

from pip_dagster.openlineage.naming import Dataset, of_files, of_lake, of_server

ROOT = Path("/srv/shop")


@pytest.mark.parametrize(
    ("place", "namespace", "name"),
    [
        ("exports/orders.parquet", "file", "/srv/shop/exports/orders.parquet"),
        ("exports/orders/*.parquet", "file", "/srv/shop/exports/orders"),
        ("exports/orders/year=*/**/*.parquet", "file", "/srv/shop/exports/orders"),
        ("exports/orders-*.parquet", "file", "/srv/shop/exports/orders-*.parquet"),
        ("s3://bucket/orders/*.parquet", "s3://bucket", "orders"),
        ("s3a://bucket/orders/part[12].parquet", "s3://bucket", "orders/part[12].parquet"),
        ("gcs://bucket/a b/ö.parquet", "gs://bucket", "a b/ö.parquet"),
        ("https://ada:pa55word@host.example:8443/d/x.csv?sig=pa55word#a", "https://host.example:8443", "d/x.csv"),
        ("s3://AKIA:pa55word@bucket/orders/x.csv?s3_secret_access_key=pa55word", "s3://bucket", "orders/x.csv"),
        ("exports/password=pa55word/x.csv", "file", "/srv/shop/exports/password=***/x.csv"),
        ("abfss://acc.dfs.core.windows.net/raw/orders", "abfss://raw@acc.dfs.core.windows.net", "orders"),
        ("az://acc.blob.core.windows.net/raw/o.csv?sv=1&sig=pa55word", "abfss://raw@acc.dfs.core.windows.net", "o.csv"),
    ],
)
def test_files(place, namespace, name):
    assert of_files(place, ROOT) == Dataset(namespace, name)


@pytest.mark.parametrize(
    ("scheme", "text", "namespace", "name"),
    [
        (
            "postgres",
            "postgresql://ada:pa55word@db.example/crm?sslmode=require",
            "postgres://db.example:5432",
            "crm.raw.orders",
        ),
        (
            "postgres",
            "host=db.example port=6432 dbname=crm user=ada password=pa55word",
            "postgres://db.example:6432",
            "crm.raw.orders",
        ),
        ("postgres", "postgres://ada:p%40ss@a.example:1,b.example:2/crm", "postgres://a.example:1", "crm.raw.orders"),
        ("mysql", "host=db.example user=ada passwd=pa55word database=shop", "mysql://db.example:3306", "shop.orders"),
        ("mysql", "mysql://ada:pa55word@db.example:3307/shop", "mysql://db.example:3307", "shop.orders"),
        ("postgres", "???pa55word", "postgres://localhost:5432", "raw.orders"),
    ],
)
def test_servers(scheme, text, namespace, name):
    found = of_server(scheme, text, "raw.orders")
    assert found == Dataset(namespace, name)
    assert "pa55word" not in str(found)


@pytest.mark.parametrize(
    ("text", "namespace", "name"),
    [
        ("catalog.ducklake", "ducklake:///srv/shop/catalog.ducklake", "raw.orders"),
        ("ducklake:sqlite:catalog.sqlite", "ducklake:///srv/shop/catalog.sqlite", "raw.orders"),
        ("ducklake:postgres:host=db dbname=lake password=pa55word", "ducklake://db:5432", "lake.raw.orders"),
        ("postgresql://ada:pa55word@db:1/lake", "ducklake://db:1", "lake.raw.orders"),
        ("ducklake:postgres:postgres://ada:pa55word@db/lake", "ducklake://db:5432", "lake.raw.orders"),
    ],
)
def test_lakes(text, namespace, name):
    assert of_lake(text, ROOT, "raw.orders") == Dataset(namespace, name)


def test_a_source_of_files_and_one_of_another_database(tiny, exported):
    tiny.source(f"COPY raw.orders TO '{tiny.root}/token=pa55word.parquet'")
    tiny.declare(
        sources={"orders": {"table": "raw.orders", "parquet": "token=pa55word.parquet", "partition_column": "day"}}
    )
    assert tiny.run("2024-03-01")["2024-03-01"].scoring
    events = exported(tiny)
    assert events[0]["inputs"][0]["name"] == f"{tiny.root}/token=***"
    assert "pa55word" not in str(events)
