//! Invitations by mail, to a relay that speaks SMTP.

use hextet_mesh::token::Invitation;
use hextet_registry::{
    client,
    message::{InviteRequest, TokenAnswer, TokenRequest},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    sync::mpsc,
};

use crate::bench::{Place, block_on, joined, refusal};

/// A mail as a relay gets it.
#[derive(Debug)]
struct Received {
    from: String,
    to: String,
    data: String,
}

/// RFC 5321: one mail for each connection. Refuses who is unknown to it.
async fn relay(listener: TcpListener, mails: mpsc::UnboundedSender<Received>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let (mut from, mut to) = (String::new(), String::new());
        write
            .write_all(b"220 relay.example ESMTP\r\n")
            .await
            .unwrap();
        while let Ok(Some(line)) = lines.next_line().await {
            let command = line.to_uppercase();
            let answer = if command.starts_with("EHLO") {
                "250 relay.example"
            } else if command.starts_with("MAIL FROM:") {
                from = line;
                "250 fine"
            } else if command.starts_with("RCPT TO:") && line.contains("unknown") {
                "550 no such mailbox"
            } else if command.starts_with("RCPT TO:") {
                to = line;
                "250 fine"
            } else if command.starts_with("DATA") {
                write.write_all(b"354 go on\r\n").await.unwrap();
                let mut data = String::new();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line == "." {
                        break;
                    }
                    data.push_str(&line);
                    data.push('\n');
                }
                let (from, to) = (from.clone(), to.clone());
                let _ = mails.send(Received { from, to, data });
                "250 taken"
            } else if command.starts_with("QUIT") {
                "221 bye"
            } else {
                "500 what?"
            };
            if write
                .write_all(format!("{answer}\r\n").as_bytes())
                .await
                .is_err()
            {
                break;
            }
        }
    }
}

/// Out of a mail's text, which may be quoted-printable (RFC 2045 §6.7).
fn invitation(mail: &Received) -> Invitation {
    let text = mail.data.replace("=\n", "").replace("=3D", "=");
    let text = text.split('\'').nth(1).unwrap();
    text.parse().unwrap()
}

#[test]
fn a_token_comes_by_mail() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mails, mut received) = mpsc::unbounded_channel();
        let relay = tokio::spawn(relay(listener, mails));
        let place = Place::new(&format!(
            "[mail]\nrelay = '127.0.0.1'\nport = {port}\nsecurity = 'none'\n\
             from = 'Mesh <mesh@example.org>'\ndomains = ['example.org']\n"
        ));
        let running = place.run().await;
        let door = place.door().await;
        let ask = |email: &str| InviteRequest {
            email: email.to_owned(),
        };
        let ask = async |email: &str| {
            client::ask::<()>(&door, "/mesh/v1/invite", Some(&ask(email))).await
        };
        ask("somebody@elsewhere.example").await.unwrap();
        ask("anna@example.org").await.unwrap();
        let mail = received.recv().await.unwrap();
        assert!(mail.from.contains("<mesh@example.org>"), "{mail:?}");
        assert!(
            mail.to.contains("<anna@example.org>"),
            "only ours: {mail:?}"
        );
        let certificate = joined(&invitation(&mail), 1).await;
        assert_eq!(certificate.body.serial, 1);
        assert!(
            refusal(ask("a@example.org\r\nRCPT TO:<b@example.org>").await).contains("NAME@DOMAIN")
        );

        let mut request = TokenRequest {
            class: "client".into(),
            groups: Vec::new(),
            minutes: 5,
            email: Some("bert@example.net".into()),
        };
        let made: TokenAnswer = place.ask("/token", &request).await;
        let mail = received.recv().await.unwrap();
        assert_eq!(invitation(&mail).text(), made.invitation);
        request.email = Some("unknown@example.net".into());
        let refused = place.try_ask::<TokenAnswer>("/token", Some(&request)).await;
        assert!(refusal(refused).contains("no such mailbox"));

        ask("anna@example.org").await.unwrap();
        received.recv().await.unwrap();
        ask("Anna@example.org").await.unwrap();
        received.recv().await.unwrap();
        // The sixth from one source.
        assert!(refusal(ask("anna@example.org").await).contains("too many requests"));
        running.stop().await;
        relay.abort();
    });
}
