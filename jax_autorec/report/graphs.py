"""Pictures of graphs of blocks: layers from top to bottom, inline SVG."""

from collections.abc import Hashable, Mapping, Sequence

from jax_autorec.architecture import Architecture
from jax_autorec.interactions import BlockGraph
from jax_autorec.report import plots

_NAMES = {
  'mlp': 'MLP',
  'fm': 'FM',
  'dp': 'dot products',
  'cross': 'cross',
  'attention': 'attention',
  'values': 'numbers',
  'vectors': 'vectors',
}
_MOST_FIELDS = 6  # Named in a box.
_LONGEST = 16  # Characters of a line in a box.
_WIDTH, _ROUTE = 1.5, 0.22  # Of a box, and of a line that passes a layer.
_GAP, _LINE, _LAYER = 0.18, 0.15, 0.55  # Inches.
_SWEEPS = 24

Node = Hashable


def block_graph(architecture: Architecture, name: str) -> str:
  """One graph of an architecture: its fields, blocks and output.

  Every arrow has the colour of where it comes from.

  Args:
    architecture: whose fields it reads.
    name: of the interaction.
  """
  plan = architecture.interaction(name)
  labels, edges = _content(architecture, plan)
  layers = _layers(labels, edges)
  routes = _routes(edges, layers)
  rows, places = _arranged(labels, layers, routes)
  return _drawn(labels, layers, routes, rows, places)


def _content(architecture: Architecture, plan: BlockGraph):
  """Node -> its lines; (from, to) of every edge. The output is 'out'."""
  fields = {
    'values': [field.name for field in architecture.numeric],
    'vectors': [field.name for field in architecture.categorical],
  }
  labels: dict[Node, list[str]] = {}
  for group in plan.groups(architecture.fields):
    names = fields[group]
    shown = [plots.short(one, _LONGEST) for one in names[:_MOST_FIELDS]]
    if len(names) > _MOST_FIELDS:
      shown.append(f'and {len(names) - _MOST_FIELDS} more')
    labels[group] = [f'{_NAMES[group]} of {len(names)} fields', *shown]
  for number, block in enumerate(plan.blocks):
    labels[number] = [f'{number}: {_NAMES[block.type]} {block.width or ""}']
  to_head = plan.to == 'head'
  labels['out'] = ['MLP, then the logit' if to_head else 'linear: the logit']
  edges = [
    (one, number)
    for number, block in enumerate(plan.blocks)
    for one in block.inputs
  ]
  return labels, edges + [
    (end, 'out') for end in plan.ends(architecture.fields)
  ]


def _layers(labels, edges) -> dict[Node, int]:
  """Node -> its layer: below all that it reads."""
  layers: dict[Node, int] = {}
  for node in labels:  # In an order in which edges lead forward.
    above = [layers[one] for one, other in edges if other == node]
    layers[node] = 1 + max(above, default=-1)
  return layers


def _routes(edges, layers) -> list[tuple[Node, Node]]:
  """Edges cut at every layer between; those of one node share their way."""
  routes: list[tuple[Node, Node]] = []
  for one, other in edges:
    last = one
    for layer in range(layers[one] + 1, layers[other]):
      passing = ('route', one, layer)
      routes.append((last, passing))
      last = passing
    routes.append((last, other))
  return list(dict.fromkeys(routes))


def _is_route(node: Node) -> bool:
  return isinstance(node, tuple)


def _arranged(
  labels: Mapping[Node, Sequence[str]],
  layers: Mapping[Node, int],
  routes: Sequence[tuple[Node, Node]],
) -> tuple[list[list[Node]], dict[Node, float]]:
  """Nodes of every layer from left to right, and where their middles are.

  Sugiyama's way: nodes go where the mean of what they are joined to is, layer
  by layer, until few lines cross; then they are moved apart.
  """
  passing = {node for route in routes for node in route if _is_route(node)}
  rows: list[list[Node]] = [[] for _ in range(max(layers.values()) + 1)]
  for node in labels:
    rows[layers[node]].append(node)
  for node in sorted(passing, key=str):
    rows[node[2]].append(node)
  joined: dict[Node, list[Node]] = {}
  for one, other in routes:
    joined.setdefault(one, []).append(other)
    joined.setdefault(other, []).append(one)
  places: dict[Node, float] = {}
  for row in rows:
    _spread(row, {}, places)
  for sweep in range(_SWEEPS):
    for row in rows if sweep % 2 else rows[::-1]:
      wanted = {
        node: sum(places[n] for n in joined[node]) / len(joined[node])
        for node in row
        if node in joined
      }
      row.sort(key=lambda node: wanted.get(node, places[node]))
      _spread(row, wanted, places)
  return rows, places


