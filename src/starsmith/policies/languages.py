"""The rules on the language of a file, and on the kinds of file that go-enry tells apart (section 1.3).

`languages.policy = "stack-v2"` leaves out what The Stack v2's inspection left out: 53 languages as a whole and
91 pairs of a language and an extension, in `stack_v2_languages.txt` with its source. Choices of ours where the
paper and its list are silent or dated:

* The paper counts 39 languages and 130 extensions; the published list holds more, and the list is followed.
* What the list does not name was too rare to be looked at, and stays.
* An extension is what follows the last dot of the lower-cased base name, so `.env` has the extension `env`.
* Linguist has renamed and split languages since. A pair that moved to another language moves with it.
* The policy holds beside `include` and `exclude`; a language that it leaves out is not brought back by
  `include`, but by `policy = "all"`.
"""

import functools
import importlib.resources
from dataclasses import dataclass

from starsmith import recipe
from starsmith.policies.rules import Rule, is_in, shown

RENAMED_LANGUAGES = {"Mathematica": "Wolfram Language"}
"""Names of the list that enry's linguist data calls differently."""
MOVED_EXTENSIONS = {("Shell", "env"): "Dotenv"}
"""Pairs of the list whose files have become a language of their own; the pair itself stays left out too."""

_DATA = "stack_v2_languages.txt"
_NO_EXTENSION = "-"
_HAS_TEXT = "status = 'text'"
_HAS_LANGUAGE = f"{_HAS_TEXT} AND language IS NOT NULL"
_EXTENSION = r"regexp_extract(lower(name), '\.([^.]*)$', 1)"
_NAMED = "'go-enry on the name ' || language_name"


@dataclass(frozen=True)
class Excluded:
    languages: frozenset[str]
    """Left out as a whole, by enry's names."""
    pairs: frozenset[tuple[str, str]]
    """Language and extension, in lower case without its dot; "" is a file without one."""


@functools.cache
def stack_v2_excluded() -> Excluded:
    """What The Stack v2 left out, in the names of the installed linguist data."""
    languages, pairs = set(), set()
    for line in importlib.resources.files("starsmith.policies").joinpath(_DATA).read_text("utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        listed, _, extensions = line.partition(": ")
        language = RENAMED_LANGUAGES.get(listed, listed)
        if not extensions:
            languages.add(language)
        for extension in extensions.split():
            plain = "" if extension == _NO_EXTENSION else extension
            pairs.add((language, plain))
            if (listed, plain) in MOVED_EXTENSIONS:
                pairs.add((MOVED_EXTENSIONS[listed, plain], plain))
    return Excluded(frozenset(languages), frozenset(pairs))


def language_rules(config: recipe.Languages) -> list[Rule]:
    """The rules in the order in which they are listed: language known, policy, own lists, kinds of file."""
    return [_known_rule(config), *_policy_rules(config), *_list_rules(config), *_kind_rules(config)]


def _known_rule(config: recipe.Languages) -> Rule:
    return Rule(
        name="language_unknown",
        key="languages.keep_unknown",
        section="1.3",
        title="go-enry knows the language",
        allowed="a known language",
        value="coalesce(language, 'unknown')",
        drops="language IS NULL",
        applies=_HAS_TEXT,
        evidence=_NAMED,
        enabled=not config.keep_unknown,
    )


def _policy_rules(config: recipe.Languages) -> list[Rule]:
    excluded = stack_v2_excluded()
    pairs = [f"{language} .{extension}" for language, extension in sorted(excluded.pairs)]
    pair = f"language || ' .' || {_EXTENSION}"
    return [
        Rule(
            name="language_excluded_by_policy",
            key="languages.policy",
            section="1.3",
            title="The Stack v2 did not leave the language out",
            allowed=f"not one of the {len(excluded.languages)} languages that The Stack v2 left out",
            value="language",
            drops=is_in("language", sorted(excluded.languages)),
            applies=_HAS_LANGUAGE,
            evidence=_NAMED,
            enabled=config.policy == "stack-v2",
        ),
        Rule(
            name="extension_excluded_by_policy",
            key="languages.policy",
            section="1.3",
            title="The Stack v2 did not leave the extension out of its language",
            allowed=f"not one of the {len(pairs)} extensions of languages that The Stack v2 left out",
            value=f"language || if({_EXTENSION} = '', ' without an extension', ' .' || {_EXTENSION})",
            drops=is_in(pair, pairs),
            applies=_HAS_LANGUAGE,
            evidence=_NAMED,
            enabled=config.policy == "stack-v2",
        ),
    ]


def _list_rules(config: recipe.Languages) -> list[Rule]:
    return [
        Rule(
            name="language_excluded",
            key="languages.exclude",
            section="1.3",
            title="the language is not left out",
            allowed=f"not {shown(config.exclude)}",
            value="language",
            drops=is_in("language", config.exclude),
            applies=_HAS_LANGUAGE,
            evidence=_NAMED,
            enabled=bool(config.exclude),
        ),
        Rule(
            name="language_not_included",
            key="languages.include",
            section="1.3",
            title="the language is among those asked for",
            allowed=shown(config.include),
            value="language",
            drops=f"NOT {is_in('language', config.include)}",
            applies=_HAS_LANGUAGE,
            evidence=_NAMED,
            enabled=bool(config.include),
        ),
    ]


def _kind_rules(config: recipe.Languages) -> list[Rule]:
    return [
        _kind_rule("vendored", "1.3", "the path is not one of vendored code", "is_vendor", config.keep_vendored),
        _kind_rule(
            "documentation",
            "1.3",
            "the path is not one of documentation",
            "is_documentation",
            config.keep_documentation,
        ),
        _kind_rule(
            "generated", "1.4", "go-enry does not take it for generated", "is_generated", config.keep_generated
        ),
    ]


def _kind_rule(kind: str, section: str, title: str, flag: str, is_kept: bool) -> Rule:
    return Rule(
        name=kind,
        key=f"languages.keep_{kind}",
        section=section,
        title=title,
        allowed=f"not {kind}",
        value=f"if({flag}, '{kind}', 'not {kind}')",
        drops=flag,
        applies=_HAS_TEXT,
        evidence=_NAMED,
        enabled=not is_kept,
    )
