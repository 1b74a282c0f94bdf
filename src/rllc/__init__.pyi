"""The names of `import rllc` for type checkers; at run time they are loaded when first used (`__init__.py`)."""

from rllc.api import Result as Result
from rllc.api import Results as Results
from rllc.api import Sweep as Sweep
from rllc.api import estimate as estimate
from rllc.api import sweep as sweep
from rllc.checkpoints.importing import import_module as import_module
from rllc.core.errors import RllcError as RllcError
from rllc.core.names import Part as Part
from rllc.core.outcome import Outcome as Outcome
from rllc.model.shape import ModelShape as ModelShape
from rllc.posterior.settings import ExtraChecks as ExtraChecks
from rllc.posterior.settings import SamplerSettings as SamplerSettings
from rllc.posterior.settings import Stopping as Stopping
from rllc.posterior.settings import Verdicts as Verdicts
from rllc.runs.monitoring import Monitor as Monitor
from rllc.runs.refined import Mixed as Mixed
from rllc.runs.refined import Refined as Refined

__version__: str
