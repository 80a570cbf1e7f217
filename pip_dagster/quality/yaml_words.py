"""Words and numbers that YAML 1.1 takes for something else than they look like."""

from __future__ import annotations

import re

import yaml

_BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float"))
_OCTAL = re.compile(r"[-+]?0[0-7_]+")


def misread_number(node: yaml.ScalarNode) -> str:
    """What is wrong with a number, as the resolver of YAML sees it; empty where nothing is."""
    if node.tag in (_INT, _FLOAT) and ":" in node.value:
        return "YAML reads digits with a colon as a number to base 60. Write it in quotes."
    if node.tag == _INT and _OCTAL.fullmatch(node.value):
        return "YAML reads a number that begins with 0 as octal. Write it without the 0, or a text in quotes."
    return ""


def misread_value(node: yaml.Node) -> str:
    """The same of a value and the values in it; and of words such as `no` in a list, where texts are likely."""
    if isinstance(node, yaml.ScalarNode):
        return misread_number(node)
    parts = node.value if isinstance(node, yaml.SequenceNode) else [value for _, value in node.value]
    for part in parts:
        if isinstance(node, yaml.SequenceNode) and part.tag == _BOOL and part.value.lower() not in ("true", "false"):
            truth = part.value.lower() in ("yes", "on")
            return f"YAML reads {part.value!r} as {str(truth).lower()}. Write it in quotes, or {str(truth).lower()}."
        if wrong := misread_value(part):
            return wrong
    return ""
