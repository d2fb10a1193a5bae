//! Taking a host out of service: what it announces becomes the last choice, and then nothing.
//!
//! The sessions stay up, so that the host itself keeps its routes and whoever looks after it keeps his
//! access. What was decided outlives the agent, the upgrade of its program and the host's next start: only
//! who drained a host puts it back into service.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use hextet_bgp::{packet::Community, policy::LocalRoute};
use hextet_model::state::{Announcement, Scope};
use hextet_types::Prefix;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Announcements;

/// How far a host is out of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drain {
    /// It is in service.
    #[default]
    No,
    /// Its routes are told as those that will soon be gone (RFC 8326): with GRACEFUL_SHUTDOWN, and with a
    /// LOCAL_PREF of 0, by which internal peers prefer any other. Traffic that can go elsewhere does.
    Leaving,
    /// It announces nothing.
    Drained,
}

/// Where the decision is kept, and who hears of it.
#[derive(Debug)]
pub struct Drains {
    path: PathBuf,
    state: watch::Sender<Drain>,
}

impl Drains {
    /// As it was decided last; in service where nothing was.
    ///
    /// # Errors
    ///
    /// The file can't be read or understood: to guess would announce a host that somebody works on.
    pub fn open(state_dir: &Path) -> Result<Drains> {
        let path = state_dir.join("drain.json");
        let what = || format!("whether this host is drained, in {}", path.display());
        let state = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(what)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Drain::No,
            Err(error) => return Err(error).with_context(what),
        };
        let state = watch::Sender::new(state);
        Ok(Drains { path, state })
    }

    /// As it is now.
    pub fn state(&self) -> Drain {
        *self.state.borrow()
    }

    /// For the driver.
    pub fn hear(&self) -> watch::Receiver<Drain> {
        self.state.subscribe()
    }

    /// Decides anew. It is on the disk before anybody acts on it.
    ///
    /// # Errors
    ///
    /// It can't be written; everything stays as it was.
    pub fn set(&self, state: Drain) -> Result<()> {
        if self.state.is_closed() {
            bail!("this host speaks no BGP: there is nothing to drain");
        }
        self.write(state)
            .with_context(|| format!("write {}", self.path.display()))?;
        self.state.send_replace(state);
        Ok(())
    }

    fn write(&self, state: Drain) -> io::Result<()> {
        let draft = self.path.with_extension("draft");
        let mut file = File::create(&draft)?;
        file.write_all(&serde_json::to_vec(&state)?)?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// What the engine announces.
pub(super) fn local_routes(all: &Announcements, drain: Drain) -> BTreeMap<Prefix, LocalRoute> {
    if drain == Drain::Drained {
        return BTreeMap::new();
    }
    let route = |(prefix, announcement): (&Prefix, &Announcement)| {
        let mut route = LocalRoute::default();
        // Private IPv4 stays within the fabric (RFC 1997).
        if announcement.scope == Scope::Fabric {
            route.communities.push(Community::NO_EXPORT);
        }
        if drain == Drain::Leaving {
            route.communities.push(Community::GRACEFUL_SHUTDOWN);
            route.local_pref = Some(0);
        }
        (*prefix, route)
    };
    all.iter().map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_outlives_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Drains::open(folder.path());
        assert_eq!(open().unwrap().state(), Drain::No);
        let drains = open().unwrap();
        let heard = drains.hear();
        for state in [Drain::Leaving, Drain::Drained, Drain::No] {
            drains.set(state).unwrap();
            assert_eq!(*heard.borrow(), state);
            assert_eq!(open().unwrap().state(), state);
        }
        fs::write(folder.path().join("drain.json"), "\"perhaps\"").unwrap();
        let error = format!("{:#}", open().unwrap_err());
        assert!(error.contains("drain.json"), "{error}");
    }

    #[test]
    fn without_bgp_there_is_nothing_to_drain() {
        let folder = tempfile::tempdir().unwrap();
        let drains = Drains::open(folder.path()).unwrap();
        assert!(drains.set(Drain::Drained).is_err());
        assert_eq!(Drains::open(folder.path()).unwrap().state(), Drain::No);
    }

    #[test]
    fn routes_become_the_last_choice_and_then_go() {
        let all: Announcements = [
            ("2001:db8::5/128", Scope::Global),
            ("10.0.0.5/32", Scope::Fabric),
        ]
        .map(|(prefix, scope)| (prefix.parse().unwrap(), Announcement { scope }))
        .into();
        let told = |drain| -> Vec<(Vec<Community>, Option<u32>)> {
            local_routes(&all, drain)
                .into_values()
                .map(|route| (route.communities, route.local_pref))
                .collect()
        };
        let (stays, leaves) = (Community::NO_EXPORT, Community::GRACEFUL_SHUTDOWN);
        assert_eq!(told(Drain::No), [(vec![stays], None), (vec![], None)]);
        assert_eq!(
            told(Drain::Leaving),
            [(vec![stays, leaves], Some(0)), (vec![leaves], Some(0))]
        );
        assert_eq!(told(Drain::Drained), []);
    }
}
