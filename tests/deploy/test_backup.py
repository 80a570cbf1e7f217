"""A lake restored elsewhere from a dump of its catalog and a copy of its files, as docs/deployment.md describes it."""

import shutil
import subprocess

import pytest

FIRST, SECOND, THIRD, FOURTH = DAYS = ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")

pytestmark = [pytest.mark.lake("only"), pytest.mark.soak]


def test_a_dump_and_a_copy_are_restored_elsewhere_while_runs_went_on(scored, backend, tmp_path, monkeypatch):
    programs = backend.server.bin_path
    # A lake keeps a few rows in its catalog; these are enough for files.
    scored.source(
        "INSERT INTO raw.orders SELECT o.* REPLACE (order_id + 1000 * k AS order_id) "
        "FROM raw.orders o, range(1, 9) t(k)"
    )
    scored.run()
    before, lake = scored.scores(), scored.project.warehouse
    name, dump = dict(lake.parameters)["dbname"], tmp_path / "lake.dump"
    registry = shutil.copytree(scored.project.registry, tmp_path / "registry")
    subprocess.run([programs / "pg_dump", "-Fc", "-f", dump, backend.uri(name)], check=True)
    scored.source(f"UPDATE raw.orders SET quantity = 8 WHERE day = '{FIRST}'")
    scored.run()  # between the dump and the copy of the files
    files = shutil.copytree(lake.data_path, tmp_path / "files")

    restored = f"{name}_restored"
    backend.server.psql(f"CREATE DATABASE {restored};")
    backend._copies.append(restored)
    done = subprocess.run(
        [programs / "pg_restore", "--no-owner", "-d", backend.uri(restored), dump], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    backend.psql(restored, f"UPDATE ducklake_metadata SET value = '{files}/' WHERE key = 'data_path'")
    monkeypatch.setenv("PIP_DAGSTER_WAREHOUSE", f"ducklake:postgres:{backend.uri(restored)}")
    monkeypatch.setenv("PIP_DAGSTER_DATA_PATH", str(files))
    monkeypatch.setenv("PIP_DAGSTER_REGISTRY", str(registry))
    monkeypatch.setenv("PIP_DAGSTER_PUBLISHED", str(tmp_path / "published"))
    shutil.rmtree(lake.data_path)  # nothing may be read from there
    assert "the chain is intact" in scored.shell(
        "audit", "verify", code=4
    )  # the template's alias moves, made in Python
    scored.shell("publish")
    assert scored.scores() == before
    assert not any(result.error for result in scored.run().values())
    assert scored.scores() == scored.expected()
