"""fedsynth: federated, private, synthetic medical images, and an honest answer to "may we share them?"."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "ImageSet": "data",
    "Progress": "api.progress",
    "classification": "api.utility",
    "compare": "api.reporting",
    "evaluate": "api.evaluation",
    "fidelity": "api.utility",
    "from_arrays": "api.arrays",
    "generate": "api.generation",
    "load": "api.data",
    "membership": "api.leakage",
    "memorization": "api.leakage",
    "phantoms": "api.data",
    "plan": "api.planning",
    "release": "api.reporting",
    "report": "api.reporting",
    "segmentation": "api.utility",
    "simulate": "api.simulation",
    "split": "api.data",
    "train": "api.training",
    "verify": "api.reporting",
    "withdraw": "api.reporting",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """The Python interface, imported at its first use; its types stand in `__init__.pyi`."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
