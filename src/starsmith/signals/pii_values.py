"""Whether a value is a secret: tests of the value alone, and of the words around it (section 3.2).

The paper's keys must be gibberish under a bigram model and longer than 8 characters, passwords longer than 3; both
must not be templated, sequential or placeholders. The bigram model is our own, of letters in identifiers.
A password may be a poor one, so it need not look random; but a mere word behind "password" is a label, a type
or a translation far more often than somebody's password, so it needs a digit or a sign in it. Behind
`user:` in a URL there is no such doubt.
"""

import itertools
import math
import re
from collections import Counter

PLACEHOLDER_WORDS = re.compile(
    rb"example|sample|dummy|placeholder|changeme|change_me|redacted|your[_\-]?|xxxx|\*\*\*\*|\.\.\.\.|0000000|"
    rb"\.\.\.$|1234567|abcdefg|deadbeef|test[_\-]?(?:key|token|secret)|fake|insert|\$\{|\{\{|<|>|%s",
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
    return entropy_bits(value) >= (MIN_ENTROPY_HEX_BITS if is_hex else MIN_ENTROPY_BITS) and is_gibberish(text)


def is_gibberish(text: str) -> bool:
    """Whether pairs of characters surprise more than those of identifiers do."""
    is_hex = _HEX.fullmatch(text.encode()) is not None
    return gibberish_bits(text) >= (MIN_GIBBERISH_HEX_BITS if is_hex else MIN_GIBBERISH_BITS)


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


MIN_PASSWORD_BYTES = 4
MAX_PASSWORD_BYTES = 128
MIN_TOKEN_ENTROPY_BITS = 2.5
"""A body with less repeats itself; 16 random hexadecimal digits have 2.5 with probability 0.999."""

_TEMPLATE = re.compile(
    rb"^\$[A-Za-z_]|\$[({]|\$[A-Z_]{3}|#\{|\{\{|\{[A-Za-z_0-9]*\}|%[sd(]|%[A-Za-z_]+%|<%|<[A-Za-z_ ]+>|"
    rb"\.\.\.|^@|^\*+$|^[xX]+$|"
    rb"^(?:process\.env|os\.environ|env\.|var\.|ENC\[|vault:)"
)
_PATHLIKE = re.compile(rb"^(?:\.{0,2}/|~/|[A-Za-z]:\\)|/.*/|\.(?:txt|json|ya?ml|py|js|ts|html?|php|xml|key|pem)$")
_DOTTED = re.compile(rb"^[A-Za-z_]\w*(?:[.\-:/][A-Za-z_]\w*)+$")
_NUMBERED_WORD = re.compile(
    rb"^[A-Za-z_\-]*(?:pass(?:word|wd)?|pwd|secret|user|admin|token|string|value)"
    rb"[_\-]?\d{0,2}$|"
    rb"^[a-z]+[_\-]\d{1,2}$",
    re.IGNORECASE,
)
_REGULAR_EXPRESSION = re.compile(rb"^\^|\$$|\\[dws]|\(\?|\[[a-zA-Z0-9]-|\.\*|\.\+")
_SELECTOR = re.compile(rb"^[#.]?[A-Za-z][\w\-]*(?:[.#:>\[ ][\w\-]+)*\]?$")
_CODE = re.compile(rb"[()\[\]{}|;]")
_STRONG_SIGNS = re.compile(rb"[!@#$%^&*+=?~]")


def is_token_body(value: bytes) -> bool:
    """Whether the value of a documented format can be real: no placeholder, and not one pattern repeated."""
    return not is_placeholder(value) and entropy_bits(value[-64:]) >= MIN_TOKEN_ENTROPY_BITS


def is_literal_password(value: bytes) -> bool:
    """Whether a literal behind a password's name is one: 4 to 128 bytes, with a letter and a digit or a sign.

    Templates, paths, dotted names, expressions, selectors and words for passwords (`admin1`) are not.
    """
    if not is_url_password(value) or _PATHLIKE.search(value) or _DOTTED.search(value):
        return False
    if _NUMBERED_WORD.search(value) or _REGULAR_EXPRESSION.search(value):
        return False
    has_digit = any(48 <= byte <= 57 for byte in value)
    has_letter = any(65 <= byte <= 90 or 97 <= byte <= 122 for byte in value)
    if has_digit and not has_letter:
        return len(value) >= 6
    signs = _STRONG_SIGNS.findall(value.rstrip(b"!?=#*+"))
    return has_letter and (has_digit or (bool(signs) and _SELECTOR.search(value) is None))


def is_bare_password(value: bytes) -> bool:
    """The same without quotes, where the value could be a name of code: it must not read as an identifier."""
    if not is_literal_password(value):
        return False
    if re.fullmatch(rb"[A-Za-z_]+\d{0,2}", value) or _CODE.search(value):
        return False
    return _STRONG_SIGNS.search(value) is not None or (
        len(value) >= 8 and gibberish_bits(value.decode("ascii", "replace")) >= 4.0
    )


def is_connection_password(value: bytes) -> bool:
    """The same inside a connection string: no piece of code."""
    return is_literal_password(value) and _CODE.search(value) is None


def is_url_password(value: bytes) -> bool:
    """Whether what stands between `user:` and `@host` is a password: more than 3 bytes, no template."""
    if not MIN_PASSWORD_BYTES <= len(value) <= MAX_PASSWORD_BYTES or len(set(value)) < 3:
        return False
    if PLACEHOLDER_WORDS.search(value) or _TEMPLATE.search(value):
        return False
    return value.lower() not in _PASSWORD_WORDS


_PASSWORD_WORDS = frozenset(
    b"password passwd passw0rd pass passwort pwd secret token user username admin root guest string null "
    b"none true false undefined changeit hidden mypassword userpass apikey api_key key value text 12345 "
    b"123456 port host repo x-oauth-basic x-token-auth".split()
)
"""What stands where a password would, and is none."""
