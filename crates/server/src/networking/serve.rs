//! List, show, create, update and delete, for every resource: what follows from its description.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, RawQuery, State as Shared},
    http::HeaderMap,
    response::Response,
};
use hextet_api::{
    describe::{Access, Resource},
    error::{ApiError, Result},
    query::{Query, Record},
    render::Shown,
    request::{Caller, parse_create, parse_update},
};
use serde_json::{Value, json};

use super::entity::{Entity, Item};
use crate::{
    app::{App, Asked},
    http::answer::{self, NetworkingError},
    state::{State, table::Row},
};

type Answer = Result<Response, NetworkingError>;

/// `GET /v2.0/COLLECTION`.
pub async fn list<E: Entity>(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::parse(E::RESOURCE, decode(query.as_deref().unwrap_or_default()))?;
    if asked.caller.member {
        E::prepare(&app.cloud, &asked.caller).await?;
    }
    let (items, marker) = {
        let state = app.cloud.state();
        let items = matching::<E>(&state, &query, &asked.caller);
        let marker = query.marker.as_ref().and_then(|id| E::find(&state, id));
        let marker = marker.filter(|m| m.value.is_visible(&state, &asked.caller));
        (
            items,
            marker.map(|m| Item::seen_by(Arc::clone(&m.value), &state, &asked.caller)),
        )
    };
    answer_list(E::RESOURCE, &asked, &query, items, marker.as_ref())
}

fn matching<E: Entity>(state: &State, query: &Query, caller: &Caller) -> Vec<Item<E>> {
    E::candidates(state, query, caller)
        .into_iter()
        .filter(|e| e.is_visible(state, caller))
        .map(|e| Item::seen_by(e, state, caller))
        .filter(|item| query.matches(item))
        .collect()
}

/// Orders, pages and shows what matches.
///
/// # Errors
///
/// 404: the marker is not there.
pub fn answer_list<R: Record>(
    resource: &'static Resource,
    asked: &Asked,
    query: &Query,
    items: Vec<R>,
    marker: Option<&R>,
) -> Answer {
    answer_list_at(resource, resource.path, asked, query, items, marker)
}

/// The same for what is part of something else: `path` names that.
///
/// # Errors
///
/// 404: the marker is not there.
pub fn answer_list_at<R: Record>(
    resource: &'static Resource,
    path: &str,
    asked: &Asked,
    query: &Query,
    items: Vec<R>,
    marker: Option<&R>,
) -> Answer {
    let (page, next, previous) = query.page(resource, items, marker)?;
    let shown = Shown::new(resource, asked.caller.admin, &query.fields);
    let mut body = Vec::with_capacity(64 + page.len() * 1024);
    let failed = |_| {
        ApiError::new(
            500,
            "HTTPInternalServerError",
            "the answer cannot be encoded",
        )
    };
    body.extend(format!("{{\"{}\":[", resource.collection).bytes());
    for (at, item) in page.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        serde_json::to_writer(&mut body, &shown.of(item)).map_err(failed)?;
    }
    body.push(b']');
    if query.limit.is_some() {
        let id = |r: Option<&R>| r.and_then(|r| r.value("id").as_str().map(str::to_owned));
        let base = format!("{}/v2.0/{path}", asked.url);
        let link = |rel: &str, id: Option<String>, reverse: bool| json!({"rel": rel, "href": format!("{base}{}", query.link(id.as_deref(), reverse))});
        let next = next.then(|| link("next", id(page.last()), false));
        let previous = previous.then(|| link("previous", id(page.first()), true));
        let links: Vec<Value> = next.into_iter().chain(previous).collect();
        if !links.is_empty() {
            body.extend(format!(",\"{}_links\":{}", resource.collection, json!(links)).bytes());
        }
    }
    body.push(b'}');
    Ok(answer::bytes(200, body))
}

