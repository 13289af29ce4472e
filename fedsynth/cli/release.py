"""`fedsynth release`: a synthetic set leaves, or the reasons why it does not; `verify` and `withdraw` for what left."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsynth.cli.screen import print_json
from fedsynth.errors import ConfigError, nearest

if TYPE_CHECKING:
    from fedsynth.reporting.signed_manifest import Verified

TOLD = ("name", "images", "epsilon", "verdicts", "measured-against", "licence", "contact")
"""Of a manifest; nothing else that it may hold is shown."""
FORMS = ("imageset", "nifti", "png", "huggingface")


def release(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The measured run, or the folder with a set's results.")],
    out: Annotated[Path, typer.Option(metavar="SET", help="Where the released set goes.")],
    criteria: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What must hold; if not given, memorization and membership pass."),
    ] = None,
    synthetic: Annotated[
        Path | None, typer.Option(metavar="SET", help="With RESULTS: the set that they are of, whoever made it.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="imageset, nifti, png or huggingface: what the receiver wants.")
    ] = "imageset",
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The hospital's private key, which signs the manifest; made if not there."),
    ] = None,
) -> None:
    """Copy a synthetic set out, with its card and a manifest of hashes, when every criterion holds; else exit code 1
    and the reasons.
    """
    from fedsynth.api.reporting import at_gate, let_out
    from fedsynth.reporting.release_gate import GATE_ANSWER
    from fedsynth.reporting.usefulness import patients_added

    if form not in FORMS:
        raise ConfigError("unknown form", value=form, remedy=nearest(form, FORMS))
    gate = at_gate(run, out, criteria=criteria, synthetic=synthetic)
    for reason in gate.objections:
        typer.echo(f"not released: {reason}", err=True)
    for sentence in patients_added(gate.facts.results):
        typer.echo(f"note: {sentence}", err=True)
    if not gate.facts.public:
        typer.echo(f"note: {GATE_ANSWER}", err=True)
    if gate.objections:
        raise typer.Exit(1)
    public, made = let_out(gate, out, form=None if form == "imageset" else form, key=key)  # type: ignore[arg-type]
    typer.echo(f"released   {out}: {len(gate.images)} images, their card and a manifest")
    if made:
        typer.echo(f"key        {key}: made now; keep it secret and safe, it alone can withdraw this release")
    if public:
        typer.echo(f"publish    {public}   # where receivers trust it to be yours")
    typer.echo(f"next       fedsynth verify {out}{f' --key {public}' if public else ''}   # what a receiver does")


def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A released folder.")],
    key: Annotated[str, typer.Option(metavar="KEY", help="The public key that the hospital published.")] = "",
    notice: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A notice of withdrawal that came apart; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a released folder: is every file as it was released, by whom, and was it withdrawn? Exit code 1 if not."""
    from fedsynth.api.reporting import verify as check

    found = check(folder, public_key=key, notices=notice or ())
    if as_json:
        print_json({"schema": "fedsynth.verified/1", "holds": found.holds, **asdict(found)})
    else:
        typer.echo("The release says of itself:")
        for name in TOLD:
            if name in found.release:
                typer.echo(f"    {name:17} {_printable(found.release[name])}")
        for problem in found.problems:
            typer.echo(f"problem    {_printable(problem)}")
        if found.withdrawn:
            typer.echo(f"withdrawn  {_printable(found.withdrawn)}: do not use it")
        typer.echo(f"signed     {_signer(found)}")
        typer.echo(f"{folder}: {'all' if not found.problems else 'NOT all'} of {found.n_files} files are as released")
    raise typer.Exit(0 if found.holds else 1)


def _printable(value: object) -> str:
    """On one line, without what would steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))


def _signer(found: "Verified") -> str:
    if not found.signed_by:
        return "by nobody: anyone could have made this folder and its manifest"
    if found.known is None:
        return f"by {found.signed_by}; --key tells whether that is the hospital's"
    return f"by {found.signed_by}, {'as' if found.known else 'NOT as'} you expect"


def withdraw(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The released folder.")],
    reason: Annotated[str, typer.Option(help="For receivers.", show_default=False)],
    key: Annotated[Path, typer.Option(metavar="FILE", help="The private key that signed it.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The notice. Default: in the folder.", show_default=False)
    ] = None,
) -> None:
    """Write a signed notice that a release is withdrawn, for everybody who has it. Copies cannot be called back."""
    from fedsynth.api.reporting import withdraw as write_notice

    written = write_notice(folder, reason=reason, key=key, out=out)
    typer.echo(f"notice     {written}: send it to whoever has the folder")
    typer.echo(f"they run   fedsynth verify FOLDER --notice {written.name}")
