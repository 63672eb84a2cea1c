"""Published and chosen settings: of models, of searches, by data set."""

from typing import Any

from jax_autorec.data import planted_fields, planted_numeric

# Behind a model's name: all its products, normalised and gated.
GATED = '+gates'

# Their supernet is the gated model, and what it wants is known.
GATED_METHODS = ('autofis', 'gates')

# Their vectors or products are normalised.
NORMALIZED_METHODS = (*GATED_METHODS, 'autogroup')

# Where nothing else is known.
DEFAULT = {
  'dim': 16,
  'epochs': 20,
  'batch_size': None,  # By the number of rows: `settings.batch_size`.
  'learning_rate': 1e-3,
  'table_optimizer': 'adam',
  'table_std': 1e-4,
  'embedding_l2': 1e-6,
  'l2': 0.0,
  # Gates that no gradient reaches in time all close, however useful: few rows
  # need more passes, and all a learning rate that tells pairs apart.
  'search': {
    'autofis': {
      'epochs': 6,
      'min_steps': 1000,
      'ratio': 2.0,
      'learning_rate': 1e-2,
    },
    # Fewer updates leave the policy nearly even.
    # A dense optimiser would move the blocks that a draw switches off.
    'nis': {'epochs': 4, 'min_steps': 5000, 'table_optimizer': 'adam'},
    # At most: it stops as a training does.
    'sseds': {'epochs': 20, 'min_steps': 1000},
    'autosrh': {'epochs': 20, 'min_steps': 2000},
    'pep': {'epochs': 20, 'min_steps': 1000},
    'optembed': {'epochs': 20, 'min_steps': 1000},
  },
}

# Lengths of searches of which nothing is known.
SEARCH = {'epochs': 10, 'min_steps': 1000}

# Products that are normalised need vectors that differ from the start: with
# the BARS protocol's 1e-4 they are noise, blown up, until early stopping ends
# the training. AutoFIS takes U(+-sqrt(6 / (V + d))), .02 on Frappe.
GATED_STD = 0.01

# The standard deviation of the official code's tables: products of products
# start at nothing with less.
BLOCKS_STD = 0.01

# Decay at most, where none was tuned for graphs of blocks: they have neither
# dropout nor normalisation, and what suits a DeepFM with both (.01 on Frappe)
# holds them back.
BLOCKS_L2 = 1e-3

_PLANTED = {
  'dim': 8,
  'epochs': 20,
  'batch_size': 2000,
  'learning_rate': 1e-2,
  'table_optimizer': 'dense_adam',
  'table_std': 0.1,
  'embedding_l2': 1e-4,
  'first_order_l2': 1e-5,
  'hidden': (64, 64),
  'dropout': 0.0,
  'models': {'lr': {'first_order_l2': None}},
  'search': {
    'autofis': {
      'epochs': 6,
      'ratio': 4.0,
      'learning_rate': 2e-2,
      'embedding_l2': 1e-4,
    },
  },
}

