from posecli.library import draw_poses as draw_poses
from posecli.library import read_image as read_image
from posecli.library import read_video as read_video
from posecli.library import track as track
from posecli.predict import Predictor as Predictor
from posecli.predict import load_predictor as load_predictor
from posecli.types import Detections as Detections
from posecli.types import Frame as Frame
from posecli.types import Poses as Poses

__version__: str
