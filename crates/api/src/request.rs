//! From a request's body to what it sets: known attributes, allowed to this caller, in normal form.

use std::collections::BTreeMap;

use hextet_types::ProjectId;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{
    describe::{Access, Attribute, Default, Resource},
    error::{ApiError, Result},
};

/// Items of one bulk request.
pub const MAX_BULK: usize = 1_000;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The project that the token is for; empty for the cloud itself.
    pub project: ProjectId,
    /// Has the role `admin`.
    pub admin: bool,
    /// May write: has the role `member` or `admin`, not `reader` alone.
    pub member: bool,
}

/// What a request sets, by attribute, in normal form.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Input {
    values: BTreeMap<&'static str, Value>,
    /// Attributes that the request itself names.
    named: Vec<&'static str>,
}

/// Attributes that only the owner of the resource's network may set, and the request sets.
pub type NeedsNetworkOwner = Vec<&'static str>;

impl Input {
    /// Whether the request names the attribute.
    pub fn names(&self, attribute: &str) -> bool {
        self.named.contains(&attribute)
    }

    /// Whether the request names any attribute but these.
    pub fn names_other_than(&self, attributes: &[&str]) -> bool {
        self.named.iter().any(|n| !attributes.contains(n))
    }

    /// The attribute's value; none when it is not set, or null.
    ///
    /// # Errors
    ///
    /// It is none of that type, although its description promises so.
    pub fn get<T: DeserializeOwned>(&self, attribute: &str) -> Result<Option<T>> {
        match self.values.get(attribute) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(value)
                .map(Some)
                .map_err(|e| ApiError::invalid_input(format!("{attribute}: {e}"))),
        }
    }

    /// The value of an attribute that is required or has a default.
    ///
    /// # Errors
    ///
    /// As [`Input::get`]; it is not there.
    pub fn take<T: DeserializeOwned>(&self, attribute: &str) -> Result<T> {
        self.get(attribute)?.ok_or_else(|| missing(attribute))
    }

    /// Replaces `field` when the request sets the attribute.
    ///
    /// # Errors
    ///
    /// As [`Input::take`].
    pub fn put<T: DeserializeOwned>(&self, attribute: &str, field: &mut T) -> Result<()> {
        if self.values.contains_key(attribute) {
            *field = self.take(attribute)?;
        }
        Ok(())
    }

    /// Replaces an optional `field` when the request sets the attribute, to nothing by null.
    ///
    /// # Errors
    ///
    /// As [`Input::get`].
    pub fn put_option<T: DeserializeOwned>(
        &self,
        attribute: &str,
        field: &mut Option<T>,
    ) -> Result<()> {
        if self.values.contains_key(attribute) {
            *field = self.get(attribute)?;
        }
        Ok(())
    }

    /// The named attributes that need this access to be set, on creation or update.
    pub fn needing(&self, resource: &Resource, access: Access, create: bool) -> NeedsNetworkOwner {
        let needs = |a: &Attribute| if create { a.post } else { a.put } == access;
        self.named
            .iter()
            .copied()
            .filter(|n| resource.attribute(n).is_some_and(needs))
            .collect()
    }
}

fn missing(attribute: &str) -> ApiError {
    ApiError::bad_request(format!(
        "Failed to parse request. Required attribute '{attribute}' not specified"
    ))
}

/// The items of a POST: one under the resource's name, or many under its collection's.
///
/// # Errors
///
/// 400: no JSON object, nothing of that resource in it, more than [`MAX_BULK`] items, or an item
/// that the description refuses. 403: an attribute that the caller may not set.
pub fn parse_create(
    resource: &'static Resource,
    body: &[u8],
    caller: &Caller,
) -> Result<(Vec<Input>, bool)> {
    let mut body = parse_object(body)?;
    let Some(many) = body.remove(resource.collection) else {
        let one = body
            .remove(resource.name)
            .ok_or_else(|| unable(resource.name))?;
        return Ok((vec![create_one(resource, one, caller)?], false));
    };
    let Value::Array(items) = many else {
        return Err(ApiError::bad_request("Body contains invalid data"));
    };
    if items.is_empty() {
        return Err(ApiError::bad_request("Resources required"));
    }
    if items.len() > MAX_BULK {
        return Err(ApiError::bad_request(format!(
            "{} {} in one request; at most {MAX_BULK} are taken, all or nothing",
            items.len(),
            resource.collection
        )));
    }
    let unwrap = |item: Value| match item {
        Value::Object(mut map) if map.len() == 1 && map.contains_key(resource.name) => {
            map.remove(resource.name).unwrap_or_default()
        }
        other => other,
    };
    let inputs = items
        .into_iter()
        .map(|item| create_one(resource, unwrap(item), caller))
        .collect::<Result<_>>()?;
    Ok((inputs, true))
}

