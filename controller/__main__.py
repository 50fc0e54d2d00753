"""`sonde-controller` and `sonde-controller top`: flags in, exit status out."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import uvloop

import controller.polling  # noqa: F401 - before what imports gRPC
from controller import daemon, heap
from controller.config import parse
from controller.looking import top
from controller.starting import StartError

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT, or shows what another one serves; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["top"]:
        return top.main(given[1:])
    config = parse(given)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if config.ignored:
        log.info("flags of other pickers, without effect here: %s", ", ".join(config.ignored))
    heap.settle()
    try:
        uvloop.run(daemon.run_until_signal(config))
    except StartError as error:
        print(f"sonde-controller: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
