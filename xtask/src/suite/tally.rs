//! How many tests passed and failed, read from what a test runner printed.
//!
//! Knows cargo's own runner and nextest; a text without a summary counts nothing.

use std::{fmt, ops::AddAssign};

/// Tests that passed and failed; prints as `N passed, N failed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed, timed out, or could not be started.
    pub failed: u64,
}

impl Tally {
    /// Adds up all summaries in a runner's output.
    pub fn read(output: &str) -> Tally {
        let mut tally = Tally::default();
        for line in output.lines() {
            let line = line.trim_start();
            if let Some(rest) = line.strip_prefix("test result: ") {
                tally += libtest(rest);
            } else if let Some((_, rest)) = line
                .strip_prefix("Summary [")
                .and_then(|l| l.split_once("] "))
            {
                tally += nextest(rest);
            }
        }
        tally
    }

    /// What to say behind a step that ran tests.
    pub fn remark(&self) -> String {
        if *self == Tally::default() {
            String::new()
        } else {
            format!(": {self}")
        }
    }
}

/// `ok. 12 passed; 0 failed; 1 ignored; …`
fn libtest(summary: &str) -> Tally {
    Tally {
        passed: number_before(summary, "passed"),
        failed: number_before(summary, "failed"),
    }
}

/// `14/15 tests run: 12 passed (1 slow), 1 failed, 1 timed out, 0 skipped`: what ran and did not pass,
/// failed. Tests that never ran, because the run was cut short, show as the part behind the slash.
fn nextest(summary: &str) -> Tally {
    let (run, results) = summary
        .split_once(" tests run:")
        .or_else(|| summary.split_once(" test run:"))
        .unwrap_or_default();
    let all = run
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .parse()
        .unwrap_or(0);
    let passed = number_before(results, "passed");
    Tally {
        passed,
        failed: u64::saturating_sub(all, passed),
    }
}

fn number_before(text: &str, word: &str) -> u64 {
    let words: Vec<&str> = text
        .split([' ', ',', ';'])
        .filter(|word| !word.is_empty())
        .collect();
    words
        .windows(2)
        .find(|pair| matches!(pair, [_, second] if *second == word))
        .and_then(|pair| pair.first()?.parse().ok())
        .unwrap_or(0)
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_both_runners() {
        let table = [
            ("", 0, 0),
            ("error: could not compile `x`", 0, 0),
            (
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
                12,
                0,
            ),
            (
                "test result: FAILED. 1 passed; 2 failed; 0 ignored\n\ntest result: ok. 4 passed; 0 failed;",
                5,
                2,
            ),
            (
                "     Summary [   0.005s] 1 test run: 1 passed, 9 skipped",
                1,
                0,
            ),
            (
                "     Summary [   2.005s] 14/15 tests run: 12 passed (1 slow), 1 failed, 1 timed out, 0 skipped",
                12,
                3,
            ),
            (
                "     Summary [   0.010s] 0 tests run: 0 passed, 3 skipped",
                0,
                0,
            ),
        ];
        for (output, passed, failed) in table {
            assert_eq!(Tally::read(output), Tally { passed, failed }, "{output}");
        }
    }

    #[test]
    fn the_closing_line() {
        assert_eq!(
            Tally {
                passed: 7,
                failed: 0
            }
            .to_string(),
            "7 passed, 0 failed"
        );
    }
}
