"""Expressions and tests for personal data and secrets, as data and pure functions of values (section 3.2).

All expressions are RE2's on UTF-8 bytes: linear time on any text, no look-around. What a look-around would say
about the neighbouring bytes is tested in `pii.py`. The rules for keys follow the formats that the
issuers document (fixed prefix, alphabet, length). Values without a fixed form are secrets only if they look
random: `is_secret_value`.
"""

import itertools
import math
import re
from collections import Counter
from dataclasses import dataclass

import re2

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False


def compile_bytes(pattern: str) -> "re2._Regexp[bytes]":
    """A compiled RE2 expression for bytes."""
    return re2.compile(pattern.encode(), _OPTIONS)


EMAIL = (
    r"[A-Za-z0-9](?:[A-Za-z0-9._%+\-]{0,62}[A-Za-z0-9_%+\-])?"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.){1,10}(?:xn--[A-Za-z0-9\-]{2,59}|[A-Za-z]{2,63})"
)
"""No brackets, quotes or slashes in the local part, one to ten sub-domains, a top-level domain of letters."""

IPV4 = r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}"
IPV6 = r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}"

EXAMPLE_DOMAINS = (b"example.com", b"example.org", b"example.net", b"example.edu")
EXAMPLE_SUFFIXES = (b".example", b".test", b".invalid", b".localhost", b".local")
"""Names reserved for documentation and tests (RFC 2606, RFC 6762): nobody's address."""

SERVICE_USERS = (b"git", b"hg", b"svn")
"""`git@host` is how repositories are addressed, not a mailbox."""

CODE_WORDS = frozenset({b"this", b"super", b"return", b"break", b"continue", b"self"})
"""`this@Name.method` is Kotlin."""

NOT_TOP_LEVEL = frozenset(
    b"png jpg jpeg gif svg webp bmp ico js mjs cjs jsx ts tsx css scss less html htm json xml yml yaml txt csv "
    b"map woff ttf eot mp3 mp4 wav pdf gz tgz zip tar jar exe dll lock log cfg conf ini toml rb java class cpp "
    b"hpp tmpl tpl erb dot add sub mul transpose reshape value get set length name data next min".split()
)
"""Endings of file names (`icon@2x.png`) and of expressions (`a@b.dot`) that are no top-level domains."""

DNS_SERVERS = frozenset(
    b"8.8.8.8 8.8.4.4 1.1.1.1 1.0.0.1 76.76.19.19 76.223.122.150 9.9.9.9 149.112.112.112 208.67.222.222 "
    b"208.67.220.220 8.26.56.26 8.20.247.20 94.140.14.14 94.140.15.15".split()
)
"""Public resolvers, which are no one's personal address (section 3.2)."""


@dataclass(frozen=True)
class KeyRule:
    """A documented token format. Group 1, or the whole match, is the secret."""

    detector: str
    keywords: tuple[bytes, ...]
    """Lower-case; the expression is tried only where a text has one of them."""
    pattern: str


