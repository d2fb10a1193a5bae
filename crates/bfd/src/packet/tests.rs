use proptest::prelude::*;

use super::*;

fn mult(n: u8) -> NonZeroU8 {
    NonZeroU8::new(n).unwrap()
}

fn discriminator(n: u32) -> Discriminator {
    Discriminator::new(n).unwrap()
}

/// What BIRD 2 sends from a session that has just come up with its default timers.
fn up() -> Packet {
    Packet {
        diagnostic: Diagnostic::NONE,
        state: State::Up,
        poll: true,
        is_final: false,
        control_plane_independent: false,
        demand: false,
        detect_mult: mult(5),
        my_discriminator: discriminator(0x0102_0304),
        your_discriminator: Some(discriminator(0xa0b0_c0d0)),
        desired_min_tx: Micros(100_000),
        required_min_rx: Micros(10_000),
        required_min_echo_rx: Micros(0),
        authentication: None,
    }
}

/// Every message with its bytes; read and written.
fn vectors() -> Vec<(Packet, Vec<u8>)> {
    let password = Password::try_from(b"secret".as_slice()).unwrap();
    let (key_id, sequence) = (7, 0x1122_3344);
    vec![
        (
            up(),
            vec![
                0x20, 0xe0, 5, 24, 1, 2, 3, 4, 0xa0, 0xb0, 0xc0, 0xd0, 0, 1, 0x86, 0xa0, 0, 0,
                0x27, 0x10, 0, 0, 0, 0,
            ],
        ),
        (
            Packet {
                diagnostic: Diagnostic::ADMINISTRATIVELY_DOWN,
                state: State::AdminDown,
                poll: false,
                is_final: true,
                control_plane_independent: true,
                demand: true,
                detect_mult: mult(3),
                my_discriminator: discriminator(1),
                your_discriminator: None,
                desired_min_tx: Micros(1_000_000),
                required_min_rx: Micros(0),
                required_min_echo_rx: Micros(50_000),
                authentication: None,
            },
            vec![
                0x27, 0x1a, 3, 24, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40, 0, 0, 0, 0, 0, 0,
                0xc3, 0x50,
            ],
        ),
        with_section(
            Authentication::SimplePassword { key_id, password },
            &[1, 9, 7, b's', b'e', b'c', b'r', b'e', b't'],
        ),
        with_section(
            Authentication::KeyedMd5 {
                meticulous: false,
                key_id,
                sequence,
                digest: [9; 16],
            },
            &[&[2, 24, 7, 0, 0x11, 0x22, 0x33, 0x44][..], &[9; 16]].concat(),
        ),
        with_section(
            Authentication::KeyedSha1 {
                meticulous: true,
                key_id,
                sequence,
                digest: [8; 20],
            },
            &[&[5, 28, 7, 0, 0x11, 0x22, 0x33, 0x44][..], &[8; 20]].concat(),
        ),
    ]
}

fn with_section(authentication: Authentication, section: &[u8]) -> (Packet, Vec<u8>) {
    let mut bytes = up().encode();
    bytes[1] |= AUTHENTICATION_PRESENT;
    bytes[3] += section.len() as u8;
    bytes.extend(section);
    (
        Packet {
            authentication: Some(authentication),
            ..up()
        },
        bytes,
    )
}

#[test]
fn bytes_both_ways() {
    for (packet, bytes) in vectors() {
        assert_eq!(packet.encode(), bytes);
        assert_eq!(Packet::decode(&bytes), Ok(packet));
    }
}

#[test]
fn every_truncation_is_refused_and_trailing_octets_are_not() {
    for (packet, mut bytes) in vectors() {
        for len in 0..bytes.len() {
            assert!(
                Packet::decode(&bytes[..len]).is_err(),
                "{len} octets of {packet:?}"
            );
        }
        bytes.extend([0xff; 40]);
        assert_eq!(Packet::decode(&bytes), Ok(packet));
    }
}

#[test]
fn refuses_what_must_be_discarded() {
    let change = |at: usize, octet: u8| {
        let mut bytes = up().encode();
        bytes[at] = octet;
        Packet::decode(&bytes)
    };
    let cases = [
        (change(0, 0x00), DecodeError::Version(0)),
        (change(0, 0x40), DecodeError::Version(2)),
        (change(1, 0xe1), DecodeError::Multipoint),
        (change(2, 0), DecodeError::DetectMultZero),
        (
            change(3, 23),
            DecodeError::LengthTooSmall {
                stated: 23,
                needed: 24,
            },
        ),
        (
            change(1, 0xe4),
            DecodeError::LengthTooSmall {
                stated: 24,
                needed: 26,
            },
        ),
        (
            change(3, 25),
            DecodeError::LengthTooLarge {
                stated: 25,
                arrived: 24,
            },
        ),
    ];
    for (got, expected) in cases {
        assert_eq!(got, Err(expected));
    }
    let mut bytes = up().encode();
    bytes[4..8].fill(0);
    assert_eq!(
        Packet::decode(&bytes),
        Err(DecodeError::MyDiscriminatorZero)
    );
    assert_eq!(Packet::decode(&[0x20; 23]), Err(DecodeError::Short(23)));
}

