//! What packets are marked with where they come in: those that have come by the mesh ([`CARRIED`]), and those that are many ([`MANY`]).
//!
//! Many are those of the service class for much data (RFC 4594 §4.8), by their code points AF11, AF12 and AF13. They bear a mark
//! from then on, and go by routes of their own.
//!
//! What always holds: all nodes of all meshes see the same packets so; if each went by rules of its own, packets could go round. Who wants
//! others to be in it sets their code point where they begin.

use hextet_kernel::{
    filter::Table,
    ways::{CARRIED, MANY},
};
use hextet_model::state::{
    Chain, ChainHook, ChainName, CmpOp, Field, Hook, KeyPart, MANGLE, NftRule as Rule, Policy,
    Statement, Value,
};
use hextet_types::{Family, IfName};

use crate::host::TUNNEL;

/// The table's name.
pub const TABLE: &str = "hextet_mesh_classes";
/// Of RFC 2597 §6.
const CODE_POINTS: [u8; 3] = [10, 12, 14];

/// The table that marks them. By `bare` interfaces the mesh comes without tunnels.
pub fn table(bare: &[IfName]) -> Table {
    let name = |name: &IfName| equal(Field::IifName, Value::IfName(name.clone()));
    let tunnels = Statement::NamePrefix(Field::IifName, TUNNEL.to_owned());
    let all = std::iter::once(tunnels).chain(bare.iter().map(name));
    let carried = all.map(|from| marks(vec![from], CARRIED));
    Table {
        chains: vec![
            chain("prerouting", Hook::Prerouting, carried),
            chain("output", Hook::Output, std::iter::empty()),
        ],
        ..Table::default()
    }
}

fn chain(name: &str, hook: Hook, carried: impl Iterator<Item = Rule>) -> Chain {
    let both = Family::BOTH.into_iter();
    let many = both.flat_map(|family| CODE_POINTS.map(|point| rule(family, point)));
    Chain {
        name: ChainName(name.to_owned()),
        hook: Some(ChainHook {
            hook,
            priority: MANGLE,
            policy: Policy::Accept,
            nat: false,
        }),
        rules: carried.chain(many).collect(),
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
    let is_many = vec![
        equal(Field::NfProto, Value::Family(family)),
        Statement::Compare(field, CmpOp::Eq, value),
    ];
    marks(is_many, MANY)
}

fn equal(field: Field, value: Value) -> Statement {
    Statement::Compare(field.into(), CmpOp::Eq, value)
}

fn marks(mut statements: Vec<Statement>, mark: u32) -> Rule {
    statements.push(Statement::SetMark {
        value: mark,
        mask: mark,
    });
    Rule {
        statements,
        comment: None,
    }
}
