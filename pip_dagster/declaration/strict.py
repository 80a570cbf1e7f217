"""The base of every declared block, and the types that several blocks share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Self, get_args
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core.core_schema import ErrorType

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails, InitErrorDetails

_STANDARD = frozenset(get_args(ErrorType))


class StrictModel(BaseModel):
    """A declared block: immutable, and a key that it does not know is an error."""

    # An error does not print what was declared: it may be a misplaced secret.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _no_boolean_for_a_number(cls, value: Any) -> Any:
        for name, field in cls.model_fields.items() if isinstance(value, dict) else ():
            found, kinds = value.get(name), {field.annotation, *get_args(field.annotation)}
            if isinstance(found, bool) and kinds & {int, float} and bool not in kinds:
                raise ValueError(f"`{name}` is {str(found).lower()}; expected a number")
        return value

    @model_validator(mode="wrap")
    @classmethod
    def _say_how_yaml_read_it(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            raise ValidationError.from_exception_data(
                error.title, [_explained(each) for each in error.errors()], hide_input=True
            ) from None


def _explained(error: ErrorDetails) -> InitErrorDetails:
    """The same error; where YAML read a text as something else, with what to do about it.

    An error type of our own becomes a `value_error`: Dagster adds file and line, and knows pydantic's own types only.
    """
    read = _read_as(error["input"])
    is_key = error["loc"][-1:] == ("[key]",)
    if error["type"] == "invalid_key" or (error["type"] == "string_type" and is_key):
        text = f"YAML reads this key as {read}; write it in quotes"
    elif error["type"] == "string_type" and read:
        text = f"YAML reads this value as {read}; expected a text: write it in quotes"
    elif error["type"] in _STANDARD:
        return {key: error[key] for key in ("type", "loc", "input", "ctx") if key in error}  # type: ignore[return-value]
    else:
        text = error["msg"]
    return {"type": "value_error", "loc": error["loc"], "input": error["input"], "ctx": {"error": ValueError(text)}}


def _read_as(value: object) -> str:
    """What an unquoted word became; empty for what no text becomes."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true, as it does `on`, `yes` and `true`" if value else "false, as it does `off`, `no` and `false`"
    return "a number" if isinstance(value, int | float) else ""


def _identifier(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", value):
        raise ValueError(
            f"{value!r} is not a valid name; expected lower-case letters, digits and _, starting with a letter"
        )
    return value


def _time_zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError(f"{value!r} is not an IANA time zone; expected for example 'Europe/Berlin' or 'UTC'")
    return value


def _columns(value: object) -> object:
    return (value,) if isinstance(value, str) else value


# One column, or a list of them.
Columns = Annotated[tuple[str, ...], BeforeValidator(_columns, json_schema_input_type=str | tuple[str, ...])]
Identifier = Annotated[str, AfterValidator(_identifier)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
