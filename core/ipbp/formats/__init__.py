"""Object formats: relocatable files and loaded images, read into the link graph."""
