use std::{io::ErrorKind, net::Ipv6Addr};

use super::*;

const CONN: ConnId = ConnId(7);
const NEXT_DOOR: TtlPolicy = TtlPolicy::Ttl(1);
/// Longer than anything takes that is not broken.
const LIMIT: Duration = Duration::from_secs(20);

/// A connection taken up, and its other end.
struct Pair {
    link: Link,
    client: TcpStream,
    happenings: mpsc::Receiver<Happening>,
    permits: Arc<Semaphore>,
}

impl Pair {
    async fn new(queue: usize) -> Pair {
        let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let permits = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
        let endpoint = endpoint(&stream).unwrap();
        assert_eq!(endpoint.remote, IpAddr::V6(Ipv6Addr::LOCALHOST));
        let incoming = Incoming {
            stream,
            endpoint,
            permit,
        };
        let (happenings_in, happenings) = mpsc::channel(queue);
        let link = take_up(CONN, incoming, NEXT_DOOR, &happenings_in).unwrap();
        Pair {
            link,
            client,
            happenings,
            permits,
        }
    }
}

/// All that comes until the connection's task has ended.
async fn rest(mut happenings: mpsc::Receiver<Happening>) -> Vec<Happening> {
    let mut all = Vec::new();
    while let Some(happening) = timeout(LIMIT, happenings.recv())
        .await
        .expect("the task ends")
    {
        all.push(happening);
    }
    all
}

#[tokio::test]
async fn what_was_sent_arrives_before_the_end_though_we_read_nothing_any_more() {
    let Pair {
        mut link,
        mut client,
        happenings,
        ..
    } = Pair::new(64).await;
    // Unread octets would make the kernel reset the connection.
    client.write_all(&[1; 8192]).await.unwrap();
    for _ in 0..16 {
        link.send(Bytes::from_static(&[7; 65_536])).unwrap();
    }
    drop(link);
    client.write_all(&[2; 8192]).await.unwrap();
    let mut read = Vec::new();
    timeout(LIMIT, client.read_to_end(&mut read))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read, vec![7; 16 * 65_536]);
    drop(client);
    let told = rest(happenings).await;
    assert!(
        !told.iter().any(|h| matches!(h, Happening::Closed(_))),
        "nothing after our own end"
    );
}

#[tokio::test]
async fn the_peer_s_end_is_told_once_and_after_what_it_said() {
    let Pair {
        link,
        mut client,
        happenings,
        permits,
    } = Pair::new(64).await;
    client.write_all(b"last words").await.unwrap();
    drop(client);
    let told = rest(happenings).await;
    let [Happening::Received(CONN, octets), Happening::Closed(CONN)] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(octets, "last words".as_bytes());
    assert_eq!(permits.available_permits(), 1);
    drop(link);
}

#[tokio::test]
async fn a_peer_that_resets_is_heard_to_the_end() {
    let Pair {
        mut link,
        mut client,
        mut happenings,
        ..
    } = Pair::new(64).await;
    client.write_all(b"last words").await.unwrap();
    // With something unread, closing resets.
    link.send(Bytes::from_static(b"unread")).unwrap();
    client.readable().await.unwrap();
    drop(client);
    let mut told = Vec::new();
    while let Some(happening) = timeout(LIMIT, happenings.recv()).await.unwrap() {
        drop(link.send(Bytes::from_static(b"more")));
        told.push(happening);
    }
    let closed = told
        .iter()
        .filter(|h| matches!(h, Happening::Closed(_)))
        .count();
    let received = told
        .iter()
        .any(|h| matches!(h, Happening::Received(_, o) if o == "last words"));
    assert_eq!((closed, received), (1, true), "{told:?}");
    assert!(matches!(told.last(), Some(Happening::Closed(_))));
}

