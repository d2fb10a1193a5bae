//! `/v2.0/qos/policies/POLICY/…_rules`, and rules by their identifiers alone.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{Path, RawQuery, State as Shared},
    response::Response,
    routing::get,
};
use hextet_api::{
    describe::Resource,
    error::{ApiError, Result},
    query::{Query, Record},
    render::Shown,
    request::{Input, parse_create, parse_update},
    resources,
};
use hextet_model::neutron::{Direction, QosPolicy, QosRule, QosRuleKind};
use hextet_types::QosRuleId;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::{
    entity::Entity,
    serve::{allow, answer_list_at, changeable, decode, visible},
};
use crate::{
    app::{App, Asked},
    http::answer::{self, NetworkingError},
    state::{State, table::Row},
    write::Write,
};

type Answer = Result<Response, NetworkingError>;

/// A type of rules.
pub trait RuleType: Send + Sync + 'static {
    /// Its description.
    const RESOURCE: &'static Resource;
    /// The same for requests that do not name the policy, where there are such.
    const ALIAS: Option<&'static Resource>;
    /// As a policy names it.
    const NAME: &'static str;

    /// What a request asks for; of a change, what it does not name stays as it was.
    ///
    /// # Errors
    ///
    /// 400.
    fn read(input: &Input, old: Option<QosRuleKind>) -> Result<QosRuleKind>;
}

/// What is named, or as it was, or what is there when nothing is said.
fn or_old<T: serde::de::DeserializeOwned>(input: &Input, name: &str, old: Option<T>) -> Result<T> {
    match (input.names(name), old) {
        (false, Some(old)) => Ok(old),
        _ => input.take(name),
    }
}

/// Bandwidth.
pub struct Bandwidth;

impl RuleType for Bandwidth {
    const RESOURCE: &'static Resource = &resources::BANDWIDTH_LIMIT_RULE;
    const ALIAS: Option<&'static Resource> = Some(&resources::ALIAS_BANDWIDTH_LIMIT_RULE);
    const NAME: &'static str = "bandwidth_limit";

    fn read(input: &Input, old: Option<QosRuleKind>) -> Result<QosRuleKind> {
        let (rate, burst) = match old {
            Some(QosRuleKind::BandwidthLimit {
                max_kbps,
                max_burst_kbps,
                ..
            }) => (Some(max_kbps), Some(max_burst_kbps)),
            _ => (None, None),
        };
        Ok(QosRuleKind::BandwidthLimit {
            direction: direction(input, old)?,
            max_kbps: or_old(input, "max_kbps", rate)?,
            max_burst_kbps: or_old(input, "max_burst_kbps", burst)?,
        })
    }
}

/// Packet rates.
pub struct PacketRate;

impl RuleType for PacketRate {
    const RESOURCE: &'static Resource = &resources::PACKET_RATE_LIMIT_RULE;
    const ALIAS: Option<&'static Resource> = None;
    const NAME: &'static str = "packet_rate_limit";

    fn read(input: &Input, old: Option<QosRuleKind>) -> Result<QosRuleKind> {
        let (rate, burst) = match old {
            Some(QosRuleKind::PacketRateLimit {
                max_kpps,
                max_burst_kpps,
                ..
            }) => (Some(max_kpps), Some(max_burst_kpps)),
            _ => (None, None),
        };
        Ok(QosRuleKind::PacketRateLimit {
            direction: direction(input, old)?,
            max_kpps: or_old(input, "max_kpps", rate)?,
            max_burst_kpps: or_old(input, "max_burst_kpps", burst)?,
        })
    }
}

/// Code points.
pub struct Dscp;

impl RuleType for Dscp {
    const RESOURCE: &'static Resource = &resources::DSCP_MARKING_RULE;
    const ALIAS: Option<&'static Resource> = Some(&resources::ALIAS_DSCP_MARKING_RULE);
    const NAME: &'static str = "dscp_marking";

    fn read(input: &Input, old: Option<QosRuleKind>) -> Result<QosRuleKind> {
        let mark = match old {
            Some(QosRuleKind::DscpMarking { dscp_mark }) => Some(dscp_mark),
            _ => None,
        };
        let dscp_mark = or_old(input, "dscp_mark", mark)?;
        if QosRuleKind::DSCP_MARKS.contains(&dscp_mark) {
            return Ok(QosRuleKind::DscpMarking { dscp_mark });
        }
        Err(ApiError::bad_request(format!(
            "Invalid input for dscp_mark. Reason: {dscp_mark} is not in {:?}.",
            QosRuleKind::DSCP_MARKS
        )))
    }
}

