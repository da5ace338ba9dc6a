"""Planted values are found, look-alikes are not, and redacted texts are clean."""

import itertools
import json
import random
import string
import time
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import starsmith
from starsmith.corpus import schema
from starsmith.signals import pii, pii_findings

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "samples" / "pii"

REPLACEMENTS = {
    "ipv4": b"172.16.31.10", "ipv6": b"fd00:c2b6:b24b:be67:2827:688d:e6a1:6a3b", "EMAIL": b"<EMAIL>",
    "KEY": b"<KEY>", "NAME": b"<NAME>", "PASSWORD": b"<PASSWORD>",
}  # fmt: skip
LETTERS = string.ascii_letters + string.digits
LOWER = string.ascii_lowercase + string.digits
HEX = "0123456789abcdef"


def found(text):
    data = text.encode() if isinstance(text, str) else text
    return [(f.kind, data[f.start : f.end].decode()) for f in pii.find(data)]


def drawn(rng, alphabet, length):
    return "".join(rng.choice(alphabet) for _ in range(length))


def redact(data):
    for finding in reversed(pii.find(data)):
        replacement = REPLACEMENTS.get(finding.detector) or REPLACEMENTS[finding.kind]
        data = data[: finding.start] + replacement + data[finding.end :]
    return data


@pytest.mark.parametrize(
    "address",
    [
        "jane.doe@company.com",
        "j_d+lists@mail.sub-domain.co.uk",
        "x@xn--bcher-kva.xn--p1ai",
        "1234+jane@users.noreply.github.com",
        "a.b-c%d@host.museum",
    ],
)
def test_email_addresses(address):
    for text in (
        address,
        f"é <{address}>, (c) 2020",
        f'"author": "J {address}"',
        f"mailto:{address}.\n",
        f"({address})",
    ):
        assert found(text) == [("EMAIL", address)], text


@pytest.mark.parametrize(
    "text",
    [
        "user@example.com, a@mail.example.org, b@host.test, c@localhost",
        "git clone git@github.com:owner/repo.git",
        "https://user@host.com/path ssh://git@gitlab.com/x",
        "icon@2x.png logo@3x.jpg",
        "a@b.T + x@y.transpose(0)",
        "this@MainActivity.finish()",
        "pkg@1.2.3 @scope/name@4.5.6-beta.1",
        "no at sign, @decorator.name, a @ b.com",
    ],
)
def test_what_only_looks_like_an_email_address(text):
    assert found(text) == []


def test_a_url_with_an_address_in_its_query_is_no_user_name():
    assert found("https://a.io/list?user=jane.doe@company.com") == [("EMAIL", "jane.doe@company.com")]


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "203.1.113.5", "151.101.1.140", "2606:2800:220:1:248:1893:25c8:1946"]
)
def test_ip_addresses(address):
    for text in (
        address,
        f"host = '{address}'",
        f"ping {address}.",
        f"http://{address}/x" if "." in address else address,
    ):
        assert found(text) == [("IP_ADDRESS", address)], text


@pytest.mark.parametrize(
    "text",
    [
        "10.1.2.3 192.168.1.1 127.0.0.1 172.20.0.9 169.254.0.1 0.0.0.0 255.255.255.0 224.0.0.251",
        "192.0.2.1 198.51.100.7 203.0.113.9 2001:db8::1 ::1 fe80::1 fd00::1",
        "8.8.8.8 1.1.1.1 208.67.222.222",
        "999.12.13.14 12.034.56.78 1.2.3",
        "section 4.1.2.3 of",
        "99.12.33.44.55 and v23.45.67.89 and pkg-12.34.56.78",
        'version = "12.34.56.78"\nAssemblyVersion("10.20.30.40")\nfoo==45.10.1.25',
        "OID 12.5.29.15",
        "released 24.12.23.1",
        "as in section 13.2.3.1 of RFC 7230",
        'd="M0 0c-.98.98-.98 2.56 0 3.54.5.5 1.14.74 1.77z 2.73 33.55.51.23 1.07.35"',
        "std::abc::def a::b cafe::babe 10:20:30",
        "12345.6.7.8 1.2.3.45678",
    ],
)
def test_what_only_looks_like_an_ip_address(text):
    assert found(text) == []


def test_addresses_in_lists_and_tables_count():
    for text in ("93.184.216.34 93.184.216.35 93.184.216.36", "1 93.184.216.34 80", "93.184.216.34,151.101.1.140"):
        assert len(found(text)) == text.count(".") // 3, text


