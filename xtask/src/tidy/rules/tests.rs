//! A planted violation for each rule, and the nearest thing that is none.

use std::path::Path;

use super::*;

/// The lines on which a rule finds something.
fn found(rule: Rule, path: &str, text: &str) -> Vec<usize> {
    rule(&Source::read(Path::new(path), text))
        .into_iter()
        .map(|(line, _)| line)
        .collect()
}

const ANY: &str = "crates/agent/src/x.rs";
const PURE: &str = "crates/bgp/src/x.rs";
const KERNEL: &str = "crates/kernel/src/x.rs";
const NONE: [usize; 0] = [];

#[test]
fn a_module_says_what_it_is_for() {
    assert_eq!(found(header, ANY, "use a::b;\n"), [1]);
    assert_eq!(found(header, ANY, "// A remark.\n//! Too late.\n"), [1]);
    assert_eq!(found(header, ANY, ""), [1]);
    assert_eq!(found(header, ANY, "\n//! What for.\n"), NONE);
    assert_eq!(
        found(header, "crates/x/src/wire/tests.rs", "use super::*;\n"),
        NONE
    );
}

#[test]
fn names_say_a_purpose() {
    assert_eq!(
        found(module_name, "crates/agent/src/utils.rs", "//! x\n"),
        [1]
    );
    assert_eq!(
        found(module_name, "crates/agent/src/common/mod.rs", "//! x\n"),
        [1]
    );
    assert_eq!(found(module_name, ANY, "//! x\nmod helpers {\n}\n"), [2]);
    assert_eq!(
        found(
            module_name,
            ANY,
            "//! about mod utils {\nmod utilisation {\n}\n"
        ),
        NONE
    );
}

#[test]
fn files_end() {
    let long = "a();\n".repeat(MAX_FILE_LINES + 1);
    assert_eq!(found(file_length, ANY, &long), [1]);
    let fits = "a();\n".repeat(MAX_FILE_LINES);
    let tests = "#[cfg(test)]\nmod tests {\n  a();\n}\n";
    assert_eq!(found(file_length, ANY, &format!("{fits}{tests}")), NONE);
}

#[test]
fn functions_end() {
    let body = "    a();\n    // why\n\n".repeat(MAX_FUNCTION_LINES);
    assert_eq!(
        found(
            function_length,
            ANY,
            &format!("\nfn f<T>(x: [u8; 2]) -> T {{\n{body}}}\n")
        ),
        NONE
    );
    assert_eq!(
        found(
            function_length,
            ANY,
            &format!("\nfn f() {{\n{body}    b();\n}}\n")
        ),
        [2]
    );
    let table = format!("#[test]\nfn f() {{\n{body}    b();\n}}\n");
    assert_eq!(found(function_length, ANY, &table), NONE);
    let declaration = format!("trait T {{\n    fn f(&self);\n{body}\n    a();\n}}\n");
    assert_eq!(found(function_length, ANY, &declaration), NONE);
    assert_eq!(
        found(
            function_length,
            ANY,
            &format!("const A: fn (u8) = b;\n{body}a();\n")
        ),
        NONE
    );
}

#[test]
fn nothing_is_left_unfinished() {
    assert_eq!(found(unfinished, ANY, "fn f() { todo!() }\n"), [1]);
    assert_eq!(found(unfinished, ANY, "fn f() { unimplemented!() }\n"), [1]);
    let wish = format!("// {}: later\n", UNFINISHED_WORDS[0]);
    assert_eq!(found(unfinished, ANY, &wish), [1]);
    assert_eq!(
        found(unfinished, ANY, "let s = \"todo!\"; // mastodons\n"),
        NONE
    );
}

#[test]
fn errors_are_returned() {
    assert_eq!(
        found(
            unwraps,
            ANY,
            "a.unwrap();\nb.expect(\"x\");\nc.unwrap_err();\n"
        ),
        [1, 2, 3]
    );
    assert_eq!(
        found(unwraps, "crates/x/examples/y.rs", "a.unwrap();\n"),
        NONE
    );
    let fine = "parser.expect(Token::Comma)?;\na.unwrap_or(1); // .unwrap()\n#[test]\nfn f() { a.unwrap(); }\n";
    assert_eq!(found(unwraps, ANY, fine), NONE);
}

#[test]
fn unsafe_stands_in_one_crate() {
    assert_eq!(found(unsafe_place, ANY, "\nunsafe { a() }\n"), [2]);
    assert_eq!(
        found(unsafe_place, ANY, "#[test]\nfn f() { unsafe { a() } }\n"),
        [2]
    );
    assert_eq!(
        found(unsafe_place, ANY, "#![deny(unsafe_code)] // unsafe\n"),
        NONE
    );
    assert_eq!(found(unsafe_place, KERNEL, "unsafe { a() }\n"), NONE);
}

#[test]
fn unsafe_says_why_it_is_sound() {
    assert_eq!(found(unsafe_comment, KERNEL, "a();\nunsafe { b() }\n"), [2]);
    assert_eq!(
        found(
            unsafe_comment,
            KERNEL,
            "// SAFETY: far away.\n\nunsafe { b() }\n"
        ),
        [3]
    );
    assert_eq!(
        found(
            unsafe_comment,
            KERNEL,
            "// SAFETY: b takes anything.\nunsafe { b() }\n"
        ),
        NONE
    );
    assert_eq!(
        found(
            unsafe_comment,
            KERNEL,
            "// SAFETY: two\n// lines.\nlet x =\n    unsafe { b() };\n"
        ),
        NONE
    );
}

#[test]
fn what_decides_is_pure() {
    assert_eq!(found(pure_types, PURE, "let now = Instant::now();\n"), [1]);
    assert_eq!(
        found(pure_types, PURE, "use std::net::{IpAddr, UdpSocket};\n"),
        [1]
    );
    assert_eq!(
        found(
            pure_types,
            PURE,
            "use std::net::IpAddr; // Instant\n#[test]\nfn f(x: Instant) {}\n"
        ),
        NONE
    );
    assert_eq!(found(pure_types, ANY, "let now = Instant::now();\n"), NONE);
    assert_eq!(
        found(
            pure_paths,
            PURE,
            "use std::{\n    fmt,\n    fs,\n};\nfn fs() {}\n"
        ),
        [3]
    );
    assert_eq!(
        found(pure_paths, PURE, "let x = std::env::var(\"x\");\n"),
        [1]
    );
    assert_eq!(
        found(pure_paths, PURE, "use std::fmt;\nlet process = thread;\n"),
        NONE
    );
    assert_eq!(found(pure_paths, ANY, "use std::fs;\n"), NONE);
}

#[test]
fn our_table_is_named_once() {
    assert_eq!(
        found(table_name, ANY, "nft(\"delete table inet hextet\");\n"),
        [1]
    );
    assert_eq!(
        found(
            table_name,
            "crates/model/src/state/nft_text.rs",
            "f(\"table inet hextet\");\n"
        ),
        NONE
    );
    assert_eq!(
        found(
            table_name,
            "crates/demo/src/x.rs",
            "f(\"table inet hextet\");\n"
        ),
        NONE
    );
}
