"""Settings shared by the configs of embedding methods."""

from ml_collections import config_dict

from experiments.configs import defaults

# The candidates of AutoDim's published tables.
DIMS = (2, 8, 16, 24, 32)


def config(argument: str | None, method: str) -> config_dict.ConfigDict:
  """What every embedding method has; of `model_options`, dim does not count."""
  result = defaults.config(argument, method)
  result.search = config_dict.ConfigDict(
    {'dims': (2, 4, 8) if result.tiny else DIMS}
  )
  return result


def budgeted(config: config_dict.ConfigDict) -> None:
  """Adds a budget of all that vectors need (`ep_total`), by default none."""
  # In float32 entries, or in bytes.
  config.search.max_params = config_dict.placeholder(int)
  config.search.max_bytes = config_dict.placeholder(int)
