//! The OpenAPI document, made of the descriptions.

use serde_json::{Map, Value, json};

use crate::{
    describe::{Access, Action, Attribute, Default, Kind, Resource},
    resources,
};

/// The document for a networking API at this URL.
pub fn document(url: &str) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for resource in resources::ALL {
        describe_paths(resource, &mut paths);
        let all = |a: &Attribute| a.read > Access::Nobody;
        let posted = |a: &Attribute| a.post > Access::Nobody;
        let put = |a: &Attribute| a.put > Access::Nobody;
        schemas.insert(resource.name.into(), schema(resource, all, false));
        if resource.operations.create > Access::Nobody {
            let name = format!("{}_create", resource.name);
            schemas.insert(name, schema(resource, posted, true));
        }
        if resource.operations.update > Access::Nobody {
            let name = format!("{}_update", resource.name);
            schemas.insert(name, schema(resource, put, false));
        }
    }
    for action in resources::ACTIONS {
        paths.insert(format!("/v2.0/{}", action.path), describe_action(action));
    }
    schemas.insert("NeutronError".into(), error_schema());
    json!({
        "openapi": "3.1.0",
        "info": {"title": "hextet networking", "version": "2.0"},
        "servers": [{"url": url}],
        "components": {
            "schemas": schemas,
            "securitySchemes":
                {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}},
        },
        "security": [{"token": []}],
        "paths": paths,
    })
}

fn error_schema() -> Value {
    let text = json!({"type": "string"});
    json!({"type": "object", "properties": {"NeutronError": {
        "type": "object",
        "properties": {"type": text, "message": text, "detail": text},
    }}})
}

fn describe_paths(resource: &Resource, paths: &mut Map<String, Value>) {
    let operations = resource.operations;
    let refer =
        |suffix: &str| json!({"$ref": format!("#/components/schemas/{}{suffix}", resource.name)});
    let wrapped = |name: &str, schema: Value| {
        json!({"application/json": {"schema": {
            "type": "object", "properties": {name: schema}, "required": [name],
        }}})
    };
    let answer = |status: &str, content: Value| {
        json!({
            status: {"description": "done", "content": content},
            "default": {"description": "refused", "content": {"application/json":
                {"schema": {"$ref": "#/components/schemas/NeutronError"}}}},
        })
    };
    let many = json!({"type": "array", "items": refer("")});
    let one = || wrapped(resource.name, refer(""));
    let mut collection = json!({"get": {
        "operationId": format!("list_{}", resource.collection),
        "summary": resource.summary,
        "parameters": list_parameters(resource),
        "responses": answer("200", wrapped(resource.collection, many)),
    }});
    let mut item = json!({"get": {
        "operationId": format!("show_{}", resource.name),
        "responses": answer("200", one()),
    }});
    if operations.create > Access::Nobody {
        collection["post"] = json!({
            "operationId": format!("create_{}", resource.name),
            "requestBody": {"content": wrapped(resource.name, refer("_create"))},
            "responses": answer("201", one()),
        });
    }
    if operations.update > Access::Nobody {
        item["put"] = json!({
            "operationId": format!("update_{}", resource.name),
            "requestBody": {"content": wrapped(resource.name, refer("_update"))},
            "responses": answer("200", one()),
        });
    }
    if operations.delete > Access::Nobody {
        item["delete"] = json!({
            "operationId": format!("delete_{}", resource.name),
            "responses": {"204": {"description": "gone"}},
        });
    }
    let path = format!("/v2.0/{}", resource.path);
    collection["parameters"] = path_parameters(&path);
    paths.insert(path.clone(), collection);
    let path = format!("{path}/{{id}}");
    item["parameters"] = path_parameters(&path);
    paths.insert(path, item);
}

/// What stands in braces in a path.
fn path_parameters(path: &str) -> Value {
    let names = path
        .split('{')
        .filter_map(|part| Some(part.split_once('}')?.0));
    names
        .map(|name| {
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
        })
        .collect()
}

fn describe_action(action: &Action) -> Value {
    let name = action.path.rsplit('/').next().unwrap_or_default();
    let properties: Map<String, Value> = action
        .body
        .iter()
        .map(|(name, kind)| ((*name).to_owned(), json!({"type": kind})))
        .collect();
    json!({
        "put": {
            "operationId": format!("{}_{name}", action.resource.name),
            "summary": action.summary,
            "requestBody": {"content": {"application/json":
                {"schema": {"type": "object", "properties": properties}}}},
            "responses": {
                "200": {"description": "done"},
                "default": {"description": "refused", "content": {"application/json":
                    {"schema": {"$ref": "#/components/schemas/NeutronError"}}}},
            },
        },
        "parameters": path_parameters(action.path),
    })
}

