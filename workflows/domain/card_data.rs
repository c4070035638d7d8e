//! Keeps card numbers out: cards are paid by token or redirect only, so a request that carries
//! card data is refused before anything stores or logs it.

use std::{
    borrow::Cow,
    ops::{Range, RangeInclusive},
};

use serde_json::Value;
use unicode_normalization::UnicodeNormalization as _;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};

/// Field names that only exist to carry card data, in lower case and without punctuation. A field
/// of an object counts with the object's name too: `card.number` is `cardnumber`.
const CARD_FIELDS: [&str; 36] = [
    "cardnumber",
    "cardnum",
    "cardno",
    "cardpan",
    "creditcard",
    "creditcardnumber",
    "creditcardno",
    "debitcard",
    "debitcardnumber",
    "debitcardno",
    "ccnumber",
    "ccnum",
    "ccno",
    "pan",
    "panno",
    "pannumber",
    "primaryaccountnumber",
    "cvv",
    "cvv2",
    "cvc",
    "cvc2",
    "csc",
    "securitycode",
    "cardsecuritycode",
    "cardverificationcode",
    "cardverificationvalue",
    "expiry",
    "expirydate",
    "expirationdate",
    "expirymonth",
    "expiryyear",
    "expmonth",
    "expyear",
    "expdate",
    "track1",
    "track2",
];

/// E.164: no telephone number has more digits.
const LONGEST_PHONE_NUMBER: usize = 15;

/// ISO/IEC 7812-1 and the cards in use.
const SHORTEST_CARD_NUMBER: usize = 13;
const LONGEST_CARD_NUMBER: usize = 19;

/// The JSON pointer (RFC 6901) of the first field that carries card data, or looks as if it did;
/// `None` when there is none. A field is caught by its name, whatever its value, or by a value, a
/// string or a number, that holds 13 to 19 digits that begin like a card's and pass the Luhn check
/// (ISO/IEC 7812-1), in whatever script, however they are grouped, and whatever nobody sees stands
/// between them. The pointer never contains a card number itself.
#[must_use]
pub fn find_card_data(body: &Value) -> Option<String> {
    find(body, "", &mut String::new(), Names::Telling)
}

/// The same by values alone, for bodies in which a field may well be called `expiry` or `pan`: products have
/// attributes.
#[must_use]
pub fn find_card_number(body: &Value) -> Option<String> {
    find(body, "", &mut String::new(), Names::Free)
}

/// Whether a card number stands in the text: alone, in a sentence, or in a token (`tok_4111…`).
#[must_use]
pub fn mentions_card_number(text: &str) -> bool {
    holds_card_number(text, false)
}

/// Whether the names of fields tell of card data, too.
#[derive(Clone, Copy, PartialEq)]
enum Names {
    Telling,
    Free,
}

/// `name` is that of the field that holds `value`; array elements have that of their array.
fn find(value: &Value, name: &str, pointer: &mut String, names: Names) -> Option<String> {
    match value {
        Value::Null | Value::Bool(_) => None,
        Value::Number(number) => {
            let text = match number.as_f64() {
                // A whole number written as 4.1e15 is still that number.
                Some(float) if number.is_f64() => format!("{:.0}", float.trunc()),
                Some(_) | None => number.to_string(),
            };
            holds_card_number(&text, is_phone_field(name)).then(|| pointer.clone())
        }
        Value::String(text) => holds_card_number(text, is_phone_field(name)).then(|| pointer.clone()),
        Value::Array(elements) => elements
            .iter()
            .enumerate()
            .find_map(|(index, element)| below(pointer, &index.to_string(), name, element, names)),
        Value::Object(fields) => fields.iter().find_map(|(key, field)| {
            if holds_card_number(key, false) {
                return Some(pointer.clone());
            }
            let own_name = plain(key);
            let full_name = format!("{name}{own_name}");
            if names == Names::Telling && (is_card_field(&own_name) || is_card_field(&full_name)) {
                return Some(format!("{pointer}/{}", escaped(key)));
            }
            below(pointer, key, &own_name, field, names)
        }),
    }
}

