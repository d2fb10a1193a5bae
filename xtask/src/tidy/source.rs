//! A Rust file taken apart into code, comments and strings, line by line.
//!
//! Just enough of Rust's lexical grammar that a brace in a string or an `unwrap` in a comment is not
//! taken for code. Whatever is not code is blanked in [`Line::code`], so columns stay the same.

use std::path::{Path, PathBuf};

/// One line in its three parts.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// The code; contents of strings and comments are blanks, quotes stay.
    pub code: String,
    /// What comments say.
    pub comment: String,
    /// What string literals say.
    pub string: String,
    /// Whether it belongs to a test.
    pub test: bool,
}

/// A file and its lines.
#[derive(Clone, Debug)]
pub struct Source {
    /// Relative to the root of the checkout.
    pub path: PathBuf,
    /// In order.
    pub lines: Vec<Line>,
}

impl Source {
    /// Takes a file's text apart. Broken Rust gives broken lines, never a panic.
    pub fn read(path: &Path, text: &str) -> Source {
        let mut source = Source {
            path: path.to_owned(),
            lines: Lexer::new(text).run(),
        };
        if is_test_file(path) {
            source.mark_test();
        } else {
            mark_test_items(&mut source.lines);
        }
        source
    }

    /// Says that the whole file is a test.
    pub fn mark_test(&mut self) {
        for line in &mut self.lines {
            line.test = true;
        }
    }

    /// Lines with their numbers, counted from 1.
    pub fn numbered(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.lines
            .iter()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }
}

fn is_test_file(path: &Path) -> bool {
    let named = |name: &str| path.components().any(|part| part.as_os_str() == name);
    let stem = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    named("tests")
        || named("benches")
        || named("examples")
        || named("fuzz")
        || stem == "tests"
        || stem.ends_with("_tests")
}

/// Marks items behind `#[cfg(test)]` and `#[test]`: up to the item's closing brace or semicolon.
fn mark_test_items(lines: &mut [Line]) {
    let mut index = 0;
    while let Some(line) = lines.get(index) {
        if is_test_attribute(&line.code) {
            let end = item_end(lines, index);
            for line in lines.iter_mut().take(end + 1).skip(index) {
                line.test = true;
            }
            index = end;
        }
        index += 1;
    }
}

/// Whether a line of code holds an attribute that makes the next item a test.
pub fn is_test_attribute(code: &str) -> bool {
    let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    [
        "#[cfg(test)]",
        "#[cfg(all(test",
        "#[cfg(any(test",
        "#[test]",
        "#[tokio::test",
        "#![cfg(test)]",
    ]
    .iter()
    .any(|attribute| code.contains(attribute))
}

/// The line on which the item ends that starts at or behind line `start`.
fn item_end(lines: &[Line], start: usize) -> usize {
    let whole_file = lines
        .get(start)
        .is_some_and(|line| line.code.contains("#!["));
    let last = lines.len().saturating_sub(1);
    if whole_file {
        return last;
    }
    let (mut braces, mut brackets) = (0_i32, 0_i32);
    for (index, line) in lines.iter().enumerate().skip(start) {
        for c in line.code.chars() {
            match c {
                '{' => braces += 1,
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets -= 1,
                '}' => {
                    braces -= 1;
                    if braces == 0 {
                        return index;
                    }
                }
                ';' if braces == 0 && brackets == 0 => return index,
                _ => {}
            }
        }
    }
    last
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    Text,
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    lines: Vec<Line>,
}

impl Lexer {
    fn new(text: &str) -> Lexer {
        Lexer {
            chars: text.chars().collect(),
            at: 0,
            lines: vec![Line::default()],
        }
    }

