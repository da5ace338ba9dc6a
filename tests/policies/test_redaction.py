"""What is replaced, what stays, and what the ledger says without saying the value."""

import ipaddress
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import SmallCorpus

from starsmith import recipe
from starsmith.documents import special_tokens
from starsmith.policies import decisions, redaction
from starsmith.policies.decisions import Policy

ALL = ("EMAIL", "IP_ADDRESS", "KEY", "NAME", "PASSWORD")


def spans(text: str, *values: tuple[str, str]) -> list[redaction.Finding]:
    """Findings of the first place of each value."""
    data = text.encode()
    return [
        (kind, data.index(value.encode()), data.index(value.encode()) + len(value.encode()))
        for kind, value in values
    ]


def test_placeholders_and_offsets_in_utf8() -> None:
    text = "é = 'jörg@example.net'; 🔑 = 'sk_live_0123456789'"
    findings = spans(text, ("EMAIL", "jörg@example.net"), ("KEY", "sk_live_0123456789"))
    assert redaction.redact(text, findings, ALL, "doc") == ("é = '<EMAIL>'; 🔑 = '<KEY>'", 2)
    redacted, num = redaction.redact(text.encode(), findings[::-1], ALL, "doc")
    assert (redacted.decode(), num) == ("é = '<EMAIL>'; 🔑 = '<KEY>'", 2)


def test_names_and_passwords_have_placeholders_that_the_tokenizer_knows() -> None:
    text = "# (c) Ada Lovelace, password = 'Xq3!z', again Ada Lovelace"
    findings = [*spans(text, ("NAME", "Ada Lovelace"), ("PASSWORD", "Xq3!z")), ("NAME", len(text) - 12, len(text))]
    expected = "# (c) <NAME>, password = '<PASSWORD>', again <NAME>"
    assert redaction.redact(text, findings, ALL, "doc") == (expected, 3)
    known = {token.encode() for token in special_tokens.SPECIAL_TOKENS}
    assert set(redaction.PLACEHOLDERS.values()) <= known
    assert set(redaction.PLACEHOLDERS) | {"IP_ADDRESS"} == set(get_args(recipe.PiiKind))


def test_only_chosen_kinds() -> None:
    text = "a@b.co 9.8.7.6"
    findings = spans(text, ("EMAIL", "a@b.co"), ("IP_ADDRESS", "9.8.7.6"))
    assert redaction.redact(text, findings, ("EMAIL",), "doc") == ("<EMAIL> 9.8.7.6", 1)
    assert redaction.redact(text, findings, (), "doc") == (text, 0)


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ([("KEY", 0, 10), ("EMAIL", 3, 8)], "<KEY>abcdefghij"),
        ([("EMAIL", 0, 6), ("KEY", 4, 12)], "<KEY>cdefghij"),
        ([("EMAIL", 0, 6), ("KEY", 4, 10)], "<KEY>abcdefghij"),  # equally long: the key counts
        ([("KEY", 0, 6), ("PASSWORD", 0, 6), ("NAME", 2, 8)], "<PASSWORD>89abcdefghij"),
        ([("EMAIL", 0, 5), ("KEY", 5, 10)], "<EMAIL><KEY>abcdefghij"),  # side by side is not overlapping
        ([("EMAIL", 0, 4), ("EMAIL", 0, 4)], "<EMAIL>456789abcdefghij"),
        ([("EMAIL", 0, 3), ("KEY", 2, 5), ("EMAIL", 4, 8)], "<EMAIL>89abcdefghij"),
    ],
)
def test_overlapping_findings_are_one(findings: list[redaction.Finding], expected: str) -> None:
    for order in (findings, findings[::-1]):
        assert redaction.redact("0123456789abcdefghij", order, ALL, "doc")[0] == expected


