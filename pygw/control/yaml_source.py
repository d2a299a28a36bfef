"""YamlSource: files and folders of YAML -> ClusterState. File mode's API server and its watch cache in one.

read() takes in what changed since the last time and keeps the rule of file mode: what is faulty is reported and never
takes down what served.

* A file that cannot be read or parsed keeps its last good content, all of it; so does one with a document that says
  not even which object it is (no kind, no name).
* An object that breaks its schema or its rules keeps its last accepted version, as under an API server.
* At the first read there is nothing to keep: the faulty file or object is left out.
* Of two objects with the same kind, namespace and name the first counts (paths in the order given, files by name),
  and the other is an error: a copy that comes later must not push out what serves.

Objects whose document did not change are the same objects (`is`) in the next ClusterState.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import IO

from .cluster_state import ClusterState, Object
from .documents import Entry, ParsedDocument, parse_document
from .problems import Path, Problem, object_name, parse_path
from .yaml_nodes import YamlError, split_documents

MAX_FILE_SIZE = 16 * 1024 * 1024  # octets. 50,000 route rules; a larger file is surely not meant, and would block us
MAX_FILES = 10_000  # files of one folder, for the same reason
SUFFIXES = (".yaml", ".yml", ".json")

_Identity = tuple[str, str, str]  # kind, namespace, name
_Signature = tuple[int, int, int, int, int]


@dataclass(slots=True)
class LoadResult:
    """What a read() gives."""

    state: ClusterState
    problems: list[Problem]  # all that hold now, in the order of files and lines
    changed: bool  # whether an object was added, replaced or deleted since the last read
    kept: list[str] = field(default_factory=list)  # files and objects of which the last good version is served


@dataclass(slots=True)
class _File:
    """One file as last read."""

    name: str  # as shown to the user
    signature: _Signature | None = None
    data: bytes | None = None
    documents: list[tuple[int, ParsedDocument]] = field(default_factory=list)  # the good content; first line from 0
    faults: list[Problem] = field(default_factory=list)  # why it is not what the file says now


@dataclass(slots=True)
class _Accepted:
    """An object that serves, and where it was written."""

    item: Object
    file: str
    line: int  # the first line of its document, from 0
    document: ParsedDocument
    entry: Entry


class YamlSource:
    """Reads the YAML of some paths again and again; not thread-safe."""

    def __init__(self, paths: Sequence[str], stdin: IO[bytes] | None = None) -> None:
        """`paths` are files and folders; "-" is standard input (`stdin`, by default the process's), read once."""
        self._paths = list(paths)
        self._stdin = stdin
        self._files: dict[str, _File] = {}
        self._parsed: dict[str, ParsedDocument] = {}  # by text
        self._accepted: dict[_Identity, _Accepted] = {}
        self._state = ClusterState()
        self._finder: tuple[ParsedDocument, Callable[[Entry, Path], int]] | None = None  # of the last locate()
        self._gone: list[_Identity] = []  # of the last accepted objects, those that are no more
        self._folders: dict[str, list[str]] = {}  # path as given -> the files last seen there

    def read(self) -> LoadResult:
        """Take in what changed. Never raises for what stands in the files or for files that cannot be read."""
        problems: list[Problem] = []
        self._finder = None
        names = self._list_files(problems)
        self._files = {name: self._refresh(self._files.get(name) or _File(name)) for name in names}
        kept = [name for name, file in self._files.items() if file.faults and file.documents]
        problems += self._settle(kept)
        used = {document.text: document for file in self._files.values() for _, document in file.documents}
        self._parsed = used
        changed = self._publish()
        return LoadResult(self._state, problems, changed, kept)

    def locate(self, object: str, path: str) -> tuple[str, int]:
        """(file, line from 1) of a field of an accepted object, as Problem names both; ("", 0) where it is unknown.

        The line is the nearest one above where the field itself is not written.
        """
        kind, _, rest = object.partition(" ")
        namespace, _, name = rest.rpartition("/")
        found = self._accepted.get((kind, namespace, name))
        if found is None:
            return "", 0
        if self._finder is None or self._finder[0] is not found.document:
            self._finder = found.document, found.document.line_finder()  # problems come object by object
        return found.file, found.line + self._finder[1](found.entry, parse_path(path)) + 1

    def place(self, problem: Problem) -> Problem:
        """A problem of an accepted object with its file and line filled in."""
        file, line = self.locate(problem.object, problem.path)
        return replace(problem, file=file, line=line)

    def _list_files(self, problems: list[Problem]) -> list[str]:
        """The files to read, in order, each once."""
        names: dict[str, str] = {}  # real path -> name as shown
        for path in self._paths:
            try:
                found = self._folders[path] = self._expand(path)
            except OSError as error:
                problems.append(_unreadable(path, error))
                found = self._folders.get(path, [])
            else:
                if not found:
                    message = "no *.yaml, *.yml or *.json in this folder (subfolders are not read)"
                    problems.append(Problem("warning", path, 0, "", "", "EmptyFolder", message))
            for name in found:
                names.setdefault(name if name == "-" else os.path.realpath(name), name)
        return list(names.values())

    def _expand(self, path: str) -> list[str]:
        """The files that a path stands for."""
        if path == "-" or os.path.isfile(path):
            return [path]
        if not os.path.isdir(path):
            if self._folders.get(path, [path]) != [path]:
                os.stat(path)  # a folder that is gone: say so, and keep what was in it
            return [path]
        found = _folder_files(path)
        if len(found) > MAX_FILES:
            raise OSError(0, f"has more than {MAX_FILES} YAML files")
        return found

    def _refresh(self, file: _File) -> _File:
        """Read a file where it changed; keep its good content where that fails."""
        shown = file.name if file.name != "-" else "<stdin>"
        if file.name == "-" and file.data is not None:
            return file
        try:
            signature = _signature(file.name) if file.name != "-" else None
            if signature is not None and signature == file.signature:
                return file
            data = _read_file(file.name) if signature is not None else self._read_stdin()
        except OSError as error:
            file.signature = None
            file.data = file.data if file.name != "-" else b""
            file.faults = [_unreadable(shown, error)]
            return file
        file.signature = signature
        if data != file.data or any(fault.reason == "Unreadable" for fault in file.faults):
            file.data = data
            self._parse(file, shown)
        return file

    def _read_stdin(self) -> bytes:
        data = (self._stdin or sys.stdin.buffer).read(MAX_FILE_SIZE + 1)
        if len(data) > MAX_FILE_SIZE:
            raise OSError(0, f"is larger than {MAX_FILE_SIZE} octets; split it")
        return data

    def _parse(self, file: _File, shown: str) -> None:
        documents: list[tuple[int, ParsedDocument]] = []
        faults: list[Problem] = []
        assert file.data is not None
        try:
            text = _decode(file.data)
            for line, chunk in split_documents(text):
                parsed = self._parsed.get(chunk)
                if parsed is None:
                    parsed = self._parsed[chunk] = parse_document(chunk)
                documents.append((line, parsed))
                faults.extend(
                    Problem("error", shown, line + fault.line + 1, "", "", "ParseError", fault.message)
                    for fault in parsed.unusable
                )
        except YamlError as fault:
            faults.append(Problem("error", shown, fault.line + 1, "", "", "ParseError", fault.message))
        file.faults = faults
        if not faults:
            file.documents = documents

    def _settle(self, kept: list[str]) -> list[Problem]:
        """Choose the version of each object that serves, and gather all problems."""
        problems: list[Problem] = []
        accepted: dict[_Identity, _Accepted] = {}
        claimed: dict[_Identity, str] = {}  # identity -> where
        for file in self._files.values():
            problems.extend(file.faults)
            shown = file.name if file.name != "-" else "<stdin>"
            for line, document in file.documents:
                if not file.faults:
                    problems.extend(fault.problem(shown, line) for fault in document.faults)
                for entry in document.entries:
                    identity = (entry.kind, entry.namespace, entry.name)
                    where = f"{shown}:{line + entry.line + 1}"
                    if identity in claimed:
                        problems.append(_duplicate(shown, line + entry.line + 1, identity, claimed[identity]))
                        continue
                    claimed[identity] = where
                    if entry.item is not None:
                        accepted[identity] = _Accepted(entry.item, shown, line, document, entry)
                    elif identity in self._accepted:
                        accepted[identity] = self._accepted[identity]
                        kept.append(object_name(*identity))
        self._accepted, previous = accepted, self._accepted
        self._gone = [identity for identity in previous if identity not in accepted]
        return problems

    def _publish(self) -> bool:
        """Bring the state in line with what is accepted."""
        changed = False
        for kind, namespace, name in self._gone:
            changed |= self._state.delete(kind, namespace, name)
        for (kind, namespace, name), found in self._accepted.items():
            current = self._state.find(kind, namespace, name)
            if current is found.item:
                continue
            if self._state.apply(found.item):
                changed = True
            else:
                assert current is not None
                found.item = found.entry.item = current  # an equal one: the one that is known stays
        return changed


def load(paths: Sequence[str], stdin: IO[bytes] | None = None) -> LoadResult:
    """Read once: what is faulty is left out."""
    return YamlSource(paths, stdin).read()


def _folder_files(folder: str) -> list[str]:
    """The YAML files of a folder by name; hidden ones (ConfigMap's ..data, editors' swap files) are not."""
    names = sorted(entry for entry in os.listdir(folder) if entry.endswith(SUFFIXES) and not entry.startswith("."))
    return [path for path in (os.path.join(folder, name) for name in names) if not os.path.isdir(path)]


def _signature(name: str) -> _Signature:
    status = os.stat(name)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "is not a regular file")
    if status.st_size > MAX_FILE_SIZE:
        raise OSError(0, f"is larger than {MAX_FILE_SIZE} octets; split it")
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read_file(name: str) -> bytes:
    with open(name, "rb") as stream:
        data = stream.read(MAX_FILE_SIZE + 1)
    if len(data) > MAX_FILE_SIZE:
        raise OSError(0, f"is larger than {MAX_FILE_SIZE} octets; split it")
    return data


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"not UTF-8: octet 0x{data[error.start]:02x} at {error.start}"
        raise YamlError(message, data.count(b"\n", 0, error.start)) from None


def _unreadable(path: str, error: OSError) -> Problem:
    reason = error.strerror or str(error)
    return Problem("error", path, 0, "", "", "Unreadable", f"cannot be read: {reason[:1].lower()}{reason[1:]}")


def _duplicate(file: str, line: int, identity: _Identity, first: str) -> Problem:
    name = object_name(*identity)
    return Problem("error", file, line, name, "", "Duplicate", f"the same object is in {first}; that one is used")
