"""No secret of a target is in an error that is shown or stored."""

import pytest

from pip_dagster.declaration.deliver import DeclaredTarget
from pip_dagster.delivery.redact import redacted

URL = "postgresql://pip:pa%2Fss@db.example/crm"


@pytest.mark.parametrize(
    ("declared", "text", "expected"),
    [
        ({"postgres": {"url_env": "A", "table": "a.b"}}, f"no route to {URL}", "no route to ***"),
        ({"postgres": {"url_env": "A", "table": "a.b"}}, "refused pa/ss of pip", "refused *** of pip"),
        ({"postgres": {"url_env": "A", "table": "a.b"}}, "refused pa%2Fss", "refused ***"),
        ({"webhook": {"url_env": "B", "secret_env": "C"}}, "https://hook/token signed by s3cret", "*** signed by ***"),
        ({"webhook": {"url_file": "b.url"}}, "https://hook/filed is away", "*** is away"),
        ({"parquet": "s3://bucket/path"}, "key AWS+secret/key refused", "key *** refused"),
        ({"parquet": "out"}, "the disk is full", "the disk is full"),
    ],
)
def test_what_the_environment_holds_is_replaced(monkeypatch, tmp_path, declared, text, expected):
    monkeypatch.setenv("A", URL)
    (tmp_path / "b.url").write_text("https://hook/filed\n")
    monkeypatch.setenv("B", "https://hook/token")
    monkeypatch.setenv("C", "s3cret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "AWS+secret/key")
    assert redacted(text, DeclaredTarget.model_validate(declared), tmp_path) == expected
