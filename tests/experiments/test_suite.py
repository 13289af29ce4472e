"""Suites: what a file may say, which steps a cell is, and what tables tell of cells that failed."""

from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.config import save_toml
from fedsynth.errors import FedSynthError
from fedsynth.evaluation.fidelity.benchmark import run_fidelity
from fedsynth.evaluation.settings import UtilitySettings
from fedsynth.evaluation.utility.arm_trainings import Plan
from fedsynth.evaluation.utility.benchmark import run_utility
from fedsynth.experiments.suite import CELLS, data_steps, failed_steps, jobs_of, runs_in
from fedsynth.experiments.suite_config import Figure, Published, load_suite
from fedsynth.experiments.suite_steps import options
from fedsynth.models.generators.catalog import catalog
from fedsynth.reporting.comparison import reasons
from fedsynth.reporting.published_results import published_rows
from fedsynth.reporting.summary import read_facts, read_rows
from fedsynth.reporting.usefulness import TASKS
from tests.evaluation.reader_study.sets import real_and_synthetic
from tests.reporting.test_comparison import make_run
from tests.training.tiny import tiny_set

SUITES = Path(__file__).parents[2] / "benchmarks"

QUICK = """
name = "tiny"
[phantom]
patients = 60
slices = 1
size = 24
sites = 2
[settings]
rounds = 1
local-steps = 1
count = 24
[private]
patients = 6
[grid]
generator = ["dcgan"]
epsilon = [0, 8.0]
[benchmarks.fidelity]
steps = 0
"""


def suite_of(text, folder):
    path = folder / "suite.toml"
    path.write_text(text)
    return load_suite(path)


def test_cells_are_every_combination_and_say_what_a_person_would_type(tmp_path):
    plain, private = suite_of(QUICK, tmp_path).cells()
    assert (plain.name, private.name) == ("dcgan_plain", "dcgan_epsilon-8.0")
    assert plain.epsilon == 0
    assert "patients" not in plain.settings
    work = private.work(Path("data"), Path("run"))
    assert list(work) == ["synthetic/imageset.toml", "benchmarks/fidelity.json"]
    typed = " ".join(work["synthetic/imageset.toml"].command)
    assert typed.startswith("simulate --data data --run run")
    assert "--epsilon 8.0" in typed
    assert "--patients 6" in typed
    assert work["benchmarks/fidelity.json"].command == ["benchmark", "fidelity", "run", "--steps", "0"]


def test_the_pooled_cell_trains_as_long_as_each_hospital_would(tmp_path):
    text = QUICK.replace("epsilon = [0, 8.0]", 'federation = ["centralised"]').replace("rounds = 1", "rounds = 3")
    (cell,) = suite_of(text, tmp_path).cells()
    train, draw = [step.command for step in cell.work(Path("data"), Path("run")).values()][:2]
    assert train[:6] == ["train", "data", "--run", "run", "--steps", "3"]
    assert "--rounds" not in train
    assert draw[:4] == ["synthesize", "run", "--count", "24"]
    (cell,) = suite_of(text.replace('"dcgan"', '"two-stage"').replace("local-steps = 1\n", ""), tmp_path).cells()
    assert cell.steps == 3 * 25, "as simulate takes for a two-stage generator"


def test_cells_may_begin_with_simulated_heads(tmp_path):
    given = 'start = "phantoms"\nstart-steps = 2\n[private]'
    for way in ("average", "centralised"):
        text = QUICK.replace("epsilon = [0, 8.0]", f'federation = ["{way}"]').replace("[private]", given, 1)
        (cell,) = suite_of(text, tmp_path).cells()
        first = next(iter(cell.work(Path("data"), Path("run")).values())).command
        assert "--start phantoms" in " ".join(first)
        assert "--start-steps 2" in " ".join(first)


def test_a_source_of_label_maps_is_made_of_other_phantoms(tmp_path):
    text = QUICK.replace("epsilon = [0, 8.0]", 'federation = ["centralised"]')
    suite = suite_of(text.replace("[private]", 'source = "phantoms"\n[private]'), tmp_path)
    made = data_steps(suite, Path("out"))
    assert made[Path("out/source")].command[-2:] == ["--seed", "1000"]
    (job,) = jobs_of(suite, Path("out"))
    assert job.work["synthetic/imageset.toml"].command[-2:] == ["--source", "out/source"]


