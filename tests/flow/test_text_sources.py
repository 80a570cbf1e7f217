"""CSV and JSON sources: read by their declared types, or refused with file, line and column."""

import gzip
import json

import duckdb
import pytest

from pip_dagster.declaration.spec import PipelineSpec, Source
from pip_dagster.errors import SourceError
from pip_dagster.flow.plan import make_plan
from pip_dagster.flow.reader import sources_alone
from pip_dagster.flow.sources import open_sources
from pip_dagster.warehouse.connect import workspace

FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
ORDERS = {
    "order_id": "BIGINT",
    "day": "DATE",
    "gift": "BOOLEAN",
    "shop": "VARCHAR",
    "quantity": "INTEGER",
    "amount": "DOUBLE",
}
COLUMNS = {"id": "BIGINT", "day": "DATE", "amount": "DOUBLE", "note": "VARCHAR"}
HEAD = "id,day,amount,note\n"
ROW = '{"id":1,"day":"2024-03-01","amount":1.5,"note":"x"}\n'


def spec_of(kind, place, columns, **others):
    """A declaration of one source."""
    source = {"table": "raw.t", kind: place, "columns": columns} | others
    return PipelineSpec.model_validate(
        {
            "name": "orders",
            "partitions": {"start": "2024-03-01"},
            "sources": {"t": source},
            "features": {"sql": "f.sql", "key": ["id"], "partition_column": "day"},
            "scoring": {"model_name": "m"},
        }
    )


def read(folder, kind, content, columns=COLUMNS, *, suffix="", select="*"):
    """The rows of one file, as feature SQL reads them."""
    path = folder / f"t.{kind}{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return rows_of(folder, kind, path.name, columns, select)


def rows_of(folder, kind, place, columns=COLUMNS, select="*"):
    spec = spec_of(kind, place, columns)
    with workspace(threads=1) as con, open_sources(con, spec, folder):
        return con.execute(f"SELECT {select} FROM raw.t ORDER BY ALL").fetchall()


def refused(folder, kind, content, columns=COLUMNS, *, suffix=""):
    with pytest.raises(SourceError) as caught:
        read(folder, kind, content, columns, suffix=suffix)
    text = str(caught.value)
    assert text.startswith("Pipeline orders: source 't' (raw.t) cannot be read: ") and "\n" not in text
    assert f"t.{kind}{suffix}" in text
    return text


def write_days(tiny, kind, day="*", select="*"):
    """A file a day of the project's source table."""
    options = "FORMAT csv, HEADER" if kind == "csv" else "FORMAT json"
    (tiny.root / "in").mkdir(exist_ok=True)
    with duckdb.connect(str(tiny.root / "sources.duckdb"), read_only=True) as con:
        for each in DAYS if day == "*" else [day]:
            rows = f"SELECT {select} FROM raw.orders WHERE day = '{each}'"
            con.execute(f"COPY ({rows}) TO '{tiny.root}/in/{each}.{kind}' ({options})")


