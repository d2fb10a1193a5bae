//! Where everything is kept, and what was asked for.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use hextet_agent::config::AgentConfig;
use hextet_server::ServerConfig;
use serde::{Deserialize, Serialize};

use crate::uplink::{Asked, Uplink};

/// The name of the physical network that the uplink is.
pub const PHYSICAL: &str = "uplink";

/// The directories of a host's own cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// What lasts.
    pub state: PathBuf,
    /// What lasts as long as the host runs.
    pub run: PathBuf,
}

/// What was asked for when it was set up; the service goes by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What was asked for.
    pub asked: Asked,
}

impl Places {
    /// The settings of the host's cloud.
    ///
    /// # Errors
    ///
    /// There is none on this host, or they can't be read.
    pub fn settings(&self) -> Result<Settings> {
        let path = self.settings_file();
        let text = match fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                bail!("hextet is not up on this host: run 'hextet up' first")
            }
            text => text.with_context(|| format!("read {}", path.display()))?,
        };
        serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))
    }

    /// Whether it is set up.
    pub fn is_set_up(&self) -> bool {
        self.settings_file().exists()
    }

    /// Writes what server and agent go by; settings last, since they say that it is set up.
    ///
    /// # Errors
    ///
    /// A file can't be written.
    pub fn set_up(&self, settings: &Settings, uplink: &Uplink) -> Result<()> {
        make_directory(&self.state)?;
        make_directory(&self.run)?;
        write(&self.server_file(), &self.server_text(uplink))?;
        write(&self.agent_file(), &self.agent_text(uplink)?)?;
        write(&self.settings_file(), &serde_json::to_string(settings)?)
    }

    /// The server's configuration.
    ///
    /// # Errors
    ///
    /// It is not there, or somebody has broken it.
    pub fn server(&self) -> Result<ServerConfig> {
        Ok(ServerConfig::load(&self.server_file())?)
    }

    /// The agent's configuration.
    ///
    /// # Errors
    ///
    /// It is not there, or somebody has broken it.
    pub fn agent(&self) -> Result<AgentConfig> {
        AgentConfig::load(&self.agent_file())
    }

    /// The socket of the agent.
    pub fn agent_socket(&self) -> PathBuf {
        self.run.join("agent.sock")
    }

    /// The administrator's client configuration.
    pub fn clouds_yaml(&self) -> PathBuf {
        self.state.join("clouds.yaml")
    }

    /// The output of a process in the background.
    pub fn log(&self) -> PathBuf {
        self.state.join("log")
    }

    /// A file for each namespace that was made for a workload.
    pub fn workloads(&self) -> PathBuf {
        self.state.join("workloads")
    }

    /// What routers have delegated to this host.
    pub fn delegation(&self) -> PathBuf {
        self.state.join("delegation.json")
    }

    fn settings_file(&self) -> PathBuf {
        self.state.join("settings.json")
    }

    fn server_file(&self) -> PathBuf {
        self.state.join("server.toml")
    }

    fn agent_file(&self) -> PathBuf {
        self.state.join("agent.toml")
    }

    fn server_text(&self, uplink: &Uplink) -> String {
        let (state, run) = (self.state.display(), self.run.display());
        format!(
            "# Written by 'hextet up'.\nlisten = \"[::1]:9696\"\nagents = \"[::1]:9697\"\nmetrics = \"[::1]:9799\"\n\
             data_dir = \"{state}/data\"\nclouds_yaml = \"{state}/clouds.yaml\"\nadmin_socket = \"{run}/server.sock\"\n\
             physical_networks = [\"{PHYSICAL}\"]\nglobal_physnet_mtu = {}\n",
            uplink.mtu,
        )
    }

    fn agent_text(&self, uplink: &Uplink) -> Result<String> {
        let name =
            fs::read_to_string("/proc/sys/kernel/hostname").context("read the host's name")?;
        let others: Vec<String> = uplink
            .other_links()
            .map(|link| format!("\"{link}\""))
            .collect();
        Ok(format!(
            "# Written by 'hextet up'.\nserver = \"[::1]:9697\"\nstate_dir = \"{}/agent\"\n\
             control_socket = \"{}\"\n\n[host]\nhost = \"{}\"\nuplinks = [{}]\n\
             physical_networks = {{ {PHYSICAL} = \"{}\" }}\n",
            self.state.display(),
            self.agent_socket().display(),
            name.trim(),
            others.join(", "),
            uplink.link,
        ))
    }
}

/// Makes a directory that is root's alone.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
        .with_context(|| format!("make the directory {}", path.display()))
}

/// Writes a file, whole or not at all.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let beside = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, path))
        .with_context(|| format!("write {}", path.display()))
}
