"""Tables of Markdown that scripts write into pages, between marks that stay."""

from collections.abc import Iterable

LABELS = {"energy": "meV/atom", "forces": "meV/Å", "stress": "meV/Å³", "magforces": "meV/μB"}
"""Units that errors are given in, by label."""
SIGMA = {
    "energy": "energy (meV/atom)",
    "forces": "forces (meV/Å)",
    "stress": "stress (meV/Å³)",
    "magforces_length": "magnetic forces along the moment (meV/μB)",
    "magforces_transverse": "magnetic forces across it (meV/μB)",
}
"""What the predicted errors are of."""


def number(value: float, digits: int = 0) -> str:
    """A number with a real minus sign, and none before zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def filled(text: str, name: str, content: str) -> str:
    """A page with new content between the marks of a name."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{content}\n{end}{rest.split(end)[1]}"


def errors(found: dict[str, dict], first: str = "test set") -> str:
    """Mean absolute errors of groups of structures."""
    rows = [
        [name, str(group["count"]), *(number(group[label], 1) if label in group else "" for label in LABELS)]
        for name, group in found.items()
    ]
    return table([first, "structures", *LABELS.values()], rows)


def about(report: dict) -> str:
    """How large the model is and what it was trained on, before the table of errors."""
    parts = ("train", "valid", "test")
    sizes = " / ".join(str(report["sets"][part]) for part in parts)
    return (
        f"{report['weights']:,} weights; {sizes} calculations (train / validation / test, by a hash of each id). "
        "Mean absolute errors on the test set:\n"
    )


def sigmas(calibration: dict[str, dict]) -> str:
    """Errors that a model predicts of itself, as they were calibrated with structures that it had not seen."""
    rows = [
        [label, number(1000 * part["median"], 1), number(part["spearman"], 2), str(part["count"])]
        for key, label in SIGMA.items()
        if (part := calibration.get(key))
    ]
    head = "What it says of its own errors (σ, [](../uncertainty.md)), by calculations that it was not trained on:\n\n"
    return head + table(["σ of", "typical", "rank correlation with the errors", "errors compared"], rows)
