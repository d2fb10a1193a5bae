//! List mechanics: filters, fields, sorting, pages. Read from the query by a resource's description.

use std::{cmp::Ordering, collections::BTreeSet};

use serde_json::Value;

use crate::{
    describe::{Attribute, Kind, Resource},
    error::{ApiError, Result},
};

/// Parameters of one query.
const MAX_PARAMETERS: usize = 2_000;

/// A resource as lists see it.
pub trait Record {
    /// The attribute's value in normal form; null where it has none.
    fn value(&self, attribute: &str) -> Value;
}

/// One filter; several values are alternatives.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// An attribute equals one of these.
    Equals(&'static Attribute, Vec<Value>),
    /// A list of texts holds one of these.
    Holds(&'static Attribute, Vec<Value>),
    /// An address with all these parts stands among `fixed_ips`.
    FixedIps(Vec<FixedIpFilter>),
    /// Changed at this moment or later.
    ChangedSince(String),
    /// Has all of these tags.
    Tags(BTreeSet<String>),
    /// Has one of these tags.
    TagsAny(BTreeSet<String>),
    /// Lacks one of these tags.
    NotTags(BTreeSet<String>),
    /// Has none of these tags.
    NotTagsAny(BTreeSet<String>),
}

/// `fixed_ips=KEY=VALUE`.
#[derive(Clone, Debug, PartialEq)]
pub enum FixedIpFilter {
    /// `ip_address=`.
    Address(Value),
    /// `ip_address_substr=`.
    Substring(String),
    /// `subnet_id=`.
    Subnet(Value),
}

/// What a list is asked for.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// All must hold.
    pub filters: Vec<Filter>,
    /// Only these attributes; all when empty.
    pub fields: Vec<String>,
    /// Keys, and whether each ascends.
    pub sorts: Vec<(&'static Attribute, bool)>,
    /// At most so many.
    pub limit: Option<usize>,
    /// The last one that the client has seen.
    pub marker: Option<String>,
    /// The page before the marker.
    pub page_reverse: bool,
    /// As they came, for links.
    parameters: Vec<(String, String)>,
}

impl Query {
    /// Reads a query (decoded parameters, in their order).
    ///
    /// # Errors
    ///
    /// 400: unknown filters or sort keys, a limit that is no number.
    pub fn parse(resource: &'static Resource, parameters: Vec<(String, String)>) -> Result<Query> {
        if parameters.len() > MAX_PARAMETERS {
            return Err(ApiError::bad_request(format!(
                "a query of more than {MAX_PARAMETERS} parameters"
            )));
        }
        let mut query = Query::default();
        let (mut keys, mut directions, mut unknown) = (vec![], vec![], vec![]);
        for (key, value) in &parameters {
            match key.as_str() {
                "fields" => {
                    let all = value.split(',').filter(|f| !f.is_empty());
                    query.fields.extend(all.map(str::to_owned));
                }
                "limit" => query.limit = parse_limit(value)?,
                "marker" => query.marker = Some(value.clone()).filter(|m| !m.is_empty()),
                "page_reverse" => query.page_reverse = value.eq_ignore_ascii_case("true"),
                "sort_key" => keys.push(value.as_str()),
                "sort_dir" => directions.push(value.as_str()),
                _ if !query.add_filter(resource, key, value)? => unknown.push(key.as_str()),
                _ => {}
            }
        }
        if !unknown.is_empty() {
            return Err(ApiError::bad_request(format!(
                "{} is invalid attribute for filtering",
                python_list(&unknown)
            )));
        }
        query.sorts = parse_sorts(resource, &keys, &directions)?;
        query.parameters = parameters;
        Ok(query)
    }

    /// The alternatives of an attribute's filter, if there is one.
    pub fn wanted(&self, attribute: &str) -> Option<&[Value]> {
        self.filters.iter().find_map(|f| match f {
            Filter::Equals(a, values) | Filter::Holds(a, values) if a.name == attribute => {
                Some(values.as_slice())
            }
            _ => None,
        })
    }

    /// Whether all filters hold.
    pub fn matches(&self, record: &impl Record) -> bool {
        self.filters.iter().all(|f| f.matches(record))
    }

    /// The order that the sort keys make, and the identifier last.
    pub fn order(&self, a: &impl Record, b: &impl Record) -> Ordering {
        for (attribute, ascending) in &self.sorts {
            let (a, b) = (a.value(attribute.name), b.value(attribute.name));
            let order = match attribute.kind {
                Kind::Length => number(&a).cmp(&number(&b)),
                _ => compare(&a, &b),
            };
            if order != Ordering::Equal {
                return if *ascending { order } else { order.reverse() };
            }
        }
        compare(&a.value("id"), &b.value("id"))
    }

    /// Cuts the page out of all that match, which come in no particular order; answers whether
    /// there may be a next and a previous page.
    ///
    /// # Errors
    ///
    /// 404: the marker is not among `all`.
    pub fn page<R: Record>(
        &self,
        resource: &Resource,
        mut matching: Vec<R>,
        marker: Option<&R>,
    ) -> Result<(Vec<R>, bool, bool)> {
        matching.sort_by(|a, b| self.order(a, b));
        let Some(limit) = self.limit else {
            return Ok((matching, false, false));
        };
        let end = matching.len();
        let (from, to) = match (marker, &self.marker, self.page_reverse) {
            (None, Some(id), _) => return Err(resource.missing(id)),
            (None, None, false) => (0, limit.min(end)),
            (None, None, true) => (end.saturating_sub(limit), end),
            (Some(m), _, false) => {
                let from = matching.partition_point(|r| self.order(r, m) != Ordering::Greater);
                (from, from.saturating_add(limit).min(end))
            }
            (Some(m), _, true) => {
                let to = matching.partition_point(|r| self.order(r, m) == Ordering::Less);
                (to.saturating_sub(limit), to)
            }
        };
        matching.truncate(to);
        let page: Vec<R> = matching.drain(from..).collect();
        let full = page.len() >= limit;
        Ok((page, full || self.page_reverse, full || !self.page_reverse))
    }

    /// The query of a neighbouring page: these parameters, from another marker.
    pub fn link(&self, marker: Option<&str>, reverse: bool) -> String {
        let mut out = String::new();
        let kept = self
            .parameters
            .iter()
            .filter(|(k, _)| k != "marker" && k != "page_reverse");
        let mut push = |key: &str, value: &str| {
            out.push(if out.is_empty() { '?' } else { '&' });
            encode(key, &mut out);
            out.push('=');
            encode(value, &mut out);
        };
        kept.for_each(|(k, v)| push(k, v));
        if let Some(marker) = marker {
            push("marker", marker);
        }
        if reverse {
            push("page_reverse", "True");
        }
        out
    }

    /// False for a filter that the resource does not have.
    fn add_filter(&mut self, resource: &'static Resource, key: &str, value: &str) -> Result<bool> {
        let tags = || value.split(',').map(str::to_owned).collect::<BTreeSet<_>>();
        if resource.tagged {
            match key {
                "tags" => self.add_tags(Filter::Tags(tags())),
                "tags-any" => self.add_tags(Filter::TagsAny(tags())),
                "not-tags" => self.add_tags(Filter::NotTags(tags())),
                "not-tags-any" => self.add_tags(Filter::NotTagsAny(tags())),
                _ => return self.add_attribute_filter(resource, key, value),
            }
            return Ok(true);
        }
        self.add_attribute_filter(resource, key, value)
    }

    /// What is asked for by one key more than once is one list.
    fn add_tags(&mut self, new: Filter) {
        for filter in &mut self.filters {
            match (filter, &new) {
                (Filter::Tags(all), Filter::Tags(more))
                | (Filter::TagsAny(all), Filter::TagsAny(more))
                | (Filter::NotTags(all), Filter::NotTags(more))
                | (Filter::NotTagsAny(all), Filter::NotTagsAny(more)) => {
                    all.extend(more.iter().cloned());
                    return;
                }
                _ => {}
            }
        }
        self.filters.push(new);
    }

    fn add_attribute_filter(
        &mut self,
        resource: &'static Resource,
        key: &str,
        value: &str,
    ) -> Result<bool> {
        if key == "changed_since" && resource.attribute("updated_at").is_some() {
            self.filters.push(Filter::ChangedSince(moment(value)?));
            return Ok(true);
        }
        let key = if key == "tenant_id" {
            "project_id"
        } else {
            key
        };
        let Some(attribute) = resource.attribute(key).filter(|a| a.filter) else {
            return Ok(false);
        };
        if attribute.kind == Kind::FixedIps {
            return self.add_fixed_ip_filter(value).map(|()| true);
        }
        let holds = matches!(attribute.kind, Kind::Uuids);
        let wanted = if holds {
            Value::String(value.to_owned())
        } else {
            attribute.normalize_text(value)?
        };
        for filter in &mut self.filters {
            if let Filter::Equals(a, values) | Filter::Holds(a, values) = filter
                && a.name == attribute.name
            {
                values.push(wanted);
                return Ok(true);
            }
        }
        self.filters.push(if holds {
            Filter::Holds(attribute, vec![wanted])
        } else {
            Filter::Equals(attribute, vec![wanted])
        });
        Ok(true)
    }

    fn add_fixed_ip_filter(&mut self, value: &str) -> Result<()> {
        let parsed = match value.split_once('=') {
            Some(("ip_address", v)) => FixedIpFilter::Address(canonical_address(v)),
            Some(("ip_address_substr", v)) => FixedIpFilter::Substring(v.to_owned()),
            Some(("subnet_id", v)) => FixedIpFilter::Subnet(Value::String(v.to_owned())),
            _ => {
                return Err(ApiError::invalid_input(format!(
                    "'{value}' is not of the form <key>=[value], with ip_address, \
                     ip_address_substr or subnet_id as key"
                )));
            }
        };
        for filter in &mut self.filters {
            if let Filter::FixedIps(wanted) = filter {
                wanted.push(parsed);
                return Ok(());
            }
        }
        self.filters.push(Filter::FixedIps(vec![parsed]));
        Ok(())
    }
}

fn canonical_address(text: &str) -> Value {
    let parsed = text.parse::<std::net::IpAddr>();
    Value::String(parsed.map_or_else(|_| text.to_owned(), |a| a.to_string()))
}

fn moment(text: &str) -> Result<String> {
    let text = text.replace(' ', "T");
    let bare = text.trim_end_matches('Z');
    let seconds = bare.split('.').next().unwrap_or(bare);
    let ok = seconds.len() == 19 && seconds.as_bytes().get(10) == Some(&b'T');
    if ok {
        Ok(format!("{seconds}Z"))
    } else {
        Err(ApiError::invalid_input(format!(
            "The input changed_since must be in the following format: YYYY-MM-DDTHH:MM:SS[Z]; '{text}' \
             is not"
        )))
    }
}

fn parse_limit(value: &str) -> Result<Option<usize>> {
    match value.parse::<usize>() {
        Ok(0) => Ok(None),
        Ok(n) => Ok(Some(n)),
        Err(_) => Err(ApiError::new(
            400,
            "BadRequest",
            format!("Bad limit request: Limit must be an integer 0 or greater and not '{value}'."),
        )),
    }
}

fn parse_sorts(
    resource: &'static Resource,
    keys: &[&str],
    directions: &[&str],
) -> Result<Vec<(&'static Attribute, bool)>> {
    if keys.len() < directions.len() || (!directions.is_empty() && keys.len() != directions.len()) {
        return Err(ApiError::bad_request(
            "The number of sort_keys and sort_dirs must be same",
        ));
    }
    let mut sorts = Vec::with_capacity(keys.len());
    for (at, key) in keys.iter().enumerate() {
        let key = if *key == "tenant_id" {
            "project_id"
        } else {
            key
        };
        let Some(attribute) = resource.attribute(key).filter(|a| a.sort) else {
            return Err(ApiError::bad_request(format!(
                "{} is invalid attribute for sort_keys",
                python_list(&[key])
            )));
        };
        let ascending = match directions.get(at) {
            None | Some(&"asc") => true,
            Some(&"desc") => false,
            Some(other) => {
                return Err(ApiError::bad_request(format!(
                    "{} is invalid value for sort_dirs, valid value is 'asc' and 'desc'",
                    python_list(&[other])
                )));
            }
        };
        sorts.push((attribute, ascending));
    }
    Ok(sorts)
}

/// A list as Python prints it, since messages are made for that.
pub(crate) fn python_list(items: &[&str]) -> String {
    let quoted: Vec<_> = items.iter().map(|i| format!("'{i}'")).collect();
    format!("[{}]", quoted.join(", "))
}

impl Filter {
    fn matches(&self, record: &impl Record) -> bool {
        let tags = || -> BTreeSet<String> {
            serde_json::from_value(record.value("tags")).unwrap_or_default()
        };
        match self {
            Filter::Equals(attribute, wanted) => wanted.contains(&record.value(attribute.name)),
            Filter::Holds(attribute, wanted) => match record.value(attribute.name) {
                Value::Array(items) => items.iter().any(|i| wanted.contains(i)),
                _ => false,
            },
            Filter::FixedIps(wanted) => match record.value("fixed_ips") {
                Value::Array(items) => fixed_ips_match(&items, wanted),
                _ => false,
            },
            Filter::ChangedSince(moment) => {
                record.value("updated_at").as_str() >= Some(moment.as_str())
            }
            Filter::Tags(wanted) => wanted.is_subset(&tags()),
            Filter::TagsAny(wanted) => !wanted.is_disjoint(&tags()),
            Filter::NotTags(wanted) => !wanted.is_subset(&tags()),
            Filter::NotTagsAny(wanted) => wanted.is_disjoint(&tags()),
        }
    }
}

/// One address fits all kinds of filters that are there, and one alternative of each.
fn fixed_ips_match(items: &[Value], wanted: &[FixedIpFilter]) -> bool {
    items.iter().any(|item| {
        let address = item.get("ip_address");
        let (mut by_address, mut by_text, mut by_subnet) = (None, None, None);
        for filter in wanted {
            match filter {
                FixedIpFilter::Address(a) => either(&mut by_address, address == Some(a)),
                FixedIpFilter::Substring(s) => {
                    let text = address.and_then(Value::as_str);
                    either(&mut by_text, text.is_some_and(|t| t.contains(s)));
                }
                FixedIpFilter::Subnet(s) => {
                    either(&mut by_subnet, item.get("subnet_id") == Some(s))
                }
            }
        }
        [by_address, by_text, by_subnet]
            .iter()
            .all(|x| x.unwrap_or(true))
    })
}

fn either(so_far: &mut Option<bool>, holds: bool) {
    *so_far = Some(so_far.unwrap_or(false) || holds);
}

fn number(length: &Value) -> Option<u32> {
    length.as_str()?.parse().ok()
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => a.as_i64().cmp(&b.as_i64()),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (a, b) => a.to_string().cmp(&b.to_string()),
    }
}

/// Percent-encodes all but unreserved characters (RFC 3986 §2.3).
fn encode(text: &str, out: &mut String) {
    use std::fmt::Write;
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(byte.into());
            }
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests;
