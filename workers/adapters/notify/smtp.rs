//! E-mail over SMTP.
//!
//! The dialogue is led step by step, because one moment in it matters: before the final dot the server
//! does not have the message, whatever else went wrong; after it, silence says nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use domain::ports::{Email, MailError, Mailer};
use lettre::Message;
use lettre::message::Mailbox;
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::DEFAULT_MECHANISMS;
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{Extension, MailBodyParameter, MailParameter};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};

use super::ConfigError;
use super::message::message;
use super::server::{Encryption, Server};

/// Bytes of a message that are written at once.
const CHUNK: usize = 64 * 1024;
/// How long a connection may have lain idle and be used again.
const IDLE: Duration = Duration::from_secs(30);

/// How long one e-mail may take. A busy relay may accept a message long after it has it.
#[derive(Clone, Copy)]
struct Patience {
    /// From connecting to the final dot.
    handing_over: Duration,
    /// From then on, for the answer.
    answer: Duration,
}

const PATIENCE: Patience = Patience { handing_over: Duration::from_secs(10), answer: Duration::from_secs(20) };

/// Sends through one mail server, over a connection that is kept while there is work.
pub struct SmtpMailer {
    server: Server,
    from: Mailbox,
    patience: Patience,
    idle: Mutex<Option<(AsyncSmtpConnection, Instant)>>,
}

impl SmtpMailer {
    /// A mailer from `smtp_url`: `smtps://user:password@host`, `smtp://host:587?tls=required`, or
    /// plain `smtp://host:25`. `from` is the sender, `orders@shop.example` or with a name before it.
    ///
    /// # Errors
    /// [`ConfigError`] when either cannot be read. Nothing is connected yet.
    pub fn from_url(smtp_url: &str, from: &str) -> Result<SmtpMailer, ConfigError> {
        let server = Server::parse(smtp_url)?;
        Ok(SmtpMailer { server, from: from.parse()?, patience: PATIENCE, idle: Mutex::default() })
    }

    async fn connection(&self) -> Result<AsyncSmtpConnection, smtp::Error> {
        let kept = self.idle.lock().await.take();
        if let Some((mut connection, since)) = kept
            && since.elapsed() < IDLE
            && connection.test_connected().await
        {
            return Ok(connection);
        }
        let Server { host, port, hello, encryption, credentials } = &self.server;
        let tls = match encryption {
            Encryption::FromTheStart(tls) => Some(tls.clone()),
            Encryption::None | Encryption::StartTls(_) | Encryption::StartTlsIfOffered(_) => None,
        };
        let timeout = Some(self.patience.handing_over);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1((host.as_str(), *port), timeout, hello, tls, None).await?;
        match encryption {
            Encryption::StartTls(tls) => connection.starttls(tls.clone(), hello).await?,
            Encryption::StartTlsIfOffered(tls) if connection.can_starttls() => {
                connection.starttls(tls.clone(), hello).await?;
            }
            Encryption::None | Encryption::FromTheStart(_) | Encryption::StartTlsIfOffered(_) => {}
        }
        if let Some(credentials) = credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }

