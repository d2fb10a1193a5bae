//! Places to test in: network namespaces that vanish with the test.

#![allow(dead_code, reason = "each test program uses what it needs")]

pub mod internet;
pub mod private;
pub mod tap;
pub mod tcx;
pub mod tenant;

use std::{
    cell::Cell,
    collections::BTreeMap,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use hextet_kernel::{Config, Kernel, Scope, diff};
use hextet_model::state::{Key, Netns, Object};
use hextet_types::{IfName, Mac};
use nix::sched::{CloneFlags, unshare};

/// The gateway's address in all tests.
pub const GATEWAY: Mac = Mac::new([2, 0x68, 0x78, 0, 0, 1]);

thread_local! {
    static BY_TCX: Cell<bool> = const { Cell::new(false) };
}

/// Runs a test twice, each time as [`isolated`]: with ports' programs attached by tc, and by TCX, if the kernel
/// has it.
pub fn each_way(test: impl Fn() + Sync) {
    for by_tcx in [false, true] {
        isolated(|| {
            BY_TCX.set(by_tcx);
            eprintln!("by {}", if by_tcx { "TCX" } else { "tc" });
            test();
        });
    }
}

/// Whether the test is run by TCX, and the kernel has it.
pub fn by_tcx() -> bool {
    BY_TCX.get() && tcx::is_there()
}

/// Runs a test in a network namespace of its own, which ends with it.
pub fn isolated<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests of the kernel run as root");
            run("ip link set lo up");
            test()
        });
        match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Runs a command in the thread's namespace, and gives what it prints.
pub fn run(command: &str) -> String {
    let output = try_run(command);
    output.unwrap_or_else(|e| panic!("{command}: {e}"))
}

/// As [`run`]; what it complains of is the error.
pub fn try_run(command: &str) -> Result<String, String> {
    let output = Command::new("sh")
        .args(["-c", command])
        .output()
        .expect("sh starts");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// A name that no other test has.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{}-{n}", std::process::id())
}

/// A named namespace, deleted in the end.
pub struct NamedNetns(pub String);

impl NamedNetns {
    pub fn create() -> Self {
        let name = unique("hxk");
        hextet_kernel::netns::create(&name).expect("a namespace");
        NamedNetns(name)
    }

    pub fn netns(&self) -> Netns {
        Netns::Named(self.0.clone())
    }

    pub fn run(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.0))
    }
}

impl Drop for NamedNetns {
    fn drop(&mut self) {
        let _ = hextet_kernel::netns::delete(&self.0);
    }
}

/// A kernel with a directory for its record.
pub struct Host {
    pub kernel: Kernel,
    pub directory: tempfile::TempDir,
}

pub fn config(directory: &tempfile::TempDir) -> Config {
    Config {
        gateway_mac: GATEWAY,
        tcx: BY_TCX.get(),
        sysctl_record: directory.path().join("sysctls"),
        sysctls: vec!["net/".to_owned()],
    }
}

impl Host {
    /// Of the thread's namespace.
    pub fn open() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let kernel = Kernel::open(config(&directory)).expect("a kernel");
        Host { kernel, directory }
    }

    /// Reconciles; everything has to succeed, and nothing may be left to do.
    pub fn reconcile(&mut self, desired: &BTreeMap<Key, Object>) -> usize {
        let report = self.kernel.reconcile(&Scope::of(desired)).expect("a dump");
        let failed: Vec<_> = report
            .failed
            .iter()
            .map(|(op, e)| format!("{op}: {e}"))
            .collect();
        assert!(
            report.is_complete(),
            "failed: {failed:#?}, waiting: {:?}",
            report.waiting
        );
        assert_eq!(
            self.todo(desired),
            Vec::<String>::new(),
            "after {} changes",
            report.applied
        );
        if self.kernel.programs_to_move() > 0 {
            self.move_programs();
            let todo = self.todo(desired);
            assert_eq!(todo, Vec::<String>::new(), "after moving programs");
        }
        report.applied
    }

    /// Moves all programs to where they shall be.
    pub fn move_programs(&mut self) {
        while self.kernel.programs_to_move() > 0 {
            self.kernel.move_program().expect("programs move");
        }
    }

    /// What a reconciliation would do.
    pub fn todo(&mut self, desired: &BTreeMap<Key, Object>) -> Vec<String> {
        let actual = self.kernel.dump(&Scope::of(desired)).expect("a dump");
        diff(desired, &actual)
            .iter()
            .map(ToString::to_string)
            .collect()
    }
}

/// Objects by their keys.
pub fn states(objects: impl IntoIterator<Item = Object>) -> BTreeMap<Key, Object> {
    objects
        .into_iter()
        .map(|object| (object.key(), object))
        .collect()
}

pub fn name(name: &str) -> IfName {
    name.parse().expect("an interface name")
}