def _spread(row, wanted, places) -> None:
  """Puts a row where it is wanted, as near as boxes let it."""
  size = lambda node: _ROUTE if _is_route(node) else _WIDTH
  goals = [wanted.get(node, places.get(node, 0.0)) for node in row]
  apart = [
    (size(one) + size(other)) / 2 + _GAP for one, other in zip(row, row[1:])
  ]
  right, left = list(goals), list(goals)
  for i, gap in enumerate(apart):
    right[i + 1] = max(right[i + 1], right[i] + gap)
  for i in range(len(apart) - 1, -1, -1):
    left[i] = min(left[i], left[i + 1] - apart[i])
  places |= {n: (r + l) / 2 for n, r, l in zip(row, right, left)}


def _height(lines) -> float:
  return len(lines) * _LINE + 0.16


def _drawn(labels, layers, routes, rows, places) -> str:
  heights = [
    max(_height(labels[node]) for node in row if not _is_route(node))
    for row in rows
  ]
  tops = [sum(heights[:i]) + _LAYER * i for i in range(len(rows))]
  layer_of = lambda node: node[2] if _is_route(node) else layers[node]
  low = min(places.values()) - _WIDTH / 2 - 0.05
  high = max(places.values()) + _WIDTH / 2 + 0.05
  bottom = tops[-1] + heights[-1] + 0.05
  sources = [node for node in labels if node != 'out']
  colours = {
    node: plots.CYCLE[i % len(plots.CYCLE)] for i, node in enumerate(sources)
  }
  with plots.styled():
    from matplotlib import patches
    from matplotlib.path import Path

    figure, axes = plots.new_figure(high - low, bottom + 0.05)
    axes.set(xlim=(low, high), ylim=(bottom, -0.05), aspect='equal')
    axes.axis('off')
    for one, other in routes:
      source = one[1] if _is_route(one) else one
      # Boxes of a layer end where it ends.
      x, y = places[one], tops[layer_of(one)] + heights[layer_of(one)]
      end, below = places[other], tops[layer_of(other)]
      curve = [(x, y), (x, (y + below) / 2), (end, (y + below) / 2)]
      path = Path([*curve, (end, below)], [1, 4, 4, 4])
      looks = {'edgecolor': colours[source], 'linewidth': 1.2}
      if _is_route(other):
        layer = other[2]
        down = [(end, below), (end, below + heights[layer])]
        for part in (path, Path(down)):
          axes.add_patch(patches.PathPatch(part, fill=False, **looks))
      else:
        arrow = patches.FancyArrowPatch(
          path=path,
          arrowstyle='-|>',
          mutation_scale=8,
          facecolor=colours[source],
          **looks,
        )
        axes.add_patch(arrow)
    for node, lines in labels.items():
      height = _height(lines)
      top = tops[layers[node]] + heights[layers[node]] - height
      box = patches.FancyBboxPatch(
        (places[node] - _WIDTH / 2, top),
        _WIDTH,
        height,
        boxstyle='round,pad=0,rounding_size=0.06',
        facecolor='#ffffff',
        edgecolor=colours.get(node, '#444444'),
        linewidth=1.4,
        zorder=3,
      )
      axes.add_patch(box)
      for i, line in enumerate(lines):
        axes.text(
          places[node],
          top + 0.08 + (i + 0.5) * _LINE,
          line.strip(),
          ha='center',
          va='center',
          fontsize=8.5 if i == 0 else 7,
          weight='bold' if i == 0 else 'normal',
          color='#000000' if i == 0 else '#555555',
          zorder=4,
        )
    return plots.as_svg(figure)
