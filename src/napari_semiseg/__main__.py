"""``python -m napari_semiseg`` is the command line."""

from napari_semiseg.cli.app import main

if __name__ == "__main__":
    main()
