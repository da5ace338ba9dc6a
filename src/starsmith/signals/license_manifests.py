"""What a package manifest states of its licence, read from the text alone: nothing is executed or fetched.

Each format has one reader that returns the *statements* of a manifest as they are written: an SPDX expression,
a licence's name, a classifier, a URL. Sources: the packagers' own documentation (npm, Bower, Composer, Elm, dub,
Cargo, PEP 621 and 639, Poetry, setuptools, the core metadata of Python packages, "Writing R Extensions", Cabal,
Maven, NuGet, RubyGems, CocoaPods, Hex). A manifest that points to a file, or whose value would have to be
computed, says that there is a licence and not which: the statement `REFERENCE`.

A text without the letters `licen` states nothing and is not parsed. One that has them and cannot be parsed is
an `ManifestError`, never one without a licence. XML with a document type is refused (it could define
entities), and every reader is linear in the text.
"""

import ast
import configparser
import json
import re
import tomllib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from xml.parsers import expat

__all__ = ["REFERENCE", "ManifestError", "format_of", "statements"]

REFERENCE = "SEE LICENSE"
"""The statement that a licence exists elsewhere."""

_MENTION = re.compile("licen[cs]", re.IGNORECASE)


class ManifestError(ValueError):
    """The text is not in the format that its name promises; the message says why in one line."""


def format_of(name: str) -> str | None:
    """The format of a manifest by its base name: a key of the readers, or None for other files."""
    return _FORMAT_OF_NAME.get(name) or _FORMAT_OF_SUFFIX.get(name.rpartition(".")[2] if "." in name else "")