fn direction(input: &Input, old: Option<QosRuleKind>) -> Result<Direction> {
    or_old(input, "direction", old.map(QosRuleKind::direction))
}

/// The routes of all types.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .merge(of_type::<Bandwidth>())
        .merge(of_type::<PacketRate>())
        .merge(of_type::<Dscp>())
}

fn of_type<T: RuleType>() -> Router<Arc<App>> {
    let path = format!("/{}", T::RESOURCE.path);
    let one = get(show::<T>).put(update::<T>).delete(delete::<T>);
    let routes = Router::new()
        .route(&path, get(list::<T>).post(create::<T>))
        .route(&format!("{path}/{{id}}"), one);
    let Some(alias) = T::ALIAS else {
        return routes;
    };
    let one = get(show_alias::<T>)
        .put(update_alias::<T>)
        .delete(delete_alias::<T>);
    routes.route(&format!("/{}/{{id}}", alias.path), one)
}

struct Item(QosRule);

impl Record for Item {
    fn value(&self, attribute: &str) -> Value {
        json!(self.0).get(attribute).cloned().unwrap_or_default()
    }
}

fn shown(resource: &'static Resource, rule: QosRule) -> Value {
    json!(Shown::new(resource, false, &[]).of(&Item(rule)))
}

fn answer_one(status: u16, resource: &'static Resource, rule: QosRule) -> Response {
    answer::json(status, &json!({resource.name: shown(resource, rule)}))
}

fn find<T: RuleType>(policy: &QosPolicy, id: &str) -> Result<QosRule> {
    let wanted = id.parse().ok().map(QosRuleId);
    let mut rules = policy.rules.iter().filter(|r| r.kind.name() == T::NAME);
    let found = rules.find(|r| Some(r.id) == wanted).copied();
    found.ok_or_else(|| {
        ApiError::new(
            404,
            "QosRuleNotFound",
            format!("QoS rule {id} for policy {} could not be found.", policy.id),
        )
    })
}

/// The policy that a rule is of.
fn policy_of(state: &State, rule: &str) -> Result<String> {
    let id = rule.parse().ok().map(QosRuleId);
    let policy = id.and_then(|id| state.qos.by_rule.get(&id));
    policy
        .map(ToString::to_string)
        .ok_or_else(|| resources::BANDWIDTH_LIMIT_RULE.missing(rule))
}

async fn list<T: RuleType>(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(policy): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let parameters = decode(query.as_deref().unwrap_or_default());
    let query = Query::parse(T::RESOURCE, parameters)?;
    let (items, marker) = {
        let state = app.cloud.state();
        let row = visible::<QosPolicy>(&state, &asked.caller, &policy)?;
        let rules = row.value.rules.iter();
        let rules = rules
            .filter(|r| r.kind.name() == T::NAME)
            .copied()
            .map(Item);
        let marker = query.marker.as_ref();
        let marker = marker.and_then(|id| find::<T>(&row.value, id).ok());
        (
            rules.filter(|item| query.matches(item)).collect(),
            marker.map(Item),
        )
    };
    let path = T::RESOURCE.path.replace("{policy_id}", &policy);
    answer_list_at(T::RESOURCE, &path, &asked, &query, items, marker.as_ref())
}

async fn show<T: RuleType>(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path((policy, id)): Path<(String, String)>,
) -> Answer {
    let state = app.cloud.state();
    let row = visible::<QosPolicy>(&state, &asked.caller, &policy)?;
    Ok(answer_one(200, T::RESOURCE, find::<T>(&row.value, &id)?))
}

async fn show_alias<T: RuleType>(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
) -> Answer {
    let state = app.cloud.state();
    let missing = |_| resources::BANDWIDTH_LIMIT_RULE.missing(&id);
    let policy = policy_of(&state, &id)?;
    let row = visible::<QosPolicy>(&state, &asked.caller, &policy).map_err(missing)?;
    let rule = find::<T>(&row.value, &id)?;
    Ok(answer_one(200, T::ALIAS.unwrap_or(T::RESOURCE), rule))
}

