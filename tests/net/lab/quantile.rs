//! One rule for all figures that tests and benches print.

/// The value that so many of a thousand do not exceed, by the nearest rank: of a hundred values the 990th in a thousand is the last but one.
/// `sorted` is in ascending order; `None` if there is nothing.
pub fn quantile<T: Copy>(sorted: &[T], per_mille: usize) -> Option<T> {
    let rank = (sorted.len() * per_mille).div_ceil(1_000).saturating_sub(1);
    sorted.get(rank).copied()
}

#[test]
fn the_nearest_rank_is_a_value_that_was_measured() {
    let hundred: Vec<u32> = (1..=100).collect();
    let at = |per_mille| quantile(&hundred, per_mille);
    assert_eq!(
        [at(0), at(500), at(990), at(999), at(1_000)],
        [1, 50, 99, 100, 100].map(Some)
    );
    assert_eq!(quantile(&[7], 990), Some(7));
    assert_eq!(quantile::<u32>(&[], 990), None);
}
