"""Whether a file is vendored, documentation or generated: go-enry's answers, asked only where one can be yes.

enry tries some 170 expressions on a path and thirty rules on a text for every file. Almost all of them need a
word that the file does not have. So a file is first tested for what every rule needs (the tests below are
necessary conditions, wider than the rules); only where one holds is enry asked, and enry's answer counts.

* Paths: one expression each holds the words of all rules. Where a directory alone is enough, it is asked once,
  with a name that fits no rule.
* Texts: generated files say so in words (most rules need `enerated`), or are minified, which is counted here.

The conditions follow the rules of `language_clues.RELEASE`; with another release enry is asked plainly.
"""

import functools
import re

import pyarrow as pa
import pyarrow.compute as pc

from starsmith.signals.language_strategies import first_lines, is_known_release

_NO_NAME = "~"
"""A base name that no rule knows."""

_SCRIPTS = r"(?s:.*)(?:js|css|less|scss|styl|sass)"
_VENDORED = (
    r"(?i)(?:^|/)(?:(?:custom\.bootstrap|bootstrap|font-?awesome|foundation|normalize|skeleton|bourbon|animate|"
    r"materialize|select2|bulma|jquery|slick|prototype|mootools|yahoo-|yui|tiny_mce|fontello|shbrush|angular|d3|"
    rf"react|flow-typed|modernizr|knockout-|microsoft|cordova){_SCRIPTS}$"
    r"|(?:config\.guess|config\.sub|configure|_esy|rebar|run\.n|effects\.js|controls\.js|dragdrop\.js|dojo\.js|"
    r"mochikit\.js|ckeditor\.js|chart\.js|shcore\.js|shlegacy\.js|fabfile\.py|waf|\.osx|vagrantfile|\.ds_store|"
    r"jenkinsfile|html5shiv\.js)$"
    r"|(?:aclocal|libtool|lt[a-z~]+)\.m4|dotnet-install|cpplint\.py|erlang\.mk|\.indent\.pro|fuelux\.js|"
    r"bootbox\.js|pdf\.worker|leaflet|wicket-leaflet|control\.fullscreen|\.sublime-|jquery\.|tiny_mce/|"
    r"codemirror/|realm|\.git|gradlew|mvnw|extjs/|octicons|sprockets-|activator|proguard"
    r"|(?:cache|dependencies|dist|deps|node_modules|bower_components|testdata|v+endors?|extern|externals?|debian|"
    r"bootstrap-datepicker|ace-builds|mathjax|admin_media|env|carthage|sparkle|crashlytics\.framework|"
    r"fabric\.framework|buddybuildsdk\.framework|puphpet|\.google_apis|\.obsidian|\.teamcity|\.vscode)/|"
    r"\.yarn/|godeps/|gradle/wrapper/|\.mvn/wrapper/|packages/|tests?/fixtures/|specs?/fixtures/|inst/extdata/|"
    r"docs?/_?(?:build|theme|template|static))"
    r"|(?:3rd|third)[-_]?party/|\.xctemplate/|\.imageset/"
    r"|import\.(?:css|less|scss|styl)$|-vsdoc\.js$|\.intellisense\.js$|\x00"
)
_VENDORED_ENDS = (".d.ts", ".min.js", "-min.js", ".min.css", "-min.css")
"""Enough alone."""
_DOCUMENTATION = (
    r"(?i)(?:^|/)(?:documentation/|groovydoc/|javadoc/|inst/doc/|"
    r"citation|changes?|changelog|contributing|copying|install|licen[cs]e|readme)"
    r"|^(?:docs?|man|examples|demos?|samples?)/|\x00"
)

_GENERATED_NAMES = re.compile(
    r"lock|shrinkwrap|\.designer\.|\.feature\.|\.pnp\.|\.zep\.|\.orig$|_tlb\.|\.nib$|\.xc[a-z]+$|\.map$|ppport\.h$|"
    r"[^\x01-\x7f]"
)
"""On the name in lower case; other than ASCII letters have cases of their own."""
_MINIFIED_EXTENSIONS = frozenset((".js", ".css"))
_MAX_MINIFIED_AVERAGE = 110
_ASKED_EXTENSIONS = frozenset((".ps", ".eps", ".pfa", ".mod", ".meta", ".yy", ".yyp"))
"""Their rules are too wide to be worth a condition."""
_TAIL_NEEDLES = {".xml": b"<doc>", ".yml": b"recorded_with"}
"""What their only rules need, which look at the end of the text too."""
_GIMP_EXTENSIONS = frozenset((".c", ".h"))
_CASELESS_EXTENSIONS = frozenset((".dart", ".html", ".htm", ".xhtml"))
_PEG_LINES = 5
_HEAD_LINES = 40
"""The most that a rule which is not about the end of the file looks at."""


