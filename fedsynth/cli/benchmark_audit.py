"""`fedsynth benchmark audit`: try to contradict a claimed epsilon. Exit code 0 none found, 1 fail, 2 bad input, 3 else.

It belongs to `benchmark` and stands apart because it trains. `--mechanism` audits the mechanism alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsynth.cli.benchmark_mechanism import audit_plans
from fedsynth.cli.screen import print_json, print_table, progress_bar
from fedsynth.errors import ConfigError, RefusedError

if TYPE_CHECKING:
    from fedsynth.data import ImageSet
    from fedsynth.experiments.canary_audit import Audited, AuditSettings, Charging
    from fedsynth.privacy.plan import PrivatePlan
    from fedsynth.runs import Run
    from fedsynth.training.trainer import StepReport

PRIVATE = "Privacy"


def audit(
    run: Annotated[Path | None, typer.Argument(help="The run whose training is audited; the newest if none.")] = None,
    real: Annotated[Path | None, typer.Option(metavar="SET", help="Real set, instead of the run's.")] = None,
    generator: Annotated[str | None, typer.Option("--generator", "-g", help="Family, where there is no run.")] = None,
    mechanism: Annotated[
        bool, typer.Option("--mechanism", help="Audit sampling, clipping, noise and charges alone: seconds, no images.")
    ] = False,
    canaries: Annotated[
        int | None, typer.Option(help="Made-up patients, each in or out by a coin: 200, or 4096 of the mechanism.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of each training, instead of the run's or family's.")] = None,
    claim: Annotated[
        float | None,
        typer.Option(help="The epsilon to contradict, where it is not the plan's.", rich_help_panel=PRIVATE),
    ] = None,
    epsilon: Annotated[
        list[float] | None, typer.Option(help="Train (or plan) with it; may be repeated.", rich_help_panel=PRIVATE)
    ] = None,
    delta: Annotated[float, typer.Option(help="Of --claim and --epsilon.", rich_help_panel=PRIVATE)] = 1e-5,
    patients: Annotated[
        int | None, typer.Option(help="With --epsilon: declared public number.", rich_help_panel=PRIVATE)
    ] = None,
    expected_batch_size: Annotated[
        int | None, typer.Option(help="Expected patients per step.", rich_help_panel=PRIVATE)
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Where the ledger lives; else $FEDSYNTH_STORE.", rich_help_panel=PRIVATE)
    ] = None,
    spend: Annotated[
        bool, typer.Option("--spend", help="Yes, charge real patients for this training.", rich_help_panel=PRIVATE)
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of canaries and plain trainings; coins stay secret.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the trainings go; new or empty.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Does a training keep its claimed epsilon? A training of its own with canary patients tries to contradict it.

    With --mechanism thousands of canary gradients go through the run's own mechanism (or that of --epsilon --patients
    --expected-batch-size --steps), and what leaves is held against all that it declares.

    Exit code 0: no contradiction found. 1: the claim is false. 2: bad input. 3: there is no claim. It never verifies.
    """
    from fedsynth.evaluation.result_owner import stranger
    from fedsynth.experiments.canary_audit import NAME, AuditSettings, as_result, exit_code
    from fedsynth.runs import RUNS

    given = {"delta": delta, "patients": patients, "expected_batch_size": expected_batch_size, "store": store}
    if mechanism and epsilon and run is None and real is None and generator is None:
        audit_plans(_declared(epsilon, steps, given), canaries, claim, out, as_json=as_json)
    audited_run = _run(run, real, generator)
    training = _open(audited_run, real, generator, steps)
    budgets = [_with_budget(training.settings, one, given) for one in epsilon or []] or [training.settings]
    if mechanism:
        place = out if out is not None or audited_run is None else audited_run.folder
        audit_plans(training.plans(budgets), canaries, claim, place, as_json=as_json)
    if len(budgets) > 1:
        raise ConfigError("one training is audited at a time", remedy="give one --epsilon, or --mechanism")
    canaries = 200 if canaries is None else canaries
    asked = AuditSettings(canaries=canaries, seed=seed, claim=claim, delta=delta)
    training = replace(training, settings=budgets[0])
    cost = _agree_on_cost(training, spend=spend)
    found = training.hold(asked, (RUNS if audited_run is None else audited_run.folder) / "audits", out)
    result = as_result(found, training.images, training.settings, asked, cost)
    keeps = audited_run if not stranger(audited_run, real=real) else None
    if keeps is not None:
        result.save(keeps.benchmark(NAME))
    result.save(found.run.benchmark(NAME))
    if as_json:
        print_json(result.as_json())
    else:
        _print(found)
        typer.echo(f"result     {(keeps or found.run).benchmark(NAME)}")
    assert result.verdict is not None
    raise typer.Exit(exit_code(result.verdict))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Training:
    """What is trained once more: one site's run or, where `federated` names it, that of several hospitals."""

    settings: Any  # of training, or of a federation
    images: "ImageSet"
    federated: "Run | None" = None

    def charged(self) -> "list[Charging]":
        """Refuse what cannot work; then whom the training charges."""
        from fedsynth.experiments.canary_audit import charging_of, rehearse
        from fedsynth.experiments.federated_audit import charged_sites, members_of, refuse_federation

        if self.federated is None:
            return charging_of(rehearse(self.images, self.settings))
        refuse_federation(self.settings)
        return charged_sites(members_of(self.federated), self.settings)

    def plans(self, budgets: "Sequence[Any]") -> "list[PrivatePlan]":
        """The different mechanisms of these trainings, over all hospitals."""
        from fedsynth.experiments.canary_audit import rehearse
        from fedsynth.experiments.federated_audit import members_of, plan_of, refuse_federation

        if any(one.privacy is None for one in budgets):
            raise ConfigError("the run is not private: there is no mechanism", remedy="plan one with --epsilon")
        if any(one.privacy.insecure_seed is not None for one in budgets):
            raise ConfigError("the run claims nothing: its randomness can be repeated (--insecure-seed)")
        if self.federated is None:
            rehearsed = [rehearse(self.images, one).plan for one in budgets]
            return [plan for plan in rehearsed if plan is not None]
        refuse_federation(budgets[0])
        sites = members_of(self.federated)
        return list(dict.fromkeys(plan_of(site, one) for one in budgets for site in sites))

    def hold(self, asked: "AuditSettings", base: Path, folder: Path | None) -> "Audited":
        """The training, and what it showed. Audits are no runs to go on with: they stand where none is looked for."""
        from fedsynth.experiments.canary_audit import hold_audit
        from fedsynth.experiments.federated_audit import hold_federated_audit
        from fedsynth.runs import create_run

        settings = self.settings
        place = create_run(settings, generator=settings.generator, seed=settings.seed, folder=folder, base=base)

        def step(text: str) -> None:
            typer.echo(f"{text} ...", err=True)

        with progress_bar(f"training {settings.generator} with canaries") as advance:

            def on_step(report: "StepReport", total: int) -> None:
                advance(report.step + 1, total)

            if self.federated is None:
                return hold_audit(self.images, settings, asked, place, step=step, on_step=on_step)
            return hold_federated_audit(self.federated, settings, asked, place, step=step, on_step=on_step)


