"""Runs side by side, the page that answers the question, and the gate that a synthetic set leaves by."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Union

from fedsynth.errors import ConfigError, RefusedError, nearest

if TYPE_CHECKING:
    import pandas as pd

    from fedsynth.data import ImageSet
    from fedsynth.data.export import Format
    from fedsynth.reporting.release_gate import Criteria
    from fedsynth.reporting.signed_manifest import Verified
    from fedsynth.reporting.summary import Facts
    from fedsynth.runs import Run

RunFolder = Union["Run", Path, str]


def compare(*runs: RunFolder, arm: str = "synthetic", by: str = "", columns: Sequence[str] = ()) -> "pd.DataFrame":
    """Runs side by side: what was spent, what leaked, and what the images are still good for.

    Args:
        *runs: Finished runs, a row each, or suites.
        arm: The arm of the utility benchmarks that is shown.
        by: Sort the rows by a column: epsilon, dice, verdict, ...
        columns: The columns to show, as in `["epsilon", "verdict", "dice_ratio"]`; all that hold anything if none.

    Returns:
        A row per run. What differs between them is in `frame.attrs["differs"]`, why cells are empty in
        `frame.attrs["reasons"]`.

    Example:
        >>> import fedsynth
        >>> table = fedsynth.compare("runs/first", "runs/second", by="epsilon")  # doctest: +SKIP
    """
    import pandas as pd

    from fedsynth.reporting.comparison import differences, reasons

    rows = compared(runs, arm=arm, by=by)
    shown = chosen_columns(rows, columns)
    frame = pd.DataFrame([{name: row.cells[name].text for name in shown} for row in rows]).set_index("run")
    frame.attrs["differs"], frame.attrs["reasons"] = differences(rows), reasons(rows)
    return frame


def compared(runs: "tuple[RunFolder, ...] | list[Path]", *, arm: str = "synthetic", by: str = "") -> "list[Facts]":
    """The rows of the table."""
    from fedsynth.reporting.summary import COLUMNS, read_rows

    if by and by not in COLUMNS:
        raise ConfigError("there is no such column", value=by, remedy=nearest(by, COLUMNS) or ", ".join(COLUMNS))
    rows = [row for run in runs for row in read_rows(_folder(run), arm=arm)]
    if by:
        rows.sort(key=lambda row: ((v := row.cells[by].value) is None, v or 0.0, row.cells[by].text))
    return rows


def chosen_columns(rows: "list[Facts]", names: Sequence[str]) -> list[str]:
    """The named columns behind the run's name, or all that hold anything; an unknown name is refused."""
    from fedsynth.reporting.comparison import shown_columns
    from fedsynth.reporting.summary import COLUMNS

    names = names.split(",") if isinstance(names, str) else names
    for name in names:
        if name not in COLUMNS:
            remedy = nearest(name, COLUMNS) or ", ".join(COLUMNS)
            raise ConfigError("there is no such column", value=name, remedy=remedy)
    return ["run", *(name for name in names if name != "run")] if names else shown_columns(rows)


