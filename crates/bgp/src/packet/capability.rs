//! Capabilities in an OPEN (RFC 5492).

use hextet_types::Asn;

use super::{
    Afi, Reader, put_u16, put_u32,
    wire::{len_u8, patch_u16},
};

/// A family in a graceful restart capability (RFC 4724 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartFamily {
    /// The family whose routes may be kept.
    pub family: Afi,
    /// The F bit: its forwarding went on through the last restart.
    pub forwarding: bool,
}

/// The graceful restart capability (RFC 4724 §3, RFC 8538 §2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// The R bit: the sender has just restarted.
    pub restarting: bool,
    /// The N bit: a NOTIFICATION or an expired hold timer is a restart, too (RFC 8538).
    pub notification: bool,
    /// How long the sender's restart may take; twelve bits.
    pub time_secs: u16,
    /// Of which families the sender asks that routes be kept.
    pub families: Vec<RestartFamily>,
}

/// A family in a long-lived graceful restart capability (RFC 9494 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongLivedFamily {
    /// The family whose routes may be kept.
    pub family: Afi,
    /// The F bit.
    pub forwarding: bool,
    /// How long stale routes may be kept; 24 bits.
    pub stale_secs: u32,
}

/// A family that may have next hops of another one (RFC 8950 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedNextHop {
    /// Whose prefixes.
    pub family: Afi,
    /// The AFI of the next hops.
    pub next_hop_afi: u16,
}

/// One capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// 1: a family (RFC 4760 §8).
    Multiprotocol(Afi),
    /// 2: ROUTE-REFRESH (RFC 2918).
    RouteRefresh,
    /// 5: next hops of the other family (RFC 8950).
    ExtendedNextHop(Vec<ExtendedNextHop>),
    /// 6: messages over 4,096 octets (RFC 8654).
    ExtendedMessage,
    /// 64: graceful restart.
    GracefulRestart(GracefulRestart),
    /// 65: four-octet AS numbers, and the sender's (RFC 6793).
    FourOctetAs(Asn),
    /// 70: begin and end of a refresh are marked (RFC 7313).
    EnhancedRouteRefresh,
    /// 71: long-lived graceful restart (RFC 9494).
    LongLived(Vec<LongLivedFamily>),
    /// Any other, or one of the above whose length is wrong: to be ignored (RFC 5492 §3).
    Unknown {
        /// Its code.
        code: u8,
        /// Its value.
        value: Vec<u8>,
    },
}

impl Capability {
    /// Reads the value of a capability. There is no error: one that cannot be read counts as unknown.
    pub(crate) fn decode(code: u8, value: &[u8]) -> Capability {
        Self::decode_known(code, value).unwrap_or_else(|| Capability::Unknown {
            code,
            value: value.to_vec(),
        })
    }

    fn decode_known(code: u8, value: &[u8]) -> Option<Capability> {
        let mut r = Reader::new(value);
        let capability = match code {
            1 => {
                let afi = r.u16()?;
                r.u8()?;
                Capability::Multiprotocol(Afi { afi, safi: r.u8()? })
            }
            2 => Capability::RouteRefresh,
            5 => Capability::ExtendedNextHop(all(&mut r, |r| {
                let afi = r.u16()?;
                let safi = u8::try_from(r.u16()?).ok()?;
                Some(ExtendedNextHop {
                    family: Afi { afi, safi },
                    next_hop_afi: r.u16()?,
                })
            })?),
            6 => Capability::ExtendedMessage,
            64 => Capability::GracefulRestart(decode_restart(&mut r)?),
            65 => Capability::FourOctetAs(Asn(r.u32()?)),
            70 => Capability::EnhancedRouteRefresh,
            71 => Capability::LongLived(all(&mut r, |r| {
                let (family, flags) = family_and_flags(r)?;
                let [a, b, c] = r.array()?;
                Some(LongLivedFamily {
                    family,
                    forwarding: flags & 0x80 != 0,
                    stale_secs: u32::from_be_bytes([0, a, b, c]),
                })
            })?),
            _ => return None,
        };
        r.is_empty().then_some(capability)
    }

    /// Appends code, length and value. A value over 255 octets cannot be said and is left out.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.code(), 0]);
        self.encode_value(out);
        match u8::try_from(out.len() - start - 2) {
            Ok(len) => {
                if let Some(place) = out.get_mut(start + 1) {
                    *place = len;
                }
            }
            Err(_) => out.truncate(start),
        }
    }

    const fn code(&self) -> u8 {
        match self {
            Capability::Multiprotocol(_) => 1,
            Capability::RouteRefresh => 2,
            Capability::ExtendedNextHop(_) => 5,
            Capability::ExtendedMessage => 6,
            Capability::GracefulRestart(_) => 64,
            Capability::FourOctetAs(_) => 65,
            Capability::EnhancedRouteRefresh => 70,
            Capability::LongLived(_) => 71,
            Capability::Unknown { code, .. } => *code,
        }
    }

    fn encode_value(&self, out: &mut Vec<u8>) {
        match self {
            Capability::Multiprotocol(family) => {
                put_u16(out, family.afi);
                out.extend_from_slice(&[0, family.safi]);
            }
            Capability::ExtendedNextHop(families) => {
                for f in families {
                    put_u16(out, f.family.afi);
                    put_u16(out, u16::from(f.family.safi));
                    put_u16(out, f.next_hop_afi);
                }
            }
            Capability::GracefulRestart(restart) => encode_restart(restart, out),
            Capability::FourOctetAs(asn) => put_u32(out, asn.0),
            Capability::LongLived(families) => {
                for f in families {
                    put_u16(out, f.family.afi);
                    out.extend_from_slice(&[f.family.safi, if f.forwarding { 0x80 } else { 0 }]);
                    let [_, secs @ ..] = f.stale_secs.min(0xff_ffff).to_be_bytes();
                    out.extend_from_slice(&secs);
                }
            }
            Capability::Unknown { value, .. } => out.extend_from_slice(value),
            Capability::RouteRefresh
            | Capability::ExtendedMessage
            | Capability::EnhancedRouteRefresh => (),
        }
    }
}

