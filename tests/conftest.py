"""Hypothesis draws new examples on every local run, and the same ones in continuous integration: there a failure
must be the change's own."""

import os

from hypothesis import settings

settings.register_profile("continuous-integration", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("continuous-integration")
