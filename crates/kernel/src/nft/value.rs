//! Values and keys of sets as nf_tables holds them: octets, in registers and in elements.

use hextet_model::state::{KeyType, Value};
use hextet_types::{Family, IfName, Mac};

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
/// Octets of an interface's name.
pub const IFNAMSIZ: usize = 16;

/// Octets of a key's part.
pub fn len_of(kind: KeyType) -> usize {
    match kind {
        KeyType::IfName => IFNAMSIZ,
        KeyType::EtherAddr => 6,
        KeyType::Addr(family) => usize::from(family.bits()) / 8,
        KeyType::NfProto | KeyType::InetProto | KeyType::IcmpType(_) | KeyType::IcmpCode(_) => 1,
        KeyType::InetService => 2,
        KeyType::Mark | KeyType::DevGroup => 4,
        KeyType::Limiter => 0,
    }
}

/// The key of a set's element as the kernel has it: parts of a concatenation padded to four octets.
pub fn write_key(types: &[KeyType], values: &[Value]) -> Option<Vec<u8>> {
    if types.len() != values.len() {
        return None;
    }
    let mut key = Vec::with_capacity(40);
    for (kind, value) in types.iter().zip(values) {
        let octets = octets(value, len_of(*kind))?;
        let fits = match (kind, value) {
            (KeyType::IfName, Value::IfName(_))
            | (KeyType::EtherAddr, Value::Mac(_))
            | (KeyType::NfProto, Value::Family(_))
            | (KeyType::InetService, Value::Port(_))
            | (KeyType::Mark | KeyType::DevGroup, Value::U32(_)) => true,
            (KeyType::Addr(family), Value::Addr(addr)) => *family == Family::of(*addr),
            (KeyType::InetProto | KeyType::IcmpType(_) | KeyType::IcmpCode(_), Value::U8(_)) => {
                true
            }
            _ => false,
        };
        if !fits {
            return None;
        }
        key.extend_from_slice(&octets);
        if types.len() > 1 {
            key.resize(key.len().next_multiple_of(4), 0);
        }
    }
    Some(key)
}

/// What an element of a map leads to, as the kernel has it: each value as long as it is.
pub fn write_data(values: &[Value]) -> Vec<u8> {
    let mut data = Vec::with_capacity(8);
    for value in values {
        let len = match value {
            Value::IfName(_) => IFNAMSIZ,
            Value::Mac(_) => 6,
            Value::Addr(addr) => usize::from(Family::of(*addr).bits()) / 8,
            Value::Family(_) | Value::U8(_) => 1,
            Value::Port(_) => 2,
            Value::U32(_) => 4,
            Value::Limiter(_) => 0,
        };
        data.extend(octets(value, len).unwrap_or_default());
        if values.len() > 1 {
            data.resize(data.len().next_multiple_of(4), 0);
        }
    }
    data
}

/// An element's key read back; none, where no value of the model can be that.
pub fn read_key(types: &[KeyType], key: &[u8]) -> Option<Vec<Value>> {
    let mut values = Vec::with_capacity(types.len());
    let mut rest = key;
    for kind in types {
        let len = len_of(*kind);
        values.push(read_value(*kind, rest.get(..len)?)?);
        let padded = if types.len() > 1 {
            len.next_multiple_of(4)
        } else {
            len
        };
        rest = rest.get(padded..)?;
    }
    (rest.is_empty() && write_key(types, &values).as_deref() == Some(key)).then_some(values)
}

fn read_value(kind: KeyType, octets: &[u8]) -> Option<Value> {
    Some(match kind {
        KeyType::IfName => Value::IfName(crate::netlink::text(octets)?.parse::<IfName>().ok()?),
        KeyType::EtherAddr => Value::Mac(Mac::new(octets.try_into().ok()?)),
        KeyType::Addr(_) => Value::Addr(crate::netlink::addr(octets)?),
        KeyType::NfProto => Value::Family(match *octets.first()? {
            NFPROTO_IPV4 => Family::V4,
            NFPROTO_IPV6 => Family::V6,
            _ => return None,
        }),
        KeyType::InetProto | KeyType::IcmpType(_) | KeyType::IcmpCode(_) => {
            Value::U8(*octets.first()?)
        }
        KeyType::InetService => Value::Port(u16::from_be_bytes(octets.try_into().ok()?)),
        KeyType::Mark | KeyType::DevGroup => {
            Value::U32(u32::from_ne_bytes(octets.try_into().ok()?))
        }
        KeyType::Limiter => return None,
    })
}

/// A value in `len` octets; none, when it does not have that length.
pub fn octets(value: &Value, len: usize) -> Option<Vec<u8>> {
    let octets = match value {
        Value::IfName(name) => {
            let mut octets = name.as_str().as_bytes().to_vec();
            octets.resize(IFNAMSIZ, 0);
            octets
        }
        Value::Mac(mac) => mac.octets().to_vec(),
        Value::Addr(std::net::IpAddr::V4(addr)) => addr.octets().to_vec(),
        Value::Addr(std::net::IpAddr::V6(addr)) => addr.octets().to_vec(),
        Value::Family(family) => vec![nfproto(*family)],
        Value::U8(n) if len == 4 => u32::from(*n).to_ne_bytes().to_vec(),
        Value::U8(n) => vec![*n],
        Value::Port(n) => n.to_be_bytes().to_vec(),
        Value::U32(n) if len == 1 => vec![u8::try_from(*n).ok()?],
        Value::U32(n) => n.to_ne_bytes().to_vec(),
        Value::Limiter(_) => return None,
    };
    (octets.len() == len).then_some(octets)
}

pub fn nfproto(family: Family) -> u8 {
    match family {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_elements_read_back_and_foreign_ones_do_not() {
        let types = [
            KeyType::IfName,
            KeyType::EtherAddr,
            KeyType::Addr(Family::V4),
        ];
        let values = vec![
            Value::IfName("tap1".parse().expect("a name")),
            Value::Mac(Mac::new([2, 0, 0, 0, 0, 1])),
            Value::Addr([192, 0, 2, 1].into()),
        ];
        let key = write_key(&types, &values).expect("fits");
        assert_eq!(key.len(), 16 + 8 + 4);
        assert_eq!(read_key(&types, &key), Some(values));
        let mut padded = key.clone();
        padded[23] = 1;
        assert_eq!(read_key(&types, &padded), None, "padding is zero");
        let mut unnamed = key.clone();
        unnamed[0] = b'/';
        assert_eq!(
            read_key(&types, &unnamed),
            None,
            "no interface has that name"
        );
        assert_eq!(read_key(&types, &key[..27]), None);
    }

    #[test]
    fn values_of_another_type_are_refused() {
        let types = [KeyType::Addr(Family::V4)];
        for value in [
            Value::U32(1),
            Value::Addr(Family::V6.unspecified()),
            Value::Port(1),
        ] {
            assert_eq!(write_key(&types, &[value]), None);
        }
        assert_eq!(write_key(&types, &[]), None);
    }
}
