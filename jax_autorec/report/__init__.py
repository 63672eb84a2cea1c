"""Pages from plain files and values: of a run, and of a comparison of runs."""

from jax_autorec.report.comparison import how_made
from jax_autorec.report.comparison import render as render_comparison
from jax_autorec.report.html import gap_closed, render, write

__all__ = [
  'gap_closed',
  'how_made',
  'render',
  'render_comparison',
  'write',
]
