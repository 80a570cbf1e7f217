"""A count with its noun, in messages."""


def plural(count: int, noun: str) -> str:
    """`1 partition`, `1,200 partitions`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
