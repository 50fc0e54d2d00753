"""What steering needs to start, from the command line: its maps, the controllers to follow, the Services it is for."""

from __future__ import annotations

from agent.config import RunConfig
from agent.identity import tls
from agent.identity.trust import Trust
from agent.kernel.pins import NotLoaded, Pins
from agent.kernel.steer_pins import SteerPins
from agent.steering.follower import Follower
from agent.steering.maps import SteerMaps
from agent.steering.steering import Steering


def open_steering(config: RunConfig) -> Steering:
    """Raises NotLoaded where the programs are not, OSError or TlsError where maps or certificates cannot be had."""
    pins = Pins(config.pin_root)
    if not SteerPins(pins).loaded():
        raise NotLoaded(
            f"--weights-from and --balance-services need the programs that steer, which are not at "
            f"{SteerPins(pins).folder}: run 'sonde-agent load --steer'"
        )
    follower = None
    if config.weights_from:
        files = tls.Files(config.tls_path) if config.tls_path else None
        follower = Follower(config.weights_from, Trust(files, config.plain_text), config.node_name)
    return Steering(SteerMaps(pins), config.balance_services, bool(config.manifests), follower)
