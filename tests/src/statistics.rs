//! Bounds for what is random by design: weighted choices.

/// Whether `hits` of `draws` can come from a choice with this `share`, with a chance below 1e-6 to be wrong about a good one.
///
/// Hoeffding's inequality: a deviation of `t` draws has a chance of at most `2 exp(-2 t² / draws)`.
pub fn within_binomial_bounds(hits: usize, draws: usize, share: f64) -> bool {
    const CHANCE: f64 = 1e-6;
    let draws = draws as f64;
    let allowed = (draws * (2.0 / CHANCE).ln() / 2.0).sqrt();
    (hits as f64 - draws * share).abs() <= allowed
}
