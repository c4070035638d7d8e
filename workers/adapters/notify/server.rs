//! Which mail server, as its URL says: `smtp` or `smtps`, and `tls=required` or `tls=opportunistic`.

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::TlsParameters;
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{SMTP_PORT, SUBMISSION_PORT, SUBMISSIONS_PORT};
use percent_encoding::percent_decode_str;
use url::Url;

use super::ConfigError;

/// Where the mail server is and how it is spoken to.
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    /// How we introduce ourselves: the URL's path, or this machine's name.
    pub(super) hello: ClientId,
    pub(super) encryption: Encryption,
    pub(super) credentials: Option<Credentials>,
}

/// When the line is encrypted.
pub(super) enum Encryption {
    None,
    FromTheStart(TlsParameters),
    StartTls(TlsParameters),
    StartTlsIfOffered(TlsParameters),
}

impl Server {
    /// # Errors
    /// [`ConfigError::Server`], without the URL's text: it may hold a password.
    pub(super) fn parse(url: &str) -> Result<Server, ConfigError> {
        let url = Url::parse(url).map_err(|_| ConfigError::Server("it is no URL"))?;
        let host = url.host_str().ok_or(ConfigError::Server("it names no host"))?.to_owned();
        let tls = || TlsParameters::new(host.clone()).map_err(|_| ConfigError::Server("its host has no certificate"));
        let wanted = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value.into_owned());
        let (encryption, port) = match (url.scheme(), wanted.as_deref()) {
            ("smtp", None) => (Encryption::None, SMTP_PORT),
            ("smtp", Some("required")) => (Encryption::StartTls(tls()?), SUBMISSION_PORT),
            ("smtp", Some("opportunistic")) => (Encryption::StartTlsIfOffered(tls()?), SUBMISSION_PORT),
            ("smtps", _) => (Encryption::FromTheStart(tls()?), SUBMISSIONS_PORT),
            _ => return Err(ConfigError::Server("it must begin with smtp or smtps; tls is required or opportunistic")),
        };
        let hello = match url.path().trim_matches('/') {
            "" => ClientId::default(),
            name => ClientId::Domain(name.to_owned()),
        };
        let text = |encoded: &str| {
            let decoded = percent_decode_str(encoded).decode_utf8();
            decoded.map(|text| text.into_owned()).map_err(|_| ConfigError::Server("its login is no UTF-8"))
        };
        let credentials = match url.password() {
            Some(password) => Some(Credentials::new(text(url.username())?, text(password)?)),
            None => None,
        };
        Ok(Server { port: url.port().unwrap_or(port), host, hello, encryption, credentials })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_how_the_server_is_spoken_to() {
        for (url, port, encryption) in [
            ("smtp://mail.example", 25, "plain"),
            ("smtp://mail.example:2525", 2525, "plain"),
            ("smtps://mail.example", 465, "from the start"),
            ("smtp://mail.example?tls=required", 587, "starttls"),
            ("smtp://mail.example?tls=opportunistic", 587, "starttls if offered"),
        ] {
            let server = Server::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            let spoken = match server.encryption {
                Encryption::None => "plain",
                Encryption::FromTheStart(_) => "from the start",
                Encryption::StartTls(_) => "starttls",
                Encryption::StartTlsIfOffered(_) => "starttls if offered",
            };
            assert_eq!((server.host.as_str(), server.port, spoken), ("mail.example", port, encryption), "{url}");
        }
    }

    #[test]
    fn a_login_is_decoded_and_a_path_is_our_name() {
        let server = Server::parse("smtps://shop%40example.com:p%40ss@mail.example/shop.example").expect("a server");
        let login = Credentials::new("shop@example.com".to_owned(), "p@ss".to_owned());
        assert!(server.credentials == Some(login));
        assert_eq!(server.hello, ClientId::Domain("shop.example".to_owned()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_being_repeated() {
        for url in ["http://user:hunter2@x", "smtp:", "smtp://x?tls=perhaps", "hunter2"] {
            let Err(error) = Server::parse(url) else { panic!("{url} was taken") };
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
