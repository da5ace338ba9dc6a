"""What each packager's manifest states, and what hostile or broken ones cost."""

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.corpus.license_paths import is_manifest
from starsmith.signals.license_manifests import REFERENCE, ManifestError, format_of, statements


def read(name, text):
    format_name = format_of(name)
    assert format_name is not None
    return list(statements(format_name, text))


PKG_INFO = """Metadata-Version: 2.1
Name: example
License: BSD 3-Clause
        with an exception
Classifier: Programming Language :: Python
Classifier: License :: OSI Approved
Classifier: License :: OSI Approved :: BSD License

License: of the body, which is not a field
"""
POM = """<?xml version="1.0" encoding="ISO-8859-1"?>
<project xmlns="http://maven.apache.org/POM/4.0.0"><name>x</name>
 <licenses><license><name>Apache License, Version 2.0</name><url>https://apache.org/licenses/LICENSE-2.0</url>
 </license></licenses>
 <dependencies><dependency><licenses><license><name>no</name></license></licenses></dependency></dependencies>
</project>"""
SETUP = """from setuptools import setup
raise SystemExit("this is never executed")
LICENSE = "MIT"
more = dict(classifiers=["License :: OSI Approved :: MIT License", "Topic :: Utilities"])
setup(name="x", license=LICENSE, **more)
"""
GEMSPEC = """Gem::Specification.new do |spec|
  spec.licenses = ["MIT",
    'Ruby']
end
"""
MIX = 'defp package do\n  [licenses: ["Apache-2.0",\n "MIT"], links: %{"GitHub" => "x"}]\nend\n'

CASES = [
    ("package.json", '{"license": "MIT"}', ["MIT"]),
    ("package.json", '\ufeff{"licence": "(MIT OR Apache-2.0)"}', ["(MIT OR Apache-2.0)"]),
    ("package.json", '{"license": {"type": "ISC", "url": "https://x"}}', ["ISC"]),
    ("package.json", '{"licenses": [{"type": "MIT"}, {"url": "https://x"}, "MIT", 7]}', ["MIT", "https://x"]),
    ("package.json", '{"license": "SEE LICENSE IN x.md"}', ["SEE LICENSE IN x.md"]),
    ("package.json", '{"name": "licensed", "license": ""}', []),
    ("bower.json", '{"license": ["MIT", "GPL-2.0"]}', ["MIT", "GPL-2.0"]),
    ("composer.json", '{"license": "proprietary"}', ["proprietary"]),
    ("Cargo.toml", '[package]\nlicense = "MIT/Apache-2.0"\n', ["MIT/Apache-2.0"]),
    (
        "Cargo.toml",
        '[workspace.package]\nlicense = "MIT"\n[package]\nlicense.workspace = true\n',
        [REFERENCE, "MIT"],
    ),
    ("Cargo.toml", '[package]\nlicense-file = "COPYING"\n', [REFERENCE]),
    ("Cargo.toml", '[dependencies]\nlicense = "1.0"\n', []),
    ("pyproject.toml", '[project]\nlicense = "MIT AND (Apache-2.0 OR BSD-2-Clause)"\n', None),
    ("pyproject.toml", '[project]\nlicense = {text = "BSD"}\nclassifiers = ["License :: Public Domain"]\n', None),
    ("pyproject.toml", '[project]\nlicense = {file = "LICENSE"}\n', [REFERENCE]),
    ("pyproject.toml", '[tool.poetry]\nlicense = "MIT"\n', ["MIT"]),
    ("setup.cfg", "[metadata]\nlicense = MIT\nclassifiers =\n    License :: OSI Approved :: MIT License\n", None),
    ("setup.cfg", "[metadata]\nlicense = file: LICENSE\n", [REFERENCE]),
    ("setup.cfg", "[other]\nlicense = MIT\n", []),
    ("setup.py", SETUP, ["MIT", "License :: OSI Approved :: MIT License"]),
    ("setup.py", "import setuptools\nsetuptools.setup(license=open('LICENSE').read())\n", [REFERENCE]),
    ("setup.py", "setup(**{'license': 'ISC'})\n", ["ISC"]),
    ("setup.py", "print 'python 2'\nsetup(\n  license='GPL',\n  x=1)\n", ["GPL"]),
    ("setup.py", "# the license\nother(license='MIT')\n", []),
    ("PKG-INFO", PKG_INFO, ["BSD 3-Clause\nwith an exception", "License :: OSI Approved :: BSD License"]),
    ("METADATA", "Metadata-Version: 2.4\nLicense-Expression: MIT\nLicense: other\n", ["MIT"]),
    ("METADATA", "some other file about a license\n", []),
    ("DESCRIPTION", "Package: x\nLicense: GPL (>= 2) | file LICENSE\n", ["GPL-2.0-or-later", REFERENCE]),
    ("DESCRIPTION", "Package: x\nLicense: MIT + file LICENSE\n", ["MIT"]),
    ("DESCRIPTION", "Package: x\nLicense: LGPL-2.1 | BSD_3_clause + file LICENSE\n", None),
    ("x.cabal", "cabal-version: 1.10\nLicense:   BSD3\nlicense-file: LICENSE\n", ["BSD-3-Clause"]),
    ("x.cabal", "name: x\n-- license: MIT\nlicense-file: LICENSE\n", [REFERENCE]),
    ("x.cabal", "name: x\n\nlibrary\n  license: MIT\n", []),
    ("pom.xml", POM, ["Apache License, Version 2.0", "https://apache.org/licenses/LICENSE-2.0"]),
    ("x.nuspec", '<package><metadata><license type="expression">MIT</license></metadata></package>', ["MIT"]),
    ("x.nuspec", '<package><metadata><license type="file">a</license></metadata></package>', [REFERENCE]),
    (
        "x.nuspec",
        "<package><metadata><licenseUrl>https://licenses.nuget.org/MIT%20OR%20ISC</licenseUrl></metadata></package>",
        ["MIT OR ISC"],
    ),
    ("x.gemspec", GEMSPEC, ["MIT", "Ruby"]),
    ("x.gemspec", "s.license = 'MIT'\n# s.license = 'GPL'\n", ["MIT"]),
    ("x.gemspec", "s.licenses = %w[MIT BSD-2-Clause]\n", ["MIT", "BSD-2-Clause"]),
    ("x.gemspec", "s.license = File.read(path)\n", [REFERENCE]),
    ("x.podspec", "s.license = { :type => 'MIT', :file => 'LICENSE' }\n", ["MIT"]),
    ("x.podspec", "s.license = { :file => 'LICENSE' }\n", [REFERENCE]),
    ("mix.exs", MIX, ["Apache-2.0", "MIT"]),
    ("mix.exs", "[licenses: ~w(MIT ISC)]", ["MIT", "ISC"]),
]
EXPECTED = {
    '[project]\nlicense = "MIT AND (Apache-2.0 OR BSD-2-Clause)"\n': ["MIT AND (Apache-2.0 OR BSD-2-Clause)"],
    '[project]\nlicense = {text = "BSD"}\nclassifiers = ["License :: Public Domain"]\n': [
        "BSD",
        "License :: Public Domain",
    ],
    "[metadata]\nlicense = MIT\nclassifiers =\n    License :: OSI Approved :: MIT License\n": [
        "MIT",
        "License :: OSI Approved :: MIT License",
    ],
    "Package: x\nLicense: LGPL-2.1 | BSD_3_clause + file LICENSE\n": ["LGPL-2.1-only", "BSD-3-Clause"],
}