fn list_parameters(resource: &Resource) -> Value {
    let parameter =
        |name: &str, schema: Value| json!({"name": name, "in": "query", "schema": schema});
    let text = || json!({"type": "array", "items": {"type": "string"}});
    let mut all: Vec<Value> = resource
        .all_attributes()
        .filter(|a| a.filter)
        .map(|a| parameter(a.name, text()))
        .collect();
    let sortable: Vec<_> = resource
        .all_attributes()
        .filter(|a| a.sort)
        .map(|a| a.name)
        .collect();
    all.push(parameter(
        "sort_key",
        json!({"type": "array", "items": {"enum": sortable}}),
    ));
    all.push(parameter(
        "sort_dir",
        json!({"type": "array", "items": {"enum": ["asc", "desc"]}}),
    ));
    all.push(parameter("limit", json!({"type": "integer", "minimum": 0})));
    all.push(parameter("marker", json!({"type": "string"})));
    all.push(parameter("page_reverse", json!({"type": "boolean"})));
    all.push(parameter("fields", text()));
    if resource.tagged {
        let names = ["tags", "tags-any", "not-tags", "not-tags-any"];
        all.extend(names.map(|name| parameter(name, json!({"type": "string"}))));
    }
    Value::Array(all)
}

fn schema(resource: &Resource, of: impl Fn(&Attribute) -> bool, required: bool) -> Value {
    let attributes: Vec<_> = resource.all_attributes().filter(|a| of(a)).collect();
    let properties: Map<String, Value> = attributes
        .iter()
        .map(|a| (a.name.to_owned(), property(a)))
        .collect();
    let mut out = json!({"type": "object", "properties": properties});
    if required {
        let needed: Vec<_> = attributes
            .iter()
            .filter(|a| a.default == Default::Required)
            .map(|a| a.name)
            .collect();
        out["required"] = json!(needed);
    }
    out
}

fn property(attribute: &Attribute) -> Value {
    let mut out = match attribute.kind {
        Kind::Text(max) | Kind::Name(max) | Kind::Domain(max) => {
            json!({"type": "string", "maxLength": max})
        }
        Kind::Project => json!({"type": "string", "maxLength": 64}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Int(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Choice(choices) => json!({"type": "string", "enum": choices}),
        Kind::Uuid => json!({"type": "string", "format": "uuid"}),
        Kind::Mac
        | Kind::Ip
        | Kind::Cidr
        | Kind::Protocol
        | Kind::WrittenPrefix
        | Kind::PortRange
        | Kind::Ethertype => {
            json!({"type": "string"})
        }
        Kind::PortNumber => json!({"type": "integer", "minimum": 0, "maximum": 65535}),
        Kind::Moment => json!({"type": "string", "format": "date-time"}),
        Kind::Length => json!({"type": "string", "pattern": "^[0-9]+$"}),
        Kind::Tags
        | Kind::Texts
        | Kind::Uuids
        | Kind::Addresses
        | Kind::Prefixes
        | Kind::ServiceTypes => {
            json!({"type": "array", "items": {"type": "string"}})
        }
        Kind::HostRoutes
        | Kind::Pools
        | Kind::FixedIps
        | Kind::AddressPairs
        | Kind::DhcpOptions
        | Kind::Exposed => {
            json!({"type": "array", "items": {"type": "object"}})
        }
        Kind::List | Kind::Gateways => json!({"type": "array"}),
        Kind::Nat44 | Kind::Delegation | Kind::Metadata | Kind::Gateway | Kind::Object => {
            json!({"type": "object"})
        }
    };
    if attribute.nullable
        && let Some(kind) = out.get("type").cloned()
    {
        out["type"] = json!([kind, "null"]);
    }
    if attribute.read == Access::Admin || attribute.post == Access::Admin {
        out["description"] = json!("for administrators");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_has_its_paths_and_every_reference_leads_somewhere() {
        let document = document("http://[::1]/networking");
        let text = document.to_string();
        for resource in resources::ALL {
            let path = format!("/v2.0/{}", resource.path);
            assert!(document["paths"][&path]["get"].is_object(), "{path}");
        }
        for action in resources::ACTIONS {
            let path = format!("/v2.0/{}", action.path);
            let parameters = document["paths"][&path]["parameters"].as_array().unwrap();
            assert!(parameters.iter().any(|p| p["name"] == "id"), "{path}");
            assert!(document["paths"][&path]["put"].is_object(), "{path}");
        }
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(
                document["components"]["schemas"][name].is_object(),
                "{name}"
            );
        }
    }
}
