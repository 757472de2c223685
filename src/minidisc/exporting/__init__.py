"""A saved model as a folder that runs without PyTorch, checked against PyTorch before it is handed over."""

from minidisc.exporting.export import export

__all__ = ["export"]
