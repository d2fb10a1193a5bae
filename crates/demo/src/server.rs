//! The server, on the controller of a lab.

use std::{
    fs,
    net::Ipv6Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use hextet_lab::{Lab, Node, Process};

use crate::{
    check::{expect, wait_for},
    rest::{Cloud, Login},
};

/// Of labs with a controller.
const CONTROLLER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 0x100);
const CLIENTS: u16 = 9796;
const AGENTS: u16 = 9797;
const STARTING: Duration = Duration::from_secs(20);

/// The server, on the controller.
pub struct Server {
    place: Node,
    address: Ipv6Addr,
    program: PathBuf,
    config: PathBuf,
    clouds_yaml: PathBuf,
    process: Option<Arc<Process>>,
}

impl Server {
    /// Configures it, with these lines besides, and starts it for the first time.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub fn start_in(lab: &Lab, program: &Path, settings: &str) -> Result<Server> {
        Server::start_at(lab, program, ("controller", CONTROLLER), settings)
    }

    /// The same on that node, at that address of it.
    ///
    /// # Errors
    ///
    /// As of [`Server::start_in`].
    pub fn start_at(
        lab: &Lab,
        program: &Path,
        (node, address): (&str, Ipv6Addr),
        settings: &str,
    ) -> Result<Server> {
        let place = lab.node(node)?;
        let dir = lab.node_directory(node);
        let (config, clouds_yaml) = (dir.join("server.toml"), dir.join("clouds.yaml"));
        let text = format!(
            "listen = \"[{address}]:{CLIENTS}\"\nagents = \"[{address}]:{AGENTS}\"\ndata_dir = \"{0}/data\"\n\
             clouds_yaml = \"{0}/clouds.yaml\"\nadmin_socket = \"{0}/server.sock\"\n{settings}",
            dir.display()
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let mut server = Server {
            place,
            address,
            program: program.to_owned(),
            config,
            clouds_yaml,
            process: None,
        };
        server.start(lab)?;
        Ok(server)
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn start(&mut self, lab: &Lab) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("server").arg("--config").arg(&self.config);
        let process = lab.spawn(&self.place, "server", &mut command)?;
        self.process = Some(process.clone());
        wait_for(STARTING, || {
            expect(
                process.runs(),
                format!("the server has ended:\n{}", process.log()),
            )?;
            self.login().map(drop)
        })
    }

    /// Kills it with `kill -9`.
    ///
    /// # Errors
    ///
    /// It was not running.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.process.take().context("the server was not running")?;
        expect(process.kill(), "the server had ended by itself")
    }

    /// As the administrator, with the secret that the first start made.
    ///
    /// # Errors
    ///
    /// There is no secret yet, or no server.
    pub fn login(&self) -> Result<Cloud> {
        self.login_as(&Login::from_clouds_yaml(&self.clouds_yaml)?)
    }

    /// As somebody.
    ///
    /// # Errors
    ///
    /// There is no server, or it refuses.
    pub fn login_as(&self, login: &Login) -> Result<Cloud> {
        Cloud::login(
            &self.place,
            &format!("http://[{}]:{CLIENTS}", self.address),
            login,
        )
    }

    /// A one-time token for a host.
    ///
    /// # Errors
    ///
    /// The server refuses.
    pub fn join_token(&self, host: &str) -> Result<String> {
        let (program, config) = (
            self.program.to_string_lossy(),
            self.config.to_string_lossy(),
        );
        let words = [
            &program,
            "server",
            "join-token",
            "--host",
            host,
            "--config",
            &config,
        ];
        Ok(self.place.run(&words)?.trim().to_owned())
    }

    /// Where agents find it.
    pub fn agents_address(&self) -> String {
        format!("[{}]:{AGENTS}", self.address)
    }

    /// The administrator's client configuration.
    pub fn clouds_yaml(&self) -> &Path {
        &self.clouds_yaml
    }
}
