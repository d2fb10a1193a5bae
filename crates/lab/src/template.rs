//! Variables in templates and commands: `@name@`.
//!
//! Chosen because neither BIRD, FRR, TOML nor a shell gives `@name@` a meaning. `@@` stands for `@`. An
//! unknown variable is an error with its line, never an empty text.

use std::collections::BTreeMap;

use crate::Error;

/// Puts variables in; `place` names the text in errors.
pub fn fill(text: &str, vars: &BTreeMap<String, String>, place: &str) -> Result<String, Error> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('@') {
        filled.push_str(before);
        let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        rest = match end {
            // `@@` is an at sign, and so is one that no name follows.
            Some(0) if after.starts_with('@') => {
                filled.push('@');
                after.get(1..).unwrap_or_default()
            }
            Some(end) if end > 0 && after.get(end..).is_some_and(|rest| rest.starts_with('@')) => {
                let name = after.get(..end).unwrap_or_default();
                let line = filled_lines(text, after);
                let value = vars.get(name).ok_or_else(|| Error::Variable {
                    place: format!("{place}:{line}"),
                    name: name.to_owned(),
                    known: vars.keys().cloned().collect(),
                })?;
                filled.push_str(value);
                after.get(end + 1..).unwrap_or_default()
            }
            _ => {
                filled.push('@');
                after
            }
        };
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The line of `text` on which its tail `rest` begins.
fn filled_lines(text: &str, rest: &str) -> usize {
    let before = text.len().saturating_sub(rest.len());
    text.get(..before).unwrap_or_default().matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars() -> BTreeMap<String, String> {
        [("node", "h1"), ("asn", "64512")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
    }

    #[test]
    fn variables_go_in() {
        let table = [
            ("local as @asn@;", "local as 64512;"),
            ("@node@@asn@", "h164512"),
            ("a@@b", "a@b"),
            ("root@ host, root@host", "root@ host, root@host"),
            ("@", "@"),
            ("@node", "@node"),
            ("@@node@@", "@node@"),
        ];
        for (text, filled) in table {
            assert_eq!(fill(text, &vars(), "t").unwrap(), filled, "{text}");
        }
    }

    #[test]
    fn an_unknown_variable_is_named_with_its_line() {
        let error = fill("a\nb @nodee@ c", &vars(), "bird.conf").unwrap_err();
        assert_eq!(
            error.to_string(),
            "bird.conf:2: no variable @nodee@; there are: asn, node"
        );
    }
}
