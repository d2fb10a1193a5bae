//! Stands for Nova: hears what it is told of ports, and takes all of it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use hextet_lab::Node;
use serde_json::{Value, json};

const ADDRESS: &str = "[::1]:8774";
/// Generous, since tests share a machine.
const LIMIT: Duration = Duration::from_secs(40);
/// No request is longer.
const MAX_BODY: usize = 1 << 20;

/// An event's name, and the port that it is about.
pub type Event = (String, String);

/// What is told.
pub struct Nova {
    heard: Receiver<Event>,
}

impl Nova {
    /// Listens in a namespace for as long as the test runs.
    pub fn listen(place: &Node) -> Nova {
        let listener = place.enter(|| TcpListener::bind(ADDRESS).unwrap()).unwrap();
        let (sender, heard) = mpsc::channel();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                for event in take(connection).unwrap_or_default() {
                    if sender.send(event).is_err() {
                        return;
                    }
                }
            }
        });
        Nova { heard }
    }

    /// How a server is told of it, which takes it for a service of the administrator's.
    pub fn configuration(password_file: &str) -> String {
        format!(
            "\n[nova]\nurl = \"http://{ADDRESS}/v2.1\"\nusername = \"admin\"\n\
             password_file = \"{password_file}\"\nproject = \"admin\"\n"
        )
    }

    /// Waits for that event; another one may come before it: an interface that is set while it is taken counts twice.
    #[track_caller]
    pub fn hears(&self, name: &str, port: &str) {
        let end = Instant::now() + LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.heard.recv_timeout(left);
            let event = event.unwrap_or_else(|_| panic!("not told of {name}"));
            if event == (name.to_owned(), port.to_owned()) {
                return;
            }
        }
    }

    /// All that was told by now.
    pub fn so_far(&self) -> Vec<Event> {
        self.heard.try_iter().collect()
    }
}

/// Reads one request, and answers it.
fn take(connection: TcpStream) -> Option<Vec<Event>> {
    connection.set_read_timeout(Some(LIMIT)).ok()?;
    let mut reader = BufReader::new(connection);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().ok()?;
            }
            _ if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    assert!(length <= MAX_BODY, "{length} octets");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut body: Value = serde_json::from_slice(&body).ok()?;
    let events = body["events"].as_array_mut()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let heard = events
        .iter()
        .map(|event| (text(&event["name"]), text(&event["tag"])));
    let heard = heard.collect();
    events
        .iter_mut()
        .for_each(|event| event["code"] = json!(200));
    let answer = body.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        answer.len()
    );
    let connection = reader.get_mut();
    connection.write_all((head + &answer).as_bytes()).ok()?;
    Some(heard)
}
