use dhcproto::{Decodable, v4};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::samples;

fn payload(frame: &[u8]) -> &[u8] {
    &frame[42..]
}

#[test]
fn a_real_client_s_message_is_understood() {
    let frame = samples::udhcpc_discover();
    let message = Message::decode(payload(&frame)).unwrap();
    assert_eq!(message.op, BOOT_REQUEST);
    assert_eq!(message.xid, 0x3098_1812);
    assert_eq!(message.hardware(), Some(samples::GUEST.octets()));
    assert_eq!(message.options.get(code::MESSAGE_TYPE), Some(&[1][..]));
    assert_eq!(
        message.options.get(code::MAX_MESSAGE_SIZE),
        Some(&[2, 64][..])
    );
    let order: Vec<u8> = message.options.iter().map(|(code, _)| code).collect();
    assert_eq!(order, [53, 57, 55, 60, 61]);
    assert_eq!(message.encode(300), payload(&frame));
}

#[test]
fn every_truncation_is_refused_or_only_lacks_padding() {
    for frame in [samples::dhclient_request(), samples::udhcpc_discover()] {
        let whole = Message::decode(payload(&frame)).unwrap();
        for len in 0..payload(&frame).len() {
            match Message::decode(&payload(&frame)[..len]) {
                None => assert!(len < 300),
                Some(part) => {
                    let missing = whole.options.iter().count() - part.options.iter().count();
                    assert!(missing == 0 || payload(&frame)[len - 1] != 0, "{len}");
                }
            }
        }
    }
}

#[test]
fn parts_of_an_option_are_one_option() {
    let mut message = Message::default();
    let long: Vec<u8> = (0..600_usize).map(|i| (i % 251) as u8).collect();
    message.options.set(121, &long);
    let bytes = message.encode(1_400);
    assert_eq!(bytes[240..242], [121, 255]);
    assert_eq!(bytes[497..499], [121, 255]);
    assert_eq!(bytes[754..756], [121, 90]);
    assert_eq!(Message::decode(&bytes), Some(message));
}

#[test]
fn file_and_sname_take_what_does_not_fit() {
    let mut message = Message::default();
    message.options.set(1, &[1; 40]);
    message.options.set(2, &[2; 100]);
    message.options.set(3, &[3; 55]);
    message.options.set(4, &[4; 200]);
    message.options.set(5, &[5]);
    let bytes = message.encode(300);
    assert_eq!(bytes.len(), 300);
    let read = Message::decode(&bytes).unwrap();
    let kept: Vec<u8> = read.options.iter().map(|(code, _)| code).collect();
    // In the order of the fields: what there was room for in the first, then `file`, then `sname`.
    assert_eq!(kept, [1, 5, 2, 3]);
    assert_eq!(read.options.get(3), Some(&[3; 55][..]));
    // A field in use is left alone.
    message.file[0] = b'a';
    message.sname[0] = b'b';
    let read = Message::decode(&message.encode(300)).unwrap();
    assert_eq!((read.file[0], read.sname[0]), (b'a', b'b'));
    assert_eq!(read.options.iter().count(), 2);
}

#[test]
fn hostile_options_end() {
    let mut fixed = Message::default().encode(300);
    fixed.truncate(240);
    for (options, taken) in [
        (&[53, 1][..], false),
        (&[53, 255, 1], false),
        (&[53], false),
        (&[52, 1, 4], false),
        (&[52, 0], false),
        (&[52, 1, 3, 255], true),
        (&[0, 0, 0], true),
        (&[], true),
        (&[255, 53, 9], true),
    ] {
        let bytes = [&fixed, options].concat();
        assert_eq!(Message::decode(&bytes).is_some(), taken, "{options:?}");
    }
    fixed[236] = 0;
    assert_eq!(Message::decode(&fixed), None);
}

fn any_message() -> impl Strategy<Value = Message> {
    let options = vec((1..=254_u8, vec(any::<u8>(), 0..300)), 0..6);
    (
        options,
        any::<[u8; 4]>(),
        any::<(u32, u16, bool)>(),
        any::<[u32; 4]>(),
        any::<[u8; 16]>(),
    )
        .prop_map(
            |(list, [op, htype, hlen, hops], (xid, secs, broadcast), addrs, chaddr)| {
                let mut options = Options::default();
                for (code, data) in list.iter().filter(|(code, _)| *code != code::OVERLOAD) {
                    options.set(*code, data);
                }
                let [ciaddr, yiaddr, siaddr, giaddr] = addrs.map(Ipv4Addr::from);
                Message {
                    op,
                    htype,
                    hlen,
                    hops,
                    xid,
                    secs,
                    broadcast,
                    ciaddr,
                    yiaddr,
                    siaddr,
                    giaddr,
                    chaddr,
                    options,
                    ..Message::default()
                }
            },
        )
}

proptest! {
    #[test]
    fn round_trips(message in any_message()) {
        prop_assert_eq!(Message::decode(&message.encode(4_000)), Some(message));
    }

    #[test]
    fn whatever_the_room_the_rest_is_right(message in any_message(), room in 0..700_usize) {
        let bytes = message.encode(room);
        prop_assert!(bytes.len() <= room.max(MIN_LEN));
        let read = Message::decode(&bytes).unwrap();
        for (code, data) in read.options.iter() {
            prop_assert_eq!(message.options.get(code), Some(data));
        }
    }

    #[test]
    fn any_octets_end(bytes in vec(any::<u8>(), 0..600)) {
        let _ = Message::decode(&bytes);
        let mut fixed = Message::default().encode(300);
        fixed.truncate(240);
        let _ = Message::decode(&[fixed, bytes].concat());
    }

    /// dhcproto reads the same from what we write. Its own options stay out: it panics where their
    /// lengths are not what it expects.
    #[test]
    fn dhcproto_agrees(message in any_message(), list in vec((224..=254_u8, vec(any::<u8>(), 1..300)), 0..4)) {
        let mut message = Message { hlen: 6, options: Options::default(), ..message };
        for (code, data) in &list {
            message.options.set(*code, data);
        }
        let read = v4::Message::from_bytes(&message.encode(4_000)).unwrap();
        prop_assert_eq!(read.xid(), message.xid);
        prop_assert_eq!(read.yiaddr(), message.yiaddr);
        prop_assert_eq!(read.flags().broadcast(), message.broadcast);
        prop_assert_eq!(read.chaddr(), &message.chaddr[..6]);
        prop_assert_eq!(read.opts().iter().count(), message.options.iter().count());
        for (code, data) in message.options.iter() {
            let expected = v4::UnknownOption::new(code.into(), data.to_vec());
            let expected = v4::DhcpOption::Unknown(expected);
            prop_assert_eq!(read.opts().get(code.into()), Some(&expected));
        }
    }
}
