//! A lab that is up: made, found again, and torn down.

use std::{
    collections::BTreeMap,
    fs, io,
    ops::Deref,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    Error, LabFile, Node, Process, ProcessSpec, Ready,
    file::check_lab_name,
    node::{View, command, netns, succeed},
    process::Start,
    record::{Identity, Record},
    template::fill,
    wiring,
};

/// What a lab needs to be installed: program and package.
const PROGRAMS: &[(&str, &str)] = &[("ip", "iproute2")];
/// The process that holds a node's mount namespace.
const MOUNTS: &str = "mounts";

/// A lab that is up. Dropping it leaves it up; see [`Lab::guard`].
#[derive(Debug)]
pub struct Lab {
    file: LabFile,
    record: Record,
    processes: Mutex<BTreeMap<String, Arc<Process>>>,
}

/// What a [`Lab::down`] took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Downed {
    /// Processes that were still running.
    pub processes: usize,
    /// Namespaces that were still there.
    pub namespaces: usize,
}

impl Lab {
    /// Makes a lab and starts its programs; what was made is taken away again when something fails.
    ///
    /// # Errors
    ///
    /// We are not root, a lab of this name is up, or a part can't be made.
    pub fn up(file: LabFile) -> Result<Lab, Error> {
        check_machine()?;
        let record = Record::of(file.name());
        if !record.create()? {
            return Err(Error::AlreadyUp(file.name().to_owned()));
        }
        let name = file.name().to_owned();
        let lab = Lab {
            file,
            record,
            processes: Mutex::default(),
        };
        lab.build().inspect_err(|_| {
            // The first error is the one to tell.
            let _ = Lab::down(&name);
        })?;
        Ok(lab)
    }

    /// Finds a lab that is up.
    ///
    /// # Errors
    ///
    /// There is none of this name, or its own record of itself can't be read.
    pub fn open(name: &str) -> Result<Lab, Error> {
        let record = Record::of(name);
        if check_lab_name(name).is_err() || !record.exists() {
            return Err(Error::NotUp {
                name: name.to_owned(),
                up: Record::labs(),
            });
        }
        let path = PathBuf::from(record.read("source")?.trim());
        let mut file = LabFile::parse(&record.read("lab.toml")?, &path)?.named(name)?;
        for line in record.read("vars")?.lines() {
            if let Some((variable, value)) = line.split_once('=') {
                file = file.with_var(variable, value);
            }
        }
        Ok(Lab {
            file,
            record,
            processes: Mutex::default(),
        })
    }

    /// Ends a lab's processes, and removes its namespaces and files: whole, broken or half there. Does
    /// nothing when there is none.
    ///
    /// # Errors
    ///
    /// The name is none, or a namespace or file can't be removed.
    pub fn down(name: &str) -> Result<Downed, Error> {
        check_lab_name(name)?;
        let record = Record::of(name);
        let processes = record.end_processes();
        let namespaces = namespaces_of(name);
        for node in &namespaces {
            let words = ["ip", "netns", "delete", &netns(name, node)];
            let output = command(&words)
                .output()
                .map_err(Error::io("run ip netns delete"))?;
            succeed(&words, None, output)?;
        }
        record.remove()?;
        Ok(Downed {
            processes,
            namespaces: namespaces.len(),
        })
    }

    /// A guard that tears the lab down when it goes out of scope, also by a panic.
    pub fn guard(self) -> LabGuard {
        LabGuard(self)
    }

    fn build(&self) -> Result<(), Error> {
        self.clear_left_over()?;
        self.write_record()?;
        wiring::build(&self.file, |node| self.bare_node(node))?;
        self.separate_netns()?;
        for spec in &self.file.processes {
            if !spec.manual {
                self.run_spec(spec)?;
            }
        }
        Ok(())
    }

