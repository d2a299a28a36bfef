"""YamlSource: files and folders, what is kept of them when they break, and where a problem is."""

import io
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pygw.control import yaml_source
from pygw.control.problems import Problem, format_path, parse_path
from pygw.control.yaml_source import YamlSource, load

DATA = Path(__file__).parents[1] / "data" / "yaml"


def route(name, service="a.B", namespace=None, extra=""):
    return (
        "apiVersion: gateway.networking.k8s.io/v1\n"
        "kind: GRPCRoute\n"
        f"metadata:\n  name: {name}\n" + (f"  namespace: {namespace}\n" if namespace else "") + "spec:\n"
        "  rules:\n"
        f"  - matches:\n    - method: {{service: {service}}}\n" + extra
    )


def reasons(result):
    return [
        (problem.severity, problem.line, problem.object, problem.path, problem.reason) for problem in result.problems
    ]


def routes(result):
    """name -> the service that its first match names."""
    return {
        key: item["spec"]["rules"][0]["matches"][0]["method"]["service"]
        for key, item in result.state.objects("GRPCRoute").items()
    }


def read_text(tmp_path, text, name="x.yaml"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load([str(path)])


# ===== good input =====


def test_documents_in_any_order_and_lists_are_read(tmp_path):
    text = (
        "# a comment\n---\n---\n" + route("a") + "---\n"
        "kind: List\napiVersion: v1\nitems:\n"
        "- {apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, spec: {},\n"
        "   metadata: {name: b, namespace: prod}}\n"
        "- {apiVersion: v1, kind: Namespace, metadata: {name: prod}}\n"
    )
    result = read_text(tmp_path, text)
    assert result.problems == []
    assert result.changed
    assert sorted(result.state.objects("GRPCRoute")) == [("default", "a"), ("prod", "b")]
    assert list(result.state.objects("Namespace")) == [("", "prod")]
    assert "generation" not in result.state.find("GRPCRoute", "default", "a")["metadata"]


def test_json_is_read_too(tmp_path):
    result = read_text(
        tmp_path, '{\n\t"apiVersion": "v1", "kind": "Namespace",\n\t"metadata": {"name": "a"}}', "x.json"
    )
    assert result.problems == []
    assert result.state.find("Namespace", "", "a") is not None


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n---\n", "null\n", "\ufeff"])
def test_an_empty_file_is_no_fault(tmp_path, text):
    result = read_text(tmp_path, text)
    assert result.problems == []
    assert not result.changed


def test_a_folder_is_read_by_name_and_not_deeper(tmp_path):
    for name in ("b.yaml", "a.yml", "c.json", ".hidden.yaml", "d.txt", "e.yaml~"):
        (tmp_path / name).write_text(route(name.strip(".~").replace(".", "-")))
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "folder.yaml" / "f.yaml").write_text(route("f"))
    result = load([str(tmp_path)])
    assert list(routes(result)) == [("default", "a-yml"), ("default", "b-yaml"), ("default", "c-json")]


def test_a_file_given_twice_is_read_once(tmp_path):
    (tmp_path / "a.yaml").write_text(route("a"))
    (tmp_path / "link.yaml").symlink_to("a.yaml")
    assert load([str(tmp_path), str(tmp_path / "a.yaml")]).problems == []


def test_standard_input_is_read_once():
    source = YamlSource(["-"], io.BytesIO(route("a").encode()))
    assert routes(source.read()) == {("default", "a"): "a.B"}
    assert not source.read().changed
    assert source.locate("GRPCRoute default/a", "spec.rules") == ("<stdin>", 6)


# ===== bad input =====

