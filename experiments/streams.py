"""A method and its controls over a stream, and the report.json of that."""

from collections.abc import Mapping
import pathlib
from typing import Any

from absl import logging
import jax
import numpy as np

from experiments import methods, reports
from experiments import settings as settings_lib
from jax_autorec import choices, errors, streaming
from jax_autorec import data as data_lib
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.train import settings as train_settings

_TEST_SHARE = 0.25  # The last rows, as in ESAPN's data.

# Key of the metrics of the rows before those. Nothing is chosen on them: a
# method learns from every row once it has predicted it.
BEFORE = 'before_last_quarter'


def _stream(values, data) -> data_lib.Dataset:
  options = values['search']
  entities = tuple(options['entities'])
  if not entities:
    single = [f for f in data.schema.categorical if f.max_length == 1]
    by_size = sorted(single, key=lambda field: -field.vocab_size)
    entities = tuple(field.name for field in by_size[:2])
  seed = values['seed'] if options['shuffle'] else None
  return data_lib.stream(
    data, entities, seed, values['data']['max_rows'] or None
  )


def _first_of_test(rows: dataset_lib.Split) -> int:
  """The first row of the last quarter, which is reported as test."""
  return round(rows.num_rows * (1 - _TEST_SHARE))


def _check_labels(stream: data_lib.Dataset) -> None:
  """Refuses a stream that no AUC can be computed on, before it is run.

  Raises:
    DataError: where all labels, or all of the last rows, are the same.
  """
  labels = np.asarray(stream.train.labels)
  last = labels[_first_of_test(stream.train) :]
  if not len(last) or last.min() == last.max():
    raise errors.DataError(
      f'The last {len(last)} of {len(labels)} rows of the stream, which are '
      'reported as test, need labels of both classes: take more rows '
      '(data.max_rows), or another threshold of the label.'
    )


def _runs(values, task):
  """Name of a run -> what it runs; the result first."""
  runs = methods.METHODS[values['method']].online(task)
  only = values['search']['only']
  if not only:
    return runs
  if only not in runs:
    raise errors.ConfigError(
      f'search.only is {only!r}; expected one of {", ".join(runs)}, or nothing '
      f'for all.{errors.nearest(only, runs)}'
    )
  return {only: runs[only]}


def run(
  values: Mapping[str, Any],
  data: data_lib.Dataset,
  settings: train_settings.Settings,
  workdir: pathlib.Path,
  last: str,
  seconds: dict[str, float],
  command: str,
  machine: str,
) -> None:
  """Runs the method, then its controls; writes report.json.

  With `search.only` one of them alone, which then is the result.

  Args:
    values: resolved config of a method with `Method.online`.
    data: of all rows.
    settings: how weights are trained.
    workdir: where checkpoints and the report go.
    last: the last stage: 'search', 'derive', or all.
    seconds: spent so far, by name.
    command: for the report.
    machine: for the report.
  """
  stream = _stream(values, data)
  _check_labels(stream)
  task = methods.Task(
    stream,
    values['model'],
    settings_lib.given(values['model_options']),
    values['search'],
    seed=values['seed'],
  )
  loss, entries, streamed = values['search']['loss'], {}, {}
  runs = _runs(values, task)
  method = next(iter(runs))
  for name, (space, online) in runs.items():
    is_result = name == method
    found = streaming.run_stream(
      space,
      online,
      stream,
      settings,
      loss=loss,
      seed=values['seed'],
      workdir=workdir,
      stage='stream' if is_result else f'control:{name}',
    )
    model = streaming.settle(found, settings) if online.derive else None
    architecture = model.architecture if model else found.space
    file = 0
    if is_result:
      architecture.save(workdir)
      file = reports.save(model, workdir) if model else 0
      if last in ('search', 'derive'):
        print(f'Derived: {workdir / "architecture.json"}')
        return
    elif model:
      file = reports.file_bytes(model)
    entries[name] = _entry(found, model, file, stream.train, loss)
    streamed[name] = found
    logging.info('%s: %s', name, _short(entries[name]['stream']))
    if is_result:
      entries[name]['architecture'] = architecture.to_dict()
      first = _first_of_test(stream.train)
      reports.write_predictions(
        workdir / 'predictions.npz',
        stream.train.tail(first),
        found.logits[first:],
      )
  result = entries.pop(method)
  times = {name: entry['seconds'] for name, entry in entries.items()}
  report = {
    'method': method,
    'dataset': values['data']['name'],
    'model': values['model'],
    'seed': values['seed'],
    'tiny': values['tiny'],
    **result,
    'controls': entries,
    'frequency': _by_frequency(streamed, stream, method),
    'not_searched': (
      'The method chooses while it trains: what was trained is what was '
      'searched.'
    ),
    'rows': dict(data.counts),
    'splits': {'stream': stream.train.num_rows},
    'versions': reports.versions(),
    'seconds': seconds
    | {'retrain': result['seconds'], 'controls': sum(times.values())},
    'command': command,
    'machine': machine,
  }
  reports.write_json(workdir / 'report.json', report)


