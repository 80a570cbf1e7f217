"""Completion in bash of words with a colon, such as the key of an hour.

Bash divides words at colons, and gives the command the part after the last one. So the command is given the line, and
what it proposes loses what bash has of it already.
"""

from __future__ import annotations

import os

from click.shell_completion import BashComplete, add_completion_class, split_arg_string

_LINE = "_PIP_DAGSTER_LINE"
_SOURCE = """\
%(complete_func)s() {
    local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\\n' response completion type value word before
    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _PIP_DAGSTER_LINE="$line" \
        %(complete_var)s=bash_complete $1)
    word="${line##*[ =]}"
    before=""
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
        before="${word%%"${word##*:}"}"
    fi
    for completion in $response; do
        IFS=',' read type value <<< "$completion"
        case $type in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            plain) COMPREPLY+=("${value#"$before"}") ;;
        esac
    done
    return 0
}

%(complete_func)s_setup() {
    complete -o nosort -F %(complete_func)s %(prog_name)s
}

%(complete_func)s_setup;
"""


class _Bash(BashComplete):
    source_template = _SOURCE

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ.get(_LINE)
        if line is None:  # of a script that an earlier version wrote
            return super().get_completion_args()
        words = split_arg_string(line)[1:]
        incomplete = words.pop() if words and not line.endswith((" ", "\t")) else ""
        return words, incomplete


def complete_colons() -> None:
    """Have click write and answer this script."""
    add_completion_class(_Bash)
