"""Image sets: the plain format, where they come from, how patients are split and shared out to hospitals."""

from fedsynth.images.header import ROLES, Header, Role, Shares, Split
from fedsynth.images.imageset import ImageSet, concatenate

__all__ = ["ROLES", "Header", "ImageSet", "Role", "Shares", "Split", "concatenate"]
