"""What tests of images in files need."""

from image_fixtures import cache, make_image, photos

__all__ = ["cache", "make_image", "photos"]