    /// The whole dialogue; `is_handed_over` is raised before the final dot is written.
    async fn converse(
        &self,
        message: &Message,
        is_handed_over: &AtomicBool,
    ) -> Result<AsyncSmtpConnection, smtp::Error> {
        let mut connection = self.connection().await?;
        let (envelope, content) = (message.envelope(), message.formatted());
        let mut parameters = Vec::new();
        let addresses = envelope.to().iter().chain(envelope.from());
        let is_international = addresses.map(AsRef::<str>::as_ref).any(|address| !address.is_ascii());
        if is_international && connection.server_info().supports_feature(Extension::SmtpUtfEight) {
            parameters.push(MailParameter::SmtpUtfEight);
        }
        if !content.is_ascii() && connection.server_info().supports_feature(Extension::EightBitMime) {
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        connection.command(Mail::new(envelope.from().cloned(), parameters)).await?;
        for recipient in envelope.to() {
            connection.command(Rcpt::new(recipient.clone(), Vec::new())).await?;
        }
        connection.command(Data).await?;
        // The end of the parts is asked for when all of them are written, and the dot is not.
        let the_dot = std::iter::from_fn(|| {
            is_handed_over.store(true, Ordering::SeqCst);
            None
        });
        connection.message_iter(content.chunks(CHUNK).chain(the_dot)).await?;
        Ok(connection)
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    fn name(&self) -> &'static str {
        "smtp"
    }

    async fn send(&self, email: &Email) -> Result<(), MailError> {
        let message = message(&self.from, email)?;
        let is_handed_over = AtomicBool::new(false);
        let no_answer = || MailError::Unanswered("no answer after the message was handed over".to_owned());
        let dialogue = self.converse(&message, &is_handed_over);
        tokio::pin!(dialogue);
        let ended = tokio::select! {
            ended = &mut dialogue => ended,
            () = sleep_until(Instant::now() + self.patience.handing_over) => {
                if !is_handed_over.load(Ordering::SeqCst) {
                    return Err(MailError::Unreachable("the mail server took too long".to_owned()));
                }
                timeout(self.patience.answer, dialogue).await.map_err(|_| no_answer())?
            }
        };
        match ended {
            Ok(connection) => {
                *self.idle.lock().await = Some((connection, Instant::now()));
                Ok(())
            }
            // A status is an answer, whenever it comes.
            Err(error) if is_handed_over.load(Ordering::SeqCst) && error.status().is_none() => {
                Err(MailError::Unanswered(error.to_string()))
            }
            Err(error) => Err(classified(&error)),
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

    /// A mail server for one connection that answers `answer` at the stage (`RCPT`, `.`, …), and returns all
    /// it was told. The answer `stalls` is none, with the line held; `hangs up` is none, without.
    async fn server(stage: &'static str, answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("smtp://{}", listener.local_addr().expect("an address"));
        let told = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            let mut told = String::new();
            let mut in_data = false;
            let mut next = Some("connect".to_owned());
            while let Some(line) = next {
                in_data = (in_data || line == "DATA") && line != ".";
                let usual = match line.as_str() {
                    "connect" => "220 test",
                    "." => "250 taken",
                    "DATA" => "354 go on",
                    "QUIT" => "221 bye",
                    _ => "250 test",
                };
                let reply = if line.starts_with(stage) { answer } else { usual };
                if !in_data || line == "DATA" {
                    match reply {
                        "stalls" => {}
                        "hangs up" => return told,
                        "is slow" => {
                            tokio::time::sleep(SHORT.handing_over * 2).await;
                            write.write_all(format!("{usual}\r\n").as_bytes()).await.expect("a patient client");
                        }
                        reply => write.write_all(format!("{reply}\r\n").as_bytes()).await.expect("a client"),
                    }
                }
                if reply == "250 taken" {
                    break;
                }
                next = lines.next_line().await.ok().flatten();
                told.push_str(next.as_deref().unwrap_or_default());
                told.push('\n');
            }
            told
        });
        (url, told)
    }

    const SHORT: Patience = Patience { handing_over: Duration::from_millis(700), answer: Duration::from_millis(2_000) };

    async fn send(url: &str) -> Result<(), MailError> {
        let mailer = SmtpMailer::from_url(url, "Shop <orders@shop.example>").expect("a mailer");
        SmtpMailer { patience: SHORT, ..mailer }.send(&email("asha@example.com")).await
    }

    #[tokio::test]
    async fn before_the_final_dot_the_server_does_not_have_it() {
        for stage in ["connect", "EHLO", "MAIL", "RCPT", "DATA"] {
            for way in ["stalls", "hangs up", "421 going down"] {
                let (url, _told) = server(stage, way).await;
                let sent = send(&url).await;
                assert!(matches!(sent, Err(MailError::Unreachable(_))), "{stage} {way}: {sent:?}");
            }
        }
    }

    #[tokio::test]
    async fn after_the_final_dot_only_an_answer_tells() {
        for way in ["stalls", "hangs up"] {
            let (url, _told) = server(".", way).await;
            let sent = send(&url).await;
            assert!(matches!(sent, Err(MailError::Unanswered(_))), "{way}: {sent:?}");
        }
        let (url, _told) = server(".", "451 try later").await;
        assert!(matches!(send(&url).await, Err(MailError::Unreachable(_))), "it said that it does not have it");
        let (url, _told) = server(".", "554 spam").await;
        assert!(matches!(send(&url).await, Err(MailError::Refused(_))));
    }

    #[tokio::test]
    async fn a_relay_that_takes_its_time_to_answer_is_waited_for() {
        let (url, _told) = server(".", "is slow").await;
        assert_eq!(send(&url).await, Ok(()));
    }

    #[tokio::test]
    async fn a_connection_is_used_again_while_it_lives() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("smtp://{}", listener.local_addr().expect("an address"));
        let connections = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            let (mut messages, mut in_data) = (0, false);
            write.write_all(b"220 test\r\n").await.expect("a client");
            while let Ok(Some(line)) = lines.next_line().await {
                messages += i32::from(line == ".");
                in_data = (in_data || line == "DATA") && line != ".";
                if !in_data {
                    write.write_all(b"250 ok\r\n").await.expect("a client");
                } else if line == "DATA" {
                    write.write_all(b"354 go on\r\n").await.expect("a client");
                }
            }
            messages
        });
        let mailer = SmtpMailer::from_url(&url, "orders@shop.example").expect("a mailer");
        for _ in 0..3 {
            mailer.send(&email("asha@example.com")).await.expect("sent");
        }
        drop(mailer);
        assert_eq!(connections.await.expect("a server"), 3);
    }

    #[tokio::test]
    async fn what_the_server_gets_carries_the_message_id() {
        let (url, told) = server("RCPT", "250 ok").await;
        assert!(send(&url).await.is_ok());
        let told = told.await.expect("a server");
        assert!(told.contains("RCPT TO:<asha@example.com>"), "{told}");
        assert!(told.contains("0190a1b2-0000-7000-8000-000000000001.email.1@shop.example>"), "{told}");
    }

    #[tokio::test]
    async fn a_refused_recipient_is_final_and_a_busy_server_is_not() {
        let (url, _) = server("RCPT", "550 no such mailbox").await;
        assert!(matches!(send(&url).await, Err(MailError::Refused(_))));
        let (url, _) = server("RCPT", "451 try later").await;
        assert!(matches!(send(&url).await, Err(MailError::Unreachable(_))));
        let (url, _) = server("RCPT", "530 log in first").await;
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