/// `GET /v2.0/COLLECTION/ID`.
pub async fn show<E: Entity>(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let parameters = decode(query.as_deref().unwrap_or_default());
    let fields: Vec<String> = parameters
        .into_iter()
        .filter(|(key, _)| key == "fields")
        .flat_map(|(_, v)| v.split(',').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let item = {
        let state = app.cloud.state();
        let row = visible::<E>(&state, &asked.caller, &id)?;
        Item::seen_by(Arc::clone(&row.value), &state, &asked.caller)
    };
    let shown = Shown::new(E::RESOURCE, asked.caller.admin, &fields);
    Ok(answer::json(
        200,
        &json!({E::RESOURCE.name: json!(shown.of(&item))}),
    ))
}

/// `POST /v2.0/COLLECTION`.
pub async fn create<E: Entity>(Shared(app): Shared<Arc<App>>, asked: Asked, body: Bytes) -> Answer {
    let resource = E::RESOURCE;
    let action = || format!("create_{}", resource.name);
    allow(resource.operations.create, &asked.caller, action)?;
    let (inputs, bulk) = parse_create(resource, &body, &asked.caller)?;
    let made = app
        .cloud
        .write(&asked.caller, |write| {
            inputs
                .iter()
                .map(|input| E::create(write, input))
                .collect::<Result<Vec<_>>>()
        })
        .await?;
    E::settle(&app.cloud, &made).await?;
    app.metrics.changed(resource.name, "create", made.len());
    let items: Vec<_> = {
        let state = app.cloud.state();
        made.into_iter()
            .map(|e| Item::seen_by(as_it_stands(&state, e), &state, &asked.caller))
            .collect()
    };
    let shown = Shown::new(resource, asked.caller.admin, &[]);
    let shown: Vec<Value> = items.iter().map(|item| json!(shown.of(item))).collect();
    Ok(match (bulk, shown.into_iter()) {
        (true, all) => answer::json(201, &json!({resource.collection: all.collect::<Vec<_>>()})),
        (false, mut all) => answer::json(201, &json!({resource.name: all.next()})),
    })
}

fn as_it_stands<E: Entity>(state: &State, entity: Arc<E>) -> Arc<E> {
    match E::find(state, &entity.id().to_string()) {
        Some(row) => Arc::clone(&row.value),
        None => entity,
    }
}

/// `PUT /v2.0/COLLECTION/ID`.
pub async fn update<E: Entity>(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let resource = E::RESOURCE;
    let expected = if_match(&headers)?;
    {
        let state = app.cloud.state();
        changeable::<E>(&state, &asked.caller, &id, "update")?;
    }
    let input = parse_update(resource, &body, &asked.caller)?;
    let entity = app
        .cloud
        .write(&asked.caller, |write| {
            let row = changeable::<E>(write.state, write.caller, &id, "update")?;
            check_revision(row.value.revision(), expected)?;
            E::update(write, row, &input)
        })
        .await?;
    app.metrics.changed(resource.name, "update", 1);
    let item = {
        let state = app.cloud.state();
        Item::seen_by(as_it_stands(&state, entity), &state, &asked.caller)
    };
    let shown = Shown::new(resource, asked.caller.admin, &[]);
    Ok(answer::json(
        200,
        &json!({resource.name: json!(shown.of(&item))}),
    ))
}

/// `DELETE /v2.0/COLLECTION/ID`.
pub async fn delete<E: Entity>(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let expected = if_match(&headers)?;
    let going = {
        let state = app.cloud.state();
        let row = changeable::<E>(&state, &asked.caller, &id, "delete")?;
        check_revision(row.value.revision(), expected)?;
        Arc::clone(&row.value)
    };
    E::unsettle(&app.cloud, &going).await?;
    app.cloud
        .write(&asked.caller, |write| {
            let row = changeable::<E>(write.state, write.caller, &id, "delete")?;
            check_revision(row.value.revision(), expected)?;
            E::delete(write, row)
        })
        .await?;
    app.metrics.changed(E::RESOURCE.name, "delete", 1);
    Ok(answer::empty(204))
}

/// # Errors
///
/// 403: the caller's roles do not allow it.
pub fn allow(access: Access, caller: &Caller, action: impl Fn() -> String) -> Result<()> {
    let allowed = match access {
        Access::Nobody => false,
        Access::Admin => caller.admin,
        Access::NetworkOwner | Access::Owner => caller.member,
        Access::Anyone => true,
    };
    if allowed {
        Ok(())
    } else {
        Err(ApiError::forbidden(action()))
    }
}

/// One that the caller sees.
///
/// # Errors
///
/// 404, whether there is none or the caller may not know of it.
pub fn visible<'s, E: Entity>(state: &'s State, caller: &Caller, id: &str) -> Result<&'s Row<E>> {
    let row = E::find(state, id).filter(|r| r.value.is_visible(state, caller));
    row.ok_or_else(|| E::RESOURCE.missing(id))
}

/// One that the caller may change.
///
/// # Errors
///
/// 404 as [`visible`]; 403 for what is shared with the caller.
pub fn changeable<'s, E: Entity>(
    state: &'s State,
    caller: &Caller,
    id: &str,
    verb: &str,
) -> Result<&'s Row<E>> {
    let row = visible::<E>(state, caller, id)?;
    if row.value.is_owned(state, caller) && caller.member {
        return Ok(row);
    }
    Err(ApiError::forbidden(format!("{verb}_{}", E::RESOURCE.name)))
}

fn if_match(headers: &HeaderMap) -> Result<Option<u64>> {
    let Some(value) = headers.get("if-match").and_then(|v| v.to_str().ok()) else {
        return Ok(None);
    };
    match value
        .strip_prefix("revision_number=")
        .and_then(|n| n.parse().ok())
    {
        Some(number) => Ok(Some(number)),
        None if value.starts_with("revision_number") => Err(ApiError::new(
            400,
            "BadRequest",
            "Bad if-match request: Revision number should be in format of revision_number=<int>.",
        )),
        None => Ok(None),
    }
}

fn check_revision(current: u64, expected: Option<u64>) -> Result<()> {
    match expected.filter(|e| *e != current) {
        None => Ok(()),
        Some(expected) => Err(ApiError::new(
            412,
            "RevisionNumberConstraintFailed",
            format!("Constrained to {expected}, but current revision is {current}"),
        )),
    }
}

/// The parameters of a query, decoded (`application/x-www-form-urlencoded`).
pub fn decode(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(k, v)| (unquote(k), unquote(v)))
        .collect()
}

fn unquote(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let mut ahead = bytes.clone();
                let digits = [ahead.next(), ahead.next()].map(|d| d.map(char::from));
                match digits.map(|d| d.and_then(|d| d.to_digit(16))) {
                    [Some(high), Some(low)] => {
                        out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                        bytes = ahead;
                    }
                    _ => out.push(b'%'),
                }
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_and_what_is_no_code_stays() {
        let pairs = decode("a=b%20c&fixed_ips=ip_address%3D10.0.0.1&x=%zz&y=%4&z&p=1+2");
        let expected = [
            ("a", "b c"),
            ("fixed_ips", "ip_address=10.0.0.1"),
            ("x", "%zz"),
            ("y", "%4"),
            ("z", ""),
            ("p", "1 2"),
        ];
        assert_eq!(pairs, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    proptest::proptest! {
        #[test]
        fn no_query_makes_it_panic(query in "\\PC{0,60}") {
            let _ = decode(&query);
        }
    }
}