@pytest.mark.parametrize("kind", ["csv", "json"])
class TestBoth:
    def test_scores_are_those_of_the_table_and_only_what_changed_is_stale(self, tiny, kind):
        write_days(tiny, kind)
        source = {"table": "raw.orders", kind: f"in/*.{kind}", "columns": ORDERS, "partition_column": "day"}
        tiny.declare(source_database=None, sources={"orders": source})
        tiny.run()
        assert tiny.scores() == tiny.expected()
        assert not make_plan(tiny.pipeline(), tiny.partitions()).stale
        write_days(tiny, kind, SECOND, "* REPLACE (8 AS quantity)")
        assert [each.partition.key for each in make_plan(tiny.pipeline(), tiny.partitions()).stale] == [SECOND]

    def test_rows_are_those_of_the_moment_when_it_was_opened(self, tmp_path, kind):
        """A loader that replaces a file meanwhile mixes nothing."""
        path, text = tmp_path / f"t.{kind}", HEAD + "1,2024-03-01,1.5,x\n" if kind == "csv" else ROW
        path.write_text(text)
        with workspace(threads=1) as con, sources_alone(con, spec_of(kind, path.name, COLUMNS), tmp_path) as own:
            path.unlink()
            assert own.execute("SELECT count(*) FROM raw.t").fetchone() == (1,)
            with pytest.raises(duckdb.Error, match="disabled|Permission"):
                own.execute(f"FROM read_text('{tmp_path}/t.{kind}')")

    def test_gzip_is_read_and_a_file_that_was_cut_off_is_refused(self, tmp_path, kind):
        text = HEAD + "1,2024-03-01,1.5,x\n" * 3000 if kind == "csv" else ROW * 3000
        packed = gzip.compress(text.encode())
        assert len(read(tmp_path, kind, packed, suffix=".gz")) == 3000
        assert "is not a whole file of gzip" in refused(tmp_path, kind, packed[:-30], suffix=".gz")
        assert "is not a whole file of gzip" in refused(tmp_path, kind, text, suffix=".gz")
        assert "write it as it is, or as .gz" in refused(tmp_path, kind, packed, suffix=".zst")

    def test_files_that_are_not_there_are_named_with_the_remedy(self, tmp_path, kind):
        with pytest.raises(SourceError, match=rf"from none/\*: no file matches; create a file, or correct `{kind}`"):
            rows_of(tmp_path, kind, "none/*")
        (tmp_path / "in").mkdir()
        with pytest.raises(SourceError, match=rf"it is a directory: declare the files in it, in/\*\.{kind}"):
            rows_of(tmp_path, kind, "in")

    def test_a_file_that_is_closed_to_this_user_or_gone_is_a_sentence(self, tmp_path, kind, monkeypatch):
        from pip_dagster.flow.origins.text_rows import TextRows

        def closed(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(TextRows, "_binary", closed)
        assert "cannot be opened (Permission denied)" in refused(tmp_path, kind, gzip.compress(b""), suffix=".gz")

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            (None, r"needs `columns`"),
            ({"id": "BIGINT", "ID": "BIGINT"}, "declares column 'id' twice"),
            ({"id": "LONG"}, "column 'id' has the type 'LONG'; expected one of BIGINT, BOOLEAN"),
            ({"id": "DECIMAL(2, 3)"}, "has the type"),
            ({'a"b': "DATE"}, "without quotes"),
            ({"a": "DATE optional"}, "declares every column as optional"),
        ],
    )
    def test_columns_are_declared_with_types(self, kind, columns, said):
        with pytest.raises(ValueError, match=said):
            Source.model_validate({"table": "raw.t", kind: "t", "columns": columns})


