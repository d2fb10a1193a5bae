//! A router's gateway host is lost: its kernel, or its agent alone.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use hextet_lab::Node;
use hextet_types::Family;
use serde_json::json;

use super::{
    Tenant,
    outside::{Outside, is_announced},
};
use crate::{
    check::{expect, wait_for},
    fabric::INTERNET_V4,
};

/// How long new connections may fail when a gateway host is cut off.
const LOST: Duration = Duration::from_secs(3);
/// How long its agent alone is away.
const WITHOUT_AGENT: Duration = Duration::from_secs(60);
/// How long one attempt waits: as long as the first retransmission would take.
const ATTEMPT: Duration = Duration::from_millis(200);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// What the host outside listens at.
const PORT: u16 = 7007;
/// All links of a hypervisor.
const LINKS: [&str; 3] = ["up1", "up2", "mgmt"];

/// Connections, each a new one, from one place to an address, by which another place is reached.
struct Stream {
    what: &'static str,
    end: Arc<AtomicBool>,
    threads: [JoinHandle<Result<Vec<Attempt>>>; 2],
}

/// When an attempt began, and whether a word came back.
#[derive(Clone, Copy)]
struct Attempt {
    at: Instant,
    passed: bool,
}

impl Stream {
    fn start(
        what: &'static str,
        from: &Node,
        to: &Node,
        (at, inside): (SocketAddr, SocketAddr),
    ) -> Result<Stream> {
        let listener = to.enter(|| TcpListener::bind(inside))?;
        let listener = listener.with_context(|| format!("listen on {inside}"))?;
        listener.set_nonblocking(true)?;
        let end = Arc::new(AtomicBool::new(false));
        let (ends, ending) = (end.clone(), end.clone());
        let answerer = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => drop(answer(stream)),
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
            Ok(Vec::new())
        });
        let from = from.clone();
        let asker = thread::spawn(move || {
            let ask = || {
                let mut attempts = Vec::new();
                while !ending.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    let passed = ask(at).is_ok();
                    attempts.push(Attempt { at: begin, passed });
                    thread::sleep(PAUSE);
                }
                attempts
            };
            Ok(from.enter(ask)?)
        });
        Ok(Stream {
            what,
            end,
            threads: [asker, answerer],
        })
    }

    fn finish(self) -> Result<Vec<Attempt>> {
        self.end.store(true, Ordering::Relaxed);
        let [asker, answerer] = self.threads.map(JoinHandle::join);
        answerer.map_err(|_| anyhow!("who answers for {} has ended", self.what))??;
        asker.map_err(|_| anyhow!("who asks for {} has ended", self.what))?
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ATTEMPT))?;
    let mut octet = [0];
    stream.read_exact(&mut octet)?;
    stream.write_all(&octet)
}

fn ask(at: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&at, ATTEMPT)?;
    stream.set_read_timeout(Some(ATTEMPT))?;
    stream.write_all(&[1])?;
    stream.read_exact(&mut [0])
}

/// How long attempts failed that began from then on, until `until`; an error if they did at the end.
fn outage(attempts: &[Attempt], from: Instant, until: Instant) -> Result<Duration> {
    let mut within = attempts.iter().filter(|a| a.at >= from && a.at < until);
    let last = within
        .clone()
        .next_back()
        .context("no attempts were made")?;
    expect(last.passed, "new connections still fail at the end")?;
    let failed = within.rfind(|a| !a.passed);
    Ok(failed.map_or(Duration::ZERO, |a| a.at + ATTEMPT - from))
}

fn host_of(t: &Tenant, o: &Outside) -> Result<usize> {
    let router = t.admin.show("router", &o.router().id)?;
    let name = router["hextet:gateway_host"].as_str();
    let host = t.hosts.iter().position(|h| Some(h.name.as_str()) == name);
    host.with_context(|| format!("the router's gateway host is {name:?}"))
}

/// What happened when.
struct Story {
    cut: Instant,
    /// How long the record took to move.
    moved: Duration,
    back: Instant,
    killed: Instant,
    /// Where the routers are then.
    host: usize,
}

