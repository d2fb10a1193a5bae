//! A real `hextet server` on loopback, with its store in a temporary folder on disk.

use std::{
    env, fs,
    net::{Ipv6Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::client::Client;

const STARTING: Duration = Duration::from_secs(30);

/// The server; it ends, and its folder goes, when this is dropped.
pub struct Server {
    process: Child,
    url: String,
    folder: TempDir,
}

impl Server {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// There is no program, or no room for its files.
    pub fn start() -> Result<Server> {
        // Not /tmp: that may be memory, where nothing is durable.
        let folder = TempDir::with_prefix_in("hextet-bench-api-", "/var/tmp")
            .context("make a folder in /var/tmp")?;
        let dir = folder.path().display().to_string();
        let [clients, agents, metrics] = free_ports()?;
        let config = folder.path().join("server.toml");
        let text = format!(
            "listen = \"[::1]:{clients}\"\nagents = \"[::1]:{agents}\"\nmetrics = \"[::1]:{metrics}\"\n\
             data_dir = \"{dir}/data\"\nclouds_yaml = \"{dir}/clouds.yaml\"\n\
             admin_socket = \"{dir}/server.sock\"\n"
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let log = fs::File::create(folder.path().join("log")).context("make the server's log")?;
        let program = program()?;
        let process = Command::new(&program)
            .args(["server", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Server {
            process,
            url: format!("http://[::1]:{clients}"),
            folder,
        })
    }

    /// Logs in as the administrator, as soon as the server answers.
    ///
    /// # Errors
    ///
    /// It ends, or does not answer.
    pub fn admin(&mut self) -> Result<Client> {
        let clouds_yaml = self.folder.path().join("clouds.yaml");
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().context("look at the server")? {
                bail!("the server has ended, {status}:\n{}", self.log());
            }
            match Client::administrator(&self.url, &clouds_yaml) {
                Ok(client) => return Ok(client),
                Err(e) if begun.elapsed() > STARTING => {
                    return Err(e.context(format!("the server does not answer:\n{}", self.log())));
                }
                Err(_) => sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The store's size in MiB.
    ///
    /// # Errors
    ///
    /// There is no store.
    pub fn stored(&self) -> Result<f64> {
        let file = self.folder.path().join("data/store.redb");
        let size = fs::metadata(&file).with_context(|| format!("look at {}", file.display()))?;
        Ok(size.len() as f64 / f64::from(1 << 20))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program that `cargo xtask bench` names, or the one beside this.
fn program() -> Result<PathBuf> {
    if let Some(named) = env::var_os("HEXTET_BIN") {
        return Ok(named.into());
    }
    let own = env::current_exe().context("find this program")?;
    let beside = own.parent().unwrap_or(Path::new(".")).join("hextet");
    if beside.exists() {
        return Ok(beside);
    }
    bail!("no {}: run `cargo xtask bench api`", beside.display())
}

fn free_ports() -> Result<[u16; 3]> {
    let free = || TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).context("find a free port");
    let listeners = [free()?, free()?, free()?];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}
