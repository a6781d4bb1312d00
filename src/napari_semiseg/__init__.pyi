from napari_semiseg.engine.control import Control as Control
from napari_semiseg.engine.demo import DemoRequest as DemoRequest
from napari_semiseg.engine.demo import demo as demo
from napari_semiseg.engine.evaluate import evaluate as evaluate
from napari_semiseg.engine.export import export as export
from napari_semiseg.engine.export_job import ExportRequest as ExportRequest
from napari_semiseg.engine.inspect import InspectRequest as InspectRequest
from napari_semiseg.engine.inspect import inspect as inspect
from napari_semiseg.engine.predict import PredictRequest as PredictRequest
from napari_semiseg.engine.predict import predict as predict
from napari_semiseg.engine.requests import TrainRequest as TrainRequest
from napari_semiseg.engine.run import RunRequest as RunRequest
from napari_semiseg.engine.run import run as run
from napari_semiseg.engine.train import train as train
from napari_semiseg.errors import InputError as InputError
from napari_semiseg.io.images import open_image as open_image
from napari_semiseg.io.labels import read_labels as read_labels

__version__: str