/// What a PUT sets.
///
/// # Errors
///
/// As [`parse_create`].
pub fn parse_update(resource: &'static Resource, body: &[u8], caller: &Caller) -> Result<Input> {
    let one = parse_object(body)?
        .remove(resource.name)
        .ok_or_else(|| unable(resource.name))?;
    let mut input = Input::default();
    let one = as_object(resource, one)?;
    check_names(resource, &one)?;
    for (name, value) in one {
        let attribute = known(resource, &name)?;
        if attribute.put == Access::Nobody {
            return Err(ApiError::bad_request(format!(
                "Cannot update read-only attribute {name}"
            )));
        }
        allow(attribute.put, caller, "update", resource, attribute)?;
        input.set(attribute, attribute.normalize(value)?);
    }
    Ok(input)
}

/// Reads an object out of a body.
///
/// # Errors
///
/// 400: it is none.
pub fn parse_object(body: &[u8]) -> Result<Map<String, Value>> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        _ if body.is_empty() => Err(ApiError::bad_request("Resource body required")),
        _ => Err(ApiError::bad_request("Body contains invalid data")),
    }
}

fn unable(name: &str) -> ApiError {
    ApiError::bad_request(format!("Unable to find '{name}' in request body"))
}

fn as_object(resource: &Resource, item: Value) -> Result<Map<String, Value>> {
    match item {
        Value::Object(map) => Ok(map),
        _ => Err(ApiError::bad_request(format!(
            "Object '{}' contains invalid data",
            resource.name
        ))),
    }
}

fn known(resource: &Resource, name: &str) -> Result<&'static Attribute> {
    let attribute = resource.attribute(name);
    attribute.ok_or_else(|| unrecognized(&[name]))
}

fn unrecognized(names: &[&str]) -> ApiError {
    ApiError::bad_request(format!("Unrecognized attribute(s) '{}'", names.join(", ")))
}

/// All unknown ones are named at once.
fn check_names(resource: &Resource, item: &Map<String, Value>) -> Result<()> {
    let names = item.keys().map(String::as_str);
    let unknown: Vec<_> = names.filter(|n| resource.attribute(n).is_none()).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(unrecognized(&unknown))
}

fn allow(
    access: Access,
    caller: &Caller,
    verb: &str,
    resource: &Resource,
    attribute: &Attribute,
) -> Result<()> {
    if access <= Access::Admin && !caller.admin {
        let (resource, name) = (resource.name, attribute.name);
        return Err(ApiError::forbidden(format!("{verb}_{resource}:{name}")));
    }
    Ok(())
}

impl Input {
    fn set(&mut self, attribute: &'static Attribute, value: Value) {
        self.named.push(attribute.name);
        self.values.insert(attribute.name, value);
    }
}

fn create_one(resource: &'static Resource, item: Value, caller: &Caller) -> Result<Input> {
    let mut item = as_object(resource, item)?;
    check_names(resource, &item)?;
    let mut input = Input::default();
    let owned = resource.attribute("project_id").is_some();
    if owned {
        input.set_project(resource, &mut item, caller)?;
    }
    for (name, value) in item {
        let attribute = known(resource, &name)?;
        if attribute.post == Access::Nobody {
            return Err(ApiError::bad_request(format!(
                "Attribute '{name}' not allowed in POST"
            )));
        }
        // Neutron's clients send the default of what they may not set; that sets nothing.
        let value = attribute.normalize(value)?;
        if default_of(attribute).as_ref() != Some(&value) {
            allow(attribute.post, caller, "create", resource, attribute)?;
            input.set(attribute, value);
        } else {
            input.values.insert(attribute.name, value);
        }
    }
    for attribute in resource.all_attributes() {
        if attribute.post == Access::Nobody || input.values.contains_key(attribute.name) {
            continue;
        }
        match attribute.default {
            Default::Required => return Err(missing(attribute.name)),
            Default::Chosen => {}
            _ => {
                let value = default_of(attribute).unwrap_or_default();
                input.values.insert(attribute.name, value);
            }
        }
    }
    Ok(input)
}

fn default_of(attribute: &Attribute) -> Option<Value> {
    match attribute.default {
        Default::Required | Default::Chosen => None,
        Default::Null => Some(Value::Null),
        Default::Bool(b) => Some(json!(b)),
        Default::Text(s) => Some(json!(s)),
        Default::Int(n) => Some(json!(n)),
        Default::EmptyList => Some(json!([])),
        Default::EmptyObject => Some(json!({})),
    }
}

impl Input {
    /// `project_id` and its old name `tenant_id`; only an administrator names another project.
    fn set_project(
        &mut self,
        resource: &'static Resource,
        item: &mut Map<String, Value>,
        caller: &Caller,
    ) -> Result<()> {
        let (new, old) = (item.remove("project_id"), item.remove("tenant_id"));
        if let (Some(a), Some(b)) = (&new, &old)
            && a != b
        {
            return Err(ApiError::bad_request(
                "'project_id' and 'tenant_id' do not match",
            ));
        }
        let project = match new.or(old) {
            None => json!(caller.project),
            Some(value) => known(resource, "project_id")?.normalize(value)?,
        };
        if project != json!(caller.project) && !caller.admin {
            return Err(ApiError::bad_request(
                "Specifying 'project_id' or 'tenant_id' other than the authenticated project in \
                 request requires admin privileges",
            ));
        }
        self.values.insert("project_id", project);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