TEXTS = [
    ("tabs", "a:\n\tb: 1\n", [("error", 2, "", "", "ParseError")]),
    ("bad indentation", route("a") + "   x: 1\n", [("error", 9, "", "", "ParseError")]),
    ("in the second document", route("a") + "---\na: [\n", [("error", 11, "", "", "ParseError")]),
    ("binary", b"\x7fELF\x02\x01\x01\x00\xff\xfe", [("error", 1, "", "", "ParseError")]),
    ("control characters", b"a: b\nc: \x01\n", [("error", 2, "", "", "ParseError")]),
    ("not UTF-8", "a: b\nä: ö\n".encode("latin-1"), [("error", 2, "", "", "ParseError")]),
    ("UTF-16", route("a").encode("utf-16"), [("error", 1, "", "", "ParseError")]),
    ("plain text", "hello world\n", [("error", 1, "", "", "ParseError")]),
    ("a list", "- a\n- b\n", [("error", 1, "", "", "ParseError")]),
    ("another program's", "replicas: 3\nimage: x\n", [("error", 1, "", "", "ParseError")] ),
    ("no kind", "apiVersion: v1\nmetadata: {name: a}\n", [("error", 1, "", "", "ParseError")]),
    ("no name", "apiVersion: v1\nkind: Service\nmetadata:\n  labels: {}\n", [("error", 3, "", "", "ParseError")]),
    ("kind of another type", "kind: [Service]\napiVersion: v1\n", [("error", 1, "", "", "ParseError")]),
    ("name of another type", "apiVersion: v1\nkind: Service\nmetadata: {name: 5}\n",
     [("error", 3, "", "", "ParseError")]),
    ("items of another type", "apiVersion: v1\nkind: List\nitems:\n- 5\n", [("error", 4, "", "", "ParseError")]),
    ("unknown kind", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n",
     [("warning", 2, "Deployment a", "", "UnknownKind")]),
    ("unknown field", route("a") + "  rule: x\n", [("warning", 9, "GRPCRoute default/a", "spec.rule", "UnknownField")]),
    ("repeated key", route("a") + "  rules: []\n", [("error", 9, "GRPCRoute default/a", "spec.rules", "DuplicateKey")]),
    ("wrong type", route("a", extra="    backendRefs:\n    - name: x\n      port: '80'\n"),
     [("error", 11, "GRPCRoute default/a", "spec.rules[0].backendRefs[0].port", "SchemaViolation")]),
    ("broken rule", route("a", extra="    backendRefs:\n    - name: x\n"),
     [("error", 10, "GRPCRoute default/a", "spec.rules[0].backendRefs[0]", "RuleViolation")]),
    ("twice the same", route("a") + "---\n" + route("a", "c.D"),
     [("error", 10, "GRPCRoute default/a", "", "Duplicate")]),
    ("in a List", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n"
     "  spec:\n    ports:\n    - port: 0\n",
     [("error", 9, "Service default/a", "spec.ports[0].port", "SchemaViolation")]),
    ("bomb", "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)),
     [("error", 1, "", "", "ParseError")]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in TEXTS], ids=[case[0] for case in TEXTS])
def test_bad_text_is_reported_with_line_path_and_reason(tmp_path, text, expected):
    result = read_text(tmp_path, text)
    assert reasons(result) == expected
    assert all(problem.file == str(tmp_path / "x.yaml") and problem.message for problem in result.problems)


@pytest.mark.parametrize("path", sorted(DATA.glob("bad_*.yaml")), ids=lambda path: path.stem)
def test_bad_files_say_what_their_first_lines_promise(path):
    promised = [line[2:] for line in path.read_text().splitlines() if line.startswith("# :")]
    problems = sorted(load([str(path)]).problems, key=lambda problem: problem.line)
    assert [str(problem).removeprefix(str(path)) for problem in problems] == promised


def test_good_file_has_no_problems():
    result = load([str(DATA / "good.yaml")])
    assert result.problems == []
    assert {kind: len(result.state.objects(kind)) for kind in result.state.kinds()} == {
        "ConfigMap": 1, "EndpointSlice": 1, "GRPCRoute": 1, "Gateway": 1, "GatewayClass": 1, "Namespace": 1,
        "ReferenceGrant": 1, "Secret": 1, "Service": 2,
    }  # fmt: skip


def test_a_fault_leaves_the_other_objects_alone(tmp_path):
    result = read_text(tmp_path, "---\n".join([route("a"), route("b", "'a b'"), route("c")]))
    assert list(routes(result)) == [("default", "a"), ("default", "c")]


