//! The table: which names lead where. Pure; a look costs the same however many there are.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use crate::HostName;

/// Where a site's connections go: the first of these addresses that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// By preference.
    pub addresses: Vec<IpAddr>,
    /// For who asks at port 80; none, where there is nothing.
    pub http: Option<u16>,
    /// For who asks at port 443.
    pub https: Option<u16>,
    /// Whether it is told the client's address first (the PROXY protocol, version 2).
    #[serde(default)]
    pub proxy_protocol: bool,
}

/// A site.
pub type Site = (HostName, Backend);

/// All.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sites(HashMap<HostName, Backend>);

impl Sites {
    /// Who is meant by a name: itself, or those of which any will do.
    pub fn find(&self, name: &HostName) -> Option<&Backend> {
        let exact = self.0.get(name);
        exact.or_else(|| self.0.get(&name.any_beside()?))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads what [`Sites::to_json`] wrote.
    ///
    /// # Errors
    ///
    /// It is something else.
    pub fn from_json(text: &str) -> Result<Sites, serde_json::Error> {
        serde_json::from_str(text).map(Sites)
    }

    /// In the order of their names.
    pub fn to_json(&self) -> String {
        let sorted: BTreeMap<_, _> = self.0.iter().collect();
        serde_json::json!(sorted).to_string()
    }
}

impl FromIterator<Site> for Sites {
    fn from_iter<I: IntoIterator<Item = Site>>(sites: I) -> Sites {
        Sites(sites.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_before_any_beside_it() {
        let backend = |https| Backend {
            addresses: vec!["2001:db8::1".parse().unwrap()],
            http: None,
            https: Some(https),
            proxy_protocol: false,
        };
        let sites: Sites = [("*.example", 1), ("shop.example", 2)]
            .map(|(name, port)| (name.parse().unwrap(), backend(port)))
            .into_iter()
            .collect();
        let find = |name: &str| sites.find(&name.parse().unwrap()).and_then(|b| b.https);
        assert_eq!(find("shop.example"), Some(2));
        assert_eq!(find("blog.example"), Some(1));
        assert_eq!(find("a.blog.example"), None);
        assert_eq!(find("example"), None);
        assert_eq!(Sites::from_json(&sites.to_json()).unwrap(), sites);
    }
}
