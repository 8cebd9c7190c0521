"""Whether everything that names a version agrees with a tag: `python tools/check_release.py v0.2.0`."""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def faults(tag: str, root: Path = ROOT) -> list[str]:
    """What is not ready for this tag, one sentence each."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    version = settings["project"]["version"]
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    repository = settings["tool"]["mmace_sim"]["repository"]
    open_changes = re.search(r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    checks = {
        f"the tag is {tag}, but pyproject.toml says {version}": tag == f"v{version}",
        f"CHANGELOG.md has no section '## [{version}] - YYYY-MM-DD'": bool(
            re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE)
        ),
        "CHANGELOG.md has changes under [Unreleased]": not (open_changes and open_changes[1].strip()),
        f"CITATION.cff does not say version {version}": f"\nversion: {version}\n" in citation,
        "CITATION.cff has no date-released": "\ndate-released: " in citation,
        "[tool.mmace_sim] repository in pyproject.toml is empty": bool(repository),
        "CITATION.cff does not have that address as repository-code": bool(repository)
        and repository in citation,
    }
    return [fault for fault, passed in checks.items() if not passed]


if __name__ == "__main__":
    found = faults(sys.argv[1])
    print("\n".join(found) or "ready", file=sys.stderr if found else sys.stdout)
    sys.exit(bool(found))
