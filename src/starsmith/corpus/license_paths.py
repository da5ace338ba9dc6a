"""Which files count as evidence of a licence: a rule on the name alone.

The expression is The Stack v2's (section 1.2, from App. A.3 of the paper and its code, which took it from
go-license-detector). It is matched without case on the whole base name. The signals room scans what it
matches, the policies room propagates what was found; both ask here, so that they cannot differ.
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

_LICENSE_PATH = re.compile(LICENSE_PATH)


def is_license_like(path: str) -> bool:
    """Whether the base name of `path` says licence, notice, readme and the like."""
    return _LICENSE_PATH.fullmatch(path.rpartition("/")[2]) is not None
