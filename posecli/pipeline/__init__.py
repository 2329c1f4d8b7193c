"""The corridor: inputs → frames → detections → poses → ids → files, in three threads."""

from posecli.pipeline.options import RunOptions
from posecli.pipeline.run import plan, prepare_output, run

__all__ = ["RunOptions", "plan", "prepare_output", "run"]
