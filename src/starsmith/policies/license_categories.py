"""Which licences are permissive: the list that The Stack v2's licence rule judges by.

The paper's list (App. A.4) is the union of the Blue Oak Council's list and of ScanCode's categories
"Permissive" and "Public Domain". That file itself is not redistributed here; it is rebuilt by the same
definition into `permissive_licenses.txt`, one SPDX key a line:

    python -m starsmith.policies.license_categories --blue-oak blueoak-list.json

All Blue Oak ratings count, "Lead" too: the paper says "the list". Building needs ScanCode's licence database,
reading the result does not, so that no policy loads it.
"""

import argparse
import functools
import importlib.metadata
import json
import sys
import warnings
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from starsmith.errors import InputError

PERMISSIVE_CATEGORIES = ("Permissive", "Public Domain")

NEUTRAL_LICENSES = frozenset(
    f"LicenseRef-scancode-{key}"
    for key in (
        "dco-1.1",
        "generic-cla",
        "generic-exception",
        "generic-export-compliance",
        "generic-tos",
        "generic-trademark",
        "google-cla",
        "jetty-ccla-1.1",
        "newton-king-cla",
        "warranty-disclaimer",
    )
)
"""Texts that grant and forbid nothing; ignored when a set of licences is judged (section 1.2)."""

_DATA = "permissive_licenses.txt"


@functools.cache
def permissive_licenses() -> frozenset[str]:
    """The SPDX keys of the packaged list."""
    lines = resources.files("starsmith.policies").joinpath(_DATA).read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def derive(scancode_licenses: Iterable[Any], blue_oak: Any) -> list[str]:
    """The sorted union of both origins.

    Args:
        scancode_licenses: records with `category`, `spdx_license_key` and `other_spdx_license_keys`.
        blue_oak: the parsed list: ratings, each with `licenses` that have an `id`.

    Raises:
        InputError: `blue_oak` has another shape.
    """
    keys: set[str] = set()
    for entry in scancode_licenses:
        if entry.category in PERMISSIVE_CATEGORIES:
            keys.update(key for key in (entry.spdx_license_key, *entry.other_spdx_license_keys) if key)
    try:
        keys.update(entry["id"] for rating in blue_oak for entry in rating["licenses"])
    except (KeyError, TypeError) as error:
        raise InputError(
            f"not a Blue Oak list ({error!r}): expected a JSON array of ratings with `licenses`, each with an `id`"
        ) from None
    return sorted(keys)


def scancode_licenses() -> list[Any]:
    """ScanCode's licences that are in force (deprecated keys are never detected)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ScanCode warns about where it found libmagic
        from licensedcode.models import load_licenses
    return list(load_licenses(with_deprecated=False).values())


def render(keys: Sequence[str], *, scancode_version: str, blue_oak_name: str) -> str:
    """The data file's text."""
    header = (
        f'# SPDX keys of permissive licences: ScanCode {scancode_version}\'s categories "Permissive" and',
        f'# "Public Domain", and all ratings of the Blue Oak Council\'s list ({blue_oak_name}).',
        "# Rebuild with: python -m starsmith.policies.license_categories --blue-oak FILE",
    )
    return "\n".join((*header, *keys)) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Rebuild the list of permissive licences.")
    parser.add_argument("--blue-oak", type=Path, required=True, help="the list as JSON (package @blueoak/list)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name(_DATA))
    options = parser.parse_args(arguments)
    try:
        blue_oak = json.loads(options.blue_oak.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"cannot read {options.blue_oak}: {error}", file=sys.stderr)
        return InputError.exit_code
    keys = derive(scancode_licenses(), blue_oak)
    version = importlib.metadata.version("scancode-toolkit-mini")
    text = render(keys, scancode_version=version, blue_oak_name=options.blue_oak.stem)
    options.output.write_text(text, encoding="utf-8")
    print(f"{len(keys)} licences written to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
