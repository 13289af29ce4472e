"""What a run will cost each hospital in traffic and waiting, counted before anyone joins.

Counted from the networks themselves; it asks nobody and reads no voxel.
"""

from dataclasses import dataclass

from fedsynth.federation.exchange import Arrays, Facts, Order
from fedsynth.federation.fitting import Fitting, begun_from, exchanged
from fedsynth.federation.handshake import shape_of
from fedsynth.federation.messages import ARRAYS, order_contents
from fedsynth.federation.settings import FederationSettings
from fedsynth.training.session import fresh_family

POLLING = (9.0, 20.0)  # seconds a round takes with nothing to train, measured with one and with three hospitals


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one hospital: `bytes_up` and `bytes_down` in each of the `rounds`, and which networks these are.

    After the last one come `exchanges` of sums, and in a one-shot federation of a whole sampler: `after_up` and
    `after_down` in all.
    """

    networks: tuple[str, ...]
    bytes_up: int
    bytes_down: int
    rounds: int
    exchanges: int = 0
    after_up: int = 0
    after_down: int = 0

    @property
    def total_bytes(self) -> int:
        """Both ways, over the whole run."""
        return self.rounds * (self.bytes_up + self.bytes_down) + self.after_up + self.after_down


def count_cost(settings: FederationSettings, facts: Facts) -> Cost:
    """Of a run, for hospitals whose images are like `facts` say."""
    family = fresh_family(settings.training(), shape_of(settings, facts))
    arrays = {name: value.numpy() for name, value in exchanged(settings, family).items()}
    networks = tuple(dict.fromkeys(name.split(".")[0] for name in arrays))
    begun = {name: value.numpy() for name, value in begun_from(settings, family).items()}  # sent with every round
    fitting = Fitting.of(settings, family)
    shown = {name: value.numpy() for name, value in fitting.shown(family).items()}
    return Cost(
        networks=networks,
        bytes_up=_bytes(arrays),
        bytes_down=_bytes(arrays | begun),
        rounds=settings.rounds_of_training,
        exchanges=fitting.exchanges,
        after_up=sum(_bytes(fitting.expected(family, number)) for number in range(fitting.exchanges)),
        after_down=fitting.exchanges * _bytes(shown),
    )


def _bytes(arrays: Arrays) -> int:
    """Of a message with these arrays."""
    order = Order(round=1, first_step=0, steps=1, experiment="")
    (message,) = order_contents({"": order}, arrays).values()
    return sum(len(array.data) for array in message.array_records[ARRAYS].values())
