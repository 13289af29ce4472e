"""`fedsynth benchmark readers`: a reader-study page for physicians, and what their answers amount to."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsynth.cli.benchmark_utility import RealOption, RunArgument, SyntheticOption
from fedsynth.cli.screen import ScreenProgress, print_json, print_table
from fedsynth.errors import ConfigError, nearest

if TYPE_CHECKING:
    from fedsynth.evaluation.reader_study.answer_key import Key
    from fedsynth.evaluation.score import Result


def readers(
    run: RunArgument = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the sheet and its key go, or lie.")] = None,
    score: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="What a reader saved; may be given several times.")
    ] = None,
    real: RealOption = None,
    synthetic: SyntheticOption = None,
    count: Annotated[int | None, typer.Option(help="How many images; 40, or as many as there are patients.")] = None,
    role: Annotated[str, typer.Option(help="Whose real images are shown, as in holdout,reference.")] = "holdout",
    seed: Annotated[int, typer.Option(min=0, help="Which images are drawn, and how the coins fall.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a reader-study page: which image is real, how good is it, is its tumour plausible? With --score, count
    answers.

    The sheet is one page that works offline, on a phone too. Real images are of holdout patients, one of each, unless
    --role says otherwise. The key stays in DIR/secret; hand out the page alone.
    """
    if out is None:
        raise ConfigError("--out is missing", remedy="give the folder of the sheet, as in --out readers")
    if score:
        _score(run, out, score, as_json=as_json)
    else:
        _make(run, real, synthetic, out, count, role, seed, as_json=as_json)


def _make(
    run: Path | None,
    real: Path | None,
    synthetic: Path | None,
    out: Path,
    count: int | None,
    role: str,
    seed: int,
    *,
    as_json: bool,
) -> None:
    from fedsynth import atomic_files
    from fedsynth.api.benchmark_sets import sets_to_measure
    from fedsynth.data import ROLES
    from fedsynth.errors import RefusedError
    from fedsynth.evaluation.reader_study.answer_key import KEY, draw_key
    from fedsynth.evaluation.reader_study.page import SHEET, sheet_page

    roles = tuple(dict.fromkeys(name.strip() for name in role.split(",") if name.strip()))
    for name in roles:
        if name not in ROLES:
            raise ConfigError("--role has an unknown value", value=name, remedy=nearest(name, ROLES))
    if not roles:
        raise ConfigError("--role names no role", remedy="holdout, reference or member")
    if (out / KEY).exists():
        remedy = "give another --out: without its key the answers to it mean nothing"
        raise RefusedError("a sheet lies there already", file=out, remedy=remedy)
    sets = sets_to_measure(run, real, synthetic, out=out, progress=ScreenProgress())
    place, images, made = sets.keeps, sets.real, sets.synthetic
    if made is None:
        raise ConfigError("a sheet needs a synthetic set", remedy="give --synthetic SET or a run")
    where = "" if place is None else str(place.folder.resolve())
    key = draw_key(images, made, count=count, seed=seed, roles=roles, run=where)
    atomic_files.write_text(out / SHEET, sheet_page(images, made, key))
    key.save(out)
    if as_json:
        print_json(
            {"schema": "fedsynth.readers/1", "sheet": str(out / SHEET), "key": str(out / KEY), "count": len(key.shown)}
        )
        return
    _say(key, out, None if place is None else place.folder, phantoms=images.header.phantoms)


def _say(key: "Key", out: Path, run: Path | None, *, phantoms: bool) -> None:
    from fedsynth.evaluation.reader_study.answer_key import KEY
    from fedsynth.evaluation.reader_study.page import SHEET

    whose = " and ".join(key.roles)
    typer.echo(f"sheet      {out / SHEET}: {len(key.shown)} images; hand out this file alone")
    typer.echo(f"key        {out / KEY}: nobody who answers may see it")
    if "member" in key.roles:
        typer.echo(f"real       {whose} patients, one image of each: members too, as was asked; they were trained on")
    else:
        typer.echo(f"real       {whose} patients, one image of each; nobody who was trained on is shown")
    if not phantoms:
        typer.echo("privacy    the page shows patients: it stays at the hospital")
    typer.echo(f"next       fedsynth benchmark readers {f'{run} ' if run else ''}--out {out} --score ANSWERS.csv")


def _score(run: Path | None, out: Path, score: list[Path], *, as_json: bool) -> None:
    from fedsynth.evaluation.reader_study.answer_key import load_key
    from fedsynth.evaluation.reader_study.answers import read_all
    from fedsynth.evaluation.reader_study.reader_scores import NAME, score_readers
    from fedsynth.evaluation.result_owner import synthetic_hash
    from fedsynth.runs import open_run

    key = load_key(out)
    result = score_readers(key, read_all(score, key))
    written = [out / f"{NAME}.json"]
    place = open_run(run) if run is not None else None
    if place is None and key.run and Path(key.run).is_dir():
        place = open_run(Path(key.run))
    if place is not None and synthetic_hash(place) == key.inputs["synthetic"].sha256:
        written.append(place.benchmark(NAME))
    elif place is not None:
        typer.echo(f"the sheet shows another set than that of {place.folder}: the result is not kept there", err=True)
    for path in written:
        result.save(path)
    if as_json:
        print_json(result.as_json())
        return
    _print(result)
    for path in written:
        typer.echo(f"result     {path}")


def _print(result: "Result") -> None:
    names = {"accuracy": "all readers"} | {f"accuracy/{name}": name for name in result.details["readers"]}
    p = result.details["p_guessing"]
    rows = [[shown, result.scores[name].n, str(result.scores[name]), f"{p[name]:.2g}"] for name, shown in names.items()]
    print_table(["reader", "images", "told real from synthetic", "p of guessing"], rows)
    typer.echo("")
    both = [
        ["called real", *(str(result.scores[f"called_real/{kind}"]) for kind in ("real", "synthetic"))],
        ["quality, 1 to 5", *(str(result.scores[f"quality/{kind}"]) for kind in ("real", "synthetic"))],
        ["tumour seen", *(str(result.scores[f"tumour_seen/{kind}"]) for kind in ("real", "synthetic"))],
        ["tumour plausible", *(str(result.scores[f"plausible/{kind}"]) for kind in ("real", "synthetic"))],
    ]
    print_table(["", "real images", "synthetic images"], both)
    typer.echo(f"\nagreement  kappa {result.scores['kappa']}")
    least = result.details["smallest_resolvable"]
    if least is None:
        typer.echo("power      so few images show no accuracy to differ from guessing")
    else:
        typer.echo(
            f"power      {least:.2f} of one reader would have shown four times in five; guessing is right in half"
        )
