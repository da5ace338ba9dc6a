"""What is shown of a dropped file: the place that mattered, never a secret, never a text that may not be shown."""

from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.inspection.excerpts import MAX_CHARS, MAX_LINES, excerpt

LINES = "".join(f"line {number}\n" for number in range(40)).encode()


def test_the_beginning_is_shown_by_default() -> None:
    shown = excerpt(LINES, "license", [], [])
    assert shown.split("\n") == [*(f"line {number}" for number in range(MAX_LINES)), "[...]"]
    assert excerpt(b"one\ntwo", "license", [], []) == "one\ntwo"


def test_the_longest_line_is_shown_where_lines_are_the_matter() -> None:
    text = LINES + b"x" * 5_000 + b"\n" + LINES
    shown = excerpt(text, "max_line_length", [], [])
    assert shown.split("\n")[:2] == ["[...]", "x" * MAX_CHARS + f" [... {5_000 - MAX_CHARS:,} more characters]"]


def test_a_benchmark_text_is_shown_where_it_stands() -> None:
    place = LINES.index(b"line 30")
    assert excerpt(LINES, "contamination", [], [(place, place + 7, "humaneval")]).startswith("[...]\nline 30\n")


def test_findings_are_covered_also_in_the_middle_of_a_line() -> None:
    text = b"# by someone@company.org, also other@company.org\n" + LINES
    spans = [(5, 24, "EMAIL"), (31, 48, "EMAIL")]
    assert text[5:24] == b"someone@company.org" and text[31:48] == b"other@company.org"
    assert excerpt(text, "generated", spans, []).startswith("# by [EMAIL], also [EMAIL]\nline 0")
    deep = b"y" * 1_000 + b"secret-secret" + b"z" * 1_000
    shown = excerpt(deep, "pii", [(1_000, 1_013, "KEY")], [])
    assert shown.startswith("[...]\n[KEY]zzz")


@settings(max_examples=50, deadline=None)
@given(
    text=st.text(max_size=300),
    spans=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 30)), max_size=4),
    rule=st.sampled_from(["license", "max_line_length", "pii", "contamination"]),
)
def test_no_byte_of_a_finding_is_ever_shown(text: str, spans: list[tuple[int, int]], rule: str) -> None:
    data = bytearray(text.replace("q", "-").encode())
    covered = sorted((start, min(start + size, len(data)), "KEY") for start, size in spans if start < len(data))
    for start, end, _ in covered:
        data[start:end] = b"q" * (end - start)
    shown = excerpt(bytes(data), rule, covered, covered)
    assert "q" not in shown
    assert len(shown.split("\n")) <= MAX_LINES + 2
