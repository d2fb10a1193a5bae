//! An external network, a project with networks of its own, and what routers are asked for.

#![allow(dead_code, reason = "each test uses a part of it")]

use hextet_api::agent::StatusReport;
use hextet_model::neutron::NetworkType;
use hextet_server::StoreKind;
use hextet_types::{HostId, NetworkId, PortId, RouterId};
use serde_json::{Value, json};

use crate::cloud::{
    Answer, Client, TestCloud,
    host::{Host, Stream},
};

/// A cloud with an external network of both families, and a member of a project.
pub struct World {
    pub cloud: TestCloud,
    pub admin: Client,
    pub user: Client,
    pub project: String,
    pub external: Value,
    /// The external subnets, IPv4 and IPv6.
    pub outside: [Value; 2],
}

impl World {
    pub async fn start() -> World {
        World::on("203.0.113.0/24").await
    }

    /// With this IPv4 subnet outside.
    pub async fn on(cidr: &str) -> World {
        let cloud = TestCloud::start_with(StoreKind::Memory, |config| {
            config.tenant_network_types = vec![NetworkType::Vxlan];
        });
        let cloud = cloud.await;
        let admin = cloud.admin().await;
        let external = json!({"name": "ext", "router:external": true});
        let external = admin.network(external).await;
        let v4 = admin.subnet(&external, cidr, json!({})).await;
        let v6 = admin
            .subnet(&external, "2a00:1450:4000::/64", json!({}))
            .await;
        let (user, project) = cloud.project("alpha", "member").await;
        World {
            cloud,
            admin,
            user,
            project,
            external,
            outside: [v4, v6],
        }
    }

    /// A network of the project with subnets of these prefixes.
    pub async fn inside(&self, cidrs: &[&str]) -> (Value, Vec<Value>) {
        let network = self.user.network(json!({})).await;
        let mut subnets = Vec::new();
        for cidr in cidrs {
            subnets.push(self.user.subnet(&network, cidr, json!({})).await);
        }
        (network, subnets)
    }

    /// A router with a gateway.
    pub async fn router(&self) -> Value {
        let gateway = json!({"network_id": self.external["id"]});
        router(&self.user, json!({"external_gateway_info": gateway})).await
    }

    /// A port behind a router that leads outside: router, subnet, port.
    pub async fn behind(&self, cidr: &str) -> (Value, Value, Value) {
        let (network, subnets) = self.inside(&[cidr]).await;
        let router = self.router().await;
        add(&self.user, &router, &subnets[0]).await.ok(200);
        let port = self.user.port(&network, json!({})).await;
        (router, subnets[0].clone(), port)
    }

    /// A floating IP.
    pub async fn floating(&self, more: Value) -> Value {
        self.try_floating(&self.user, more).await.ok(201)["floatingip"].clone()
    }

    pub async fn try_floating(&self, client: &Client, mut more: Value) -> Answer {
        more["floating_network_id"] = self.external["id"].clone();
        client.try_create("floatingips", "floatingip", more).await
    }
}

pub async fn router(client: &Client, attributes: Value) -> Value {
    client.create("routers", "router", attributes).await
}

pub async fn set(client: &Client, router: &Value, attributes: Value) -> Answer {
    client
        .update("routers", "router", &router["id"], attributes)
        .await
}

pub async fn act(client: &Client, router: &Value, what: &str, body: Value) -> Answer {
    let id = router["id"].as_str().unwrap();
    let path = format!("/networking/v2.0/routers/{id}/{what}");
    client.send("PUT", &path, Some(body)).await
}

/// Puts a router on a subnet.
pub async fn add(client: &Client, router: &Value, subnet: &Value) -> Answer {
    let body = json!({"subnet_id": subnet["id"]});
    act(client, router, "add_router_interface", body).await
}

/// Takes a router off a subnet.
pub async fn remove(client: &Client, router: &Value, subnet: &Value) -> Answer {
    let body = json!({"subnet_id": subnet["id"]});
    act(client, router, "remove_router_interface", body).await
}

pub fn host_id(name: &str) -> HostId {
    name.parse().unwrap()
}

pub fn network_id(network: &Value) -> NetworkId {
    network["id"].as_str().unwrap().parse().unwrap()
}

pub fn router_id(router: &Value) -> RouterId {
    router["id"].as_str().unwrap().parse().unwrap()
}

pub fn port_id(id: &Value) -> PortId {
    id.as_str().unwrap().parse().unwrap()
}

pub fn hello(tunnel: &str) -> StatusReport {
    StatusReport {
        complete: true,
        tunnel_address: Some(tunnel.parse().unwrap()),
        ..StatusReport::default()
    }
}

/// A host that has joined, said its end of tunnels, and listens.
pub async fn host(cloud: &TestCloud, name: &str, tunnel: &str) -> (Host, Stream) {
    let host = Host::joined(cloud, name).await;
    assert_eq!(host.post("/v1/status", &hello(tunnel)).await.0, 204);
    let stream = host.intent().await;
    (host, stream)
}

/// A port of a network on a host.
pub async fn port_on(world: &World, network: &Value, host: &str) -> Value {
    let port = world.user.port(network, json!({})).await;
    let bound = json!({"binding:host_id": host});
    let answer = world.admin.update("ports", "port", &port["id"], bound);
    answer.await.ok(200)["port"].clone()
}