    fn run(mut self) -> Vec<Line> {
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('/', Some('/')) => self.line_comment(),
                ('/', Some('*')) => self.block_comment(),
                ('"', _) => self.string(),
                ('\'', _) => self.quote(),
                _ if is_word(c) => self.word(),
                _ => self.take(Part::Code),
            }
        }
        if self
            .lines
            .last()
            .is_some_and(|line| line.code.is_empty() && line.comment.is_empty())
        {
            self.lines.pop();
        }
        self.lines
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn take(&mut self, part: Part) {
        let Some(c) = self.peek(0) else { return };
        self.at += 1;
        if c == '\n' {
            self.lines.push(Line::default());
        } else if let Some(line) = self.lines.last_mut() {
            line.code.push(if part == Part::Code { c } else { ' ' });
            match part {
                Part::Code => {}
                Part::Comment => line.comment.push(c),
                Part::Text => line.string.push(c),
            }
        }
    }

    fn line_comment(&mut self) {
        while self.peek(0).is_some_and(|c| c != '\n') {
            self.take(Part::Comment);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0_u32;
        while let Some(c) = self.peek(0) {
            let pair = (c, self.peek(1));
            if pair == ('/', Some('*')) {
                depth += 1;
                self.take(Part::Comment);
            } else if pair == ('*', Some('/')) {
                depth -= 1;
                self.take(Part::Comment);
            }
            self.take(Part::Comment);
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.take(Part::Code);
        while let Some(c) = self.peek(0) {
            match c {
                '"' => return self.take(Part::Code),
                '\\' => {
                    self.take(Part::Text);
                    self.take(Part::Text);
                }
                _ => self.take(Part::Text),
            }
        }
    }

    /// A character literal or a lifetime.
    fn quote(&mut self) {
        let literal = self.peek(1) == Some('\\') || self.peek(2) == Some('\'');
        self.take(Part::Code);
        if !literal {
            return;
        }
        if self.peek(0) == Some('\\') {
            self.take(Part::Text);
        }
        self.take(Part::Text);
        while self.peek(0).is_some_and(|c| c != '\'' && c != '\n') {
            self.take(Part::Text);
        }
        self.take(Part::Code);
    }

    /// An identifier or number; also the prefix of a raw string.
    fn word(&mut self) {
        let start = self.at;
        while self.peek(0).is_some_and(is_word) {
            self.take(Part::Code);
        }
        let word: String = self
            .chars
            .get(start..self.at)
            .unwrap_or_default()
            .iter()
            .collect();
        if matches!(word.as_str(), "r" | "br" | "cr") {
            let hashes = (0..).take_while(|n| self.peek(*n) == Some('#')).count();
            if self.peek(hashes) == Some('"') {
                self.raw_string(hashes);
            }
        }
    }

    fn raw_string(&mut self, hashes: usize) {
        for _ in 0..=hashes {
            self.take(Part::Code);
        }
        while let Some(c) = self.peek(0) {
            let closes = c == '"' && (1..=hashes).all(|n| self.peek(n) == Some('#'));
            if closes {
                for _ in 0..=hashes {
                    self.take(Part::Code);
                }
                return;
            }
            self.take(Part::Text);
        }
    }
}

/// Whether a character can stand in an identifier.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands in `code` as a word of its own.
pub fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code.get(..at).and_then(|s| s.chars().next_back());
        let after = code.get(at + word.len()..).and_then(|s| s.chars().next());
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Source {
        Source::read(Path::new("crates/x/src/lib.rs"), text)
    }

    #[test]
    fn strings_and_comments_are_no_code() {
        let table = [
            ("let a = \"{ unwrap\"; // } b", "let a = \"        \";     "),
            ("let q = r#\"a \" b\"#;", "let q = r#\"     \"#;"),
            ("f('{', '\\'', '\"', b'x');", "f(' ', '  ', ' ', b' ');"),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            ("a /* { /* } */ */ b", "a                 b"),
            ("let r#type = \"\\\\\";", "let r#type = \"  \";"),
        ];
        for (text, code) in table {
            let source = read(text);
            assert_eq!(source.lines[0].code.trim_end(), code.trim_end(), "{text}");
        }
    }

    #[test]
    fn several_lines_keep_their_numbers() {
        let source = read("a\n\"x\ny\"\n/* c\nd */ e\n");
        let codes: Vec<&str> = source.lines.iter().map(|line| line.code.trim()).collect();
        assert_eq!(codes, ["a", "\"", "\"", "", "e"]);
        assert_eq!(source.lines[2].string, "y");
        assert_eq!(source.lines[3].comment, "/* c");
    }

    #[test]
    fn tests_are_marked_and_the_rest_is_not() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n#[test]\nfn d() -> [u8; 2] {\n}\n";
        let marks: Vec<bool> = read(text).lines.iter().map(|line| line.test).collect();
        assert_eq!(
            marks,
            [false, true, true, true, true, false, true, true, true]
        );
        assert!(
            read("#![cfg(test)]\nfn a() {}\n")
                .lines
                .iter()
                .all(|line| line.test)
        );
        let whole = Source::read(Path::new("crates/x/src/wire/tests.rs"), "fn a() {}\n");
        assert!(whole.lines[0].test);
    }

    #[test]
    fn broken_text_never_panics() {
        for text in [
            "\"",
            "'",
            "'\\",
            "r#\"",
            "/*",
            "b'",
            "r##",
            "#[test]",
            "\u{0}\n\n",
        ] {
            read(text);
        }
    }

    #[test]
    fn words_stand_alone() {
        assert!(has_word("unsafe { x }", "unsafe"));
        assert!(!has_word("unsafe_code", "unsafe"));
        assert!(!has_word("deny_unsafe", "unsafe"));
    }
}