def path_flags(paths: list[str]) -> list[tuple[bool, bool]]:
    """Vendored and documentation, of each path from its root (without a slash in front)."""
    import enry

    if not is_known_release():
        return [(enry.is_vendor(path), enry.is_documentation(path)) for path in paths]
    column = pa.array(paths, pa.string())
    vendored = pc.match_substring_regex(column, _VENDORED).to_pylist()
    documentation = pc.match_substring_regex(column, _DOCUMENTATION).to_pylist()
    return [
        (
            path.endswith(_VENDORED_ENDS) or (may_be_vendored and _is_vendor(path)),
            may_be_documentation and _is_documentation(path),
        )
        for path, may_be_vendored, may_be_documentation in zip(paths, vendored, documentation, strict=True)
    ]


def _is_vendor(path: str) -> bool:
    import enry

    return _has_vendored_directory(path.rpartition("/")[0]) or bool(enry.is_vendor(path))


def _is_documentation(path: str) -> bool:
    import enry

    return _has_documentation_directory(path.rpartition("/")[0]) or bool(enry.is_documentation(path))


@functools.lru_cache(maxsize=65_536)
def _has_vendored_directory(directory: str) -> bool:
    """Whether the directory is enough for all files below it."""
    import enry

    return bool(enry.is_vendor(f"{directory}/{_NO_NAME}" if directory else _NO_NAME))


@functools.lru_cache(maxsize=65_536)
def _has_documentation_directory(directory: str) -> bool:
    import enry

    return bool(enry.is_documentation(f"{directory}/{_NO_NAME}" if directory else _NO_NAME))


def is_generated(name: str, data: bytes) -> bool:
    """`enry.is_generated` of a base name and UTF-8 text."""
    import enry

    lowered = name.lower()
    if not is_known_release() or _GENERATED_NAMES.search(lowered):
        return bool(enry.is_generated(name, data))
    extension = lowered[lowered.rfind(".") :] if "." in lowered else ""
    if extension in _MINIFIED_EXTENSIONS and _is_minified(data):
        return True
    telling = _telling_part(extension, data)
    return telling is not None and bool(enry.is_generated(name, telling))


def _telling_part(extension: str, data: bytes) -> bytes | None:
    """As much of a text as enry's rules look at, or None if it fits none of them."""
    if extension in _ASKED_EXTENSIONS or data.startswith((b'{"version":', b"/** Begin line maps. **/{")):
        return data
    if extension in _MINIFIED_EXTENSIONS and _may_have_source_map(data):
        return data
    if extension == ".js":
        return data if _may_be_generated_script(data) else None
    if extension in _TAIL_NEEDLES:
        return data if _TAIL_NEEDLES[extension] in data else None
    if extension in _CASELESS_EXTENSIONS:
        head = first_lines(data, _HEAD_LINES)
        return head if b"enerat" in head.lower().replace(b"\r", b"") else None
    if b"enerated" not in data and (extension not in _GIMP_EXTENSIONS or b"GIMP" not in data):
        return None
    head = first_lines(data, _HEAD_LINES)
    return head if b"enerated" in head or b"GIMP" in head else None


def _may_be_generated_script(data: bytes) -> bool:
    """CoffeeScript's frame, protocol buffers, or PEG.js, whose words enry finds across line ends too."""
    if data.startswith(b"(function() {") or b"GENERATED CODE" in data:
        return True
    return b"enerated" in first_lines(data, _PEG_LINES).replace(b"\n", b"")


def _is_minified(data: bytes) -> bool:
    """More than 110 bytes in an average line."""
    num_ends = data.count(b"\n")
    num_lines = num_ends + (bool(data) and not data.endswith(b"\n"))
    return num_lines > 0 and (len(data) - num_ends) // num_lines > _MAX_MINIFIED_AVERAGE


def _may_have_source_map(data: bytes) -> bool:
    """A reference in the last two lines, to which enry does not count up to two ends of empty ones."""
    start = len(data)
    for _ in range(4):
        start = data.rfind(b"\n", 0, max(start, 0))
    return data.find(b"URL", max(start, 0)) >= 0
