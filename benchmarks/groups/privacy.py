"""What pseudonyms cost where rows come in."""

from __future__ import annotations

from benchmarks.measure import Timed, case, least_cpu
from benchmarks.suite import Figure, Options, benchmark

ROWS = 1_000_000
KINDS = {"whole numbers": "range", "texts of 15 bytes": "'customer' || lpad(range::VARCHAR, 7, '0')"}
_BOUND = 10.0


@benchmark("pseudonyms")
def pseudonyms(_: Options) -> list[Figure]:
    """Pseudonyms of 1M rows on one thread, in microseconds of CPU a row; while a secret is rotated, labels have two."""
    figures = []
    for kind, of in KINDS.items():
        plain, one, two = (
            least_cpu([case("benchmarks.groups.privacy:read", of, keys) for _ in range(2)]) for keys in (0, 1, 2)
        )
        name, detail = f"pseudonyms of {kind}, 1M rows", f"{plain:.2f} s → {one:.2f} s of CPU"
        figures.append(Figure(name, (one - plain) / ROWS * 1e6, _BOUND, "µs a row", detail))
        detail = f"{plain:.2f} s → {two:.2f} s of CPU"
        figures.append(Figure("… of labels in a rotation", (two - plain) / ROWS * 1e6, 2 * _BOUND, "µs a row", detail))
    return figures


def read(of: str, keys: str) -> None:
    """Rows as they come in, with the pseudonyms of so many secrets."""
    import duckdb

    from pip_dagster.privacy.pseudonym import PseudonymKey
    from pip_dagster.privacy.suppressed import Incoming

    secrets = [PseudonymKey(f"k{number}", bytes(range(number, number + 32)), "shop") for number in range(int(keys))]
    people = Incoming("customer", secrets[0] if secrets else None, former=tuple(secrets[1:]))
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute(f"CREATE TABLE source AS SELECT {of} AS customer, random() AS amount FROM range({ROWS})")
        select = people.select("FROM source", {"customer": "", "amount": ""})
        with Timed() as timed:
            con.execute(f"CREATE TABLE staged AS {select}", people.values)
    timed.report()