def test_a_short_address_counts_beside_dns_or_server():
    assert found("server 4.2.2.1;") == [("IP_ADDRESS", "4.2.2.1")]
    assert found("x" * 120 + " 4.2.2.1 ") == []


def test_a_private_key_is_one_finding():
    rng = random.Random(5)
    lines = [drawn(rng, LETTERS + "+/", 64) for _ in range(20)]
    for kind, newline in (("RSA PRIVATE KEY", "\n"), ("OPENSSH PRIVATE KEY", "\r\n"), ("PRIVATE KEY", "\\n")):
        block = newline.join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----"])
        assert found(f'key = "{block}"\nnext') == [("KEY", block)]
    truncated = "\n".join(["-----BEGIN PRIVATE KEY-----", *lines])
    assert found(f"{truncated}\n\nProse that goes on after the key, and on, and on.") == [("KEY", truncated)]
    assert found("if '-----BEGIN PRIVATE KEY-----' in text or '-----END PRIVATE KEY-----' in text: pass") == []
    assert found("-----BEGIN PUBLIC KEY-----\n" + "\n".join(lines) + "\n-----END PUBLIC KEY-----") == []


def test_random_values_behind_secret_names():
    rng = random.Random(7)
    shapes = [
        'api_key = "{}"', "  'client_secret': '{}',", "export AUTH_TOKEN={}", "credentials: {}\n",
        'setKey(key: "{}")', "Authorization: Bearer {}", 'const SECRET_KEY = `{}`;', "<apiKey>{}</apiKey>",
        'const token: string = "{}";', r'"{{\"token\": \"{}\"}}"',
    ]  # fmt: skip
    missed = []
    for _ in range(40):
        for alphabet, length in ((LETTERS, 32), (LOWER, 24), (LETTERS, 20)):
            value = drawn(rng, alphabet, length)
            missed += [s for s in shapes if found(s.format(value)) != [("KEY", value)]]
    recall = 1 - len(missed) / (40 * 3 * len(shapes))
    print(f"recall of planted random values: {recall:.3f}")
    assert recall > 0.97


@pytest.mark.parametrize(
    "text",
    [
        'api_key = "your_api_key_goes_here_1"',
        'token = "xxxxxxxxxxxxxxxxxxxx1"',
        'secret = "${SECRET_FROM_ENV_1}" password = "{{ vault_password_2 }}"',
        'key = "user_preferences_dialog_v2"',
        'key: "com.company.project.Module2"',
        'primaryKey = "organization_membership_id_1"',
        'key = "550e8400-e29b-41d4-a716-446655440000"',
        'token_sha1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709"',
        '# md5 of the key\nkey = "9e107d9d372bb6826bd81d3542a419d6"',
        'key = "0123456789abcdef0123456789abcdef"',
        'aws_access_key_id = "AKIAIOSFODNN7EXAMPLE"',
        "keys = ['MonkeyLexer2', 'CbmBasicV2Lexer']",
        'key = "sha512-oLFhY2wVnBfL5yTc3jOV7Xq9v8bF5kLKUQ0eWmpzDg=="',
    ],
)
def test_what_is_no_secret(text):
    assert found(text) == []


def test_digest_lengths_are_exempt_in_files_about_hashes():
    value = drawn(random.Random(1), HEX, 40)
    line = f'key = "{value}"\n'
    assert found(line) == [("KEY", value)]
    assert found(line + "x\n" * 10 + "# a hash\n") == []
    assert found(line + "x\n" * 100 + "# a hash\n") == [("KEY", value)]


def test_overlapping_findings_are_one():
    value = "jane.doe@company.com"
    text = f"https://bob:{drawn(random.Random(2), LETTERS, 20)}@93.184.216.34/"
    spans = pii.find(text.encode())
    assert all(first.end <= second.start for first, second in itertools.pairwise(spans))
    merged = pii_findings.merge(
        [pii.Finding("EMAIL", 5, 12, "e"), pii.Finding("KEY", 0, 9, "k"), pii.Finding("IP_ADDRESS", 20, 22, "i")]
    )
    assert merged == [pii.Finding("KEY", 0, 12, "k"), pii.Finding("IP_ADDRESS", 20, 22, "i")]
    tie = pii_findings.merge([pii.Finding("KEY", 0, 4, "k"), pii.Finding("EMAIL", 0, 4, "e")])
    assert tie == [pii.Finding("EMAIL", 0, 4, "e")]
    sure = pii_findings.merge([pii.Finding("EMAIL", 0, 4, "model", 0.7), pii.Finding("NAME", 0, 4, "author")])
    assert sure == [pii.Finding("NAME", 0, 4, "author")]
    assert found(f"a {value} b {value}") == [("EMAIL", value)] * 2


