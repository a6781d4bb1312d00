"""Planning a slide."""

from napari_semiseg.blocks import plan_blocks


class Plan:
    def time_slide_of_100_000_pixels(self):
        for _ in plan_blocks((100_000, 100_000), size=1024, halo=64, stride=32):
            pass
