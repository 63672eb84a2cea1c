"""The page of a run: its files are read, its parts are put in a template."""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
from typing import Any

from absl import logging

from jax_autorec import errors, files
from jax_autorec.architecture import Architecture
from jax_autorec.report import pictures, tables


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Lines of metrics.jsonl by stage and step; of a repeated one the last.

  A killed run leaves half a line: it is left out, with a warning.
  """
  lines: dict[tuple[Any, ...], dict[str, Any]] = {}
  for number, text in enumerate(
    pathlib.Path(path).read_text('utf-8').splitlines(), 1
  ):
    try:
      line = json.loads(text)
    except ValueError:
      if text.strip():
        logging.warning('%s line %d is cut off: left out.', path, number)
      continue
    key = (line.get('stage'), line.get('step'), line.get('kind'))
    lines[key] = line
  stages = list(dict.fromkeys(line.get('stage') for line in lines.values()))
  return sorted(
    lines.values(),
    key=lambda line: (stages.index(line.get('stage')), line.get('step') or 0),
  )


def write(workdir: str | os.PathLike[str]) -> pathlib.Path:
  """Makes report.html from a workdir's files; returns its path.

  Raises:
    ConfigError: where there is no report.json yet.
  """
  workdir = pathlib.Path(workdir)

  def load(name, default):
    path = workdir / name
    return json.loads(path.read_text('utf-8')) if path.exists() else default

  report = load('report.json', None)
  if report is None:
    raise errors.ConfigError(
      f'{workdir} has no report.json: finish the run first.'
    )
  metrics = []
  if (workdir / 'metrics.jsonl').exists():
    metrics = read_metrics(workdir / 'metrics.jsonl')
  # Of the model that is served, whose fields may be packed; a stream's method
  # that has none ends with what it trained.
  architecture = load('architecture.json', {})
  architecture = load('model/architecture.json', architecture)
  report['numbers'] = load('numbers.json', {})
  page = render(report, metrics, architecture, load('config.json', {}))
  path = workdir / 'report.html'
  files.write_text(path, page)
  return path


def render(
  report: Mapping[str, Any],
  metrics: Sequence[Mapping[str, Any]],
  architecture: Mapping[str, Any],
  config: Mapping[str, Any],
) -> str:
  """The page as text, from plain values; what is missing is left out."""
  from markupsafe import Markup

  plan = _plan(architecture)
  sections = pictures.sections(report, metrics, architecture, plan)
  drawn = [
    (title, [(name, Markup(svg), note) for name, svg, note in figures])
    for title, figures in sections
    if figures
  ]
  results = tables.stream_results if 'stream' in report else tables.results
  headings, rows = results(report)
  return template('template.html').render(
    report=report,
    title=f'{report["method"]} on {pathlib.Path(report["dataset"]).stem}',
    subtitle=tables.subtitle(report, architecture),
    tiles=tables.tiles(report),
    summary=tables.summary(report),
    headings=headings,
    rows=rows,
    notes=tables.notes(report),
    trials=tables.trials(report),
    pictures=drawn,
    blocks=tables.blocks(plan),
    sizes=tables.sizes(report),
    interactions=tables.interactions(architecture),
    head=tables.head(architecture),
    facts=tables.facts(report),
    config=json.dumps(config, indent=1),
  )


def _plan(architecture) -> Architecture | None:
  """What sizes are counted of; no array is needed for that."""
  if not architecture.get('fields'):
    return None
  return Architecture.from_dict({**architecture, 'arrays': {}})


def template(name: str) -> Any:
  """A template of this package; what is put into it is escaped."""
  import jinja2  # Imported late: only a report needs it.

  return jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
  ).get_template(name)