#[test]
fn refuses_authentication_that_does_not_fit_its_type() {
    let decode = |section: &[u8]| {
        let mut bytes = up().encode();
        bytes[1] |= AUTHENTICATION_PRESENT;
        bytes[3] += section.len() as u8;
        bytes.extend(section);
        Packet::decode(&bytes)
    };
    let long_password = [&[1, 20, 7][..], &[b'x'; 17]].concat();
    let cases: [(&[u8], DecodeError); 7] = [
        (&[0, 2], DecodeError::AuthType(0)),
        (&[6, 2], DecodeError::AuthType(6)),
        (&[1, 2], DecodeError::AuthLen { kind: 1, len: 2 }),
        (&[1, 3, 7], DecodeError::AuthLen { kind: 1, len: 3 }),
        (&[1, 9, 7, b'x'], DecodeError::AuthLen { kind: 1, len: 9 }),
        (
            &[2, 8, 7, 0, 0, 0, 0, 1],
            DecodeError::AuthLen { kind: 2, len: 8 },
        ),
        (&long_password, DecodeError::AuthLen { kind: 1, len: 20 }),
    ];
    for (section, expected) in cases {
        assert_eq!(decode(section), Err(expected), "{section:?}");
    }
}

#[test]
fn passwords_are_never_printed() {
    let password = Password::try_from(b"secret".as_slice()).unwrap();
    assert_eq!(format!("{password:?}"), "Password(..)");
    assert_eq!(password.as_bytes(), b"secret");
    assert_eq!(
        Password::try_from([0; 17].as_slice()),
        Err(PasswordError(17))
    );
}

fn any_authentication() -> impl Strategy<Value = Authentication> {
    let password = prop::collection::vec(any::<u8>(), 1..=16)
        .prop_map(|octets| Password::try_from(octets.as_slice()).unwrap());
    prop_oneof![
        (any::<u8>(), password)
            .prop_map(|(key_id, password)| Authentication::SimplePassword { key_id, password }),
        any::<(bool, u8, u32, [u8; 16])>().prop_map(|(meticulous, key_id, sequence, digest)| {
            Authentication::KeyedMd5 {
                meticulous,
                key_id,
                sequence,
                digest,
            }
        }),
        any::<(bool, u8, u32, [u8; 20])>().prop_map(|(meticulous, key_id, sequence, digest)| {
            Authentication::KeyedSha1 {
                meticulous,
                key_id,
                sequence,
                digest,
            }
        }),
    ]
}

prop_compose! {
    fn any_packet()(
        diagnostic in 0u8..32,
        state in prop::sample::select(State::ALL.to_vec()),
        flags: [bool; 4],
        detect_mult: NonZeroU8,
        my: NonZeroU32,
        your: u32,
        micros: [u32; 3],
        authentication in prop::option::of(any_authentication()),
    ) -> Packet {
        Packet {
            diagnostic: Diagnostic::from_bits(diagnostic),
            state,
            poll: flags[0],
            is_final: flags[1],
            control_plane_independent: flags[2],
            demand: flags[3],
            detect_mult,
            my_discriminator: Discriminator(my),
            your_discriminator: Discriminator::new(your),
            desired_min_tx: Micros(micros[0]),
            required_min_rx: Micros(micros[1]),
            required_min_echo_rx: Micros(micros[2]),
            authentication,
        }
    }
}

proptest! {
    #[test]
    fn packets_round_trip(packet in any_packet()) {
        prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
    }

    #[test]
    fn no_bytes_panic_and_what_decodes_keeps_its_meaning(
        mut bytes in prop::collection::vec(any::<u8>(), 0..80),
        plausible: bool,
    ) {
        if let (true, [version, _, _, length, ..]) = (plausible, bytes.as_mut_slice()) {
            *version = *version & 0x1f | 0x20;
            *length %= 64;
        }
        if let Ok(packet) = Packet::decode(&bytes) {
            prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
        }
    }
}
