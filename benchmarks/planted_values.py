"""Made-up personal data and secrets, and lines of code for them: drawn from a seed, the same everywhere.

A value is drawn from the description of its kind (lists of given names and surnames, mail domains, alphabets and
lengths of tokens), not from any detector's expression, and put into a line as programs and configuration have
them. Whoever finds them all has shown that it knows these forms, no more: real leaks are more varied, so a recall
measured on them is an upper bound. Nothing here is, or was, anybody's.
"""

import base64
import random
import string
import zlib
from collections.abc import Callable
from dataclasses import dataclass

GIVEN = [
    "Ada",
    "Alan",
    "Grace",
    "Linus",
    "Barbara",
    "Dennis",
    "Margaret",
    "Ken",
    "Hedy",
    "Edsger",
    "Sofia",
    "Mehmet",
    "Ana",
    "Oluwaseun",
    "Priya",
    "Wei",
    "Yuki",
    "Zoë",
    "Łukasz",
    "José",
    "Márta",
    "Björn",
    "Chloé",
    "Fatima",
    "Ivan",
    "Noor",
    "Tomás",
    "Ingrid",
    "Kwame",
    "Leila",
]
SURNAMES = [
    "Lovelace",
    "Turing",
    "Hopper",
    "Hamilton",
    "Thompson",
    "Lamarr",
    "Dijkstra",
    "Kovalevskaya",
    "Yildiz",
    "García",
    "Adeyemi",
    "Sharma",
    "Chen",
    "Tanaka",
    "Müller",
    "Żak",
    "Novák",
    "Szabó",
    "Lindström",
    "Dubois",
    "Haddad",
    "Petrov",
    "O'Brien",
    "Almeida",
    "Nilsen",
    "Mensah",
    "Farahani",
    "McDonald",
    "Smith-Jones",
]
PARTICLES = ("", "", "", "", "van der ", "de ", "von ", "M. ", "J. R. ")
DOMAINS = [
    "gmail.com",
    "outlook.com",
    "mit.edu",
    "kernel.org",
    "uni-bonn.de",
    "company.co.uk",
    "acme.io",
    "startup.dev",
    "free.fr",
    "qq.com",
]
ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
PHRASES = ["Summer", "Winter", "dragon", "monkey", "shadow", "Falcon", "purple", "tiger", "Rocket", "coffee"]


@dataclass(frozen=True)
class Plant:
    """A line with a value in it."""

    kind: str
    value: str
    line: str


def plant(kind: str, rng: random.Random) -> Plant:
    """A value of a kind and a line around it.

    Raises:
        KeyError: a kind that is none of `KINDS`.
    """
    make, lines = _KINDS[kind]
    value = make(rng)
    line = rng.choice(lines).replace("{}", value)
    return Plant(kind, value, line.replace("{email}", _email(rng)).replace("{year}", str(rng.randint(1995, 2025))))


def _drawn(rng: random.Random, alphabet: str, length: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(length))


def _name(rng: random.Random) -> str:
    return f"{rng.choice(GIVEN)} {rng.choice(PARTICLES)}{rng.choice(SURNAMES)}"


def _email(rng: random.Random) -> str:
    given, surname = (_ascii(rng.choice(names)).lower() for names in (GIVEN, SURNAMES))
    local = rng.choice(
        (f"{given}.{surname}", f"{given[0]}{surname}", f"{given}{rng.randint(1, 99)}", f"{given}+dev")
    )
    return f"{local}@{rng.choice(DOMAINS)}"


def _ascii(name: str) -> str:
    return "".join(letter for letter in name if letter.isascii() and letter.isalpha())


def _ip_address(rng: random.Random) -> str:
    if rng.random() < 0.2:
        return "2a00:1450:" + ":".join(f"{rng.randrange(1, 65536):x}" for _ in range(6))
    return f"{rng.choice((23, 51, 79, 93, 144, 151, 185, 212))}." + ".".join(
        str(rng.randint(40, 254)) for _ in range(3)
    )


def _password(rng: random.Random) -> str:
    return rng.choice(
        (
            f"{rng.choice(PHRASES)}{rng.randint(10, 9999)}",
            f"{rng.choice(PHRASES)}{rng.choice('!#%&*+')}{rng.randint(1, 99)}",
            _drawn(rng, ALNUM, rng.randint(8, 20)),
            _drawn(rng, ALNUM + "!#%&*+", rng.randint(8, 16)),
            f"{rng.choice(PHRASES)}-{rng.choice(PHRASES)}-{rng.randint(100, 999)}",
        )
    )


