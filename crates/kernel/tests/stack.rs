//! What the programs of ports take of the stack: a program and all that it calls, one within the other, have 512 octets, and
//! before Linux 6.10 each frame counts in steps of 32.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

use std::collections::BTreeMap;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind};

const BUILDS: [(&str, &[u8]); 2] = [
    (
        "cast",
        include_bytes!(concat!(env!("OUT_DIR"), "/port.o")).as_slice(),
    ),
    (
        "helper",
        include_bytes!(concat!(env!("OUT_DIR"), "/port-helper.o")).as_slice(),
    ),
];
const MOST: u32 = 512;
const STEP: u32 = 32;

const INSTRUCTION: usize = 8;
const CALL: u8 = 0x85;
/// `r = r10`, and `r += constant` behind it.
const COPY: u8 = 0xbf;
const ADD: u8 = 0x07;
const FRAME: u8 = 10;

/// A function: its own frame, in octets, and whom it calls.
#[derive(Debug, Default)]
struct Function {
    frame: u32,
    calls: Vec<String>,
}

/// How deep an instruction reaches below the frame's pointer.
fn reach(before: Option<&[u8]>, one: &[u8]) -> u32 {
    let [base, source] = [one[1] & 0xf, one[1] >> 4];
    let offset = i16::from_le_bytes([one[2], one[3]]);
    let constant = i32::from_le_bytes([one[4], one[5], one[6], one[7]]);
    let is_copied = before.is_some_and(|b| b[0] == COPY && b[1] >> 4 == FRAME);
    match one[0] & 7 {
        1 if source == FRAME => u32::from(offset.min(0).unsigned_abs()),
        2 | 3 if base == FRAME => u32::from(offset.min(0).unsigned_abs()),
        7 if one[0] == ADD && is_copied => constant.min(0).unsigned_abs(),
        _ => 0,
    }
}

fn functions(octets: &[u8]) -> BTreeMap<String, Function> {
    let file = object::File::parse(octets).expect("an object file");
    let mut functions = BTreeMap::new();
    for symbol in file
        .symbols()
        .filter(|s| s.kind() == SymbolKind::Text && s.size() > 0)
    {
        let name = symbol.name().expect("a name").to_owned();
        let section = symbol.section_index().expect("a section");
        let section = file.section_by_index(section).expect("a section");
        let range = symbol.address()..symbol.address() + symbol.size();
        let called = section.relocations().filter(|(at, _)| range.contains(at));
        let calls = called.filter_map(|(at, relocation)| {
            let code = section.data().expect("code");
            let RelocationTarget::Symbol(target) = relocation.target() else {
                return None;
            };
            let target = file.symbol_by_index(target).expect("a symbol");
            let is_call = code[at as usize] == CALL;
            is_call.then(|| target.name().expect("a name").to_owned())
        });
        let calls = calls.collect();
        let code = section.data().expect("code");
        let code = &code[range.start as usize..range.end as usize];
        let all: Vec<&[u8]> = code.chunks(INSTRUCTION).collect();
        let reached = all.iter().enumerate().map(|(n, one)| {
            let before = n.checked_sub(1).map(|n| all[n]);
            reach(before, one)
        });
        let frame = reached.max().unwrap_or(0);
        functions.insert(name, Function { frame, calls });
    }
    functions
}

/// The deepest stack from a function on, and the way there.
fn deepest(functions: &BTreeMap<String, Function>, name: &str) -> (u32, String) {
    let function = functions.get(name).expect("a function of the same file");
    let own = function.frame.max(1).next_multiple_of(STEP);
    let below = function
        .calls
        .iter()
        .map(|called| deepest(functions, called));
    let (below, way) = below.max().unwrap_or_default();
    (own + below, format!("{name} {own} {way}"))
}

#[test]
fn all_that_call_each_other_fit() {
    for (build, octets) in BUILDS {
        let functions = functions(octets);
        for program in ["hextet_ingress", "hextet_egress"] {
            let (depth, way) = deepest(&functions, program);
            println!("{build}: {depth} octets: {way}");
            assert!(depth > STEP, "{build}, {program}: nothing was found");
            assert!(depth <= MOST, "{build}: {depth} octets: {way}");
        }
    }
}
