"""Statistics of images by what they are about, a file each; all are read."""
