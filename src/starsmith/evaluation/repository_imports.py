"""What the files of one repository import of each other, and on which lines they use it; by syntax alone.

Nothing is executed and no package is installed, so only what a path or a name says is followed:

    Python              modules by their path from any folder of the repository; relative imports
    Java                classes by the path of their package; static imports
    JavaScript, TypeScript  relative specifiers, `import` and `require`
    Go                  packages under a module of the repository's go.mod files
    C#                  types by name, declared in one file only, in a namespace that is used

Names that another file provides without an import (of the same package or namespace) are `foreign`: a line with
one of them needs another file too. A file with a wildcard import of the repository is `opaque`: what its names
mean is not known. A name that stands for more than one file is followed to all of them; names that are
shadowed are taken for what was imported.
"""

import posixpath
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from starsmith.signals import syntax

GRAMMARS: Final[Mapping[str, str]] = {
    "Python": "Python",
    "Java": "Java",
    "JavaScript": "JavaScript",
    "TypeScript": "TypeScript",
    "TSX": "TSX",
    "C#": "C#",
    "Go": "Go",
}
"""The languages by the names of go-enry."""
GO_MODULE: Final = "go.mod"
_NAME_KINDS: Final = frozenset(
    (
        "identifier",
        "type_identifier",
        "package_identifier",
        "shorthand_property_identifier",
        "shorthand_property_identifier_pattern",
    )
)
_MEMBERS: Final = frozenset(
    (
        ("attribute", "attribute"),
        ("keyword_argument", "name"),
        ("field_access", "field"),
        ("nested_type_identifier", "name"),
        ("member_access_expression", "name"),
        ("qualified_name", "name"),
        ("argument", "name"),
    )
)
"""Where a name is something's member or an argument's, and so no use of what is imported under it."""
_SCRIPTS: Final = (".ts", ".tsx", ".d.ts", ".js", ".jsx", ".mjs", ".cjs", ".mts", ".cts")
_DECLARATIONS: Final = frozenset(
    f"{kind}_declaration"
    for kind in ("class", "interface", "struct", "enum", "record", "record_struct", "delegate", "function")
)
_GO_DECLARATIONS: Final = frozenset(("type_spec", "const_spec", "var_spec"))
_GO_TOP: Final = 4
"""Depth of a declaration in a list of them at the top of a Go file."""
_SPECIFIER: Final = re.compile(r"""["'`](.*)["'`]""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Source:
    """One file of a repository."""

    path: str
    """From the root, without a slash in front."""
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class Imported:
    row: int
    """Of the import's last line; rows count from 0."""
    paths: tuple[str, ...]
    """The files that it may stand for."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """What one file says."""

    imported: Mapping[str, Imported]
    foreign: frozenset[str]
    opaque: bool
    names: Mapping[int, frozenset[str]]
    """The names on each row that may be uses, imports left out."""
    quiet: frozenset[int]
    """Rows that are imports, or in part comment, or inside a text of several lines."""


@dataclass(frozen=True, slots=True)
class _Import:
    row: int
    module: str
    bound: tuple[tuple[str, str], ...]
    """Local name, and the member of the module that it stands for ("" for the module)."""
    wildcard: bool = False


@dataclass(slots=True)
class _Parsed:
    names: list[tuple[int, str]] = field(default_factory=list)
    quiet: set[int] = field(default_factory=set)
    imports: list[_Import] = field(default_factory=list)
    declared: set[str] = field(default_factory=set)
    """Names of types and of what stands at the top."""
    namespaces: set[str] = field(default_factory=set)


def analyse(sources: Sequence[Source], go_modules: Mapping[str, str]) -> dict[str, Analysis]:
    """Every file that parses, by path. Call it inside `syntax.with_large_stack`.

    Args:
        sources: of one repository, in languages of `GRAMMARS`, none longer than `syntax.MAX_BYTES`.
        go_modules: the texts of its go.mod files by path.
    """
    parsed = {source.path: found for source in sources if (found := _parse(source)) is not None}
    languages = {source.path: source.language for source in sources if source.path in parsed}
    repository = _Repository(languages, parsed, go_modules)
    analyses = {path: repository.analysis(path) for path in parsed}
    return {path: _through_packages(analysis, analyses) for path, analysis in analyses.items()}


class _Repository:
    """The index by which imports are followed."""

    def __init__(
        self, languages: Mapping[str, str], parsed: Mapping[str, _Parsed], go_modules: Mapping[str, str]
    ) -> None:
        self._languages, self._parsed = languages, parsed
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_folder: dict[str, list[str]] = defaultdict(list)
        self._types: dict[str, list[str]] = defaultdict(list)
        for path in sorted(languages):
            self._by_name[posixpath.basename(path)].append(path)
            self._by_folder[posixpath.dirname(path)].append(path)
            if languages[path] == "C#":
                for name in parsed[path].declared:
                    self._types[name].append(path)
        self._go_modules = {
            match[1]: posixpath.dirname(path)
            for path, text in sorted(go_modules.items())
            if (match := re.search(r"^module\s+\"?([^\s\"]+)", text, re.MULTILINE))
        }

    def analysis(self, path: str) -> Analysis:
        own, language = self._parsed[path], self._languages[path]
        imported: dict[str, Imported] = {}
        foreign: set[str] = set()
        opaque = False
        resolve = self._resolver(language)
        for entry in own.imports:
            if entry.wildcard:
                opaque |= bool(resolve(path, entry.module, ""))
            for name, member in entry.bound:
                if paths := tuple(found for found in resolve(path, entry.module, member) if found != path):
                    before = imported.get(name)
                    paths = (*before.paths, *paths) if before else paths
                    imported[name] = Imported(row=entry.row, paths=tuple(dict.fromkeys(paths)))
        if language == "C#":
            self._used_types(path, imported, foreign)
        elif language in ("Java", "Go"):
            for other in self._by_folder[posixpath.dirname(path)]:
                if other != path and self._languages[other] == language:
                    foreign |= self._parsed[other].declared
        names: dict[int, set[str]] = defaultdict(set)
        for row, name in own.names:
            names[row].add(name)
        return Analysis(
            imported=imported,
            foreign=frozenset(foreign - own.declared - imported.keys()),
            opaque=opaque,
            names={row: frozenset(found) for row, found in names.items()},
            quiet=frozenset(own.quiet),
        )

    def _resolver(self, language: str) -> Callable[[str, str, str], Sequence[str]]:
        resolvers = {"Python": self._python, "Java": self._java, "Go": self._go, "C#": self._namespace}
        return resolvers.get(language, self._script)

    def _python(self, path: str, module: str, member: str) -> Sequence[str]:
        parts = [part for part in module.lstrip(".").split(".") if part]
        num_dots = len(module) - len(module.lstrip("."))
        if num_dots:
            folder = posixpath.dirname(path)
            for _ in range(num_dots - 1):
                folder = posixpath.dirname(folder)
            return self._python_module(posixpath.join(folder, *parts), member)
        if parts[0] in sys.stdlib_module_names:
            return ()
        for root in _roots(path):
            if found := self._python_module(posixpath.join(root, *parts), member):
                return found
        endings = ["/".join((*parts, "__init__.py"))]
        if len(parts) > 1:
            endings.append("/".join(parts) + ".py")
        candidates = [
            found
            for ending in endings
            for found in self._by_name[posixpath.basename(ending)]
            if found.endswith(f"/{ending}")
        ]
        return self._python_module(_stem(candidates[0]), member) if len(candidates) == 1 else ()

    def _python_module(self, stem: str, member: str) -> Sequence[str]:
        submodules = (f"{stem}/{member}.py", f"{stem}/{member}/__init__.py") if member else ()
        for found in (*submodules, f"{stem}.py", f"{stem}/__init__.py"):
            if self._languages.get(found) == "Python":
                return (found,)
        return ()

    def _java(self, path: str, module: str, member: str) -> Sequence[str]:
        parts = module.split(".")
        while len(parts) > 1:
            ending = "/".join(parts)
            found = [
                other
                for other in self._by_name[f"{parts[-1]}.java"]
                if other == f"{ending}.java" or other.endswith(f"/{ending}.java")
            ]
            if found:
                return found if len(found) == 1 else ()
            if not member:
                return [
                    file for folder, files in self._by_folder.items() if _ends(folder, ending) for file in files
                ]
            parts.pop()
        return ()

    def _script(self, path: str, module: str, member: str) -> Sequence[str]:
        if not module.startswith("."):
            return ()
        base = posixpath.normpath(posixpath.join(posixpath.dirname(path), module))
        stem = re.sub(r"\.[cm]?jsx?$", "", base)
        endings = ("", *_SCRIPTS, *(f"/index{ending}" for ending in _SCRIPTS))
        for candidate in (base + ending for ending in endings):
            if candidate in self._languages:
                return (candidate,)
        # TypeScript's modules name the file that they will be compiled to.
        return next(((f"{stem}{end}",) for end in (".ts", ".tsx") if f"{stem}{end}" in self._languages), ())

    def _go(self, path: str, module: str, member: str) -> Sequence[str]:
        for name, root in self._go_modules.items():
            if module == name or module.startswith(f"{name}/"):
                folder = posixpath.join(root, module[len(name) + 1 :]).rstrip("/")
                return [file for file in self._by_folder.get(folder, ()) if not file.endswith("_test.go")]
        return ()

    def _namespace(self, path: str, module: str, member: str) -> Sequence[str]:
        """The file of a type, for `using static`; namespaces themselves bind no name."""
        files = self._types.get(module.rpartition(".")[2], ())
        return files if len(files) == 1 else ()

    def _used_types(self, path: str, imported: dict[str, Imported], foreign: set[str]) -> None:
        own = self._parsed[path]
        used = {entry.module: entry.row for entry in own.imports}
        for name in {name for _, name in own.names} - own.declared:
            files = [other for other in self._types.get(name, ()) if other != path]
            rows = [used[space] for other in files for space in self._parsed[other].namespaces if space in used]
            if len(files) == 1 and rows:
                imported[name] = Imported(row=max(rows), paths=tuple(files))
            elif files:
                foreign.add(name)


def _through_packages(analysis: Analysis, analyses: Mapping[str, Analysis]) -> Analysis:
    """Follows names that a Python package's `__init__.py` has from one of its modules."""
    followed = {}
    for name, entry in analysis.imported.items():
        further = [
            path
            for package in entry.paths
            if posixpath.basename(package) == "__init__.py" and name in analyses[package].imported
            for path in analyses[package].imported[name].paths
        ]
        followed[name] = Imported(row=entry.row, paths=tuple(dict.fromkeys((*further, *entry.paths))))
    return Analysis(
        imported=followed,
        foreign=analysis.foreign,
        opaque=analysis.opaque,
        names=analysis.names,
        quiet=analysis.quiet,
    )


def _parse(source: Source) -> _Parsed | None:
    """None where the text has a syntax error."""
    root = syntax.parse(source.text.encode(), GRAMMARS[source.language]).root_node
    if root.has_error:
        return None
    parsed = _Parsed()
    for node, parent, place, depth in _nodes(root):
        kind = node.type
        rows = range(node.start_point[0], node.end_point[0] + 1)
        if kind.endswith("comment") or ("string" in kind and len(rows) > 1):
            parsed.quiet.update(rows)
        elif entry := _import(node, kind):
            parsed.imports += entry
            parsed.quiet.update(rows)
        elif kind in ("namespace_declaration", "file_scoped_namespace_declaration"):
            parsed.namespaces.add(_text(node.child_by_field_name("name")))
        elif kind in _DECLARATIONS or (kind in _GO_DECLARATIONS and depth <= _GO_TOP):
            parsed.declared.update(map(_text, node.children_by_field_name("name")))
        if kind in _NAME_KINDS and (parent, place) not in _MEMBERS and not _is_called_member(node, parent, place):
            parsed.names.append((rows[0], _text(node)))
    return parsed


def _nodes(root: Any) -> Iterator[tuple[Any, str, str | None, int]]:
    """Every node with its parent's kind, its place in it and its depth; the insides of imports are left out."""
    cursor = root.walk()
    kinds: list[str] = [""]
    while True:
        node = cursor.node
        yield node, kinds[-1], cursor.field_name, len(kinds)
        if node.type not in _IMPORTS and cursor.goto_first_child():
            kinds.append(node.type)
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return
            kinds.pop()


def _is_called_member(node: Any, parent: str, place: str | None) -> bool:
    return (
        parent == "method_invocation" and place == "name" and node.parent.child_by_field_name("object") is not None
    )


def _import(node: Any, kind: str) -> list[_Import]:
    read = _IMPORTS.get(kind) or _CALLED_IMPORTS.get(kind)
    return list(read(node)) if read else []


def _python_import(node: Any) -> Iterator[_Import]:
    row = node.end_point[0]
    for name in node.children_by_field_name("name"):
        module, local = _renamed(name)
        yield _Import(row, module, ((local or module.split(".")[0], ""),))


def _python_from(node: Any) -> Iterator[_Import]:
    module = re.sub(r"\s+", "", _text(node.child_by_field_name("module_name")))
    bound = []
    for name in node.children_by_field_name("name"):
        member, local = _renamed(name)
        bound.append((local or member, member))
    wildcard = any(child.type == "wildcard_import" for child in node.children)
    yield _Import(node.end_point[0], module, tuple(bound), wildcard)


def _renamed(name: Any) -> tuple[str, str]:
    """What is imported, and the name it gets ("" for its own)."""
    if name.type == "aliased_import":
        return _text(name.child_by_field_name("name")), _text(name.child_by_field_name("alias"))
    return _text(name), ""


def _java_import(node: Any) -> Iterator[_Import]:
    named = [child for child in node.named_children if child.type in ("scoped_identifier", "identifier")]
    module = re.sub(r"\s+", "", _text(named[0])) if named else ""
    local = module.rpartition(".")[2]
    wildcard = any(child.type == "asterisk" for child in node.children)
    yield _Import(node.end_point[0], module, () if wildcard else ((local, local),), wildcard)


def _script_import(node: Any) -> Iterator[_Import]:
    """`import` and `export ... from`; what the latter names is not bound here."""
    if (source := node.child_by_field_name("source")) is None:
        return
    bound = []
    for clause in (child for child in node.named_children if child.type == "import_clause"):
        for child in clause.named_children:
            if child.type == "identifier":
                bound.append((_text(child), ""))
            elif child.type == "namespace_import":
                bound.append((_text(child.named_children[0]), ""))
            elif child.type == "named_imports":
                for each in (named for named in child.named_children if named.type == "import_specifier"):
                    member = _text(each.child_by_field_name("name"))
                    alias = each.child_by_field_name("alias")
                    bound.append((_text(alias) if alias is not None else member, member))
    yield _Import(node.end_point[0], _specifier(source), tuple(bound))


def _script_require(node: Any) -> Iterator[_Import]:
    """`const name = require("./file")`, its members, or a pattern of them."""
    value, name = node.child_by_field_name("value"), node.child_by_field_name("name")
    while value is not None and value.type == "member_expression":
        value = value.child_by_field_name("object")
    if value is None or name is None or value.type != "call_expression":
        return
    if _text(value.child_by_field_name("function")) != "require":
        return
    arguments = value.child_by_field_name("arguments").named_children
    if len(arguments) != 1 or arguments[0].type != "string":
        return
    if name.type == "identifier":
        bound = [_text(name)]
    else:
        bound = [
            _text(child.child_by_field_name("value") if child.type == "pair_pattern" else child)
            for child in name.named_children
            if child.type in ("pair_pattern", "shorthand_property_identifier_pattern")
        ]
    yield _Import(node.end_point[0], _specifier(arguments[0]), tuple((local, local) for local in bound))


def _go_import(node: Any) -> Iterator[_Import]:
    specs = [child for child in node.named_children if child.type == "import_spec"]
    specs += [
        each for child in node.named_children if child.type == "import_spec_list" for each in child.named_children
    ]
    for spec in (each for each in specs if each.type == "import_spec"):
        module = _specifier(spec.child_by_field_name("path"))
        local = spec.child_by_field_name("name")
        name = _text(local) if local is not None else posixpath.basename(module)
        yield _Import(spec.end_point[0], module, ((name, name),) if name not in "._" else (), name == ".")


def _csharp_using(node: Any) -> Iterator[_Import]:
    if node.child_by_field_name("name") is not None:
        return
    named = [child for child in node.named_children if child.type in ("qualified_name", "identifier")]
    is_static = any(child.type == "static" for child in node.children)
    if named:
        yield _Import(node.end_point[0], re.sub(r"\s+", "", _text(named[-1])), (), is_static)


_IMPORTS: Final[Mapping[str, Callable[[Any], Iterator[_Import]]]] = {
    "import_statement": lambda node: (
        _python_import(node) if node.child_by_field_name("name") is not None else _script_import(node)
    ),
    "import_from_statement": _python_from,
    "future_import_statement": lambda node: iter(()),
    "import_declaration": lambda node: (
        _java_import(node) if node.children[-1].type in (";", "asterisk") else _go_import(node)
    ),
    "using_directive": _csharp_using,
}
"""Statements that are nothing but imports."""
_CALLED_IMPORTS: Final[Mapping[str, Callable[[Any], Iterator[_Import]]]] = {
    "variable_declarator": _script_require,
    "export_statement": _script_import,
}


def _roots(path: str) -> Iterator[str]:
    """The folders that a module may lie in: the file's own, then the repository's root and its `src` and `lib`."""
    yield posixpath.dirname(path)
    yield from ("", "src", "lib")


def _stem(path: str) -> str:
    return path.removesuffix("/__init__.py").removesuffix(".py")


def _ends(folder: str, ending: str) -> bool:
    return folder == ending or folder.endswith(f"/{ending}")


def _specifier(node: Any) -> str:
    match = _SPECIFIER.fullmatch(_text(node).strip())
    return match[1] if match else ""


def _text(node: Any) -> str:
    return "" if node is None else node.text.decode()
