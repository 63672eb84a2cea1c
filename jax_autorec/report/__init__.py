"""report.html from the plain files of a workdir."""

from jax_autorec.report.html import render, write

__all__ = ['render', 'write']
