//! E-mail: one message per notice over a connection of its own, by STARTTLS, TLS, or in plain text to a relay.

use std::time::Duration;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::render::Templates;
use super::{Delivery, chain, secret, shown};
use crate::domain::Notice;
use crate::files::config::{EmailConfig, EmailTls};

/// The whole conversation must be over after this.
const DEADLINE: Duration = Duration::from_secs(60);
/// Each step of it.
const STEP: Duration = Duration::from_secs(20);
const SUBJECT: usize = 200;
const TEXT: usize = 20_000;

pub(super) async fn send(config: &EmailConfig, notice: &Notice, templates: &Templates) -> Delivery {
    let later = |why: String, secrets: &[&str]| Delivery::Later { after: None, why: shown(&why, secrets) };
    let message = match compose(config, notice, templates) {
        Ok(message) => message,
        Err(why) => return Delivery::Never { why },
    };
    let password = match config.login.as_ref().map(|(_, file)| secret("password", file)).transpose() {
        Ok(password) => password.unwrap_or_default(),
        Err(why) => return later(why, &[]),
    };
    let transport = match transport(config, &password) {
        Ok(transport) => transport,
        Err(why) => return later(why, &[&password]),
    };
    match tokio::time::timeout(DEADLINE, transport.send(message)).await {
        Ok(Ok(_)) => Delivery::Delivered,
        Ok(Err(error)) => {
            let why = shown(&format!("{}:{}: {}", config.host, config.port, chain(&error)), &[&password]);
            let code = error.status().map(u16::from);
            // A login that is refused may be mended; an address that is refused will be refused again.
            match code {
                Some(550..=554) => Delivery::Never { why },
                Some(_) | None => Delivery::Later { after: None, why },
            }
        }
        Err(_) => {
            later(format!("{}:{} did not take it within {} s", config.host, config.port, DEADLINE.as_secs()), &[])
        }
    }
}

fn compose(config: &EmailConfig, notice: &Notice, templates: &Templates) -> Result<Message, String> {
    let mailbox = |text: &str| text.parse::<Mailbox>().map_err(|error| format!("`{text}` is no address: {error}"));
    let from = mailbox(&config.from)?;
    let host = from.email.domain().to_owned();
    let mut builder: MessageBuilder = Message::builder()
        .from(from)
        .subject(templates.title(notice, SUBJECT))
        // The same in every delivery, so that mailboxes can drop a second one.
        .message_id(Some(format!("<{}@{host}>", notice.id)))
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()))
        .header(ContentType::TEXT_PLAIN);
    for to in &config.to {
        builder = builder.to(mailbox(to)?);
    }
    builder.body(templates.plain(notice, TEXT)).map_err(|error| chain(&error))
}

fn transport(config: &EmailConfig, password: &str) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    // Already installed by somebody else in this process is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tls = match config.tls {
        EmailTls::None => Tls::None,
        EmailTls::StartTls => Tls::Required(parameters(config)?),
        EmailTls::Tls => Tls::Wrapper(parameters(config)?),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host)
        .port(config.port)
        .timeout(Some(STEP))
        .hello_name(ClientId::Domain("localhost".to_owned()))
        .tls(tls);
    if let Some((user, _)) = &config.login {
        builder = builder.credentials(Credentials::new(user.clone(), password.to_owned()));
    }
    Ok(builder.build())
}

fn parameters(config: &EmailConfig) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(config.host.clone());
    if let Some(file) = &config.ca_file {
        let unusable = |why: String| format!("{}: {why}", file.display());
        let pem = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
        let authority = Certificate::from_pem(&pem).map_err(|error| unusable(error.to_string()))?;
        builder = builder
            .certificate_store(lettre::transport::smtp::client::CertificateStore::None)
            .add_root_certificate(authority);
    }
    builder.build_rustls().map_err(|error| chain(&error))
}
