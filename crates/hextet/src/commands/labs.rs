//! `hextet lab …`.

use std::process::{Command, ExitCode};

use anyhow::Result;
use hextet_lab::{Lab, LabFile, LabSummary};

use crate::{cli, show};

/// `hextet lab …`.
pub fn lab(lab: cli::Lab) -> Result<ExitCode> {
    match lab {
        cli::Lab::Up { file } => {
            let lab = Lab::up(LabFile::read(&file)?)?;
            println!("{} is up: {}", lab.name(), lab.nodes().join(", "));
            println!(
                "Look around: hextet lab exec {} NODE -- COMMAND",
                lab.name()
            );
            println!("Tear down:   hextet lab down {}", lab.name());
        }
        cli::Lab::Down { name } => {
            let downed = Lab::down(&name)?;
            println!(
                "{} processes ended, {} namespaces removed.",
                downed.processes, downed.namespaces
            );
        }
        cli::Lab::List(output) => list(output.json)?,
        cli::Lab::Exec { lab, node, command } => {
            let mut words = command.iter();
            let mut program = Command::new(words.next().map_or("sh", String::as_str));
            let status = Lab::open(&lab)?.node(&node)?.status(program.args(words))?;
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(json: bool) -> Result<()> {
    let labs = hextet_lab::list();
    if json {
        let labs: Vec<_> = labs.iter().map(as_json).collect();
        println!("{}", serde_json::to_string_pretty(&labs)?);
        return Ok(());
    }
    if labs.is_empty() {
        println!("No lab is up. Try: hextet lab up labs/fabric.toml");
        return Ok(());
    }
    let mut table = show::table(&["lab", "description", "nodes", "processes"]);
    for lab in &labs {
        let nodes: Vec<&str> = lab.nodes.iter().map(|(node, _)| node.as_str()).collect();
        let processes: Vec<String> = lab
            .processes
            .iter()
            .map(|(name, pid)| format!("{name} ({pid})"))
            .collect();
        table.add_row([
            lab.name.clone(),
            lab.description.clone(),
            nodes.join(" "),
            processes.join(" "),
        ]);
    }
    println!("{table}");
    Ok(())
}

fn as_json(lab: &LabSummary) -> serde_json::Value {
    let nodes: Vec<_> = lab
        .nodes
        .iter()
        .map(|(name, role)| serde_json::json!({"name": name, "role": role}))
        .collect();
    let processes: Vec<_> = lab
        .processes
        .iter()
        .map(|(name, pid)| serde_json::json!({"name": name, "pid": pid}))
        .collect();
    serde_json::json!({
        "name": lab.name,
        "description": lab.description,
        "nodes": nodes,
        "processes": processes,
    })
}