/// The gateway host is cut off: another takes over, new connections pass both ways. It comes back: the routers stay
/// where they are. The agent of the new one is killed: they stay, too.
pub fn lost(t: &mut Tenant, o: &Outside) -> Result<String> {
    let address = o.gateway_v4()?;
    // The third host, on which neither end of the connections is.
    let wanted = json!({"hextet:gateway_host": t.hosts[2].name});
    t.admin.update("router", &o.router().id, wanted)?;
    is_announced(t, address, 2)?;
    let streams = streams(t, o)?;
    thread::sleep(Duration::from_secs(1));
    let story = act(t, o, address)?;
    let mut words = Vec::new();
    for stream in streams {
        words.push(judge(stream, &story)?);
    }
    Ok(format!(
        "h3 cut off: {address} serves from {} after {} ms, new connections fail for: {}; its agent away for {} s: \
         it stays, and no connection failed",
        t.hosts[story.host].name,
        story.moved.as_millis(),
        words.join(", "),
        WITHOUT_AGENT.as_secs()
    ))
}

fn act(t: &mut Tenant, o: &Outside, address: IpAddr) -> Result<Story> {
    let cut = Instant::now();
    for link in LINKS {
        set_link(t, 2, link, "down")?;
    }
    let (host, moved) = wait_for(Duration::from_secs(20), || {
        let host = host_of(t, o)?;
        expect(host != 2, "the router is where it was")?;
        Ok((host, cut.elapsed()))
    })?;
    thread::sleep(Duration::from_secs(5));
    let back = Instant::now();
    for link in LINKS {
        set_link(t, 2, link, "up")?;
    }
    readdress(t, 2)?;
    t.hosts[2].wait_until_settled()?;
    thread::sleep(Duration::from_secs(3));
    let stays = host_of(t, o)? == host;
    expect(stays, "the router has moved when its former host came back")?;
    is_announced(t, address, host)?;
    let killed = Instant::now();
    t.hosts[host].kill_agent()?;
    while killed.elapsed() < WITHOUT_AGENT {
        thread::sleep(Duration::from_secs(1));
        let stays = host_of(t, o)? == host;
        expect(stays, "the router has moved while an agent alone was away")?;
    }
    t.hosts[host].start_agent(&t.lab)?;
    t.hosts[host].wait_until_settled()?;
    Ok(Story {
        cut,
        moved,
        back,
        killed,
        host,
    })
}

fn judge(stream: Stream, story: &Story) -> Result<String> {
    let what = stream.what;
    let attempts = stream.finish()?;
    let mut before = attempts.iter().filter(|a| a.at + ATTEMPT < story.cut);
    let failed = before.any(|a| !a.passed);
    expect(!failed, format!("{what}: connections failed before"))?;
    let lost = outage(&attempts, story.cut, story.back);
    let lost = lost.with_context(|| what.to_owned())?;
    let again = outage(&attempts, story.back, story.killed);
    let again = again.with_context(|| format!("{what}, the host is back"))?;
    let away = outage(&attempts, story.killed, Instant::now());
    let away = away.with_context(|| format!("{what}, an agent away"))?;
    expect(
        lost <= LOST,
        format!("{what}: {} ms without new connections", lost.as_millis()),
    )?;
    expect(
        away.is_zero(),
        format!("{what}: connections failed while an agent was away"),
    )?;
    Ok(format!(
        "{what} {} ms (its return {} ms)",
        lost.as_millis(),
        again.as_millis()
    ))
}

/// From inside by the shared address, and from outside to a forwarded port.
fn streams(t: &Tenant, o: &Outside) -> Result<[Stream; 2]> {
    let guest = o.shares_an_address();
    let outside = SocketAddr::new(INTERNET_V4.into(), PORT);
    let out = Stream::start("outbound", &guest.place, &t.internet, (outside, outside))?;
    let inside = guest.of(Family::V4)?;
    let (address, port): (IpAddr, u16) = o.forwarded(t)?;
    let ends = (SocketAddr::new(address, port), SocketAddr::new(inside, 80));
    let forwarded = Stream::start("forwarded", &t.internet, &guest.place, ends)?;
    Ok([out, forwarded])
}

fn set_link(t: &Tenant, host: usize, link: &str, state: &str) -> Result<()> {
    let Some(host) = t.hosts.get(host) else {
        bail!("no such host");
    };
    host.place.run(&["ip", "link", "set", link, state])?;
    Ok(())
}

/// A link that was down has lost its IPv6 address for management.
fn readdress(t: &Tenant, host: usize) -> Result<()> {
    let address = format!("fd00:10::{}/64", host + 1);
    let words = [
        "ip", "-6", "address", "replace", &address, "dev", "mgmt", "nodad",
    ];
    t.hosts
        .get(host)
        .context("no such host")?
        .place
        .run(&words)?;
    Ok(())
}
