"""From a closed architecture to a trained model, and to one that serves."""

import dataclasses

import jax
import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, numeric_spaces
from jax_autorec.data import batches as batches_lib
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.nn import embeddings, quantizers
from jax_autorec.nn import model as model_lib
from jax_autorec.train import loop, parallel, stages, steps
from jax_autorec.train import models as models_lib
from jax_autorec.train import records as records_lib
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib


def retrain(
  architecture: arch_lib.Architecture,
  data: dataset_lib.Dataset,
  settings: settings_lib.Settings | None = None,
  *,
  seed: int = 0,
  workdir: stages.Workdir = None,
  stage: str = 'retrain',
  metric: str = 'auc',
) -> models_lib.Model:
  """Trains a closed architecture from scratch; keeps the best weights.

  Weights are fitted on the train split and chosen on the validation split.

  Args:
    architecture: what to train; its numeric embeddings are fitted on the train
      split, where they are not yet.
    data: encoded splits.
    settings: how; the defaults if None.
    seed: of initialisation, dropout and the order of rows.
    workdir: where checkpoints and records go; None keeps all in memory.
    stage: names them.
    metric: of the validation split, that the training is stopped and its
      weights are chosen by: 'auc' or 'logloss'.

  Returns:
    The model with the weights of its best evaluation.

  Raises:
    TrainingError: where it diverges.
  """
  if architecture.is_open:
    raise errors.ConfigError(
      'The architecture has open choices: search and derive it first.'
    )
  settings = settings or settings_lib.Settings()
  architecture = numeric_spaces.fit(architecture, data.train, data.scales)
  model = model_lib.build(
    architecture, axis_name=parallel.axis_name(settings.parallel)
  )
  optimizer = settings_lib.make_optimizer(settings, architecture)
  state, _ = state_lib.init(
    model,
    optimizer,
    state_lib.example_batch(data.schema),
    jax.random.key(seed),
    settings.table_std,
  )
  program = parallel.compile_steps(
    steps.make_train_step(model, optimizer), settings.parallel
  )
  source = batches_lib.Batches(data.train, settings.batch_size, seed=seed)
  compiled = jax.jit(steps.make_predict(model))

  def evaluate_valid(state):
    variables = (state.params, state.tables, state.batch_stats)
    logits = models_lib.predict(
      architecture,
      variables,
      data.valid,
      settings.batch_size,
      compiled=compiled,
    )
    if not np.isfinite(logits).all():
      raise errors.TrainingError(
        f'{stage}: predictions of the validation split are not finite, though '
        'all losses were. Lower the learning rate.'
      )
    return models_lib.measure(data.valid, logits)

  def observe(state):
    stats = state.batch_stats[model_lib.EMBEDDINGS]
    return {'code_entropy': embeddings.usage_entropy(architecture, stats)}

  stopping = dataclasses.replace(settings.stopping, metric=metric)
  # Where it is the usual one, checkpoints of before have it as well.
  judged = {} if metric == 'auc' else {'metric': metric}
  checkpoints = stages.open_checkpoints(
    workdir, stage, architecture, data, settings, seed, **judged
  )
  records = records_lib.Records(workdir)
  try:
    state, position = loop.fit(
      program,
      state,
      stage=stage,
      feed=source.chunk,
      batch_size=settings.batch_size,
      schedule=stages.schedule(settings, source),
      stopping=stopping,
      evaluate=evaluate_valid,
      checkpoints=checkpoints,
      records=records,
      observe=observe if architecture.codebooks else None,
    )
    if position.best_step != position.step:
      state, _ = checkpoints.restore_step(position.best_step, state)
    info = stages.info(
      position, settings.batch_size, architecture, state, checkpoints
    )
  finally:
    records.close()
    checkpoints.close()
  return models_lib.Model(
    architecture,
    state.params,
    state.tables,
    state.batch_stats,
    position.best_metrics,
    info,
  )


def pack(model: models_lib.Model) -> models_lib.Model:
  """The model with the codes of quantised fields in place of their queries.

  The whole vocabulary is encoded, block by block, as an evaluation chooses
  (running moments), rather than the ids that were seen as a batch chose.
  Evaluations of the two models are equal.

  Args:
    model: of `retrain`; one without queries comes back as it is.

  Returns:
    The packed model. In its info 'code_entropy' says per field how evenly the
    vocabulary uses the centroids; 'size' is that of the training still.
  """
  architecture = model.architecture
  queries = [table for table in architecture.tables if table.codebooks]
  if not queries:
    return model
  arrays, evenness = dict(architecture.arrays), {}
  params = dict(model.params[model_lib.EMBEDDINGS])
  stats = dict(model.batch_stats[model_lib.EMBEDDINGS])
  tables = dict(model.tables)
  for table in queries:
    stack = table.codebooks
    module = quantizers.Codebooks(architecture.codebooks[stack])
    variables = {'params': params[stack], 'batch_stats': stats.pop(stack)}
    rows, start = tables.pop(table.name), 0
    for place, plan in enumerate(module.plans):
      own = rows[start : start + plan.vocab_size]
      start += plan.vocab_size
      arrays[f'{plan.name}.codes'], evenness[plan.name] = (
        quantizers.encode_field(module, variables, own, place)
      )
    params[stack] = {'values': params[stack]['values']}
  arrays = {
    name: array
    for name, array in arrays.items()
    if name.removeprefix(arch_lib.INITIAL) in tables
    or not name.startswith(arch_lib.INITIAL)
  }
  architecture = dataclasses.replace(architecture.packed, arrays=arrays)
  return dataclasses.replace(
    model,
    architecture=architecture,
    params={**model.params, model_lib.EMBEDDINGS: params},
    tables=tables,
    batch_stats=_without_empty(
      {**model.batch_stats, model_lib.EMBEDDINGS: stats}
    ),
    info={**model.info, 'code_entropy': evenness},
  )


def _without_empty(tree):
  return {name: node for name, node in tree.items() if node}
