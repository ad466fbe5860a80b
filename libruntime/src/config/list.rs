//! Lists of numbers as the kernel writes them (cpuset(7), "List Format"): `0-3,7`.

/// Kernels are built for at most 8,192 CPUs and 1,024 memory nodes; a mask must stay small.
pub const MAX_NUMBER: u32 = 65_535;

/// The ranges of a list, each first to last, both included; `Err` says what is wrong with it.
pub fn number_list(list: &str) -> Result<Vec<(u32, u32)>, String> {
    let number = |text: &str| match text.trim().parse::<u32>() {
        // parse() takes a leading '+'; the kernel does not.
        Ok(number) if number <= MAX_NUMBER && !text.contains('+') => Ok(number),
        _ => Err(format!("{text:?} is not a number from 0 to {MAX_NUMBER}")),
    };
    let mut ranges = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("the range {first}-{last} runs backwards"));
        }
        ranges.push((first, last));
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_numbers_and_ranges() {
        assert_eq!(number_list("0-3,7"), Ok(vec![(0, 3), (7, 7)]));
        assert_eq!(number_list("0, 2"), Ok(vec![(0, 0), (2, 2)]));
        for bad in ["", ",", "1,", "3-1", "a", "-1", "+1", "1-", "65536", "1--2", "0x1"] {
            assert!(number_list(bad).is_err(), "{bad}");
        }
    }
}
