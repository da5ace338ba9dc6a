"""What linguist's heuristics can look at, so that go-enry is shown only the lines that may matter.

Where an extension belongs to several languages, enry asks an ordered list of expressions of linguist's
(`heuristics.yml`); the first that matches somewhere names the language. Go's engine runs them at some 5 MB/s.
A clue is a necessary condition of such a rule, written for RE2, whose automaton reads some hundred times
faster: wherever the rule matches, the clue matches too, beginning at the rule's first character (blank lines
and indentation before it aside) and reaching to its last line. So the lines of a clue hold the whole match,
and enry itself is asked about these lines alone. Without a clue the answer is that for an empty text.

The table has the extensions that are common in source archives and whose rules look at lines. Rules that span
lines without a bound, or ask that something is nowhere, are clues that are not local: then enry gets the whole
text. All other extensions go to enry as they are. Clues follow the linguist data of `RELEASE`.
"""

import functools
from dataclasses import dataclass

import re2

RELEASE = "0.2.0"
"""The release of enry-python whose rules the clues were taken from."""

_MIN_TRIES = 16
_BYTES_PER_TRY = 200
"""Text that enry reads in the time of one more question: with more tries the whole text would be cheaper."""


@dataclass(frozen=True)
class Clue:
    language: str
    """What the rule says where it matches."""
    expression: str
    """In RE2's syntax; `^` and `$` are ends of lines."""
    is_local: bool = True
    """Whether the lines of a match decide; else the whole text is asked about."""

    @functools.cached_property
    def compiled(self) -> "re2._Regexp":
        return re2.compile(b"(?m)" + self.expression.encode())


