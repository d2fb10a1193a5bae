use std::time::Duration;

use axum::{body::Bytes, routing::post};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
};

use super::*;

/// A connection to a server that reads bodies; time passes when nothing else can.
fn connect() -> (
    DuplexStream,
    JoinHandle<Result<(), String>>,
    watch::Sender<bool>,
) {
    let (client, server) = duplex(1024);
    let (stop, stopping) = watch::channel(false);
    let router = Router::new().route("/", post(|body: Bytes| async move { body }));
    let ends = Ends {
        connection: None,
        certificate: None,
    };
    (
        client,
        tokio::spawn(http(server, ends, router, stopping)),
        stop,
    )
}

#[tokio::test(start_paused = true)]
async fn nobody_holds_a_connection_by_silence() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let whole = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx";
    for said in [
        b"".as_slice(),
        b"PRI * HTTP/2.0\r\n",
        preface,
        b"POST / HTTP/1.1\r\nhost: x\r\n",
        whole,
    ] {
        let (mut client, served, _stop) = connect();
        client.write_all(said).await.unwrap();
        // Ends by itself, or this never does.
        let _ = served.await.unwrap();
        drop(client);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_end_is_refused() {
    let (client, _served, _stop) = connect();
    let (mut reading, mut writing) = tokio::io::split(client);
    let head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n";
    writing.write_all(head).await.unwrap();
    let drip = tokio::spawn(async move {
        while writing.write_all(b"x").await.is_ok() {
            sleep(Duration::from_secs(5)).await;
        }
    });
    let mut answer = String::new();
    reading.read_to_string(&mut answer).await.unwrap();
    drip.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(
        answer.contains("not all of it came within 60 s"),
        "{answer}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_left() {
    let (mut client, served, _stop) = connect();
    let head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n";
    client.write_all(head).await.unwrap();
    client.write_all(&[b'x'; 100_000]).await.unwrap();
    assert!(served.await.unwrap().is_err());
}

#[test]
fn one_source_does_not_get_all_places() {
    let sources = Arc::new(Sources::default());
    let from = |text: &str| sources.take(Source::Network.of(text.parse().unwrap()));
    let held: Vec<_> = (0..MAX_OF_SOURCE)
        .map(|i| from(&format!("2001:db8::{i:x}")).unwrap())
        .collect();
    assert!(from("2001:db8::ffff:1").is_none(), "the same /64");
    assert!(from("2001:db8:0:1::1").is_some());
    let host = Source::Host.of("2001:db8::ffff:1".parse().unwrap());
    assert!(sources.take(host).is_some());
    let mapped: Vec<_> = (0..MAX_OF_SOURCE)
        .map(|_| from("::ffff:192.0.2.1").unwrap())
        .collect();
    assert!(from("192.0.2.1").is_none());
    assert!(from("192.0.2.2").is_some());
    drop((held, mapped));
    assert!(from("2001:db8::1").is_some());
    assert!(sources.0.lock().unwrap().is_empty());
}

#[test]
fn a_key_that_everybody_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.pem");
    std::fs::write(&path, "").unwrap();
    let set = |mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&path, permissions).unwrap();
        check_private(&path)
    };
    assert_eq!((set(0o600), set(0o640)), (Ok(()), Ok(())));
    let words = set(0o644).unwrap_err();
    assert!(
        words.contains("mode 644") && words.contains("chmod o="),
        "{words}"
    );
}