fn below(pointer: &mut String, key: &str, name: &str, value: &Value, names: Names) -> Option<String> {
    let length = pointer.len();
    pointer.push('/');
    pointer.push_str(&escaped(key));
    let found = find(value, name, pointer, names);
    pointer.truncate(length);
    found
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn plain(key: &str) -> String {
    legible(key).chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn is_card_field(name: &str) -> bool {
    CARD_FIELDS.contains(&name)
}

fn is_phone_field(name: &str) -> bool {
    ["phone", "phonenumber", "phoneno", "mobile", "mobilenumber"].iter().any(|phone| name.ends_with(phone))
}

fn holds_card_number(text: &str, is_phone: bool) -> bool {
    let text = legible(text);
    let shortest = if is_phone { LONGEST_PHONE_NUMBER + 1 } else { SHORTEST_CARD_NUMBER };
    let is_card = |groups: &[&str]| {
        let length: usize = groups.iter().map(|group| group.len()).sum();
        (shortest..=LONGEST_CARD_NUMBER).contains(&length) && is_card_number(&groups.concat())
    };
    // The whole value is digits, grouped in any way.
    if !text.contains(|c: char| c.is_alphabetic() || "+:,;".contains(c)) {
        let groups: Vec<&str> = text.split(|c: char| !c.is_ascii_digit()).filter(|group| !group.is_empty()).collect();
        if is_card(&groups) && !holds_date(&groups) && !is_ascending(&groups) {
            return true;
        }
    }
    // Or they stand in a sentence or a token: then only as one block, or grouped as on a card.
    stretches(&text).iter().any(|stretch| {
        let groups: Vec<&str> = stretch.iter().map(|group| group.digits).collect();
        let is_grouped = |groups: &[&str]| is_grouped_as_on_a_card(groups) && is_card(groups);
        groups.iter().any(|group| is_card(&[group]))
            || (groups.iter().all(|group| group.len() == 1) && is_card(&groups))
            || is_grouped(&groups)
            || runs(stretch).any(|(run, mark)| {
                let groups = &groups[run];
                (0..groups.len()).any(|first| {
                    // 19 digits are five groups at most, so a long list of numbers is still read in one go.
                    (first + 2..=groups.len().min(first + 5)).any(|end| {
                        // Four of many numbers, as 4510/4520/4530/4540/4550, are no card.
                        let is_listed = |group: Option<&&str>| !mark.is_empty() && group.is_some_and(|g| g.len() == 4);
                        let before = first.checked_sub(1).and_then(|before| groups.get(before));
                        !is_listed(before) && !is_listed(groups.get(end)) && is_grouped(&groups[first..end])
                    })
                })
            })
    })
}

/// The text with all digits as ASCII's and without what nobody sees: a number that is read as one is one.
fn legible(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.nfkd().filter(|c| !is_unseen(*c)).map(with_ascii_digit).collect())
}

/// Format characters (zero-width ones, soft hyphens), marks on the character before, and the fillers of Hangul.
fn is_unseen(c: char) -> bool {
    use GeneralCategory::{EnclosingMark, Format, NonspacingMark};
    !c.is_ascii()
        && (matches!(c.general_category(), Format | NonspacingMark | EnclosingMark)
            || matches!(c, '\u{115f}' | '\u{1160}'))
}

/// Unicode keeps the decimal digits of a script in one row, from zero to nine.
fn with_ascii_digit(c: char) -> char {
    let is_digit = |c: char| c.general_category() == GeneralCategory::DecimalNumber;
    if c.is_ascii() || !is_digit(c) {
        return c;
    }
    let before = |back: u32| u32::from(c).checked_sub(back).and_then(char::from_u32);
    (0..10)
        .find(|value| !before(value + 1).is_some_and(is_digit))
        .and_then(|value| char::from_digit(value, 10))
        .unwrap_or(c)
}

/// Digits in a row, and what stands between them and the word before.
struct Group<'t> {
    digits: &'t str,
    gap: &'t str,
}