def _checked(prefix: str, rng: random.Random) -> str:
    digits, body = string.digits + string.ascii_uppercase + string.ascii_lowercase, _drawn(rng, ALNUM, 30)
    number, checksum = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        checksum = digits[digit] + checksum
    return prefix + body + checksum


def _key(rng: random.Random) -> str:
    def part(length: int) -> str:
        return base64.urlsafe_b64encode(rng.randbytes(length)).decode().rstrip("=")

    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
    claims = base64.urlsafe_b64encode(b'{"sub":"%d"}' % rng.randrange(10**9)).decode().rstrip("=")
    makers: tuple[Callable[[], str], ...] = (
        lambda: _checked(rng.choice(("ghp_", "gho_", "ghs_", "npm_")), rng),
        lambda: "AKIA" + _drawn(rng, string.ascii_uppercase + "234567", 16),
        lambda: "AIza" + part(30)[:35].ljust(35, "x"),
        lambda: f"xoxb-{rng.randrange(10**11, 10**12)}-{rng.randrange(10**11, 10**12)}-{_drawn(rng, ALNUM, 24)}",
        lambda: "sk_live_" + _drawn(rng, ALNUM, 24),
        lambda: f"SG.{part(16)}.{part(32)}",
        lambda: "glpat-" + _drawn(rng, ALNUM, 20),
        lambda: f"{header}.{claims}.{part(32)}",
        lambda: _drawn(rng, HEX, 32) + f"-us{rng.randint(1, 20)}",
        lambda: _drawn(rng, ALNUM, rng.choice((20, 24, 32, 40))),
        lambda: _drawn(rng, HEX, rng.choice((24, 48))),
        lambda: part(rng.choice((18, 24, 33))),
    )
    return rng.choice(makers)()


_KINDS: dict[str, tuple[Callable[[random.Random], str], tuple[str, ...]]] = {
    "EMAIL": (
        _email,
        (
            "# contact {} for access",
            'SUPPORT = "{}"',
            "<a href='mailto:{}'>write</a>",
            "// TODO({}): remove",
            "to: {}",
            '  "email": "{}",',
            "see https://acme.io/u?mail={}",
            "$mail->addAddress('{}');",
        ),
    ),
    "IP_ADDRESS": (
        _ip_address,
        (
            "# ssh deploy@build reaches {} only",
            'HOST = "{}"',
            "server {};",
            "  address: {}",
            "ping -c 1 {}",
            "const peers = ['{}'];",
            "listen_on({}, 80)",
        ),
    ),
    "NAME": (
        _name,
        (
            "# Copyright (c) {year} {}",
            " * @author {}",
            '__author__ = "{}"',
            "// Written by {}",
            "Author: {}",
            '"author": "{} <{email}>",',
            "Signed-off-by: {} <{email}>",
            "# (c) {year}, {}",
            'authors = [{ name = "{}" }]',
            "maintainer: {}",
            "# {} fixed this in {year}",
            "// thanks to {} for the patch",
        ),
    ),
    "PASSWORD": (
        _password,
        (
            'password = "{}"',
            "DB_PASSWORD='{}'",
            '  "password": "{}",',
            "mysql -u root -p{} shop",
            'url = "postgres://app:{}@db.acme.io:5432/app"',
            "  password: '{}'",
            'conn = "Server=db;User Id=sa;Password={};"',
            "curl -u admin:{} https://acme.io/x",
            "<password>{}</password>",
            'login("admin", "{}")',
            "$pwd = '{}';",
            "sshpass -p {} ssh root@build",
        ),
    ),
    "KEY": (
        _key,
        (
            'api_key = "{}"',
            "export AUTH_TOKEN={}",
            "  'client_secret': '{}',",
            "// key: '{}'",
            "Authorization: Bearer {}",
            'const apiKey: string = "{}";',
            "  secret_key: {}",
            'setToken(token="{}")',
            'headers["X-Api-Key"] = "{}"',
            "<apiKey>{}</apiKey>",
        ),
    ),
}
KINDS = tuple(_KINDS)