def _short(metrics):
  return (
    f'loss {metrics["loss"]:.5f}, accuracy {metrics["accuracy"]:.5f}, AUC '
    f'{metrics["auc"]:.5f}'
  )


def _entry(found, model, file, rows, loss) -> dict[str, Any]:
  """What one run over the stream came to."""
  first = _first_of_test(rows)
  part = lambda *ends: streaming.prequential(rows, found.logits, loss, *ends)
  sizes = {'trained': found.info['size']}
  if model:
    sizes['derived'] = model.size(file)
    total = model.total_params
  else:
    params = found.state.train.params, found.state.train.tables
    # What is kept per id is as needed for a prediction as a row is.
    kept = jax.tree.leaves(found.online.kept(found.state.own))
    kept = sum(x.size for x in kept)
    total = sum(x.size for x in jax.tree.leaves(params)) + kept
    for key in ('vectors_total', 'ep_total'):
      sizes['trained'] |= {key: sizes['trained'][key] + kept}
  return {
    'test': part(first),
    BEFORE: part(0, first),
    'stream': part(),
    **reports.size(sizes, total),
    'seconds': found.info['seconds'],
    'examples_per_second': found.info['examples_per_second'],
  }


def _by_frequency(streamed, stream, method) -> dict[str, dict[str, Any]]:
  """Per entity what frequent ids got, by octave.

  'widths': of ids by how often they came in all; 'accuracies': of rows by how
  often their id had come before, from 0 on. Empty for a method that gives rows
  no width of their own.
  """
  rows, found = stream.train, streamed[method]
  if not isinstance(found.space.choice, choices.GrowingRows):
    return {}
  dims = np.array(found.space.choice.dims)
  labels = np.asarray(rows.labels) == 1
  result = {}
  for column, field in enumerate(stream.schema.categorical):
    ids = np.asarray(rows.ids[:, column])
    sizes = np.asarray(found.state.own[field.name]['size'])
    counts = np.bincount(ids, minlength=field.vocab_size)
    widths = [
      {
        'from': start,
        'ids': int(here.sum()),
        'width': float(dims[sizes[here]].mean()),
        'size': float(sizes[here].mean()),
      }
      for start, here in _by_octave(counts)
      if start
    ]
    accuracies = [
      {
        'from': start,
        'rows': int(here.sum()),
        **{
          name: float(((one.logits > 0) == labels)[here].mean())
          for name, one in streamed.items()
        },
      }
      for start, here in _by_octave(occurrence(ids))
    ]
    result[field.name] = {'widths': widths, 'accuracies': accuracies}
  return result


def _by_octave(counts: np.ndarray):
  """(least count, which) of 0, 1, 2 to 3, 4 to 7, ...; those that there are."""
  octaves = np.where(counts > 0, np.log2(np.maximum(counts, 1)) + 1, 0)
  octaves = octaves.astype(int)
  for octave in np.unique(octaves):
    yield int(2 ** (octave - 1)) if octave else 0, octaves == octave


def occurrence(ids: np.ndarray) -> np.ndarray:
  """How often the id of each row came before it: int64 [R]."""
  order = np.argsort(ids, kind='stable')
  ordered = ids[order]
  starts = np.searchsorted(ordered, ordered, side='left')
  result = np.empty(len(ids), np.int64)
  result[order] = np.arange(len(ids)) - starts
  return result
