"""``mmace-sim models``: what is installed."""

from typing import Annotated, Any

import typer


def models(
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
) -> None:
    """List the models that `--model` knows by name: elements, size, errors, licence, citation."""
    from mmace_sim.cli.options import quiet_imports

    with quiet_imports():
        rows = _collect()
    if json_output:
        import json

        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    if not rows:
        typer.echo("No model is installed. Train one with `mmace-sim train`, and use it with --model FILE.")
        return
    _print_table(rows)


def _collect() -> list[dict[str, Any]]:
    """One row for each model file; an alias shares the row of its file."""
    from mmace_sim.errors import ModelFileError
    from mmace_sim.model.checkpoint import read_metadata
    from mmace_sim.model.registry import list_models

    rows: dict[str, dict[str, Any]] = {}
    for name, path in list_models().items():
        if not path.is_file():
            continue
        key = str(path.resolve())
        if key in rows:
            rows[key]["names"].append(name)
            continue
        row: dict[str, Any] = {
            "names": [name],
            "path": str(path),
            "megabytes": round(path.stat().st_size / 1e6, 2),
        }
        try:
            row |= _describe(read_metadata(path))
        except ModelFileError as error:
            row["problem"] = str(error)
        rows[key] = row
    return list(rows.values())


def _describe(metadata: dict[str, Any]) -> dict[str, Any]:
    from ase.data import chemical_symbols

    config = metadata.get("config", {})
    return {
        "elements": [chemical_symbols[int(number)] for number in config.get("atomic_numbers", [])],
        "spin_orbit": config.get("spin_orbit"),
        "r_max": config.get("r_max"),
        "errors": metadata.get("errors"),
        "licence": metadata.get("licence") or metadata.get("license"),
        "citation": metadata.get("citation"),
        "description": metadata.get("description"),
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "elements", "size", "spin–orbit", "test MAE", "licence", "citation")
    for row in rows:
        if "problem" in row:
            table.add_row(", ".join(row["names"]), "", f"{row['megabytes']} MB", "", row["problem"], "", "")
            continue
        table.add_row(
            ", ".join(row["names"]),
            " ".join(row["elements"]),
            f"{row['megabytes']} MB",
            "yes" if row["spin_orbit"] else "no",
            format_errors(row["errors"]),
            row["licence"] or "not stated",
            row["citation"] or "not stated",
        )
    Console().print(table)


def format_errors(errors: Any) -> str:
    """Mean absolute errors of a model in words, one label per line.

    Args:
        errors: What the metadata says: for each set, for each label, "mae" and "unit".

    Returns:
        Errors on the test set, or on the set nearest to one, such as ``energy 2.1 meV/atom``; "not stated" if there
        are none.
    """
    if not isinstance(errors, dict) or not errors:
        return str(errors) if errors else "not stated"
    sets = {key.partition("/")[0] for key in errors}  # "test", or "test/HEAD" of a model with several heads
    name = next((name for name in ("test", "valid", "train") if name in sets), None)
    if name is None:
        return "\n".join(_error_lines(errors)) or "not stated"
    lines = [] if name == "test" else [f"({name} set)"]
    for key, labels in errors.items():
        which, _, head = key.partition("/")
        if which == name:
            lines += ([f"{head}:"] if head else []) + _error_lines(labels)
    return "\n".join(lines) or "not stated"


def _error_lines(labels: dict[str, Any]) -> list[str]:
    lines = []
    for label, value in labels.items():
        if isinstance(value, dict) and "mae" in value:
            lines.append(f"{label} {value['mae']:.3g} {value.get('unit', '')}".rstrip())
        elif not isinstance(value, dict):
            lines.append(f"{label} {value:.3g}" if isinstance(value, float) else f"{label} {value}")
    return lines
