//! `/v2.0/routers/ID/…`: interfaces, routes and gateways, each added and taken away by itself.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, State as Shared},
    response::Response,
};
use hextet_api::{
    describe::{Attribute, Default, Kind},
    error::{ApiError, Result},
    render::Shown,
    request::parse_object,
    resources,
};
use hextet_model::neutron::{HostRoute, Router};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{
    Attached, bad, gateways,
    gateways::Wish,
    interfaces::{self, Interface, Named},
    put, routes,
};
use crate::{
    app::{App, Asked},
    http::answer::{self, NetworkingError},
    networking::{
        entity::{Entity, Item},
        serve::visible,
    },
    state::{State, table::Row},
    write::Write,
};

type Answer = Result<Response, NetworkingError>;

const GATEWAYS: Attribute =
    Attribute::optional("external_gateways", Kind::Gateways, Default::EmptyList);

fn owned<'s>(state: &'s State, asked: &Asked, id: &str, action: &str) -> Result<&'s Row<Router>> {
    let row = visible::<Router>(state, &asked.caller, id)?;
    if asked.caller.member && row.value.is_owned(state, &asked.caller) {
        return Ok(row);
    }
    Err(ApiError::forbidden(action))
}

/// `PUT …/add_router_interface`.
pub async fn add_router_interface(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let action = "add_router_interface";
    let made = interface(&app, &asked, (&id, action), &body, interfaces::add).await?;
    Ok(answer::json(200, &made.show(true)))
}

/// `PUT …/remove_router_interface`.
pub async fn remove_router_interface(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let action = "remove_router_interface";
    let gone = interface(&app, &asked, (&id, action), &body, interfaces::remove).await?;
    Ok(answer::json(200, &gone.show(false)))
}

async fn interface(
    app: &App,
    asked: &Asked,
    (id, action): (&str, &str),
    body: &[u8],
    change: impl Fn(&mut Write<'_>, &Row<Router>, Named) -> Result<Interface>,
) -> Result<Interface> {
    owned(&app.cloud.state(), asked, id, action)?;
    let named = named(&parse_object(body)?)?;
    let done = app
        .cloud
        .write(&asked.caller, |write| {
            let row = owned(write.state, asked, id, action)?;
            change(write, row, named)
        })
        .await?;
    app.metrics.changed(resources::ROUTER.name, "update", 1);
    Ok(done)
}

fn named(body: &Map<String, Value>) -> Result<Named> {
    let id = |name: &str| match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let parsed = value.as_str().and_then(|s| s.parse::<uuid::Uuid>().ok());
            let wrong = || bad(format!("'{}' is not a valid UUID", plain(value)));
            parsed.map(Some).ok_or_else(wrong)
        }
    };
    Ok(Named {
        subnet: id("subnet_id")?.map(hextet_types::SubnetId),
        port: id("port_id")?.map(hextet_types::PortId),
    })
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// `PUT …/add_extraroutes`.
pub async fn add_extraroutes(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    change_routes(&app, &asked, (&id, "add_extraroutes"), &body, routes::join).await
}

/// `PUT …/remove_extraroutes`.
pub async fn remove_extraroutes(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let action = "remove_extraroutes";
    change_routes(&app, &asked, (&id, action), &body, routes::without).await
}

async fn change_routes(
    app: &App,
    asked: &Asked,
    target: (&str, &str),
    body: &[u8],
    merge: impl Fn(&[HostRoute], &[HostRoute]) -> Vec<HostRoute>,
) -> Answer {
    let attribute = resources::ROUTER.attribute("routes");
    let named: Vec<HostRoute> = inside(body, attribute.ok_or_else(ApiError::not_found)?)?;
    change(app, asked, target, |_, router, _| {
        router.routes = merge(&router.routes, &named);
        Ok(())
    })
    .await
}

/// The list that a body holds below `router`.
fn inside<T: DeserializeOwned>(body: &[u8], attribute: &Attribute) -> Result<Vec<T>> {
    let invalid = || ApiError::bad_request("Request body contains invalid data");
    let Some(Value::Object(mut router)) = parse_object(body)?.remove(resources::ROUTER.name) else {
        return Err(ApiError::bad_request(
            "Unable to find 'router' in request body",
        ));
    };
    let list = router.remove(attribute.name).ok_or_else(invalid)?;
    if !router.is_empty() {
        let names: Vec<_> = router.keys().map(String::as_str).collect();
        let text = format!("Unrecognized attribute(s) '{}'", names.join(", "));
        return Err(ApiError::bad_request(text));
    }
    serde_json::from_value(attribute.normalize(list)?).map_err(|_| invalid())
}

/// `PUT …/add_external_gateways`.
pub async fn add_external_gateways(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let action = "add_external_gateways";
    change_gateways(&app, &asked, (&id, action), &body, gateways::add_all).await
}

/// `PUT …/update_external_gateways`.
pub async fn update_external_gateways(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let action = "update_external_gateways";
    change_gateways(&app, &asked, (&id, action), &body, gateways::replace_all).await
}

/// `PUT …/remove_external_gateways`.
pub async fn remove_external_gateways(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let action = "remove_external_gateways";
    change_gateways(&app, &asked, (&id, action), &body, gateways::remove_these).await
}

async fn change_gateways(
    app: &App,
    asked: &Asked,
    target: (&str, &str),
    body: &[u8],
    edit: impl Fn(&mut Write<'_>, &mut Router, &mut Attached, &[Wish]) -> Result<()>,
) -> Answer {
    let wishes: Vec<Wish> = inside(body, &GATEWAYS)?;
    change(app, asked, target, |write, router, attached| {
        if target.1 != "remove_external_gateways" {
            let mut checked = wishes.iter();
            checked.try_for_each(|w| gateways::check_allowed(write, w, "update"))?;
        }
        edit(write, router, attached, &wishes)?;
        router.enable_ndp_proxy &= !router.gateways.is_empty();
        Ok(())
    })
    .await
}

async fn change(
    app: &App,
    asked: &Asked,
    (id, action): (&str, &str),
    edit: impl Fn(&mut Write<'_>, &mut Router, &mut Attached) -> Result<()>,
) -> Answer {
    let changed = app
        .cloud
        .write(&asked.caller, |write| {
            let row = owned(write.state, asked, id, action)?;
            let mut router = row.value.as_ref().clone();
            let mut attached = Attached::of(write.state, &router);
            edit(write, &mut router, &mut attached)?;
            put(write, row, router, &attached)
        })
        .await?;
    app.metrics.changed(resources::ROUTER.name, "update", 1);
    let item = Item::seen_by(changed, &app.cloud.state(), &asked.caller);
    let shown = Shown::new(&resources::ROUTER, asked.caller.admin, &[]);
    Ok(answer::json(
        200,
        &json!({"router": json!(shown.of(&item))}),
    ))
}
