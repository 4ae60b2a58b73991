//! Judging what is drawn by chance, so that a test with ten judgements fails a correct build less than once in a million runs.

/// Whether so many hits of so many draws fit a share. By the bound of Chernoff and Hoeffding: that as many or more (or as few or
/// fewer) hits come by chance is less probable than `exp(-draws * d)`, where `d` is the relative entropy of the share that
/// was seen to the one that is expected.
pub fn within_binomial_bounds(hits: usize, draws: usize, share: f64) -> bool {
    const CHANCE: f64 = 1e-7;
    let seen = hits as f64 / draws as f64;
    let part = |seen: f64, share: f64| if seen == 0.0 { 0.0 } else { seen * (seen / share).ln() };
    let entropy = part(seen, share) + part(1.0 - seen, 1.0 - share);
    draws as f64 * entropy <= (2.0 / CHANCE).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_ten_million_runs() {
        // Within the normal distribution's 5.3 standard deviations, and not much farther.
        assert!(within_binomial_bounds(100, 2_000, 0.05));
        assert!(within_binomial_bounds(53, 2_000, 0.05) && !within_binomial_bounds(45, 2_000, 0.05));
        assert!(within_binomial_bounds(150, 2_000, 0.05) && !within_binomial_bounds(165, 2_000, 0.05));
        assert!(within_binomial_bounds(0, 10, 0.5) && !within_binomial_bounds(0, 30, 0.5));
        assert!(!within_binomial_bounds(1, 1_000_000, 0.0) && within_binomial_bounds(0, 5, 0.0));
        assert!(within_binomial_bounds(5, 5, 1.0) && !within_binomial_bounds(4, 5, 1.0));
    }
}
