from fedsynth.api import compare as compare
from fedsynth.api import evaluate as evaluate
from fedsynth.api import simulate as simulate
from fedsynth.images import ImageSet as ImageSet

__version__: str
