"""Which files speak of licences, and for which directory: rules on the path alone.

The expression for licence-like names is The Stack v2's (section 1.2, from App. A.3 of the paper and its code,
which took it from go-license-detector). It is matched without case on the whole base name. Names of package
manifests are those of the packagers' own documentation, matched with case. The signals room reads what these
match, the policies room propagates what was found; both ask here, so that they cannot differ.
"""

import re

LICENSE_PATH = (
    r"(?is)(|.*[-_. ])"
    r"(li[cs]en[cs]e(s?)|legal|copy(left|right|ing)|unlicense|[al]?gpl([-_ v]?)([0-9]\.?[0-9]?)?|bsd(l?)|mit(x?)"
    r"|apache|artistic|copying(v?)([0-9]?)|disclaimer|eupl|gfdl|[cm]pl|cc0|al([-_ v]?)([0-9]\.?[0-9])?"
    r"|about|notice|readme|guidelines)"
    r"(|[-_. ].*)"
)
"""For a full match of a base name; means the same in Python's `re` and in RE2 (DuckDB)."""

MANIFEST_PATH = (
    r"(?s)(package|bower|composer|elm|dub)\.json|Cargo\.toml|pyproject\.toml|setup\.cfg|setup\.py|PKG-INFO|METADATA"
    r"|DESCRIPTION|pom\.xml|mix\.exs|.*\.(gemspec|podspec|nuspec|cabal)"
)
"""For a full match of a base name, as `LICENSE_PATH`."""

METADATA_FOLDER = r"[^/]+\.(dist-info|egg-info)/$"
"""For a search in a directory's path: the end that is cut to get the directory a Python package lies in."""

UNKNOWN_REFERENCE = "LicenseRef-scancode-unknown-license-reference"
"""The key of a bare mention such as "see LICENSE": a licence exists, but not here."""

_LICENSE_PATH = re.compile(LICENSE_PATH)
_MANIFEST_PATH = re.compile(MANIFEST_PATH)


def is_license_like(path: str) -> bool:
    """Whether the base name of `path` says licence, notice, readme and the like."""
    return _LICENSE_PATH.fullmatch(path.rpartition("/")[2]) is not None


def is_manifest(path: str) -> bool:
    """Whether the base name of `path` is that of a package manifest which can state a licence."""
    return _MANIFEST_PATH.fullmatch(path.rpartition("/")[2]) is not None