/// The groups of digits that follow each other with nothing but separators in between. A word with a letter in it
/// (a uuid, ORD…) ends a stretch, and is in none unless [`number_in`] it is one; nor is a telephone number, known
/// by its plus.
fn stretches(text: &str) -> Vec<Vec<Group<'_>>> {
    let mut stretches: Vec<Vec<Group<'_>>> = Vec::new();
    let (mut rest, mut is_open) = (text, false);
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
        let (gap, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(from.len()));
        rest = after;
        let number = number_in(word, gap);
        let goes_on = is_open && word.starts_with(|c: char| c.is_ascii_digit()) && is_joint(gap);
        is_open = number.is_some() && word.ends_with(|c: char| c.is_ascii_digit());
        let Some(digits) = number else { continue };
        match stretches.last_mut() {
            Some(stretch) if goes_on => stretch.push(Group { digits, gap }),
            Some(_) | None => stretches.push(vec![Group { digits, gap }]),
        }
    }
    stretches.retain(|stretch| {
        let length: usize = stretch.iter().map(|group| group.digits.len()).sum();
        let has_plus = stretch.first().is_some_and(|group| group.gap.trim_end_matches('(').ends_with('+'));
        !(has_plus && length <= LONGEST_PHONE_NUMBER)
    });
    stretches
}

/// The digits of a word that may be a card's, or a part of one. With letters right before them they are an id's, as
/// in ORD4111…, unless those say that a card follows; with letters right after, a part of a uuid or a hash.
fn number_in<'t>(word: &'t str, gap: &str) -> Option<&'t str> {
    let (before, from) = word.split_at(word.find(|c: char| c.is_ascii_digit())?);
    let (digits, after) = from.split_at(from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len()));
    // The first track of a magnetic stripe: %B4111…^
    let is_announced = before.is_empty() || is_card_word(before) || (before == "B" && gap.ends_with('%'));
    let is_hash = word.len() > LONGEST_CARD_NUMBER && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_complete = after.is_empty() || (digits.len() >= SHORTEST_CARD_NUMBER && !is_hash);
    (is_announced && is_complete).then_some(digits)
}

fn is_card_word(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    is_card_field(&word)
        || ["card", "cc", "no", "number", "visa", "mastercard", "amex", "rupay", "maestro"].contains(&&*word)
}

/// Whether what stands between two groups keeps one number together: spaces and dashes, or up to three other marks
/// among them. A comma before a space sets apart two numbers, and a plus begins one.
fn is_joint(gap: &str) -> bool {
    let mark = mark_of(gap);
    let is_comma = mark.contains([',', ';']) && mark.len() != gap.len();
    !is_comma && mark.chars().count() <= 3 && !mark.contains(|c: char| c.is_alphanumeric() || c == '+')
}

/// What else than spaces and dashes keeps two groups apart.
fn mark_of(gap: &str) -> &str {
    gap.trim_matches(is_blank)
}

/// Where in a stretch the groups stand that the same mark keeps apart, and that mark.
fn runs<'s, 't>(stretch: &'s [Group<'t>]) -> impl Iterator<Item = (Range<usize>, &'t str)> + use<'s, 't> {
    let joints = stretch.get(1..).unwrap_or_default();
    joints.chunk_by(|one, next| mark_of(one.gap) == mark_of(next.gap)).scan(0, |first, joints| {
        let run = *first..*first + joints.len() + 1;
        *first += joints.len();
        Some((run, joints.first().map_or("", |joint| mark_of(joint.gap))))
    })
}

/// Cards are embossed as one block, or as four digits and then groups of three to six.
fn is_grouped_as_on_a_card(groups: &[&str]) -> bool {
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    match &*lengths {
        [] => false,
        [_] | [4, 3, 3, 3] => true,
        [4, rest @ ..] => rest.iter().all(|length| (3..=6).contains(length)) && lengths.iter().sum::<usize>() > 13,
        [..] => false,
    }
}

/// Whether a date is among the groups, the day or the year first.
fn holds_date(groups: &[&str]) -> bool {
    let is_year = |group: &str| group.len() == 4 && (group.starts_with("19") || group.starts_with("20"));
    groups.windows(3).any(|three| match three {
        [one, two, three] => {
            two.len() == 2 && ((one.len() == 2 && is_year(three)) || (is_year(one) && three.len() == 2))
        }
        _ => false,
    })
}

/// Sizes, as 40 42 44 46 48 50 52 54, and the like.
fn is_ascending(groups: &[&str]) -> bool {
    groups.len() > 5 && groups.windows(2).all(|two| matches!(two, [one, next] if one.len() == next.len() && one < next))
}

