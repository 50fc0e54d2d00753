"""`sonde-agent`: hands each command to its module, imported only then, so that `run` carries no compiler."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from agent.config import CertsConfig, CheckConfig, LoadConfig, RunConfig, StatusConfig, UnloadConfig, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["top"]:
        return _top(given[1:])
    config = parse(given)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    match config:
        case LoadConfig():
            return _load(config)
        case RunConfig():
            return _run(config)
        case UnloadConfig():
            return _unload(config)
        case CheckConfig():
            return _check(config)
        case CertsConfig():
            return _certs(config)
        case StatusConfig():
            return _status(config)


def _load(config: LoadConfig) -> int:
    from agent.kernel import loader
    from agent.kernel.pins import Pins

    return loader.load(Pins(config.pin_root), config.attach_cgroup, config.steer)


def _unload(config: UnloadConfig) -> int:
    from agent.kernel import loader
    from agent.kernel.pins import Pins

    if config.when_deleted and not _is_deleted(*config.when_deleted):
        return 0
    return loader.unload(Pins(config.pin_root))


def _is_deleted(namespace: str, name: str) -> bool:
    from agent import uninstall
    from agent.cluster import access

    try:
        door = access.find()
    except access.AccessError as error:
        logging.getLogger(__name__).warning("%s: the programs stay", error)
        return False
    return uninstall.is_deleted(door, namespace, name)


def _check(config: CheckConfig) -> int:
    from agent.kernel import check
    from agent.kernel.pins import Pins

    return check.main(Pins(config.pin_root), config.cgroup_root)


def _top(arguments: Sequence[str]) -> int:
    from agent.looking import top

    return top.main(arguments)


def _certs(config: CertsConfig) -> int:
    from agent.identity import keeper

    return keeper.main(config)


def _status(config: StatusConfig) -> int:
    from agent.looking import status

    return status.main(config)


def _run(config: RunConfig) -> int:
    from agent import daemon

    return daemon.main(config)


if __name__ == "__main__":
    sys.exit(main())
