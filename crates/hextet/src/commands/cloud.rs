//! `hextet server …`.

use std::{
    io::{self, BufReader},
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;
use hextet_server::{ServerConfig, admin};

use super::{block_on, check_exists, told_to_end};
use crate::{
    cli::{Server, ServerCommand, ServerConfigFile},
    show,
};

/// `hextet server …`.
pub fn server(server: Server) -> Result<ExitCode> {
    match server.command {
        None => block_on(run(load(&server.config)?))?,
        Some(ServerCommand::JoinToken {
            host,
            minutes,
            config,
        }) => {
            let config = load(&config)?;
            let lifetime = Duration::from_secs(u64::from(minutes) * 60);
            let token = block_on(async { Ok(admin::join_token(&config, host, lifetime).await?) })?;
            println!("{token}");
        }
        Some(ServerCommand::Meters {
            label,
            output,
            config,
        }) => {
            let config = load(&config)?;
            let mut metered = block_on(async { Ok(admin::metered(&config).await?) })?;
            metered.retain(|m| label.as_ref().is_none_or(|label| m.is_of(label)));
            match output.json {
                true => println!("{}", serde_json::to_string_pretty(&metered)?),
                false => println!("{}", show::meters(&metered)),
            }
        }
        Some(ServerCommand::Dump { config }) => {
            let config = load(&config)?;
            block_on(async { Ok(admin::dump(&config, &mut io::stdout()).await?) })?;
        }
        Some(ServerCommand::Load { overwrite, config }) => {
            let config = load(&config)?;
            let mut dump = BufReader::new(io::stdin());
            let loaded = block_on(async { Ok(admin::load(&config, &mut dump, overwrite).await?) })?;
            println!("{} keys loaded.", loaded.keys);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn load(file: &ServerConfigFile) -> Result<ServerConfig> {
    check_exists(&file.config, "make one (an empty file works)")?;
    Ok(ServerConfig::load(&file.config)?)
}

async fn run(config: ServerConfig) -> Result<()> {
    Ok(hextet_server::run(config, told_to_end()?).await?)
}