def _run(run: Path | None, real: Path | None, generator: str | None) -> "Run | None":
    from fedsynth.runs import newest_run, open_run

    if run is not None:
        if generator is not None:
            raise ConfigError("a run has its own generator", value=generator, remedy="leave --generator out")
        return open_run(run)
    if (real is None) != (generator is None):
        missing = "--generator NAME" if generator is None else "--real SET"
        raise ConfigError("an audit without a run needs a set and a generator", remedy=f"give {missing} as well")
    if real is not None:
        return None
    newest = newest_run()
    typer.echo(f"the newest run: {newest.folder}", err=True)
    return newest


def _open(run: "Run | None", real: Path | None, generator: str | None, steps: int | None) -> _Training:
    """The training as the run was told, or the family's own recipe on a set."""
    from fedsynth import config
    from fedsynth.data import ImageSet
    from fedsynth.experiments.federated_audit import is_federated
    from fedsynth.training.settings import TrainSettings

    if run is not None and is_federated(run):
        return _open_federated(run, real, steps)
    if run is None:
        assert real is not None
        assert generator is not None
        settings = TrainSettings(generator=generator, images=real.resolve(), sheets=0)
    else:
        settings = replace(config.load_toml(TrainSettings, run.config), sheets=0)
        settings = settings if real is None else replace(settings, images=real.resolve())
    settings = settings if steps is None else replace(settings, steps=steps)
    return _Training(settings=settings, images=ImageSet.load(settings.images))


