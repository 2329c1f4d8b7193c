"""The run: inputs → frames → detections → poses → track ids → files, in three threads."""

from posecli.pipeline.plan import output_folder, plan, prepare_output, refuse_replacing_inputs
from posecli.pipeline.run import run
from posecli.pipeline.run_options import RunOptions

__all__ = ["RunOptions", "output_folder", "plan", "prepare_output", "refuse_replacing_inputs", "run"]
