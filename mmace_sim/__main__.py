"""``python -m mmace_sim``: the same as the command ``mmace-sim``."""

from mmace_sim.cli.app import main

main()
