//! What a caller is shown of a resource: the attributes that it may read, or those that it asked for.

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    describe::{Access, Attribute, Resource},
    query::Record,
};

/// The attributes of a resource that a caller is shown.
#[derive(Clone, Debug)]
pub struct Shown {
    attributes: Vec<&'static Attribute>,
}

impl Shown {
    /// Those that the caller may read, of these `fields` if there are any.
    pub fn new(resource: &Resource, admin: bool, fields: &[String]) -> Self {
        let asked = |name: &str| fields.is_empty() || fields.iter().any(|f| f == name);
        let attributes = resource
            .all_attributes()
            .filter(|a| a.read >= Access::Owner || (admin && a.read == Access::Admin))
            .filter(|a| asked(a.name))
            .collect();
        Shown { attributes }
    }

    /// One resource so shown.
    pub fn of<'a, R: Record>(&'a self, record: &'a R) -> impl Serialize + 'a {
        View {
            shown: self,
            record,
        }
    }
}

struct View<'a, R> {
    shown: &'a Shown,
    record: &'a R,
}

impl<R: Record> Serialize for View<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let attributes = &self.shown.attributes;
        let mut map = serializer.serialize_map(Some(attributes.len()))?;
        for attribute in attributes {
            map.serialize_entry(attribute.name, &self.record.value(attribute.name))?;
        }
        map.end()
    }
}
