//! The networking API: routes, and handlers that serve every [`Entity`](entity::Entity) alike.

pub mod address_group;
pub mod address_scope;
pub mod allocate;
pub mod catalogue;
pub mod entity;
pub mod floating_ip;
pub mod hosts;
pub mod metering;
pub mod ndp_proxy;
pub mod network;
pub mod port;
pub mod qos;
pub mod quotas;
pub mod rbac;
pub mod router;
pub mod security_group;
pub mod security_group_rule;
pub mod serve;
pub mod sharing;
pub mod subnet;
pub mod subnet_pool;
pub mod tags;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, put},
};
use hextet_api::describe::Access;
use hextet_model::neutron::{
    AddressGroup, AddressScope, FloatingIp, MeteringLabel, MeteringRule, NdpProxy, Network, Port,
    QosPolicy, RbacPolicy, Router as NeutronRouter, SecurityGroup, SecurityGroupRule, Subnet,
    SubnetPool,
};

use self::entity::Entity;
use crate::{
    app::App,
    http::answer::{IdentityError, NetworkingError},
};

/// Everything under `/networking`.
pub fn routes() -> Router<Arc<App>> {
    let v2 = Router::new()
        .route("/", get(catalogue::resources))
        .route("/extensions", get(catalogue::extensions))
        .route("/extensions/{alias}", get(catalogue::extension))
        .route("/availability_zones", get(catalogue::availability_zones))
        .route("/service-providers", get(catalogue::service_providers))
        .route(
            "/network-ip-availabilities",
            get(catalogue::ip_availabilities),
        )
        .route(
            "/network-ip-availabilities/{id}",
            get(catalogue::ip_availability),
        )
        .route("/quotas", get(quotas::list))
        .route(
            "/quotas/{project}",
            get(quotas::show).put(quotas::update).delete(quotas::delete),
        )
        .route("/quotas/{project}/{what}", get(quotas::part))
        .route("/agents", get(hosts::list))
        .route(
            "/agents/{id}",
            get(hosts::show).put(hosts::update).delete(hosts::delete),
        )
        .merge(entity_routes::<Network>())
        .merge(entity_routes::<Subnet>())
        .merge(entity_routes::<Port>())
        .merge(entity_routes::<SecurityGroup>())
        .merge(entity_routes::<SecurityGroupRule>())
        .merge(entity_routes::<SubnetPool>())
        .merge(entity_routes::<AddressScope>())
        .merge(entity_routes::<RbacPolicy>())
        .merge(entity_routes::<AddressGroup>())
        .route(
            "/address-groups/{id}/add_addresses",
            put(address_group::add_addresses),
        )
        .route(
            "/address-groups/{id}/remove_addresses",
            put(address_group::remove_addresses),
        )
        .merge(binding_routes())
        .merge(layer3_routes())
        .merge(qos_routes())
        .merge(entity_routes::<MeteringLabel>())
        .merge(entity_routes::<MeteringRule>())
        .route("/metering/metering-label-sums", get(metering::sums::list))
        .route(
            "/subnetpools/{id}/add_prefixes",
            put(subnet_pool::actions::add_prefixes),
        )
        .route(
            "/subnetpools/{id}/remove_prefixes",
            put(subnet_pool::actions::remove_prefixes),
        )
        .route(
            "/subnetpools/{id}/onboard_network_subnets",
            put(subnet_pool::actions::onboard_network_subnets),
        )
        .fallback(nothing_here)
        .method_not_allowed_fallback(not_allowed);
    Router::new()
        .route("/", get(catalogue::versions))
        .route("/openapi.json", get(catalogue::openapi))
        .nest("/v2.0", v2)
        .route("/v2.0/", get(catalogue::resources))
        .fallback(nothing_here)
}

/// Bindings of ports.
fn binding_routes() -> Router<Arc<App>> {
    use port::bindings::serve;
    Router::new()
        .route("/ports/{id}/bindings", get(serve::list).post(serve::create))
        .route(
            "/ports/{id}/bindings/{host}",
            get(serve::show).put(serve::update).delete(serve::delete),
        )
        .route("/ports/{id}/bindings/{host}/activate", put(serve::activate))
}

/// Routers and floating IPs.
fn layer3_routes() -> Router<Arc<App>> {
    use floating_ip::forwarding::serve as forwardings;
    use router::actions;
    Router::new()
        .merge(entity_routes::<NeutronRouter>())
        .merge(entity_routes::<FloatingIp>())
        .merge(entity_routes::<NdpProxy>())
        .route(
            "/routers/{id}/add_router_interface",
            put(actions::add_router_interface),
        )
        .route(
            "/routers/{id}/remove_router_interface",
            put(actions::remove_router_interface),
        )
        .route(
            "/routers/{id}/add_extraroutes",
            put(actions::add_extraroutes),
        )
        .route(
            "/routers/{id}/remove_extraroutes",
            put(actions::remove_extraroutes),
        )
        .route(
            "/routers/{id}/add_external_gateways",
            put(actions::add_external_gateways),
        )
        .route(
            "/routers/{id}/update_external_gateways",
            put(actions::update_external_gateways),
        )
        .route(
            "/routers/{id}/remove_external_gateways",
            put(actions::remove_external_gateways),
        )
        .route(
            "/floatingips/{id}/port_forwardings",
            get(forwardings::list).post(forwardings::create),
        )
        .route(
            "/floatingips/{id}/port_forwardings/{forwarding}",
            get(forwardings::show)
                .put(forwardings::update)
                .delete(forwardings::delete),
        )
}

/// QoS policies, their rules and what those may say.
fn qos_routes() -> Router<Arc<App>> {
    Router::new()
        .merge(entity_routes::<QosPolicy>())
        .merge(qos::rule::routes())
        .route("/qos/rule-types", get(qos::types::list))
        .route("/qos/rule-types/{type}", get(qos::types::show))
}

fn entity_routes<E: Entity>() -> Router<Arc<App>> {
    let resource = E::RESOURCE;
    let path = format!("/{}", resource.path);
    let item = format!("{path}/{{id}}");
    let mut one = get(serve::show::<E>).delete(serve::delete::<E>);
    if resource.operations.update != Access::Nobody {
        one = one.put(serve::update::<E>);
    }
    let routes = Router::new()
        .route(&path, get(serve::list::<E>).post(serve::create::<E>))
        .route(&item, one);
    if !resource.tagged {
        return routes;
    }
    routes
        .route(
            &format!("{item}/tags"),
            get(tags::list::<E>)
                .put(tags::replace::<E>)
                .post(tags::add::<E>)
                .delete(tags::clear::<E>),
        )
        .route(
            &format!("{item}/tags/{{tag}}"),
            put(tags::put_one::<E>)
                .get(tags::show_one::<E>)
                .delete(tags::delete_one::<E>),
        )
}

async fn nothing_here() -> NetworkingError {
    NetworkingError(hextet_api::ApiError::not_found())
}

async fn not_allowed() -> NetworkingError {
    NetworkingError(hextet_api::ApiError::of_status(405))
}

/// The identity API's words for a path that is not there.
pub async fn nothing_of_identity() -> IdentityError {
    IdentityError(hextet_api::ApiError::not_found())
}
