//! Commands of one host by itself.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::{Child, ExitCode, ExitStatus},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use hextet_kernel::{host, workload::attach};
use hextet_proxy::HostName;
use hextet_single::{
    Asked, Cloud, Places, Settings, Uplink, delegation, down as downing,
    expose::{self as exposing, Exposure},
    keeper,
    proposal::Proposal,
    serve, service, sites,
    workload::{self, Wanted},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    block_on,
    host::{await_port, wait_until_active},
};
use crate::{
    cli::{Down, Expose, Proxy as ProxyOptions, Run, Up},
    show,
};

/// `hextet up`.
pub fn up(up: &Up) -> Result<ExitCode> {
    let places = up.places.places();
    if up.foreground {
        block_on(serve::run(places))?;
        return Ok(ExitCode::SUCCESS);
    }
    let begun = Instant::now();
    let by_systemd = service::is_systemd() && !up.background;
    let asked = asked(up, &places)?;
    let host = host::look()?;
    let offered = match asked.delegation() {
        true => delegation::offers(&host, &asked)?,
        false => Vec::new(),
    };
    let uplink = Uplink::understand(&host, &asked, &offered)?;
    let proposal = Proposal::new(
        uplink,
        (&places, by_systemd),
        &hextet_doctor::rules_of_others()?,
    );
    match up.output.json {
        true => println!("{}", serde_json::to_string_pretty(&proposal)?),
        false => print!("{}", proposal.text()),
    }
    if up.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    refuse_if_up(&places)?;
    let settings = Settings { asked };
    places.set_up(&settings, &proposal.uplink)?;
    service::start(&places, by_systemd)?;
    keeper::wait(&places, &proposal.uplink)?;
    if !up.output.json {
        println!(
            "\nUp after {:.1} s. Try: hextet run --name web -- python3 -m http.server --bind :: 80",
            begun.elapsed().as_secs_f32()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// What was asked for before counts where nothing else is asked for.
fn asked(up: &Up, places: &Places) -> Result<Asked> {
    match up.asked() {
        nothing if nothing == Asked::default() && places.is_set_up() => {
            Ok(places.settings()?.asked)
        }
        asked => Ok(asked),
    }
}

fn refuse_if_up(places: &Places) -> Result<()> {
    if let Some(pid) = service::running(places) {
        bail!(
            "hextet is up already (process {pid}): nothing was changed; 'hextet down --keep' first, to set it up otherwise"
        );
    }
    Ok(())
}

/// `hextet down`.
pub fn down(down: &Down) -> Result<ExitCode> {
    let downed = downing::down(&down.places.places(), down.keep)?;
    for name in &downed.workloads {
        println!("{name} has ended.");
    }
    println!(
        "{} objects removed or restored; the host is as it was.",
        downed.objects
    );
    Ok(ExitCode::SUCCESS)
}

/// `hextet run`: as the command ends, so does this.
pub fn run(run: &Run) -> Result<ExitCode> {
    let places = run.places.places();
    places.settings()?;
    let (name, is_named) = match &run.name {
        Some(name) => (name.clone(), true),
        None => (format!("run-{}", std::process::id()), false),
    };
    let wanted = Wanted {
        name: name.clone(),
        network: run.network.clone(),
        groups: run.groups.clone(),
    };
    let cloud = Cloud::open(&places)?;
    let ready = workload::port(&cloud, places.agent()?.host_id(), &wanted)?;
    let ended = start(&places, &name, &ready).and_then(|()| {
        let addresses = ready.addresses().into_iter();
        let addresses: Vec<_> = addresses.map(|a| a.to_string()).collect();
        eprintln!("{name}: {}", addresses.join(" "));
        block_on(until_ended(workload::spawn(&name, &run.command)?))
    });
    let cleared = workload::clear(&places, &name, true);
    if !is_named {
        cloud.delete("ports", &ready.port.to_string())?;
    }
    let status = ended?;
    cleared?;
    Ok(exit_code(status))
}

fn start(places: &Places, name: &str, ready: &workload::Ready) -> Result<()> {
    let socket = places.agent_socket();
    workload::prepare(places, name, ready, |netns, interface| {
        let status = await_port(&socket, &ready.port.to_string())?;
        attach(&workload::veth(&status, netns, interface))?;
        wait_until_active(&socket, ready.port).with_context(|| format!("{name} is plugged in, but"))
    })
}

/// Hands on what this process is told; the terminal tells the command itself.
async fn until_ended(mut child: Child) -> Result<ExitStatus> {
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut hang_up = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut waiting = tokio::task::spawn_blocking(move || child.wait());
    loop {
        let signal = tokio::select! {
            ended = &mut waiting => return Ok(ended??),
            _ = terminate.recv() => Signal::SIGTERM,
            _ = hang_up.recv() => Signal::SIGHUP,
            _ = interrupt.recv() => continue,
        };
        let _ = kill(pid, signal);
    }
}

/// As shells have it: 128 more than the signal's number.
fn exit_code(status: ExitStatus) -> ExitCode {
    let by_signal = status.signal().map(|signal| 128 + signal);
    let code = status.code().or(by_signal).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// `hextet expose`.
pub fn expose(expose: &Expose) -> Result<ExitCode> {
    let places = expose.places.places();
    let cloud = Cloud::open(&places)?;
    let Some(name) = &expose.name else {
        let (ports, sites) = (exposing::list(&cloud)?, sites::all(&places)?);
        match expose.output.json {
            true => println!("{:#}", serde_json::json!({"ports": ports, "sites": sites})),
            false => print!("{}", show::exposed(&ports, &sites)),
        }
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(host) = &expose.host {
        expose_site(expose, &places, &cloud, (host, name))?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(port) = expose.port else {
        bail!(
            "what of {name}? A port: 'hextet expose {name} 443'; or a site: 'hextet expose {name} --host NAME'"
        );
    };
    if expose.remove {
        exposing::close(&cloud, name, &expose.protocol, port)?;
        return Ok(ExitCode::SUCCESS);
    }
    sites::refuse_beside(&places, &expose.protocol, port)?;
    let exposure = Exposure {
        protocol: expose.protocol.clone(),
        external_port: port,
        internal_port: expose.to.unwrap_or(port),
    };
    exposing::open(&cloud, name, exposure)?;
    Ok(ExitCode::SUCCESS)
}

fn expose_site(
    expose: &Expose,
    places: &Places,
    cloud: &Cloud,
    (host, name): (&HostName, &str),
) -> Result<()> {
    if expose.remove {
        return sites::remove(places, host, name);
    }
    let wanted = sites::Wanted {
        workload: name.to_owned(),
        http: expose.http,
        https: expose.https,
        proxy_protocol: expose.proxy_protocol,
    };
    sites::add(places, cloud, host.clone(), wanted)
}

/// `hextet proxy`.
pub fn proxy(proxy: &ProxyOptions) -> Result<ExitCode> {
    block_on(sites::run(proxy.places.places()))?;
    Ok(ExitCode::SUCCESS)
}
