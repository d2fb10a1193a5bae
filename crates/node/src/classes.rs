//! Which packets are many: those of the service class for much data (RFC 4594 §4.8), by their code points AF11, AF12 and AF13. They bear a mark
//! from then on, and go by routes of their own.
//!
//! What always holds: all nodes of all meshes see the same packets so; if each went by rules of its own, packets could go round. Who wants
//! others to be in it sets their code point where they begin.

use hextet_kernel::{filter::Table, ways::MANY};
use hextet_model::state::{
    Chain, ChainHook, ChainName, CmpOp, Field, Hook, KeyPart, MANGLE, NftRule as Rule, Policy,
    Statement, Value,
};
use hextet_types::Family;

/// The table's name.
pub const TABLE: &str = "hextet_mesh_classes";
/// Of RFC 2597 §6.
const CODE_POINTS: [u8; 3] = [10, 12, 14];

/// The table that marks them.
pub fn table() -> Table {
    Table {
        chains: vec![
            chain("prerouting", Hook::Prerouting),
            chain("output", Hook::Output),
        ],
        ..Table::default()
    }
}

fn chain(name: &str, hook: Hook) -> Chain {
    let both = Family::BOTH.into_iter();
    let rules = both.flat_map(|family| CODE_POINTS.map(|point| rule(family, point)));
    Chain {
        name: ChainName(name.to_owned()),
        hook: Some(ChainHook {
            hook,
            priority: MANGLE,
            policy: Policy::Accept,
            nat: false,
        }),
        rules: rules.collect(),
    }
}

fn rule(family: Family, point: u8) -> Rule {
    let (mask, value) = match family {
        Family::V4 => (vec![0xfc], Value::U8(point << 2)),
        Family::V6 => (vec![0x0f, 0xc0], Value::Port(u16::from(point) << 6)),
    };
    let field = KeyPart {
        field: Field::Dscp(family),
        mask: Some(mask),
    };
    Rule {
        statements: vec![
            Statement::Compare(Field::NfProto.into(), CmpOp::Eq, Value::Family(family)),
            Statement::Compare(field, CmpOp::Eq, value),
            Statement::SetMark {
                value: MANY,
                mask: MANY,
            },
        ],
        comment: None,
    }
}