/// White space and every dash.
fn is_blank(c: char) -> bool {
    c == '-' || c.is_whitespace() || ('\u{2010}'..='\u{2015}').contains(&c) || c == '\u{2212}'
}

/// How the numbers of a network begin, from and to, and how many digits they have. What else is of that length
/// (couriers' numbers, bar codes, IMEIs, SIM cards, clock readings, dates) mostly begins otherwise.
const ISSUERS: [(&str, &str, RangeInclusive<usize>); 29] = [
    // Visa.
    ("4", "4", 13..=13),
    ("4", "4", 16..=16),
    ("4", "4", 19..=19),
    // Mastercard, and Mir and Borica before its second range.
    ("51", "55", 16..=16),
    ("2221", "2720", 16..=16),
    ("2200", "2205", 16..=16),
    ("2200", "2204", 17..=19),
    // American Express.
    ("34", "34", 15..=15),
    ("37", "37", 15..=15),
    // Diners Club.
    ("300", "305", 14..=19),
    ("3095", "3095", 14..=19),
    ("36", "36", 14..=19),
    ("38", "39", 14..=19),
    // JCB, and RuPay with it.
    ("2131", "2131", 15..=15),
    ("1800", "1800", 15..=15),
    ("3528", "3589", 16..=19),
    // UATP.
    ("1", "1", 15..=15),
    // Maestro, Verve, RuPay, Discover, UnionPay, Troy, Elo, Hipercard.
    ("50", "50", 16..=19),
    ("56", "69", 16..=19),
    // Maestro has any length.
    ("5018", "5020", 13..=15),
    ("5038", "5038", 13..=15),
    ("5612", "5612", 13..=15),
    ("5893", "5893", 13..=15),
    ("6304", "6304", 13..=15),
    ("6759", "6763", 13..=15),
    // RuPay, UnionPay.
    ("81", "82", 16..=19),
    // Uzcard, Troy, Humo.
    ("8600", "8600", 16..=16),
    ("9792", "9792", 16..=16),
    ("9860", "9860", 16..=16),
];

/// Every tenth number passes the Luhn check by chance, so it must begin like a card of its length as well.
fn is_card_number(digits: &str) -> bool {
    let begins_like_a_card = ISSUERS.iter().any(|(from, to, lengths)| {
        lengths.contains(&digits.len()) && digits.get(..from.len()).is_some_and(|start| (*from..=*to).contains(&start))
    });
    begins_like_a_card && passes_luhn(digits) && !is_bar_code(digits)
}

/// EAN-13. No bank has issued cards of that length for decades; goods from Germany and Japan begin with a 4, too.
fn is_bar_code(digits: &str) -> bool {
    let weighed = |(place, digit): (usize, u8)| u32::from(digit - b'0') * if place % 2 == 0 { 1 } else { 3 };
    digits.len() == 13 && digits.bytes().enumerate().map(weighed).sum::<u32>().is_multiple_of(10)
}

