"""Pictures of a run, as inline SVG. matplotlib is imported where it is used."""

from collections.abc import Mapping, Sequence
import io
from typing import Any

# Okabe and Ito's palette: told apart by colour-blind readers.
BLUE, ORANGE, GREEN, GREY, RED = (
  '#0072B2',
  '#E69F00',
  '#009E73',
  '#9A9A9A',
  '#D55E00',
)
_CYCLE = (BLUE, ORANGE, GREEN, RED, '#CC79A7', '#56B4E9', '#000000')
_MANY = 100  # Lines above this number are drawn as pixels.


def _figure(width: float, height: float):
  from matplotlib.figure import Figure  # Without pyplot: no global state.

  figure = Figure(figsize=(width, height), layout='constrained')
  axes = figure.add_subplot()
  axes.spines[['top', 'right']].set_visible(False)
  return figure, axes


def _svg(figure) -> str:
  import matplotlib

  out = io.StringIO()
  with matplotlib.rc_context({'svg.fonttype': 'path', 'font.size': 9}):
    figure.savefig(out, format='svg', dpi=120, metadata={'Date': None})
  text = out.getvalue()
  return text[text.index('<svg') :]


def gates_over_time(
  steps: Sequence[int],
  gates: Sequence[Sequence[float]],
  planted: Sequence[bool] | None,
) -> str:
  """One line per gate; planted ones, or else the kept ones, stand out.

  Args:
    steps: [S] steps.
    gates: [S][P] values.
    planted: [P], where the truth is known.
  """
  figure, axes = _figure(6.4, 3.4)
  marked = planted or [value != 0 for value in gates[-1]]
  labels = ('planted', 'not planted') if planted else ('kept', 'pruned')
  raster = len(marked) > _MANY
  for wanted, colour, label, order in (
    (False, GREY, labels[1], 1),
    (True, BLUE, labels[0], 2),
  ):
    places = [i for i, m in enumerate(marked) if bool(m) is wanted]
    for place in places:
      axes.plot(
        steps,
        [row[place] for row in gates],
        color=colour,
        linewidth=1.4 if wanted else 0.8,
        alpha=0.8,
        zorder=order,
        rasterized=raster,
        label=f'{label} ({len(places)})' if place == places[0] else None,
      )
  axes.axhline(0, color='black', linewidth=0.6)
  axes.set_xlabel('search step')
  axes.set_ylabel('gate')
  axes.legend(frameon=False)
  return _svg(figure)


def pair_map(
  fields: Sequence[str],
  values: Mapping[tuple[str, str], float],
  planted: Sequence[tuple[str, str]],
) -> str:
  """Heat map of the field pairs: size of the gates; planted pairs outlined.

  Args:
    fields: names, in order.
    values: pair -> final gate; pruned pairs are 0.
    planted: pairs of the truth, if known.
  """
  import numpy as np

  place = {name: i for i, name in enumerate(fields)}
  grid = np.full((len(fields), len(fields)), np.nan)
  for (left, right), value in values.items():
    grid[place[right], place[left]] = abs(value)
  side = min(2.2 + 0.32 * len(fields), 9)
  figure, axes = _figure(side + 0.8, side)
  image = axes.imshow(grid, cmap='Blues', vmin=0)
  for left, right in planted:
    if left in place and right in place:
      centre = place[left] - 0.5, place[right] - 0.5
      axes.add_patch(_square(centre))
  size = 8 if len(fields) <= 20 else 5
  axes.set_xticks(range(len(fields)), fields, rotation=90, fontsize=size)
  axes.set_yticks(range(len(fields)), fields, fontsize=size)
  figure.colorbar(image, ax=axes, label='|gate|, 0 is pruned', shrink=0.8)
  return _svg(figure)


def _square(corner):
  from matplotlib import patches

  return patches.Rectangle(
    corner, 1, 1, fill=False, edgecolor=RED, linewidth=1.6
  )


def curves(
  series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
  label: str,
  line: tuple[str, float] | None = None,
) -> str:
  """Learning curves: name -> (epochs, values); `line` is a level to reach."""
  figure, axes = _figure(6.4, 3.4)
  for (name, (x, y)), colour in zip(series.items(), _CYCLE * 9):
    axes.plot(x, y, color=colour, label=name, marker='.', linewidth=1.4)
  if line is not None:
    axes.axhline(line[1], color='black', linestyle='--', linewidth=0.9)
    axes.annotate(
      line[0],
      (0.01, line[1]),
      xycoords=('axes fraction', 'data'),
      va='bottom',
      fontsize=8,
    )
  axes.set_xlabel('epoch')
  axes.set_ylabel(label)
  axes.legend(frameon=False, fontsize=8)
  return _svg(figure)


def bars(names: Sequence[str], numbers: Sequence[float], label: str) -> str:
  """Horizontal bars, the largest on top; the 40 largest of more."""
  order = sorted(range(len(names)), key=lambda i: numbers[i])[-40:]
  figure, axes = _figure(6.4, 0.9 + 0.2 * len(order))
  axes.barh([names[i] for i in order], [numbers[i] for i in order], color=BLUE)
  axes.set_xlabel(label)
  axes.tick_params(axis='y', labelsize=8)
  return _svg(figure)


def series_by_stage(
  metrics: Sequence[Mapping[str, Any]], name: str
) -> dict[str, tuple[list[float], list[float]]]:
  """Stage -> epochs and values of one metric, out of metrics.jsonl's lines."""
  found: dict[str, tuple[list[float], list[float]]] = {}
  for line in metrics:
    if name in line and line.get('epoch') is not None:
      x, y = found.setdefault(line['stage'], ([], []))
      x.append(line['epoch'])
      y.append(line[name])
  return found
