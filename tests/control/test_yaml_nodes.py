"""YAML text to values: as sigs.k8s.io/yaml (kubectl) reads it, with lines, and bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pygw.control import yaml_nodes
from pygw.control.yaml_nodes import YamlError, parse, split_documents

# (scalar, value): the output of sigs.k8s.io/yaml v1.6.0 YAMLToJSON for "a: <scalar>".
SCALARS = [
    *[(text, True) for text in ("y", "Y", "yes", "on", "true", "TRUE", "!!bool yes")],
    *[(text, False) for text in ("n", "N", "no", "off", "false", "False")],
    *[(text, None) for text in ("~", "null", "Null", "")],
    ("0777", 511),
    ("0o17", 15),
    ("0b11", 3),
    ("0x1F", 31),
    ("-0x1", -1),
    ("1_000", 1000),
    ("1__0", 10),
    ("0_7", 7),
    ("+5", 5),
    ("-5", -5),
    ("08", 8),
    ("1.0", 1),
    ("1e3", 1000),
    ("12e03", 12000),
    ("1.e5", 100000),
    ("5.", 5),
    (".5", 0.5),
    ("-.5", -0.5),
    ("0.1e-3", 0.0001),
    ("1e-7", 1e-7),
    ("9223372036854775808", 9223372036854775808),
    ("18446744073709551616", 1.8446744073709552e19),
    ("100000000000000000000000", 1e23),
    ('!!int "5"', 5),
    ("!!float 5", 5),
    ("1:30", "1:30"),
    ("190:20:30", "190:20:30"),
    ("2001-01-01", "2001-01-01"),
    ("2001-01-01T00:00:00Z", "2001-01-01T00:00:00Z"),
    ("1e400", "1e400"),
    ("_1", "_1"),
    ("1e", "1e"),
    ("0x", "0x"),
    ("0b12", "0b12"),
    ("0x1p4", "0x1p4"),
    ("infinity", "infinity"),
    ("nan", "nan"),
    ("=", "="),
    ('"yes"', "yes"),
    ("'80'", "80"),
    ("!!str 5", "5"),
    ("! b", "b"),
    ("!foo bar", "bar"),
    ("!!binary aGk=", "hi"),
    ('"\\x41"', "A"),
]


def value_of(text):
    (document,) = parse(text)
    return document.value


@pytest.mark.parametrize(("scalar", "value"), SCALARS)
def test_scalars_are_read_as_kubectl_reads_them(scalar, value):
    read = value_of(f"a: {scalar}")["a"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("80: x\ntrue: y\n1.5: z", {"80": "x", "true": True, "1.5": "z"}),
        ("{k: [1, {b: c}]}", {"k": [1, {"b": "c"}]}),
        ('{"a":\t1}', {"a": 1}),
        ("a: &a {b: 1}\nc:\n  <<: *a\n  d: 2", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("a: &a {b: 1}\nc:\n  <<: [*a, {b: 3, e: 4}]\n  d: 2", {"a": {"b": 1}, "c": {"b": 1, "d": 2, "e": 4}}),
        ("a: &a {b: 1}\nc: {b: 2, <<: *a}", {"a": {"b": 1}, "c": {"b": 2}}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        ("!!set {a, b}", {"a": None, "b": None}),
    ],
)
def test_collections(text, value):
    assert value_of(text) == value


def test_what_an_alias_repeats_is_a_copy():
    value = value_of("a: &x {b: 1}\nc: *x")
    assert value["a"] is not value["c"]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a:\n\tb: 1", 1, "use spaces"),
        ("a:\n  b: 1\n c: 2", 2, "did not find expected key"),
        ('a: "b\nc: d\n', 2, "quoted scalar that began 2 lines above"),
        ("a: b\n\x01", 1, "control characters"),
        ("a: \x00", 0, "control characters"),
        ('a: "\\ud800"', 0, "invalid Unicode"),
        ("x: 1\na: \ud800", 1, "lone surrogate"),
        ("b: 1\na: .inf", 1, "JSON knows neither"),
        ("a: .nan", 0, "JSON knows neither"),
        ("x: 1\n? [1, 2]\n: c", 1, "a key must be a string"),
        ("~: 1", 0, "a key must be a string, not null"),
        ("a: !!python/object:os.system x", 0, "cannot read"),
        ("a: !!int x", 0, "cannot read"),
        ("a: !!binary '*'", 0, "not base64"),
        ("a: !x {b: c}", 0, "the tag !x is not supported"),
        ("a: *nothing", 0, "undefined alias"),
        ("a: {<<: 5}", 0, "merges mappings only"),
        ("&a [*a]", 0, "contains itself"),
        ("a: &a\n  <<: *a", 0, "contains itself"),
        ("[" * 1000, 0, "nested deeper than 100 levels"),
        ("- " * 1000, 0, "nested deeper than 100 levels"),
        ("? " * 1000, 0, "nested deeper than 100 levels"),
        ("!!seq [" * 900, 0, "nested deeper than 100 levels"),
        ("[" * 100_000, 0, "exceeded maximum nesting depth"),
    ],
)
def test_what_is_not_yaml_is_said_with_its_line(text, line, says):
    with pytest.raises(YamlError) as raised:
        parse(text)
    assert says in raised.value.message
    assert raised.value.line == line


def test_a_bomb_of_aliases_is_refused():
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
    with pytest.raises(YamlError, match="aliases expand the document to more than 500000 nodes"):
        parse(bomb)


def test_the_number_of_nodes_is_bounded(monkeypatch):
    monkeypatch.setattr(yaml_nodes, "MAX_NODES", 100)
    assert len(value_of(f"[{'a, ' * 98}]")) == 98
    with pytest.raises(YamlError, match="more than 100 nodes"):
        parse(f"[{'a, ' * 101}]")


def test_the_number_of_documents_is_bounded(monkeypatch):
    monkeypatch.setattr(yaml_nodes, "MAX_DOCUMENTS", 10)
    with pytest.raises(YamlError, match="more than 10 documents"):
        list(split_documents("---\n" * 11))


def test_a_number_of_a_million_digits_takes_no_time():
    assert value_of(f"a: {'9' * 1_000_000}")["a"] == "9" * 1_000_000


def test_repeated_keys_are_told_with_path_and_lines():
    (document,) = parse("a: 1\nb:\n- c: 1\n  d: 2\n  c: 3\na: 2\n")
    assert document.value == {"a": 2, "b": [{"c": 3, "d": 2}]}
    assert sorted(document.repeated_keys) == [(("a",), 5, 0), (("b", 0, "c"), 4, 2)]


def test_lines_of_paths():
    (document,) = parse("spec:\n  rules:\n  - name: a\n    x: &x\n      y: 1\n  - {name: b,\n     x: *x}\n  - <<: *x\n")
    assert document.line_of(()) == 0
    assert document.line_of(("spec", "rules")) == 1
    assert document.line_of(("spec", "rules", 0, "x", "y")) == 4
    assert document.line_of(("spec", "rules", 1)) == 5
    assert document.line_of(("spec", "rules", 1, "x")) == 6
    assert document.line_of(("spec", "rules", 2, "y")) == 4  # merged from there
    assert document.line_of(("spec", "rules", 2, "absent", "deeper")) == 7  # the nearest above
    assert document.line_of(("spec", "rules", 9)) == 1


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("", []),
        ("# only\n\n   # comments", []),
        ("a", [(0, "a")]),
        ("a\n---\nb\n--- # c\n---\nd", [(0, "a\n"), (1, "---\nb\n"), (4, "---\nd")]),
        ("---\r\na\r\n---\r\nb", [(0, "---\r\na\r\n"), (2, "---\r\nb")]),
        ("--- {a: b}\n---x: y", [(0, "--- {a: b}\n---x: y")]),
        ("a: |\n  text\n  ---\n", [(0, "a: |\n  text\n  ---\n")]),
        ("# c\n%YAML 1.1\n---\na\n---\nb", [(0, "# c\n%YAML 1.1\n---\na\n"), (4, "---\nb")]),
    ],
)
def test_documents_are_split_with_their_lines(text, documents):
    assert list(split_documents(text)) == documents


@given(st.text(st.sampled_from("ab:-?[]{},&*!|>'\"% \n\t#<~0.e"), max_size=60) | st.text(max_size=40))
def test_any_text_gives_documents_or_yaml_errors(text):
    try:
        for _, chunk in split_documents(text):
            for document in parse(chunk):
                document.line_of(("a", 0, "b"))
    except YamlError as error:
        assert error.message  # noqa: PT017  (nothing else may be raised)


@pytest.mark.parametrize("odd", ["\r", "\x85", "\u2028", "\u2029"])
def test_lines_are_those_of_editors_whatever_else_libyaml_counts(odd):
    text = f"a: 'x{odd}y'\r\nb: 'x{odd}{odd}y'\nc: {{d: 1}}\n"
    document = parse(text)[0]
    assert [document.line_of((key,)) for key in "abc"] == [0, 1, 2]
    repeated = parse(f"# x{odd}#\n" + text + "a: 1\n")[0].repeated_keys
    assert repeated == [(("a",), 4, 1)]
    for wrong in (f"# x{odd}#\na: .inf\n", f"# x{odd}#\na: [\n", f"# x{odd}#\na: ]\n", f"# x{odd}#\na: {{b: !!map c}}"):
        with pytest.raises(YamlError) as caught:
            parse(wrong)
        assert 1 <= caught.value.line <= wrong.count("\n")
