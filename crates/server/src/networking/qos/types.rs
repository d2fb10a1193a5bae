//! `/v2.0/qos/rule-types`: what rules may say.

use axum::{extract::Path, extract::RawQuery, response::Response};
use hextet_api::{
    describe::{Access, Kind, Resource},
    error::{ApiError, Result},
    query::{Query, Record},
    resources,
};
use hextet_model::neutron::QosRuleKind;
use serde_json::{Value, json};

use super::{
    super::serve::{allow, answer_list, decode},
    rule::{Bandwidth, Dscp, PacketRate, RuleType},
};
use crate::{
    app::Asked,
    http::answer::{self, NetworkingError},
};

type Answer = Result<Response, NetworkingError>;

struct Type {
    name: &'static str,
    rule: &'static Resource,
}

const TYPES: [Type; 3] = [of::<Bandwidth>(), of::<Dscp>(), of::<PacketRate>()];

const fn of<T: RuleType>() -> Type {
    Type {
        name: T::NAME,
        rule: T::RESOURCE,
    }
}

impl Type {
    fn parameters(&self) -> Vec<Value> {
        let attributes = self.rule.attributes.iter();
        let values = attributes.map(|attribute| match attribute.kind {
            _ if attribute.name == "dscp_mark" => {
                ("choices", json!(QosRuleKind::DSCP_MARKS.to_vec()))
            }
            Kind::Int(start, end) => ("range", json!({"start": start, "end": end})),
            Kind::Choice(choices) => ("choices", json!(choices)),
            _ => ("range", Value::Null),
        });
        let named = self.rule.attributes.iter().zip(values);
        named
            .map(|(attribute, (kind, values))| {
                json!({
                    "parameter_name": attribute.name,
                    "parameter_type": kind,
                    "parameter_values": values,
                })
            })
            .collect()
    }
}

impl Record for Type {
    fn value(&self, attribute: &str) -> Value {
        match attribute {
            "id" | "type" => json!(self.name),
            "drivers" => json!([{"name": "hextet", "supported_parameters": self.parameters()}]),
            _ => Value::Null,
        }
    }
}

/// `GET /v2.0/qos/rule-types`. All types that are known are served, so `all_supported` and
/// `all_rules` ask for the same.
pub async fn list(asked: Asked, RawQuery(query): RawQuery) -> Answer {
    let resource = &resources::QOS_RULE_TYPE;
    let mut parameters = decode(query.as_deref().unwrap_or_default());
    let asks = |name: &str| parameters.iter().filter(|(key, _)| key == name).count();
    if asks("all_supported") > 0 && asks("all_rules") > 0 {
        return Err(ApiError::bad_request(
            "Unable to list QoS rule types: all_supported and all_rules exclude each other",
        )
        .into());
    }
    parameters.retain(|(key, _)| key != "all_supported" && key != "all_rules");
    if !parameters.iter().any(|(key, _)| key == "fields") {
        parameters.push(("fields".into(), "type".into()));
    }
    let query = Query::parse(resource, parameters)?;
    let types = TYPES.into_iter().filter(|t| query.matches(t)).collect();
    answer_list(resource, &asked, &query, types, None)
}

/// `GET /v2.0/qos/rule-types/TYPE`.
pub async fn show(asked: Asked, Path(name): Path<String>) -> Answer {
    allow(Access::Admin, &asked.caller, || "get_rule_type".to_owned())?;
    let resource = &resources::QOS_RULE_TYPE;
    let found = TYPES.iter().find(|t| t.name == name);
    let found = found.ok_or_else(|| resource.missing(&name))?;
    let shown = json!({"type": found.name, "drivers": found.value("drivers")});
    Ok(answer::json(200, &json!({resource.name: shown})))
}
