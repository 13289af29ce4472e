"""The losses of a run as curves, for the report and for the page that watches."""

from collections import defaultdict

from fedsynth.federation.round_log import read_rounds
from fedsynth.reporting.figures import Chart, curves
from fedsynth.runs import Run


def training_curves(run: Run) -> list[Chart]:
    """A chart per loss with a line per site; nothing where the run has no rounds."""
    series: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for line in read_rounds(run.rounds):
        for name, value in line.items():
            if name.endswith("_loss") and value:
                series[name][line["site"]].append((float(line["round"]), float(value)))
    charts = [curves(sites, x="round", y=name.replace("_", " ")) for name, sites in sorted(series.items())]
    return [chart for chart in charts if chart is not None]