fn passes_luhn(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .map(|digit| u32::from(digit - b'0'))
        .enumerate()
        .map(|(place, digit)| if place % 2 == 0 { digit } else { digit * 2 / 10 + digit * 2 % 10 })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use serde_json::json;

    fn check(body: Value, pointer: Option<&str>) {
        assert_eq!(find_card_data(&body).as_deref(), pointer, "{body}");
    }

    #[test]
    fn fields_named_after_card_data_are_refused_whatever_they_hold() {
        for name in ["cardNumber", "card_number", "CARD-NUMBER", "pan", "cvv", "CVC", "cvv2", "expiry", "exp_month"] {
            check(json!({ name: "x" }), Some(&format!("/{name}")));
        }
        check(json!({"c\u{200b}v\u{200b}v": "x"}), Some("/c\u{200b}v\u{200b}v"));
        check(json!({"ｃｖｖ": "x"}), Some("/ｃｖｖ"));
        check(json!({"payment": {"card": {"number": "x"}}}), Some("/payment/card/number"));
        check(json!({"cards": [{"ok": 1}, {"cvc": 123}]}), Some("/cards/1/cvc"));
    }

    #[test]
    fn fields_that_only_sound_similar_pass() {
        check(json!({"expiresAt": "2030-01-01", "company": "Pan Ltd", "discard": true, "number": 7}), None);
        check(json!({"paymentMethod": "CREDIT_CARD", "paymentToken": "tok_ok", "orderNumber": "ORD0000000018"}), None);
    }

    #[test]
    fn card_numbers_are_found_however_they_are_grouped() {
        for number in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            " 41 11 11 11 11 11 11 11 ",
            "3782 822463 10005",
            "378282246310005",
            "4222222222222",
            "5555\u{2013}5555\u{2013}5555\u{2013}4444",
            "6011000990139424",
            "30569309025904",
            "6304000000000000000",
        ] {
            check(json!({"paymentToken": number}), Some("/paymentToken"));
        }
    }

    #[test]
    fn card_numbers_are_found_inside_a_sentence() {
        for text in [
            "my card is 4111 1111 1111 1111, thanks",
            "card:4111111111111111",
            "4111111111111111 123 12/27",
            "2 x 4111-1111-1111-1111",
            "call +919876543210 4111111111111111",
            "https://a.example/?c=4111111111111111",
        ] {
            check(json!({"reason": text}), Some("/reason"));
        }
    }

    #[test]
    fn card_numbers_are_found_inside_a_token() {
        for token in [
            "tok_4111111111111111",
            "pm_4111111111111111",
            "pm-4111-1111-1111-1111",
            "tok_live_4111_1111_1111_1111",
            "tok_4-1-1-1-1-1-1-1-1-1-1-1-1-1-1-1",
            "card_378282246310005_x",
            "tok:4111111111111111",
            "card4111111111111111",
            "CardNumber4111 1111 1111 1111",
            "4111111111111111exp1227",
            "%B4111111111111111^RAO/ASHA^2712101",
            ";4111111111111111=27121010000000000000?",
        ] {
            check(json!({"paymentToken": token}), Some("/paymentToken"));
        }
    }

    #[test]
    fn card_numbers_are_found_whatever_stands_between_their_digits() {
        let unseen =
            "\u{200b}\u{200c}\u{200d}\u{2060}\u{feff}\u{ad}\u{180e}\u{2062}\u{fe0f}\u{20e3}\u{34f}\u{3164}\u{e0041}";
        let seen = " -._/|*:,;=~#·•\u{2010}\u{2014}\u{2212}\u{a0}\u{2009}\u{3000}\u{ff0d}\u{ff0e}\u{30fb}\u{2800}\n\t";
        for c in unseen.chars().chain(seen.chars()) {
            let grouped = ["4111", "1111", "1111", "1111"].join(&c.to_string());
            for text in [grouped.clone(), format!("c/o {grouped}, thanks"), format!("tok_{grouped}")] {
                assert!(mentions_card_number(&text), "U+{:04X} in {text:?}", u32::from(c));
            }
        }
        for c in unseen.chars() {
            let scattered: String = "4111111111111111".chars().flat_map(|digit| [digit, c]).collect();
            assert!(mentions_card_number(&format!("my card {scattered}")), "U+{:04X}", u32::from(c));
        }
        for text in [
            "4111 / 1111 / 1111 / 1111",
            "[4111] [1111] [1111] [1111]",
            "4.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1",
            "4111/1111-1111 1111",
        ] {
            assert!(mentions_card_number(text) && mentions_card_number(&format!("c/o {text}!")), "{text}");
        }
    }

    #[test]
    fn card_numbers_are_found_in_the_digits_of_any_script() {
        // The zeros of full-width, Arabic, Persian, Devanagari, Bengali, Tamil, Thai, Osmanya, bold and monospace digits.
        for zero in "\u{ff10}\u{660}\u{6f0}\u{966}\u{9e6}\u{be6}\u{e50}\u{104a0}\u{1d7ce}\u{1d7f6}".chars() {
            let written = |number: &str| -> String {
                let digit =
                    |c: char| c.to_digit(10).and_then(|value| char::from_u32(u32::from(zero) + value)).unwrap_or(c);
                number.chars().map(digit).collect()
            };
            for text in [
                "4111111111111111",
                "378282246310005",
                "6011000990139424",
                "card 4111 1111 1111 1111",
                "tok_5555555555554444",
            ] {
                check(json!({"note": written(text)}), Some("/note"));
            }
            check(json!({"note": written("4111111111111112")}), None);
        }
        for text in ["⁴¹¹¹¹¹¹¹¹¹¹¹¹¹¹¹", "④①①①①①①①①①①①①①①①", "4\u{661}\u{967}\u{ff11}111111111111"]
        {
            check(json!({"note": text}), Some("/note"));
        }
    }

    #[test]
    fn card_numbers_are_found_between_words_written_without_spaces() {
        for text in ["卡号4111111111111111谢谢", "कार्ड4111 1111 1111 1111है", "№4111111111111111"]
        {
            check(json!({"reason": text}), Some("/reason"));
        }
    }

    #[test]
    fn a_body_full_of_numbers_is_read_in_one_go() {
        check(json!({"note": "1111 ".repeat(50_000)}), None);
    }

    #[test]
    fn card_numbers_are_found_as_json_numbers() {
        check(json!([1, {"a/b": 4111111111111111_u64}]), Some("/1/a~1b"));
        check(serde_json::from_str(r#"{"x": 4.111111111111111e15}"#).expect("json"), Some("/x"));
        check(json!({"amount": 59050, "version": 12, "ratio": 0.5}), None);
    }

    #[test]
    fn a_card_number_as_a_field_name_is_found_but_not_repeated() {
        check(json!({"a": {"4111111111111111": true}}), Some("/a"));
        check(json!({"4111111111111111": true}), Some(""));
    }

    #[test]
    fn numbers_that_fail_the_luhn_check_or_have_other_lengths_pass() {
        for number in ["4111111111111112", "411111111117", "41111111111111111111", "ORD4111111111111111"] {
            check(json!({"note": number}), None);
        }
    }

    #[test]
    fn fields_of_bodies_that_carry_no_card_may_be_called_anything() {
        let tin = json!({"attributes": {"pan": "28 cm", "expiry": "12 months", "ean": "8901030865275"}});
        assert_eq!(find_card_number(&tin), None);
        let sly = json!({"attributes": {"colour": ["red", "4111 1111 1111 1111"]}});
        assert_eq!(find_card_number(&sly).as_deref(), Some("/attributes/colour/1"));
    }

    #[test]
    fn numbers_of_parcels_and_bar_codes_are_not_card_numbers() {
        for start in ["890103086527", "350123456789", "8612345678901", "97801430072", "71234567890123"] {
            let number = with_check_digit(start);
            assert!(!mentions_card_number(&number), "{number}");
        }
    }

    /// Luhn-valid variants on purpose: a test with a number that fails it would prove nothing.
    fn with_check_digit(start: &str) -> String {
        (0..10).map(|digit| format!("{start}{digit}")).find(|number| passes_luhn(number)).expect("one of ten")
    }

    #[test]
    fn ids_of_others_are_not_card_numbers() {
        for text in [
            "pm_1NvXhZ2eZvKYlo2CbGmHh4Lw",
            "pi_3MtwBwLkdIwHu7ix28a3tqPa",
            "tok_1N3T00LkdIwHu7ixt44h1F8k",
            "pay_29QQoUBi66xm2f",
            "order_9A33XWu170gUtm",
            "5O190127TN364715T",
            "WH-2WR32451HC0233532-67976317FL4543714",
            "tok_refund_fails_once",
            "tok_3ds",
            "ORD4111111111111111",
            "RMA4111111111111111",
            "EE123456789IN",
            "1Z12345E0205271688",
            "9400111899223033005436",
            "cart-0190a1b2-4111-7111-8111-111111111111:1",
            // Beginning and ending with the digits of a card.
            "4111111111111111abcdef0123456789abcdef0123456789abcdef0123456789",
            "e4111111111111111",
            "192.168.100.200:8080, 10.0.0.1:9090",
            "\u{200b}नमस्ते 👩\u{200d}🚀 1️⃣2️⃣",
        ] {
            check(json!({"paymentToken": text}), None);
        }
        // Each with its own check digit, which is Luhn's: an IMEI, a SIM card's number.
        for start in ["35693803564380", "86693803564380", "899110120000320451"] {
            check(json!({"note": format!("device {}", with_check_digit(start))}), None);
        }
    }

    #[test]
    fn bar_codes_that_begin_like_a_card_are_bar_codes() {
        let check_digit = |start: &str, passes: fn(&str) -> bool| {
            (0..10).map(|d| format!("{start}{d}")).find(|n| passes(n)).expect("one")
        };
        let both = (0..10_000)
            .map(|place| check_digit(&format!("40063{place:07}"), passes_luhn))
            .filter(|number| is_bar_code(number))
            .inspect(|number| check(json!({"ean": number}), None))
            .count();
        assert!(both > 500, "only {both} tried");
        check(json!({"ean": "4006381333931"}), None);
    }

    #[test]
    fn lists_sizes_dates_and_addresses_are_not_card_numbers() {
        // With any last digit, so one of the ten passes the Luhn check.
        for last in 0..10 {
            for text in [
                format!("42 44 46 48 50 52 54 5{last}"),
                format!("42/44/46/48/50/52/54/5{last}"),
                format!("fits models 4510, 4520, 4530, 454{last}"),
                format!("fits models 4510/4520/4530/454{last}/4550/4560"),
                format!("25/12/2025 - 01/01/202{last}"),
                format!("30.12.2025 10:00:0{last}"),
                format!("2025-12-25 - 2026-01-0{last}"),
                format!("2024-05-01T12:34:56.12345{last}Z"),
                format!("Mumbai 400001 987654321{last}"),
                format!("checkout-412-171456000000{last}"),
                format!("INV-4512-2024-0001{last}"),
                format!("+65 6512 3456, +65 6512 345{last}"),
                format!("0.4111{last} 52.520{last}, 13.405{last}"),
            ] {
                check(json!({"note": text}), None);
            }
        }
        check(json!({"ratio": 0.411_111_111_111_111_1, "other": 0.300_000_000_000_000_04}), None);
    }

    #[test]
    fn clock_readings_and_dates_are_not_card_numbers() {
        for start in ["173230000000", "173230000000000", "173230000000000000", "2024050112345", "000000000000000"] {
            check(json!({"idempotencyKey": with_check_digit(start)}), None);
        }
    }

    #[test]
    fn telephone_numbers_are_not_card_numbers() {
        let chinese = with_check_digit("861380013800");
        check(json!({"shippingAddress": {"phoneNumber": chinese}}), None);
        check(json!({"note": format!("+{chinese}")}), None);
        check(json!({"note": "ring +91 98765 43210 or +91-98765-43210"}), None);
        // No telephone number is that long.
        check(json!({"phoneNumber": "4111111111111111"}), Some("/phoneNumber"));
        check(json!({"note": "+4111111111111111"}), Some("/note"));
    }

    #[test]
    fn uuids_are_not_card_numbers_even_when_their_digits_pass_the_luhn_check() {
        for last in 0..10 {
            for uuid in [
                format!("550e8400-e29b-a716-4466-55440000111{last}"),
                format!("a1b2c3d4-4111-7111-8111-00000000000{last}"),
                format!("01234567-4111-7111-8111-12345678901{last}"),
                format!("cart-0190a1b2-0000-7000-8000-00000000000{last}:1"),
                format!("0190a1b2000070008000{last}00000000000"),
            ] {
                check(json!({"cartId": uuid}), None);
            }
        }
    }

    proptest! {
        #[test]
        fn no_uuid_is_a_card_number(number in any::<u128>(), digits in "[0-9]{32}", mixed in "[0-9]{13,19}[a-f][0-9a-f]{12}") {
            for uuid in [Some(Uuid::from_u128(number)), digits.parse().ok(), mixed.parse().ok()].into_iter().flatten() {
                for text in [uuid.to_string(), uuid.simple().to_string(), format!("tok_{uuid}"), format!("{uuid}:1")] {
                    prop_assert!(!mentions_card_number(&text), "{}", text);
                }
            }
        }
    }

    #[test]
    fn a_whole_checkout_without_card_data_passes() {
        check(
            json!({
                "cartId": "01930a7e-7b7c-7c11-9c2b-0123456789ab", "expectedTotal": "59050.00",
                "shippingAddress": {"recipientName": "Asha Rao", "addressLine1": "Plot 1411, Sector 41", "postalCode": "400001",
                    "city": "Mumbai", "state": "MH", "country": "IN", "phoneNumber": "+91 98765 43210"},
                "shippingMethod": "STANDARD", "paymentMethod": "UPI", "paymentToken": "tok_3ds", "couponCodes": ["SAVE20"],
            }),
            None,
        );
    }
}
