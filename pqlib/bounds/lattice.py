r"""Integer least squares in a box: what is shared by a chunk, one channel, and its search.

The problem is min (sigma z - w)' P (sigma z - w) over whole z, l <= z <= u.

**The shift.** With t = w / sigma, f(z) = (z - t)' P (z - t), any x and v = P (x - t),

    f(z) = f(x) + (z - x)' P (z - x) + 2 v' (z - x).

At the minimizer x of f over the box (a box-QP) the last term is never negative for z in the box:
2 v_i is 0 where x_i is inside, >= 0 at l and <= 0 at u, the multipliers of Karush, Kuhn and Tucker.
So f(x) bounds f from below, and a z with f(z) <= theta lies in the ellipsoid
(z - x)' P (z - x) <= theta - f(x), far smaller than that round t where the box binds.

**Two trees** enumerate it (Fincke and Pohst 1985; Schnorr and Euchner 1994; Agrell et al. 2002):
*reduced*, z = U y in an LLL basis U, where the tree is slim, the box tested at the leaves; and
*plain*, in the order of V-BLAST (Wolniansky et al. 1998: the coordinate of least conditional
variance first), which knows the box and the multipliers at every level and looks ahead: with c_i
and C_ii the conditional means and variances of the coordinates not yet fixed and d_i the distance
of c_i from the whole numbers of the box, at least max d_i^2 / C_ii is still to come, and at least
sum D_i d_i^2 for any D with P - diag(D) positive semidefinite (without which 2^n ties of P = I
would all be visited). They take turns under node budgets and share the best vector found.

**Ridge.** Where P is singular or nearly so, the trees are built for P + epsilon D, D = diag P. That
form exceeds the true one by epsilon sum D_i (z_i - x_i)^2, within the box at most epsilon times a
number B, so that searching up to theta - f(x) + epsilon B misses nothing, and leaves are measured
with P itself. A search that takes long gets a third tree, reduced with a ridge so large that
epsilon B is a quarter of the radius: where P is nearly singular it cuts the ellipsoid to about the
size of the box. Inputs that are always 0 are left out; inputs whose rows of P are equal matter only
by their sum, and become one whole number with the box [m l, m u].

**Rounding.** A tree's form differs from the exact one by the error of its Cholesky factor, at most
gamma \|R\|' \|R\| by entry (Higham 2002, theorem 10.3, gamma = (n + 4) 2^-52), and by that of its
sums, in norm at most gamma \|\| \|R\| \|y - s\| \|\|. Both are at most gamma nu^2 and gamma nu
times the form, nu = \|\| \|R\| \|R^-1\| \|\|, or as much as the box allows, whichever is less;
twice that is added to the radius. Gradients, U' P U, the centre U^-1 x and the errors at leaves are
summed as if in twice the precision. So no z in the box with an error below upper (1 - TOLERANCE) is
missed.
"""

import time

import numpy as np

from pqlib import accurate
from pqlib.bounds import lattice_kernels as kernels
from pqlib.bounds import tree_kernels
from pqlib.bounds.chunk import NO_LOOKS, reduced_trees

TOLERANCE = 9e-11  # of the error; what is left to 1e-10 is for rounding
_EPS = 2.0**-52
_NARROW, _WIDE = 8, 32  # beams: vectors kept per level
_FIRST_NODES, _MOST_NODES = 1_000, 500_000  # of one turn
_PATIENCE = 100_000  # nodes after which a third tree is grown
_SHARE = 0.25  # of the radius that its ridge takes


