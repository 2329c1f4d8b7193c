"""The models of a run by name, as a value from which another process loads the same ones."""

from dataclasses import asdict, dataclass, replace

from posecli.pose.runner import Runner
from posecli.predict import Predictor, load_predictor


@dataclass(frozen=True)
class ModelOptions:
    """Arguments of predict.load_predictor; it can be pickled."""

    weights: str = "pose"
    detector: str = "person"
    device: str = "auto"
    runtime: str = "auto"
    precision: str = "auto"
    decoder: str = "auto"
    flip: bool = False
    detector_threshold: float | None = None
    detector_weights: str | None = None
    max_people: int = 100
    reestimate: bool = False
    detector_runtime: str | None = None

    def load(self, runner: Runner | None = None) -> Predictor:
        """The models, ready to run. runner: see load_predictor. Raises what load_predictor raises."""
        return load_predictor(**asdict(self), runner=runner)

    def resolved(self, predictor: Predictor) -> "ModelOptions":
        """The same with the runtimes that were chosen for a predictor of these options: they are measured only once."""
        own = predictor.detector.runtime if self.detector == "person" else None
        return replace(self, runtime=predictor.estimator.runner.runtime, detector_runtime=own)
