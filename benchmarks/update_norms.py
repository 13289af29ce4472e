"""How much longer than the usual update is an honest one? Four phantom hospitals, each with its own scanner and cases.

    OMP_NUM_THREADS=1 python benchmarks/update_norms.py [--steps 50] [--rounds 4] [--families dcgan wgan vae]

A row per family: the longest update over the median of its round, the longest in shares of what Adam can do in a round,
and the bound above which the server refuses (`federation/update_checks.py`). `central` is a generator at the server,
whose sites send gradients, with a twentieth of the steps.
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from fedsynth.data.site_config import PhantomTable, SitesFile
from fedsynth.federation import rounds
from fedsynth.federation.exchange import Arrays
from fedsynth.federation.messages import Reply
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.simulation import begin, open_hospitals, run_rounds
from fedsynth.federation.update_checks import ENOUGH, FACTOR, GRADIENT_FACTOR, UpdateChecks

SITES = 4


class Measured(UpdateChecks):
    """Checks that also keep what they saw."""

    seen: ClassVar[list[tuple[float, float]]] = []

    def refused(self, replies: Mapping[str, Reply], old: Arrays) -> dict[str, Reply]:
        """See `UpdateChecks`."""
        kept = super().refused(replies, old)
        moved = [norm for norm, _ in self._measured.values() if norm > 0]
        if len(moved) >= ENOUGH:
            own = max(norm for _, norm in self._measured.values())
            self.seen.append((max(moved) / statistics.median_low(moved), own / self._longest(old)))
        return kept


def measure(family: str, way: str, steps: int, n_rounds: int, folder: Path) -> str:
    """One training, as a row of the table."""
    central = way == "central-generator"
    settings = FederationSettings(
        generator=family,
        sites=SITES,
        rounds=n_rounds,
        local_steps=max(1, steps // 20) if central else steps,
        batch=8,
        federation=way,  # type: ignore[arg-type]
    )
    phantom = PhantomTable(patients=80, slices=2, size=32)
    Measured.seen.clear()
    with open_hospitals(SitesFile(name="phantoms", phantom=phantom, sites=SITES), folder) as opened:
        run = begin(settings, opened, folder / "run")
    run_rounds(settings, run)
    ratio, share = (max(values) for values in zip(*Measured.seen, strict=True))
    name, bound = (f"{family}, central", GRADIENT_FACTOR) if central else (family, FACTOR)
    return f"| {name} | {ratio:.2f} | {'' if central else f'{share:.3f}'} | {bound:g} |"


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--families", nargs="+", default=["dcgan", "wgan", "vae"])
    given = parser.parse_args()
    setattr(rounds, "UpdateChecks", Measured)  # noqa: B010
    print("| family | longest over median | share of Adam's reach | refused above |\n|---|---|---|---|")
    ways = [(family, "average") for family in given.families] + [(given.families[0], "central-generator")]
    for family, way in ways:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(family, way, given.steps, given.rounds, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
