"""What a run will cost each hospital in traffic and waiting, counted before anyone joins.

Counted from the networks themselves; it asks nobody and reads no voxel.
"""

from dataclasses import dataclass

from fedsynth.federation.exchange import Facts, Order
from fedsynth.federation.fitting import exchanged
from fedsynth.federation.handshake import shape_of
from fedsynth.federation.messages import ARRAYS, order_contents
from fedsynth.federation.settings import FederationSettings
from fedsynth.training.session import fresh_family

POLLING = (9.0, 20.0)  # seconds a round takes with nothing to train, measured with one and with three hospitals


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one hospital: `bytes_up` and `bytes_down` in each of the `rounds`, and which networks these are."""

    networks: tuple[str, ...]
    bytes_up: int
    bytes_down: int
    rounds: int

    @property
    def total_bytes(self) -> int:
        """Both ways, over the whole run."""
        return self.rounds * (self.bytes_up + self.bytes_down)


def count_cost(settings: FederationSettings, facts: Facts) -> Cost:
    """Of a run, for hospitals whose images are like `facts` say."""
    family = fresh_family(settings.training(), shape_of(settings, facts))
    arrays = {name: value.numpy() for name, value in exchanged(settings, family).items()}
    networks = tuple(dict.fromkeys(name.split(".")[0] for name in arrays))
    order = Order(round=1, first_step=0, steps=settings.local_steps, experiment="")
    (message,) = order_contents({"": order}, arrays).values()
    sent = sum(len(array.data) for array in message.array_records[ARRAYS].values())
    return Cost(networks=networks, bytes_up=sent, bytes_down=sent, rounds=settings.rounds)
