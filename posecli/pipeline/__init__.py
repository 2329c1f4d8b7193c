"""The corridor: inputs → frames → detections → poses → ids → files, in three threads."""

from posecli.pipeline.options import RunOptions
from posecli.pipeline.plan import output_folder, plan, prepare_output, refuse_harm_to_inputs
from posecli.pipeline.run import run

__all__ = ["RunOptions", "output_folder", "plan", "prepare_output", "refuse_harm_to_inputs", "run"]
