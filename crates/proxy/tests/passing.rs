//! Connections through the proxy, on loopback: real TLS, and clients that behave badly.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use hextet_proxy::{Backend, Limits, Proxy, Site, Sites, listen::Port};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, Stream,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{runtime::Runtime, sync::watch};

const PATIENCE: Duration = Duration::from_secs(10);

/// Two ports of a proxy, and how to change what it goes by.
struct Front {
    http: SocketAddr,
    https: SocketAddr,
    sites: watch::Sender<Arc<Sites>>,
    proxy: Proxy,
    _runtime: Runtime,
}

impl Front {
    fn start(limits: Limits, sites: Vec<Site>) -> Front {
        let runtime = Runtime::new().unwrap();
        let (tell, told) = watch::channel(Arc::new(sites.into_iter().collect()));
        let proxy = Proxy::new(told, limits);
        let listen = |port| {
            let _inside = runtime.enter();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (at, proxy) = (listener.local_addr().unwrap(), proxy.clone());
            runtime.spawn(async move { proxy.listen(&listener, port).await });
            at
        };
        Front {
            http: listen(Port::Http),
            https: listen(Port::Https),
            sites: tell,
            proxy,
            _runtime: runtime,
        }
    }
}

fn site(name: &str, http: Option<u16>, https: Option<u16>) -> Site {
    let backend = Backend {
        // Nobody listens at the first.
        addresses: vec![IpAddr::from([127, 9, 9, 9]), Ipv4Addr::LOCALHOST.into()],
        http,
        https,
        proxy_protocol: false,
    };
    (name.parse().unwrap(), backend)
}

/// A TLS server of that name that sends back what it is sent, line by line; and its certificate.
fn tls_server(name: &str) -> (u16, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, config) = (stream.unwrap(), Arc::clone(&config));
            thread::spawn(move || {
                let mut tls = ServerConnection::new(config).unwrap();
                let mut both = Stream::new(&mut tls, &mut stream);
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = both.read(&mut buffer) {
                    both.write_all(&buffer[..n]).unwrap();
                }
            });
        }
    });
    (port, certificate)
}

/// A client that believes this certificate alone.
fn tls_client(name: &str, believed: &CertificateDer<'static>) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(believed.clone()).unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap()
}

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn echoed(tls: &mut ClientConnection, stream: &mut TcpStream, text: &[u8]) -> Vec<u8> {
    let mut both = Stream::new(tls, stream);
    both.write_all(text).unwrap();
    let mut back = vec![0; text.len()];
    both.read_exact(&mut back).unwrap();
    back
}

fn said(mut stream: TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

#[test]
fn each_name_has_its_own_certificate_and_open_connections_outlive_the_table() {
    let (shop, shop_is) = tls_server("shop.example");
    let (blog, blog_is) = tls_server("blog.example");
    let front = Front::start(
        Limits::default(),
        vec![
            site("shop.example", None, Some(shop)),
            site("blog.example", None, Some(blog)),
        ],
    );
    let mut open = Vec::new();
    for (name, is) in [("shop.example", &shop_is), ("blog.example", &blog_is)] {
        let (mut tls, mut stream) = (tls_client(name, is), connect(front.https));
        assert_eq!(echoed(&mut tls, &mut stream, b"first"), b"first");
        open.push((tls, stream));
    }
    // From now on shop's name leads to blog, whose certificate is another.
    let swapped = [site("shop.example", None, Some(blog))];
    front
        .sites
        .send_replace(Arc::new(swapped.into_iter().collect()));
    for (tls, stream) in &mut open {
        let long = vec![7; 200_000];
        for part in long.chunks(4096) {
            assert_eq!(echoed(tls, stream, part), part);
        }
    }
    let (mut tls, mut stream) = (tls_client("shop.example", &shop_is), connect(front.https));
    let refused = tls.complete_io(&mut stream).unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
    let (mut tls, mut stream) = (tls_client("blog.example", &blog_is), connect(front.https));
    let refused = tls.complete_io(&mut stream).unwrap_err();
    assert!(
        refused.to_string().contains("UnrecognisedName"),
        "{refused}"
    );
}

#[test]
fn requests_go_where_their_host_says_and_others_are_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 512];
            let n = stream.read(&mut head).unwrap();
            stream.write_all(&head[..n]).unwrap();
        }
    });
    let with_client = Backend {
        proxy_protocol: true,
        ..site("x", Some(port), None).1
    };
    let front = Front::start(
        Limits::default(),
        vec![
            site("shop.example", Some(port), None),
            ("told.example".parse().unwrap(), with_client),
            site("away.example", Some(1), None),
        ],
    );
    let request = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let asked = request("Shop.example:80");
    assert_eq!(said(connect(front.http), &asked), asked);
    for (host, status) in [("else.example", "404"), ("away.example", "502")] {
        let answer = said(connect(front.http), &request(host));
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    let answer = said(connect(front.http), "HELO\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let stream = connect(front.http);
    let own = stream.local_addr().unwrap().port();
    let mut stream = stream;
    stream
        .write_all(request("told.example").as_bytes())
        .unwrap();
    let mut head = vec![0; 28];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head[..16], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
    assert_eq!(head[16..20], [127, 0, 0, 1]);
    assert_eq!(head[24..26], own.to_be_bytes());
}

#[test]
fn who_says_nothing_or_holds_too_much_is_cut_off() {
    let limits = Limits {
        connections: 6,
        of_one: 4,
        head: Duration::from_millis(500),
        ..Limits::default()
    };
    let front = Front::start(limits, Vec::new());
    let begun = Instant::now();
    let mut slow: Vec<TcpStream> = (0..4).map(|_| connect(front.https)).collect();
    for stream in &mut slow {
        stream.write_all(&[22]).unwrap();
    }
    thread::sleep(Duration::from_millis(100));
    assert_eq!(front.proxy.connections(), 6, "4 clients, 2 listeners");
    let mut fifth = connect(front.http);
    assert_eq!(
        fifth.read(&mut [0; 16]).unwrap_or(0),
        0,
        "it is one too many"
    );
    for stream in &mut slow {
        assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0);
    }
    assert!(begun.elapsed() < PATIENCE);
    let answer = said(connect(front.http), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}
