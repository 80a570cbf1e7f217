"""A file of published rows is replaced as fast as the machine can, while processes read it. Prints JSON.

Usage: python race.py FOLDER READS. The text comes before the columns that are read and has another length in each
version, so whoever reads half of one version and half of another notices. The same is done with a Parquet file, which
shows whether the race is fast enough to prove anything.
"""

import itertools
import json
import multiprocessing
import os
import shutil
import sys
import time
from functools import partial
from pathlib import Path

import duckdb

from pip_dagster.warehouse import published_change
from pip_dagster.warehouse.published_change import change
from pip_dagster.warehouse.published_rows import Rows
from pip_dagster.warehouse.published_views import publish_views

KEYS, ROWS, VERSIONS, READERS = ("a", "b", "c"), 3_000, 8, 4
LOOK = (
    "SELECT partition_key, count(*), count(DISTINCT generation), max(generation), sum(length(text)), sum(score) "
    "FROM {} GROUP BY 1 ORDER BY 1"
)

# There is no warehouse here that digests could be recorded in.
published_change.record = lambda *_: None


def rows(generation, keys):
    """The published tables of some partitions."""
    listed = ", ".join(f"'{key}'" for key in keys)
    texts = f"SELECT k AS partition_key, repeat('x', ({generation} * 37) % 300 + range % 7) AS text, "
    select = texts + f"{generation} AS generation, range::DOUBLE AS score FROM range({ROWS}), unnest([{listed}]) t(k)"
    columns = {"partition_key": "VARCHAR", "text": "VARCHAR", "generation": "INTEGER", "score": "DOUBLE"}
    ledger = f"SELECT k AS partition_key, {generation} AS generation FROM unnest([{listed}]) t(k)"
    of_ledger = {"partition_key": "VARCHAR", "generation": "INTEGER"}
    return [
        Rows(("shop", "predictions"), select, columns, None, always=True),
        Rows(("ledger", "partitions"), ledger, of_ledger, None, always=True),
    ]


def publish(con, file, generation, keys=KEYS):
    read = partial(rows, generation, keys)
    return change(con, file, keys, read, lambda: None, keep="bytes", pipeline="shop")


def is_whole(found):
    """Whether every partition is of one generation and complete."""
    expected = sum((r % 7) for r in range(ROWS)), sum(range(ROWS))
    return [row[0] for row in found] == [*KEYS] and all(
        (count, kinds, length, score) == (ROWS, 1, (generation * 37 % 300) * ROWS + expected[0], expected[1])
        for _, count, kinds, generation, length, score in found
    )


def read(database, table, reads, keeps_open, queue):
    """Read so many times; how often there was an error, and a mixture."""
    errors, mixed, seen, con = [], [], set(), None
    for _ in range(reads):
        if con is None:
            con = duckdb.connect(str(database), read_only=True) if database else duckdb.connect()
            con.execute("SET threads = 1")
        try:
            found = con.execute(LOOK.format(table)).fetchall()
            seen.update(row[3] for row in found)
            if not is_whole(found):
                mixed.append(str(found))
        except duckdb.Error as error:
            errors.append(str(error).splitlines()[0])
        if not keeps_open:
            con.close()
            con = None
    queue.put({"reads": reads, "errors": errors, "mixed": mixed, "seen": len(seen)})


def race(file, versions, database, table, reads, publishes):
    """Replace the file by one version after the other until the readers are through."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    shares = [(reads // READERS, bool(number % 2)) for number in range(READERS)]
    readers = [context.Process(target=read, args=(database, table, *share, queue)) for share in shares]
    for reader in readers:
        reader.start()
    con, replaced, until = duckdb.connect(), 0, time.monotonic() + 3_000
    temporary = file.with_name(f".{file.name}.tmp")
    for version in itertools.cycle(versions):
        shutil.copyfile(version, temporary)  # a new file each time, as when a partition is published
        temporary.replace(file)
        replaced += 1
        if publishes and replaced % 200 == 0:  # a whole publication as well
            publish(con, file, 1_000 + replaced, KEYS[:1])
        if replaced % 100 == 0 and not any(reader.is_alive() for reader in readers):
            break
        assert time.monotonic() < until
    found = [queue.get() for _ in readers]
    return {
        "reads": sum(each["reads"] for each in found),
        "errors": list(itertools.chain(*(each["errors"] for each in found))),
        "mixed": list(itertools.chain(*(each["mixed"] for each in found))),
        "seen": min(each["seen"] for each in found),
        "replaced": replaced,
    }


def main(folder, reads):
    published, kept = folder / "published", folder / "versions"
    kept.mkdir(parents=True)
    file, parquet = published / "shop" / "rows-0001.duckdb", folder / "rows.parquet"
    versions, of_parquet = [], []
    with duckdb.connect() as con:
        for generation in range(VERSIONS):
            filled = publish(con, file, generation)
            versions.append(file.rename(kept / f"{generation}.duckdb"))
            of_parquet.append(kept / f"{generation}.parquet")
            con.execute(f"COPY ({rows(generation, KEYS)[0].select}) TO '{of_parquet[-1]}'")
        os.link(versions[-1], file)
        os.link(of_parquet[-1], parquet)
        publish_views(con, published, filled)
    database = published.with_suffix(".duckdb")
    answer = {
        "duckdb": duckdb.__version__,
        "rows": race(file, versions, database, "shop.predictions", reads, True),
        "parquet": race(parquet, of_parquet, None, f"read_parquet('{parquet}')", 80, False),
        "left": [path.name for path in published.rglob("*.tmp*")],
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
