//! What a text that somebody types may be: one rule, wherever it comes in.
//!
//! It ends up on labels, in e-mails, on staff's screens and in logs. So it has an end, says something, has no
//! character that controls what shows it, and is no card number.

use crate::card_data::mentions_card_number;

/// Longest text that is taken in at all, in characters; most fields take far less.
pub const MAX_CHARS: usize = 5_000;

/// Postgres cannot store U+0000; control characters write lines of their own into mails and logs, or move a
/// terminal's cursor; and what turns the direction of writing round (Unicode UAX #9, explicit formatting) lets
/// a name read as another. Only line breaks and tabs have a place, in texts of several lines.
#[must_use]
pub fn is_unfit(character: char) -> bool {
    let is_layout = matches!(character, '\n' | '\r' | '\t');
    (character.is_control() && !is_layout) || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Why `text` cannot be a name, a reason or the like: one line of 1 to `most` characters. None if it can.
#[must_use]
pub fn line_problem(text: &str, most: usize) -> Option<String> {
    if text.trim().is_empty() {
        Some("must not be empty".to_owned())
    } else if text.chars().any(|c| c.is_control() || is_unfit(c)) {
        Some("must not contain control characters".to_owned())
    } else {
        problem(text, most)
    }
}

/// The same for a text that may have several lines, and may be empty.
#[must_use]
pub fn lines_problem(text: &str, most: usize) -> Option<String> {
    if text.chars().any(is_unfit) {
        Some("must not contain control characters".to_owned())
    } else {
        problem(text, most)
    }
}

fn problem(text: &str, most: usize) -> Option<String> {
    if text.chars().count() > most {
        Some(format!("must have at most {most} characters"))
    } else if mentions_card_number(text) {
        Some("must not contain a card number".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_something_ends_and_controls_nothing() {
        for (text, fine) in [
            ("x", true),
            ("नमस्ते \u{200d}", true),
            ("four", true),
            ("fives", false),
            ("", false),
            ("  ", false),
            ("a\nb", false),
            ("a\tb", false),
            ("a\0", false),
            ("\u{1b}[2J", false),
            ("\u{85}", false),
            ("\u{202e}exe", false),
        ] {
            let most = if text.contains('न') { 20 } else { 4 };
            assert_eq!(line_problem(text, most).is_none(), fine, "{text:?}");
        }
        assert!(line_problem("call 4111 1111 1111 1111", 100).is_some());
        assert!(line_problem("EE123456789IN", 100).is_none());
    }

    #[test]
    fn several_lines_may_be_empty_and_have_breaks() {
        for (text, fine) in [("", true), ("a\r\n\tb", true), ("a\0", false), ("\u{7f}", false), ("fives!", false)] {
            assert_eq!(lines_problem(text, 5).is_none(), fine, "{text:?}");
        }
    }
}
