"""Reconstruction of face states from cell averages, one class at a time.

A class is the pair (rho, y = rho w). Each function returns `(rho_left, w_left, rho_right, w_right)`,
the states at the left and the right face of the middle cell. The two fields of a class share
their weights, so that a constant w stays constant to rounding: weights of each field's own
would make a spurious w, and with it a spurious speed, at every jump of density.
"""

from arzbench.physics.model import (
    Constants,
    Real,
    admissible,
    greatest,
    least,
    ratio,
    scalar,
    two_ratios,
)


@scalar
def _curvatures(a: Real, b: Real, c: Real, d: Real, e: Real, k: Constants) -> tuple[Real, ...]:
    """First and second differences of five averages, and four times the smoothness indicators."""
    d2 = c - b
    d3 = d - c
    s1 = d2 - (b - a)
    s2 = d3 - d2
    s3 = (e - d) - d3
    t1 = s1 + k.two * d2
    t2 = d2 + d3
    t3 = s3 - k.two * d3
    b1 = k.beta_s * (s1 * s1) + t1 * t1
    b2 = k.beta_s * (s2 * s2) + t2 * t2
    b3 = k.beta_s * (s3 * s3) + t3 * t3
    return d2, d3, s1, s2, s3, b1, b2, b3


@scalar
def weno5(
    rho_a: Real, rho_b: Real, rho: Real, rho_d: Real, rho_e: Real,
    y_a: Real, y_b: Real, y: Real, y_d: Real, y_e: Real,
    rho_max: Real, w_free: Real, w_max: Real, k: Constants,
) -> tuple[Real, Real, Real, Real]:  # fmt: skip
    """Fifth order WENO-Z: Jiang & Shu, JCP 126 (1996) 202; Borges et al., JCP 227 (2008) 3191.

    Weights `d_j (1 + tau/beta_j)` from the sum of the two fields' indicators (rho scaled by the
    free speed). All fractions are put over common denominators: two divisions for the class
    at both faces, where the divider would else be what bounds the speed of the whole model.
    """
    d2, d3, s1, s2, s3, b1, b2, b3 = _curvatures(rho_a, rho_b, rho, rho_d, rho_e, k)
    g2, g3, r1, r2, r3, q1, q2, q3 = _curvatures(y_a, y_b, y, y_d, y_e, k)
    scale = w_free * w_free
    b1 = scale * b1 + (q1 + k.weno_eps)
    b2 = scale * b2 + (q2 + k.weno_eps)
    b3 = scale * b3 + (q3 + k.weno_eps)
    tau = abs(b1 - b3)
    weight1 = (b1 + tau) * (b2 * b3)
    weight2 = k.six * ((b2 + tau) * (b1 * b3))
    weight3 = (b3 + tau) * (b1 * b2)
    triple1 = k.three * weight1
    triple3 = k.three * weight3
    all_r = weight1 + (weight2 + triple3)
    all_l = weight3 + (weight2 + triple1)
    inv = k.one / (all_r * all_l)
    inv_r, inv_l = all_l * inv, all_r * inv
    rise = weight1 * (k.half * d2 + k.third * s1) + (
        weight2 * (k.half * d2 + k.third * s2) + triple3 * (k.half * d3 - k.sixth * s3)
    )
    rise_y = weight1 * (k.half * g2 + k.third * r1) + (
        weight2 * (k.half * g2 + k.third * r2) + triple3 * (k.half * g3 - k.sixth * r3)
    )
    fall = weight3 * (k.half * d3 - k.third * s3) + (
        weight2 * (k.half * d3 - k.third * s2) + triple1 * (k.half * d2 + k.sixth * s1)
    )
    fall_y = weight3 * (k.half * g3 - k.third * r3) + (
        weight2 * (k.half * g3 - k.third * r2) + triple1 * (k.half * g2 + k.sixth * r1)
    )
    rho_r, y_r = admissible(rho + rise * inv_r, y + rise_y * inv_r, rho, y, rho_max, k)
    rho_l, y_l = admissible(rho - fall * inv_l, y - fall_y * inv_l, rho, y, rho_max, k)
    w_l, w_r = two_ratios(rho_l, y_l, rho_r, y_r, w_free, w_max, k)
    return rho_l, w_l, rho_r, w_r


@scalar
def _slope(b: Real, c: Real, d: Real, k: Constants) -> Real:
    """Half the monotonised central slope of three averages."""
    back = c - b
    ahead = d - c
    mean = k.half * (k.half * (back + ahead))
    up = greatest(least(least(back, ahead), mean), k.zero)
    down = least(greatest(greatest(back, ahead), mean), k.zero)
    return up + down


@scalar
def muscl(
    rho_b: Real, rho: Real, rho_d: Real, y_b: Real, y: Real, y_d: Real,
    w_free: Real, w_max: Real, k: Constants,
) -> tuple[Real, Real, Real, Real]:  # fmt: skip
    """Second order: limited slopes of rho and w (van Leer, JCP 32 (1979) 101)."""
    w = ratio(rho, y, w_free, w_max, k)
    half_rho = _slope(rho_b, rho, rho_d, k)
    half_w = _slope(ratio(rho_b, y_b, w_free, w_max, k), w, ratio(rho_d, y_d, w_free, w_max, k), k)
    return rho - half_rho, w - half_w, rho + half_rho, w + half_w


@scalar
def first_order(rho: Real, y: Real, w_free: Real, w_max: Real, k: Constants) -> tuple[Real, Real, Real, Real]:
    """The cell's own state at both faces."""
    w = ratio(rho, y, w_free, w_max, k)
    return rho, w, rho, w
