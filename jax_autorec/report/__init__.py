"""Pages from plain files and values: of a run, and of a comparison of runs."""

from jax_autorec.report.comparison import how_made
from jax_autorec.report.comparison import render as render_comparison
from jax_autorec.report.html import render, write
from jax_autorec.report.tables import gap_closed

__all__ = [
  'gap_closed',
  'how_made',
  'render',
  'render_comparison',
  'write',
]
