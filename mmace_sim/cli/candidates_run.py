"""What ``mmace-sim data propose`` and ``mmace-sim data select`` do once their options are known."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from mmace_sim.base.text import json_text
from mmace_sim.cli.options import Switches, tell
from mmace_sim.cli.tables import console_for, tell_left_out
from mmace_sim.data.settings import ProposeSettings, SelectSettings
from mmace_sim.engine.folder import open_file
from mmace_sim.engine.machine import pick_device, quiet_imports
from mmace_sim.engine.results import EXIT_INCOMPLETE, EXIT_OK
from mmace_sim.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms

    from mmace_sim.data.select import Choice

NO_MODEL: str = "none"


def run_propose(settings: ProposeSettings, switches: Switches) -> int:
    """Make candidates, write them and tell how many of each recipe there are.

    Args:
        settings: Structures and recipes.
        switches: What the command was told besides.

    Returns:
        Exit code: 0, or 3 if a structure could not be used.

    Raises:
        DataError: If there is no structure, or no candidate is left.
        OutputError: If the file cannot be written.
    """
    with quiet_imports():
        from mmace_sim.data.propose import propose, read_parents
        from mmace_sim.data.recipes import RECIPES
        from mmace_sim.io.writing import write_extxyz
    output = Path(settings.output)
    with open_file(output, "data propose", force=switches.force, inputs=map(Path, settings.paths)):
        parents, problems = read_parents(settings)
        made = propose(parents, settings)
        problems += made.problems
        if not made.candidates:
            raise DataError(
                f"no candidate came out of {', '.join(made.made)}: {problems[0] if problems else 'all were refused'}."
            )
        write_extxyz(output, made.candidates)
    rows = [
        {"recipe": name, "kept": made.kept(name), "copies": made.copies[name], "refused": made.refused[name],
         "teaches": RECIPES[name].teaches}
        for name in made.made
    ]  # fmt: skip
    tell_left_out(problems)
    if switches.as_json:
        told = {
            "output": str(output),
            "candidates": len(made.candidates),
            "recipes": rows,
            "problems": problems,
        }
        typer.echo(json_text(told), nl=False)
    elif not switches.quiet:
        headings = {"recipe": "recipe", "kept": "candidates", "copies": "copies", "refused": "too close"}
        headings |= {"teaches": "teaches"}
        _print_table(headings, rows)
        tell(
            f"{output}: {len(made.candidates)} candidates of {len(parents)} structure{'s' * (len(parents) > 1)}"
        )
        tell(f"Next: mmace-sim data select MODEL {output}, or mmace-sim label {output} --engine ENGINE")
    return EXIT_INCOMPLETE if problems else EXIT_OK


def run_select(settings: SelectSettings, switches: Switches) -> int:
    """Choose candidates, write them, and tell why.

    Args:
        settings: Model, candidates and number.
        switches: What the command was told besides.

    Returns:
        Exit code: 0, or 3 if a file could not be used.

    Raises:
        DataError: If there is no candidate, or none is worth a calculation.
        OutputError: If the file cannot be written.
        UncalibratedModelError: If the model does not tell what it does not know.
    """
    with quiet_imports():
        from mmace_sim.data.candidates import ID, load_candidates
        from mmace_sim.data.select import random_choice, score, select
        from mmace_sim.io.writing import write_extxyz
        from mmace_sim.model.checkpoint import load_model
    output, named = Path(settings.output), [*settings.candidates, *settings.known]
    device = pick_device(settings.device, settings.threads)
    with open_file(output, "data select", force=switches.force, inputs=map(Path, named)):
        candidates, problems = load_candidates(settings.candidates)
        candidates = _without(candidates, load_candidates(settings.known)[0] if settings.known else [])
        model = None if settings.model == NO_MODEL else load_model(settings.model).to(device)
        scores = score(candidates, model)
        if settings.random:
            indices = random_choice(candidates, settings.count, settings.seed)
            rows = [{"candidate": candidates[k].info[ID], "reason": "at random"} for k in indices]
        else:
            choices = select(candidates, settings.count, scores)
            indices = [choice.index for choice in choices]
            rows = [_row(candidates[choice.index], choice) for choice in choices]
        if not indices:
            refused = next(iter(scores.refused.values()), "all are copies of what is known")
            raise DataError(f"no candidate is worth a calculation: {refused}.")
        chosen = [candidates[k] for k in indices]
        for atoms, row in zip(chosen, rows, strict=True):
            atoms.info["chosen_because"] = row["reason"]
        write_extxyz(output, chosen)
    tell_left_out(problems)
    if switches.as_json:
        refusals = {str(candidates[k].info[ID]): reason for k, reason in scores.refused.items()}
        typer.echo(json_text({"output": str(output), "chosen": rows, "refused": refusals}), nl=False)
    elif not switches.quiet:
        headings = {"candidate": "candidate", "score": "score", "reason": "why"}
        _print_table({key: name for key, name in headings.items() if key in rows[0]}, rows)
        left_out = f"; {len(scores.refused)} were refused" if scores.refused else ""
        tell(f"{output}: {len(chosen)} of {len(candidates)} candidates{left_out}")
        tell(f"Next: mmace-sim label {output} --engine ENGINE")
    return EXIT_INCOMPLETE if problems else EXIT_OK


def _row(atoms: "Atoms", choice: "Choice") -> dict[str, Any]:
    from mmace_sim.data.candidates import ID

    return {
        "candidate": atoms.info[ID],
        "score": round(choice.score, 3),
        "distance": round(choice.distance, 4),
        "domain": choice.domain,
        "uncertainty": choice.sizes,
        "reason": choice.reason,
    }


def _without(candidates: "Sequence[Atoms]", known: "Iterable[Atoms]") -> "list[Atoms]":
    """Candidates that are not known by name nor by content."""
    from mmace_sim.data.candidates import ID, TYPE, Distinct

    distinct, names = Distinct(), set()
    for atoms in known:
        distinct.is_new(atoms)
        names.add(atoms.info[ID])
    return [
        atoms
        for atoms in candidates
        if atoms.info[ID] not in names
        and distinct.is_new(atoms, turned=str(atoms.info[TYPE]).endswith("-frames"))
    ]


def _print_table(headings: dict[str, str], rows: Sequence[dict[str, Any]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for key, name in headings.items():
        table.add_column(name, justify="right" if isinstance(rows[0].get(key), int | float) else "left")
    for row in rows:
        table.add_row(
            *(Text(f"{row[key]:.3g}" if isinstance(row[key], float) else str(row[key])) for key in headings)
        )
    console_for(table, highlight=False).print(table)
