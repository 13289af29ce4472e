from fedsynth.api.evaluation import compare as compare
from fedsynth.api.evaluation import evaluate as evaluate
from fedsynth.api.progress import Progress as Progress
from fedsynth.api.simulation import simulate as simulate
from fedsynth.api.training import train as train
from fedsynth.data import ImageSet as ImageSet

__version__: str
