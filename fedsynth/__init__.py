"""fedsynth: federated, private, synthetic medical images, and an honest answer to "may we share them?"."""

__version__ = "0.1.0"
