"""A camera as driver: pictures at once, on a page of this machine."""
