"""YAML text to plain values, as `kubectl` understands it, with the line of every field.

kubectl reads YAML 1.1 through sigs.k8s.io/yaml and turns it into JSON; so do we: `y`, `yes`, `on` are booleans, `0777`
is octal, `1:30` and dates are strings, `1.0` is the integer 1, keys become strings, `<<` merges. libyaml parses; the
scalars are resolved here, because PyYAML's own rules differ from those (sexagesimal numbers, dates, no `y`).

Text is hostile: nesting, nodes and what aliases expand to are bounded. Knows nothing of Kubernetes objects.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml._yaml import CParser

from .problems import Path

MAX_DEPTH = 100  # levels; Gateway API objects have about 12. Bounds every recursion over a document
MAX_NODES = 500_000  # nodes of one document, aliases expanded: 20,000 route rules, or about 300 MB while it is read
MAX_DOCUMENTS = 50_000  # documents of one text

_DOCUMENT_START = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # where libyaml counts a new line
_ODD_BREAK = re.compile("\r(?!\n)|[\x85\u2028\u2029]")  # ... and editors, and split_documents(), do not
_CONTENT = re.compile(r"^[ \t\r]*+[^ \t\r\n#]", re.MULTILINE)  # a line that is more than blanks and a comment
_NO_DIRECTIVE = re.compile(r"^(?:[ \t\r]++[^ \t\r\n#]|[^ \t\r\n#%])", re.MULTILINE)  # ... and that is none of %YAML

_INTEGER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|[0-9]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_TRUE = frozenset(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_FALSE = frozenset(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_INFINITE = frozenset(f"{sign}.{word}" for sign in ("", "+", "-") for word in ("inf", "Inf", "INF")) | {
    ".nan", ".NaN", ".NAN"}  # fmt: skip
_MAYBE_SPECIAL = frozenset("yYnNtTfFoO~-+.0123456789")

_PLAIN = ""  # the tag that our resolver gives to scalars without quotes
_STRING = "tag:yaml.org,2002:str"
_MAX_EXACT = 2**63  # floats up to int64 that are whole become integers, as they do on their way through JSON


class YamlError(Exception):
    """The text is not YAML that we can read. `line` counts from 0."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(slots=True)
class Document:
    """One YAML document: its value, and the nodes that know the lines."""

    value: Any
    node: yaml.Node
    lines: _Lines
    repeated_keys: list[tuple[Path, int, int]] = field(default_factory=list)  # path, its line, the line of the first

    def line_of(self, path: Path) -> int:
        """The line, from 0, of the field at a path, or of the nearest field above it that is written."""
        return self.lines.shown(_line_of(self.node, path))


class _Lines:
    """From libyaml's lines to those that "\\n" ends: to it a lone CR and U+0085, U+2028, U+2029 end one too."""

    __slots__ = ("_shown",)

    def __init__(self, text: str) -> None:
        self._shown: list[int] | None = None  # None: they are the same
        if _ODD_BREAK.search(text):
            self._shown = [0]
            for found in _BREAK.finditer(text):
                self._shown.append(self._shown[-1] + found[0].endswith("\n"))

    def shown(self, line: int) -> int:
        """The line, from 0, as editors show it; the last one for what is behind the end."""
        return line if self._shown is None else self._shown[min(line, len(self._shown) - 1)]


def split_documents(text: str) -> Iterator[tuple[int, str]]:
    """(first line from 0, text) of each document that has more than comments.

    `---` at the start of a line always starts a document, in whatever scalar it stands (YAML 1.2 §9.1.2). Raises
    YamlError where there are more than MAX_DOCUMENTS.
    """
    starts = [match.start() for match in _DOCUMENT_START.finditer(text)]
    if len(starts) > MAX_DOCUMENTS:
        raise YamlError(f"more than {MAX_DOCUMENTS} documents; split the file", 0)
    line = 0
    begin = 0
    for end in [*starts, len(text)]:
        chunk = text[begin:end]
        if "%" in chunk and end < len(text) and not _NO_DIRECTIVE.search(chunk):
            continue  # %YAML and %TAG belong to the document that follows
        body = chunk[3:] if chunk.startswith("---") else chunk
        if _CONTENT.search(body):
            yield line, chunk
        line += chunk.count("\n")
        begin = end


