"""Image sets: the plain format, where they come from, how patients are split and shared out to hospitals."""

from fedsynth.data.format import ROLES, Header, Role, Shares, Split
from fedsynth.data.image_set import ImageSet, concatenate

__all__ = ["ROLES", "Header", "ImageSet", "Role", "Shares", "Split", "concatenate"]