#[tokio::test]
async fn what_was_written_is_told_in_full() {
    let Pair {
        mut link,
        mut client,
        mut happenings,
        ..
    } = Pair::new(64).await;
    link.send(Bytes::from_static(&[7; 1000])).unwrap();
    link.send(Bytes::from_static(&[7; 500])).unwrap();
    let mut read = [0; 1500];
    timeout(LIMIT, client.read_exact(&mut read))
        .await
        .unwrap()
        .unwrap();
    let mut written = 0;
    while written < 1500 {
        match timeout(LIMIT, happenings.recv()).await.unwrap() {
            Some(Happening::Written(CONN, octets)) => written += octets,
            other => panic!("{other:?}"),
        }
    }
    link.written(written);
    assert_eq!((written, link.waiting), (1500, 0));
}

/// Fills a connection from the peer's side until it takes no more.
fn fill(client: &TcpStream) -> usize {
    let mut sent = 0;
    loop {
        match client.try_write(&[9; 65_536]) {
            Ok(octets) => sent += octets,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return sent,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_peer_is_read_only_as_fast_as_the_engine_works() {
    let Pair {
        link,
        client,
        mut happenings,
        ..
    } = Pair::new(2).await;
    client.writable().await.unwrap();
    let sent = fill(&client);
    let mut received = 0;
    while received < sent {
        match timeout(LIMIT, happenings.recv()).await.unwrap() {
            Some(Happening::Received(CONN, octets)) => {
                assert!(octets.len() <= READ_SIZE);
                assert!(happenings.len() <= 2);
                received += octets.len();
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(received, sent);
    drop(link);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_is_given_up_at_the_bound_and_holds_nothing() {
    let Pair {
        mut link,
        client,
        happenings,
        permits,
    } = Pair::new(64).await;
    let piece = Bytes::from_static(&[7; 65_536]);
    for _ in 0..QUEUE_LIMIT / piece.len() {
        link.send(piece.clone()).unwrap();
    }
    assert!(link.send(Bytes::from_static(&[7])).is_err());
    drop(link);
    rest(happenings).await;
    assert_eq!(
        permits.available_permits(),
        1,
        "the task has ended though the peer took not all"
    );
    drop(client);
}

#[tokio::test]
async fn an_attempt_that_is_refused_is_told_once() {
    for remote in ["127.0.0.1", "::1"] {
        let attempt = Attempt {
            remote: remote.parse().unwrap(),
            interface: None,
            ttl: NEXT_DOOR,
            md5: None,
        };
        let (happenings_in, happenings) = mpsc::channel(8);
        let link = open(CONN, attempt, &happenings_in);
        drop(happenings_in);
        let told = rest(happenings).await;
        assert!(
            matches!(told.as_slice(), [Happening::Closed(CONN)]),
            "{told:?}"
        );
        drop(link);
    }
}

#[tokio::test]
async fn an_attempt_that_is_given_up_is_not_heard_of_again() {
    let attempt = Attempt {
        remote: "::1".parse().unwrap(),
        interface: None,
        ttl: TtlPolicy::Security(1),
        md5: None,
    };
    let (happenings_in, happenings) = mpsc::channel(8);
    drop(open(CONN, attempt, &happenings_in));
    drop(happenings_in);
    assert!(rest(happenings).await.is_empty());
}

#[tokio::test]
async fn accepting_ends_with_those_who_listen_and_waits_at_the_bound() {
    let socket = listening_socket(Family::V6, 0).unwrap();
    socket.listen(8).unwrap();
    let listener = TcpListener::from_std(socket.into()).unwrap();
    let to = SocketAddr::from((Ipv6Addr::LOCALHOST, listener.local_addr().unwrap().port()));
    let (happenings_in, mut happenings) = mpsc::channel(8);
    let accepting = tokio::spawn(accept(listener, Arc::new(Semaphore::new(1)), happenings_in));
    let _clients = (
        TcpStream::connect(to).await.unwrap(),
        TcpStream::connect(to).await.unwrap(),
    );
    let Some(Happening::Accepted(first)) = timeout(LIMIT, happenings.recv()).await.unwrap() else {
        panic!("nobody was accepted")
    };
    tokio::task::yield_now().await;
    assert!(happenings.try_recv().is_err(), "one at a time");
    drop(first);
    let second = timeout(LIMIT, happenings.recv()).await.unwrap();
    assert!(matches!(second, Some(Happening::Accepted(_))));
    drop((second, happenings));
    timeout(LIMIT, accepting).await.unwrap().unwrap();
}