KEY_RULES = (
    KeyRule("age", (b"age-secret-key-1",), r"AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}"),
    KeyRule("anthropic", (b"sk-ant-",), r"sk-ant-[a-z0-9]+-[A-Za-z0-9_\-]{80,}"),
    KeyRule("atlassian", (b"atatt3",), r"ATATT3[A-Za-z0-9_=\-]{100,}"),
    KeyRule("aws_access_key", (b"akia", b"asia", b"abia", b"acca"), r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}"),
    KeyRule(
        "aws_secret_key",
        (b"aws",),
        r"(?i:aws[a-z0-9_.\- ]{0,20}(?:secret|key)[a-z0-9_.\- ]{0,20})[\"']?\s{0,3}(?:=>|[=:,])\s{0,3}[\"']?"
        r"([A-Za-z0-9/+]{40})",
    ),
    KeyRule("azure_storage", (b"accountkey",), r"(?i:accountkey)\s?=\s?([A-Za-z0-9+/]{86}==)"),
    KeyRule("databricks", (b"dapi",), r"dapi[a-f0-9]{32}(?:-[0-9])?"),
    KeyRule("digitalocean", (b"_v1_",), r"do[opr]_v1_[a-f0-9]{64}"),
    KeyRule("discord", (b"discord",), r"[MNO][A-Za-z0-9_\-]{23,25}\.[A-Za-z0-9_\-]{6}\.[A-Za-z0-9_\-]{27,38}"),
    KeyRule("docker", (b"dckr_pat_",), r"dckr_pat_[A-Za-z0-9_\-]{27}"),
    KeyRule("github", (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"), r"gh[pousr]_[A-Za-z0-9]{36,}"),
    KeyRule("github_fine_grained", (b"github_pat_",), r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    KeyRule(
        "gitlab",
        (b"glpat-", b"gldt-", b"glrt-", b"glptt-", b"glft-", b"glcbt-", b"glsoat-"),
        r"gl(?:pat|dt|rt|ptt|ft|cbt|soat)-[A-Za-z0-9_\-]{20,}",
    ),
    KeyRule("google_api", (b"aiza",), r"AIza[A-Za-z0-9_\-]{35}"),
    KeyRule("google_oauth", (b"gocspx-",), r"GOCSPX-[A-Za-z0-9_\-]{28}"),
    KeyRule("google_access", (b"ya29.",), r"ya29\.[A-Za-z0-9_\-]{30,}"),
    KeyRule("grafana", (b"glsa_",), r"glsa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8}"),
    KeyRule("hashicorp_vault", (b"hvs.", b"hvb."), r"hv[sb]\.[A-Za-z0-9_\-]{24,}"),
    KeyRule("huggingface", (b"hf_",), r"hf_[A-Za-z0-9]{34}"),
    KeyRule("jwt", (b"eyj",), r"eyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{16,}"),
    KeyRule("linear", (b"lin_api_",), r"lin_api_[A-Za-z0-9]{40}"),
    KeyRule("mailchimp", (b"-us",), r"[0-9a-f]{32}-us[0-9]{1,2}"),
    KeyRule("mailgun", (b"key-",), r"key-[0-9a-f]{32}"),
    KeyRule("new_relic", (b"nrak-",), r"NRAK-[A-Z0-9]{27}"),
    KeyRule("npm", (b"npm_",), r"npm_[A-Za-z0-9]{36}"),
    KeyRule("openai", (b"t3blbkfj",), r"sk-[A-Za-z0-9_\-]{20,}T3BlbkFJ[A-Za-z0-9_\-]{20,}"),
    KeyRule("postman", (b"pmak-",), r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}"),
    KeyRule("pypi", (b"pypi-age",), r"pypi-AgE[A-Za-z0-9_\-]{60,}"),
    KeyRule("rubygems", (b"rubygems_",), r"rubygems_[a-f0-9]{48}"),
    KeyRule("sendgrid", (b"sg.",), r"SG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}"),
    KeyRule("shopify", (b"shpat_", b"shpca_", b"shppa_", b"shpss_"), r"shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}"),
    KeyRule("slack", (b"xox", b"xapp-"), r"(?:xox[abeoprs]|xapp)-[A-Za-z0-9]+-[A-Za-z0-9\-]{10,}"),
    KeyRule(
        "slack_webhook",
        (b"hooks.slack.com",),
        r"hooks\.slack\.com/(?:services|workflows)/([A-Z][A-Za-z0-9]{7,12}/[A-Z][A-Za-z0-9]{7,12}/[A-Za-z0-9]{20,})",
    ),
    KeyRule("square", (b"sq0",), r"sq0[a-z]{3}-[A-Za-z0-9_\-]{22,43}"),
    KeyRule(
        "stripe",
        (b"sk_live_", b"sk_test_", b"rk_live_", b"rk_test_", b"whsec_"),
        r"(?:[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/]{32,})",
    ),
    KeyRule("telegram", (b":aa",), r"[0-9]{8,10}:AA[A-Za-z0-9_\-]{33}"),
    KeyRule("terraform", (b".atlasv1.",), r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_\-]{60,}"),
    KeyRule("twilio", (b"twilio",), r"SK[0-9a-f]{32}"),
)

PEM_BODY = r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----((?:[A-Za-z0-9+/=:,.\-\s]|\\[nrt]|[\"'])*)"
"""A private key and everything after it that can belong to its text; `pii.py` cuts at the end line."""

SECRET_NAMES = (b"key", b"secret", b"token", b"passw", b"pwd", b"credential", b"bearer")

ASSIGNED = (
    r"(?i:(?:key|secret|token|passw(?:or)?d|pwd|credentials?)[a-z0-9_.\-]*)[\"'\]]{0,2}[ \t]*(?:=>|:=|[=:])[ \t]*"
    r"[\"'`]([A-Za-z0-9+/=_.~!@#$%^&*\-]{12,})[\"'`]"
)
"""A name that says secret, then a quoted value."""

ASSIGNED_BARE = (
    r"(?im:^[ \t]*(?:export[ \t]+|-[ \t]+)?[a-z0-9_.\-]*(?:key|secret|token|passw(?:or)?d|pwd|credentials?)"
    r"[a-z0-9_.\-]*[ \t]?[=:][ \t]?([a-z0-9+/=_.~\-]{16,})[ \t\r]*$)"
)
"""The same unquoted, alone on its line: environment files, YAML, properties."""

BEARER = r"(?i:bearer)[ \t]+([A-Za-z0-9_.~+/\-]{20,}=*)"

URL_CREDENTIAL = r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s/:@\"'<>]{1,64}:([^\s/:@\"'<>{}$]{9,})@[A-Za-z0-9]"

PLACEHOLDER_WORDS = re.compile(
    rb"example|sample|dummy|placeholder|changeme|change_me|redacted|your[_\-]?|xxxx|\*\*\*\*|\.\.\.\.|0000000|"
    rb"1234567|abcdefg|deadbeef|test[_\-]?(?:key|token|secret)|fake|insert|\$\{|\{\{|<|>|%s",
    re.IGNORECASE,
)
_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_HEX = re.compile(rb"(?:0x)?[0-9a-f]+", re.IGNORECASE)
_DIGEST_PREFIX = re.compile(rb"(?:sha\d*|md5)[\-:=$]", re.IGNORECASE)

HASH_LENGTHS = frozenset({32, 40, 64})
HASH_WORDS = re.compile(rb"sha|md5|hash|byte|digest|checksum", re.IGNORECASE)

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_BIGRAM_BITS = (
    "65447659697344759343678669", "35553388459378479557499959", "36563693594478269563599979",
    "35542579399666479655589779", "46445569799453766334867479", "45543399299476379465498979",
    "47782864499565569345489989", "27772788398667379554598969", "56455659998442369643959695",
    "36672677476766356747457777", "46661767498565668646654879", "37752679399477369854579959",
    "25872889498557339857589979", "47433538596686469733559989", "66548659686442549355465799",
    "38772795598389359354499949", "67577777786476757466175888", "38552759397655379544678959",
    "59473785396677447742587969", "38572794399778369355587948", "55554669599343749443999999",
    "27771879399667579877879979", "28763885289774478356988898", "33343498599658839873989779",
    "55564778599544529643777787", "48681777498677578876768756",
)  # fmt: skip
"""`-log2 P(second | first)` of letters in the identifiers of 2,000 Python, C and JavaScript files, rounded and
cut at 9: row is the first letter, column the second."""

MIN_GIBBERISH_BITS = 4.7
"""Of 3,000 random values of 16 letters and digits 99 % have more than 5.0; half the identifiers less than 3.6."""
MIN_GIBBERISH_HEX_BITS = 3.9
MIN_ENTROPY_BITS = 3.0
MIN_ENTROPY_HEX_BITS = 2.8


def is_secret_value(value: bytes) -> bool:
    """Whether a value without a documented form looks random: long, mixed, high in entropy, unpronounceable.

    Identifiers, UUIDs, counted sequences, templates and placeholders do not.
    """
    if len(value) <= 8 or len(value) > 512 or is_placeholder(value):
        return False
    if _UUID.search(value) or _DIGEST_PREFIX.match(value) or b"://" in value:
        return False
    text = value.decode("ascii", "replace")
    if not any(c.isdigit() for c in text) or not any(c.isalpha() for c in text):
        return False
    is_hex = _HEX.fullmatch(value) is not None
    return entropy_bits(value) >= (MIN_ENTROPY_HEX_BITS if is_hex else MIN_ENTROPY_BITS) and gibberish_bits(
        text
    ) >= (MIN_GIBBERISH_HEX_BITS if is_hex else MIN_GIBBERISH_BITS)


def is_placeholder(value: bytes) -> bool:
    """Whether a value says that it is none, or repeats fewer than five characters."""
    return PLACEHOLDER_WORDS.search(value) is not None or len(set(value)) < 5


def looks_like_hash(value: bytes, context: bytes) -> bool:
    """Whether a hexadecimal value has a digest's length and `context` (its line and the one before) says so."""
    return (
        len(value) in HASH_LENGTHS and _HEX.fullmatch(value) is not None and HASH_WORDS.search(context) is not None
    )


def entropy_bits(value: bytes) -> float:
    """Shannon entropy of the bytes, in bits a byte."""
    counts = Counter(value).values()
    return -sum(n / len(value) * math.log2(n / len(value)) for n in counts)


def gibberish_bits(text: str) -> float:
    """Mean surprise of a character pair, in bits: identifiers and words about 3.5, random letters about 6.

    Letters by bigram, a lower-case letter before an upper-case one a bit more, digits after digits 3.3, letters
    beside digits 6, anything else 3.
    """
    pairs = list(itertools.pairwise(text))
    return sum(_pair_bits(first, second) for first, second in pairs) / max(1, len(pairs))


def _pair_bits(first: str, second: str) -> float:
    if first.isalpha() and second.isalpha():
        row, column = _LETTERS.find(first.lower()), _LETTERS.find(second.lower())
        bits = int(_BIGRAM_BITS[row][column]) if min(row, column) >= 0 else 9
        return bits + (first.islower() and second.isupper())
    if first.isdigit() and second.isdigit():
        return 3.3
    return 6.0 if first.isalnum() and second.isalnum() else 3.0
