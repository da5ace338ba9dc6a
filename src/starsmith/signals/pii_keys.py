"""Documented token formats, as data: how each issuer's secrets begin, what may follow, and which carry a checksum.

The formats are those that issuers publish (prefix, alphabet, length; facts compared with the rule file of
gitleaks). A rule is tried only where its prefix stands: a compiled pass (`pii_anchors`) finds the prefixes in any
case and asks for `min_body` more token characters, then one RE2 expression decides, then the tests of the value.

A checksum proves a token genuine, so that a word such as "test" inside it no longer counts as a placeholder. A
token whose checksum fails is still taken when it looks random: issuers change their formats, and a secret
that is left in is worse than a random string that is taken out.
"""

import base64
import binascii
import functools
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Checksum = Callable[[bytes], bool]
Alphabet = Literal["token", "alnum", "hex", "digit"]


@dataclass(frozen=True)
class KeyRule:
    """One format. The secret is the expression's group 1, or its whole match."""

    detector: str
    prefixes: tuple[bytes, ...]
    """What the expression needs at its beginning, or, with `lookback`, somewhere inside; written as issued."""
    pattern: str
    min_body: int
    """Token characters that surely follow the prefix."""
    lookback: int = 0
    """The most bytes that a match may have before its prefix; 0 when the match begins with it."""
    min_before: int = 0
    """Token characters that surely stand before the prefix."""
    checksum: Checksum | None = None
    """Whether a token proves itself."""
    needs_checksum: bool = False
    """Whether one that does not is none."""
    max_bytes: int = 512
    """Behind the prefix; longer runs of token characters are data."""
    alphabet: Alphabet = "token"
    """What those `min_body` characters are."""
    before: Alphabet = "token"
    """What those `min_before` characters are."""


def base62_checksum(token: bytes) -> bool:
    """GitHub's and npm's: the last 6 characters are the CRC-32 of the 30 before them, in base 62."""
    body = token[token.rindex(b"_") + 1 :]
    number, digits = zlib.crc32(body[:-6]), b""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = _BASE62[digit : digit + 1] + digits
    return len(body) == 36 and body[-6:] == digits


def grafana_checksum(token: bytes) -> bool:
    """The last 8 hexadecimal digits are the CRC-32 of everything before the last underscore, low byte first."""
    key, _, digits = token.rpartition(b"_")
    return zlib.crc32(key).to_bytes(4, "little").hex().encode() == digits.lower()


def bech32_checksum(token: bytes) -> bool:
    """age's: the last 6 characters make the polynomial of BIP 173 come out as 1."""
    human, _, data = token.lower().rpartition(b"1")
    values = [letter >> 5 for letter in human] + [0] + [letter & 31 for letter in human]
    values += [_BECH32.find(letter) for letter in data]
    state = 1
    for value in values:
        if value < 0:
            return False
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_BECH32_GENERATORS):
            state ^= generator if top >> bit & 1 else 0
    return state == 1


def jwt_header(token: bytes) -> bool:
    """The first part of a JSON web token is a JSON object with an algorithm."""
    try:
        header = json.loads(_from_base64(token.partition(b".")[0]))
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and "alg" in header


def discord_user(token: bytes) -> bool:
    """The first part of a Discord token is the account's decimal number."""
    try:
        return _from_base64(token.partition(b".")[0]).isdigit()
    except binascii.Error:
        return False


