"""Pictures of a run, as inline SVG. matplotlib is imported where it is used."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import io
import re
from typing import Any
import warnings

from jax_autorec.architecture import SIZE_NAMES

# Okabe and Ito's palette: told apart by colour-blind readers.
BLUE, ORANGE, GREEN, GREY, RED = (
  '#0072B2',
  '#E69F00',
  '#009E73',
  '#9A9A9A',
  '#D55E00',
)
CYCLE = (BLUE, ORANGE, GREEN, RED, '#CC79A7', '#56B4E9', '#000000')
_MANY = 100  # Lines above this number are drawn as pixels.
_LONGEST = 28  # Characters of a name that fit beside a picture.


@contextlib.contextmanager
def styled() -> Iterator[None]:
  """How all pictures are drawn.

  Names of fields are a person's: no mathematics in them, and letters that
  matplotlib's font lacks are the browser's to show.
  """
  import matplotlib

  settings = {
    'font.size': 9,
    'svg.fonttype': 'none',
    'svg.hashsalt': 'jax_autorec',  # The same picture has the same bytes.
    'text.parse_math': False,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.edgecolor': '#666666',
    'axes.grid': True,
    'axes.grid.axis': 'y',
    'axes.axisbelow': True,
    'grid.color': '#e6e6e6',
    'grid.linewidth': 0.6,
    'legend.frameon': False,
    'legend.fontsize': 8,
  }
  with matplotlib.rc_context(settings), warnings.catch_warnings():
    warnings.filterwarnings('ignore', 'Glyph .* missing from')
    yield


def new_figure(width: float, height: float):
  """A figure of so many inches, and its axes."""
  from matplotlib.figure import Figure  # Without pyplot: no global state.

  figure = Figure(figsize=(width, height), layout='constrained')
  return figure, figure.add_subplot()


def as_svg(figure) -> str:
  """The picture, to be put into a page."""
  out = io.StringIO()
  figure.savefig(out, format='svg', dpi=200)
  text = out.getvalue()
  # The metadata say who drew it and when, with addresses of vocabularies.
  return re.sub(
    r'\s*<metadata>.*?</metadata>', '', text[text.index('<svg') :], flags=re.S
  )


def short(name: str, longest: int = _LONGEST) -> str:
  """A name at the length that fits; its ends tell more than its middle."""
  if len(name) <= longest:
    return name
  half = longest // 2 - 1
  return f'{name[:half]}…{name[-half:]}'


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
  marked = planted or [value != 0 for value in gates[-1]]
  labels = ('planted', 'not planted') if planted else ('kept', 'pruned')
  raster = len(marked) > _MANY
  with styled():
    figure, axes = new_figure(5.2, 3.6)
    for wanted, colour, label, order in (
      (True, BLUE, labels[0], 3),
      (False, ORANGE if planted else GREY, labels[1], 2),
    ):
      places = [i for i, m in enumerate(marked) if bool(m) is wanted]
      for place in places:
        axes.plot(
          steps,
          [row[place] for row in gates],
          color=colour,
          linewidth=1.4 if wanted else 0.9,
          alpha=0.8,
          zorder=order,
          rasterized=raster,
          label=f'{label} ({len(places)})' if place == places[0] else None,
        )
    axes.axhline(0, color='black', linewidth=0.6)
    axes.set_xlabel('search step')
    axes.set_ylabel('gate')
    axes.legend(loc='lower left', bbox_to_anchor=(0, 1), ncols=2)
    return as_svg(figure)


def lines(
  steps: Sequence[int], values: Sequence[Sequence[float]], label: str
) -> str:
  """One line per value over the steps of a search.

  Args:
    steps: [S] steps.
    values: [S][N].
    label: what they are.
  """
  raster = len(values[0]) > _MANY
  with styled():
    figure, axes = new_figure(5.2, 3.6)
    for line in zip(*values):
      axes.plot(
        steps, line, color=BLUE, linewidth=0.9, alpha=0.6, rasterized=raster
      )
    axes.set_xlabel('search step')
    axes.set_ylabel(label)
    return as_svg(figure)


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
  from matplotlib import patches
  import numpy as np

  place = {name: i for i, name in enumerate(fields)}
  grid = np.full((len(fields), len(fields)), np.nan)
  pruned = []
  for (left, right), value in values.items():
    if value:
      grid[place[right], place[left]] = abs(value)
    else:
      pruned.append((place[left], place[right]))
  many = len(fields) > 20
  names = [short(name) for name in fields]
  # Room for the names beside the map; cells shrink where there are many.
  margin = 0.5 + 0.065 * max(map(len, names))
  side = len(fields) * (0.19 if many else 0.3)
  size = 6.5 if many else 8
  with styled():
    figure, axes = new_figure(side + margin + 1.1, side + margin)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    image = axes.imshow(grid, cmap='viridis_r', vmin=0)
    for x, y in pruned:
      cell = (x - 0.5, y - 0.5)
      axes.add_patch(patches.Rectangle(cell, 1, 1, facecolor='#eeeeee', lw=0))
    for left, right in planted:
      if left in place and right in place:
        corner = place[left] - 0.5, place[right] - 0.5
        axes.add_patch(
          patches.Rectangle(corner, 1, 1, fill=False, edgecolor=RED, lw=1.6)
        )
    axes.set_xticks(range(len(fields)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(fields)), names, fontsize=size)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=30)
    bar.set_label('|gate|; grey: pruned')
    bar.outline.set_visible(False)
    return as_svg(figure)


def candidate_map(
  fields: Sequence[str],
  candidates: Sequence[int],
  weights: Sequence[Sequence[float]],
) -> str:
  """Heat map of what a search thinks of the candidate widths of every field.

  Args:
    fields: F names, from top to bottom.
    candidates: N widths.
    weights: [F][N], each row of sum 1; the heaviest is marked.
  """
  names = [short(name) for name in fields]
  margin = 0.5 + 0.065 * max(map(len, names))
  many = len(fields) > 30
  with styled():
    figure, axes = new_figure(
      0.55 * len(candidates) + margin + 1.1,
      0.8 + (0.16 if many else 0.24) * len(fields),
    )
    axes.grid(False)
    axes.spines[:].set_visible(False)
    image = axes.imshow(weights, cmap='viridis_r', vmin=0, aspect='auto')
    heaviest = [max(range(len(row)), key=row.__getitem__) for row in weights]
    axes.scatter(
      heaviest, range(len(fields)), marker='o', s=14, color=RED, zorder=3
    )
    axes.set_xticks(range(len(candidates)), candidates)
    axes.set_yticks(range(len(fields)), names, fontsize=6.5 if many else 8)
    axes.set_xlabel('candidate width')
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=30)
    bar.set_label('weight at the end of the search')
    bar.outline.set_visible(False)
    return as_svg(figure)


def curves(
  series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
  label: str,
  x_label: str = 'epoch',
) -> str:
  """Learning curves: name -> (epochs, values); the first stands out."""
  from matplotlib import ticker

  with styled():
    figure, axes = new_figure(5.2, 3.6)
    for (name, (x, y)), colour in zip(series.items(), CYCLE * len(series)):
      first = name == next(iter(series))
      axes.plot(
        x,
        y,
        color=colour,
        label=short(name),
        marker='.',
        linewidth=2.2 if first else 1.2,
        zorder=3 if first else 2,
      )
    axes.set_xlabel(x_label)
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.legend(loc='lower left', bbox_to_anchor=(0, 1), ncols=3)
    return as_svg(figure)


def by_frequency(
  first: Sequence[int], series: Mapping[str, Sequence[float]], label: str
) -> str:
  """Values by octave of frequency, on a scale of octaves; the first stands out.

  Args:
    first: where the octaves begin, each a power of two; or 0.
    series: name -> a value per octave, NaN where there is none.
    label: of the values.
  """
  places = [value or 0.5 for value in first]
  with styled():
    figure, axes = new_figure(5.2, 3.6)
    for (name, values), colour in zip(series.items(), CYCLE * len(series)):
      leads = name == next(iter(series))
      axes.plot(
        places,
        values,
        color=colour,
        label=short(name),
        marker='o' if leads else '.',
        linewidth=2.2 if leads else 1.2,
        zorder=3 if leads else 2,
      )
    axes.set_xscale('log', base=2)
    axes.set_xticks(places, [f'{v}+' if v else '0' for v in first])
    axes.minorticks_off()
    axes.set_xlabel('frequency')
    axes.set_ylabel(label)
    if len(series) > 1:
      axes.legend(loc='lower left', bbox_to_anchor=(0, 1), ncols=3)
    return as_svg(figure)


def bars(
  names: Sequence[str],
  numbers: Sequence[float],
  label: str,
  marked: Sequence[bool] | None = None,
  most: int = 40,
) -> str:
  """Horizontal bars, the largest on top; the `most` largest of more.

  Args:
    names: [N].
    numbers: [N].
    label: of the axis.
    marked: [N]: those in blue, the others in orange; all blue if None.
    most: bars at most.
  """
  order = sorted(range(len(names)), key=lambda i: numbers[i])[-most:]
  colours = [BLUE if not marked or marked[i] else ORANGE for i in order]
  with styled():
    figure, axes = new_figure(5.2, 0.7 + 0.19 * len(order))
    axes.grid(axis='x')
    axes.grid(False, axis='y')
    # By place, not by name: two shortened names can be alike.
    axes.barh(range(len(order)), [numbers[i] for i in order], color=colours)
    axes.set_yticks(range(len(order)), [short(names[i], 48) for i in order])
    axes.set_xlabel(label)
    axes.tick_params(axis='y', labelsize=8, length=0)
    axes.margins(y=0.02)
    return as_svg(figure)


def levels(
  names: Sequence[str],
  numbers: Sequence[float],
  label: str,
  best: float | None,
) -> str:
  """One dot per model, the first one marked; `best` is what can be reached."""
  with styled():
    figure, axes = new_figure(5.2, 0.8 + 0.28 * len(names))
    axes.grid(axis='both')
    places = range(len(names))
    axes.scatter(
      numbers, places, s=42, color=[BLUE] + [GREY] * (len(names) - 1), zorder=3
    )
    if best is not None:
      axes.axvline(best, color='black', linestyle='--', linewidth=0.9)
      axes.annotate(
        'best possible',
        (best, 1),
        (0, 3),
        xycoords=('data', 'axes fraction'),
        textcoords='offset points',
        ha='center',
        fontsize=8,
      )
    axes.set_yticks(places, [short(name) for name in names])
    axes.invert_yaxis()
    axes.margins(y=0.15)
    axes.tick_params(axis='y', length=0)
    axes.set_xlabel(label)
    return as_svg(figure)


def scores_by_trial(
  trials: Sequence[int],
  scores: Sequence[float],
  spreads: Sequence[float],
  label: str,
) -> str:
  """Scores of a search, that are to be low, in order; and the best so far.

  Those far above most are left out of the range, not of the best.

  Args:
    trials: [T] numbers.
    scores: [T].
    spreads: [T], drawn to both sides.
    label: what scores are.
  """
  best = [min(scores[: i + 1]) for i in range(len(scores))]
  low, high = min(scores), sorted(scores)[int(0.9 * (len(scores) - 1))]
  margin = max(0.1 * (high - low), 2 * min(spreads), 1e-6)
  with styled():
    figure, axes = new_figure(5.2, 3.6)
    axes.errorbar(
      trials,
      scores,
      yerr=spreads,
      fmt='o',
      markersize=3,
      color=GREY,
      elinewidth=0.7,
      label='a trial, and its standard error',
    )
    axes.step(
      trials, best, where='post', color=BLUE, linewidth=1.4, label='best so far'
    )
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlabel('trial')
    axes.set_ylabel(label)
    axes.legend(loc='lower left', bbox_to_anchor=(0, 1), ncols=2)
    return as_svg(figure)


def scores_by_size(
  points: Sequence[Mapping[str, Any]],
  front: Sequence[int],
  label: str,
  *,
  kinds: tuple[str, str] = ('methods', 'controls'),
  size_label: str = SIZE_NAMES['vectors_total'],
) -> str:
  """Score against size, on a log scale, with the Pareto front as a line.

  Args:
    points: each with 'name', 'size' (above 0), 'score', 'spread' (half the bar,
      0 for none) and 'marked' (in blue, and named in bold).
    front: places of the points that no other beats, by rising size; may be
      empty.
    label: of the score.
    kinds: what the marked points are, and the others.
    size_label: of the axis of sizes.
  """
  from matplotlib import ticker

  with styled():
    figure, axes = new_figure(7.6, 4.4)
    axes.grid(axis='both')
    axes.set_xscale('log')
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda size, _: _thousands(size))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    line = [points[i] for i in front]
    axes.plot(
      [p['size'] for p in line],
      [p['score'] for p in line],
      color='#444444',
      linewidth=0.9,
      linestyle='--',
      drawstyle='steps-post',
      label='Pareto front' if line else None,
      zorder=1,
    )
    for marked, colour in ((True, BLUE), (False, ORANGE)):
      chosen = [p for p in points if bool(p['marked']) is marked]
      if not chosen:
        continue
      axes.errorbar(
        [p['size'] for p in chosen],
        [p['score'] for p in chosen],
        yerr=[p['spread'] for p in chosen],
        fmt='o' if marked else 's',
        markersize=5,
        color=colour,
        elinewidth=0.8,
        capsize=2,
        label=kinds[0] if marked else kinds[1],
        zorder=3 if marked else 2,
      )
    axes.margins(x=0.12, y=0.12)
    axes.set_xlabel(f'{size_label} (log scale)')
    axes.set_ylabel(label)
    axes.legend(loc='lower left', bbox_to_anchor=(0, 1), ncols=3)
    figure.draw_without_rendering()  # Settles where points are.
    _name_points(axes, points)
    return as_svg(figure)


def _thousands(number: float) -> str:
  """12000 -> '12k'; the powers of a logarithmic scale want mathematics."""
  for unit, name in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if number >= unit:
      return f'{number / unit:g}{name}'
  return f'{number:g}'


def _name_points(axes, points) -> None:
  """Names beside points, each where it covers the least of what is there."""
  places = axes.transData.transform([(p['size'], p['score']) for p in points])
  scale = axes.figure.dpi / 72
  half = 4 * scale  # Of a point's mark.
  taken = [(x - half, y - half, x + half, y + half) for x, y in places]
  frame = axes.get_window_extent()
  for point, (x, y) in zip(points, places):
    name = short(point['name'])
    width, height = 4.6 * len(name) * scale, 9 * scale
    # Around the point, near where there is room: (x, y) of the box's centre.
    sides = [
      (dx * (r + width / 2 / scale) * scale, dy * (r * scale + height / 2), r)
      for r in (7, 16, 28)
      for dx in (1, -1, 0)
      for dy in (0, 1, -1)
      if dx or dy
    ]
    best, least = None, None
    for dx, dy, distance in sides:
      left, low = x + dx - width / 2, y + dy - height / 2
      box = (left, low, left + width, low + height)
      cost = distance * scale + sum(_overlap(box, other) for other in taken)
      inside = _overlap(box, (frame.x0, frame.y0, frame.x1, frame.y1))
      cost += width * height - inside
      if least is None or cost < least:
        best, least = box, cost
    taken.append(best)
    axes.annotate(
      name,
      (point['size'], point['score']),
      ((best[0] - x) / scale, ((best[1] + best[3]) / 2 - y) / scale),
      textcoords='offset points',
      fontsize=8,
      va='center',
      bbox={'facecolor': 'white', 'edgecolor': 'none', 'alpha': 0.8, 'pad': 0},
      fontweight='bold' if point['marked'] else 'normal',
    )


def _overlap(first, second) -> float:
  """Area that two boxes (left, low, right, high) share."""
  width = min(first[2], second[2]) - max(first[0], second[0])
  height = min(first[3], second[3]) - max(first[1], second[1])
  return max(width, 0) * max(height, 0)


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


def along_values(
  values: Sequence[float],
  similarity: Sequence[Sequence[float]],
  quantiles: Sequence[float],
  weights: Sequence[Sequence[float]] | None = None,
) -> str:
  """What a numeric field's vectors are like along the axis of its values.

  On the left the cosine of the vectors of every two values; on the right, where
  there are any, the weights of the soft buckets. Marks on the axes are
  quantiles of the train split: between two of them lie as many rows.

  Args:
    values: [G], rising and even.
    similarity: [G][G], -1 to 1.
    quantiles: [Q], of the train split.
    weights: [G][H], each row of sum 1.
  """
  import matplotlib
  from matplotlib import ticker
  from matplotlib.figure import Figure
  import numpy as np

  low, high = values[0], values[-1]
  shown = [q for q in quantiles if low <= q <= high]
  with styled():
    figure = Figure(
      figsize=(8.4 if weights else 4.6, 3.7), layout='constrained'
    )
    panels = figure.subplots(1, 2 if weights else 1, squeeze=False)[0]
    axes = panels[0]
    axes.grid(False)
    image = axes.imshow(
      similarity,
      origin='lower',
      extent=(low, high, low, high),
      cmap='RdBu_r',
      vmin=-1,
      vmax=1,
      aspect='auto',
    )
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30)
    bar.set_label('cosine of the vectors')
    bar.outline.set_visible(False)
    axes.set_xlabel('value, as the model reads it')
    axes.set_ylabel('value')
    # Within the frame, so that they are not taken for ticks.
    rug = dict(color='black', linewidth=0.9, clip_on=False, zorder=4)
    for q in shown:
      axes.plot([q, q], [1, 1.03], transform=axes.get_xaxis_transform(), **rug)
      axes.plot([1, 1.03], [q, q], transform=axes.get_yaxis_transform(), **rug)
    if weights:
      axes = panels[1]
      lines_of = np.asarray(weights).T
      colours = matplotlib.colormaps['viridis'](
        np.linspace(0, 0.92, len(lines_of))
      )
      for line, colour in zip(lines_of, colours):
        axes.plot(values, line, color=colour, linewidth=1.3)
      for q in shown:
        axes.plot(
          [q, q], [1, 1.03], transform=axes.get_xaxis_transform(), **rug
        )
      axes.set_xlim(low, high)
      axes.set_ylim(0, 1)
      axes.set_xlabel('value, as the model reads it')
      axes.set_ylabel('weight of a soft bucket')
    for axes in panels:
      axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
    return as_svg(figure)