def test_a_broken_file_leaves_the_other_files_alone(tmp_path):
    (tmp_path / "a.yaml").write_text(route("a") + "---\n[")
    (tmp_path / "b.yaml").write_text(route("b"))
    assert list(routes(load([str(tmp_path)]))) == [("default", "b")]


def test_an_object_of_a_mebibyte_is_read(tmp_path):
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  k: " + "x" * 2**20 + "\n"
    assert read_text(tmp_path, text).problems == []


def test_a_file_over_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(yaml_source, "MAX_FILE_SIZE", 100)
    (problem,) = read_text(tmp_path, route("a")).problems
    assert problem.reason == "Unreadable"
    assert "is larger than 100 octets" in problem.message
    (problem,) = load(["-"], io.BytesIO(b"#" * 101)).problems
    assert problem.file == "<stdin>"
    assert "is larger than 100 octets" in problem.message


def test_the_number_of_files_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(yaml_source, "MAX_FILES", 1)
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text(route(name))
    (problem,) = load([str(tmp_path)]).problems
    assert (problem.reason, problem.message) == ("Unreadable", "cannot be read: has more than 1 YAML files")


def test_more_faults_than_anyone_reads_are_counted(tmp_path):
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n" + "".join(
        f"  k{i}: {i}\n" for i in range(150)
    )
    problems = read_text(tmp_path, text).problems
    assert len(problems) == 101
    assert problems[-1].reason == "TooManyFaults"
    assert problems[-1].message == "has 50 faults more"


def test_paths_that_cannot_be_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling.yaml").symlink_to("nothing")
    result = load([str(tmp_path / name) for name in ("missing.yaml", "pipe", "empty", "dangling.yaml")])
    assert [(Path(one.file).name, one.severity, one.reason, one.message) for one in result.problems] == [
        ("empty", "warning", "EmptyFolder", "no *.yaml, *.yml or *.json in this folder (subfolders are not read)"),
        ("missing.yaml", "error", "Unreadable", "cannot be read: no such file or directory"),
        ("pipe", "error", "Unreadable", "cannot be read: is not a regular file"),
        ("dangling.yaml", "error", "Unreadable", "cannot be read: no such file or directory"),
    ]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: ("kind: a\n" + text).encode()))
def test_any_octets_give_problems_and_never_an_exception(tmp_path, data):
    result = read_text(tmp_path, data)
    assert all(isinstance(problem, Problem) for problem in result.problems)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "Exact", "Service", "HTTP"]) | st.text(max_size=3),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(
        st.sampled_from(["name", "rules", "matches", "method", "type", "listeners", "tls", "mode", "filters", "port",
                         "backendRefs", "parentRefs", "kind", "group", "namespace", "labels", "data", "ports"]),
        children, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["GRPCRoute", "Gateway", "HTTPRoute", "GatewayClass", "ReferenceGrant", "BackendTLSPolicy"]),
    spec=VALUES,
    metadata=VALUES,
)
def test_any_object_gives_problems_and_never_an_exception(tmp_path, kind, spec, metadata):
    import json

    item = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec}
    if isinstance(metadata, dict):
        metadata["name"] = "a"
    result = read_text(tmp_path, json.dumps(item), "x.json")
    accepted = len(result.state.objects(kind))
    assert accepted == (not any(problem.is_error for problem in result.problems))


# ===== what is kept =====


class Folder:
    """A folder of YAML with a source that reads it again and again."""

    def __init__(self, path):
        self.path = path
        self.source = YamlSource([str(path)])

    def write(self, name, text):
        (self.path / name).write_text(text)

    def read(self):
        return self.source.read()


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_nothing_changes_where_nothing_changed(folder):
    folder.write("a.yaml", route("a"))
    first = folder.read()
    item = first.state.find("GRPCRoute", "default", "a")
    second = folder.read()
    assert (first.changed, second.changed) == (True, False)
    assert second.state.find("GRPCRoute", "default", "a") is item
    folder.write("a.yaml", route("a"))  # written anew with the same content
    assert not folder.read().changed
    folder.write("a.yaml", "# now with a comment\n" + route("a"))
    third = folder.read()
    assert not third.changed
    assert third.state.find("GRPCRoute", "default", "a") is item
    assert folder.source.locate("GRPCRoute default/a", "")[1] == 2