def report(*runs: RunFolder, out: Path | str | None = None, export: bool = False) -> Path:
    """Write one self-contained HTML page: the answer, the table, figures, pictures, and how to repeat it.

    Args:
        *runs: Finished runs or suites; the newest run if none.
        out: The page; `report.html` in the first folder if not given.
        export: A page that may leave the site: nothing in it shows a patient.

    Returns:
        The page.

    Example:
        >>> import fedsynth
        >>> page = fedsynth.report("runs/first")  # doctest: +SKIP
    """
    from fedsynth import atomic_files
    from fedsynth.experiments.suite import SUITE
    from fedsynth.experiments.suite_config import load_suite
    from fedsynth.reporting.html_page import report_page
    from fedsynth.reporting.summary import read_rows
    from fedsynth.runs import newest_run

    folders = [_folder(run) for run in runs] or [newest_run().folder]
    rows = [row for folder in folders for row in read_rows(folder)]
    target = Path(out) if out is not None else folders[0] / ("report-export.html" if export else "report.html")
    asked = [load_suite(folder / SUITE) for folder in folders if (folder / SUITE).is_file()]
    title = asked[0].name if len(folders) == len(asked) == 1 else "fedsynth report"
    published = asked[0].published if len(asked) == 1 else None
    atomic_files.write_text(target, report_page(rows, export=export, title=title, published=published))
    return target


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A set at the gate: the criteria, the set, and why it may not leave; it may where there is no objection."""

    facts: "Facts"
    criteria: "Criteria"
    images: "ImageSet"
    objections: tuple[str, ...]


def release(
    run: RunFolder,
    out: Path | str,
    *,
    criteria: Path | str | None = None,
    synthetic: Path | str | None = None,
    format: "Format | None" = None,  # the option's name on the command line
    key: Path | str | None = None,
) -> Path:
    """Copy a synthetic set out, with its card and a manifest of hashes, when every criterion holds.

    Args:
        run: The measured run, or the folder with a set's results.
        out: Where the released set goes.
        criteria: A TOML file of what must hold; if not given, memorization and membership pass.
        synthetic: With a folder of results: the set that they are of, whoever made it.
        format: `nifti`, `png` or `huggingface`; an image set if not given.
        key: The hospital's private key (Ed25519, PEM), which signs the manifest; made if there is no such file.

    Returns:
        The released folder. `fedsynth.errors.RefusedError` names every criterion that does not hold.

    Example:
        >>> import fedsynth
        >>> released = fedsynth.release("runs/first", "released", key="hospital.pem")  # doctest: +SKIP
    """
    gate = at_gate(run, Path(out), criteria=criteria, synthetic=synthetic)
    if gate.objections:
        raise RefusedError(f"not released: {'; '.join(gate.objections)}", file=gate.images.folder)
    let_out(gate, Path(out), form=format, key=None if key is None else Path(key))
    return Path(out)


def let_out(gate: Gate, out: Path, *, form: "Format | None" = None, key: Path | None = None) -> tuple[str, bool]:
    """Write what stands at an open gate. Returns the public key that receivers need, and whether it was made now."""
    from fedsynth.reporting.release_gate import release as copy_out
    from fedsynth.reporting.signed_manifest import open_key, public_key

    private, made = (None, False) if key is None else open_key(key)
    copy_out(gate.facts, gate.criteria, gate.images, out, form=form, key=private)
    return ("" if private is None else public_key(private)), made


def verify(folder: Path | str, *, public_key: str = "", notices: Sequence[Path | str] = ()) -> "Verified":
    """Check a released folder: is every file as it was released, by whom, and was it withdrawn?

    Args:
        folder: The released folder.
        public_key: The key that the hospital published; without it a signature only says that one key signed it all.
        notices: Notices of withdrawal that were received apart from the folder.

    Returns:
        What holds and what does not: `holds`, `problems`, `signed_by`, `withdrawn`.

    Example:
        >>> import fedsynth
        >>> fedsynth.verify("released", public_key="9f0c...").holds  # doctest: +SKIP
        True
    """
    from fedsynth.reporting.signed_manifest import verify_folder

    return verify_folder(Path(folder), expected=public_key, notices=tuple(Path(notice) for notice in notices))


def withdraw(folder: Path | str, *, reason: str, key: Path | str, out: Path | str | None = None) -> Path:
    """Write a signed notice that a released folder is withdrawn; whoever verifies the folder with it is told.

    Args:
        folder: The released folder, or the part of it that is left: its manifest.
        reason: For receivers.
        key: The private key that signed the release.
        out: The notice to hand out; `withdrawal.json` in the folder if not given.

    Returns:
        The file of the notice.

    Example:
        >>> import fedsynth
        >>> fedsynth.withdraw("released", reason="a patient objected", key="hospital.pem")  # doctest: +SKIP
    """
    from fedsynth import atomic_files
    from fedsynth.reporting.signed_manifest import WITHDRAWAL, open_key
    from fedsynth.reporting.signed_manifest import withdraw as signed_notice

    if not Path(key).exists():
        raise ConfigError("there is no such key", file=Path(key), remedy="give the key that signed the release")
    file = Path(folder) / WITHDRAWAL if out is None else Path(out)
    atomic_files.write_bytes(file, signed_notice(Path(folder), reason, open_key(Path(key))[0]))
    return file


def at_gate(
    run: RunFolder, out: Path, *, criteria: Path | str | None = None, synthetic: Path | str | None = None
) -> Gate:
    """Look at a set without letting it out."""
    from fedsynth import atomic_files, config
    from fedsynth.data import ImageSet
    from fedsynth.data.format import HEADER
    from fedsynth.evaluation.evidence import synthetic_images_of
    from fedsynth.reporting.release_gate import Criteria, objections
    from fedsynth.reporting.summary import read_facts

    asked = Criteria() if criteria is None else config.load_toml(Criteria, Path(criteria))
    folder = _folder(run)
    facts = read_facts(folder)
    if synthetic is None and not facts.run.config.is_file():
        problem = "the folder has results and no run: whose are they?"
        raise ConfigError(problem, file=folder, remedy="give --synthetic SET")
    images = ImageSet.load(synthetic) if synthetic is not None else synthetic_images_of(facts.run)
    atomic_files.refuse_existing(out, marker=HEADER)
    return Gate(facts=facts, criteria=asked, images=images, objections=tuple(objections(facts, asked, images)))


def _folder(run: RunFolder) -> Path:
    from fedsynth.runs import Run

    return run.folder if isinstance(run, Run) else Path(run)
