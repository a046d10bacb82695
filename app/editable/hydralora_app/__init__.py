"""The app under the name that a wheel installs it by, where the checkout itself is installed (pip install -e)."""

from pathlib import Path

__path__ = [str(Path(__file__).parents[2])]
