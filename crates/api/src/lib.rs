//! What travels between clients, agents and the server.
//!
//! * [`describe`]: a resource of the networking API, described once: attributes, types, defaults,
//!   who may read and set them, filters, sort keys, aliases, quota.
//! * [`resources`]: the descriptions. Adding a resource begins with one more of these.
//! * [`value`], [`request`], [`query`], [`render`]: what follows from a description: validation of
//!   bodies, list mechanics, what each caller is shown.
//! * [`extension`], [`openapi`]: what clients can learn about the API from the API.
//! * [`error`]: errors with Neutron's type names.
//! * [`agent`]: the agents' protocol.
//!
//! Nothing here does I/O or knows what the server keeps.

pub mod agent;
pub mod describe;
pub mod error;
pub mod extension;
pub mod openapi;
pub mod query;
pub mod render;
pub mod request;
pub mod resources;
pub mod value;

pub use describe::{Access, Attribute, Default, Kind, Resource};
pub use error::ApiError;
