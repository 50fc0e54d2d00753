"""`sonde-lab`: hands each command to its module, imported only then."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from lab.config import CompareConfig, DemoConfig, EngineConfig, LoadConfig, parse
from lab.direct.config import SteerConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    config = parse(sys.argv[1:] if arguments is None else arguments)
    match config:
        case DemoConfig():
            return _demo(config)
        case EngineConfig():
            return _engine(config)
        case LoadConfig():
            return _load(config)
        case CompareConfig():
            return _compare(config)
        case SteerConfig():
            return _steer(config)


def _demo(config: DemoConfig) -> int:
    from lab.contests import demo

    return demo.main(config)


def _engine(config: EngineConfig) -> int:
    from lab.engines import pod

    try:
        asyncio.run(pod.serve(config))
    except OSError as error:
        print(f"sonde-lab engine: {error}", file=sys.stderr)
        return 1
    return 0


def _compare(config: CompareConfig) -> int:
    from lab.contests import compare

    return compare.main(config)


def _steer(config: SteerConfig) -> int:
    from lab.direct import run

    return run.main(config)


def _load(config: LoadConfig) -> int:
    from lab.contests import load, results, summary
    from lab.contests.workload import Workload, schedule

    work = Workload(
        config.rate_per_s,
        config.duration_s,
        lengths=config.lengths,
        arrivals=config.arrivals,
        stream_share=config.stream_share,
    )
    number, of = config.part
    label = f"lab-{number}" if of > 1 else "lab"
    target = load.Target(config.host, config.port, config.model_name, label=label, keep_alive=config.keep_alive)
    requests = schedule(work, config.seed)[number - 1 :: of]
    came = asyncio.run(load.send(requests, target, begin_s=config.start_at_s))
    if config.out is not None:
        results.write(config.out, came)
    came_to = summary.summarize("load", came)
    for line in summary.table([came_to], {pod: pod for pod in sorted(came_to.by_pod)}):
        print(line)
    for error, count in came_to.errors.items():
        print(f"{count} requests failed: {error}")
    return 1 if came_to.failed else 0


if __name__ == "__main__":
    sys.exit(main())
