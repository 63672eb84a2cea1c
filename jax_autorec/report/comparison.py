"""The page of a comparison: figures, score by size, differences, gaps."""

from collections.abc import Iterable, Mapping, Sequence
import datetime
from typing import Any

from jax_autorec.report import html, plots


def how_made(
  reports: Iterable[tuple[Mapping[str, Any], float]],
  seeds: Sequence[int],
  command: str,
) -> list[tuple[str, str]]:
  """What a reader needs to make the comparison again: (name, value).

  Args:
    reports: report.json of every finished run, and when it was written, in
      seconds since the epoch.
    seeds: of those runs.
    command: that wrote it.
  """
  reports = list(reports)
  times = [time for _, time in reports]
  machines = sorted({report.get('machine', '') for report, _ in reports} - {''})
  versions = sorted(
    {
      ', '.join(f'{name} {value}' for name, value in found.items())
      for report, _ in reports
      if (found := report.get('versions'))
    }
  )
  lines = [('command', command)]
  if times:
    lines.append(('seeds', ', '.join(map(str, seeds))))
    dates = dict.fromkeys(map(_date, (min(times), max(times))))
    lines.append(('runs finished', ' to '.join(dates)))
  # Times and the last digits of figures are of a machine and of versions.
  lines += [('machine', value) for value in machines]
  lines += [('versions', value) for value in versions]
  return lines


def _date(seconds: float) -> str:
  """Day of a time, UTC."""
  return f'{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d}'


def render(page: Mapping[str, Any]) -> str:
  """The page as text, from plain values; it needs no other file.

  Args:
    page: 'title', 'subtitle', 'is_tiny'; 'tiles': (label, value); 'groups',
      each with 'name', 'headings' and 'rows' (texts), 'marked' (places of rows
      to set off), 'points' and 'front' of `plots.scores_by_size`, 'families'
      (title, headings, rows); 'notes' and 'tests', lines below them; 'within':
      headings and rows, or none; 'missing', lines; 'made' of `how_made`.
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