@pytest.mark.parametrize("address", ["8.8.4.5", "2001:db8:1::7"])
def test_an_address_gets_a_private_one_of_its_family(address: str) -> None:
    text = f"{address} and {address}"
    findings = [("IP_ADDRESS", 0, len(address)), ("IP_ADDRESS", len(address) + 5, len(text))]
    redacted, _ = redaction.redact(text, findings, ALL, "doc")
    first, second = map(ipaddress.ip_address, redacted.split(" and "))
    assert first == second
    assert first.is_private
    assert first.version == ipaddress.ip_address(address).version
    assert redacted == redaction.redact(text, findings, ALL, "doc")[0]
    chosen = {redaction.redact(text, findings, ALL, f"doc {number}")[0] for number in range(60)}
    assert len(chosen) == 5


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("abc", ("EMAIL", 1, 4)),
        ("abc", ("EMAIL", -1, 2)),
        ("abc", ("EMAIL", 2, 2)),
        ("abc", ("EMAIL", 2, 1)),
        ("é", ("EMAIL", 1, 2)),
        ("é", ("EMAIL", 0, 1)),
        ("abc", ("USERNAME", 0, 1)),
    ],
)
def test_spans_that_do_not_fit_are_refused(text: str, finding: redaction.Finding) -> None:
    for given_text in (text, text.encode()):
        with pytest.raises(ValueError, match=r"span|replacement|decode"):
            redaction.redact(given_text, [finding], (*ALL, "USERNAME"), "doc")


WORDS = st.lists(
    st.tuples(
        st.text("abé\n ", max_size=8), st.sampled_from(("", *ALL)), st.text("xyzß.:@", min_size=1, max_size=12)
    ),
    max_size=8,
)


@settings(max_examples=50, deadline=None)
@given(WORDS)
def test_everything_outside_the_findings_stays_and_nothing_inside_does(words: list[tuple[str, str, str]]) -> None:
    data, findings, kept = b"", [], ""
    for plain, kind, value in words:
        data += plain.encode()
        if kind:
            findings.append((kind, len(data), len(data) + len(value.encode())))
            data += value.encode()
    for plain, kind, value in words:
        replacement: Any = redaction.PLACEHOLDERS.get(kind, b"").decode()
        if kind == "IP_ADDRESS":
            replacement = redaction.redact(value, [(kind, 0, len(value.encode()))], ALL, "doc")[0]
        kept += plain + (replacement if kind else "")
    redacted, num = redaction.redact(data.decode(), findings, ALL, "doc")
    assert (redacted, num) == (kept, len(findings))
    assert redaction.redact(redacted, [], ALL, "doc") == (redacted, 0)


def test_the_ledger_counts_findings_of_kept_files_only(corpus: SmallCorpus) -> None:
    kept = corpus.add("/a.py", content="secret")
    corpus.add("/b.py", content="dropped", license_type="non_permissive")
    corpus.add("/c.py", content="clean")
    for start, (kind, detector) in enumerate((("KEY", "aws"), ("EMAIL", "regex"), ("KEY", "github"))):
        corpus.finding("secret", kind, start * 10, detector)
        corpus.finding("dropped", kind, start * 10, detector)
    tables = corpus.tables()
    decided = decisions.decide(tables, Policy())
    (edit,) = [row for row in decided.decisions.to_pylist() if row["action"] == "edit"]
    assert edit["file_id"] == kept
    assert (edit["rule"], edit["value"]) == ("pii", "EMAIL 1, KEY 2")
    assert edit["threshold"] == "0 of EMAIL, IP_ADDRESS, KEY, NAME, PASSWORD"
    assert edit["evidence"] == "found by aws 1, github 1, regex 1"
    assert decided.kept.num_rows == 2
    emails = Policy(pii=recipe.Pii(kinds=("EMAIL",)))
    assert decisions.decide(tables, emails).decisions["value"].to_pylist().count("EMAIL 1") == 1
    nothing = Policy(pii=recipe.Pii(kinds=()))
    assert "edit" not in decisions.decide(tables, nothing).decisions["action"].to_pylist()
