"""Images: files to canvases, canvases to views, and the networks made for them."""
