//! `/v2.0/quotas`: how many of each resource a project may have, and has.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, State as Shared},
    response::Response,
};
use hextet_api::{
    describe::Quota,
    error::{ApiError, Result},
    request::{Caller, parse_object},
    resources,
};
use hextet_types::ProjectId;
use serde_json::{Map, Value, json};

use crate::{
    app::{App, Asked},
    http::answer::{self, NetworkingError},
    keys,
    state::{Limits, State},
};

type Answer = Result<Response, NetworkingError>;

/// `GET /v2.0/quotas`: projects whose limits differ from the defaults.
pub async fn list(Shared(app): Shared<Arc<App>>, asked: Asked) -> Answer {
    admin(&asked.caller)?;
    let state = app.cloud.state();
    let projects: Vec<ProjectId> = state.quotas.ids().cloned().collect();
    let all: Vec<Value> = projects.iter().map(|p| limits(&state, p)).collect();
    Ok(answer::json(200, &json!({"quotas": all})))
}

/// `GET /v2.0/quotas/PROJECT`.
pub async fn show(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(project): Path<String>,
) -> Answer {
    if project == "tenant" || project == "project" {
        let key = format!("{project}_id");
        return Ok(answer::json(
            200,
            &json!({project: {key: asked.caller.project}}),
        ));
    }
    let project = allowed(&asked.caller, project)?;
    Ok(answer::json(
        200,
        &json!({"quota": limits(&app.cloud.state(), &project)}),
    ))
}

/// `GET /v2.0/quotas/PROJECT/default` and `/details`.
pub async fn part(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path((project, what)): Path<(String, String)>,
) -> Answer {
    let project = allowed(&asked.caller, project)?;
    let state = app.cloud.state();
    let shown = match what.trim_end_matches(".json") {
        "default" => collect(|q| json!(q.default)),
        "details" => collect(|q| {
            json!({
                "limit": state.limit(&project, q),
                "used": state.used(&project, q.name),
                "reserved": 0,
            })
        }),
        _ => return Err(ApiError::not_found().into()),
    };
    let mut shown = shown;
    if what.starts_with("default") {
        shown.insert("project_id".into(), json!(project));
    }
    Ok(answer::json(200, &json!({"quota": shown})))
}

/// `PUT /v2.0/quotas/PROJECT`.
pub async fn update(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(project): Path<String>,
    body: Bytes,
) -> Answer {
    admin(&asked.caller)?;
    let project = ProjectId(checked(project)?);
    let (changes, check) = parse(&body)?;
    app.cloud
        .write(&asked.caller, |write| {
            let row = write.state.quotas.row(&project);
            let mut all = row.map(|r| r.value.as_ref().clone()).unwrap_or_default();
            if check {
                check_usage(write.state, &project, &changes)?;
            }
            all.extend(changes.clone());
            write.replace(
                keys::quota(&project),
                row.map_or(0, |r| r.mod_revision),
                &all,
            )
        })
        .await?;
    Ok(answer::json(
        200,
        &json!({"quota": limits(&app.cloud.state(), &project)}),
    ))
}

/// `DELETE /v2.0/quotas/PROJECT`: back to the defaults.
pub async fn delete(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(project): Path<String>,
) -> Answer {
    admin(&asked.caller)?;
    let project = ProjectId(checked(project)?);
    app.cloud
        .write(&asked.caller, |write| {
            match write.state.quotas.row(&project) {
                Some(row) => {
                    write.remove(keys::quota(&project), row.mod_revision);
                    Ok(())
                }
                None => Err(ApiError::new(
                    404,
                    "ProjectQuotaNotFound",
                    format!("Quota for project {project} could not be found."),
                )),
            }
        })
        .await?;
    Ok(answer::empty(204))
}

fn admin(caller: &Caller) -> Result<()> {
    if caller.admin {
        return Ok(());
    }
    Err(ApiError::new(
        403,
        "AdminRequired",
        "User does not have admin privileges: Only admin can view or configure quota.",
    ))
}

fn checked(project: String) -> Result<String> {
    let kind = resources::NETWORK.attribute("project_id");
    let fits = kind.is_some_and(|a| a.normalize(json!(project)).is_ok()) && !project.is_empty();
    if fits {
        Ok(project)
    } else {
        Err(ApiError::not_found())
    }
}

fn allowed(caller: &Caller, project: String) -> Result<ProjectId> {
    let project = ProjectId(checked(project)?);
    if project != caller.project {
        admin(caller)?;
    }
    Ok(project)
}

fn collect(value: impl Fn(Quota) -> Value) -> Map<String, Value> {
    resources::quotas()
        .map(|q| (q.name.to_owned(), value(q)))
        .collect()
}

fn limits(state: &State, project: &ProjectId) -> Value {
    let mut all = collect(|q| json!(state.limit(project, q)));
    all.insert("project_id".into(), json!(project));
    all.insert("tenant_id".into(), json!(project));
    Value::Object(all)
}

/// The new limits, and whether they must not be below what is in use.
fn parse(body: &[u8]) -> Result<(Limits, bool)> {
    let unable = || ApiError::bad_request("Unable to find 'quota' in request body");
    let Some(Value::Object(map)) = parse_object(body)?.remove("quota") else {
        return Err(unable());
    };
    let (mut limits, mut check) = (Limits::new(), false);
    for (name, value) in map {
        match name.as_str() {
            "check_limit" | "force" => {
                let yes = value == json!(true) || value == json!("True") || value == json!("true");
                check |= yes && name == "check_limit";
            }
            "project_id" | "tenant_id" => {}
            _ if resources::quotas().any(|q| q.name == name) => {
                let limit = match &value {
                    Value::Number(n) => n.as_i64(),
                    Value::String(s) => s.parse().ok(),
                    _ => None,
                };
                let fits = limit.filter(|n| (-1..=i64::from(i32::MAX)).contains(n));
                let limit = fits.ok_or_else(|| {
                    ApiError::bad_request(format!(
                        "Invalid input for {name}. Reason: '{value}' is no limit: -1 to {}.",
                        i32::MAX
                    ))
                })?;
                limits.insert(name, limit);
            }
            _ => {
                let text = format!("Unrecognized attribute(s) '{name}'");
                return Err(ApiError::bad_request(text));
            }
        }
    }
    Ok((limits, check))
}

fn check_usage(state: &State, project: &ProjectId, changes: &Limits) -> Result<()> {
    let below =
        |(name, limit): &(&String, &i64)| **limit >= 0 && state.used(project, name) > **limit;
    let under: Vec<_> = changes
        .iter()
        .filter(below)
        .map(|(name, _)| format!("'{name}'"))
        .collect();
    if under.is_empty() {
        return Ok(());
    }
    Err(ApiError::conflict(
        "InvalidQuotaValue",
        format!(
            "Change would make usage less than 0 for the following resources: [{}].",
            under.join(", ")
        ),
    ))
}
