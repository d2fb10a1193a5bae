//! How a registry becomes one of a network that is there: at its first start, by an invitation.

use std::sync::Arc;

use bytes::Bytes;
use hextet_mesh::{
    key::PublicKey, parameters::RegistryAt, request::Accession, revocation::Revocations,
    signed::Signed, token::Invitation, trust::Trust,
};
use hextet_store::{Op, Store, Txn};

use crate::{
    authority::{Authority, Stored},
    client,
    config::Config,
    error::{RegistryError, Result},
    message::Blob,
    record,
    told::{AccessionAnswer, AccessionRequest},
};

/// Joins if the configuration says so and the store is empty.
///
/// # Errors
///
/// The store fails, the other registry is not there or refuses, or answers what does not hold. Asking again is always right.
pub async fn join(store: &Arc<dyn Store>, config: &Config) -> Result<()> {
    let Some(invitation) = &config.join else {
        return Ok(());
    };
    let authority = Bytes::from_static(record::AUTHORITY.as_bytes());
    if store.get(authority).await?.is_some() {
        return Ok(());
    }
    let stored = keys(&**store, config).await?;
    let answer = ask(&stored, config, invitation).await;
    let answer = answer.map_err(|e| RegistryError::Setup(format!("join a network: {e}")))?;
    found(&**store, stored, &answer).await
}

/// The same at each try, so that whoever lost the answer is let in again.
async fn keys(store: &dyn Store, config: &Config) -> Result<Stored> {
    let at = Bytes::from_static(record::JOINING.as_bytes());
    if let Some(kv) = store.get(at.clone()).await? {
        return record::parse(&kv);
    }
    let stored = Stored::of_another(&config.url()?)?;
    store.put(at, record::json(&stored)?).await?;
    Ok(stored)
}

/// What it asks.
pub(crate) fn asked(
    stored: &Stored,
    config: &Config,
    invitation: &Invitation,
) -> Result<Signed<Accession>> {
    let (key, pin) = stored.issuing()?;
    let token = invitation.token.clone().ok_or(RegistryError::Token)?;
    let accession = Accession {
        token,
        key: key.public(),
        at: RegistryAt {
            url: config.url()?,
            pin,
        },
    };
    Ok(Signed::sign(accession, &key))
}

async fn ask(stored: &Stored, config: &Config, invitation: &Invitation) -> Result<AccessionAnswer> {
    let request = AccessionRequest {
        accession: Blob::of(&asked(stored, config, invitation)?),
    };
    let answer = client::ask(invitation, "/mesh/v1/accede", Some(&request)).await;
    answer.map_err(|e| RegistryError::Setup(e.to_string()))
}

/// Believes the root that is named by whom the invitation names; everything else is judged by it.
pub(crate) async fn found(
    store: &dyn Store,
    stored: Stored,
    answer: &AccessionAnswer,
) -> Result<()> {
    let bad = |why: &dyn std::fmt::Display| {
        RegistryError::Setup(format!("the other registry's answer does not hold: {why}"))
    };
    let root = <[u8; 32]>::try_from(answer.network.root.0.as_slice());
    let root = PublicKey(root.map_err(|_| bad(&"the root's length"))?);
    let parameters = answer.network.parameters.read().map_err(|e| bad(&e))?;
    let trust = Trust::new(root, parameters.clone()).map_err(|e| bad(&e))?;
    let stored = stored.below(root);
    let authority = Authority::open(&stored)?;
    let network = &trust.parameters().body;
    let is_in = network.registries.iter().any(|r| r.pin == authority.pin)
        && (network.issuers.body)
            .find(authority.issuing.public().id())
            .is_some();
    if !is_in {
        return Err(bad(&"this registry is not in its parameters"));
    }
    answer.plan.communities()?;
    let list = Revocations::new(network.network, 1, Vec::new());
    let list = list.ok_or_else(|| bad(&"no list of revocations can be made"))?;
    let list = Signed::sign(list, &authority.issuing);
    store
        .txn(Txn::of([
            Op::put(record::AUTHORITY, record::json(&stored)?),
            Op::put(record::PARAMETERS, parameters.encode()),
            Op::put(record::REVOCATIONS, list.encode()),
            Op::put(record::PLAN, record::json(&answer.plan)?),
            Op::put(record::LEARNING, record::json(&true)?),
            Op::delete(record::JOINING),
        ]))
        .await?;
    Ok(())
}