def _from_base64(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


_BASE62 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BECH32 = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def _rule(detector: str, prefixes: str, body: str, min_body: int, checksum: Checksum | None = None) -> KeyRule:
    starts = tuple(prefix.encode() for prefix in prefixes.split())
    alternatives = "|".join(prefix.replace(".", r"\.") for prefix in prefixes.split())
    alphabet, length = _first_run(body, min_body)
    limit = 4_096 if detector in _LONG else 512
    pattern = f"(?:{alternatives}){body}"
    return KeyRule(detector, starts, pattern, length, checksum=checksum, max_bytes=limit, alphabet=alphabet)


def _first_run(body: str, min_body: int) -> tuple[Alphabet, int]:
    """The alphabet of a body's first class, where it is narrow, and how long it lasts at least."""
    for alphabet, classes in _NARROW.items():
        for characters in classes:
            length = body.removeprefix(characters + "{").partition("}")[0].partition(",")[0]
            if body.startswith(characters + "{") and length.isdigit():
                return alphabet, int(length)
    return "token", min_body


_ALNUM = "[A-Za-z0-9]"
_LONG = frozenset({"1password_service", "fly_macaroon", "jwt", "google_access", "pypi", "dropbox", "atlassian"})
"""Formats that carry claims, and so grow with them."""
_NARROW: dict[Alphabet, tuple[str, ...]] = {
    "hex": ("[a-f0-9]", "[0-9a-f]", "[A-Fa-f0-9]"),
    "alnum": (_ALNUM, "[a-z0-9]", "[A-Z0-9]", "[A-Z2-7]"),
}
_URLSAFE = r"[A-Za-z0-9_\-]"
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

_PREFIXED = (
    _rule("1password", "A3-", "[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})(?:-[A-Z0-9]{5}){3}", 30),
    _rule("1password_service", "ops_eyJ", "[A-Za-z0-9+/_-]{250,}={0,3}", 250),
    _rule("adafruit", "aio_", _ALNUM + "{28}", 28),
    _rule("adobe", "p8e-", "[A-Za-z0-9]{32}", 32),
    _rule("age", "AGE-SECRET-KEY-1", "[02-9AC-HJ-NP-Z]{58}", 58, bech32_checksum),
    _rule("airtable", "pat", _ALNUM + r"{14}\.[a-f0-9]{64}", 79),
    _rule("alibaba", "LTAI", "[A-Za-z0-9]{12,30}", 12),
    _rule("anthropic", "sk-ant-", "[a-z0-9]+-" + _URLSAFE + "{80,}", 80),
    _rule("artifactory", "AKCp", _ALNUM + "{69}", 69),
    _rule("artifactory_reference", "cmVmd", _ALNUM + "{59}", 59),
    _rule("atlassian", "ATATT3", r"[A-Za-z0-9_=\-]{100,}", 100),
    _rule("aws_access_key", "AKIA ASIA ABIA ACCA", "[A-Z2-7]{16}", 16),
    _rule("aws_bedrock", "ABSK", "[A-Za-z0-9+/]{109,269}={0,2}", 109),
    _rule("azure_storage", "AccountKey=", "([A-Za-z0-9+/]{86}==)", 88),
    _rule("bitbucket", "ATBB ATCTT3", _URLSAFE + "{28,}", 28),
    _rule("buildkite", "bkua_", "[a-f0-9]{40}", 40),
    _rule("circleci", "CCIPAT_ CCIPRJ_", _ALNUM + "{16,}_[a-f0-9]{40}", 40),
    _rule("clickhouse", "4b1d", _ALNUM + "{38}", 38),
    _rule("clojars", "CLOJARS_", "[a-z0-9]{60}", 60),
    _rule("cloudflare_origin", "v1.0-", "[a-f0-9]{24}-[a-f0-9]{146}", 171),
    _rule("contentful", "CFPAT-", _URLSAFE + "{43}", 43),
    _rule("databricks", "dapi", "[a-f0-9]{32}(?:-[0-9])?", 32),
    _rule("defined_networking", "dnkey-", r"[A-Za-z0-9=_\-]{26}-[A-Za-z0-9=_\-]{52}", 79),
    _rule("digitalocean", "dop_v1_ doo_v1_ dor_v1_", "[a-f0-9]{64}", 64),
    _rule("docker", "dckr_pat_ dckr_oat_", _URLSAFE + "{27,32}", 27),
    _rule("doppler", "dp.pt. dp.ct. dp.st. dp.sa. dp.scim. dp.audit.",
          r"(?:[a-z0-9_\-]{2,35}\.)?[A-Za-z0-9]{40,44}", 40),
    _rule("dropbox", "sl.", r"[A-Za-z0-9=_\-]{130,}", 130),
    _rule("duffel", "duffel_test_ duffel_live_", r"[A-Za-z0-9_\-=]{43}", 43),
    _rule("dynatrace", "dt0c01.", r"[A-Za-z0-9]{24}\.[A-Za-z0-9]{64}", 89),
    _rule("easypost", "EZAK EZTK", "[A-Za-z0-9]{54}", 54),
    _rule("facebook", "EAAM EAAC EAACEdEose0cBA", "[A-Za-z0-9]{80,}", 80),
    _rule("figma", "figd_", _URLSAFE + "{40,}", 40),
    _rule("flutterwave", "FLWSECK_TEST- FLWSECK-", "[a-h0-9]{32}-X", 34),
    _rule("fly", "fo1_", _URLSAFE + "{43}", 43),
    _rule("fly_macaroon", "fm1a_ fm1r_ fm2_", "[A-Za-z0-9+/]{100,}={0,3}", 100),
    _rule("frameio", "fio-u-", r"[A-Za-z0-9_=\-]{64}", 64),
    _rule("github", "ghp_ gho_ ghu_ ghs_ ghr_", _ALNUM + "{36,255}", 36, base62_checksum),
    _rule("github_fine_grained", "github_pat_", _ALNUM + "{22}_" + _ALNUM + "{59}", 82),
    _rule(
        "gitlab",
        "glpat- gldt- glrt- glptt- glft- glcbt- glsoat- glffct- glimt- glagent- gloas- GR1348941",
        _URLSAFE + r"{20,300}(?:\.[0-9a-z]{2}\.?[0-9a-z]{7})?",
        20,
    ),
    _rule("google_api", "AIza", _URLSAFE + "{35}", 35),
    _rule("google_oauth", "GOCSPX-", _URLSAFE + "{28}", 28),
    _rule("google_access", "ya29.", _URLSAFE + "{30,}", 30),
    _rule("grafana", "glsa_", _ALNUM + "{32}_[A-Fa-f0-9]{8}", 41, grafana_checksum),
    _rule("grafana_cloud", "glc_", "[A-Za-z0-9+/]{32,400}={0,3}", 32),
    _rule("grafana_api", "eyJrIjoi", _ALNUM + "{70,400}={0,3}", 70),
    _rule("groq", "gsk_", _ALNUM + "{52}", 52),
    _rule("harness", "pat. sat.", _URLSAFE + r"{22}\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{20}", 68),
    _rule("hashicorp_vault", "hvs. hvb. hvr.", _URLSAFE + "{24,}", 24),
    _rule("heroku", "HRKU-AA", _URLSAFE + "{58}", 58),
    _rule("huggingface", "hf_ api_org_", _ALNUM + "{34}", 34),
    _rule("infracost", "ico-", _ALNUM + "{32}", 32),
    _rule("intra42", "s-s4t2ud- s-s4t2af-", "[a-f0-9]{64}", 64),
    _rule("jwt", "eyJ", _URLSAFE + r"{10,}\.eyJ" + _URLSAFE + r"{10,}\." + _URLSAFE + "{16,}", 40, jwt_header),
    _rule("langsmith", "lsv2_pt_ lsv2_sk_", "[a-f0-9]{32}_[a-f0-9]{10}", 43),
    _rule("linear", "lin_api_", _ALNUM + "{40}", 40),
    _rule("lob", "live_ test_", "[a-f0-9]{35}", 35),
    _rule("mailgun", "key- pubkey-", "[0-9a-f]{32}", 32),
    _rule("mapbox", "sk.eyJ", r"[A-Za-z0-9_\-]{40,}\.[A-Za-z0-9_\-]{22}", 63),
    _rule("netlify", "nfp_", _ALNUM + "{36}", 36),
    _rule("new_relic", "NRAK-", "[A-Z0-9]{27}", 27),
    _rule("new_relic_insert", "NRII-", r"[A-Za-z0-9\-]{32}", 32),
    _rule("notion", "ntn_", "[0-9]{11}" + _ALNUM + "{35}", 46),
    _rule("notion_legacy", "secret_", _ALNUM + "{43}", 43),
    _rule("npm", "npm_", _ALNUM + "{36}", 36, base62_checksum),
    _rule("octopus", "API-", "[A-Z0-9]{25,26}", 25),
    _rule("openai", "sk-", _URLSAFE + "{20,}T3BlbkFJ" + _URLSAFE + "{20,}", 48),
    _rule("openrouter", "sk-or-v1-", "[a-f0-9]{64}", 64),
    _rule("openshift", "sha256~", _URLSAFE + "{43}", 43),
    _rule("perplexity", "pplx-", _ALNUM + "{48}", 48),
    _rule("plaid", "access-sandbox- access-development- access-production-", _UUID, 36),
    _rule("planetscale", "pscale_tkn_ pscale_oauth_ pscale_pw_", r"[A-Za-z0-9_=.\-]{32,64}", 32),
    _rule("postman", "PMAK-", "[a-f0-9]{24}-[a-f0-9]{34}", 59),
    _rule("prefect", "pnu_ pnb_", _ALNUM + "{36}", 36),
    _rule("pulumi", "pul-", "[a-f0-9]{40}", 40),
    _rule("pypi", "pypi-AgE", _URLSAFE + "{60,}", 60),
    _rule("readme", "rdme_", "[a-z0-9]{70}", 70),
    _rule("replicate", "r8_", _ALNUM + "{37}", 37),
    _rule("rubygems", "rubygems_", "[a-f0-9]{48}", 48),
    _rule("scalingo", "tk-us-", _URLSAFE + "{48}", 48),
    _rule("sendgrid", "SG.", _URLSAFE + r"{22}\." + _URLSAFE + "{43}", 66),
    _rule("sendinblue", "xkeysib-", "[a-f0-9]{64}-[A-Za-z0-9]{16}", 81),
    _rule("sentry_org", "sntrys_eyJ", "[A-Za-z0-9+/]{20,}={0,2}_[A-Za-z0-9+/]{43}", 60),
    _rule("sentry_user", "sntryu_", "[a-f0-9]{64}", 64),
    _rule("settlemint", "sm_aat_ sm_pat_ sm_sat_", _ALNUM + "{16}", 16),
    _rule("shippo", "shippo_live_ shippo_test_", "[A-Fa-f0-9]{40}", 40),
    _rule("shopify", "shpat_ shpca_ shppa_ shpss_", "[A-Fa-f0-9]{32}", 32),
    _rule("slack", "xoxa- xoxb- xoxe- xoxo- xoxp- xoxr- xoxs- xoxc- xoxd- xapp-",
          r"[A-Za-z0-9]+-[A-Za-z0-9\-]{10,}", 12),
    _rule("slack_rotated", "xoxe.xox", r"[bp]-[0-9]-[A-Z0-9]{160,}", 164),
    _rule(
        "slack_webhook",
        "hooks.slack.com/",
        "(?:services|workflows|triggers)/([A-Z][A-Za-z0-9]{7,12}/[A-Z][A-Za-z0-9]{7,12}/[A-Za-z0-9]{20,})",
        40,
    ),
    _rule("sonar", "sqp_ squ_ sqa_", "[a-f0-9]{40}", 40),
    _rule("sourcegraph", "sgp_", "(?:(?:[A-Fa-f0-9]{16}|local)_)?[A-Fa-f0-9]{40}", 40),
    _rule("square", "sq0atp- sq0csp- sq0idp- EAAA", _URLSAFE + "{22,60}", 22),
    _rule("stripe", "sk_live_ sk_test_ rk_live_ rk_test_ sk_prod_ rk_prod_", _ALNUM + "{16,}", 16),
    _rule("stripe_webhook", "whsec_", "[A-Za-z0-9+/]{32,}", 32),
    _rule("supabase", "sbp_", "[a-f0-9]{40}", 40),
    _rule("tailscale", "tskey-", r"[a-z]+-[A-Za-z0-9]{10,}-[A-Za-z0-9]{20,}", 30),
    _rule("twilio", "SK", "[0-9a-f]{32}", 32),
    _rule("twitter_bearer", "AAAAAAAAAAAAAAAAAAAAAA", "[A-Za-z0-9%]{80,100}", 80),
    _rule("typeform", "tfp_", r"[A-Za-z0-9_.=\-]{59}", 59),
    _rule("xai", "xai-", _ALNUM + "{80}", 80),
    _rule("yandex", "AQVN", _URLSAFE + "{35,38}", 35),
    _rule("yandex_iam", "t1.", r"[A-Za-z0-9_\-]+={0,2}\.[A-Za-z0-9_\-]{86}={0,2}", 88),
    _rule(
        "teams_webhook",
        ".webhook.office.com/webhookb2/",
        f"({_UUID}@{_UUID}/IncomingWebhook/[a-z0-9]{{32}}/{_UUID})",
        100,
    ),
    _rule("discord_webhook", "discord.com/api/webhooks/ discordapp.com/api/webhooks/",
          "([0-9]{17,20}/" + _URLSAFE + "{60,})", 78),
)  # fmt: skip

_INNER = (
    KeyRule("azure_client_secret", (b"Q~",), r"[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.\-]{31,34}", 31, 4, 4),
    KeyRule("facebook_app", (b"|",), rf"[0-9]{{15,16}}\|{_URLSAFE}{{27,40}}", 27, 16, 15, before="digit"),
    KeyRule("mailchimp", (b"-us",), r"[0-9a-f]{32}-us[0-9]{1,2}", 1, 32, 32, before="hex"),
    KeyRule("maxmind", (b"_mmk",), r"[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk", 0, 36, 36),
    KeyRule("telegram", (b":AA",), rf"[0-9]{{8,10}}:AA{_URLSAFE}{{33}}", 33, 10, 8, before="digit"),
    KeyRule(
        "terraform",
        (b".atlasv1.",),
        r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=\-]{60,70}",
        60,
        14,
        14,
        before="alnum",
    ),
)

_DISCORD = KeyRule(
    "discord",
    tuple(
        lead + start for lead in (b'"', b"'", b"`", b" ", b"=")
        for start in (b"MT", b"Mj", b"Mz", b"ND", b"NT", b"Nj", b"Nz", b"OD", b"OT")
    ),
    rf"[\"'` =]([MNO]{_URLSAFE}{{23,27}}\.{_URLSAFE}{{6}}\.{_URLSAFE}{{27,38}})",
    56,
    checksum=discord_user,
    needs_checksum=True,
)  # fmt: skip
"""The one format without a word of its own: it begins with base64 of decimal digits, and must be nothing else."""

KEY_RULES: tuple[KeyRule, ...] = (*_PREFIXED, *_INNER, _DISCORD)


@functools.cache
def keywords() -> tuple[tuple[bytes, int], ...]:
    """Every prefix, in lower case, with the number of its rule in `KEY_RULES`."""
    return tuple((prefix.lower(), number) for number, rule in enumerate(KEY_RULES) for prefix in rule.prefixes)
