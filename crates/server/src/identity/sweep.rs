//! Clears tokens away that have ended.

use hextet_api::{error::Result, request::Caller};
use hextet_types::ProjectId;

use crate::{
    cloud::{Cloud, now},
    keys::{self, IdentityTable},
};

/// Tokens in one transaction.
const CHUNK: usize = 1_000;

/// Deletes tokens that have ended, at most [`CHUNK`] of them; answers how many.
///
/// # Errors
///
/// The store fails.
pub async fn sweep(cloud: &Cloud) -> Result<usize> {
    let nobody = Caller {
        project: ProjectId(String::new()),
        admin: true,
        member: true,
    };
    cloud
        .write(&nobody, |write| {
            let ended = write.state.identity.tokens_by_end.iter();
            let ended = ended.take_while(|(end, _)| *end <= now()).take(CHUNK);
            let mut count = 0;
            for (_, hash) in ended {
                write.release(keys::identity(IdentityTable::Token, hash));
                count += 1;
            }
            Ok(count)
        })
        .await
}
