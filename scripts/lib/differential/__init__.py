"""Random programs, random edits: the patched process must do what a fresh build in the same state does."""
