"""Noise that the sites of a secure sum add together: each a share, such that the honest ones' shares suffice.

Knows numbers of sites and a deviation; nothing of masks or messages.
"""

import math
from dataclasses import dataclass

from fedsynth.errors import ConfigError

NEGLIGIBLE = 1e-300
MOST_NUMBERS = 10**6
"""More than any release has; the bound below grows with them."""


@dataclass(frozen=True, kw_only=True)
class NoiseShares:
    """A sum over at least `fewest` of `sites` sites, of which the server may know the noise of `colluding`.

    A site knows its own share and can subtract it from the sum, whether or not it talks to the server: that alone
    makes one site colluding.
    """

    sites: int
    fewest: int
    colluding: int

    def __post_init__(self) -> None:
        if not 2 <= self.fewest <= self.sites:
            raise ConfigError("a secure sum takes at least two sites", value=self.fewest)
        if not 1 <= self.colluding < self.fewest:
            remedy = f"take 1 to {self.fewest - 1}, or more sites: every site knows its own share"
            raise ConfigError("--colluding must leave an honest site in every sum", value=self.colluding, remedy=remedy)

    @property
    def honest(self) -> int:
        """The fewest sites whose noise nobody else knows: theirs together has the planned variance."""
        return self.fewest - self.colluding

    @property
    def part(self) -> float:
        """The deviation of one site's share, in units of the planned one."""
        return 1 / math.sqrt(self.honest)

    @property
    def assumption(self) -> str:
        """What the guarantee rests on, for every statement of it."""
        return f"a server that colludes with at most {self.colluding} of the {self.sites} sites"

    def check(self, noise: float, grid: float) -> None:
        """Refuse shares so small that their sum could be told from one discrete Gaussian.

        With eta the bound of `log_divergence`, an event that has probability p under one distribution has at most
        e^eta p under the other. So (epsilon, delta) of the one discrete Gaussian becomes (epsilon + 2 eta, e^eta delta)
        of the sum. Below `NEGLIGIBLE` neither changes in the last bit of a float, and the claim is left as it is.
        """
        eta = log_divergence(math.floor(noise * self.part / grid), self.honest, MOST_NUMBERS)
        if eta > math.log(NEGLIGIBLE):
            remedy = "fewer sites, or a smaller epsilon"
            raise ConfigError("the shares of the noise are too small for their grid", value=noise, remedy=remedy)


def log_divergence(deviation: float, terms: int, numbers: int = 1) -> float:
    """Logarithm of a bound on how far a sum of discrete Gaussians is from one of the same variance.

    Kairouz, Liu and Steinke 2021 (The distributed discrete Gaussian mechanism, arXiv 2102.06387), the convolution of
    n = `terms` discrete Gaussians of parameter sigma = `deviation` >= 1/2, in steps of the grid: the log ratio of the
    probabilities of any value is at most 10 sum_{k=1}^{n-1} exp(-2 pi^2 sigma^2 k / (k + 1)), for each of the `numbers`
    that get noise of their own.
    """
    if deviation < 0.5:
        return math.inf
    if terms < 2:
        return -math.inf
    exponents = [-2 * (math.pi * deviation) ** 2 * k / (k + 1) for k in range(1, terms)]
    largest = exponents[0]
    return math.log(10 * numbers) + largest + math.log(math.fsum(math.exp(one - largest) for one in exponents))
