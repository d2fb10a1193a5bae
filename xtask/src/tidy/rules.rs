//! Rules that look at one file.
//!
//! Each rule is a function from a file to its findings, with a planted violation in the tests below. A
//! message says what is wrong and what to do instead.

use super::{
    Finding, is_pure,
    source::{Line, Source, has_word, is_word},
};

const MAX_FUNCTION_LINES: usize = 70;
const MAX_FILE_LINES: usize = 600;

/// Where the string that names our nftables table may stand, beside the crates that look from outside.
const TABLE_HOME: &str = "crates/model/src/state";

type Rule = fn(&Source) -> Vec<(usize, String)>;

const RULES: &[Rule] = &[
    header,
    module_name,
    file_length,
    function_length,
    unfinished,
    unwraps,
    unsafe_place,
    unsafe_comment,
    pure_types,
    pure_paths,
    table_name,
];

/// Adds what is wrong with a file.
pub fn check(source: &Source, findings: &mut Vec<Finding>) {
    for rule in RULES {
        for (line, message) in rule(source) {
            findings.push(Finding {
                path: source.path.clone(),
                line,
                message,
            });
        }
    }
}

/// A file called `tests.rs` is its parent's, and that says what for.
fn header(source: &Source) -> Vec<(usize, String)> {
    if source
        .path
        .file_name()
        .is_some_and(|name| name == "tests.rs")
    {
        return Vec::new();
    }
    let first = source
        .numbered()
        .find(|(_, line)| !line.code.trim().is_empty() || !line.comment.is_empty());
    match first {
        Some((_, line)) if line.comment.starts_with("//!") => Vec::new(),
        _ => vec![(
            1,
            "a module opens with `//!`: what it is for, what it may not know, what always holds"
                .to_owned(),
        )],
    }
}

fn module_name(source: &Source) -> Vec<(usize, String)> {
    const VAGUE: &[&str] = &["common", "helper", "helpers", "misc", "util", "utils"];
    let message = |name: &str| {
        format!(
            "`{name}` names no purpose: call a module by what it holds, and let the code that needs it own it"
        )
    };
    let in_path = source.path.iter().filter_map(|part| part.to_str());
    let in_path = in_path
        .map(|part| part.trim_end_matches(".rs"))
        .filter(|part| VAGUE.contains(part));
    let mut found: Vec<(usize, String)> = in_path.map(|name| (1, message(name))).collect();
    for (number, line) in source.numbered() {
        let Some((_, rest)) = line.code.split_once("mod ") else {
            continue;
        };
        let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
        let inline = rest.contains('{');
        if inline && VAGUE.contains(&name.as_str()) {
            found.push((number, message(&name)));
        }
    }
    found
}

fn file_length(source: &Source) -> Vec<(usize, String)> {
    let lines = source.lines.iter().filter(|line| !line.test).count();
    if lines <= MAX_FILE_LINES {
        return Vec::new();
    }
    vec![(
        1,
        format!(
            "{lines} lines without tests, at most {MAX_FILE_LINES}: split by what changes together; a file that \
             does one thing has a name that says it"
        ),
    )]
}

fn function_length(source: &Source) -> Vec<(usize, String)> {
    functions(&source.lines)
        .into_iter()
        .filter(|function| function.lines > MAX_FUNCTION_LINES)
        .map(|Function { line, name, lines }| {
            let message = format!(
                "fn {name} has {lines} lines, at most {MAX_FUNCTION_LINES}: name its steps, each a function below it"
            );
            (line, message)
        })
        .collect()
}

struct Function {
    line: usize,
    name: String,
    /// Lines of the body that hold code.
    lines: usize,
}

fn functions(lines: &[Line]) -> Vec<Function> {
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| !line.test) {
        for (at, _) in line.code.match_indices("fn ") {
            let before = line.code.get(..at).and_then(|s| s.chars().next_back());
            let name: String = line
                .code
                .get(at + 3..)
                .unwrap_or("")
                .trim_start()
                .chars()
                .take_while(|c| is_word(*c))
                .collect();
            if before.is_some_and(is_word) || name.is_empty() {
                continue;
            }
            if let Some(lines) = body_lines(lines, index, at) {
                found.push(Function {
                    line: index + 1,
                    name,
                    lines,
                });
            }
        }
    }
    found
}

/// How many lines between a function's braces hold code; none for a declaration without a body.
fn body_lines(lines: &[Line], start: usize, column: usize) -> Option<usize> {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    let mut opened = None;
    for (index, line) in lines.iter().enumerate().skip(start) {
        let code = if index == start {
            line.code.get(column..).unwrap_or("")
        } else {
            &line.code
        };
        for c in code.chars() {
            match c {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets = brackets.saturating_sub(1),
                ';' if braces == 0 && brackets == 0 => return None,
                '{' => {
                    opened = opened.or(Some(index));
                    braces += 1;
                }
                '}' => {
                    braces = braces.saturating_sub(1);
                    if let (0, Some(opened)) = (braces, opened) {
                        let body = lines.iter().take(index).skip(opened + 1);
                        return Some(body.filter(|line| !line.code.trim().is_empty()).count());
                    }
                }
                _ => {}
            }
        }
    }
    None
}

