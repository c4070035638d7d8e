//! Turns an [`Email`] into the RFC 5322 message that is sent or shown.

use domain::ports::{Email, MailError};
use lettre::Message;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;

/// The message, with the Message-ID the caller chose: a second send of the same e-mail is then
/// recognised as the same by whoever receives both.
///
/// # Errors
/// [`MailError::Refused`]: the recipient is no address, so no retry would help.
pub(super) fn message(from: &Mailbox, email: &Email) -> Result<Message, MailError> {
    let to: Mailbox = email.to.parse().map_err(|error| MailError::Refused(format!("the recipient: {error}")))?;
    Message::builder()
        .from(from.clone())
        .to(to)
        .subject(&email.subject)
        .message_id(Some(in_brackets(&email.message_id)))
        .header(ContentType::TEXT_PLAIN)
        .body(email.text.clone())
        .map_err(|error| MailError::Refused(format!("the message: {error}")))
}

/// RFC 5322 3.6.4 wants `<left@right>`; ids are kept without.
fn in_brackets(message_id: &str) -> String {
    let id = message_id.trim_start_matches('<').trim_end_matches('>');
    if id.contains('@') { format!("<{id}>") } else { format!("<{id}@cart-engine.invalid>") }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn email(to: &str) -> Email {
        Email {
            message_id: "order.confirmed.0190a1b2-0000-7000-8000-000000000001.email.1@shop.example".to_owned(),
            to: to.to_owned(),
            subject: "Your order ORD0000000018 – confirmed".to_owned(),
            text: "Thank you.\nTotal: 59050.00 INR\n".to_owned(),
            event: "order.confirmed".to_owned(),
            order_id: None,
        }
    }

    fn sent(email: &Email) -> String {
        let from = "Shop <orders@shop.example>".parse().expect("a mailbox");
        String::from_utf8(message(&from, email).expect("a message").formatted()).expect("ASCII")
    }

    #[test]
    fn the_message_id_is_the_callers_whole_and_in_brackets() {
        let text = sent(&email("asha@example.com"));
        let id = "<order.confirmed.0190a1b2-0000-7000-8000-000000000001.email.1@shop.example>";
        assert!(text.replace("\r\n ", " ").contains(&format!("Message-ID: {id}\r\n")), "{text}");
        let bare = Email { message_id: "<42>".to_owned(), ..email("asha@example.com") };
        assert!(sent(&bare).contains("Message-ID: <42@cart-engine.invalid>\r\n"));
    }

    #[test]
    fn a_subject_cannot_smuggle_in_a_header() {
        let sly = Email { subject: "Hello\r\nBcc: all@example.com".to_owned(), ..email("asha@example.com") };
        assert!(!sent(&sly).lines().any(|line| line.starts_with("Bcc:")));
    }

    #[test]
    fn a_message_id_cannot_smuggle_in_a_header() {
        let sly = Email { message_id: "1@x>\r\nBcc: all@example.com".to_owned(), ..email("asha@example.com") };
        assert!(!sent(&sly).lines().any(|line| line.starts_with("Bcc:")));
    }

    #[test]
    fn a_recipient_that_is_no_address_is_refused_for_good() {
        let from = "orders@shop.example".parse().expect("a mailbox");
        for to in ["", "nobody", "a@b@c"] {
            assert!(matches!(message(&from, &email(to)), Err(MailError::Refused(_))), "{to:?}");
        }
    }
}
