//! What can go wrong with a lab, each with its way out.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use thiserror::Error;

/// Why a lab could not do something.
#[derive(Debug, Error)]
pub enum Error {
    /// A lab file that does not say what a lab is; the source's message has the line.
    #[error("{}: {}", path.display(), message.trim_end())]
    Syntax {
        /// The lab file.
        path: PathBuf,
        /// With line, column and the line itself.
        message: String,
    },
    /// A lab file that contradicts itself.
    #[error("{}:{line}: {message}", path.display())]
    Meaning {
        /// The lab file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A file or system call failed.
    #[error("{operation}")]
    Io {
        /// What was tried, and on what.
        operation: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A command said no.
    #[error("{command}{place}: {status}: {output}", place = place(node))]
    Command {
        /// With its arguments.
        command: String,
        /// Where it ran, if in a node.
        node: Option<String>,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        output: String,
    },
    /// A lab needs to be root.
    #[error("a lab makes network namespaces, which takes root: run it with sudo")]
    NotRoot,
    /// A program is not installed.
    #[error("{program} is not installed: apt-get install {package}")]
    NoProgram {
        /// The program.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A lab of this name is there already.
    #[error(
        "lab {0} is up already: look with 'hextet lab list', end it with 'hextet lab down {0}'"
    )]
    AlreadyUp(String),
    /// No lab of this name is there.
    #[error("no lab {name} is up; up are: {}", or_none(up))]
    NotUp {
        /// What was asked for.
        name: String,
        /// What there is.
        up: Vec<String>,
    },
    /// The lab has no node, process or link of this name.
    #[error("lab {lab} has no {kind} {name}; it has: {}", or_none(known))]
    Unknown {
        /// The lab.
        lab: String,
        /// What kind of thing was asked for.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A name that can't be part of a namespace's name.
    #[error("'{0}' is no name for a {1}: up to 32 of a-z, 0-9 and {2}, starting with a letter")]
    Name(String, &'static str, &'static str),
    /// A program ended though it should run.
    #[error("{process} ended ({status}) before it was ready; its log ends with:\n{log}")]
    Ended {
        /// NODE/NAME.
        process: String,
        /// How it ended.
        status: String,
        /// The last lines of its log.
        log: String,
    },
    /// A program did not get ready in time.
    #[error("{process} was not ready within {} s ({ready}); its log ends with:\n{log}", limit.as_secs())]
    NotReady {
        /// NODE/NAME.
        process: String,
        /// What was waited for.
        ready: String,
        /// How long.
        limit: Duration,
        /// The last lines of its log.
        log: String,
    },
    /// A template names a variable that does not exist.
    #[error("{place}: no variable @{name}@; there are: {}", known.join(", "))]
    Variable {
        /// The template's file and line.
        place: String,
        /// The variable.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A virtual machine could not be made or spoken to.
    #[error("guest: {0}")]
    Guest(String),
}

impl Error {
    /// Wraps an I/O error with what was tried.
    pub(crate) fn io(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let operation = operation.into();
        move |source| Error::Io { operation, source }
    }

    /// Wraps a system call's error with what was tried.
    pub(crate) fn errno(operation: impl Into<String>) -> impl FnOnce(nix::Error) -> Error {
        let operation = operation.into();
        move |source| Error::Io {
            operation,
            source: source.into(),
        }
    }
}

fn place(node: &Option<String>) -> String {
    node.as_ref()
        .map(|node| format!(" on {node}"))
        .unwrap_or_default()
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