def parse(text: str) -> list[Document]:
    """All documents of a text (one, unless `...` parts them). Raises YamlError."""
    lines = _Lines(text)
    try:
        loader = _NodeLoader(text)
        documents = []
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                documents.append(_Builder().build(node, lines))
        return documents
    except YamlError as fault:
        raise YamlError(fault.message, lines.shown(fault.line)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = min(lines.shown(mark.line), text.count("\n")) if mark else 0  # to libyaml the end is a line of its own
        raise YamlError(_readable(error, text.split("\n")[line]), line) from None
    except yaml.reader.ReaderError as error:
        before = text.encode("utf-8", "replace")[: error.position]
        raise YamlError(f"{error.reason} (character {error.character!r})", before.count(b"\n")) from None
    except UnicodeEncodeError as error:
        raise YamlError("holds a lone surrogate, which is no text", text.count("\n", 0, error.start)) from None


def _readable(error: yaml.MarkedYAMLError, line: str) -> str:
    problem = error.problem or str(error)
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return f"{problem}: YAML does not allow tabs for indentation, use spaces"
    began, ended = error.context_mark, error.problem_mark
    if error.context and began and ended and began.line < ended.line:
        return f"{problem}, {error.context} that began {ended.line - began.line} lines above"
    return problem


class _NodeLoader(CParser):
    """libyaml's parser, composing nodes; counts them and their depth while it does."""

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        self._depth = 0
        self._nodes = 0

    def resolve(self, kind: type, value: str | None, implicit: Any) -> str:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise yaml.MarkedYAMLError(problem=f"the document has more than {MAX_NODES} nodes; split it")
        return _PLAIN if kind is not yaml.ScalarNode or implicit[0] else _STRING

    def descend_resolver(self, parent: yaml.Node | None, index: Any) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            mark = parent.start_mark if parent else None
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=mark)

    def ascend_resolver(self) -> None:
        self._depth -= 1


class _Builder:
    """Builds the value of one document, each alias anew, within MAX_NODES."""

    __slots__ = ("_depth", "_left", "_repeated")

    def __init__(self) -> None:
        self._depth = 0
        self._left = MAX_NODES
        self._repeated: list[yaml.Node] = []  # mappings with a key twice

    def build(self, node: yaml.Node, lines: _Lines) -> Document:
        document = Document(self._value(node), node, lines)
        for path, line, first in _repeated_keys(node, self._repeated) if self._repeated else ():
            document.repeated_keys.append((path, lines.shown(line), lines.shown(first)))
        return document

    def _value(self, node: yaml.Node) -> Any:
        if type(node) is yaml.ScalarNode:
            return _scalar(node)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _fault(node, f"nested deeper than {MAX_DEPTH} levels, or an alias that contains itself")
        self._left -= len(node.value) + 1
        if self._left < 0:
            raise _fault(node, f"aliases expand the document to more than {MAX_NODES} nodes")
        value = self._sequence(node) if type(node) is yaml.SequenceNode else self._mapping(node)
        self._depth -= 1
        return value

    def _sequence(self, node: yaml.Node) -> list[Any]:
        if node.tag not in (_PLAIN, "tag:yaml.org,2002:seq"):
            raise _fault(node, f"the tag {node.tag} is not supported")
        build = self._value
        return [build(item) for item in node.value]

    def _mapping(self, node: yaml.Node) -> dict[str, Any]:
        if node.tag not in (_PLAIN, "tag:yaml.org,2002:map", "tag:yaml.org,2002:set"):
            raise _fault(node, f"the tag {node.tag} is not supported")
        value: dict[str, Any] = {}
        merges: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.value == "<<" and key_node.tag in (_PLAIN, "tag:yaml.org,2002:merge"):
                merges.append(value_node)
                continue
            key = _key(key_node)
            value[key] = self._value(value_node)
        if len(value) + len(merges) < len(node.value):
            self._repeated.append(node)
        for merge in merges:
            self._merge(value, merge)
        return value

    def _merge(self, value: dict[str, Any], node: yaml.Node) -> None:
        for source in node.value if type(node) is yaml.SequenceNode else [node]:
            if type(source) is not yaml.MappingNode:
                raise _fault(source, "<< merges mappings only")
            for key, item in self._value(source).items():
                value.setdefault(key, item)


def _fault(node: yaml.Node, message: str) -> YamlError:
    return YamlError(message, node.start_mark.line)


def _key(node: yaml.Node) -> str:
    """A key as JSON has it: numbers and booleans become strings, as sigs.k8s.io/yaml does."""
    if type(node) is not yaml.ScalarNode:
        raise _fault(node, "a key must be a string")
    key = _scalar(node)
    if type(key) is str:
        return key
    if key is None:
        raise _fault(node, "a key must be a string, not null")
    return str(key).lower() if type(key) is bool else str(key)