    /// Namespaces without a record: somebody removed our files, and only those.
    fn clear_left_over(&self) -> Result<(), Error> {
        for node in namespaces_of(self.name()) {
            let words = ["ip", "netns", "delete", &netns(self.name(), &node)];
            let output = command(&words)
                .output()
                .map_err(Error::io("run ip netns delete"))?;
            succeed(&words, None, output)?;
        }
        Ok(())
    }

    /// Starts what holds the mount namespaces of nodes with a `/run/netns` of their own.
    fn separate_netns(&self) -> Result<(), Error> {
        let nodes = self.file.nodes.iter();
        for (name, _) in nodes.filter(|(_, spec)| spec.own_netns) {
            let script = format!(
                "set -e; mkdir machine; mount --rbind /run/netns machine; mount -t tmpfs hextet-lab /run/netns; \
                 for n in machine/{}; do ln -s $PWD/$n /run/netns/; done; echo ready; exec sleep infinity",
                netns(self.name(), "*")
            );
            let unshare = ["unshare", "--mount", "--propagation", "private"];
            let words = [unshare.as_slice(), &["sh", "-c", &script]].concat();
            let mut spec = ProcessSpec::new(name.get_ref(), MOUNTS, &words);
            spec.ready = Some(Ready::Log("ready".to_owned()));
            self.run_spec(&spec)?;
        }
        Ok(())
    }

    fn write_record(&self) -> Result<(), Error> {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mark = format!("{}/{}", self.name(), since.as_nanos());
        let vars = self
            .file
            .vars
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"));
        let source = self.file.path.display().to_string();
        self.record.write(Path::new("mark"), &mark)?;
        self.record.write(Path::new("lab.toml"), &self.file.text)?;
        self.record.write(Path::new("source"), &source)?;
        self.record
            .write(Path::new("vars"), &vars.collect::<String>())?;
        for (name, spec) in &self.file.nodes {
            let directory = Path::new(name.get_ref());
            let servers = spec
                .name_servers
                .iter()
                .map(|addr| format!("nameserver {addr}\n"));
            if !spec.name_servers.is_empty() {
                self.record
                    .write(&directory.join("resolv.conf"), &servers.collect::<String>())?;
            }
            let path = self.record.path().join(directory);
            fs::create_dir_all(&path).map_err(Error::io(format!("make {}", path.display())))?;
        }
        Ok(())
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        self.file.name()
    }

    /// What it was made from.
    pub fn file(&self) -> &LabFile {
        &self.file
    }

    /// The directory with the nodes' directories in it, and in those the logs.
    pub fn directory(&self) -> &Path {
        self.record.path()
    }

    /// The directory of a node, there while the lab is up.
    pub fn node_directory(&self, node: &str) -> PathBuf {
        self.record.path().join(node)
    }

    /// A node.
    ///
    /// # Errors
    ///
    /// The lab has none of this name.
    pub fn node(&self, name: &str) -> Result<Node, Error> {
        if self.file.node(name).is_some() {
            return Ok(self.bare_node(name));
        }
        Err(self.unknown("node", name, self.nodes()))
    }

    /// The names of all nodes.
    pub fn nodes(&self) -> Vec<String> {
        self.file
            .nodes
            .keys()
            .map(|name| name.get_ref().clone())
            .collect()
    }

    fn bare_node(&self, name: &str) -> Node {
        let servers = self
            .file
            .node(name)
            .is_some_and(|spec| !spec.name_servers.is_empty());
        let resolv_conf = servers.then(|| self.node_directory(name).join("resolv.conf"));
        let own_netns = self.file.node(name).is_some_and(|spec| spec.own_netns);
        let holder = format!("{name}/{MOUNTS}");
        let is_holder =
            |(identity, noted): &(Identity, String)| *noted == holder && identity.runs();
        let noted = own_netns.then(|| self.record.noted());
        let mut noted = noted.into_iter().flatten();
        Node::new(
            self.name(),
            name,
            View {
                resolv_conf,
                sys: false,
                mounts_of: noted.find(is_holder).map(|(is, _)| is.pid.unsigned_abs()),
            },
        )
    }

