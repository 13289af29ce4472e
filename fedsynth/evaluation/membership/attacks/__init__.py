"""Membership attacks, none of which ever sees a role: whoever they single out is singled out by the release alone."""

from fedsynth.evaluation.membership.attacks.density import attack_by_density
from fedsynth.evaluation.membership.attacks.distance import Attacked, Targets, attack_by_distance

__all__ = ["Attacked", "Targets", "attack_by_density", "attack_by_distance"]
