"""Videos: files to clips of frames or optical flow, and the networks made for them."""