def _scalar(node: yaml.Node) -> Any:
    tag = node.tag
    text: str = node.value
    if tag is _STRING:
        return text
    if tag == _PLAIN:
        if text and text[0] not in _MAYBE_SPECIAL:
            return text
        return _resolve(node, text)
    return _tagged(node, tag, text)


def _resolve(node: yaml.Node, text: str) -> Any:
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if text in _INFINITE:
        raise _fault(node, f"{text} has no meaning here: JSON knows neither infinity nor NaN")
    plain = text if text[0] == "_" else text.replace("_", "")  # YAML 1.1: 1_000
    if _INTEGER.match(plain):
        return _integer(plain)
    if _FLOAT.match(plain):
        number = float(plain)
        if math.isinf(number):
            return text
        return int(number) if number.is_integer() and abs(number) < _MAX_EXACT else number
    return text


def _integer(text: str) -> int | float | str:
    digits = text.lstrip("+-")
    if len(digits) > 300:
        return text  # beyond any double; and int() of megabytes of digits would take minutes
    prefix = digits[:2].lower()
    if prefix in ("0x", "0b", "0o"):
        number = int(digits, 0)
    elif digits[0] == "0" and len(digits) > 1 and not set(digits) & {"8", "9"}:
        number = int(digits, 8)
    else:
        number = int(digits)
    if number >= 2**64:
        return float(text) if digits.isdigit() else text  # as Go reads it
    return -number if text[0] == "-" else number


def _tagged(node: yaml.Node, tag: str, text: str) -> Any:
    if tag in (_STRING, "!") or not tag.startswith("tag:yaml.org,2002:"):
        return text  # as sigs.k8s.io/yaml: a local tag says nothing
    if tag == "tag:yaml.org,2002:binary":
        try:
            return base64.b64decode("".join(text.split()), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            raise _fault(node, "!!binary is not base64 of UTF-8 text") from None
    value = _resolve(node, text)
    expected = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}.get(tag[18:])
    if expected is None or not isinstance(value, expected):  # type: ignore[arg-type]
        raise _fault(node, f"cannot read {text[:40]!r} as {tag.replace('tag:yaml.org,2002:', '!!')}")
    return value


def _line_of(node: yaml.Node, path: Path) -> int:
    line: int = node.start_mark.line
    for step in path:
        found = _child(node, step)
        if found is None:
            break
        key, node = found
        line = key.start_mark.line
    return line


def _child(node: yaml.Node, step: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """(the node whose line says where it is, the node of the value) of a step, or None where it is not written."""
    if type(node) is yaml.SequenceNode:
        if isinstance(step, int) and step < len(node.value):
            return node.value[step], node.value[step]
    elif type(node) is yaml.MappingNode:
        merged = None
        for key, value in node.value:
            if key.value == str(step):
                return key, value
            if key.value == "<<" and merged is None:
                sources = value.value if type(value) is yaml.SequenceNode else [value]
                merged = next((found for found in (_child(source, step) for source in sources) if found), None)
        return merged
    return None


def _repeated_keys(root: yaml.Node, mappings: list[yaml.Node]) -> Iterator[tuple[Path, int, int]]:
    """(path, line, line of the first) of each repeated key. () is the path of what only an alias reaches."""
    paths = _paths_to(root, {id(mapping) for mapping in mappings})
    for mapping in mappings:
        lines: dict[str, int] = {}
        for key_node, _ in mapping.value:
            key = "<<" if key_node.value == "<<" else _key(key_node)
            line = key_node.start_mark.line
            if key in lines and key != "<<":
                yield (*paths.get(id(mapping), ()), key), line, lines[key]
            lines.setdefault(key, line)


def _paths_to(root: yaml.Node, targets: set[int]) -> dict[int, Path]:
    """Where the nodes with these ids are."""
    found: dict[int, Path] = {}
    seen: set[int] = set()
    waiting: list[tuple[yaml.Node, Path]] = [(root, ())]
    while waiting:
        node, path = waiting.pop()
        if id(node) in seen or type(node) is yaml.ScalarNode:
            continue
        seen.add(id(node))
        if id(node) in targets:
            found[id(node)] = path
        if type(node) is yaml.SequenceNode:
            waiting.extend((item, (*path, index)) for index, item in enumerate(node.value))
        else:
            waiting.extend((value, (*path, str(key.value))) for key, value in node.value)
    return found