pieces = st.sampled_from(
    [
        "jane.doe@company.com", "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946",
        "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", f'password = "{drawn(random.Random(6), LETTERS, 24)}"',
        f'token = "{drawn(random.Random(4), LETTERS, 24)}"', "\nCopyright (c) 2015 Ada Lovelace\n",
        "https://me:Xq3tz9w@db.host.com/", " ", "\n", "é", "server ", "version ", '"', ",", "key=", "\t",
    ]
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.lists(pieces, max_size=12))
def test_a_second_scan_of_redacted_text_finds_nothing(parts):
    data = " ".join(parts).encode()
    spans = pii.find(data)
    assert all(0 <= f.start < f.end <= len(data) for f in spans)
    assert all(first.end <= second.start for first, second in itertools.pairwise(spans))
    assert pii.find(redact(data)) == []


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=300) | st.text(alphabet="0123456789.:@-=/\"'keypasA \n", max_size=300))
def test_any_text(text):
    data = text.encode()
    for finding in pii.find(data):
        data[finding.start : finding.end].decode()  # spans never cut a character
    assert pii.find(data) == pii.find(data)


@pytest.mark.parametrize(
    "unit",
    [
        "a.",
        "a@",
        "a@b.",
        "1.",
        "2001:",
        'key="',
        "-----BEGIN PRIVATE KEY-----",
        "x://a:",
        "eyJaaaaaaaaaaa.",
        "xoxb-a-",
        "key=a1",
        "author: A",
        "mysql -p",
        "pass",
        "sk-",
    ],
)
def test_time_is_linear(unit):
    """Four times the text takes less than twelve times as long (quadratic would be sixteen)."""

    def seconds(size):
        data = (unit * size).encode()[:size]
        best = float("inf")
        for _ in range(2):
            start = time.process_time()
            pii.find(data)
            best = min(best, time.process_time() - start)
        return best

    pii.find(b"warm up")
    assert seconds(60_000) < 12 * max(seconds(15_000), 0.002)


def test_table_is_ordered_and_has_the_schema():
    contents = pa.table(
        {
            "content_id": ["b", "a", "c"],
            "status": ["text", "text", "binary"],
            "text": pa.array(["é jane@company.com 93.184.216.34", "x bob@company.com", None], pa.large_string()),
        }
    )
    result = pii.measure(contents)
    assert result["score"].to_pylist() == [1.0, 1.0, 1.0]
    assert result.schema == schema.PII
    assert [(r["content_id"], r["kind"], r["start"], r["end"]) for r in result.to_pylist()] == [
        ("a", "EMAIL", 2, 17),
        ("b", "EMAIL", 3, 19),
        ("b", "IP_ADDRESS", 20, 33),
    ]
    assert pii.measure(contents.slice(0, 0)).num_rows == 0
    for row in range(3):  # a content's findings do not depend on its batch
        alone = pii.measure(contents.slice(row, 1)).to_pylist()
        assert alone == [r for r in result.to_pylist() if r["content_id"] == contents["content_id"][row].as_py()]
    assert pii.measure(pa.concat_tables([contents.slice(1), contents.slice(0, 1)])).equals(result)


def test_our_own_sources_have_no_keys():
    sources = sorted(Path(starsmith.__file__).parent.rglob("*.py"))
    assert [(path.name, f) for path in sources for f in pii.find(path.read_bytes()) if f.kind == "KEY"] == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the labelled sample beside the checkout")
def test_recall_and_precision_on_labelled_prose():
    """Presidio's synthetic sentences: e-mail and IP addresses, labelled."""
    records = json.loads((SHARED / "presidio-synth-first300.json").read_text(encoding="utf-8"))
    kinds = {"EMAIL_ADDRESS": "EMAIL", "IP_ADDRESS": "IP_ADDRESS"}
    want, got = set(), set()
    for number, record in enumerate(records):
        spans = record["spans"]
        want |= {(number, kinds[s["entity_type"]], s["entity_value"]) for s in spans if s["entity_type"] in kinds}
        got |= {(number, *finding) for finding in found(record["full_text"]) if finding[0] in kinds.values()}
    recall, precision = len(want & got) / len(want), len(want & got) / len(got)
    print(f"{len(want)} labelled: recall {recall:.3f}, precision {precision:.3f}")
    assert recall >= 0.85
    assert precision >= 0.85