    pub(crate) fn unknown(&self, kind: &'static str, name: &str, known: Vec<String>) -> Error {
        Error::Unknown {
            lab: self.name().to_owned(),
            kind,
            name: name.to_owned(),
            known,
        }
    }

    /// Starts a program of the lab file, by `NODE/NAME`, and waits until it is ready. One that runs
    /// already is left alone.
    ///
    /// # Errors
    ///
    /// The file has none of this name, or it does not get ready.
    pub fn start(&self, name: &str) -> Result<Arc<Process>, Error> {
        let full = |spec: &ProcessSpec| format!("{}/{}", spec.node(), spec.name);
        let Some(spec) = self.file.processes.iter().find(|spec| full(spec) == name) else {
            let known = self.file.processes.iter().map(full).collect();
            return Err(self.unknown("process", name, known));
        };
        match self.process(name) {
            Ok(process) if process.runs() => Ok(process),
            _ => self.run_spec(spec),
        }
    }

    /// Starts a program that the lab file does not have; the lab ends it with the others.
    ///
    /// # Errors
    ///
    /// There is no such node, or the program does not get ready.
    pub fn run_spec(&self, spec: &ProcessSpec) -> Result<Arc<Process>, Error> {
        let node = self.node(spec.node())?.with_private_sys(spec.private_sys);
        let vars = self.vars(spec.node());
        let place = format!("process {}/{}", spec.node(), spec.name);
        self.write_files(spec, &vars)?;
        let words = spec.command.iter().map(|word| fill(word, &vars, &place));
        let words = words.collect::<Result<Vec<String>, Error>>()?;
        let mut command = command(&words.iter().map(String::as_str).collect::<Vec<_>>());
        for (name, value) in &spec.env {
            command.env(name, fill(value, &vars, &place)?);
        }
        let process = self.spawn(&node, &spec.name, &mut command)?;
        let limit = Duration::from_secs(spec.ready_secs);
        if spec.once {
            process.wait_success(limit)?;
        } else if let Some(ready) = &spec.ready {
            process.wait_ready(&node, &fill_ready(ready, &vars, &place)?, limit)?;
        }
        Ok(process)
    }

    /// Starts any command on a node, with the log `NODE/NAME.log`; the lab ends it with the others.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn spawn(
        &self,
        node: &Node,
        name: &str,
        command: &mut Command,
    ) -> Result<Arc<Process>, Error> {
        let process = Process::start(
            &Start {
                node,
                name,
                record: &self.record,
            },
            command,
        )?;
        let process = Arc::new(process);
        let mut processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        processes.insert(process.name().to_owned(), Arc::clone(&process));
        Ok(process)
    }

    /// The process last started as `NODE/NAME`, running or not, by us or by somebody else.
    ///
    /// # Errors
    ///
    /// None was ever started under this name.
    pub fn process(&self, name: &str) -> Result<Arc<Process>, Error> {
        let processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = processes.get(name) {
            return Ok(Arc::clone(process));
        }
        let noted = self.record.noted();
        let found = noted.iter().rev().find(|(_, noted)| noted == name);
        match found {
            Some((identity, _)) => Ok(Arc::new(Process::noted(&self.record, *identity, name))),
            None => {
                let mut known: Vec<String> = noted.into_iter().map(|(_, name)| name).collect();
                known.sort();
                known.dedup();
                Err(self.unknown("process", name, known))
            }
        }
    }

    /// Variables for a node: the lab's, the node's own, and where it is.
    fn vars(&self, node: &str) -> BTreeMap<String, String> {
        let mut vars = self.file.vars.clone();
        vars.extend(
            self.file
                .node(node)
                .map(|spec| spec.vars.clone())
                .unwrap_or_default(),
        );
        vars.insert("lab".to_owned(), self.name().to_owned());
        vars.insert("node".to_owned(), node.to_owned());
        vars.insert(
            "dir".to_owned(),
            self.node_directory(node).display().to_string(),
        );
        vars.insert(
            "labdir".to_owned(),
            self.record.path().display().to_string(),
        );
        vars
    }

    fn write_files(
        &self,
        spec: &ProcessSpec,
        vars: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let beside = self.file.path.parent().unwrap_or(Path::new("."));
        for (target, template) in &spec.files {
            let template = beside.join(template);
            let text = fs::read_to_string(&template)
                .map_err(Error::io(format!("read template {}", template.display())))?;
            let text = fill(&text, vars, &template.display().to_string())?;
            self.record
                .write(&Path::new(spec.node()).join(target), &text)?;
        }
        Ok(())
    }
}