# Data set -> settings; 'models' holds what differs by model. Frappe's are
# those of the BARS logs (d = 10, Adam 1e-3, batch 4096, L2 on whole tables).
PROTOCOLS: dict[str, dict[str, Any]] = {
  **dict.fromkeys(('planted', 'planted_triples'), _PLANTED),
  # Few rows per id: vectors need more decay than gates need to tell pairs
  # apart, so the search has weights' settings of its own.
  'planted_hard': _PLANTED
  | {
    'epochs': 40,
    'search': {
      'autofis': {
        'epochs': 8,
        'ratio': 4.0,
        'learning_rate': 2e-2,
        'embedding_l2': 1e-4,
      },
    },
  },
  # The largest rank that is planted; candidates are young for longer where
  # fields have no effect of their own.
  **dict.fromkeys(
    planted_fields.PRESETS,
    _PLANTED | {'dim': 16, 'search': {'autodim': {'epochs': 50}}},
  ),
  # Two numbers and two fields of four values are few: vectors are narrow.
  **dict.fromkeys(
    planted_numeric.PRESETS, _PLANTED | {'dim': 4, 'batch_size': 1000}
  ),
  'frappe': {
    'dim': 10,
    'epochs': 100,
    'batch_size': 4096,
    'table_optimizer': 'dense_adam',
    'hidden': (400, 400, 400),
    # By validation AUC; a ratio of 4 leaves too few pairs here.
    'search': {
      'autofis': {
        'epochs': 20,
        'ratio': 2.0,
        'learning_rate': 1e-2,
        'embedding_l2': 1e-3,
      },
    },
    'models': {
      'lr': {'embedding_l2': 1e-5},
      'fm': {'embedding_l2': 5e-6},
      # Those that decay all their weights alike.
      'ffm': {'embedding_l2': 1e-6, 'l2': 1e-6},
      'fwfm': {'embedding_l2': 5e-6, 'l2': 5e-6, 'linear': 'felv'},
      'fmfm': {'embedding_l2': 1e-5, 'l2': 1e-5, 'matrices': 'vectorized'},
      'hofm': {'embedding_l2': 1e-6, 'l2': 1e-6, 'shared': False},
      'afm': {'embedding_l2': 1e-5, 'size': 128, 'dropout': 0.1},
      'nfm': {'embedding_l2': 1e-4, 'norm': 'none', 'dropout': 0.4},
      'crossnet': {'embedding_l2': 1e-4, 'layers': 6},
      'crossnet_v2': {'embedding_l2': 1e-3, 'layers': 4},
      'cin': {'embedding_l2': 5e-4, 'sizes': (64, 64, 64)},
      'autoint': {
        'embedding_l2': 0.05,
        'layers': 6,
        'heads': 4,
        'size': 128,
        'scale': False,
        'layer_norm': False,
      },
      'wide_deep': {'embedding_l2': 0.1, 'norm': 'batch', 'dropout': 0.6},
      'deepfm': {'embedding_l2': 0.05, 'norm': 'batch', 'dropout': 0.2},
      'ipnn': {'embedding_l2': 0.05, 'norm': 'none', 'dropout': 0.3},
      'dcn': {
        'embedding_l2': 0.05,
        'layers': 3,
        'norm': 'batch',
        'dropout': 0.2,
      },
      'dcn_v2': {
        'embedding_l2': 0.05,
        'layers': 4,
        'norm': 'batch',
        'dropout': 0.4,
      },
      'xdeepfm': {
        'embedding_l2': 0.1,
        'sizes': (64,),
        'norm': 'batch',
        'dropout': 0.2,
      },
      'autoint_plus': {
        'embedding_l2': 0.1,
        'layers': 5,
        'heads': 4,
        'size': 128,
        'scale': True,
        'layer_norm': True,
        'norm': 'batch',
        'dropout': 0.1,
      },
      'fibinet': {
        'embedding_l2': 0.05,
        'matrices': 'all',
        'reduction': 2.0,
        'norm': 'batch',
        'dropout': 0.3,
      },
      'masknet': {
        'embedding_l2': 0.1,
        'sizes': (50, 50, 50),
        'reduction': 2.0,
        'norm': 'none',
        'dropout': 0.1,
      },
      # Not among those that were published: as with parallel blocks.
      'masknet_serial': {'embedding_l2': 0.1, 'dropout': 0.1},
      'finalmlp': {
        'embedding_l2': 0.05,
        'towers': ((400,), (100,)),
        'gate_hidden': (400,),
        'contexts': (('user',), ('item',)),
        'heads': 5,
        'norm': 'batch',
        'dropouts': (0.4, 0.4),
      },
      'dlrm': {
        'embedding_l2': 0.1,
        'product': 'cat',
        'norm': 'batch',
        'dropout': 0.4,
      },
    },
  },
  'diabetes130': {
    'dim': 10,
    'batch_size': 1024,
    'table_optimizer': 'dense_adam',
    # By validation AUC.
    'search': {
      'autofis': {
        'epochs': 10,
        'ratio': 1.5,
        'learning_rate': 1e-2,
        'embedding_l2': 1e-3,
      },
    },
  },
}
