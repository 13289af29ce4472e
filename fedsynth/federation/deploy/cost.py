"""What a run will cost each hospital in traffic and waiting, counted before anyone joins.

Counted from the networks themselves; it asks nobody and reads no voxel.
"""

from dataclasses import dataclass

from fedsynth.federation.exchange import Facts, Order
from fedsynth.federation.messages import ARRAYS, order_contents
from fedsynth.federation.parts import Part
from fedsynth.training.preparing import fresh_family

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


def count_cost(part: Part, facts: Facts) -> Cost:
    """Of one training of a run, for hospitals whose images are like `facts` say."""
    settings = part.settings
    family = fresh_family(settings.training(), part.shape(facts))
    networks = settings.leaving(family.shared, family.sampler)
    arrays = {name: value.numpy() for name, value in family.nets.state_dict().items() if name.split(".")[0] in networks}
    order = Order(round=1, first_step=0, steps=settings.local_steps, experiment="")
    (message,) = order_contents({"": order}, arrays).values()
    sent = sum(len(array.data) for array in message.array_records[ARRAYS].values())
    return Cost(networks=networks, bytes_up=sent, bytes_down=sent, rounds=settings.rounds)