@pytest.mark.parametrize(("name", "text", "expected"), CASES)
def test_what_manifests_state(name, text, expected):
    assert is_manifest(f"/{name}")
    assert read(name, text) == (EXPECTED[text] if expected is None else expected)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("package.json", '{"license": "MIT"', "not valid JSON"),
        ("package.json", '["license"]', "expected an object, got list"),
        ("package.json", '{"license": ' + "[" * 100_000, "not valid JSON"),
        ("Cargo.toml", 'license = "MIT', "not valid TOML"),
        ("setup.cfg", "license without a section\n", "not valid setup.cfg"),
        ("setup.py", "# license\nthis is no python\n", "not valid setup.py: SyntaxError"),
        ("pom.xml", "<project><licenses></project>", "not valid XML"),
        ("pom.xml", '<!DOCTYPE a [<!ENTITY b "MIT">]><project><licenses/></project>', "declares a document type"),
    ],
)
def test_manifests_that_cannot_be_read_say_why_in_a_line(name, text, reason):
    with pytest.raises(ManifestError, match=reason) as raised:
        read(name, text)
    assert len(str(raised.value)) < 300
    assert "\n" not in str(raised.value)


def test_a_broken_manifest_that_does_not_speak_of_licences_states_nothing():
    assert read("package.json", "{{ cookiecutter.name }}") == []
    assert read("Cargo.toml", "= broken") == []


NAMES = ("package.json", "Cargo.toml", "setup.cfg", "setup.py", "PKG-INFO", "DESCRIPTION", "pom.xml", "mix.exs")
NAMES = (*NAMES, "x.gemspec", "x.cabal", "x.nuspec")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "unit",
    [
        "license: [",
        "s.license = {",
        's.license = ["',
        "licenses: ~w(",
        "License:\n ",
        "license\t",
        "<license>",
        "(",
    ],
)
def test_hostile_repetitions_take_time_in_proportion(name, unit):
    started = time.process_time()
    with contextlib.suppress(ManifestError):
        read(name, "license\n" + unit * (100_000 // len(unit)))
    assert time.process_time() - started < 2.0


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.lists(
        st.sampled_from(
            ["license", ":", "=", "[", "]", "{", "}", '"', "'", "\n", " ", "MIT", "setup(", ")", "<", ">", "%w",
             "[metadata]", "Package: x\n", "Metadata-Version: 2\n", "\x00", "\ud7ff", "=>", ":type", "#", "|"]
        ),
        max_size=40,
    ),
)  # fmt: skip
def test_any_text_gives_statements_or_a_reason(name, pieces):
    try:
        found = read(name, "license " + "".join(pieces))
    except ManifestError:
        return
    assert all(value and value == value.strip() for value in found)
    assert len(found) == len(set(found))
