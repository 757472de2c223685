"""The demo: a small pretrained backbone and movie reviews, both from the package index."""