fn unfinished(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in source.numbered() {
        for name in ["todo!", "unimplemented!"] {
            if line.code.contains(name) {
                found.push((
                    number,
                    format!("`{name}` is unfinished: finish it, or leave the feature out whole"),
                ));
            }
        }
        for word in UNFINISHED_WORDS {
            if has_word(&line.comment, word) {
                found.push((
                    number,
                    format!("a comment says {word}: do it now, or open an issue; nobody searches the code for wishes"),
                ));
            }
        }
    }
    found
}

const UNFINISHED_WORDS: &[&str] = &["TODO", "FIXME", "XXX"];

fn unwraps(source: &Source) -> Vec<(usize, String)> {
    let calls = [".unwrap()", ".unwrap_err()", ".expect(\"", ".expect_err(\""];
    source
        .numbered()
        .filter(|(_, line)| !line.test)
        .flat_map(|(number, line)| calls.iter().filter(|call| line.code.contains(**call)).map(move |call| (number, call)))
        .map(|(number, call)| {
            let name = call.trim_matches(['.', '(', ')', '"']);
            (number, format!("`{name}` outside a test: return an error that names the operation and its object"))
        })
        .collect()
}

fn unsafe_place(source: &Source) -> Vec<(usize, String)> {
    if source.path.starts_with("crates/kernel") {
        return Vec::new();
    }
    unsafe_lines(source)
        .map(|number| {
            let message =
                "`unsafe` stands in crates/kernel only: ask it for a safe function, or use nix"
                    .to_owned();
            (number, message)
        })
        .collect()
}

fn unsafe_comment(source: &Source) -> Vec<(usize, String)> {
    if !source.path.starts_with("crates/kernel") {
        return Vec::new();
    }
    unsafe_lines(source)
        .filter(|number| !has_safety_comment(&source.lines, *number))
        .map(|number| {
            let message = "`unsafe` without a `// SAFETY:` comment above it: say why the call's conditions hold".to_owned();
            (number, message)
        })
        .collect()
}

fn unsafe_lines(source: &Source) -> impl Iterator<Item = usize> {
    source
        .numbered()
        .filter(|(_, line)| has_word(&line.code, "unsafe"))
        .map(|(number, _)| number)
}

/// Looks on the line itself, then upwards through the same statement and the comments above it.
fn has_safety_comment(lines: &[Line], number: usize) -> bool {
    let says = |line: &Line| line.comment.contains("SAFETY:") || line.comment.contains("# Safety");
    let mut above = lines.iter().take(number).rev();
    if above.next().is_some_and(says) {
        return true;
    }
    for line in above {
        if says(line) {
            return true;
        }
        let code = line.code.trim_end();
        let ends_statement =
            code.ends_with([';', '{', '}']) || code.trim().is_empty() && line.comment.is_empty();
        if ends_statement {
            return false;
        }
    }
    false
}

fn pure_types(source: &Source) -> Vec<(usize, String)> {
    const IMPURE: &[&str] = &[
        "Instant",
        "SystemTime",
        "TcpListener",
        "TcpStream",
        "UdpSocket",
        "UnixStream",
        "UnixListener",
        "UnixDatagram",
        "new_v4",
        "now_v7",
        "thread_rng",
        "Mutex",
        "RwLock",
    ];
    pure(source, |line| {
        IMPURE
            .iter()
            .find(|name| has_word(&line.code, name))
            .map(|name| (*name).to_owned())
    })
}

fn pure_paths(source: &Source) -> Vec<(usize, String)> {
    const IMPURE: &[&str] = &["env", "fs", "process", "thread"];
    let mut in_use = false;
    pure(source, |line| {
        let code = line.code.trim_start();
        in_use |= code.starts_with("use std::");
        let found = IMPURE.iter().find(|name| {
            line.code.contains(&format!("std::{name}::"))
                || line.code.contains(&format!("std::{name};"))
                || (in_use && has_word(code, name))
        });
        in_use &= !code.contains(';');
        found.map(|name| format!("std::{name}"))
    })
}

/// Findings on the lines of a pure crate, outside tests, on which `find` names something impure.
fn pure(source: &Source, mut find: impl FnMut(&Line) -> Option<String>) -> Vec<(usize, String)> {
    if !is_pure(&source.path) {
        return Vec::new();
    }
    source
        .numbered()
        .filter(|(_, line)| !line.test)
        .filter_map(|(number, line)| Some((number, find(line)?)))
        .map(|(number, name)| {
            let message = format!(
                "`{name}` in a pure crate: what decides has no I/O, clock, randomness or locks; take the value as \
                 an argument (`now: Time`, a seed, bytes) and return an action"
            );
            (number, message)
        })
        .collect()
}

fn table_name(source: &Source) -> Vec<(usize, String)> {
    let programs = [
        "crates/kernel",
        "crates/agent",
        "crates/model",
        "crates/hextet",
    ];
    let bound = programs.iter().any(|path| source.path.starts_with(path));
    if !bound || source.path.starts_with(TABLE_HOME) {
        return Vec::new();
    }
    source
        .numbered()
        .filter(|(_, line)| !line.test && line.string.contains("table inet hextet"))
        .map(|(number, _)| {
            let message = format!(
                "our nftables table is named in {TABLE_HOME} only: use its `TABLE` constant"
            );
            (number, message)
        })
        .collect()
}

#[cfg(test)]
mod tests;
