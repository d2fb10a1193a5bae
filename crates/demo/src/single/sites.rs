//! Two sites on the machine's one IPv4 address.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result};

use super::{Single, VPS_V4};
use crate::check::{expect, wait_for};

const SOON: Duration = Duration::from_secs(10);
const SITES: [(&str, &str); 2] = [("web", "shop.example"), ("db", "blog.example")];

/// Each workload ends its own TLS, with its own certificate; who asks for a name gets that one.
pub fn two(s: &Single) -> Result<String> {
    let directory = s.lab.node_directory("vps");
    let file = |name: &str| directory.join(name).to_string_lossy().into_owned();
    for (container, site) in SITES {
        let (key, certificate) = (file(&format!("{site}.key")), file(&format!("{site}.pem")));
        make_certificate(s, site, (&key, &certificate))?;
        let mut server = Command::new("ip");
        server.args(["netns", "exec", container, "openssl", "s_server", "-quiet"]);
        server.args([
            "-accept",
            "443",
            "-cert",
            &certificate,
            "-key",
            &key,
            "-WWW",
        ]);
        let page = directory.join(site);
        fs::create_dir_all(&page).context("make a page")?;
        fs::write(page.join("index.html"), site).context("write a page")?;
        s.lab
            .spawn(&s.vps.place, &format!("tls-{container}"), &mut server)?;
        s.vps.hextet(&["expose", container, "--host", site])?;
    }
    let read = |site: &str| {
        let at = format!("{site}:443:{VPS_V4}");
        let certificate = file(&format!("{site}.pem"));
        // A program of the lab runs in its node's directory.
        let url = format!("https://{site}/{site}/index.html");
        s.internet.run(&[
            "curl",
            "-sS",
            "--max-time",
            "5",
            "--resolve",
            &at,
            "--cacert",
            &certificate,
            &url,
        ])
    };
    for (container, site) in SITES {
        let said = wait_for(SOON, || Ok(read(site)?))?;
        expect(said == site, format!("https://{site} says {said}"))?;
        let said = plain(s, site)?;
        expect(
            said.starts_with(container),
            format!("http://{site} says {said}"),
        )?;
    }
    let unknown = plain(s, "else.example")?;
    expect(unknown.contains("no such site"), unknown)?;
    let taken = s.vps.hextet(&["expose", "web", "443"]);
    expect(taken.is_err(), "port 443 leads to web alone, beside sites")?;
    s.vps.kill()?;
    for (_, site) in SITES {
        let said = read(site)?;
        expect(said == site, format!("https://{site} says {said}"))?;
    }
    s.vps.hextet(&["up", "--background"])?;
    s.vps
        .hextet(&["expose", "db", "--host", "blog.example", "--remove"])?;
    expect(
        read("blog.example").is_err(),
        "a site that is none is served",
    )?;
    expect(read("shop.example")? == "shop.example", "the other is gone")?;
    Ok(format!(
        "https://shop.example and https://blog.example at {VPS_V4}, each with its own workload's certificate, and http; with hextet \
         killed, too; one taken away: the other stays"
    ))
}

fn make_certificate(s: &Single, site: &str, (key, certificate): (&str, &str)) -> Result<()> {
    let (subject, name) = (format!("/CN={site}"), format!("subjectAltName=DNS:{site}"));
    let words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        &subject,
        "-addext",
        &name,
        "-keyout",
        key,
        "-out",
        certificate,
    ];
    s.vps.place.run(&words).map(drop)?;
    Ok(())
}

/// What the workload says to whoever asks by HTTP: its name, as to everybody.
fn plain(s: &Single, site: &str) -> Result<String> {
    let (host, url) = (format!("Host: {site}"), format!("http://{VPS_V4}/"));
    Ok(s.internet.run(&[
        "curl",
        "-sS",
        "--max-time",
        "5",
        "--http0.9",
        "-H",
        &host,
        &url,
    ])?)
}
