"""A method and its controls over a stream, and the report.json of that."""

from collections.abc import Mapping
import pathlib
from typing import Any

from absl import logging
import jax
import numpy as np

from experiments import methods, reports
from experiments import settings as settings_lib
from jax_autorec import data as data_lib
from jax_autorec import errors, pipeline
from jax_autorec.train import settings as train_settings

_TEST_SHARE = 0.25  # The last rows, as in ESAPN's data.


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


def _check_labels(stream: data_lib.Dataset) -> None:
  """Refuses a stream that no AUC can be computed on, before it is run.

  Raises:
    DataError: where all labels, or all of the last rows, are the same.
  """
  labels = np.asarray(stream.train.labels)
  last = labels[round(len(labels) * (1 - _TEST_SHARE)) :]
  if not len(last) or last.min() == last.max():
    raise errors.DataError(
      f'The last {len(last)} of {len(labels)} rows of the stream, which are '
      'reported as test, need labels of both classes: take more rows '
      '(data.max_rows), or another threshold of the label.'
    )


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
  for name, (space, online) in (
    methods.METHODS[values['method']].online(task).items()
  ):
    is_result = name == values['method']
    found = pipeline.run_stream(
      space,
      online,
      stream,
      settings,
      loss=loss,
      seed=values['seed'],
      workdir=workdir,
      stage='stream' if is_result else f'control:{name}',
    )
    model = pipeline.settle(found, settings) if online.derive else None
    entries[name] = _entry(found, model, stream.train, loss)
    streamed[name] = found
    logging.info('%s: %s', name, _short(entries[name]['stream']))
    if is_result:
      model.architecture.save(workdir)
      model_path = pipeline.save(model, workdir / 'model')
      entries[name]['bytes']['model'] = sum(
        path.stat().st_size for path in model_path.parent.glob('*.npz')
      )
      entries[name]['architecture'] = model.architecture.to_dict()
      if last in ('search', 'derive'):
        print(f'Derived: {workdir / "architecture.json"}')
        return
  result = entries.pop(values['method'])
  times = {name: entry['seconds'] for name, entry in entries.items()}
  report = {
    'method': values['method'],
    'dataset': values['data']['name'],
    'model': values['model'],
    'seed': values['seed'],
    'tiny': values['tiny'],
    **result,
    'controls': entries,
    'frequency': _by_frequency(streamed, stream, values['method']),
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


def _entry(found, model, rows, loss) -> dict[str, Any]:
  """What one run over the stream came to."""
  first = round(rows.num_rows * (1 - _TEST_SHARE))
  part = lambda *ends: pipeline.prequential(rows, found.logits, loss, *ends)
  trained = found.space
  held = {
    'bytes': {f'{k}, training': v for k, v in found.info['bytes'].items()}
  }
  if model is None:
    sizes = trained.embedding_params, trained.ep_total
    params = found.state.train.params, found.state.train.tables
    # What is kept per id is as needed for a prediction as a row is.
    kept = found.online.kept(found.state.own)
    kept = sum(x.size for x in jax.tree.leaves(kept))
    sizes = sizes[0] + kept, sizes[1] + kept
    total = sum(x.size for x in jax.tree.leaves(params)) + kept
  else:
    sizes = model.architecture.embedding_params, model.architecture.ep_total
    total = model.total_params
    kept = model.info['bytes']
    held['bytes'] |= {f'{k}, derived': v for k, v in kept.items()}
  return {
    'test': part(first),
    'valid': part(0, first),
    'stream': part(),
    'embedding_params': sizes[0],
    'ep_total': sizes[1],
    'total_params': total,
    **held,
    'seconds': found.info['seconds'],
    'examples_per_second': found.info['examples_per_second'],
  }


def _by_frequency(streamed, stream, method) -> dict[str, dict[str, Any]]:
  """Per entity what frequent ids got, by octave.

  'widths': of ids by how often they came in all; 'accuracies': of rows by how
  often their id had come before, from 0 on.
  """
  rows, found = stream.train, streamed[method]
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
