"""The private steps that every site was charged, as the server knows them: a total never falls.

A total is a public number. One that is smaller than before comes from a site that lost its ledger, and what it trained
since then was not in its budget.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from fedsynth.federation.error_codes import ErrorCode
from fedsynth.federation.exchange import Order
from fedsynth.federation.messages import Reply
from fedsynth.models.base import Model
from fedsynth.privacy.patient_statistics import RELEASE
from fedsynth.privacy.plan import PrivatePlan
from fedsynth.training.dp_gradients import steps_by_phase


class ChargeTotals:
    """What each site's ledger must know (`known`), for it told of that, and the most that it can have been charged."""

    def __init__(
        self, plan: PrivatePlan | None, family: Model, *, known: Mapping[str, float], most: Mapping[str, float]
    ) -> None:
        self._plan, self._family, self.known = plan, family, dict(known)
        self._anew: dict[str, tuple[float, float]] = {}  # what a ledger lost, and what the new one last told
        self._most = {site: max(most.get(site, 0.0), known.get(site, 0.0)) for site in most.keys() | known.keys()}

    def order_for(self, site: str, order: Order) -> Order:
        """The order with the site's last total: a site whose ledger knows less refuses before it trains."""
        return replace(order, charged=int(self.known.get(site, 0)))

    def counted(self, reply: Reply, order: Order) -> Reply:
        """The reply with the steps that its site has been charged, refused where it tells of fewer than before.

        Where it does not say, all that was asked for counts: a late answer was paid for too.
        """
        if self._plan is None or not reply.asked:
            return reply
        site, metrics = reply.site, reply.outcome.metrics
        charged = metrics.get("charged")
        if charged is None:
            self._most[site] = self._at_most(reply, order)
        elif charged < self.known.get(site, 0.0):
            self._most[site] = self.known[site] = self._with_lost(site, charged)
            reply = replace(reply, reason=ErrorCode.LEDGER)
        else:
            self._most[site] = self.known[site] = charged
        metrics = {**metrics, "charged": self._most[site]}
        return replace(reply, outcome=replace(reply.outcome, metrics=metrics))

    def _with_lost(self, site: str, charged: float) -> float:
        """What a site was charged whose ledger began anew: all that it knew before was spent as well."""
        lost, last = self._anew.get(site, (0.0, math.inf))
        lost = self._most[site] if charged < last else lost
        self._anew[site] = (lost, charged)
        return lost + charged

    def _at_most(self, reply: Reply, order: Order) -> float:
        assert self._plan is not None
        before = self._most.get(reply.site, 0.0)
        nothing = (ErrorCode.BUSY, ErrorCode.LEDGER)
        if reply.reason in nothing or (reply.reason is not None and reply.reason.is_decision):
            return before
        steps = steps_by_phase(self._family, order.steps, first=order.first_step)
        steps |= {RELEASE: 1} if self._family.per_patient else {}
        return max(before, min(before + sum(steps.values()), float(self._plan.steps)))
