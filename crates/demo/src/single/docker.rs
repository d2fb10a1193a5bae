//! Docker on the same machine: its rules drop what it does not know.

use anyhow::{Context, Result};
use serde_json::Value;

use super::{INTERNET_V6, Single};
use crate::{
    check::expect,
    probe::{Reach, greeting},
};

/// As dockerd makes them at its start, with a network of its own.
const DOCKER: &str = "for t in iptables ip6tables; do
    $t -N DOCKER; $t -N DOCKER-USER; $t -N DOCKER-ISOLATION-STAGE-1
    $t -A FORWARD -j DOCKER-USER; $t -A FORWARD -j DOCKER-ISOLATION-STAGE-1
    $t -A FORWARD -o docker0 -j DOCKER
    $t -A FORWARD -i docker0 ! -o docker0 -j ACCEPT; $t -A FORWARD -i docker0 -o docker0 -j ACCEPT
    $t -A DOCKER-ISOLATION-STAGE-1 -j RETURN; $t -A DOCKER-USER -j RETURN
    $t -P FORWARD DROP
done";
const THEIRS: &str = "for t in ip ip6; do nft -s list table $t filter; done";
const GONE: &str = "for t in ip ip6; do nft delete table $t filter; done";

/// Docker's rules come and cut workloads off; `doctor` says what to add, and that is all it takes.
pub fn beside(s: &Single) -> Result<String> {
    let place = &s.vps.place;
    let shell = |words: &str| place.run(&["sh", "-ec", words]);
    shell(DOCKER)?;
    let outcome = remedied(s);
    shell(GONE)?;
    let remedy = outcome?;
    s.internet.reaches(s.web().v6[0].into(), 3)?;
    Ok(format!(
        "Docker's rules drop what workloads get; 'hextet up --dry-run' and 'hextet doctor' say so and what to add: {remedy}; with it \
         workloads are reached by both families, and Docker's own rules are as they were"
    ))
}

fn remedied(s: &Single) -> Result<String> {
    let web = s.web();
    let before = s.vps.place.run(&["sh", "-ec", THEIRS])?;
    s.internet.does_not_reach(web.v6[0].into())?;
    let proposal = s.vps.hextet(&["up", "--dry-run"])?;
    expect(
        proposal.contains("DOCKER-USER"),
        format!("up does not say it: {proposal}"),
    )?;
    let found = s.vps.hextet_says(&["doctor", "--json"])?;
    let found: Vec<Value> = serde_json::from_str(&found).context(found)?;
    let mut remedies = Vec::new();
    for finding in found.iter().filter(|f| f["code"] == "foreign-firewall") {
        let remedy = finding["remedy"].as_str().context("no remedy")?;
        s.vps.place.run(&["sh", "-ec", remedy])?;
        remedies.push(remedy);
    }
    expect(remedies.len() == 2, format!("found: {found:?}"))?;
    let said = greeting(&s.internet, web.at())?;
    expect(said.starts_with("web"), said)?;
    let said = greeting(&s.internet, (super::VPS_V4, 8081).into())?;
    expect(said.starts_with("db"), said)?;
    s.vps.pings("web", INTERNET_V6.into())?;
    s.vps.pings("web", super::INTERNET_V4.into())?;
    let found = s.vps.hextet_says(&["doctor", "--json"])?;
    expect(
        !found.contains("foreign-firewall"),
        format!("still: {found}"),
    )?;
    let after = s.vps.place.run(&["sh", "-ec", THEIRS])?;
    let lost = before.lines().find(|line| !after.contains(line));
    expect(lost.is_none(), format!("gone: {lost:?}"))?;
    Ok(remedies.join("; "))
}
