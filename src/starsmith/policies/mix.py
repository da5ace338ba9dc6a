"""What of each language goes into training: the set of languages, and volumes (section 4.2).

`smol` is the set of the 3B and 7B models: 17 programming languages, documentation languages, and configuration
languages and files. The first two lists are the paper's. **The configuration lists (appendix C.1) are recalled,
not seen.** Of the two languages that are doubtful even so, SQL is among the 17 anyway, and YAML counts as
configuration here. A configuration file stays under its name whatever its language is.

Volumes are cut after near-duplicates, on what is kept. The files of a language stand in the order of a keyed hash
of their content, which no other file changes; they stay up to the first that would go beyond the volume. So a
larger volume keeps all that a smaller one keeps, and a corpus that grows keeps the order of what it had. Volumes
count bytes of the files as they came, before personal data is replaced. The paper cuts more data formats
to 1 GB (table 28, not seen); `mix.max_bytes` takes them.
"""

from collections.abc import Mapping

import duckdb
import pyarrow as pa

from starsmith import recipe
from starsmith.policies.rules import Rule, is_in

PROGRAMMING_LANGUAGES = (
    "C", "C#", "C++", "Go", "Java", "JavaScript", "Kotlin", "Lua", "PHP", "Python", "R", "Ruby", "Rust", "SQL",
    "Shell", "Swift", "TypeScript",
)  # fmt: skip
DOCUMENTATION_LANGUAGES = ("AsciiDoc", "HTML", "Markdown", "RDoc", "RMarkdown", "Text", "reStructuredText")
CONFIGURATION_LANGUAGES = (
    "Ant Build System", "CMake", "Dockerfile", "Go Checksums", "Go Module", "Gradle", "INI", "Java Properties",
    "Makefile", "Maven POM", "NPM Config", "Nix", "TOML", "YAML",
)  # fmt: skip
"""As go-enry names them; `Go Checksums` is what it now calls the `go.sum` of the list of files."""
CONFIGURATION_FILES = (
    "CMakeLists.txt", "Cargo.toml", "DESCRIPTION", "Gemfile", "Makefile", "Makefile.am", "NAMESPACE",
    "Package.swift", "Rakefile", "build.gradle", "build.gradle.kts", "composer.json", "conda.yml", "configure.ac",
    "docker-compose.yaml", "docker-compose.yml", "go.mod", "go.sum", "meson.build", "package.json", "pom.xml",
    "project.clj", "pyproject.toml", "requirements-dev.txt", "requirements-prod.txt", "requirements.in",
    "requirements.test.txt", "requirements.txt", "setup.cfg", "setup.py", "tsconfig.json", "yarn.lock",
)  # fmt: skip
SMOL_LANGUAGES = (*PROGRAMMING_LANGUAGES, *DOCUMENTATION_LANGUAGES, *CONFIGURATION_LANGUAGES)

_VOLUMES = pa.schema([("language", pa.string()), ("max_bytes", pa.int64())])


def language_rule(config: recipe.Mix) -> Rule:
    stays = f"{is_in('language', SMOL_LANGUAGES)} OR {is_in('name', CONFIGURATION_FILES)}"
    return Rule(
        name="mix_language",
        key="mix.languages",
        section="4.2",
        title="the language is one of the mix",
        allowed=f"one of {len(PROGRAMMING_LANGUAGES)} programming, {len(DOCUMENTATION_LANGUAGES)} documentation "
        f"and {len(CONFIGURATION_LANGUAGES)} configuration languages, or a configuration file",
        value="coalesce(language, 'unknown')",
        drops=f"NOT ({stays})",
        applies="status = 'text'",
        evidence="'the file is ' || name",
        enabled=config.languages == "smol",
    )


def volume_rule(config: recipe.Mix) -> Rule:
    listed = ", ".join(f"{language} {max_bytes:,}" for language, max_bytes in sorted(config.max_bytes.items()))
    return Rule(
        name="mix_volume",
        key="mix.max_bytes",
        section="4.2",
        title="its language's volume has room for it",
        allowed=f"bytes of {listed}" if listed else "any volume",
        threshold="'<= ' || max_bytes || ' bytes of ' || language",
        value="through_bytes || ' bytes'",
        drops="through_bytes > max_bytes",
        evidence="'file ' || place || ' of ' || num_files || ' of ' || language || ' by keyed hash; ' || "
        "total_bytes || ' bytes in all'",
        enabled=bool(config.max_bytes),
        relation="volume_places",
    )


def register_volumes(connection: duckdb.DuckDBPyConnection, max_bytes: Mapping[str, int]) -> None:
    """The view `volumes`: `language` and `max_bytes`, for languages that have a limit."""
    rows = [{"language": language, "max_bytes": limit} for language, limit in sorted(max_bytes.items())]
    connection.register("volumes", pa.Table.from_pylist(rows, schema=_VOLUMES))


def create_volume_places(
    connection: duckdb.DuckDBPyConnection, candidates: str, config: recipe.Mix, seed: int
) -> None:
    """The table `volume_places`: the files of the languages that do not fit, with the bytes of the language up to
    and with each file in the keyed order.

    Args:
        connection: where the table is made.
        candidates: a relation with `file_id`, `content_id`, `language` and `length_bytes`.
        config: `max_bytes`.
        seed: the root of keyed randomness.
    """
    register_volumes(connection, config.max_bytes)
    connection.execute(
        f"""
        CREATE TEMP TABLE volume_places AS
        WITH too_large AS (
            SELECT language, max_bytes, count(*) AS num_files, sum(length_bytes)::BIGINT AS total_bytes
            FROM {candidates} JOIN volumes USING (language)
            GROUP BY language, max_bytes HAVING sum(length_bytes) > max_bytes
        )
        SELECT file_id, content_id, language, max_bytes, num_files, total_bytes,
            row_number() OVER drawn AS place, sum(length_bytes) OVER drawn AS through_bytes
        FROM {candidates} JOIN too_large USING (language)
        WINDOW drawn AS (
            PARTITION BY language ORDER BY md5('mix {seed:d} ' || content_id), content_id, file_id
            ROWS UNBOUNDED PRECEDING
        )
        """
    )
