"""Reconstruction of face states from cell averages, one class at a time.

A class is the pair (rho, y = rho w). Each function returns `(rho_left, w_left, rho_right, w_right)`,
the states at the left and the right face of the middle cell. The two fields of a class share
their weights, so that a constant w stays constant to rounding: weights of each field's own
would make a spurious w, and with it a spurious speed, at every jump of density.
"""

from arzbench.traffic.physics.model import (
    Constants,
    Real,
    admissible,
    choose,
    greatest,
    least,
    ratio,
    scalar,
)


@scalar
def _differences(a: Real, b: Real, c: Real, d: Real, e: Real, k: Constants) -> tuple[Real, ...]:
    """Of five averages: the two first differences at the middle one, the three second ones, and
    twice the slope of each of WENO's three parabolas there.
    """
    d1 = b - a
    d2 = c - b
    d3 = d - c
    d4 = e - d
    return d2, d3, d2 - d1, d3 - d2, d4 - d3, k.three * d2 - d1, d2 + d3, k.three * d3 - d4


@scalar
def _smoothness(s: Real, t: Real, r: Real, u: Real, scale: Real, k: Constants) -> Real:
    """Four times the smoothness indicator of rho's and y's parabola, summed: `s`, `r` are their second
    differences, `t`, `u` twice their slopes.
    """
    curved = (scale * s) * s + r * r
    steep = (scale * t) * t + (u * u + k.weno_eps)
    return k.beta_s * curved + steep


@scalar
def weno5_values(
    rho_a: Real, rho_b: Real, rho: Real, rho_d: Real, rho_e: Real,
    y_a: Real, y_b: Real, y: Real, y_d: Real, y_e: Real, w_free: Real, k: Constants,
) -> tuple[Real, Real, Real, Real]:  # fmt: skip
    """(rho_left, y_left, rho_right, y_right), unbounded, of fifth order.

    WENO-Z: Jiang & Shu, JCP 126 (1996) 202; Borges et al., JCP 227 (2008) 3191.

    Weights `d_j (1 + tau/beta_j)` from the sum of the two fields' indicators (rho scaled by the
    free speed). All fractions are put over common denominators: two divisions for the class
    at both faces, where the divider would else be what bounds the speed of the whole model.
    With v_j the weights before they are divided by their sum, the right face's value is
    `c + d2/2 + (v1 s1 + (v2 + 9/2 v3) s2 - 3/2 v3 s3) / (3 sum)`; the left's is its mirror image.
    """
    d2, d3, s1, s2, s3, t1, t2, t3 = _differences(rho_a, rho_b, rho, rho_d, rho_e, k)
    g2, g3, r1, r2, r3, u1, u2, u3 = _differences(y_a, y_b, y, y_d, y_e, k)
    scale = w_free * w_free
    b1 = _smoothness(s1, t1, r1, u1, scale, k)
    b2 = _smoothness(s2, t2, r2, u2, scale, k)
    b3 = _smoothness(s3, t3, r3, u3, scale, k)
    tau = abs(b1 - b3)
    v1 = (b1 + tau) * (b2 * b3)
    v2 = k.six * ((b2 + tau) * (b1 * b3))
    v3 = (b3 + tau) * (b1 * b2)
    sum_r = k.three * v3 + (v1 + v2)
    sum_l = k.three * v1 + (v2 + v3)
    inv = k.third / (sum_r * sum_l)
    inv_r, inv_l = sum_l * inv, sum_r * inv
    mid_r, mid_l = k.nine_halves * v3 + v2, k.nine_halves * v1 + v2
    far_r, far_l = k.three_halves * v3, k.three_halves * v1
    bend_r = mid_r * s2 + (v1 * s1 - far_r * s3)
    bend_l = mid_l * s2 + (v3 * s3 - far_l * s1)
    turn_r = mid_r * r2 + (v1 * r1 - far_r * r3)
    turn_l = mid_l * r2 + (v3 * r3 - far_l * r1)
    rho_r, y_r = bend_r * inv_r + (rho + k.half * d2), turn_r * inv_r + (y + k.half * g2)
    rho_l, y_l = bend_l * inv_l + (rho - k.half * d3), turn_l * inv_l + (y - k.half * g3)
    return rho_l, y_l, rho_r, y_r


