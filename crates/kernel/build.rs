//! Builds the eBPF programs with clang: the port's, the patch's, the uplink's, and the packet socket's.

use std::{env, path::PathBuf, process::Command};

fn main() {
    compile("port", "port", &[]);
    compile("port", "port-helper", &["-DREAD_BY_HELPER"]);
    compile("patch", "patch", &[]);
    compile("uplink", "uplink", &[]);
    compile("requests", "requests", &[]);
}

fn compile(source: &str, name: &str, flags: &[&str]) {
    let source = &format!("bpf/{source}.c");
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-changed=bpf/discovery.h");
    println!("cargo::rerun-if-changed=bpf/flows.h");
    println!("cargo::rerun-if-changed=bpf/fragments.h");
    println!("cargo::rerun-if-changed=bpf/metadata.h");
    println!("cargo::rerun-if-changed=bpf/audience.h");
    println!("cargo::rerun-if-changed=bpf/multicast.h");
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join(format!("{name}.o"));
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    // Debian keeps <asm/types.h>, which <linux/types.h> wants, in a directory of the machine.
    let headers = format!("-I/usr/include/{arch}-linux-gnu");
    let result = Command::new(&clang)
        .args([
            "-target", "bpf", "-O2", "-g", "-Wall", "-Werror", &headers, "-c", source, "-o",
        ])
        .arg(&out)
        .args(flags)
        .output();
    match result {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            fail(&format!("{clang} cannot compile {source}:\n{errors}"));
        }
        Err(e) => fail(&format!("{clang} does not start: {e}")),
    }
}

fn fail(why: &str) -> ! {
    eprintln!("{why}");
    eprintln!();
    eprintln!("hextet's eBPF programs need clang and the headers of libbpf and Linux:");
    eprintln!("    apt-get install clang libbpf-dev linux-libc-dev");
    eprintln!("Another clang is taken from the environment variable CLANG.");
    std::process::exit(1);
}
