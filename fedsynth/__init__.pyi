from fedsynth.api.arrays import from_arrays as from_arrays
from fedsynth.api.data import load as load
from fedsynth.api.data import phantoms as phantoms
from fedsynth.api.data import split as split
from fedsynth.api.evaluation import evaluate as evaluate
from fedsynth.api.generation import generate as generate
from fedsynth.api.leakage import membership as membership
from fedsynth.api.leakage import memorization as memorization
from fedsynth.api.planning import plan as plan
from fedsynth.api.progress import Progress as Progress
from fedsynth.api.reporting import compare as compare
from fedsynth.api.reporting import release as release
from fedsynth.api.reporting import report as report
from fedsynth.api.reporting import verify as verify
from fedsynth.api.reporting import withdraw as withdraw
from fedsynth.api.simulation import simulate as simulate
from fedsynth.api.training import train as train
from fedsynth.api.utility import classification as classification
from fedsynth.api.utility import fidelity as fidelity
from fedsynth.api.utility import segmentation as segmentation
from fedsynth.data import ImageSet as ImageSet

__version__: str
