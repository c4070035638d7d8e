//! What a telephone number looks like.

/// Fewest and most digits: the shortest in use with an area code, and the longest (ITU-T E.164 §6.2.1).
const DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

/// Most characters with everything in between; the width of the columns (seed: Users, Addresses Table).
pub const MAX_PHONE_CHARS: usize = 20;

/// Why `text` cannot be dialled; none if it can. A plus and the country's code may lead, groups may be
/// kept apart by single spaces, dashes, dots or in brackets, as people write them.
#[must_use]
pub fn phone_problem(text: &str) -> Option<String> {
    if text.chars().count() > MAX_PHONE_CHARS {
        return Some(format!("must have at most {MAX_PHONE_CHARS} characters"));
    }
    let national = text.strip_prefix('+').unwrap_or(text);
    let digits = national.chars().filter(char::is_ascii_digit).count();
    let is_written_as_usual = national.chars().all(|c| c.is_ascii_digit() || " -.()".contains(c))
        && national.starts_with(|c: char| c.is_ascii_digit() || c == '(')
        && national.ends_with(|c: char| c.is_ascii_digit());
    // No country's code begins with a zero.
    let has_a_country = !text.starts_with('+') || !national.starts_with('0');
    let dials = is_written_as_usual && has_a_country && DIGITS.contains(&digits);
    (!dials).then(|| "must be a telephone number, such as +919876543210".to_owned())
}

#[cfg(test)]
mod tests {
    use super::phone_problem;

    #[test]
    fn numbers_are_taken_as_people_write_them() {
        for good in
            ["+919876543210", "+91 98765 43210", "022-2345678", "(022) 2345 6789", "+1 (555) 010-9999", "5550100"]
        {
            assert_eq!(phone_problem(good), None, "{good}");
        }
    }

    #[test]
    fn what_nobody_can_dial_is_refused() {
        let long = "1".repeat(16);
        for bad in [
            "",
            " ",
            "call me",
            "+0123456789",
            "12345",
            &long,
            "+91987654321x",
            "98765\n43210",
            "+",
            "++919876543210",
            "-5550100",
        ] {
            assert!(phone_problem(bad).is_some(), "{bad}");
        }
    }
}
