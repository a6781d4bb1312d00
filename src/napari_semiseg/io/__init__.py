"""Reading images and labels, writing results: arrays and files, neither torch nor Qt."""
