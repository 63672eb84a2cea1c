"""Installs jax_autorec; this file is the one list of requirements."""

import pathlib

import setuptools

README = pathlib.Path(__file__).with_name('README.md')

setuptools.setup(
  name='jax_autorec',
  version='0.1.0',
  description=(
    'AutoML for deep recommender systems (click-through-rate models) in '
    'JAX and Flax.'
  ),
  long_description=README.read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=setuptools.find_packages(include=['jax_autorec', 'jax_autorec.*']),
  package_data={'jax_autorec': ['*.md', 'data/*.md', 'report/*.html']},
  install_requires=[
    'absl-py>=2.1',
    'chex>=0.1.90',
    'flax>=0.12',
    'jax>=0.10,<0.13',
    'jinja2>=3.1',
    'matplotlib>=3.8',
    'ml_collections>=1.0',
    'numpy>=2.0',
    'optax>=0.2.5',
    'orbax-checkpoint>=0.11.30',
    'pyarrow>=17',
    'scipy>=1.13',
    'tensorflow-datasets>=4.9.8',
    'tqdm>=4.66',
  ],
  extras_require={
    'test': [
      'pytest>=8',
      'pytest-xdist>=3.6',
      'ruff>=0.9',
      'scikit-learn>=1.5',
      'lightgbm>=4.3',
      'pandas>=2.2',
    ],
    'tpu': ['jax[tpu]'],
    'cuda': ['jax[cuda13]'],
    'export': ['flatbuffers>=24'],
    'logging': ['tensorboardX>=2.6'],
    'trees': ['lightgbm>=4.3'],
  },
)