def language_by_content(extension: str, data: bytes, clues: tuple[Clue, ...]) -> str:
    """`enry.get_language_by_content` for a name with this extension; "" when no rule matches.

    Args:
        extension: in lower case, with its dot.
        data: UTF-8 text.
        clues: `CLUES[extension]`.
    """
    for clue in clues:
        position = asked = 0
        for _ in range(_MIN_TRIES + len(data) // _BYTES_PER_TRY):
            hit = clue.compiled.search(data, position)
            if hit is None:
                break
            if not clue.is_local:
                return _ask(extension, data)
            start = data.rfind(b"\n", 0, hit.start()) + 1
            end = data.find(b"\n", hit.end()) + 1 or len(data)
            if end > asked and _ask(extension, data[start:end]) == clue.language:
                return clue.language
            asked, position = max(asked, end), hit.start() + 1
        else:
            return _ask(extension, data)
    return _without_clues(extension)


def _ask(extension: str, data: bytes) -> str:
    import enry

    return str(enry.get_language_by_content(f"x{extension}", data).language)


@functools.cache
def _without_clues(extension: str) -> str:
    return _ask(extension, b"\n")


_INDENT = r"^[\t\f\r ]*"
_OBJECTIVE_C = Clue(
    "Objective-C",
    _INDENT + r"(?:@(?:interface|class|protocol|property|end|synchroni|selector|implementation)|#import\s+\S)",
)
_PERL_PARTS = (r"\buse\s+\S+", r"EXPORT\s*=", r"package\s+[\w:]+\s*\S*", r"[\s$]\w+(?::\w+)*->")
_RAKU_VERSION = Clue("Perl", r"use\s+v6", is_local=False)
_PERL = Clue("Perl", "|".join(_PERL_PARTS))
_RAKU = Clue("Raku", _INDENT + r"(?:module|my\s+class|class)\b")
_OPENAPI_YAML = (
    Clue("MiniYAML", r"^\t"),
    Clue("OASv2-yaml", r"swagger:\s?['\"]{0,2}2"),
    Clue("OASv3-yaml", r"openapi:\s?['\"]{0,2}3"),
)

CLUES: dict[str, tuple[Clue, ...]] = {
    ".cs": (
        Clue("Smalltalk", r"methodsFor: ", is_local=False),
        Clue("C#", _INDENT + r"(?:using\s[\s\w.]+|namespace[\s\w.]+|//)"),
    ),
    ".ex": (
        Clue(
            "Elixir",
            _INDENT + r"(?:@moduledoc\s|(?:cond|import|quote|unless)\s|"
            r"def(?:exception|impl|macro|module|protocol))",
        ),
        Clue("Euphoria", "", is_local=False),
    ),
    ".fs": (
        Clue("Forth", r"^(?:: |new-device)"),
        Clue("F#", _INDENT + r"(?:#light|import|let|module|namespace|open|type)"),
        Clue("GLSL", _INDENT + r"(?:#version|precision|uniform|varying|vec)"),
        Clue("Filterscript", r"#include|#pragma\s+\S+|__attribute__"),
    ),
    ".h": (
        _OBJECTIVE_C,
        Clue(
            "C++",
            r"#\s*include <[a-z_]+>|template\s*<|^[\t ]*(?:try|constexpr|catch\s*\(|class\s+\w|"
            r"(?:using[\t ]+)?namespace\s+\w|private:|public:|protected:)|__has_cpp_attribute|__cplusplus >|std::",
        ),
    ),
    ".html": (Clue("Ecmarkup", r"<emu-"),),
    ".json": (Clue("OASv2-json", r"\"swagger\":\s?\"2"), Clue("OASv3-json", r"\"openapi\":\s?\"3")),
    ".m": (
        _OBJECTIVE_C,
        Clue("Mercury", r":- module"),
        Clue("MUF", r"^: "),
        Clue("M", _INDENT + ";"),
        Clue("Wolfram Language", r"\(\*", is_local=False),
        Clue("MATLAB", _INDENT + "%"),
        Clue("Limbo", r"^\w+\s*:\s*module\s*\{"),
    ),
    ".md": (
        Clue("Markdown", r"^[-A-Za-z0-9=#!*\[|>]|</"),
        Clue("GCC Machine Description", r"^(?:;;|\(define_)"),
    ),
    ".ml": (
        Clue("OCaml", _INDENT + r"module|let rec "),
        Clue("OCaml", r"match\s", is_local=False),
        Clue("Standard ML", r"=> "),
        Clue("Standard ML", r"case\s", is_local=False),
    ),
    ".php": (Clue("Hack", r"<\?hh"), Clue("PHP", r"<\?[^h]")),
    ".pl": (Clue("Prolog", r":-"), _RAKU_VERSION, _PERL, _RAKU),
    ".plist": (Clue("XML Property List", _INDENT + r"<(?:\?xml\s|!DOCTYPE\s+plist|plist[^>]*>)"),),
    ".pm": (_RAKU_VERSION, _PERL, _RAKU, Clue("X PixMap", r"/\* XPM \*/")),
    ".pp": (Clue("Pascal", _INDENT + r"end[.;]"), Clue("Puppet", r"^\s+\w+\s+=>\s")),
    ".r": (
        Clue("Rebol", r"(?i:rebol)"),
        Clue("Rez", r"#include\s+\S+"),
        Clue("Rez", r"(?:resource|data|type)\s+'", is_local=False),
        Clue("R", r"<-|" + _INDENT + "#"),
    ),
    ".rs": (
        Clue("Rust", r"^(?:use |fn |mod |pub |macro_rules|impl|#!?\[)"),
        Clue("RenderScript", r"#include|#pragma\s+\S+|__attribute__"),
        Clue("XML", r"<\?xml"),
    ),
    ".s": (
        Clue("Unix Assembly", r"(?i:mov[lq]?)\s+[%$]"),
        Clue("Assembly", r"(?i:mov)\s+[^\s%]"),
        Clue("Motorola 68K Assembly", r"(?i:move|btst|dbra)", is_local=False),
    ),
    ".sql": (
        Clue("PLpgSQL", r"(?i:^\\i|AS\s+\$\$|LANGUAGE\s+'?plpgsql|BEGIN\s*;|BEGIN\s+WORK\s*;)"),
        Clue("SQLPL", r"(?i:ALTER\s+MODULE|MODE\s+DB2SQL|SYSCAT\.|SYSPROC\.|ASSOCIATE\s+RESULT\s+SET|END!)"),
        Clue(
            "PLSQL",
            r"(?i:\$\$PLSQL_|XMLTYPE|systimestamp|\.nextval|CONNECT\s+BY|AUTHID\s+\S|constructor\W+function)",
        ),
        Clue("TSQL", r"(?i:^\s*GO\b|BEGIN\s+(?:TRY|CATCH)|OUTPUT\s+INSERTED|DECLARE\s+@|\[dbo\])"),
    ),
    ".t": (
        _RAKU_VERSION,
        _PERL,
        _RAKU,
        Clue("Turing", _INDENT + r"(?:%[\t ]|var\s)", is_local=False),
    ),
    ".ts": (Clue("XML", r"<TS\b"),),
    ".tsx": (Clue("XML", r"(?i:<\?xml\s+version)"),),
    ".txt": (),
    ".v": (
        Clue("Rocq Prover", r"(?:^|\s)(?:(?:Proof|Qed)\.|Require[\t ]+(?:Import|Export)\s)"),
        Clue(
            "Verilog",
            r"^[\t ]*(?:module\s+[^\s()]+\s*\S|`(?:define|ifdef|ifndef|include|timescale|pragma)|"
            r"always[\t ]*@|initial[\t ]*(?:begin|@))",
        ),
        Clue("V", r"\$(?:if|else)[\t ]"),
        Clue("V", r"^[\t ]*(?:fn\s|for\s*\{)", is_local=False),
    ),
    ".yaml": _OPENAPI_YAML,
    ".yml": _OPENAPI_YAML,
}  # fmt: skip
