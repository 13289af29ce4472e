"""Who watches the sites at work in this process, or adds to their images. Other engines are watched by the round."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from fedsynth.data import ImageSet
from fedsynth.federation.client import OnStep
from fedsynth.federation.site_context import SiteContext
from fedsynth.training.session import Prepared

OnOpened = Callable[[str, Prepared], None]
OnImages = Callable[[str, ImageSet], ImageSet]

_watcher: OnStep | None = None
_auditor: OnOpened | None = None
_images: OnImages | None = None


@contextmanager
def steps(watcher: OnStep | None) -> Iterator[None]:
    """`watcher(site, done, of)` hears of every step during the block."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before


def watcher() -> OnStep | None:
    """Whoever watches now."""
    return _watcher


@contextmanager
def trainings(auditor: OnOpened, images: OnImages) -> Iterator[None]:
    """`auditor(site, prepared)` is shown every simulated site's training before its first round, during the block.

    Such a site trains on `images(site, its own)`: what an audit adds stays in memory, and no image is written down.
    """
    global _auditor, _images
    before, (_auditor, _images) = (_auditor, _images), (auditor, images)
    try:
        yield
    finally:
        _auditor, _images = before


def entered(place: SiteContext) -> SiteContext:
    """The site as an auditor lets it be."""
    if _images is None or not place.simulated:
        return place
    return replace(place, images=partial(_joined, _images, place))


def _joined(images: OnImages, place: SiteContext) -> ImageSet:
    return images(place.name, place.images())


def opened(site: str, prepared: Prepared) -> None:
    """A simulated site is ready to train."""
    if _auditor is not None:
        _auditor(site, prepared)