FIT = {
    "BIGINT": ["7", "-7", "1.0"],
    "DATE": ["2024-03-01", "2024-03-01T00:00:00"],
    "TIMESTAMP": ["2024-03-01 10:30:00", "2024-03-01T10:30:00.123", "2024-03-01"],
    "TIMESTAMPTZ": ["2024-03-01T10:30:00Z", "2024-03-01 10:30:00+02:00", "2024-03-01 10:30:00.5-0330"],
    "DECIMAL(6, 2)": ["1.25", "1.2500", "-3", ".5"],
    "DOUBLE": ["1e3", "nan", "-inf", "1.5"],
    "BOOLEAN": ["true", "FALSE"],
    "UTINYINT": ["255"],
    "TIME": ["10:30", "10:30:00.5"],
}
UNFIT = {
    "BIGINT": ["1.5", "x", "0x10", "1_000", "true", "99999999999999999999"],
    "DATE": ["2024-03-01 10:00:00", "01.03.2024", "2024-3-1", "2024-02-30", "20240301"],
    "TIMESTAMP": ["2024-03-01T10:30:00Z", "2024-03-01 10:30:00+02"],
    "TIMESTAMPTZ": ["2024-03-01 10:30:00", "2024-03-01"],
    "DECIMAL(6, 2)": ["1.255", "10000.00", "1,25"],
    "DOUBLE": ["1e400", "1,5", "NULL"],
    "BOOLEAN": ["2"],
    "UTINYINT": ["256", "-1"],
    "TIME": ["10:30:00+02", "10:30:60"],
    "UUID": ["x"],
}


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_value_that_is_none_of_its_type_is_refused_and_not_rounded_cut_or_null(tmp_path, kind):
    for sql_type in UNFIT:
        fit = FIT.get(sql_type, [])
        text = (
            "v\n" + "".join(f'"{value}"\n' for value in fit) if kind == "csv" else json.dumps([{"v": v} for v in fit])
        )
        assert read(tmp_path, kind, text, {"v": sql_type}, select="count(v)") == [(len(fit),)]
        good = FIT.get(sql_type, ["d0a1c6a0-0000-4000-8000-000000000000"])[0]
        for value in UNFIT[sql_type]:
            text = f'v\n{good}\n"{value}"\n' if kind == "csv" else json.dumps([{"v": good}, {"v": value}])
            said = refused(tmp_path, kind, text, {"v": sql_type})
            place = "line 3" if kind == "csv" else "record 2"
            assert f"does not fit v in {place}; expected a" in said or "expected true" in said, said
            assert f"declared as {sql_type}" in said


