"""What ``mmace-sim data check`` does once its options are known."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import ValidationError
from rich import box
from rich.table import Table
from rich.text import Text

from mmace_sim.base.text import json_text
from mmace_sim.cli.options import Switches, tell, wide_console
from mmace_sim.cli.tables import tell_left_out
from mmace_sim.engine.folder import log_to, now, open_file, open_folder
from mmace_sim.engine.machine import quiet_imports
from mmace_sim.engine.output import versions
from mmace_sim.engine.results import EXIT_INCOMPLETE, EXIT_OK
from mmace_sim.errors import ConfigError
from mmace_sim.files import write_text

if TYPE_CHECKING:
    from mmace_sim.base.labels import LabelKeys
    from mmace_sim.quality.preflight import PreflightReport
    from mmace_sim.training.data.settings import DataCheckSettings, DataConvertSettings

_log = logging.getLogger(__name__)

_STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "bold red"}


def run_data_check(settings: "DataCheckSettings", switches: Switches) -> int:
    """Check the files and write the folder of the run.

    Args:
        settings: Files and names of labels.
        switches: What the command was told besides.

    Returns:
        Exit code: 0, or 3 if there is a finding of level error.

    Raises:
        ConfigError: If there is no file or a key is unknown.
        DataError: If a file cannot be read or no structure can be used.
        OutputError: If the folder cannot be written.
    """
    with quiet_imports():
        from mmace_sim.io.frames import file_sha256, read_frames
        from mmace_sim.quality.preflight import check_data
        from mmace_sim.quality.preflight.figures import save_preflight_figures
    given = {"data": settings.files, "train": settings.train, "valid": settings.valid, "test": settings.test}
    paths = {role: [Path(file) for file in files] for role, files in given.items() if files}
    if not paths:
        raise ConfigError("no file to check: give FILES, or --train, --valid and --test.")
    labels, folder = parse_keys(settings.keys), Path(settings.output)
    started = now()
    found = {role: read_frames(files, labels) for role, files in paths.items()}
    report = check_data(found)
    names = {role: [str(path) for path in files] for role, files in paths.items()}
    used = {"command": "data check", "files": names, "keys": labels.model_dump(), "figures": settings.figures}
    read = [path for files in paths.values() for path in files]
    opened = open_folder(folder, "data check", resume=None, force=switches.force, inputs=read)
    with opened, log_to(folder / "log.txt"):
        write_text(folder / "config.yaml", yaml.safe_dump(used, sort_keys=False, allow_unicode=True))
        for finding in report.findings:
            _log.info("%s %s: %s", finding.severity, finding.code, finding.message)
        summary = {
            "command": "data check",
            "started": started,
            "finished": now(),
            "files": [
                {"role": role, "file": str(path), "sha256": file_sha256(path)}
                for role, files in paths.items()
                for path in files
            ],
            **report.as_dict(),
            "versions": versions(),
        }
        write_text(folder / "summary.json", json_text(summary))
        if settings.figures:
            (folder / "figures").mkdir(exist_ok=True)
            members = {role: item.frames for role, item in found.items()}
            save_preflight_figures(report, members, folder / "figures")
    if not switches.quiet:
        _print(report, folder)
    return EXIT_INCOMPLETE if str(report.worst) == "error" else EXIT_OK


def run_data_convert(settings: "DataConvertSettings", switches: Switches) -> int:
    """Convert the files.

    Args:
        settings: Files, the file to write, and names of labels.
        switches: What the command was told besides.

    Returns:
        Exit code: 0, or 3 if any structure was left out.

    Raises:
        ConfigError: If a key is unknown.
        DataError: If a file cannot be read or no structure can be used.
        OutputError: If the file exists or its folder does not.
    """
    with quiet_imports():
        from mmace_sim.training.data.conversion import convert_files
    files, output, labels = list(map(Path, settings.files)), Path(settings.output), parse_keys(settings.keys)
    with open_file(output, "data convert", force=switches.force, inputs=files):
        done = convert_files(files, output, labels)
    tell_left_out(done.problems)
    if not switches.quiet:
        counts = ", ".join(f"{label} {count}" for label, count in done.labels.items())
        text = f"{output}: {done.n_structures} structures; with {counts or 'no labels'}"
        tell(text)
    return EXIT_INCOMPLETE if done.problems else EXIT_OK


def parse_keys(text: str | None) -> "LabelKeys":
    """Names of labels from ``label=key,label=key``.

    Args:
        text: What the user gave; None: the default names.

    Returns:
        The names.

    Raises:
        ConfigError: If a label is unknown or the text has another form.
    """
    from mmace_sim.base.labels import LabelKeys

    parts = [part.split("=", 1) for part in (text or "").split(",") if part.strip()]
    known = ", ".join(LabelKeys.model_fields)
    if any(len(part) != 2 or not part[1].strip() for part in parts):
        raise ConfigError(f"--keys {text!r} is not LABEL=KEY,LABEL=KEY; labels are {known}.")
    try:
        return LabelKeys(**{label.strip(): key.strip() for label, key in parts})
    except ValidationError as error:
        wrong = ", ".join(str(item["loc"][0]) for item in error.errors())
        raise ConfigError(f"--keys: unknown label {wrong}; labels are {known}.") from error


def _print(report: "PreflightReport", folder: Path) -> None:
    from mmace_sim.quality.preflight import SEVERITIES

    table = Table("", "finding", "what to do", box=box.SIMPLE_HEAD, pad_edge=False)
    for finding in sorted(report.findings, key=lambda f: SEVERITIES.index(f.severity), reverse=True):
        level = Text(str(finding.severity), style=_STYLES[str(finding.severity)])
        table.add_row(level, Text(finding.message), Text(finding.advice))
    console = wide_console(160)
    console.print(table)
    counts = {level: sum(f.severity == level for f in report.findings) for level in reversed(SEVERITIES)}
    sizes = ", ".join(f"{n} {role}" for role, n in report.n_frames.items())
    text = ", ".join(f"{count} {level}" for level, count in counts.items() if count)
    console.print(f"Structures: {sizes}. Findings: {text}.", highlight=False)
    console.print(
        f"Results: {folder}/summary.json, config.yaml, log.txt, figures/", highlight=False, markup=False
    )
