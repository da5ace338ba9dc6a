"""detect-secrets with its default plugins and filters: CPU time and findings for the files of a folder.

Argument: the folder. Prints the seconds of processor time, and for each finding its file, line, type and value.
"""

import json
import os
import sys
import time
from pathlib import Path

from detect_secrets import SecretsCollection
from detect_secrets.settings import default_settings


def main():
    folder = Path(sys.argv[1])
    os.chdir(folder)
    names = sorted(path.name for path in Path().iterdir())
    secrets = SecretsCollection()
    with default_settings():
        secrets.scan_file(names[0])  # its settings load at the first file
        secrets = SecretsCollection()
        started = time.process_time()
        for name in names:
            secrets.scan_file(name)
        seconds = time.process_time() - started
    findings = [[name, found.line_number, found.type, found.secret_value] for name, found in secrets]
    print(json.dumps({"seconds": seconds, "files": len(names), "findings": sorted(findings, key=str)}))


main()
