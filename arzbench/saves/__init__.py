"""The state of a training on disk and back, and copies of it elsewhere."""
