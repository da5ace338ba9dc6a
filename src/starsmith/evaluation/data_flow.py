"""The data flow of a few lines of Python or Java, as CodeBLEU compares it (Ren et al. 2020, section 3.3).

Every token that is no mere sign is a variable's occurrence. It *comes from* the last occurrence of its name that
was defined, and what is assigned is *computed from* all that stands on the other side. Branches are followed from
the same state and merged, and loops are gone through twice, so that what one turn defines reaches the next.

An edge is (variable, relation, variables it comes from), with variables numbered in the order in which they
appear; occurrences without any edge are left out. The graph is that of the authors' code; theirs keeps the names
of an edge in a set, whose order changes from run to run, where this one has the order of the text. As there, a
text has no data flow at all where its tree lacks a part, a piece of a string is assigned by itself, or the tree
is nested too deeply.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple

Language = Literal["python", "java"]
Flow = tuple[str, str, tuple[str, ...]]
_States = dict[str, list[int]]
"""Name to the occurrences that may have defined it."""
_WHOLE: Final = frozenset(("string_literal", "string", "character_literal"))
"""One token, whatever is in it."""


class _Edge(NamedTuple):
    name: str
    place: int
    """The number of its token."""
    relation: str
    names: tuple[str, ...] = ()
    places: tuple[int, ...] = ()


class _UnreadableError(Exception):
    """The tree has not what its kind should have."""


def data_flow(root: Any, language: Language) -> list[Flow]:
    """The edges below a node, in the order of the text."""
    walker = _Python(root) if language == "python" else _Java(root)
    try:
        edges, _ = walker.walk(root, {})
    except (_UnreadableError, RecursionError):
        return []
    return _numbered(_connected(edges))


class _Walker:
    """What both languages have: tokens, definitions, branches and loops."""

    definitions: frozenset[str]
    branches: frozenset[str]
    others: frozenset[str]
    """The children of a branching that begin another branch."""
    rest_is_other: bool
    """Whether what follows another branch is one too."""
    loops: frozenset[str] = frozenset(("while_statement",))

    def __init__(self, root: Any) -> None:
        self._numbers = {(token.start_byte, token.end_byte): number for number, token in enumerate(_tokens(root))}

    def walk(self, node: Any, states: _States) -> tuple[list[_Edge], _States]:
        """The edges of a node, and what is defined after it."""
        kind = node.type
        if not node.children or kind in _WHOLE:
            return self._token(node, dict(states)) if kind != "comment" else ([], states)
        if kind in self.definitions:
            return self._definition(node, states)
        if kind in self.branches:
            return self._branches(node, states)
        if kind in self.loops:
            edges: list[_Edge] = []
            for _ in range(2):
                more, states = self._all(node.children, states)
                edges += more
            return _merged(edges), states
        return self.other(node, states)

    def other(self, node: Any, states: _States) -> tuple[list[_Edge], _States]:
        raise NotImplementedError

    def _all(self, nodes: Iterable[Any], states: _States) -> tuple[list[_Edge], _States]:
        edges: list[_Edge] = []
        for node in nodes:
            more, states = self.walk(node, states)
            edges += more
        return _ordered(edges), states

    def _token(self, node: Any, states: _States) -> tuple[list[_Edge], _States]:
        name, place = _text(node), self._place(node)
        if node.type == name:
            return [], states
        if name in states:
            earlier = tuple(states[name])
            return [_Edge(name, place, "comesFrom", (name,), earlier)], states
        if node.type == "identifier":
            states[name] = [place]
        return [_Edge(name, place, "comesFrom")], states

    def _definition(self, node: Any, states: _States) -> tuple[list[_Edge], _States]:
        names = self._variables(_part(node, "name"))
        value = node.child_by_field_name("value")
        if value is None:
            return [_Edge(name, place, "comesFrom") for name, place in names], _defined(states, names)
        edges, states = self.walk(value, states)
        values = self._variables(value)
        edges = edges + self._pairs(names, values, "comesFrom")
        return _ordered(edges), _defined(states, names)

    def _branches(self, node: Any, states: _States) -> tuple[list[_Edge], _States]:
        """The condition and the first branch continue; every other branch begins anew."""
        edges: list[_Edge] = []
        current, has_else = states, False
        ends: list[_States] = []
        for child in node.children:
            has_else |= "else" in child.type
            if child.type in self.others or (self.rest_is_other and ends):
                more, after = self.walk(child, states)
                ends.append(after)
            else:
                more, current = self.walk(child, current)
            edges += more
        ends.append(current)
        if not has_else:
            ends.append(states)
        return _ordered(edges), _joined(ends)

    def _pairs(
        self, left: Sequence[tuple[str, int]], right: Sequence[tuple[str, int]], relation: str
    ) -> list[_Edge]:
        return [
            _Edge(name, place, relation, (other,), (other_place,))
            for name, place in left
            for other, other_place in right
        ]

    def _variables(self, node: Any) -> list[tuple[str, int]]:
        return [(_text(token), self._place(token)) for token in _tokens(node) if token.type != _text(token)]

    def _place(self, node: Any) -> int:
        if (number := self._numbers.get((node.start_byte, node.end_byte))) is None:
            raise _UnreadableError
        return number


class _Python(_Walker):
    definitions = frozenset(("default_parameter",))
    branches = frozenset(("if_statement",))
    others = frozenset(("elif_clause", "else_clause"))
    rest_is_other = False

    def other(self, node: Any, states: _States) -> tuple[list[_Edge], _States]:
        if node.type in ("assignment", "augmented_assignment"):
            if node.child_by_field_name("right") is None:
                return [], states
            return self._assigned(*_sides(node), states)
        if node.type == "for_in_clause":
            return self._assigned([node.child_by_field_name("left")], [node.children[-1]], states)
        if node.type == "for_statement":
            edges: list[_Edge] = []
            for _ in range(2):
                more, states = self._assigned(*_sides(node), states)
                edges += more
                if node.children[-1].type == "block":
                    more, states = self.walk(node.children[-1], states)
                    edges += more
            return _merged(edges), states
        first = [child for child in node.children if child.type == "for_in_clause"]
        edges, states = self._all(first, states)
        more, states = self._all([child for child in node.children if child.type != "for_in_clause"], states)
        return _ordered(edges + more), states

    def _assigned(self, left: Sequence[Any], right: Sequence[Any], states: _States) -> tuple[list[_Edge], _States]:
        edges, states = self._all(right, states)
        for target, value in zip(left, right, strict=False):
            if target is None or value is None:
                raise _UnreadableError
            values = self._variables(value)
            names, places = tuple(name for name, _ in values), tuple(place for _, place in values)
            targets = self._variables(target)
            edges = edges + [_Edge(name, place, "computedFrom", names, places) for name, place in targets]
            states = _defined(states, targets)
        return _ordered(edges), states


class _Java(_Walker):
    definitions = frozenset(("variable_declarator",))
    branches = frozenset(("if_statement", "else"))
    others = frozenset(("if_statement", "else"))
    rest_is_other = True

    def other(self, node: Any, states: _States) -> tuple[list[_Edge], _States]:
        if node.type == "assignment_expression":
            return self._from(_part(node, "left"), _part(node, "right"), states)
        if node.type == "update_expression":
            names = self._variables(node)
            return _ordered(self._pairs(names, names, "computedFrom")), _defined(states, names)
        if node.type == "for_statement":
            kinds = [child.type for child in node.children]
            edges, states = self._all(node.children, states)
            start = (
                kinds.index("local_variable_declaration") + 1 if "local_variable_declaration" in kinds else None
            )
            again = node.children[start:] if start is not None else []
            more, states = self._all(again, states)
            return _merged(edges + more), states
        if node.type == "enhanced_for_statement":
            edges = []
            for _ in range(2):
                more, states = self._from(_part(node, "name"), _part(node, "value"), states)
                inner, states = self.walk(_part(node, "body"), states)
                edges += more + inner
            return _merged(edges), states
        return self._all(node.children, states)

    def _from(self, target: Any, value: Any, states: _States) -> tuple[list[_Edge], _States]:
        edges, states = self.walk(value, states)
        names = self._variables(target)
        edges = edges + self._pairs(names, self._variables(value), "computedFrom")
        return _ordered(edges), _defined(states, names)


def _sides(node: Any) -> tuple[list[Any], list[Any]]:
    """The targets and values of an assignment: pairwise where there are as many of both, else whole."""
    sides = [_part(node, name) for name in ("left", "right")]
    left, right = ([child for child in side.children if child.type != ","] for side in sides)
    if len(left) != len(right):
        return [sides[0]], [sides[1]]
    return left or [sides[0]], right or [sides[1]]


def _tokens(root: Any) -> list[Any]:
    found, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        if node.type == "comment":
            continue
        if not node.children or node.type in _WHOLE:
            found.append(node)
        else:
            waiting += reversed(node.children)
    return found


def _connected(edges: Sequence[_Edge]) -> list[_Edge]:
    """One edge for each occurrence that has one or that another comes from."""
    connected = {place for edge in edges if edge.places for place in (edge.place, *edge.places)}
    found: dict[int, _Edge] = {}
    for edge in edges:
        if edge.place not in connected:
            continue
        if before := found.get(edge.place):
            names = tuple(dict.fromkeys(before.names + edge.names))
            edge = edge._replace(names=names, places=tuple(dict.fromkeys(before.places + edge.places)))
        found[edge.place] = edge
    return list(found.values())


def _numbered(edges: Iterable[_Edge]) -> list[Flow]:
    numbers: dict[str, str] = {}
    for edge in edges:
        for name in (*edge.names, edge.name):
            numbers.setdefault(name, f"var_{len(numbers)}")
    return [(numbers[edge.name], edge.relation, tuple(numbers[name] for name in edge.names)) for edge in edges]


def _merged(edges: Iterable[_Edge]) -> list[_Edge]:
    """What two turns of a loop found, each edge once."""
    found: dict[tuple[str, int, str], _Edge] = {}
    for edge in edges:
        key = edge[:3]
        if before := found.get(key):
            names = tuple(dict.fromkeys(before.names + edge.names))
            edge = edge._replace(names=names, places=tuple(sorted({*before.places, *edge.places})))
        found[key] = edge
    return _ordered(found.values())


def _ordered(edges: Iterable[_Edge]) -> list[_Edge]:
    return sorted(edges, key=lambda edge: edge.place)


def _defined(states: _States, names: Iterable[tuple[str, int]]) -> _States:
    return states | {name: [place] for name, place in names}


def _joined(ends: Iterable[_States]) -> _States:
    found: dict[str, set[int]] = defaultdict(set)
    for states in ends:
        for name, places in states.items():
            found[name].update(places)
    return {name: sorted(places) for name, places in found.items()}


def _part(node: Any, name: str) -> Any:
    if (part := node.child_by_field_name(name)) is None:
        raise _UnreadableError
    return part


def _text(node: Any) -> str:
    text: str = node.text.decode(errors="replace")
    return text