class TestCsv:
    def test_columns_are_found_by_name_whatever_their_order_in_each_file(self, tmp_path):
        (tmp_path / "a.csv").write_text("id,day,amount,note\n1,2024-03-01,1.5,x\n")
        (tmp_path / "b.csv").write_text("note,extra,amount,DAY,id\ny,?,2.5,2024-03-02,2\n")
        (tmp_path / "c.csv").write_text("id;day;amount;note\n3;2024-03-03;3.5;a,b\n")
        rows = rows_of(tmp_path, "csv", "*.csv", select="id, day::VARCHAR, amount, note")
        assert rows == [(1, FIRST, 1.5, "x"), (2, SECOND, 2.5, "y"), (3, THIRD, 3.5, "a,b")]

    @pytest.mark.parametrize(
        "content",
        [
            b"\xef\xbb\xbf" + (HEAD + "1,2024-03-01,1.5,x\n").encode(),
            (HEAD + "1,2024-03-01,1.5,x\n").replace("\n", "\r\n"),
            '"id","day","amount","note"\n"1","2024-03-01","1.5","x"',
            HEAD + "\n1,2024-03-01,1.5,x\n\n",
        ],
        ids=["BOM", "CRLF", "quoted, without the last line end", "blank lines"],
    )
    def test_ways_to_write_the_same_row(self, tmp_path, content):
        assert read(tmp_path, "csv", content, select="id, day::VARCHAR, amount, note") == [(1, FIRST, 1.5, "x")]

    def test_values_with_line_ends_and_quotes_are_whole_and_empty_ones_are_null(self, tmp_path):
        text = HEAD + '1,2024-03-01,,"a\nb"\n2,2024-03-01,"","say ""x"""\n3,2024-03-01,1,\n'
        rows = read(tmp_path, "csv", text, select="id, amount, note")
        assert rows == [(1, None, "a\nb"), (2, None, 'say "x"'), (3, 1.0, None)]

    def test_the_line_counts_values_of_several_lines(self, tmp_path):
        text = HEAD + '1,2024-03-01,1,"a\nb\nc"\n2,2024-03-01,1,x\n3,2024-03-01,one,x\n'
        assert "does not fit amount in line 6" in refused(tmp_path, "csv", text)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("", "is empty; expected a first line"),
            ("1,2024-03-01,1.5,x\n", "lacks id, day, amount, note in line 1, which has: none of them"),
            ("id,date,amount,note\n1,2024-03-01,1.5,x\n", "lacks day in line 1, which has: id, date, amount, note"),
            ("id,day,amount,note,Day\n", "has two columns day in line 1"),
            (HEAD + "1,2024-03-01,1.5,x\n2,2024-03-02,3\n", "in line 3, which has another number of fields"),
            (HEAD + "1,2024-03-01,1.5,x,y\n", "in line 2, which has another number of fields"),
            (HEAD + '1,2024-03-01,1.5,"x\n2,2024-03-01,1.5,y\n', "in line 2, which has a quote that is not closed"),
            (HEAD + "1,2024-03-01,1,5,x\n", "in line 2, which has another number of fields"),
            (HEAD.encode() + "1,2024-03-01,1.5,Zürich\n".encode("latin-1"), "in line 2, which is not UTF-8"),
            ((HEAD + "1,2024-03-01,1.5,x\n").encode("utf-16"), "is not UTF-8 in its first line"),
            (gzip.compress(b"id,day\n", mtime=0), "is not UTF-8 in its first line"),
            (HEAD + "1,2024-03-01,1.5,x\r\n2,2024-03-01,1.5,y\n3,2024-03-01,1.5,z\r\n", "lines end in different ways"),
            ('id,day,amount,note,"a\nb"\r\n1,2024-03-01,1.5,x,y\r\n', "has a quote in line 1 that is not closed there"),
            ('id,day,amount,note,"a\rb"\n1,2024-03-01,1.5,x,y\n', "has a quote in line 1 that is not closed there"),
        ],
    )
    def test_a_file_that_is_not_as_declared_is_refused(self, tmp_path, content, said):
        assert said in refused(tmp_path, "csv", content)

    def test_of_many_files_the_one_that_cannot_be_parsed_is_named(self, tmp_path):
        for name in "abc":
            (tmp_path / f"{name}.csv").write_text("id\n1\n")
        (tmp_path / "b.csv").write_bytes(b"id\r\n1\r\n2\n3\r\n")
        with pytest.raises(SourceError, match=r"b\.csv cannot be parsed: its lines end in different ways"):
            rows_of(tmp_path, "csv", "*.csv", {"id": "BIGINT"})

    def test_a_column_that_a_file_may_lack_is_null_there(self, tmp_path):
        (tmp_path / "a.csv").write_text("id\n1\n")
        (tmp_path / "b.csv").write_text("id,note\n2,x\n")
        columns = {"id": "BIGINT", "note": "VARCHAR optional"}
        assert rows_of(tmp_path, "csv", "*.csv", columns) == [(1, None), (2, "x")]

    def test_a_file_with_a_name_like_a_pattern_is_that_file(self, tmp_path):
        (tmp_path / "a[1].csv").write_text("id\n1\n")
        (tmp_path / "a1.csv").write_text("id\n2\n")
        assert rows_of(tmp_path, "csv", "a[1].csv", {"id": "BIGINT"}) == [(1,)]
        (tmp_path / "year=2024").mkdir()
        (tmp_path / "year=2024" / "a.csv").write_text("id\n3\n")
        assert rows_of(tmp_path, "csv", "*/*.csv", {"id": "BIGINT"}) == [(3,)]