def test_a_grid_with_a_name_is_called_so_in_the_table(tmp_path):
    head, _, tail = QUICK.partition("[grid]")
    text = f"""{head}[[grid]]
name = "GAN, FedAvg"
generator = ["dcgan"]
rounds = [3]
[[grid]]
name = "GAN, DP-SGD"
generator = ["dcgan"]
epsilon = [2.0, 8.0]
{tail[tail.index("[benchmarks") :]}"""
    suite = suite_of(text, tmp_path)
    assert [cell.name for cell in suite.cells()] == [
        "GAN, FedAvg",
        "GAN, DP-SGD, epsilon-2.0",
        "GAN, DP-SGD, epsilon-8.0",
    ]
    assert next(suite.cells()).settings["rounds"] == 3
    assert "name" not in next(suite.cells()).settings
    for wrong in ("../out", ".hidden", ""):
        with pytest.raises(FedSynthError, match="name of a folder"):
            suite_of(text.replace("GAN, FedAvg", wrong), tmp_path)


def test_options_are_spelled_for_the_command_line():
    given = {"full": True, "export": False, "arms": ["real", "synthetic"], "options": {"latent": 3}}
    assert options(given) == ["--full", "--arms", "real,synthetic", "--option", "latent=3"]
    assert options({"strategy-options": {"mu": 0.1}}) == ["--strategy-option", "mu=0.1"]


@pytest.mark.parametrize(
    ("wrong", "right", "said"),
    [
        ("local-steps", "local-stps", "local-steps"),
        ("generator = [", "generater = [", "generator"),
        ("benchmarks.fidelity", "benchmarks.fidelty", "fidelity"),
        ("steps = 0", "stps = 0", "did you mean 'steps'"),
        ("slices = 1", "slces = 1", "did you mean 'slices'"),
        ('["dcgan"]', "[]", "no value"),
        ("[private]\npatients = 6", "[private]\nclip = 1.0", "declared number"),
        ("[grid]", "[by-generator.dcgn]\nrounds = 2\n[grid]", "did you mean 'dcgan'"),
        ("[grid]", '[grid]\nmeasured-by = ["membership"]', "fidelity"),
        ("[grid]", '[grid]\npartition = ["iid"]', "number of hospitals"),
        ("[grid]", '[by-generator.dcgan]\nsource = "phantoms"\n[grid]', "one site"),
        ("[grid]", '[grid]\nstart = ["runs/one"]', 'give start = "phantoms"'),
        ("[grid]", '[[published.figures]]\nwhat = "a"\nvalue = "1"\nours = "dice"\n[grid]', "benchmark.score"),
    ],
)
def test_what_a_file_must_not_say(tmp_path, wrong, right, said):
    assert wrong in QUICK
    with pytest.raises(FedSynthError, match=said):
        suite_of(QUICK.replace(wrong, right), tmp_path)


def test_several_grids_with_settings_and_benchmarks_of_their_own(tmp_path):
    head, _, tail = QUICK.partition("[grid]")
    text = f"""{head}
[by-generator.vae]
local-steps = 7
[[grid]]
generator = ["dcgan", "vae"]
measured-by = ["fidelity"]
[[grid]]
generator = ["vae"]
members = [4, 8]
measured-by = ["memorization"]
[benchmarks.memorization]
{tail[tail.index("[benchmarks") :]}"""
    cells = list(suite_of(text, tmp_path).cells())
    assert [cell.name for cell in cells] == ["dcgan", "vae", "vae_members-4", "vae_members-8"]
    assert [cell.steps for cell in cells] == [1, 7, 7, 7]
    assert [list(cell.benchmarks) for cell in cells] == [["fidelity"]] * 2 + [["memorization"]] * 2
    assert [cell.members for cell in cells] == [None, None, 4, 8]
    assert "members" not in cells[2].settings
    made = data_steps(suite_of(text, tmp_path), Path("out"))
    assert list(made) == [Path("out/data"), Path("out/data-4-members"), Path("out/data-8-members")]
    assert made[Path("out/data-4-members")].command[-2:] == ["--keep-members", "4"]
    with pytest.raises(FedSynthError, match="two cells are alike"):
        suite_of(text.replace("members = [4, 8]\n", ""), tmp_path)


