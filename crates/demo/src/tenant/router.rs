//! Routers, as their owners make them over REST.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::rest::{Cloud, text};

/// A router.
#[derive(Clone, Debug)]
pub struct Router {
    /// Its id.
    pub id: String,
    cloud: Cloud,
}

impl Router {
    /// Makes one without interfaces.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn create(cloud: &Cloud, name: &str) -> Result<Router> {
        let router = cloud.create("router", json!({"name": name}))?;
        Ok(Router {
            id: text(&router, "id")?,
            cloud: cloud.clone(),
        })
    }

    /// Puts it on the network by these subnets' gateway addresses.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn attach(&self, subnets: &[String]) -> Result<()> {
        let mut each = subnets.iter();
        each.try_for_each(|id| self.act("add_router_interface", json!({"subnet_id": id})))
    }

    /// Takes it off.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn detach(&self, subnets: &[String]) -> Result<()> {
        let mut each = subnets.iter();
        each.try_for_each(|id| self.act("remove_router_interface", json!({"subnet_id": id})))
    }

    /// Puts it on the network of this port, by the port's addresses.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn attach_port(&self, port: &str) -> Result<()> {
        self.act("add_router_interface", json!({"port_id": port}))
    }

    /// Changes it, and gives it as it is then.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn update(&self, attributes: Value) -> Result<Value> {
        self.cloud.update("router", &self.id, attributes)
    }

    /// As it is, for its owner.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn show(&self) -> Result<Value> {
        self.cloud.show("router", &self.id)
    }

    /// Takes it off all networks, and deletes it.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn delete(&self) -> Result<()> {
        let query = format!(
            "device_id={}&device_owner=network:router_interface",
            self.id
        );
        for port in self.cloud.list("port", &query)? {
            let port = text(&port, "id")?;
            self.act("remove_router_interface", json!({"port_id": port}))?;
        }
        self.cloud.delete("router", &self.id)
    }

    fn act(&self, action: &str, what: Value) -> Result<()> {
        let path = format!("{}/{action}", self.id);
        let done = self.cloud.update("router", &path, what.clone());
        done.with_context(|| format!("{action} {what}")).map(drop)
    }
}
