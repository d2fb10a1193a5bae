//! What the benches share: samples, what a process has used, and how results are shown.
//!
//! A bench compares within one run, interleaved, by ratios of medians: the machines are noisy. Costs are
//! CPU seconds, not wall time. A goal that is missed is shown as missed; nothing here asserts a time.

pub mod cpu;
pub mod forward;
pub mod intent;
pub mod report;
pub mod sample;
