use std::{net::IpAddr, time::Duration};

use proptest::prelude::*;
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    socket::tcp::{Socket, SocketBuffer},
    time::Instant,
    wire::{HardwareAddress, IpCidr},
};

use super::*;
use crate::{
    ADDRESS_LINK_LOCAL, ADDRESS_V4, ADDRESS_V6,
    samples::facts,
    stack::{MAX_CONNECTIONS, PATIENCE, Queue},
};

const LINK: u32 = 7;
const HOST: Mac = Mac::new([2, 0x68, 0x78, 0, 0, 1]);
const GUEST: Mac = Mac::new([2, 0, 0, 0, 0, 7]);

/// A workload, by another end of the same TCP.
struct Guest {
    interface: Interface,
    queue: Queue,
    sockets: SocketSet<'static>,
    next_port: u16,
}

fn instant(now: Time) -> Instant {
    Instant::from_micros(i64::try_from(now.as_nanos() / 1000).unwrap())
}

impl Guest {
    fn new() -> Guest {
        let mut queue = Queue::new(1430);
        let config = Config::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut queue, Instant::ZERO);
        interface.update_ip_addrs(|all| {
            for (address, len) in [("10.0.0.7", 24), ("fe80::7", 64), ("2001:db8::7", 64)] {
                let address: IpAddr = address.parse().unwrap();
                all.push(IpCidr::new(address.into(), len)).unwrap();
            }
        });
        let routes = interface.routes_mut();
        routes
            .add_default_ipv4_route("10.0.0.1".parse().unwrap())
            .unwrap();
        routes
            .add_default_ipv6_route("fe80::1".parse().unwrap())
            .unwrap();
        Guest {
            interface,
            queue,
            sockets: SocketSet::new(Vec::new()),
            next_port: 40_000,
        }
    }

    fn connect(&mut self, to: IpAddr) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 16_384]);
        let mut socket = Socket::new(buffer(), buffer());
        self.next_port += 1;
        let context = self.interface.context();
        socket.connect(context, (to, 80), self.next_port).unwrap();
        self.sockets.add(socket)
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Takes packets in; gives frames.
    fn turn(&mut self, packets: Vec<Vec<u8>>, now: Time) -> Vec<Vec<u8>> {
        let (at, queue, sockets) = (instant(now), &mut self.queue, &mut self.sockets);
        for packet in packets {
            queue.received = Some(packet);
            self.interface.poll_ingress_single(at, queue, sockets);
        }
        self.interface.poll(at, queue, sockets);
        let sent = std::mem::take(&mut queue.sent).into_iter();
        sent.map(|packet| frame::build(GUEST, HOST, &packet))
            .collect()
    }
}

type Nova = Box<dyn FnMut(&Question) -> Option<Answer>>;

/// A workload and its host, with a wire that loses what it is told to.
struct World {
    engine: Metadata,
    guest: Guest,
    now: Time,
    loses: Box<dyn FnMut() -> bool>,
    /// What others were asked.
    asked: Vec<Question>,
    /// What they answer, once the time has come.
    answers: Option<Nova>,
}

impl World {
    fn new(facts: Facts) -> World {
        let mut engine = Metadata::new(1);
        let facts = Arc::new(facts);
        engine.set_port(
            LINK,
            PortConfig {
                host_mac: HOST,
                facts,
            },
        );
        World {
            engine,
            guest: Guest::new(),
            now: Time::from_secs(1),
            loses: Box::new(|| false),
            asked: Vec::new(),
            answers: None,
        }
    }

    /// One whose workload Nova tells of itself.
    fn of_nova(answers: impl FnMut(&Question) -> Option<Answer> + 'static) -> World {
        let mut world = World::new(Facts {
            by_nova: true,
            ..facts()
        });
        world.answers = Some(Box::new(answers));
        world
    }

