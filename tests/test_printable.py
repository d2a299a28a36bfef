"""What does not print is escaped, and JSON stays what it was."""

import json

from hypothesis import given
from hypothesis import strategies as st

from pygw.printable import each_line, one_line


@given(st.text())
def test_any_text_becomes_one_line_that_prints(text):
    shown = one_line(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()


@given(st.dictionaries(st.text(), st.text()))
def test_json_keeps_its_meaning(value):
    assert json.loads(one_line(json.dumps(value, ensure_ascii=False))) == value
    assert json.loads(each_line(json.dumps(value, ensure_ascii=False, indent=2))) == value


def test_what_is_escaped():
    assert one_line("a\n\t\x1b[31m\x7f\x9b\u2028\u202e\ud800é€😀") == (
        r"a\n\t\u001b[31m\u007f\u009b\u2028\u202e\ud800é€😀"
    )
    assert each_line("a\n\x1b\n") == "a\n\\u001b\n"