fn fill_ready(ready: &Ready, vars: &BTreeMap<String, String>, place: &str) -> Result<Ready, Error> {
    let fill = |text: &String| fill(text, vars, place);
    Ok(match ready {
        Ready::Socket(path) => Ready::Socket(fill(path)?),
        Ready::Tcp(addr) => Ready::Tcp(fill(addr)?),
        Ready::File(path) => Ready::File(fill(path)?),
        Ready::Log(text) => Ready::Log(fill(text)?),
        Ready::Command(words) => Ready::Command(words.iter().map(fill).collect::<Result<_, _>>()?),
    })
}

fn check_machine() -> Result<(), Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    for (program, package) in PROGRAMS {
        let found = Command::new(program).arg("-Version").output();
        if found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Err(Error::NoProgram {
                program: (*program).to_owned(),
                package,
            });
        }
    }
    Ok(())
}

/// The nodes of a lab that have a namespace.
fn namespaces_of(lab: &str) -> Vec<String> {
    let ours = namespaces().into_iter().filter(|(name, _)| name == lab);
    ours.map(|(_, node)| node).collect()
}

/// Lab and node of each of our namespaces.
fn namespaces() -> Vec<(String, String)> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let mut found: Vec<(String, String)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (lab, node) = name.strip_prefix("hxlab-")?.rsplit_once('-')?;
            Some((lab.to_owned(), node.to_owned()))
        })
        .collect();
    found.sort();
    found
}

/// A lab in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabSummary {
    /// Its name.
    pub name: String,
    /// What its file says of it; for one without a record, that it is left over.
    pub description: String,
    /// Nodes with a namespace: name and role.
    pub nodes: Vec<(String, String)>,
    /// Programs that run: `NODE/NAME` and process id.
    pub processes: Vec<(String, u32)>,
}

/// All labs of this machine, also such as a crash left behind.
pub fn list() -> Vec<LabSummary> {
    let mut names: Vec<String> = namespaces().into_iter().map(|(lab, _)| lab).collect();
    names.extend(Record::labs());
    names.sort();
    names.dedup();
    names.iter().map(|name| summary(name)).collect()
}

fn summary(name: &str) -> LabSummary {
    let lab = Lab::open(name).ok();
    let role = |node: &str| {
        lab.as_ref()
            .and_then(|lab| Some(lab.file.node(node)?.role.clone()))
    };
    let nodes = namespaces_of(name)
        .into_iter()
        .map(|node| {
            let role = role(&node).unwrap_or_default();
            (node, role)
        })
        .collect();
    let noted = Record::of(name)
        .noted()
        .into_iter()
        .filter(|(identity, _)| identity.runs());
    let left_over = "left over from a crash".to_owned();
    LabSummary {
        name: name.to_owned(),
        description: lab
            .as_ref()
            .map_or(left_over, |lab| lab.file.description.clone()),
        nodes,
        processes: noted
            .map(|(identity, name)| (name, identity.pid.unsigned_abs()))
            .collect(),
    }
}

/// A lab that is torn down when this goes out of scope.
#[derive(Debug)]
pub struct LabGuard(Lab);

impl Deref for LabGuard {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl Drop for LabGuard {
    fn drop(&mut self) {
        if let Err(error) = Lab::down(self.0.name()) {
            eprintln!("lab {}: {error}", self.0.name());
        }
    }
}
