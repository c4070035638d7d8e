//! E-mail behind [`domain::ports::Mailer`]. Texts are written by `domain`; this only carries them.

mod mailbox;
mod message;
mod server;
mod smtp;

pub use mailbox::{DevMailbox, Stored};
pub use smtp::SmtpMailer;

/// Whether e-mail can be sent from that address, with a name before it perhaps.
///
/// # Errors
/// [`ConfigError::Sender`].
pub fn check_sender(from: &str) -> Result<(), ConfigError> {
    from.parse::<lettre::message::Mailbox>()?;
    Ok(())
}

/// A mailer cannot be made from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The sender is no e-mail address.
    #[error("the sender is not an e-mail address")]
    Sender(#[from] lettre::address::AddressError),
    /// The address of the mail server makes no sense.
    #[error("the mail server's address is not a usable smtp or smtps URL: {0}")]
    Server(&'static str),
}