def _open_federated(run: "Run", real: Path | None, steps: int | None) -> _Training:
    """Steps are rounded up to whole rounds."""
    from fedsynth import config
    from fedsynth.federation.settings import FederationSettings
    from fedsynth.federation.site_context import simulated_federation

    if real is not None:
        raise ConfigError("a federated run has its own hospitals", value=str(real), remedy="leave --real out")
    settings = config.load_toml(FederationSettings, run.config)
    if steps is not None:
        settings = replace(settings, rounds=-(-steps // settings.local_steps))
    return _Training(settings=settings, images=simulated_federation(run.folder).pooled, federated=run)


def _declared(epsilons: list[float], steps: int | None, given: dict[str, Any]) -> "list[PrivatePlan]":
    """Mechanisms of declared numbers alone."""
    from fedsynth.privacy.plan import make_plan
    from fedsynth.training.settings import Privacy

    if steps is None or given["patients"] is None:
        remedy = "give --patients N --steps N, or a RUN"
        raise ConfigError("a mechanism has a declared number of patients and of private steps", remedy=remedy)
    said = {name: value for name, value in given.items() if value is not None}
    return [make_plan(Privacy(epsilon=one, **said).settings(), {"declared": steps}) for one in epsilons]


def _with_budget(settings: Any, epsilon: float, given: dict[str, Any]) -> Any:
    from fedsynth.training.settings import Privacy

    said = {name: value for name, value in given.items() if value is not None}
    if settings.privacy is not None:
        said.pop("delta")
        return replace(settings, privacy=replace(settings.privacy, epsilon=epsilon, **said))
    if given["patients"] is None:
        remedy = "give --patients N, a round public number near the truth"
        raise ConfigError("--epsilon needs the declared number of patients", remedy=remedy)
    return replace(settings, batch=None, privacy=Privacy(epsilon=epsilon, **said))


def _agree_on_cost(training: _Training, *, spend: bool) -> tuple[float, float] | None:
    """Say what real patients would pay, and stop unless that was agreed to."""
    from fedsynth.experiments.canary_audit import cost_of
    from fedsynth.privacy.accounting import rounded_up

    privacy = training.settings.privacy
    charged = training.charged()
    cost = None if privacy is None else cost_of(charged, privacy.store, privacy.delta)
    if cost is None:
        return None
    before, after = (rounded_up(one, 3) for one in cost)
    spent = f"the most that any of them has spent goes from epsilon {before:g} to {after:g}"
    said = f"this audit trains on real patients: {spent}"
    if not spend:
        raise RefusedError(said, remedy="give --spend if it is worth that; an audit on phantoms costs nobody anything")
    typer.echo(said, err=True)
    return cost


def _print(found: "Audited") -> None:
    inside = int(found.canaries.included.sum())
    claimed = found.why_no_claim if found.claim is None else f"epsilon {found.claim:g} at delta {found.delta:g}"
    typer.echo(f"reach      {found.reach}")
    typer.echo(f"claimed    {claimed}")
    typer.echo(f"canaries   {len(found.canaries)}, of which {inside} took part; the coins are in {found.run.folder}")
    rows = [
        [place, f"{one.right} of {one.guesses}", f"{one.epsilon:.2f}", f"{one.ceiling:.2f}"]
        for place, one in found.bounds.items()
    ]
    if rows:
        print_table(["where", "coins right", "epsilon at least", "at most provable"], rows)
    typer.echo(f"scores     who took part scores above who did not in a share of {found.above:.2f}; 0.5 is chance")
    typer.echo(f"control    {found.control:.2f} for coins that had no part in it; it should be 0")
    typer.echo(f"verdict    {found.verdict.upper()}")
    for sentence in found.sentences:
        typer.echo(f"           {sentence}")
