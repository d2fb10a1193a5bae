//! A project: a user of its own, and what that user makes over REST.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    rest::{Cloud, Login, text},
    server::Server,
};

/// A project and its only member.
pub struct Project {
    /// Its name.
    pub name: &'static str,
    /// Its id.
    pub id: String,
    /// The API, as the member.
    pub cloud: Cloud,
    /// A group that lets everything in and out.
    pub open: String,
}

/// A network of a project.
#[derive(Clone, Debug)]
pub struct Network {
    /// Its id.
    pub id: String,
    /// What its ports are told, in octets.
    pub mtu: u64,
}

impl Project {
    /// Makes the project and its member, as the administrator.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn create(server: &Server, admin: &Cloud, name: &'static str) -> Result<Project> {
        let project = identity(admin, "project", &json!({"name": name}))?;
        let password = format!("{name}-secret");
        let user = json!({"name": name, "password": password});
        let user = identity(admin, "user", &user)?;
        let roles = admin.request("GET", "/identity/v3/roles?name=member", None)?;
        let role = text(&roles.body["roles"][0], "id")?;
        let path = format!("/identity/v3/projects/{project}/users/{user}/roles/{role}");
        let answer = admin.request("PUT", &path, None)?;
        if answer.status >= 300 {
            bail!("make {name} a member: {} {}", answer.status, answer.body);
        }
        let login = Login {
            user: name.to_owned(),
            password,
            project: name.to_owned(),
        };
        let cloud = server.login_as(&login)?;
        let open = text(
            &cloud.create("security_group", json!({"name": "open"}))?,
            "id",
        )?;
        for ethertype in ["IPv4", "IPv6"] {
            let rule =
                json!({"security_group_id": open, "direction": "ingress", "ethertype": ethertype});
            cloud.create("security_group_rule", rule)?;
        }
        Ok(Project {
            name,
            id: project,
            cloud,
            open,
        })
    }

    /// Makes a network with these subnets; IPv6 ones are SLAAC's.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn network(&self, name: &str, cidrs: &[&str]) -> Result<Network> {
        let network = self.cloud.create("network", json!({"name": name}))?;
        let network = Network {
            id: text(&network, "id")?,
            mtu: network["mtu"].as_u64().context("a network without MTU")?,
        };
        for cidr in cidrs {
            self.subnet(&network, json!({"cidr": cidr}))?;
        }
        Ok(network)
    }

    /// Makes a subnet, by its `cidr` or its `subnetpool_id` and whatever else; gives its id.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn subnet(&self, network: &Network, mut attributes: Value) -> Result<String> {
        let has_colon = |cidr: &str| cidr.contains(':');
        let v6 = attributes["cidr"]
            .as_str()
            .map_or_else(|| attributes["ip_version"] == json!(6), has_colon);
        attributes["network_id"] = json!(network.id);
        attributes["ip_version"] = json!(if v6 { 6 } else { 4 });
        if v6 {
            attributes["ipv6_ra_mode"] = json!("slaac");
            attributes["ipv6_address_mode"] = json!("slaac");
        }
        text(&self.cloud.create("subnet", attributes)?, "id")
    }
}

fn identity(admin: &Cloud, kind: &str, attributes: &Value) -> Result<String> {
    let path = format!("/identity/v3/{kind}s");
    let answer = admin.request("POST", &path, Some(&json!({kind: attributes})))?;
    if answer.status >= 300 {
        bail!(
            "make a {kind} of {attributes}: {} {}",
            answer.status,
            answer.body
        );
    }
    text(&answer.body[kind], "id")
}
