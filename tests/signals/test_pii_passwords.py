"""Passwords where a name, a URL, a connection or a command says so; words and templates are none."""

import pytest

from starsmith.signals import pii


def passwords(text):
    data = text.encode()
    return [data[f.start : f.end].decode() for f in pii.find(data) if f.kind == "PASSWORD"]


@pytest.mark.parametrize(
    "value", ["hunter2", "Tr0ub4dor&3", "qwe!rty", "x9$K", "letmein99", "2010-Summer", "P4ss-Phrase.9"]
)
@pytest.mark.parametrize(
    "place",
    [
        'password = "{}"',
        "PASSWORD='{}'",
        '"password": "{}",',
        "'db_password' => '{}',",
        "const dbPassword: string = `{}`;",
        'user.passwd = "{}"',
        'String pwd = "{}";',
        "passphrase: '{}'",
        'password2 = "{}"',
        'ADMIN_PASS = "{}"',
        "<password>{}</password>",
        "ftp://me:{}@host.example.com/x",
        "redis://:{}@cache:6379/0",
        r'"{{\"password\": \"{}\"}}"',
        "Server=db;User Id=sa;Password={};",
        '"Uid=root;Pwd={}"',
        "mysqldump -uroot -p{} db > x",
        "sshpass -p '{}' ssh host",
        "curl -u admin:{} https://x.example",
        "login --password {} now",
        "password:='{}'",
    ],
)
def test_positions(value, place):
    assert passwords(place.format(value)) == [value]


@pytest.mark.parametrize(
    "line", ["DB_PASSWORD={}", "  password: {}", "export PGPASSWORD={}", "- password: {}", "spring.password={}"]
)
def test_bare_values_alone_on_their_line(line):
    for value in ("Xk29fj3Qpw", "s3cr!tValue", "qT7$kk"):
        assert passwords(f"a\n{line.format(value)}\nb") == [value]
        assert passwords(f"a\r\n{line.format(value)}\r\n") == [value]
    for value in (
        "password1",
        "hunter",
        "new_password",
        "getPassword()",
        "config.password",
        "$DB_PASSWORD",
        "argv[i+1];",
        "Buffer|Uint8Array",
        "${PW1:-x}",
    ):
        assert passwords(f"a\n{line.format(value)}\nb") == []


@pytest.mark.parametrize(
    "text",
    [
        'password = "password"',
        'password = "Passwort"',
        '"password": "string"',
        'password = ""',
        'password = "abc"',
        'password = "correct horse battery staple 9"',
        'password = "changeme1"',
        'password = "${DB_PASS_1}"',
        "pwd = '{{ pw1 }}'",
        'password = "your_password_1"',
        'password = "<password1>"',
        'password = "********"',
        'password = "%s1"',
        "password = 'xxxx1x'",
        'password = "auth.errors.min8"',
        'password = "/run/secrets/db_1"',
        'passwordField = "#login-2"',
        'password = "password1"',
        'password_hash = "Xk29fj3Qpw"',
        'passwordLabel = "Min 8 chars!"',
        'password_regex = "^[a-z0-9]$"',
        'password = "^(?=.*[0-9])"',
        'bypass = "x9$Kd"',
        'compass = "N45!E"',
        'password == "x9$Kdd"',
        'password != "x9$Kdd"',
        "password: String? = null",
        "https://me:password@host.com/",
        "https://user:${TOKEN1}@host.com/",
        "http://host:8080/a@b.c",
        "std::a:b4b4@c",
        "docker run -p 8080:80 x",
        "mysql -p db",
        "curl -u user: https://x",
        "--password PASSWORD",
        'add_argument("--password", 1)',
        "git://git:token@x.y/z",
        'pass = "1.2.3"',
        'data-password="confirm-2"',
        "input[type=password]:focus{color:#fff000}",
    ],
)
def test_what_is_no_password(text):
    assert passwords(text) == []


def test_random_passwords_are_passwords_and_not_keys():
    data = b'db_password = "kJ8sLq02mNbV5xZr7tYw"'
    (finding,) = pii.find(data)
    assert (finding.kind, finding.detector) == ("PASSWORD", "password")


def test_a_key_in_the_name_of_a_password():
    data = b'password_key = "kJ8sLq02mNbV5xZr7tYw"'
    (finding,) = pii.find(data)
    assert (finding.kind, data[finding.start : finding.end]) == ("KEY", b"kJ8sLq02mNbV5xZr7tYw")