class Channel:
    """One channel's problem on a prepared chunk, in units where scale and gram are about 1.

    Attributes
    ----------
    unit : int
        Errors in these units times 2^unit are errors of the layer.
    best, upper : ndarray, float
        The best whole numbers so far, and their error in these units.
    nodes : int
    exhausted : bool
        Whether no z of the box has an error below ``upper`` (1 - TOLERANCE), as far as it is above
        what rounding moves errors by.
    """

    def __init__(self, chunk, weight, low, high, scale):
        self.chunk = chunk
        mantissa, exponent = np.frexp(scale)
        self.scale, self.unit = float(mantissa), 2 * int(exponent) + chunk.exponent
        weight = np.ldexp(weight, -int(exponent))
        live = chunk.group >= 0
        self.weight = np.bincount(chunk.group[live], weight[live], chunk.counts.size)
        self.box = low, high
        self.low, self.high = low * chunk.counts.astype(float), high * chunk.counts.astype(float)
        self.centre = self.weight / self.scale
        # what rounding moves d = scale z - weight by, also where a sum of weights was rounded
        size = np.bincount(chunk.group[live], abs(weight[live]), chunk.counts.size)
        reach = np.maximum(abs(self.low), abs(self.high))
        self.blur = 2 * _EPS * chunk.counts * (self.scale * reach + size)
        self.gram = chunk.gram
        self.best, self.upper = self.nearest(), np.inf
        self.nodes, self.exhausted, self.drowned = 0, False, False

    def nearest(self):
        """Round to nearest, clipped."""
        return np.clip(np.rint(self.centre), self.low, self.high)

    def feedback(self):
        """Round one by one, the others making up for it."""
        return kernels.feedback(self.chunk.inverse, self.centre, self.low, self.high)

    def offer(self, z):
        """Keep z if it is better than the best so far."""
        error = max(accurate.quadratic(self.gram, self.scale * z, self.weight)[0], 0.0)
        if error < self.upper:
            self.best, self.upper = z.copy(), error

    def relax(self):
        """The box-QP: its minimizer x, and what its multipliers and rounding leave of f(x)."""
        regular = self.gram + np.diag(self.chunk.ridge)
        x = kernels.box_qp(regular, self.centre, self.low, self.high)
        value, v = accurate.quadratic(self.gram, x, self.centre)
        kept, residual, spill, cross = kernels.box_multipliers(
            self.gram, x, self.centre, self.low, self.high, self.blur, v
        )
        self.fixed = value * (1 - 4 * _EPS) - residual
        if self.chunk.ridge.any():
            self.blurred = 0.0, cross / self.scale + spill / self.scale**2
        else:
            self.blurred = float(np.sqrt(spill)) / self.scale, 0.0
        self.width = np.maximum(x - self.low, self.high - x)
        self.x, self.slope = x, kept

    def place(self):
        """The trees, at the minimizer of the box-QP."""
        self.placed = [self._place(tree) for tree in self.chunk.trees]

    def _place(self, tree):
        """A tree with its s, origin, slope, ends and looks, and its rounding (see the module)."""
        n, order = self.x.size, tree.order
        gamma = 2 * (n + 4) * _EPS
        looks = NO_LOOKS
        if order is not None:
            s, origin, slope = self.x[order], np.zeros(n, np.int64), self.slope[order]
            ends = np.stack([self.low[order], self.high[order]])
            margin = tree.looks[3] * (1.0 + float(np.max(self.width) + np.max(abs(self.x))))
            if margin <= 0.1:
                looks = *tree.looks[:3], margin
            offset = 0.0
        else:
            nearest = np.rint(self.x)
            whole, s = accurate.split(tree.inverse, self.x - nearest)
            origin, slope = nearest.astype(np.int64) + tree.arrays[2] @ whole, np.zeros(n)
            low, high = self.low - nearest, self.high - nearest
            ends = np.stack([tree.up @ low + tree.down @ high, tree.up @ high + tree.down @ low])
            ends -= whole
            offset = _EPS * tree.length
        most = float(np.linalg.norm(tree.reach @ self.width))
        relative = gamma * (tree.growth**2 + 2 * tree.growth + n)
        # the sum of P and a ridge was rounded too, by less than 1e-5 of the ridge
        fixed = self.fixed - 1.00001 * float(tree.ridge @ self.width**2)
        rounding = fixed, relative, gamma * most**2, gamma * most, offset, gamma * n
        return tree, (s, origin, slope, ends, looks), rounding

    def seed(self):
        """A good first vector: rounding, error feedback and a narrow beam, then descent."""
        beams = [self._beam(placed, _NARROW) for placed in self.placed[:1]]
        for z in (self.nearest(), self.feedback(), *beams):
            self._descend(z)

    def _descend(self, z):
        tree_kernels.descend(self.gram, self.scale, self.weight, z, self.low, self.high, True)
        self.offer(z)

    def _beam(self, placed, width):
        tree, (s, origin, slope, ends, _), _ = placed
        squares, steps, basis = tree.arrays
        y = tree_kernels.beam(squares, steps, s, slope, ends[0], ends[1], width)
        z = np.clip(origin + y @ basis.T, self.low, self.high)
        d = self.scale * z - self.weight
        return z[np.argmin(((d @ self.gram) * d).sum(axis=1))]

    def _radius(self):
        """(z - x)' P (z - x) of no better z exceeds it."""
        shift, cross = self.blurred
        return (np.sqrt(self.upper) / self.scale + shift) ** 2 + cross - self.fixed

    def _is_rounding(self):
        """Whether the error is so small that the radius is that of rounding, whatever is found."""
        shift, cross = self.blurred
        return self.upper <= (shift**2 + cross) * self.scale**2

    def _limits(self, rounding):
        fixed, relative, square, line, offset, sums = rounding
        square += sums * max(self._radius() + self.fixed - fixed, 0.0)
        numbers = (self.scale, TOLERANCE, *self.blurred, fixed, relative, square, line, offset)
        return tuple(map(float, numbers))

    def _third_tree(self):
        """None where its ridge would not exceed what P has in its weakest direction."""
        diagonal = np.maximum(np.diag(self.gram), 1e-12)
        epsilon = _SHARE * max(self._radius(), 0.0) / float(diagonal @ self.width**2)
        ridge = self.chunk.ridge + epsilon * diagonal
        if epsilon < self.chunk.least or not ridge.any():
            return []
        return [self._place(tree) for tree in reduced_trees(self.gram, ridge)]

    def exhaust(self, max_nodes, deadline):
        """Search until a tree is exhausted, or ``max_nodes`` or the clock runs out."""
        problem = (self.gram, self.scale, self.weight, self.low, self.high)
        searches = [(*placed, _root(*placed[:2])) for placed in self.placed]
        turn, waits = _FIRST_NODES, True
        self.exhausted = self.upper == 0.0
        found = np.empty(self.x.size)
        while not self.exhausted:
            if waits and self.nodes > _PATIENCE:
                waits = False
                if self._is_rounding():
                    self.exhausted = self.drowned = True
                    return
                for placed in self.placed:
                    self._descend(self._beam(placed, _WIDE))
                searches += [(*placed, _root(*placed[:2])) for placed in self._third_tree()]
            for tree, placed, rounding, state in searches:
                left = turn if tree.order is None else turn // 2  # looking ahead takes time
                limits = self._limits(rounding)
                while left > 0 and not self.exhausted:
                    budget = int(min(left, max_nodes - self.nodes))
                    if budget <= 0 or time.monotonic() > deadline:
                        return
                    nodes, outcome = tree_kernels.search(
                        problem, tree.arrays, *placed, limits, state, found, self.upper, budget
                    )
                    self.nodes += nodes
                    left -= max(nodes, 1)
                    if outcome == 2:
                        self.offer(found)
                    self.exhausted = outcome == 0 or self.upper == 0.0
                if self.exhausted:
                    return
            turn = min(2 * turn, _MOST_NODES)

    def inputs(self, z):
        """Whole numbers of all inputs: what equal ones share is split evenly, dead ones get 0."""
        group, counts = self.chunk.group, self.chunk.counts
        integers = np.zeros(group.size, np.int64)
        live = group >= 0
        each, rest = np.divmod(z.astype(np.int64), counts)
        integers[live] = each[group[live]]
        for g in np.flatnonzero(rest):
            integers[np.flatnonzero(group == g)[: rest[g]]] += 1
        return integers

    def inputs_at(self, x):
        """A point of the live variables as one of all inputs, equal ones alike."""
        group = self.chunk.group
        full = np.zeros(group.size)
        full[group >= 0] = (x / self.chunk.counts)[group[group >= 0]]
        return full

    def proven(self):
        """The lower bound of an exhausted search, in the layer's units (see the module)."""
        if self.drowned:
            return 0.0
        d = abs(self.scale * self.best - self.weight)
        least = self.upper * (1 - TOLERANCE)
        least = max(least - 16 * d.size**2 * _EPS**2 * float(d @ abs(self.gram) @ d), 0.0)
        if np.any(self.chunk.counts > 1):  # sums of equal inputs were rounded
            shift, cross = self.blurred
            least = max(np.sqrt(least) - shift * self.scale, 0.0) ** 2 - cross * self.scale**2
        return max(float(np.ldexp(least, self.unit)), 0.0)


def _root(tree, placed):
    """The search before its first node."""
    s, _, slope, ends, _ = placed
    n = s.size
    middle = s[-1] - slope[-1] / (2 * tree.arrays[0][-1])
    above = np.zeros(n)
    above[-1] = np.clip(np.rint(middle), ends[0, -1], ends[1, -1])
    pull, centre = np.zeros((n, n)), np.zeros((n, n))
    centre[-1] = s
    return np.array([n - 1]), np.zeros(n), pull, centre, above, above - 1, np.zeros(n + 1)