def test_only_what_changed_is_another_object(folder):
    folder.write("a.yaml", route("a") + "---\n" + route("b"))
    state = folder.read().state
    a, b = (state.find("GRPCRoute", "default", name) for name in "ab")
    folder.write("a.yaml", "---\n" + route("c") + "---\n" + route("a") + "---\n" + route("b", "c.D"))
    result = folder.read()
    assert result.changed
    assert state.find("GRPCRoute", "default", "a") is a
    assert state.find("GRPCRoute", "default", "b") is not b
    assert routes(result) == {("default", "a"): "a.B", ("default", "b"): "c.D", ("default", "c"): "a.B"}


def test_what_is_no_longer_written_is_gone(folder):
    folder.write("a.yaml", route("a") + "---\n" + route("b"))
    folder.write("c.yaml", route("c"))
    folder.read()
    folder.write("a.yaml", route("b"))
    (folder.path / "c.yaml").unlink()
    result = folder.read()
    assert result.changed
    assert list(routes(result)) == [("default", "b")]


def test_an_object_that_moves_to_another_file_stays(folder):
    folder.write("a.yaml", route("a"))
    item = folder.read().state.find("GRPCRoute", "default", "a")
    (folder.path / "a.yaml").rename(folder.path / "b.yaml")
    result = folder.read()
    assert (result.changed, result.problems) == (False, [])
    assert result.state.find("GRPCRoute", "default", "a") is item


def test_an_unparseable_file_keeps_its_last_good_content(folder):
    folder.write("a.yaml", route("a") + "---\n" + route("b"))
    folder.read()
    folder.write("a.yaml", route("a", "c.D") + "---\n" + route("b") + "  oops\n")
    result = folder.read()
    assert not result.changed
    assert routes(result) == {("default", "a"): "a.B", ("default", "b"): "a.B"}
    assert [problem.reason for problem in result.problems] == ["ParseError"]
    assert result.kept == [str(folder.path / "a.yaml")]
    assert [problem.reason for problem in folder.read().problems] == ["ParseError"]  # as long as it holds
    folder.write("a.yaml", route("a", "c.D"))
    result = folder.read()
    assert (result.problems, result.kept) == ([], [])
    assert routes(result) == {("default", "a"): "c.D"}


@pytest.mark.parametrize("text", ["spec: {}\n", "hello\n", "apiVersion: v1\nkind: Service\n", "\x00"])
def test_a_document_without_a_name_keeps_the_file(folder, text):
    folder.write("a.yaml", route("a"))
    folder.read()
    folder.write("a.yaml", text)
    assert list(routes(folder.read())) == [("default", "a")]


@pytest.mark.parametrize(
    "broken",
    [
        route("a", "'a b'"),  # a rule
        route("a").replace("rules:", "rules: 5\n  x:"),  # the schema
        route("a") + "  rules: []\n",  # a key twice
    ],
)
def test_a_broken_object_keeps_its_last_accepted_version(folder, broken):
    folder.write("a.yaml", route("a") + "---\n" + route("b"))
    item = folder.read().state.find("GRPCRoute", "default", "a")
    for times in range(2):
        folder.write("a.yaml", f"# {times}\n---\n" + broken + "---\n" + route("b", "c.D"))
        result = folder.read()
        assert result.state.find("GRPCRoute", "default", "a") is item
        assert routes(result)["default", "b"] == "c.D"
        assert result.kept == ["GRPCRoute default/a"]
        assert any(problem.is_error for problem in result.problems)
    folder.write("a.yaml", route("b"))
    assert list(routes(folder.read())) == [("default", "b")]


def test_a_broken_object_that_moves_keeps_its_last_accepted_version(folder):
    folder.write("a.yaml", route("a"))
    folder.read()
    (folder.path / "a.yaml").unlink()
    folder.write("b.yaml", route("a", "'a b'"))
    assert routes(folder.read()) == {("default", "a"): "a.B"}


