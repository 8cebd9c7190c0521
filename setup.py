"""What pyproject.toml cannot say: the addresses of the project and the README's links, all from one address.

The address is ``repository`` in the section ``[tool.mmace_sim]`` of pyproject.toml. While it is empty there are no
addresses, and the long description keeps the words of links into the repository without the links.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)\s]+)\)")


def long_description(readme: str, repository: str, revision: str = "main") -> str:
    """The README with links that work outside of the repository.

    Args:
        readme: Its text.
        repository: Address of the repository, or nothing.
        revision: Branch or tag that links lead to.
    """

    def absolute(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        if not repository:
            return "" if image else text
        return f"{image}[{text}]({repository}/{'raw' if image else 'blob'}/{revision}/{target})"

    return LINK.sub(absolute, readme)


def addresses(repository: str) -> dict[str, str]:
    """Names and addresses for the page of the package."""
    if not repository:
        return {}
    return {
        "Repository": repository,
        "Issues": f"{repository}/issues",
        "Changelog": f"{repository}/blob/main/CHANGELOG.md",
        "Documentation": f"{repository}/tree/main/docs",
    }


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    address = project["tool"]["mmace_sim"]["repository"].rstrip("/")
    tag = f"v{project['project']['version']}"
    setup(
        long_description=long_description((ROOT / "README.md").read_text(encoding="utf-8"), address, tag),
        long_description_content_type="text/markdown",
        project_urls=addresses(address),
    )
