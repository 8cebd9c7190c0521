"""Configurations of commands that are not declared as properties yet."""

from mmace_sim.base.settings import dump_settings as dump_config
from mmace_sim.base.settings import load_settings as load_config
from mmace_sim.cli.declared import load_command_settings
from mmace_sim.engine.settings import NOT_PHYSICS, ModelRunSettings, RunSettings

ModelRunConfig, RunConfig = ModelRunSettings, RunSettings


def load_run_config(kind, file, flags):  # noqa
    return load_command_settings(kind, file, flags, needs_paths=True)


def split_list(value):  # noqa
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


__all__ = ["NOT_PHYSICS", "ModelRunConfig", "RunConfig", "dump_config", "load_config"]
