//! Listens for changes in the kernel, on a thread of its own, and wakes the reconciler.

use std::{sync::mpsc::SyncSender, thread};

use anyhow::{Context, Result};
use hextet_kernel::netlink::Monitor;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tracing::error;

use crate::reconciler::Input;

/// Starts the thread; it ends with the reconciler.
///
/// # Errors
///
/// No thread can be started.
pub fn start(monitor: Monitor, reconciler: SyncSender<Input>) -> Result<()> {
    thread::Builder::new()
        .name("monitor".to_owned())
        .spawn(move || {
            if let Err(error) = listen(monitor, &reconciler) {
                error!(
                    error = format!("{error:#}"),
                    "changes in the kernel are not heard any more; \
                    they are found once a minute"
                );
            }
        })
        .map(drop)
        .context("start the monitor's thread")
}

fn listen(mut monitor: Monitor, reconciler: &SyncSender<Input>) -> Result<()> {
    loop {
        let mut fds = monitor.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for changes in the kernel"),
        }
        let heard = monitor.read()?;
        if !heard.is_empty() && reconciler.send(Input::Kernel(heard)).is_err() {
            return Ok(());
        }
    }
}