def test_a_partition_brings_its_hospitals_and_the_natural_one_needs_none(tmp_path):
    text = QUICK.replace("epsilon = [0, 8.0]", 'partition = ["natural", "dirichlet:0.3"]').replace(
        "rounds = 1", "rounds = 1\nsites = 3"
    )
    natural, drawn = suite_of(text, tmp_path).cells()
    assert "sites" not in natural.settings
    typed = " ".join(drawn.work(Path("d"), Path("r"))["synthetic/imageset.toml"].command)
    assert "--partition dirichlet:0.3" in typed
    assert "--sites 3" in typed


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_suite_that_is_shipped_is_planned(path, tmp_path):
    """Its commands are read as if they were typed, so that no option is misspelled; none is run."""
    done = CliRunner().invoke(app, ["suite", str(path), "--out", str(tmp_path / "out"), "--plan"])
    assert done.exit_code == 0, done.output
    cells = list(load_suite(path).cells())
    assert all(cell.name in done.stdout for cell in cells)
    assert "phantoms: nothing is spent" in done.stdout or "not there yet" in done.stdout
    assert not (tmp_path / "out").exists()


def test_the_suites_ask_what_the_papers_asked():
    families = {cell.settings["generator"] for cell in load_suite(SUITES / "families.toml").cells()}
    fitted = {"fitted-simulator", "fitted-pool"}  # they are measured by private_release.py and public_pool.py
    stages = {"pca-maps", "phantom-maps", "render-vae"}  # of two-stage
    assert families == set(catalog()) - stages - fitted
    akbar = list(load_suite(SUITES / "akbar2024.toml").cells())
    assert {cell.members for cell in akbar if cell.settings["generator"] == "diffusion"} > {10, 100}
    assert {cell.epsilon for cell in load_suite(SUITES / "epsilon.toml").cells()} >= {0.0, 1.0, 8.0}
    shin = load_suite(SUITES / "shin2018.toml")
    assert set(shin.benchmarks["segmentation"]["arms"]) >= {"real", "real+synthetic", "synthetic-then-10%-real"}
    for name in ("akbar2024", "shin2018", "epsilon"):
        assert load_suite(SUITES / f"{name}.toml").published.differs


class Uniform:
    """Learns nothing: enough for the names of all scores."""

    steps, collapsed = 1, False

    def __init__(self, kind):
        self.classes = kind == "classification"

    def learn(self, sets, *, seed, augment, reference=None, start=None):
        return self

    def learn_federated(self, sites, *, seed, augment, reference=None):
        return {None: self}

    def predict(self, images):
        shape = (len(images.header.classes),) if self.classes else (len(images.header.mask_labels), *images.size)
        return (np.full(shape, 1 / shape[0], np.float32) for _ in range(len(images)))


@pytest.fixture(scope="module")
def measured():
    """By benchmark, the names of the scores that it gives; of a task before the arm."""
    real, made = real_and_synthetic(patients=48, slices=1)
    names = {"fidelity": set(run_fidelity(real, made).scores)}
    for kind in ("segmentation", "classification"):
        plan = Plan(kind=kind, arms=[("real", False), ("synthetic", False)], seeds=1)
        names[kind] = {name.split("/")[0] for name in run_utility(real, made, plan, Uniform(kind)).scores}
    return {**names, "memorization": {"copied_share", "minimal_detectable_share"}}


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.toml")), ids=lambda path: path.stem)
def test_what_stands_beside_a_published_number_is_measured(path, measured):
    """By a name that exists, of an arm that is trained, in a cell that it measures; or it would never stand there."""
    suite = load_suite(path)
    for figure in suite.published.figures:
        benchmark, _, score = figure.ours.partition(".")
        if not figure.ours:
            continue
        cells = [c for c in suite.cells() if fnmatchcase(c.name, figure.cells) and benchmark in c.benchmarks]
        assert cells, figure
        if benchmark not in TASKS:
            assert score in measured[benchmark], figure
            continue
        measure, _, arm = score.partition("/")
        assert measure in measured[benchmark], figure
        for cell in cells:
            given = cell.benchmarks[benchmark]
            arms = given.get("arms", ",".join(UtilitySettings.arms))
            assert arm.removesuffix("+augmentation") in (arms.split(",") if isinstance(arms, str) else arms), figure
            assert given.get("augmentation", "classical") in ("both", "classical" if "+aug" in arm else "none"), figure


def test_the_scores_of_memorization_are_called_so(measured):
    """Too slow to be measured here: the names as its results have them."""
    from fedsynth.evaluation.memorization import result

    text = Path(result.__file__).read_text()
    assert all(f'"{name}": ' in text for name in measured["memorization"])


