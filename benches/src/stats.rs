//! Medians, quartiles and ratios of samples that were taken in rounds.

/// Lower quartile, median, upper quartile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quartiles {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

/// None without a sample.
pub fn quartiles(samples: impl IntoIterator<Item = f64>) -> Option<Quartiles> {
    let mut sorted: Vec<f64> = samples.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let place = part * sorted.len().checked_sub(1)? as f64;
        let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
        Some(below + (above - below) * place.fract())
    };
    Some(Quartiles { low: at(0.25)?, median: at(0.5)?, high: at(0.75)? })
}

/// One contestant against another, round by round: both of a pair ran within the same fraction of a second,
/// so a machine that becomes slower for a while changes both.
pub fn ratios(samples: &[Option<f64>], reference: &[Option<f64>]) -> Option<Quartiles> {
    quartiles(samples.iter().zip(reference).filter_map(|(one, other)| Some((*one)? / (*other)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_interpolated() {
        let found = quartiles([4.0, 1.0, 3.0, 2.0]).expect("four samples");
        assert_eq!(found, Quartiles { low: 1.75, median: 2.5, high: 3.25 });
        assert_eq!(quartiles([]), None);
    }

    #[test]
    fn a_round_in_which_one_side_failed_is_no_pair() {
        let found = ratios(&[Some(2.0), None, Some(9.0)], &[Some(1.0), Some(1.0), None]).expect("one pair");
        assert_eq!(found.median, 2.0);
    }

    #[test]
    fn ratios_are_taken_round_by_round_and_not_of_the_medians() {
        let slow_machine_in_the_middle = ratios(&[Some(2.0), Some(20.0)], &[Some(1.0), Some(10.0)]);
        assert_eq!(slow_machine_in_the_middle, Some(Quartiles { low: 2.0, median: 2.0, high: 2.0 }));
    }
}
