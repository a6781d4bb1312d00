"""Ask where to paint next: places spread over the tissue and unlike the tiles that are there."""

import sys
import tempfile
from pathlib import Path

from napari_semiseg.engine.suggest import SuggestRequest, suggest
from napari_semiseg.events import Suggested
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.samples import immunohistochemistry

out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
with ProjectFolder.create(out / "colon.semiseg") as project:
    image = project.add_array(immunohistochemistry(), "colon")
    project.add_tile(image, (0, 0, 128, 128))

for event in suggest(SuggestRequest(source=str(project.path), n=3, side=128)):
    if isinstance(event, Suggested):
        for rank, tile in enumerate(event.tiles, start=1):
            print(f"{rank}. rows and columns {tile['box']}: {tile['reason']}")