def test_a_misspelled_option_is_found_before_anything_runs(tmp_path):
    file = tmp_path / "suite.toml"
    file.write_text(QUICK.replace("steps = 0", "stesp = 0"))
    done = CliRunner().invoke(app, ["suite", str(file), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "did you mean 'steps'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_plan_on_real_patients_says_what_all_cells_spend(tmp_path):
    tiny_set().save(tmp_path / "images")
    file = tmp_path / "suite.toml"
    grid = '[grid]\ngenerator = ["dcgan"]\nepsilon = [0, 2.0, 3.0]\n'
    file.write_text(f'name = "s"\nimages = "images"\n[private]\npatients = 6\n{grid}')
    done = CliRunner().invoke(app, ["suite", str(file), "--plan"])
    assert done.exit_code == 0, done.output
    assert "epsilon 5 of every patient, all cells together; needs --spend" in done.stdout


def test_published_numbers_stand_beside_ours(tmp_path):
    rows = [read_facts(make_run(tmp_path / name).folder) for name in ("plain", "epsilon-8.0")]
    figures = (
        Figure(what="Dice", value="0.8", ours="segmentation.dice/synthetic", source="A"),
        Figure(what="private", value="0.7", ours="segmentation.dice/synthetic", cells="epsilon-*"),
        Figure(what="KID", value="1", ours="fidelity.kid/filters"),
        Figure(what="readers", value="0.6"),
    )
    assert published_rows(Published(figures=figures), rows) == [
        ("Dice (A)", "0.8", "0.7 [0.6, 0.8]", "plain"),
        ("", "", "0.7 [0.6, 0.8]", "epsilon-8.0"),
        ("private", "0.7", "0.7 [0.6, 0.8]", "epsilon-8.0"),
        ("KID", "1", "not measured", ""),
        ("readers", "0.6", "nothing to compare", ""),
    ]


def test_a_suite_is_compared_and_reported_as_its_runs(tmp_path):
    (tmp_path / "out").mkdir()
    text = (
        QUICK + '[published]\nsource = "A paper"\ndiffers = ["all"]\n[[published.figures]]\nwhat = "x"\nvalue = "1"\n'
    )
    suite = suite_of(text, tmp_path)
    save_toml(tmp_path / "out" / "suite.toml", suite)
    with pytest.raises(FedSynthError, match="no cell"):
        runs_in(tmp_path / "out")
    for job in jobs_of(suite, tmp_path / "out"):
        make_run(job.run, epsilon=job.cell.epsilon or None)
    assert [run.parent.name for run in runs_in(tmp_path / "out")] == [CELLS, CELLS]
    done = CliRunner().invoke(app, ["compare", str(tmp_path / "out"), "--by", "epsilon"])
    assert done.exit_code == 0, done.output
    assert "dcgan_epsilon-8.0" in done.stdout
    assert "no guarantee" in done.stdout
    assert CliRunner().invoke(app, ["report", str(tmp_path / "out")]).exit_code == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Beside published numbers" in page
    assert "A paper" in page


def test_cells_that_failed_or_were_not_run_stay_in_the_table(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    text = QUICK.replace("epsilon = [0, 8.0]", "epsilon = [0, 8.0, 2.0]")
    suite = suite_of(text, tmp_path)
    save_toml(out / "suite.toml", suite)
    whole, broken, _ = jobs_of(suite, out)
    make_run(whole.run)
    (out / CELLS / "dcgan_plain-failed.txt").write_text("fidelity: too few, see /srv/patients\n")
    (out / CELLS / "dcgan_epsilon-8.0-failed.txt").write_text("simulate: boom at /srv/patients\n")
    assert failed_steps(broken.run) == {"simulate": "boom at /srv/patients"}
    done = CliRunner().invoke(app, ["compare", str(out), "--format", "markdown", "--by", "epsilon"])
    assert done.exit_code == 0, done.output
    assert "| dcgan_epsilon-8.0 | failed: simulate: boom at /srv/patients |" in done.stdout
    assert "| dcgan_epsilon-2.0 | not finished |" in done.stdout
    assert "not run for" not in done.stderr, "it is said of cells that were trained"
    for option in ([], ["--export"]):
        page = out / ("report-export.html" if option else "report.html")
        assert CliRunner().invoke(app, ["report", str(out), *option]).exit_code == 0
        told = page.read_text()
        assert "Unknown: failed: simulate" in told
        assert "dcgan_plain: fidelity failed" in told
        assert ("/srv/patients" in told) == (not option)
    (row,) = [row for row in read_rows(out) if row.run.folder == whole.run]
    assert "dcgan_plain: fidelity failed: too few, see /srv/patients" in reasons([row])