class TestJson:
    @pytest.mark.parametrize(
        "content",
        [
            ROW,
            f"[{ROW.strip()}]",
            json.dumps([json.loads(ROW)], indent=2),
            b"\xef\xbb\xbf" + ROW.encode(),
            ROW.replace("\n", "\r\n") + "\r\n",
        ],
        ids=["lines", "array", "indented", "BOM", "CRLF and a blank line"],
    )
    def test_ways_to_write_the_same_row(self, tmp_path, content):
        assert read(tmp_path, "json", content, select="id, day::VARCHAR, amount, note") == [(1, FIRST, 1.5, "x")]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (ROW + '{"id":2,"day":"2024-03-01","amount":1.5}\n', "lacks 'note' in record 2; write it, as null"),
            (ROW + ROW.replace('"id"', '"ID"'), "lacks 'id' in record 2"),
            (ROW.replace('"id":1', '"id":true'), "does not fit id in record 1"),
            (ROW.replace('"2024-03-01"', "20240301"), "does not fit day in record 1"),
            (ROW + '{"id":2,"day":"2024-0', "is not JSON in record 2"),
            (ROW + "7\n", "lacks 'id' in record 2"),
            (ROW.encode() + '{"note":"Zürich"}'.encode("latin-1"), "is not JSON in record 2"),
            (f"[{ROW},\n", "was cut off: its array does not end with a ]"),
            (f"\ufeff [\n{ROW},{ROW}", "was cut off: its array does not end with a ]"),
        ],
    )
    def test_a_file_that_is_not_as_declared_is_refused(self, tmp_path, content, said):
        assert said in refused(tmp_path, "json", content)

    def test_an_array_that_was_cut_off_is_refused_in_gzip_too(self, tmp_path):
        assert "was cut off" in refused(tmp_path, "json", gzip.compress(f"[{ROW},".encode()), suffix=".gz")
        assert len(read(tmp_path, "json", gzip.compress(f"[{ROW}] \n".encode()), suffix=".gz")) == 1

    @pytest.mark.parametrize(
        ("sql_type", "number"), [("DECIMAL(18, 2)", "1234567890123456.78"), ("BIGINT", "9007199254740993.0")]
    )
    def test_a_number_that_has_more_digits_than_a_double_is_refused_or_a_text(self, tmp_path, sql_type, number):
        said = refused(tmp_path, "json", f'{{"v":{number}}}', {"v": sql_type})
        assert "of more than 15 digits, a number with a decimal point must be written in quotes" in said
        text = f'{{"v":"{number}"}}{{"v":12.0}}{{"v":1234567890123456}}'
        rows = read(tmp_path, "json", text, {"v": sql_type}, select="v::VARCHAR")
        assert number.removesuffix(".0") in str(rows) and len(rows) == 3

    def test_null_is_written_or_the_column_may_be_absent(self, tmp_path):
        assert read(tmp_path, "json", '{"a":null}', {"a": "BIGINT", "b": "date optional"}) == [(None, None)]

    def test_what_is_in_braces_is_its_text(self, tmp_path):
        assert read(tmp_path, "json", '{"a":{"b":[1]}}', {"a": "VARCHAR"}) == [('{"b":[1]}',)]


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"parquet": "t.parquet", "columns": {"a": "DATE"}}, "takes `columns` only with `csv` or `json`"),
        ({"csv": "t.csv", "json": "t.json", "columns": {"a": "DATE"}}, "takes `csv` or `json`, not both"),
        ({"csv": "https://host/t.csv?sig=abc", "columns": {"a": "DATE"}}, "must hold no credentials"),
        ({"csv": "https://me:pw@host/t.csv", "columns": {"a": "DATE"}}, "must hold no credentials"),
        ({"csv": "//me:pw@host/t.csv", "columns": {"a": "DATE"}}, "must hold no credentials"),
        ({"csv": "https:/me:pw@host/t.csv", "columns": {"a": "DATE"}}, "must hold no credentials"),
        ({"csv": "https://host/*.csv", "columns": {"a": "DATE"}}, "which a web server cannot list"),
        ({"csv": "t.csv", "columns": {"a": "DATE"}, "partition_column": "day"}, "'day', which is not one of its `col"),
        ({"delta": "ftp://host/t"}, "cannot be ftp://; expected a path or s3://"),
        ({"iceberg": "s3:///t"}, "lacks a bucket"),
        ({"delta": "s3://b/*"}, "names one table"),
    ],
)
def test_places_are_judged_when_they_are_declared_and_never_shown(declared, said):
    with pytest.raises(ValueError, match=said) as caught:
        Source.model_validate({"table": "raw.t"} | declared)
    assert "abc" not in str(caught.value) and "pw@" not in str(caught.value)
