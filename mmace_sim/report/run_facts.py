"""What every page about a run shows: when it ran, with what, its settings and its warnings."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from mmace_sim.engine.output import versions
from mmace_sim.report.template import STYLE
from mmace_sim.report.values import Table


def filled_page(template: str, folder: Path, summary: Mapping[str, Any], title: str, **values: Any) -> str:
    """A page about a run.

    Args:
        template: The page; what every one has (`HEAD`, `RUN` and ``warnings``, the lines of the log that are warnings
            or errors) is filled in.
        folder: Folder of the run.
        summary: Its ``summary.json``.
        title: What the run was about.
        **values: What else it is filled with.

    Returns:
        HTML.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(
        title=f"mmace-sim {summary['command']}: {title}",
        style=Markup(STYLE),
        lead=_lead(summary),
        warnings=_warnings(folder),
        run=_run_facts(summary),
        versions=summary["versions"].items(),
        settings=_settings(folder, summary["config"]),
        own_version=versions()["mmace-sim"],
        **values,
    )


def _lead(summary: Mapping[str, Any]) -> str:
    """When, how long, with which model."""
    start, end = (datetime.fromisoformat(summary[key]) for key in ("created", "finished"))
    seconds = int((end - start).total_seconds())
    hours, rest = divmod(seconds, 3600)
    took = (
        f"{hours} h {rest // 60} min"
        if hours
        else f"{rest // 60} min {rest % 60} s"
        if rest > 99
        else f"{rest} s"
    )
    return f"{start:%Y-%m-%d %H:%M}, {took}, model {summary['model']['name']}"


def _warnings(folder: Path) -> list[str]:
    """Lines of the log that are warnings or errors."""
    try:
        lines = (folder / "log.txt").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line for line in lines if re.match(r"\S+ (WARNING|ERROR|CRITICAL) ", line)][:200]


def _run_facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    model = summary["model"]
    texts = {
        key: model[key]
        for key in ("name", "licence", "citation", "dataset")
        if isinstance(model.get(key), str)
    }
    facts = [(f"model: {key}" if key != "name" else "model", text) for key, text in texts.items()]
    return [*facts, ("started", summary["created"]), ("finished", summary["finished"])]


def _settings(folder: Path, config: Mapping[str, Any]) -> Table:
    """Settings with their meaning, which stands beside them in ``config.yaml``."""
    try:
        text = (folder / "config.yaml").read_text(encoding="utf-8")
    except OSError:
        text = ""
    meaning = dict(re.findall(r"^(\w+):.*?  # (.*)$", text, flags=re.MULTILINE))
    rows = [
        [key, json.dumps(value, ensure_ascii=False), meaning.get(key, "")] for key, value in config.items()
    ]
    return Table("All settings, defaults included", ["setting", "value", "meaning"], rows, [False] * 3)
