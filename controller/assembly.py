"""The parts that answer a request, made of the configuration: the picker with its rule, the judges, ext_proc.

Owns which setting reaches which part; refuses to know ports, tasks and the cluster.
"""

from __future__ import annotations

import logging
from random import Random

from agent.engines.places import Told
from controller.choosing.admission import PAGE_POLICIES, gate_of, nobody_of, policy_of
from controller.choosing.affinity import Affinity
from controller.choosing.explain import Explainer
from controller.choosing.picker import Picker
from controller.config import Config
from controller.endpoints.table import Table
from controller.exporting.counts import Counts
from controller.gateway.extproc import ExternalProcessor, Manner
from controller.gateway.modes import ASSUMED_MODES
from controller.plugins import NOTHING, PluginsError, Taken, taken
from controller.starting import StartError, body_memory_bytes, budgets, limits_of

log = logging.getLogger(__name__)


def answering(
    config: Config, given: Taken, table: Table, rng: Random, counts: Counts
) -> tuple[Picker, ExternalProcessor]:
    """Raises StartError."""
    known = given.limited(limits_of(config.policy))
    picker = Picker(
        table,
        policy_of(config.policy, known, given.weights),
        rng,
        max_endpoints=config.max_endpoints if config.max_endpoints > 1 else given.max_endpoints or 1,
        budgets=budgets(config),
        explainer=Explainer(config.explain_sample),
        affinity=Affinity(by_page=config.policy in PAGE_POLICIES),
    )
    manner = Manner(
        assumed_mode=ASSUMED_MODES[config.request_body_mode],
        hooks=config.conformance_hooks or given.hooks,
        reads=given.reads,
        body_memory_bytes=body_memory_bytes(config),
    )
    gate, nobody = gate_of(config.policy, known), nobody_of(config.policy)
    return picker, ExternalProcessor(picker, counts, manner, gate, nobody)


def pages_of(config: Config, given: Taken) -> Told | None:
    """Where engines' pages are, if anybody says; a flag counts for more."""
    told = Told(config.page_port, config.page_path, config.page_tls)
    return given.pages if told == Told() else told


def plugins_of(config: Config) -> Taken:
    """What another picker's configuration says here; what it says in vain is a line in the log each.

    Raises StartError.
    """
    if config.config_file is None and not config.config_text:
        return NOTHING
    source = "--config-text" if config.config_file is None else f"--config-file {config.config_file}"
    try:
        text = config.config_text if config.config_file is None else config.config_file.read_text(encoding="utf-8")
        given = taken(text, config.policy)
    except (OSError, UnicodeDecodeError, PluginsError) as error:
        raise StartError(f"{source}: {error}") from error
    for note in given.notes:
        log.warning("%s: %s", source, note)
    return given
