//! Keeps card numbers out: cards are paid by token or redirect only, so a request that carries
//! card data is refused before anything stores or logs it.

use serde_json::Value;

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

/// The JSON pointer (RFC 6901) of the first field that carries card data, or looks as if it did;
/// `None` when there is none. A field is caught by its name, whatever its value, or by a value, a
/// string or a number, that holds 13 to 19 digits passing the Luhn check (ISO/IEC 7812-1),
/// however they are grouped. The pointer never contains a card number itself.
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

/// Whether a card number stands in the text, alone or in a sentence.
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
                Some(float) if number.is_f64() && float.fract() == 0.0 => format!("{float:.0}"),
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
    key.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn is_card_field(name: &str) -> bool {
    CARD_FIELDS.contains(&name)
}

fn is_phone_field(name: &str) -> bool {
    ["phone", "phonenumber", "phoneno", "mobile", "mobilenumber"].iter().any(|phone| name.ends_with(phone))
}

fn holds_card_number(text: &str, is_phone: bool) -> bool {
    let shortest = if is_phone { LONGEST_PHONE_NUMBER + 1 } else { 13 };
    let is_card = |digits: &str| digits.len() >= shortest && is_card_number(digits);
    // The whole value is digits, grouped in any way.
    if text.chars().all(|c| c.is_ascii_digit() || is_separator(c)) && is_card(&digits_of(text)) {
        return true;
    }
    // Or they stand in a sentence: then only as one block, or grouped as on a card.
    runs(text).iter().any(|run| {
        (0..run.len()).any(|first| {
            // 19 digits are five groups at most, so a long list of numbers is still read in one go.
            (first + 1..=run.len().min(first + 5)).any(|end| {
                let groups = &run[first..end];
                is_grouped_as_on_a_card(groups) && is_card(&groups.concat())
            })
        })
    })
}

/// The groups of digits that follow each other with nothing but spaces and dashes in between.
/// A word with a letter in it (a uuid, a token, ORD…) ends a run and is in none; nor is a
/// telephone number, known by its plus.
fn runs(text: &str) -> Vec<Vec<&str>> {
    let mut runs = Vec::new();
    for phrase in
        text.split(|c: char| !(c.is_alphanumeric() || c.is_whitespace() || is_separator(c) || "_+".contains(c)))
    {
        let mut run = Vec::new();
        let mut is_phone = false;
        let mut finish = |run: &mut Vec<_>, is_phone: bool| {
            let groups: Vec<&str> = std::mem::take(run);
            let length: usize = groups.iter().map(|group| group.len()).sum();
            if !(is_phone && length <= LONGEST_PHONE_NUMBER) {
                runs.push(groups);
            }
        };
        for word in phrase.split_whitespace() {
            let number = word.strip_prefix('+').unwrap_or(word);
            let is_number = number.chars().all(|c| c.is_ascii_digit() || is_separator(c));
            if !is_number || word.starts_with('+') {
                finish(&mut run, is_phone);
                is_phone = is_number;
            }
            if is_number {
                run.extend(number.split(is_separator).filter(|group| !group.is_empty()));
            }
        }
        finish(&mut run, is_phone);
    }
    runs
}

/// Cards are embossed as one block, or as four digits and then groups of three to six.
fn is_grouped_as_on_a_card(groups: &[&str]) -> bool {
    match groups {
        [] => false,
        [_] => true,
        [first, rest @ ..] => first.len() == 4 && rest.iter().all(|group| (3..=6).contains(&group.len())),
    }
}

/// White space, and every dash from the hyphen to the horizontal bar.
fn is_separator(c: char) -> bool {
    c == '-' || c.is_whitespace() || ('\u{2010}'..='\u{2015}').contains(&c)
}

fn digits_of(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

/// Every tenth number passes the Luhn check by chance, and couriers' numbers and bar codes have 13 to 15 digits,
/// too. So numbers that begin like no card in use of their length are let go: leading zeros, `20…` (dates) and a
/// 1 (clock readings, in whatever unit), but for the 15 digits of a UATP card.
fn is_card_number(digits: &str) -> bool {
    let begins = |starts: &[&str]| starts.iter().any(|start| digits.starts_with(start));
    // Maestro has any length.
    let is_maestro = begins(&["5018", "5020", "5038", "5612", "5893", "6304", "6759", "6761", "6762", "6763"]);
    let begins_like_a_card = match digits.len() {
        13 => is_maestro || begins(&["4"]),
        14 => is_maestro || begins(&["30", "36", "38", "39"]),
        15 => is_maestro || begins(&["1", "34", "37", "2131", "1800"]),
        16..=19 => !begins(&["0", "1", "20"]),
        _ => false,
    };
    begins_like_a_card && passes_luhn(digits)
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
