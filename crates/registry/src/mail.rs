//! Sends invitations by mail (RFC 5321), through one relay.

use std::{sync::Arc, time::Duration};

use hextet_mesh::token::Invitation;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::Mailbox,
    transport::smtp::{
        authentication::Credentials,
        client::{Tls, TlsParameters},
    },
};

use crate::{
    config::{Mail, Security},
    error::{RegistryError, Result},
};

/// For a whole conversation with the relay, command by command.
const PATIENCE: Duration = Duration::from_secs(20);
/// Octets in the longest address that is looked at (RFC 5321 §4.5.3.1.3).
const MAX_ADDRESS: usize = 254;

/// The way to the relay.
#[derive(Clone, Debug)]
pub struct Mailer {
    transport: Arc<AsyncSmtpTransport<Tokio1Executor>>,
    from: Mailbox,
    domains: Vec<String>,
}

impl Mailer {
    /// Sets it up; says nothing to the relay yet.
    ///
    /// # Errors
    ///
    /// What is configured can't be.
    pub fn new(mail: &Mail) -> Result<Self> {
        let setup = |what: &str, error: &dyn std::fmt::Display| {
            RegistryError::Setup(format!("`mail`: {what}: {error}"))
        };
        let from = mail.from.parse().map_err(|e| setup("`from`", &e))?;
        let tls = || TlsParameters::new(mail.relay.clone()).map_err(|e| setup("TLS", &e));
        let tls = match mail.security {
            Security::Tls => Tls::Wrapper(tls()?),
            Security::Starttls => Tls::Required(tls()?),
            Security::None => Tls::None,
        };
        let mut builder =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(mail.relay.clone())
                .port(mail.port)
                .tls(tls)
                .timeout(Some(PATIENCE));
        if let (Some(user), Some(file)) = (&mail.user, &mail.password_file) {
            let password = std::fs::read_to_string(file).map_err(|e| setup("read password", &e))?;
            let password = password.trim_end().to_owned();
            builder = builder.credentials(Credentials::new(user.clone(), password));
        }
        Ok(Mailer {
            transport: Arc::new(builder.build()),
            from,
            domains: mail.domains.iter().map(|d| d.to_lowercase()).collect(),
        })
    }

    /// Whether somebody with this address may ask for an invitation.
    pub fn invites(&self, email: &str) -> bool {
        let domain = email
            .rsplit_once('@')
            .map(|(_, domain)| domain.to_lowercase());
        domain.is_some_and(|domain| self.domains.contains(&domain))
    }

    /// Sends an invitation.
    ///
    /// # Errors
    ///
    /// The address is none, or the relay does not take the mail.
    pub async fn send(&self, to: &str, invitation: &Invitation) -> Result<()> {
        let to = mailbox(to)?;
        let text = format!(
            "You are invited to a mesh network. On the machine that shall be a node of it:\n\n\
             hextet mesh join '{}'\n\n\
             This counts once. Keep it to yourself.\n",
            invitation.text()
        );
        let message = Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject("Your invitation to a mesh network")
            .body(text)
            .map_err(|e| RegistryError::Mail(e.to_string()))?;
        let sent = self.transport.send(message).await;
        sent.map_err(|e| RegistryError::Mail(e.to_string()))?;
        Ok(())
    }
}

/// An address alone, without a name: names can hold what looks like several.
pub fn mailbox(text: &str) -> Result<Mailbox> {
    let bad = || RegistryError::Invalid("an address for mail is NAME@DOMAIN".into());
    if text.len() > MAX_ADDRESS {
        return Err(bad());
    }
    let address = text.parse::<lettre::Address>().map_err(|_| bad())?;
    Ok(Mailbox::new(None, address))
}
