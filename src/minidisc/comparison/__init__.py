"""Several methods on one teacher, on equal terms: cells, the table over seeds."""

from minidisc.comparison.cells import compare
from minidisc.comparison.gathering import gather
from minidisc.comparison.methods import Method, parse_method
from minidisc.comparison.table import Comparison, markdown, read_comparison

__all__ = ["Comparison", "Method", "compare", "gather", "markdown", "parse_method", "read_comparison"]
