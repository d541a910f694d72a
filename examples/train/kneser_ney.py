"""An interpolated modified Kneser-Ney trigram (Chen and Goodman 1999) over token ids: the baseline.

Owns: counts, discounts and probabilities. Continuation counts at the lower orders, three discounts an order, uniform
below the unigrams.
"""

import torch


class Order:
    """One order: counts of n-grams by packed key, their contexts' totals and back-off weights."""

    def __init__(self, keys, counts, vocabulary):
        self.keys, self.counts = keys, counts
        n = [max((counts == i).sum().item(), 1) for i in (1, 2, 3, 4)]
        y = n[0] / (n[0] + 2 * n[1])
        self.discounts = torch.tensor([0.0] + [i + 1 - (i + 2) * y * n[i + 1] / n[i] for i in range(3)]).double()
        self.discounts.clamp_(min=0.0)
        taken = self.discounts[counts.clamp(max=3)]
        self.contexts, where = torch.unique(keys // vocabulary, return_inverse=True)
        self.totals = torch.zeros(len(self.contexts)).double().index_add_(0, where, counts.double())
        self.taken = torch.zeros(len(self.contexts)).double().index_add_(0, where, taken)

    def mix(self, keys, vocabulary, lower):
        """Probability of n-grams given the lower order's. A context never seen leaves it all to the lower order."""
        counts = look_up(self.keys, self.counts, keys)
        context = keys // vocabulary
        total = look_up(self.contexts, self.totals, context)
        taken = look_up(self.contexts, self.taken, context)
        own = (counts - self.discounts[counts.clamp(max=3)]).clamp(min=0)
        seen = total > 0
        total = torch.where(seen, total, 1.0)
        return torch.where(seen, own / total + taken / total * lower, lower)


def look_up(keys, values, wanted):
    """values[i] where keys[i] is the wanted key, else zero. Keys are sorted."""
    at = torch.searchsorted(keys, wanted.contiguous()).clamp(max=len(keys) - 1)
    return torch.where(keys[at] == wanted, values[at], 0)


class Trigram:
    def __init__(self, stream, vocabulary):
        self.vocabulary = v = vocabulary
        tri, tri_counts = torch.unique((stream[:-2] * v + stream[1:-1]) * v + stream[2:], return_counts=True)
        # A lower order counts in how many ways it continues, not how often it occurs.
        bi, bi_counts = torch.unique(tri % (v * v), return_counts=True)
        uni, uni_counts = torch.unique(bi % v, return_counts=True)
        self.orders = [Order(uni, uni_counts, v), Order(bi, bi_counts, v), Order(tri, tri_counts, v)]

    def probabilities(self, a, b, c):
        """P(c | a b) of token ids, f64."""
        v = self.vocabulary
        p = torch.full(c.shape, 1.0 / v, dtype=torch.float64)
        for order, key in zip(self.orders, (c, b * v + c, (a * v + b) * v + c)):
            p = order.mix(key, v, p)
        return p

    def nll(self, stream):
        """Negative log likelihood in nats of tokens 2.. of a stream [n] -> [n - 2]."""
        return -self.probabilities(stream[:-2], stream[1:-1], stream[2:]).log()