async fn create<T: RuleType>(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    Path(policy): Path<String>,
    body: Bytes,
) -> Answer {
    let resource = T::RESOURCE;
    let action = || format!("create_policy_{}", resource.name);
    allow(resource.operations.create, &asked.caller, action)?;
    let (inputs, bulk) = parse_create(resource, &body, &asked.caller)?;
    let made = app
        .cloud
        .write(&asked.caller, |write| {
            edit(write, &policy, "update", |policy| {
                let new = inputs.iter().map(|input| add::<T>(policy, input));
                new.collect::<Result<Vec<QosRule>>>()
            })
        })
        .await?;
    app.metrics.changed(resource.name, "create", made.len());
    Ok(match (bulk, made.as_slice()) {
        (false, [one]) => answer_one(201, resource, *one),
        _ => {
            let all: Vec<Value> = made.into_iter().map(|r| shown(resource, r)).collect();
            answer::json(201, &json!({resource.collection: all}))
        }
    })
}

fn add<T: RuleType>(policy: &mut QosPolicy, input: &Input) -> Result<QosRule> {
    let rule = QosRule {
        id: QosRuleId(Uuid::new_v4()),
        kind: T::read(input, None)?,
    };
    check_conflict(policy, rule)?;
    policy.rules.push(rule);
    Ok(rule)
}

fn check_conflict(policy: &QosPolicy, rule: QosRule) -> Result<()> {
    let mut others = policy.rules.iter().filter(|r| r.id != rule.id);
    match others.find(|r| r.kind.conflicts(rule.kind)) {
        None => Ok(()),
        Some(other) => Err(ApiError::conflict(
            "QoSRulesConflict",
            format!(
                "Rule {} conflicts with rule {} which already exists in QoS Policy {}.",
                rule.kind.name(),
                other.id,
                policy.id
            ),
        )),
    }
}

/// Changes a policy's rules.
fn edit<R>(
    write: &mut Write<'_>,
    policy: &str,
    verb: &str,
    change: impl FnOnce(&mut QosPolicy) -> Result<R>,
) -> Result<R> {
    let row: &Row<QosPolicy> = changeable(write.state, write.caller, policy, verb)?;
    let mut policy = row.value.as_ref().clone();
    let done = change(&mut policy)?;
    policy.standard.revision_number += 1;
    policy.standard.updated_at = write.now;
    write.replace(policy.key(), row.mod_revision, &policy)?;
    Ok(done)
}

async fn update<T: RuleType>(
    shared: Shared<Arc<App>>,
    asked: Asked,
    Path((policy, id)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    change::<T>(shared, asked, policy, id, T::RESOURCE, &body).await
}

async fn update_alias<T: RuleType>(
    shared: Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let policy = policy_of(&shared.cloud.state(), &id)?;
    let resource = T::ALIAS.unwrap_or(T::RESOURCE);
    change::<T>(shared, asked, policy, id, resource, &body).await
}

async fn change<T: RuleType>(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    policy: String,
    id: String,
    resource: &'static Resource,
    body: &[u8],
) -> Answer {
    let input = parse_update(resource, body, &asked.caller)?;
    let changed = app
        .cloud
        .write(&asked.caller, |write| {
            edit(write, &policy, "update", |policy| {
                let mut rule = find::<T>(policy, &id)?;
                rule.kind = T::read(&input, Some(rule.kind))?;
                check_conflict(policy, rule)?;
                let place = policy.rules.iter_mut().find(|r| r.id == rule.id);
                place.into_iter().for_each(|place| *place = rule);
                Ok(rule)
            })
        })
        .await?;
    app.metrics.changed(resource.name, "update", 1);
    Ok(answer_one(200, resource, changed))
}

async fn delete<T: RuleType>(
    shared: Shared<Arc<App>>,
    asked: Asked,
    Path((policy, id)): Path<(String, String)>,
) -> Answer {
    remove::<T>(shared, asked, policy, id).await
}

async fn delete_alias<T: RuleType>(
    shared: Shared<Arc<App>>,
    asked: Asked,
    Path(id): Path<String>,
) -> Answer {
    let policy = policy_of(&shared.cloud.state(), &id)?;
    remove::<T>(shared, asked, policy, id).await
}

async fn remove<T: RuleType>(
    Shared(app): Shared<Arc<App>>,
    asked: Asked,
    policy: String,
    id: String,
) -> Answer {
    app.cloud
        .write(&asked.caller, |write| {
            edit(write, &policy, "update", |policy| {
                let rule = find::<T>(policy, &id)?;
                policy.rules.retain(|r| r.id != rule.id);
                Ok(())
            })
        })
        .await?;
    app.metrics.changed(T::RESOURCE.name, "delete", 1);
    Ok(answer::empty(204))
}
