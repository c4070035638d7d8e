//! E-mail over SMTP.

use std::time::Duration;

use async_trait::async_trait;
use domain::ports::{Email, MailError, Mailer};
use lettre::message::Mailbox;
use lettre::transport::smtp;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

use super::ConfigError;
use super::message::message;

/// How long one e-mail may take, connecting included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends through one mail server, over a pool of connections.
#[derive(Clone)]
pub struct SmtpMailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl SmtpMailer {
    /// A mailer from `smtp_url`: `smtps://user:password@host`, `smtp://host:587?tls=required`, or
    /// plain `smtp://host:25`. `from` is the sender, `orders@shop.example` or with a name before it.
    /// Must be called within a tokio runtime, which keeps the pool tidy.
    ///
    /// # Errors
    /// [`ConfigError`] when either cannot be read. Nothing is connected yet.
    pub fn from_url(smtp_url: &str, from: &str) -> Result<SmtpMailer, ConfigError> {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(smtp_url)
            .map_err(ConfigError::Server)?
            .timeout(Some(TIMEOUT))
            .build();
        Ok(SmtpMailer { transport, from: from.parse()? })
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    async fn send(&self, email: &Email) -> Result<(), MailError> {
        let message = message(&self.from, email)?;
        // The transport bounds each command; together they could take far longer.
        match tokio::time::timeout(TIMEOUT, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(classified(&error)),
            Err(_) => Err(MailError::Unreachable("the mail server took too long".to_owned())),
        }
    }
}

/// A 5xx is final, except where it is about us and not about the e-mail: RFC 4954's answers to a
/// missing or wrong login (530, 534, 535, 538) end when an operator mends the configuration.
fn classified(error: &smtp::Error) -> MailError {
    let code = error.status().map(u16::from);
    let ours = matches!(code, Some(530 | 534 | 535 | 538));
    if error.is_permanent() && !ours {
        MailError::Refused(error.to_string())
    } else {
        MailError::Unreachable(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::message::tests::email;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::TcpListener;

    /// A mail server for one connection that answers RCPT with `answer` and returns all it was told.
    async fn server(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("smtp://{}", listener.local_addr().expect("an address"));
        let told = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            let mut told = String::new();
            let mut in_data = false;
            write.write_all(b"220 test\r\n").await.expect("a listening client");
            while let Ok(Some(line)) = lines.next_line().await {
                told.push_str(&line);
                told.push('\n');
                let reply = match line.as_str() {
                    "." => {
                        in_data = false;
                        "250 taken"
                    }
                    _ if in_data => continue,
                    "DATA" => {
                        in_data = true;
                        "354 go on"
                    }
                    line if line.starts_with("RCPT") => answer,
                    "QUIT" => "221 bye",
                    _ => "250 test",
                };
                if write.write_all(format!("{reply}\r\n").as_bytes()).await.is_err() || reply.starts_with("221") {
                    break;
                }
                if reply == "250 taken" {
                    break;
                }
            }
            told
        });
        (url, told)
    }

    async fn send(url: &str) -> Result<(), MailError> {
        SmtpMailer::from_url(url, "Shop <orders@shop.example>")
            .expect("a mailer")
            .send(&email("asha@example.com"))
            .await
    }

    #[tokio::test]
    async fn what_the_server_gets_carries_the_message_id() {
        let (url, told) = server("250 ok").await;
        assert!(send(&url).await.is_ok());
        let told = told.await.expect("a server");
        assert!(told.contains("RCPT TO:<asha@example.com>"), "{told}");
        assert!(told.contains("0190a1b2-0000-7000-8000-000000000001.email.1@shop.example>"), "{told}");
    }

    #[tokio::test]
    async fn a_refused_recipient_is_final_and_a_busy_server_is_not() {
        let (url, _) = server("550 no such mailbox").await;
        assert!(matches!(send(&url).await, Err(MailError::Refused(_))));
        let (url, _) = server("451 try later").await;
        assert!(matches!(send(&url).await, Err(MailError::Unreachable(_))));
        let (url, _) = server("530 log in first").await;
        assert!(matches!(send(&url).await, Err(MailError::Unreachable(_))));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unreachable() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("smtp://{}", listener.local_addr().expect("an address"));
        drop(listener);
        assert!(matches!(send(&url).await, Err(MailError::Unreachable(_))));
    }

    #[tokio::test]
    async fn a_configuration_that_makes_no_sense_is_refused() {
        assert!(matches!(SmtpMailer::from_url("http://x", "a@b.example"), Err(ConfigError::Server(_))));
        assert!(matches!(SmtpMailer::from_url("smtp://x", "nobody"), Err(ConfigError::Sender(_))));
    }
}
