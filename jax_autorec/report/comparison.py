"""The page of a comparison: figures, score by size, differences, gaps."""

from collections.abc import Mapping
from typing import Any

from jax_autorec.report import html, plots


def render(page: Mapping[str, Any]) -> str:
  """The page as text, from plain values; it needs no other file.

  Args:
    page: 'title', 'subtitle', 'is_tiny'; 'tiles': (label, value); 'groups',
      each with 'name', 'headings' and 'rows' (texts), 'marked' (places of rows
      to set off), 'points' and 'front' of `plots.scores_by_size`, 'families'
      (title, headings, rows); 'notes' and 'tests', lines below them; 'within':
      headings and rows, or none; 'missing', lines; 'command'.
  """
  from markupsafe import Markup  # Imported late: only a report needs it.

  groups = []
  for group in page['groups']:
    plot = None
    if len(group['points']) > 1:
      plot = Markup(
        plots.scores_by_size(group['points'], group['front'], 'test AUC')
      )
    groups.append({**group, 'plot': plot})
  return html.template('comparison.html').render(page | {'groups': groups})