fn decode_restart(r: &mut Reader<'_>) -> Option<GracefulRestart> {
    let head = r.u16()?;
    let families = all(r, |r| {
        let (family, flags) = family_and_flags(r)?;
        Some(RestartFamily {
            family,
            forwarding: flags & 0x80 != 0,
        })
    })?;
    Some(GracefulRestart {
        restarting: head & 0x8000 != 0,
        notification: head & 0x4000 != 0,
        time_secs: head & 0x0fff,
        families,
    })
}

fn encode_restart(restart: &GracefulRestart, out: &mut Vec<u8>) {
    let mut head = restart.time_secs.min(0x0fff);
    if restart.restarting {
        head |= 0x8000;
    }
    if restart.notification {
        head |= 0x4000;
    }
    put_u16(out, head);
    for f in &restart.families {
        put_u16(out, f.family.afi);
        out.extend_from_slice(&[f.family.safi, if f.forwarding { 0x80 } else { 0 }]);
    }
}

fn family_and_flags(r: &mut Reader<'_>) -> Option<(Afi, u8)> {
    let afi = r.u16()?;
    let safi = r.u8()?;
    Some((Afi { afi, safi }, r.u8()?))
}

fn all<'a, T>(
    r: &mut Reader<'a>,
    mut one: impl FnMut(&mut Reader<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut items = Vec::new();
    while !r.is_empty() {
        items.push(one(r)?);
    }
    Some(items)
}

/// The type of the optional parameter that carries capabilities (RFC 5492 §4).
const PARAMETER_CAPABILITIES: u8 = 2;
/// In the place of length and first type: the extended format (RFC 9072 §2).
const EXTENDED: u8 = 255;

/// Why optional parameters were refused.
pub(crate) enum ParameterError {
    Malformed,
    Unsupported(u8),
}

/// Reads the optional parameters of an OPEN, from their length on.
pub(crate) fn decode_parameters(r: &mut Reader<'_>) -> Result<Vec<Capability>, ParameterError> {
    let malformed = || ParameterError::Malformed;
    let mut len = usize::from(r.u8().ok_or_else(malformed)?);
    let mut peek = *r;
    let extended = len != 0 && peek.u8() == Some(EXTENDED);
    if extended {
        len = usize::from(peek.u16().ok_or_else(malformed)?);
        *r = peek;
    }
    let mut parameters = Reader::new(r.take(len).ok_or_else(malformed)?);
    if !r.is_empty() {
        return Err(ParameterError::Malformed);
    }
    let mut capabilities = Vec::new();
    while let Some(kind) = parameters.u8() {
        let len = if extended {
            parameters.u16().map(usize::from)
        } else {
            parameters.u8().map(usize::from)
        };
        let value = len
            .and_then(|len| parameters.take(len))
            .ok_or_else(malformed)?;
        if kind != PARAMETER_CAPABILITIES {
            return Err(ParameterError::Unsupported(kind));
        }
        decode_list(value, &mut capabilities).ok_or_else(malformed)?;
    }
    Ok(capabilities)
}

fn decode_list(value: &[u8], capabilities: &mut Vec<Capability>) -> Option<()> {
    let mut r = Reader::new(value);
    while !r.is_empty() {
        let code = r.u8()?;
        let len = r.u8()?;
        capabilities.push(Capability::decode(code, r.take(usize::from(len))?));
    }
    Some(())
}

/// Appends the optional parameters, length first: one parameter with all capabilities, in the
/// extended format when it does not fit an octet (RFC 9072). Those over `room` are left out.
pub(crate) fn encode_parameters(capabilities: &[Capability], room: usize, out: &mut Vec<u8>) {
    let mut list = Vec::new();
    for capability in capabilities {
        let before = list.len();
        capability.encode(&mut list);
        if list.len() + 7 > room {
            list.truncate(before);
        }
    }
    if list.is_empty() {
        out.push(0);
    } else if list.len() + 2 < usize::from(EXTENDED) {
        out.extend_from_slice(&[
            len_u8(list.len() + 2),
            PARAMETER_CAPABILITIES,
            len_u8(list.len()),
        ]);
        out.append(&mut list);
    } else {
        out.extend_from_slice(&[EXTENDED, EXTENDED]);
        let at = out.len();
        put_u16(out, 0);
        patch_u16(out, at, list.len() + 3);
        out.push(PARAMETER_CAPABILITIES);
        let at = out.len();
        put_u16(out, 0);
        patch_u16(out, at, list.len());
        out.append(&mut list);
    }
}
