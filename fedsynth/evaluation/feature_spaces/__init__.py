"""Feature spaces in which images are compared, all blind to who was a member."""

from fedsynth.evaluation.feature_spaces.space import Space, copy_spaces, default_spaces, reidentification, spaces_named

__all__ = ["Space", "copy_spaces", "default_spaces", "reidentification", "spaces_named"]
