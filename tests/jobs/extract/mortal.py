"""An extractor that is killed. Apart from the tests, whose imports no actor has to wait for."""

from paliflow.jobs.extract.actor import Extractor
from paliflow.tests.jobs.mortal import Mortal


class MortalExtractor(Mortal, Extractor):
    """Dies as `Mortal` says."""
