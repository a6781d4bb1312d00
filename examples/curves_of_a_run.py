"""Show the curves of a finished run in a window of their own: loss terms, and Dice beside that of the threshold.

    python examples/curves_of_a_run.py RUN

A panel shows what a model holds: here the model is read from the run's `events.jsonl`.
"""

import sys
from pathlib import Path

from qtpy.QtWidgets import QApplication

from napari_semiseg.app.run_record import read_run
from napari_semiseg.plugin.widgets.curves import Curves

if __name__ == "__main__":
    application = QApplication.instance() or QApplication(sys.argv)
    record = read_run(Path(sys.argv[1]))
    if record is None:
        sys.exit(f"{sys.argv[1]} holds no run.")
    curves = Curves()
    yours, threshold = record.dice.values, record.threshold_dice.values
    verdict = f"yours {yours[-1]:.2f} · threshold {threshold[-1]:.2f}" if len(yours) else "no validation tile"
    curves.show_record(record, verdict)
    curves.setWindowTitle(record.path.name)
    curves.resize(640, 180)
    curves.show()
    application.exec()
