//! What can go wrong between hextet and the kernel.

use std::{fmt, io};

use thiserror::Error;

/// An operation on the kernel that did not happen. Each names the operation and its object.
#[derive(Debug, Error)]
pub enum Error {
    /// A system call failed.
    #[error("{operation}: {source}")]
    System {
        /// What was tried.
        operation: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel answered a netlink request with an error.
    #[error("{operation}: {refusal}")]
    Refused {
        /// What was asked for.
        operation: String,
        /// The kernel's answer.
        #[source]
        refusal: Refusal,
    },
    /// The operation was sound, but it stands in one transaction with others that were refused.
    #[error(
        "{operation}: not applied, since it goes together with a change that was refused: {cause}"
    )]
    Withheld {
        /// What was asked for.
        operation: String,
        /// The first refusal of the transaction.
        cause: String,
    },
    /// The kernel's answers were lost (its queue to us was full): nobody knows what happened.
    #[error("{operation}: the kernel's answer was lost; reconcile again")]
    Lost {
        /// What was asked for.
        operation: String,
    },
    /// A value that this kernel interface cannot carry.
    #[error("{operation}: {reason}")]
    Unfit {
        /// What was asked for.
        operation: String,
        /// What does not fit.
        reason: String,
    },
    /// A sysctl outside the paths that the caller allows.
    #[error("write sysctl {0}: not among the sysctls that this host lets hextet set")]
    SysctlNotAllowed(String),
    /// Neither built in nor as a module.
    #[error("there is no WireGuard in this kernel")]
    NoWireGuard,
    /// The port's eBPF programs could not be loaded.
    #[error(
        "load the eBPF programs of a port: {0} (needs CAP_BPF and CAP_NET_ADMIN, kernel 5.15 or later)"
    )]
    Program(String),
}

impl Error {
    pub(crate) fn system(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Error::System {
            operation: operation.into(),
            source: source.into(),
        }
    }

    pub(crate) fn unfit(operation: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Unfit {
            operation: operation.into(),
            reason: reason.into(),
        }
    }

    /// The error number, where the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::System { source, .. } => source.raw_os_error(),
            Error::Refused { refusal, .. } => Some(refusal.errno),
            _ => None,
        }
    }
}

/// The kernel's answer to a request that it refused, with its extended acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Refusal {
    /// As in errno(3), positive.
    pub errno: i32,
    /// The kernel's own words (`NLMSGERR_ATTR_MSG`).
    pub message: Option<String>,
}

impl Refusal {
    pub(crate) fn of(self, operation: impl Into<String>) -> Error {
        Error::Refused {
            operation: operation.into(),
            refusal: self,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.errno))?;
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

/// An error with its causes, which aya keeps behind it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