def test_an_object_of_a_kind_that_is_not_known_any_more_is_gone(folder):
    folder.write("a.yaml", route("a"))
    folder.read()
    folder.write("a.yaml", route("a").replace("GRPCRoute", "GRPCRout"))
    result = folder.read()
    assert routes(result) == {}
    assert reasons(result) == [("warning", 2, "GRPCRout a", "", "UnknownKind")]


def test_a_later_copy_does_not_push_out_what_serves(folder):
    folder.write("b.yaml", route("a"))
    folder.read()
    folder.write("c.yaml", route("a", "c.D"))
    result = folder.read()
    assert not result.changed
    (problem,) = result.problems
    assert problem.message == f"the same object is in {folder.path / 'b.yaml'}:1; that one is used"
    (folder.path / "b.yaml").unlink()
    result = folder.read()
    assert (result.problems, routes(result)) == ([], {("default", "a"): "c.D"})


def test_a_file_that_was_named_and_is_gone_keeps_its_content(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(route("a"))
    source = YamlSource([str(path)])
    source.read()
    path.unlink()
    result = source.read()
    assert list(routes(result)) == [("default", "a")]
    assert [problem.reason for problem in result.problems] == ["Unreadable"]
    path.write_text(route("a"))
    result = source.read()
    assert (result.problems, result.changed) == ([], False)


def test_a_folder_that_is_gone_keeps_its_content(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "a.yaml").write_text(route("a"))
    source = YamlSource([str(path)])
    source.read()
    path.rename(tmp_path / "away")
    result = source.read()
    assert list(routes(result)) == [("default", "a")]
    assert {problem.reason for problem in result.problems} == {"Unreadable"}
    path.mkdir()
    (path / "b.yaml").write_text(route("b"))
    assert list(routes(source.read())) == [("default", "b")]


def test_the_swap_of_a_config_map_is_one_change(tmp_path):
    for version, name in (("..1", "a"), ("..2", "b")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "x.yaml").write_text(route(name))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "x.yaml").symlink_to("..data/x.yaml")
    sources = [YamlSource([str(tmp_path)]), YamlSource([str(tmp_path / "x.yaml")])]
    for source in sources:
        assert list(routes(source.read())) == [("default", "a")]
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    shutil.rmtree(tmp_path / "..1")
    for source in sources:
        result = source.read()
        assert (list(routes(result)), result.problems) == ([("default", "b")], [])


# ===== where something is =====


def test_places_of_fields(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "---\n" + route("a", extra="    backendRefs:\n    - {name: x, port: 1}\n    - name: z\n      port: 2\n")
    )
    source = YamlSource([str(path)])
    source.read()
    for field, line in {
        "": 2, "metadata.name": 5, "spec.rules[0]": 8, "spec.rules[0].matches[0].method.service": 9,
        "spec.rules[0].backendRefs[1].port": 13, "spec.rules[0].backendRefs[1].weight": 12, "spec.nothing.at[3].all": 6,
    }.items():  # fmt: skip
        assert source.locate("GRPCRoute default/a", field) == (str(path), line), field
    assert source.locate("GRPCRoute default/b", "spec") == ("", 0)
    placed = source.place(Problem("error", "", 0, "GRPCRoute default/a", "spec.rules", "X", "text"))
    assert str(placed) == f"{path}:7: GRPCRoute default/a: spec.rules: text (X)"


def test_places_inside_a_list(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "kind: List\napiVersion: v1\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n"
        "- apiVersion: v1\n  kind: Namespace\n  metadata:\n    name: b\n"
    )
    source = YamlSource([str(path)])
    source.read()
    assert source.locate("Namespace a", "metadata.name") == (str(path), 4)
    assert source.locate("Namespace b", "metadata.name") == (str(path), 8)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("spec", "rules", 0, "matches", 12, "method"), "spec.rules[0].matches[12].method"),
        (("metadata", "annotations", "example.com/a"), "metadata.annotations[example.com/a]"),
        (("a", 0, 1, "b"), "a[0][1].b"),
    ],
)
def test_paths_as_text(path, text):
    assert format_path(path) == text
    assert parse_path(text) == path
