"""Membership attacks, none of which ever sees a role: whoever they single out is singled out by the release alone."""

from fedsynth.benchmark.leakage.attacks.density import attack_by_density
from fedsynth.benchmark.leakage.attacks.near import attack_by_distance
from fedsynth.benchmark.leakage.attacks.scores import Attacked, Targets

__all__ = ["Attacked", "Targets", "attack_by_density", "attack_by_distance"]
