"""Measure embedded models and write every table of them: python docs/models/refresh.py [MODEL...].

After a training of a model this is the one command: it measures the models that are named (both without names, none
with `--pages`), and writes docs/models/*.json, the two cards and docs/iron.md. Not written here: the figure of the
README (docs/readme_figure.py), docs/models/applications.md (applications_3d.py), the learning curve (learning_3d.py),
the output of `make demo` in the README and that of `relax` in docs/uncertainty.md, numbers of calculations in the
CHANGELOG and in examples/data/mag3d-gpaw.
"""

import sys

import card_3d
import card_fe
import iron
import iron_page
import measure
import measure_3d

PAGES = (card_3d, card_fe, iron_page)
MEASURES = {card_3d.NAME: measure_3d.measure, card_fe.NAME: measure.measure}


def main() -> None:
    """Measure and write."""
    names = [name for name in sys.argv[1:] if name != "--pages"]
    if unknown := set(names) - set(MEASURES):
        raise SystemExit(f"no embedded model: {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    if "--pages" not in sys.argv:
        chosen = names or list(MEASURES)
        iron.measure(chosen)
        for name in chosen:
            MEASURES[name](name)
    for page in PAGES:
        page.PAGE.write_text(page.anew(page.PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
