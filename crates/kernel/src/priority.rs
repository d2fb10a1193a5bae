//! Threads that must not wait for others, and threads that may.

use std::io;

/// Puts the calling thread before all that run with ordinary priority (nice −20), so that a busy host
/// does not look like a dead one. It stays preemptible: no load on it can take the host down.
///
/// # Errors
///
/// We may not (`CAP_SYS_NICE`).
pub fn raise() -> io::Result<()> {
    set(-20)
}

/// Puts the calling thread behind those that run with ordinary priority (nice 5): it has time.
///
/// # Errors
///
/// None that is known.
pub fn lower() -> io::Result<()> {
    set(5)
}

#[allow(unsafe_code)]
fn set(nice: i32) -> io::Result<()> {
    // SAFETY: takes plain numbers. Of PRIO_PROCESS, 0 is the calling thread (setpriority(2), "C
    // library/kernel differences").
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    fn nice_of_this_thread() -> i32 {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, behind_the_name) = stat.rsplit_once(") ").unwrap();
        behind_the_name.split(' ').nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn only_the_calling_thread_is_raised_or_lowered() {
        let before = nice_of_this_thread();
        let raised = thread::spawn(|| {
            super::raise().unwrap();
            nice_of_this_thread()
        });
        assert_eq!(raised.join().unwrap(), -20);
        let lowered = thread::spawn(|| {
            super::lower().unwrap();
            nice_of_this_thread()
        });
        assert_eq!(lowered.join().unwrap(), 5);
        assert_eq!(nice_of_this_thread(), before);
    }
}