@scalar
def bounded(
    rho_l: Real, y_l: Real, rho_r: Real, y_r: Real, rho: Real, y: Real,
    rho_max: Real, w_free: Real, w_max: Real, k: Constants,
) -> tuple[Real, Real, Real, Real]:  # fmt: skip
    """Face states (rho, w) from values (rho, y): the cell's own where those are out of range.

    As in `ratio`, w is a free vehicle's where the class is absent. One division for both faces.
    """
    present = rho > k.rho_min
    own, own_y = choose(present, rho, k.one), choose(present, y, w_free)
    ok_l, ok_r = admissible(rho_l, y_l, rho_max, k), admissible(rho_r, y_r, rho_max, k)
    den_l, den_r = choose(ok_l, rho_l, own), choose(ok_r, rho_r, own)
    inv = k.one / (den_l * den_r)
    w_l, w_r = choose(ok_l, y_l, own_y) * (den_r * inv), choose(ok_r, y_r, own_y) * (den_l * inv)
    w_l, w_r = least(greatest(w_l, k.zero), w_max), least(greatest(w_r, k.zero), w_max)
    return choose(ok_l, rho_l, rho), w_l, choose(ok_r, rho_r, rho), w_r


@scalar
def weno5(
    rho_a: Real, rho_b: Real, rho: Real, rho_d: Real, rho_e: Real,
    y_a: Real, y_b: Real, y: Real, y_d: Real, y_e: Real,
    rho_max: Real, w_free: Real, w_max: Real, k: Constants,
) -> tuple[Real, Real, Real, Real]:  # fmt: skip
    """Fifth order: `weno5_values`, bounded."""
    rho_l, y_l, rho_r, y_r = weno5_values(rho_a, rho_b, rho, rho_d, rho_e, y_a, y_b, y, y_d, y_e, w_free, k)
    return bounded(rho_l, y_l, rho_r, y_r, rho, y, rho_max, w_free, w_max, k)


@scalar
def _limit(back: Real, ahead: Real, wanted: Real, k: Constants) -> Real:
    """`wanted`, cut to what keeps a face between its two cells."""
    up = greatest(least(least(back, ahead), wanted), k.zero)
    down = least(greatest(greatest(back, ahead), wanted), k.zero)
    return up + down


@scalar
def _steps(b: Real, c: Real, d: Real, k: Constants) -> tuple[Real, Real]:
    """From the middle average to the values at its left (taken off) and right face.

    Steps under `calm` times the average are not limited: a limiter would flatten every smooth
    extremum, of one field where the others have none, and so upset speeds that were equal. The
    parabola leaves the range of the three cells by a sixth of such a step at most, and `calm`
    goes with the square of the cell size, as steps do at a smooth extremum and not at a jump.
    """
    back = c - b
    ahead = d - c
    left, right = k.third * back + k.sixth * ahead, k.sixth * back + k.third * ahead
    calm = greatest(abs(back), abs(ahead)) < k.calm * c
    left = choose(calm, left, _limit(back, ahead, left, k))
    return left, choose(calm, right, _limit(back, ahead, right, k))


@scalar
def muscl(
    rho_b: Real, rho: Real, rho_d: Real, y_b: Real, y: Real, y_d: Real,
    w_free: Real, w_max: Real, k: Constants,
) -> tuple[Real, Real, Real, Real]:  # fmt: skip
    """Second order: parabolas of rho and w, limited where they are steep.

    Van Leer, JCP 32 (1979) 101, with the limiter of Koren, Notes on Numerical Fluid Mechanics 45
    (1993) 117, which rests at small steps as in Shu, Math. Comp. 49 (1987) 105. Of third order
    but for w, a ratio of averages.
    """
    w = ratio(rho, y, w_free, w_max, k)
    w_b, w_d = ratio(rho_b, y_b, w_free, w_max, k), ratio(rho_d, y_d, w_free, w_max, k)
    rho_l, rho_r = _steps(rho_b, rho, rho_d, k)
    w_l, w_r = _steps(w_b, w, w_d, k)
    return rho - rho_l, least(w - w_l, w_max), rho + rho_r, least(w + w_r, w_max)


@scalar
def first_order(rho: Real, y: Real, w_free: Real, w_max: Real, k: Constants) -> tuple[Real, Real, Real, Real]:
    """The cell's own state at both faces."""
    w = ratio(rho, y, w_free, w_max, k)
    return rho, w, rho, w
