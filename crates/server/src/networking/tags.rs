//! `/v2.0/COLLECTION/ID/tags`.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    body::Bytes,
    extract::{Path, State as Shared},
    response::Response,
};
use hextet_api::{
    error::{ApiError, Result},
    request::parse_object,
    value::{MAX_TAG_LEN, MAX_TAGS},
};
use serde_json::{Value, json};

use super::{
    entity::Entity,
    serve::{changeable, visible},
};
use crate::{
    app::{App, Asked},
    http::answer::{self, NetworkingError},
};

type Answer = Result<Response, NetworkingError>;
type Tags = BTreeSet<String>;

fn tags_of<E: Entity>(entity: &E) -> Tags {
    let mut copy = entity.clone();
    copy.standard_mut()
        .map(|s| std::mem::take(&mut s.tags))
        .unwrap_or_default()
        .into_iter()
        .collect()
}

/// `GET …/tags`.
pub async fn list<E: Entity>(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
) -> Answer {
    let state = app.cloud.state();
    let row = visible::<E>(&state, &asked.caller, &id)?;
    Ok(answer::json(
        200,
        &json!({"tags": tags_of(row.value.as_ref())}),
    ))
}

/// `GET …/tags/TAG`: 204 when it is there.
pub async fn show_one<E: Entity>(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path((id, tag)): Path<(String, String)>,
) -> Answer {
    let state = app.cloud.state();
    let row = visible::<E>(&state, &asked.caller, &id)?;
    if tags_of(row.value.as_ref()).contains(&tag) {
        return Ok(answer::empty(204));
    }
    Err(no_tag(&tag).into())
}

/// `PUT …/tags`.
pub async fn replace<E: Entity>(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let new = parse(&body)?;
    let tags = change::<E>(&app, &asked, &id, |tags| {
        *tags = new.clone();
        Ok(())
    })
    .await?;
    Ok(answer::json(200, &json!({"tags": tags})))
}

/// `POST …/tags`: these besides.
pub async fn add<E: Entity>(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let new = parse(&body)?;
    change::<E>(&app, &asked, &id, |tags| {
        tags.extend(new.iter().cloned());
        Ok(())
    })
    .await?;
    Ok(answer::json(201, &json!({"tags": new})))
}

/// `PUT …/tags/TAG`.
pub async fn put_one<E: Entity>(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path((id, tag)): Path<(String, String)>,
) -> Answer {
    check(&[tag.clone()].into())?;
    change::<E>(&app, &asked, &id, |tags| {
        tags.insert(tag.clone());
        Ok(())
    })
    .await?;
    Ok(answer::empty(201))
}

/// `DELETE …/tags/TAG`.
pub async fn delete_one<E: Entity>(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path((id, tag)): Path<(String, String)>,
) -> Answer {
    let remove = |tags: &mut Tags| {
        if tags.remove(&tag) {
            Ok(())
        } else {
            Err(no_tag(&tag))
        }
    };
    change::<E>(&app, &asked, &id, remove).await?;
    Ok(answer::empty(204))
}

/// `DELETE …/tags`.
pub async fn clear<E: Entity>(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
) -> Answer {
    change::<E>(&app, &asked, &id, |tags| {
        tags.clear();
        Ok(())
    })
    .await?;
    Ok(answer::empty(204))
}

fn no_tag(tag: &str) -> ApiError {
    ApiError::new(404, "TagNotFound", format!("Tag {tag} could not be found."))
}

fn parse(body: &[u8]) -> Result<Tags> {
    let invalid = || ApiError::invalid_input("Invalid tags body");
    let tags = parse_object(body)?.remove("tags").ok_or_else(invalid)?;
    let Value::Array(items) = tags else {
        return Err(invalid());
    };
    let count = items.len();
    let texts = items.into_iter().map(|item| match item {
        Value::String(s) => Ok(s),
        other => Err(ApiError::invalid_input(format!(
            "'{other}' is not a valid string"
        ))),
    });
    let tags = texts.collect::<Result<Tags>>()?;
    if tags.len() < count {
        return Err(ApiError::invalid_input("Duplicate items in the list"));
    }
    check(&tags)?;
    Ok(tags)
}

fn check(tags: &Tags) -> Result<()> {
    if let Some(long) = tags
        .iter()
        .find(|t| t.chars().count() > MAX_TAG_LEN || t.is_empty())
    {
        return Err(ApiError::invalid_input(format!(
            "'{long}' is no tag of 1 to {MAX_TAG_LEN} characters"
        )));
    }
    if tags.len() > MAX_TAGS {
        return Err(ApiError::new(
            400,
            "BadRequest",
            format!(
                "Bad tags request: The number of tags exceed the per-resource limit of {MAX_TAGS}."
            ),
        ));
    }
    Ok(())
}

async fn change<E: Entity>(
    app: &App,
    asked: &Asked,
    id: &str,
    edit: impl Fn(&mut Tags) -> Result<()>,
) -> Result<Tags> {
    app.cloud
        .write(&asked.caller, |write| {
            let row = changeable::<E>(write.state, write.caller, id, "update")?;
            let before = tags_of(row.value.as_ref());
            let mut tags = before.clone();
            edit(&mut tags)?;
            check(&tags)?;
            let mut entity = row.value.as_ref().clone();
            if let Some(standard) = entity.standard_mut().filter(|_| tags != before) {
                standard.tags = tags.iter().cloned().collect();
                standard.revision_number += 1;
                standard.updated_at = write.now;
                write.replace(entity.key(), row.mod_revision, &entity)?;
            }
            Ok(tags)
        })
        .await
}
