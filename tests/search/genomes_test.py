"""Genomes and the graphs that they make."""

from absl.testing import absltest, parameterized
import numpy as np

from jax_autorec import interactions
from jax_autorec.interactions import Block
from jax_autorec.search.genomes import (
  Gene,
  Tokens,
  canonical,
  describe,
  draw,
  encode,
  mutate,
)


def _rng(seed=0):
  return np.random.default_rng(seed)


def _relabelled(graph, num_blocks, rng):
  """A genome of the same graph: other order, dead blocks, idle widths."""
  order, left = [], set(range(len(graph)))
  while left:
    ready = [
      n for n in left if not left & {i for i in graph[n].inputs if i != n}
    ]
    order.append(int(rng.choice(ready)))
    left.remove(order[-1])
  positions = rng.choice(num_blocks, len(graph), replace=False)
  place = dict(zip(order, sorted(positions.tolist())))
  genes = []
  for position in range(num_blocks):
    number = {p: n for n, p in place.items()}.get(position)
    width = int(rng.choice((32, 64)))
    if number is None:
      dead = [
        p not in place.values() and p < position for p in range(num_blocks)
      ]
      genes.append(Gene('dp', False, False, tuple(dead), width))
      continue
    block = graph[number]
    read = {place[i] for i in block.inputs if i in place}
    genes.append(
      Gene(
        block.type,
        'values' in block.inputs,
        'vectors' in block.inputs,
        tuple(p in read for p in range(num_blocks)),
        block.width or width,
      )
    )
  return tuple(genes)


class GenomeTest(parameterized.TestCase):
  def test_a_mutation_changes_one_token_and_adds_no_forward_edge(self):
    tokens, rng = Tokens(types=interactions.BLOCKS), _rng()
    changed = []
    for _ in range(300):
      genome = draw(tokens, rng)
      mutant = mutate(genome, tokens, rng)
      differing = [
        (number, token)
        for number, (one, other) in enumerate(zip(genome, mutant))
        for token, x, y in zip(Gene._fields, one, other)
        if x != y
      ]
      self.assertLen(differing, 1)
      changed += differing
      for number, gene in enumerate(mutant):
        self.assertFalse(any(gene.skips[number:]))
    # Every token of every block is within reach, but the first one's skips.
    self.assertLen(set(changed), 5 * tokens.num_blocks - 1)

  def test_fields_of_one_kind(self):
    tokens, rng = Tokens(groups=('vectors',)), _rng()
    for _ in range(50):
      genome = mutate(draw(tokens, rng), tokens, rng)
      self.assertFalse(any(gene.values for gene in genome))

  @parameterized.parameters(range(6))
  def test_canonical_forms_do_not_see_names(self, seed):
    rng = _rng(seed)
    tokens = Tokens(num_blocks=5, types=('mlp', 'dp'), widths=(32, 64))
    for _ in range(10):
      graph = canonical(draw(tokens, rng))
      interactions.BlockGraph(graph)  # Reads go backwards.
      other = _relabelled(graph, 8, rng)
      self.assertEqual(canonical(other), graph)

  def test_disjoint_chains_and_twins(self):
    rng = _rng()
    chain = (Block('mlp', ['vectors'], 32), Block('fm', [0]))
    chains = (*chain, Block('mlp', ['vectors'], 32), Block('fm', [2]))
    shared = (*chain, Block('mlp', ['vectors'], 32), Block('fm', [0]))
    found = []
    for graph in (chains, shared):
      forms = {canonical(_relabelled(graph, 7, rng)) for _ in range(20)}
      self.assertLen(forms, 1)
      found += forms
    self.assertNotEqual(*found)

  def test_dead_blocks_and_idle_widths(self):
    no = (False,) * 3
    genome = (
      Gene('dp', False, False, no, 32),
      Gene('fm', False, False, (True, False, False), 32),
      Gene('fm', False, True, (True, True, False), 64),
    )
    self.assertEqual(canonical(genome), (Block('fm', ['vectors']),))
    self.assertEqual(canonical(genome[:2]), ())

  def test_encoding(self):
    tokens = Tokens(num_blocks=2)
    rows = [encode(draw(tokens, _rng(seed)), tokens) for seed in range(20)]
    self.assertEqual(rows[0].shape, (2 * (3 + 2 + 2 + 1),))
    genome = (
      Gene('fm', True, False, (False, False), 128),
      Gene('dp', False, True, (True, False), 32),
    )
    np.testing.assert_array_equal(
      encode(genome, tokens),
      [0, 1, 0, 1, 0, 0, 0, 2, 0, 0, 1, 0, 1, 1, 0, 0],
    )

  def test_description(self):
    graph = (
      Block('fm', ['values', 'vectors']),
      Block('mlp', ['vectors', 0], 8),
    )
    self.assertEqual(
      describe(graph), '0 fm(values, vectors); 1 mlp8(vectors, 0)'
    )


if __name__ == '__main__':
  absltest.main()
