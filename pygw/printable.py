"""Text of others on lines of ours: nothing in it ends a line, moves a terminal's cursor or turns the reading direction.

For logs, problems and tables, whose lines carry names and values that somebody else wrote. Imports nothing of pygw.
"""

from __future__ import annotations

import json


def one_line(text: str) -> str:
    r"""`text` with JSON's escapes for what does not print: C0 and C1 controls, DEL, U+2028, bidirectional overrides.

    Also of a line of JSON: it stays JSON and means the same, for there such characters stand in strings only.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def each_line(text: str) -> str:
    """The same for a text of more lines, whose line feeds are our own."""
    return "\n".join(map(one_line, text.split("\n")))
