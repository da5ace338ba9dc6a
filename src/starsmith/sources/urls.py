"""What a source shows of a URL: never its credentials, and the repository's name.

A repository is named `owner/name` as The Stack v2 names those of GitHub (section 1.1), from the last two
components of a URL's path; a URL of a file system and a local path give the folder's name alone.
"""

import re
from urllib.parse import urlsplit, urlunsplit

_SCP = re.compile(r"(?:[^@/:]+@)?(?P<host>[^/:]{2,}):(?!//)(?P<path>.+)")
"""`git@host:owner/name`, the short form of SSH; a host of one letter is a drive."""


def is_remote(url: str) -> bool:
    """Whether a string is a URL (or SSH's short form) rather than a local path."""
    return "://" in url or _SCP.fullmatch(url) is not None


def without_credentials(url: str) -> str:
    """The URL without user and password; SSH's short form keeps its host and path."""
    if "://" not in url:
        scp = _SCP.fullmatch(url)
        return f"{scp['host']}:{scp['path']}" if scp else url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def repository_name(url: str) -> str:
    """`owner/name` of a URL that has both, else its last component; without `.git`."""
    owned = True
    if "://" in url:
        parts = urlsplit(url)
        path, owned = parts.path, bool(parts.netloc)
    else:
        scp = _SCP.fullmatch(url)
        path, owned = (scp["path"], True) if scp else (url, False)
    components = [component for component in path.split("/") if component not in ("", ".", "..")]
    if components and components[-1] == ".git":
        components.pop()
    if not components:
        return "repository"
    components[-1] = components[-1].removesuffix(".git") or components[-1]
    return "/".join(components[-2:] if owned else components[-1:])