    fn packets(&mut self, actions: Vec<Action>) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for action in actions {
            let (link, frame) = match action {
                Action::Send { link, frame } => (link, frame),
                Action::Ask { link, question } => {
                    assert_eq!(link, LINK);
                    self.asked.push(question);
                    continue;
                }
            };
            assert_eq!(link, LINK);
            assert_eq!(frame[..12], [GUEST.octets(), HOST.octets()].concat());
            if !(self.loses)() {
                packets.push(frame[14..].to_vec());
            }
        }
        packets
    }

    /// Ten milliseconds.
    fn step(&mut self) {
        self.now += Duration::from_millis(10);
        let due = self.engine.next_wakeup().is_some_and(|at| at <= self.now);
        let actions = match due {
            true => self.engine.handle(Event::Timer, self.now),
            false => Vec::new(),
        };
        let mut packets = self.packets(actions);
        if let Some(mut answers) = self.answers.take() {
            for question in std::mem::take(&mut self.asked) {
                let answer = answers(&question);
                let actions = self.answered(&question, answer.as_ref());
                packets.extend(self.packets(actions));
            }
            self.answers = Some(answers);
        }
        loop {
            let frames = self.guest.turn(std::mem::take(&mut packets), self.now);
            if frames.is_empty() {
                return;
            }
            for bytes in frames {
                if !(self.loses)() {
                    let event = Event::Frame {
                        link: LINK,
                        bytes: &bytes,
                    };
                    let actions = self.engine.handle(event, self.now);
                    packets.extend(self.packets(actions));
                }
            }
        }
    }

    fn answered(&mut self, question: &Question, answer: Option<&Answer>) -> Vec<Action> {
        let event = Event::Answered {
            link: LINK,
            id: question.id,
            answer,
        };
        self.engine.handle(event, self.now)
    }

    /// Sends a request and reads until the other end closes, or a body of so many octets has come.
    fn ask(&mut self, to: IpAddr, request: &str, octets: usize) -> Vec<u8> {
        let handle = self.guest.connect(to);
        let (mut asked, mut answer) = (false, Vec::new());
        for _ in 0..60_000 {
            self.step();
            let socket = self.guest.socket(handle);
            if !asked && socket.can_send() {
                socket.send_slice(request.as_bytes()).unwrap();
                asked = true;
            }
            while socket.can_recv() {
                socket
                    .recv(|octets| {
                        answer.extend_from_slice(octets);
                        (octets.len(), ())
                    })
                    .unwrap();
            }
            let is_whole = answer.len() >= octets && body(&answer).len() >= octets;
            if is_whole || (asked && !socket.may_recv()) {
                socket.close();
                self.step();
                return answer;
            }
        }
        panic!("no answer to {request:?}, but {} octets", answer.len());
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

fn body(answer: &[u8]) -> &[u8] {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    &answer[end.expect("headers end") + 4..]
}

fn addresses() -> [IpAddr; 3] {
    [
        ADDRESS_V4.into(),
        ADDRESS_LINK_LOCAL.into(),
        ADDRESS_V6.into(),
    ]
}

#[test]
fn each_address_answers() {
    let mut world = World::new(facts());
    for to in addresses() {
        let answer = world.ask(to, &get("/latest/meta-data/instance-id"), usize::MAX);
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{to}");
        assert_eq!(body(&answer), b"5b1a", "{to}");
    }
    assert!(world.engine.stacks.is_empty(), "nothing is kept");
}

#[test]
fn a_connection_serves_several_requests() {
    let mut world = World::new(facts());
    let two = "HEAD /latest/user-data HTTP/1.1\r\n\r\n".to_owned() + &get("/openstack");
    let answer = world.ask(ADDRESS_V4.into(), &two, usize::MAX);
    let text = String::from_utf8(answer).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
    assert!(
        text.contains("Content-Length: 11\r\n") && text.ends_with("latest"),
        "{text}"
    );
}

#[test]
fn what_is_wrong_is_told() {
    let mut world = World::new(facts());
    for (request, status) in [
        ("GET /nothing HTTP/1.0\r\n\r\n", "404"),
        ("PUT /latest/api/token HTTP/1.0\r\n\r\n", "404"),
        (
            "POST /openstack HTTP/1.1\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            "405",
        ),
        ("hello\r\n\r\n", "400"),
    ] {
        let answer = world.ask(ADDRESS_V4.into(), request, usize::MAX);
        let text = String::from_utf8(answer).unwrap();
        assert!(
            text.starts_with(&format!("HTTP/1.1 {status}")),
            "{request:?}: {text}"
        );
    }
}

#[test]
fn who_waits_too_long_is_let_go() {
    let mut world = World::new(facts());
    let handles: Vec<_> = (0..=MAX_CONNECTIONS)
        .map(|_| world.guest.connect(ADDRESS_V4.into()))
        .collect();
    (0..50).for_each(|_| world.step());
    let open = handles
        .iter()
        .filter(|h| world.guest.socket(**h).may_send())
        .count();
    assert_eq!(open, MAX_CONNECTIONS, "one is refused");
    world.now += PATIENCE;
    (0..50).for_each(|_| world.step());
    let open = handles
        .iter()
        .filter(|h| world.guest.socket(**h).may_send())
        .count();
    assert_eq!(open, 0);
    assert!(world.engine.stacks.is_empty() && world.engine.next_wakeup().is_none());
}

#[test]
fn so_many_ports_have_connections() {
    let mut engine = Metadata::new(1);
    let facts = Arc::new(facts());
    let mut guest = Guest::new();
    guest.connect(ADDRESS_V6.into());
    let frames = guest.turn(Vec::new(), Time::ZERO);
    for link in 0..=u32::try_from(MAX_STACKS).unwrap() {
        let config = PortConfig {
            host_mac: HOST,
            facts: Arc::clone(&facts),
        };
        engine.set_port(link, config);
        let event = Event::Frame {
            link,
            bytes: &frames[0],
        };
        let answered = !engine.handle(event, Time::ZERO).is_empty();
        assert_eq!(
            answered,
            engine.stacks.len() <= MAX_STACKS && link < 512,
            "{link}"
        );
    }
    engine.remove_port(3);
    assert_eq!(engine.stacks.len(), MAX_STACKS - 1);
}

#[test]
fn a_port_gets_its_own_alone() {
    let mut world = World::new(facts());
    let other = Facts {
        instance_id: "other".to_owned(),
        ..facts()
    };
    let config = PortConfig {
        host_mac: HOST,
        facts: Arc::new(other),
    };
    world.engine.set_port(LINK + 1, config);
    let request = "GET /latest/meta-data/instance-id HTTP/1.0\r\nX-Instance-ID: other\r\n\
                   X-Forwarded-For: 10.0.0.8\r\n\r\n";
    assert_eq!(
        body(&world.ask(ADDRESS_V4.into(), request, usize::MAX)),
        b"5b1a"
    );
    world.engine.remove_port(LINK);
    world.guest.connect(ADDRESS_V4.into());
    (0..50).for_each(|_| world.step());
    assert!(world.engine.stacks.is_empty());
}

fn text(body: &str) -> Option<Answer> {
    Some(Answer {
        status: 200,
        content_type: "text/plain".to_owned(),
        body: body.as_bytes().to_vec(),
    })
}

/// In turn, on one connection: what a client asks, without its headers, and what is answered.
#[test]
fn nova_is_asked_and_its_answer_handed_on() {
    let mut world = World::of_nova(|question| {
        let body = String::from_utf8_lossy(&question.body);
        text(&format!("{} {} {body};", question.method, question.target))
    });
    for to in addresses() {
        let requests = "GET /a?b=c HTTP/1.1\r\nX-Instance-ID: other\r\n\r\n\
                        HEAD /openstack HTTP/1.1\r\n\r\n\
                        POST /openstack/latest/password HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
                        PUT /latest/api/token HTTP/1.1\r\n\r\n\
                        GET /end HTTP/1.0\r\n\r\n";
        let answer = world.ask(to, requests, usize::MAX);
        let text = String::from_utf8(answer).unwrap();
        let parts: Vec<&str> = text.split("HTTP/1.1 ").skip(1).collect();
        let ends = [
            "GET /a?b=c ;",
            "\r\n\r\n",
            "password abc;",
            "\r\n\r\n",
            "GET /end ;",
        ];
        let statuses = ["200", "200", "200", "405", "200"];
        assert_eq!(parts.len(), ends.len(), "{text}");
        for (part, (status, end)) in parts.iter().zip(statuses.into_iter().zip(ends)) {
            assert!(part.starts_with(status) && part.ends_with(end), "{part}");
        }
        assert!(!text.contains("other"), "{text}");
    }
    assert!(world.engine.stacks.is_empty(), "nothing is kept");
}

#[test]
fn where_nova_is_away_that_is_said() {
    let mut world = World::of_nova(|_| None);
    let answer = world.ask(ADDRESS_V4.into(), &get("/openstack"), usize::MAX);
    assert!(answer.starts_with(b"HTTP/1.1 503 "));
    // Nobody answers at all.
    world.answers = None;
    let handle = world.guest.connect(ADDRESS_V6.into());
    (0..50).for_each(|_| world.step());
    let socket = world.guest.socket(handle);
    socket.send_slice(get("/openstack").as_bytes()).unwrap();
    (0..50).for_each(|_| world.step());
    assert_eq!(world.asked.len(), 1);
    world.now += PATIENCE;
    (0..50).for_each(|_| world.step());
    assert!(world.engine.stacks.is_empty(), "it is let go");
    // An answer for nobody, also when others have come.
    let late = world.asked.remove(0);
    assert!(world.answered(&late, text("late").as_ref()).is_empty());
    world.answers = Some(Box::new(|_| text("own")));
    let answer = world.ask(ADDRESS_V6.into(), &get("/"), usize::MAX);
    assert_eq!(body(&answer), b"own");
}

/// Nobody keeps Nova busy by himself; with time it goes on.
#[test]
fn who_asks_too_often_is_told_so() {
    let mut world = World::of_nova(|_| text(""));
    let many = "GET / HTTP/1.1\r\n\r\n".repeat(150) + &get("/");
    let answer = world.ask(ADDRESS_V4.into(), &many, usize::MAX);
    let text = String::from_utf8(answer).unwrap();
    let count = |status: &str| text.matches(&format!("HTTP/1.1 {status} ")).count();
    assert_eq!(count("200") + count("429"), 151, "{text}");
    assert!((BURST as usize..140).contains(&count("200")), "{text}");
    world.now += REFILL * BURST;
    let answer = world.ask(ADDRESS_V4.into(), &get("/"), usize::MAX);
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
}

/// A stack that takes the place of another does not take its answers.
#[test]
fn an_answer_goes_to_who_has_asked() {
    let mut world = World::of_nova(|_| None);
    world.answers = None;
    let begin = |world: &mut World, path: &str| {
        let handle = world.guest.connect(ADDRESS_V4.into());
        (0..50).for_each(|_| world.step());
        let socket = world.guest.socket(handle);
        socket.send_slice(get(path).as_bytes()).unwrap();
        (0..50).for_each(|_| world.step());
        (handle, world.asked.remove(0))
    };
    let (_, first) = begin(&mut world, "/first");
    let config = world.engine.ports[&LINK].config.clone();
    world.engine.remove_port(LINK);
    world.engine.set_port(LINK, config);
    let (handle, second) = begin(&mut world, "/second");
    assert_ne!(first.id, second.id);
    let actions = world.answered(&first, text("first").as_ref());
    assert!(actions.is_empty());
    let actions = world.answered(&second, text("second").as_ref());
    let packets = world.packets(actions);
    world.guest.turn(packets, world.now);
    let socket = world.guest.socket(handle);
    let mut answer = vec![0; 1000];
    let octets = socket.recv_slice(&mut answer).unwrap();
    assert_eq!(body(&answer[..octets]), b"second");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However much of it is lost, all of a long answer comes in the end. (Its end by itself may not: this guest's TCP does not see a FIN
    /// in a segment that it has had before, and what ends the connection then is sent once.)
    #[test]
    fn losses_are_made_good(seed: u64, to in 0..3_usize) {
        let user_data: Vec<u8> = (0..50_000_u32).map(|n| (n % 251) as u8).collect();
        let mut world = World::new(Facts { user_data: Some(user_data.clone()), ..facts() });
        let mut state = seed | 1;
        world.loses = Box::new(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.is_multiple_of(20)
        });
        let answer = world.ask(addresses()[to], &get("/openstack/latest/user_data"), user_data.len());
        prop_assert_eq!(body(&answer), &user_data[..]);
    }

    /// Nothing that a workload sends ends the service.
    #[test]
    fn any_octets_are_survived(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..20),
        to in 0..3_usize,
    ) {
        let mut engine = Metadata::new(1);
        engine.set_port(LINK, PortConfig { host_mac: HOST, facts: Arc::new(facts()) });
        let mut guest = Guest::new();
        guest.connect(addresses()[to]);
        let syn = guest.turn(Vec::new(), Time::ZERO).remove(0);
        for (n, octets) in frames.into_iter().enumerate() {
            let mut bytes = syn.clone();
            // What follows the addresses is anything.
            let from = match to { 0 => 34, _ => 54 };
            bytes.truncate(from);
            bytes.extend(&octets);
            if to == 0 {
                let len = u16::try_from(bytes.len() - 14).unwrap();
                bytes[16..18].copy_from_slice(&len.to_be_bytes());
                bytes[24..26].fill(0);
            } else {
                let len = u16::try_from(octets.len()).unwrap();
                bytes[18..20].copy_from_slice(&len.to_be_bytes());
            }
            let now = Time::from_millis(n as u64 * 700);
            engine.handle(Event::Frame { link: LINK, bytes: &bytes }, now);
            engine.handle(Event::Timer, now);
        }
    }
}