def statements(format_name: str, text: str) -> tuple[str, ...]:
    """What a manifest says, each statement once, in the order of the text.

    Args:
        format_name: from `format_of`.
        text: the whole manifest.

    Returns:
        Statements without surrounding white space; never an empty one.

    Raises:
        ManifestError: the text mentions licences and is not in this format.
    """
    if not _MENTION.search(text):
        return ()
    try:
        found = list(_READERS[format_name](text.removeprefix("\ufeff")))
    except RecursionError:
        raise ManifestError(f"not valid {format_name}: nested too deeply") from None
    except (ValueError, configparser.Error, expat.ExpatError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ManifestError(f"not valid {format_name}: {reason}") from None
    return tuple(dict.fromkeys(value for value in map(str.strip, found) if value))


# ---- JSON: package.json, bower.json, composer.json, elm.json, dub.json


def _read_json(text: str) -> Iterator[str]:
    """npm: a string, or the older object or list of `{type, url}`; Composer and Bower: a string or a list."""
    manifest = json.loads(text)
    if not isinstance(manifest, dict):
        raise ValueError(f"expected an object, got {type(manifest).__name__}")
    for key in ("license", "licence", "licenses", "licences"):
        yield from _json_values(manifest.get(key))


def _json_values(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        named = [value[key] for key in ("type", "name", "url", "file") if isinstance(value.get(key), str)]
        yield from named[:1]
    elif isinstance(value, list):
        for entry in value:
            if isinstance(entry, str | dict):
                yield from _json_values(entry)


# ---- TOML: Cargo.toml, pyproject.toml


def _read_toml(text: str) -> Iterator[str]:
    manifest = tomllib.loads(text)
    cargo = _table(manifest, "package")
    workspace = _table(_table(manifest, "workspace"), "package")
    poetry = _table(_table(manifest, "tool"), "poetry")
    for table in (_table(manifest, "project"), poetry, cargo, workspace):
        value = table.get("license")
        if isinstance(value, str):  # PEP 639, Poetry, Cargo
            yield value
        elif isinstance(value, dict):  # PEP 621, or Cargo's `workspace = true`
            text_value = value.get("text")
            yield text_value if isinstance(text_value, str) else REFERENCE
        elif "license-file" in table:
            yield REFERENCE
        yield from _license_classifiers(table.get("classifiers"))


def _table(tables: dict[str, Any], key: str) -> dict[str, Any]:
    value = tables.get(key)
    return value if isinstance(value, dict) else {}


def _license_classifiers(values: Any) -> Iterator[str]:
    """Trove classifiers of licences; `License :: OSI Approved` alone names none."""
    for value in values if isinstance(values, list | tuple) else ():
        if (
            isinstance(value, str)
            and value.startswith("License ::")
            and value.strip() != "License :: OSI Approved"
        ):
            yield value


# ---- setup.cfg, setup.py


def _read_setup_cfg(text: str) -> Iterator[str]:
    parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    parser.read_string(text)
    if parser.has_section("metadata"):
        metadata = parser["metadata"]
        yield _file_or_text(metadata.get("license") or "")
        yield from _license_classifiers(
            [line.strip() for line in (metadata.get("classifiers") or "").splitlines()]
        )


def _file_or_text(value: str) -> str:
    return REFERENCE if value.strip().lower().startswith("file:") else value


_OLD_LICENSE = re.compile(r"""^[ \t]*license[ \t]*=[ \t]*(?:"([^"\n]*)"|'([^'\n]*)')""", re.MULTILINE)
_OLD_CLASSIFIER = re.compile(r"""["'](License ::[^"'\n]*)["']""")


def _read_setup_py(text: str) -> Iterator[str]:
    """The keywords of the call of `setup`, read from the syntax tree; from the lines when that is Python 2's."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser warns of escapes in texts that are not ours to mend
            tree = ast.parse(text)
    except (SyntaxError, MemoryError) as error:  # a MemoryError is the parser's stack, not the machine's
        found = [double or single for double, single in _OLD_LICENSE.findall(text)]
        found += _license_classifiers(_OLD_CLASSIFIER.findall(text))
        if not found:
            raise ValueError(f"{type(error).__name__}: {error}") from None
        yield from found
        return
    names = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for key, value in _setup_keywords(tree, names):
        constant = names.get(value.id, value) if isinstance(value, ast.Name) else value
        if key == "license":
            if isinstance(constant, ast.Constant):
                yield constant.value if isinstance(constant.value, str) else ""
            else:
                yield REFERENCE
        elif key == "classifiers":
            yield from _license_classifiers(_strings(constant))


def _setup_keywords(tree: ast.Module, names: dict[str, ast.expr]) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or _called(node.func) != "setup":
            continue
        for keyword in node.keywords:
            value = keyword.value
            if keyword.arg is not None:
                yield keyword.arg, value
                continue
            unpacked = names.get(value.id) if isinstance(value, ast.Name) else value
            if isinstance(unpacked, ast.Dict):
                for key, entry in zip(unpacked.keys, unpacked.values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(key.value, str):
                        yield key.value, entry
            elif isinstance(unpacked, ast.Call) and _called(unpacked.func) == "dict":
                yield from ((entry.arg, entry.value) for entry in unpacked.keywords if entry.arg is not None)


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _strings(value: ast.expr) -> list[str]:
    """The strings of a literal list, of one long string's lines, and of what is added or split from these."""
    return [
        line.strip()
        for node in ast.walk(value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for line in node.value.splitlines()
    ]


# ---- fields of the form `Key: value`: PKG-INFO, METADATA, DESCRIPTION, *.cabal

_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9_.@/-]*)[ \t]*:(.*)", re.DOTALL)


def _fields(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Fields from the first column on, with their indented continuation lines; other lines end a field."""
    found: list[tuple[str, list[str]]] = []
    is_open = False
    for line in lines:
        if line[:1] in (" ", "\t") and line.strip():
            if is_open:
                found[-1][1].append(line.strip())
            continue
        field = _FIELD.fullmatch(line)
        is_open = field is not None
        if field is not None:
            found.append((field[1].lower(), [field[2].strip()]))
    return [(key, "\n".join(values).strip()) for key, values in found]


def _first_block(text: str) -> Iterator[str]:
    """The lines before the first empty one, where the body of a message begins."""
    for line in text.lstrip("\r\n").splitlines():
        if not line.strip():
            return
        yield line


def _read_metadata(text: str) -> Iterator[str]:
    """The core metadata of Python packages; `License-Expression` makes the older fields void (PEP 639)."""
    fields = _fields(_first_block(text))
    if not any(key == "metadata-version" for key, _ in fields):
        return  # another kind of file under that name
    expressions = [value for key, value in fields if key == "license-expression"]
    if expressions:
        yield from expressions
        return
    yield from (value for key, value in fields if key == "license")
    yield from _license_classifiers([value for key, value in fields if key == "classifier"])


def _read_description(text: str) -> Iterator[str]:
    """R: alternatives with `|`, each perhaps `+ file LICENSE` (its additional terms), versions in parentheses."""
    fields = _fields(_first_block(text))
    if not any(key == "package" for key, _ in fields):
        return
    for key, value in fields:
        if key == "license":
            for alternative in " ".join(value.split()).split("|"):
                name = re.sub(r"\+? *\bfile +LICEN[CS]E\b", "", alternative).strip()
                yield _R_NAMES.get(re.sub(r"[ ()]", "", name), name) or REFERENCE


def _read_cabal(text: str) -> Iterator[str]:
    fields = _fields(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    names = [value for key, value in fields if key == "license"]
    for name in names:
        yield _CABAL_NAMES.get(name, name)
    if not names and any(key in ("license-file", "license-files") for key, _ in fields):
        yield REFERENCE


_R_NAMES = {
    f"{family}{operator}{version}": f"{spdx_family}-{version if '.' in version else version + '.0'}-{suffix}"
    for family, spdx_family, versions in (
        ("GPL", "GPL", ("2", "2.0", "3", "3.0")),
        ("LGPL", "LGPL", ("2", "2.0", "2.1", "3", "3.0")),
        ("AGPL", "AGPL", ("3", "3.0")),
    )
    for version in versions
    for operator, suffix in (("-", "only"), ("==", "only"), (">=", "or-later"), (">", "or-later"))
} | {
    "GPL": "GPL-1.0-or-later",
    "LGPL": "LGPL-2.0-or-later",
    "AGPL": "AGPL-3.0-or-later",
    "BSD_2_clause": "BSD-2-Clause",
    "BSD_3_clause": "BSD-3-Clause",
    "CC0": "CC0-1.0",
    "Unlimited": "LicenseRef-scancode-other-permissive",
}
"""R's abbreviations, without blanks and parentheses, as SPDX keys."""

_CABAL_NAMES = {
    "GPL-2": "GPL-2.0-only",
    "GPL-3": "GPL-3.0-only",
    "LGPL-2.1": "LGPL-2.1-only",
    "LGPL-3": "LGPL-3.0-only",
    "AGPL-3": "AGPL-3.0-only",
    "BSD2": "BSD-2-Clause",
    "BSD3": "BSD-3-Clause",
    "BSD4": "BSD-4-Clause",
    "PublicDomain": "LicenseRef-scancode-public-domain",
    "AllRightsReserved": "LicenseRef-scancode-proprietary-license",
    "OtherLicense": REFERENCE,
    "UnspecifiedLicense": "",
}
"""The names of Cabal before 2.2, where these are not SPDX keys already."""


# ---- XML: pom.xml, *.nuspec


def _read_xml(text: str) -> Iterator[str]:
    """Maven: each `license` has a name and a URL; NuGet: an expression or file, or the older `licenseUrl`."""
    for path, attributes, value in _xml_elements(text):
        if path[:3] == ("project", "licenses", "license") and path[3:] in (("name",), ("url",)):
            yield value
        elif path == ("package", "metadata", "license"):
            yield REFERENCE if attributes.get("type") == "file" else value
        elif path == ("package", "metadata", "licenseUrl"):
            expression = re.fullmatch(r"https?://licenses\.nuget\.org/(.+)", value)
            if expression is not None:
                yield expression[1].replace("%20", " ")
            elif not value.endswith("deprecateLicenseUrl"):  # stands beside `license` for old clients
                yield value


def _xml_elements(text: str) -> list[tuple[tuple[str, ...], dict[str, str], str]]:
    """The path, attributes and text of each element that ends, namespaces cut off."""
    found: list[tuple[tuple[str, ...], dict[str, str], str]] = []
    stack: list[tuple[str, dict[str, str], list[str]]] = []
    depth_kept = 4  # no element that is wanted lies deeper

    def start(name: str, attributes: dict[str, str]) -> None:
        stack.append((name.rpartition(":")[2], attributes, []))

    def end(_: str) -> None:
        _, attributes, words = stack[-1]
        if len(stack) <= depth_kept:
            found.append((tuple(name for name, _, _ in stack), attributes, "".join(words).strip()))
        stack.pop()

    def words(data: str) -> None:
        if stack:
            stack[-1][2].append(data)

    def refuse(*_: Any) -> None:
        raise ValueError("it declares a document type, which is not read")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = words
    parser.StartDoctypeDeclHandler = refuse
    # The text is decoded already; what its declaration says of the encoding no longer holds.
    parser.Parse(re.sub(r"\A\s*<\?xml[^>]*\?>", "", text).encode("utf-8", "surrogatepass"), True)
    return found


# ---- Ruby and Elixir, by their conventions: *.gemspec, *.podspec, mix.exs

_VALUE_CHARS = 1_000
"""How far a list or hash that is not closed is followed; a bound, so that many such cost no more than the text."""

_RUBY = re.compile(r"^[ \t]*\w+\.licen[cs]es?[ \t]*=[ \t]*(.*)$", re.MULTILINE)
_PERCENT_WORDS = re.compile(r"%[wW][\[({<]([^\])}>]*)")
_QUOTED = re.compile(r"\"([^\"\n]*)\"|'([^'\n]*)'")
_POD_TYPE = re.compile(r":type *=>|\btype:")
_ELIXIR = re.compile(r"\blicen[cs]es:[ \t\n]*(\[[^\]]{0,1000}\]|~w[\[({/|\"'][^\])}/|\"']{0,1000})")


def _read_ruby(text: str) -> Iterator[str]:
    for match in _RUBY.finditer(text):
        value = match[1]
        whole = text[match.start(1) : match.start(1) + _VALUE_CHARS]
        if value.startswith("["):
            found = _quoted(whole.partition("]")[0])
        elif value.startswith("{"):
            inside = whole.partition("}")[0]
            named = _POD_TYPE.search(inside)
            found = _quoted(inside[named.end() :])[:1] if named else []
        elif value.startswith("%"):
            found = " ".join(_PERCENT_WORDS.findall(whole)[:1]).split()
        else:
            found = _quoted(value)
        yield from found or [REFERENCE]


def _read_elixir(text: str) -> Iterator[str]:
    for match in _ELIXIR.finditer(text):
        value = match[1]
        yield from value[3:].split() if value.startswith("~w") else _quoted(value)


def _quoted(text: str) -> list[str]:
    return [double or single for double, single in _QUOTED.findall(text)]


_READERS: dict[str, Callable[[str], Iterable[str]]] = {
    "JSON": _read_json,
    "TOML": _read_toml,
    "setup.cfg": _read_setup_cfg,
    "setup.py": _read_setup_py,
    "core metadata": _read_metadata,
    "R metadata": _read_description,
    "Cabal": _read_cabal,
    "XML": _read_xml,
    "Ruby": _read_ruby,
    "Elixir": _read_elixir,
}

_FORMAT_OF_NAME = {
    "package.json": "JSON",
    "bower.json": "JSON",
    "composer.json": "JSON",
    "elm.json": "JSON",
    "dub.json": "JSON",
    "Cargo.toml": "TOML",
    "pyproject.toml": "TOML",
    "setup.cfg": "setup.cfg",
    "setup.py": "setup.py",
    "PKG-INFO": "core metadata",
    "METADATA": "core metadata",
    "DESCRIPTION": "R metadata",
    "pom.xml": "XML",
    "mix.exs": "Elixir",
}
_FORMAT_OF_SUFFIX = {"nuspec": "XML", "cabal": "Cabal", "gemspec": "Ruby", "podspec": "Ruby"}
