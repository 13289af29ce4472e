"""What a private budget can buy, before anything is spent."""

from typing import TYPE_CHECKING, Any

from fedsynth import config
from fedsynth.api.signature import as_given, takes_keywords
from fedsynth.training.settings import PlanSettings

if TYPE_CHECKING:
    import pandas as pd


@takes_keywords(PlanSettings)
def plan(**settings: Any) -> "pd.DataFrame":
    """Compare the private release with DP-SGD for so many declared patients; no patient is read or charged.

    Args:
        **settings: Declared numbers, none of them counted from data.

    Returns:
        A row per way: how often patients are read, the noise multiplier, the noise against the signal, a verdict and
        why. What to do stands in `frame.attrs["recommended"]`.

    Example:
        >>> import fedsynth
        >>> plan = fedsynth.plan(patients=50, epsilon=8.0, size=32)
        >>> plan.loc["private release", "verdict"]
        'likely'
    """
    read = config.read_table(PlanSettings, as_given(settings))
    import pandas as pd

    from fedsynth.training.private_options import private_options, recommended

    found = private_options(read)
    rows = [
        {
            "way": one.way,
            "generator": one.generator,
            "reads": one.reads,
            "noise": one.noise,
            "ratio": one.feasibility.ratio,
            "verdict": one.feasibility.verdict,
            "why": str(one.feasibility),
        }
        for one in found
    ]
    frame = pd.DataFrame(rows).set_index("way")
    frame.attrs["recommended"] = recommended(found)
    return frame
