"""What differs between two configs."""

from typing import Any


def between(
  old: dict[str, Any],
  new: dict[str, Any],
  fresh: dict[str, Any] | None = None,
) -> str:
  """What differs between two resolved configs, for a message; '' for nothing.

  A key that one of them lacks counts as None, and one that the old one lacks as
  `fresh` has it: what a config has come to offer since changes no run.

  Args:
    old: as config.json holds it.
    new: the same.
    fresh: the config with nothing set; None where it is not at hand.
  """
  old, new, fresh = _flat(old), _flat(new), _flat(fresh or {})
  changed = sorted(
    k
    for k in {*old, *new}
    if old.get(k) != new.get(k)
    and (k in old or k not in fresh or fresh[k] != new.get(k) or _is_tuned(k))
  )
  shown = [f'{k} is {old.get(k)!r}, now {new.get(k)!r}' for k in changed[:5]]
  shown += [f'{len(changed) - 5} more'] if len(changed) > 5 else []
  return '; '.join(shown)


def _is_tuned(key: str) -> bool:
  """Whether a key is there only once values were tuned."""
  return key.startswith('uniform_tuned.')


def _flat(values: Any, prefix: str = '') -> dict[str, Any]:
  """{'train': {'epochs': 2}} -> {'train.epochs': 2}."""
  if not isinstance(values, dict):
    return {prefix[:-1]: values}
  items = [_flat(v, f'{prefix}{key}.') for key, v in values.items()]
  return {key: value for item in items for key, value in item.items()}
