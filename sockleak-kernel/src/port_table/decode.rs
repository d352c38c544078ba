//! Bytes of the iterators, as the domain's owners and files.

use std::net::IpAddr;

use sockleak_core::observed::{Family, PortFile};
use sockleak_core::port::{Bucket, PortOwner, Reuse, SharedAddress};
use sockleak_ebpf::{
    FASTREUSEPORT_ANY, FASTREUSEPORT_STRICT, NO_UID, PORT_BUCKET, PORT_MINI, PortFileRecord, PortRecord,
    SOCKET_REUSE, SOCKET_REUSEPORT, SOCKET_V6ONLY,
};

use crate::inventory::decode::{DecodeError, Fields};
use crate::inventory::translate;

/// What an iterator writes of each thing that it finds.
pub trait Record: Sized {
    /// How many bytes it writes.
    const SIZE: usize;

    /// # Errors
    /// When the bytes are fewer.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

/// Decodes all that an iterator wrote.
///
/// # Errors
/// When it ends within a record.
pub fn all<T: Record>(bytes: &[u8]) -> Result<Vec<T>, DecodeError> {
    bytes.chunks(T::SIZE).map(T::decode).collect()
}

impl Record for PortOwner {
    const SIZE: usize = size_of::<PortRecord>();

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        port_record(&mut Fields(bytes)).map(|record| owner(&record))
    }
}

impl Record for PortFile {
    const SIZE: usize = size_of::<PortFileRecord>();

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let fields = &mut Fields(bytes);
        Ok(Self {
            owner: owner(&port_record(fields)?),
            pid: fields.u32()?,
            fd: fields.u32()?,
            comm: translate::comm(&fields.array()?),
        })
    }
}

fn port_record(fields: &mut Fields<'_>) -> Result<PortRecord, DecodeError> {
    Ok(PortRecord {
        sk: fields.u64()?,
        cookie: fields.u64()?,
        inode: fields.u64()?,
        laddr: fields.array()?,
        raddr: fields.array()?,
        netns: fields.u32()?,
        device: fields.u32()?,
        uid: fields.u32()?,
        bucket_uid: fields.u32()?,
        lport: fields.u16()?,
        rport: fields.u16()?,
        family: fields.u16()?,
        protocol: fields.u16()?,
        state: fields.u8()?,
        flags: fields.u8()?,
        fastreuse: fields.u8()?.cast_signed(),
        fastreuseport: fields.u8()?.cast_signed(),
        fast_addr: fields.array()?,
        fast_v6_addr: fields.array()?,
        fast_family: fields.u16()?,
        fast_v6only: fields.u8()?,
        _pad: fields.u8()?,
        l3mdev: fields.u32()?,
    })
}

fn owner(record: &PortRecord) -> PortOwner {
    let has = |flag| record.flags & flag != 0;
    let family = translate::family(record.family);
    PortOwner {
        sk: record.sk,
        netns: record.netns,
        protocol: translate::protocol(record.protocol),
        family,
        local: translate::address(record.family, &record.laddr, record.lport),
        remote: (record.rport != 0).then(|| translate::address(record.family, &record.raddr, record.rport)),
        state: translate::state(record.state),
        mini: has(PORT_MINI),
        reuse: Some(Reuse::new(has(SOCKET_REUSE), has(SOCKET_REUSEPORT))),
        v6only: (family == Family::Ipv6).then(|| has(SOCKET_V6ONLY)),
        device: record.device,
        uid: (record.uid != NO_UID).then_some(record.uid),
        cookie: (record.cookie != 0).then_some(record.cookie),
        inode: record.inode,
        bucket: has(PORT_BUCKET).then(|| bucket(record)),
    }
}

fn bucket(record: &PortRecord) -> Bucket {
    let family = translate::family(record.fast_family);
    let address = match family {
        Family::Ipv4 => IpAddr::from(record.fast_addr),
        Family::Ipv6 => IpAddr::from(record.fast_v6_addr),
    };
    Bucket {
        reuse_addr: record.fastreuse > 0,
        reuse_port: record.fastreuseport == FASTREUSEPORT_ANY,
        reuse_port_at: (record.fastreuseport == FASTREUSEPORT_STRICT).then_some(SharedAddress {
            address,
            v6only: family == Family::Ipv6 && record.fast_v6only != 0,
        }),
        uid: record.bucket_uid,
        vrf: record.l3mdev,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sockleak_core::observed::{Protocol, State};

    use super::*;

    proptest! {
        #[test]
        fn hostile_bytes_are_records_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let owners = all::<PortOwner>(&bytes);
            prop_assert_eq!(owners.is_ok(), bytes.len() % PortOwner::SIZE == 0);
            let files = all::<PortFile>(&bytes);
            prop_assert_eq!(files.is_ok(), bytes.len() % PortFile::SIZE == 0);
            prop_assert_eq!(files.map_or(0, |files| files.len()), if bytes.len() % PortFile::SIZE == 0 { bytes.len() / PortFile::SIZE } else { 0 });
        }
    }

    /// A mini socket of 127.0.0.1:8080 in FIN_WAIT2 whose owner had both options, byte by byte.
    fn mini() -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [0xffff_8880_0000_1000_u64, 4711, 0] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        for address in [[127, 0, 0, 1], [10, 0, 0, 7]] {
            bytes.extend_from_slice(&address);
            bytes.extend_from_slice(&[0; 12]);
        }
        for word in [4_026_531_840_u32, 3, NO_UID, 1000] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        for word in [8080_u16, 40310, 2, 6] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(&[5, SOCKET_REUSE | SOCKET_REUSEPORT | PORT_MINI | PORT_BUCKET, 1, 1]);
        bytes.extend_from_slice(&[127, 0, 0, 1]);
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(&2_u16.to_ne_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&4_u32.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_mini_socket_is_told_as_the_rule_wants_it() {
        let owner = PortOwner::decode(&mini()).unwrap();
        assert_eq!(
            owner,
            PortOwner {
                sk: 0xffff_8880_0000_1000,
                netns: 4_026_531_840,
                protocol: Protocol::Tcp,
                family: Family::Ipv4,
                local: "127.0.0.1:8080".parse().unwrap(),
                remote: Some("10.0.0.7:40310".parse().unwrap()),
                state: State::FinWait2,
                mini: true,
                reuse: Some(Reuse::new(true, true)),
                v6only: None,
                device: 3,
                uid: None,
                cookie: Some(4711),
                inode: 0,
                bucket: Some(Bucket {
                    reuse_addr: true,
                    reuse_port: true,
                    reuse_port_at: None,
                    uid: 1000,
                    vrf: 4,
                }),
            }
        );
    }

    #[test]
    fn only_positive_marks_of_the_bucket_are_shortcuts() {
        let mut bytes = mini();
        // FASTREUSEPORT_STRICT, and the -1 of a port that connect() chose.
        bytes[82..84].copy_from_slice(&[255, 2]);
        let bucket = PortOwner::decode(&bytes).unwrap().bucket.unwrap();
        assert!(!bucket.reuse_addr && !bucket.reuse_port);
        let at = |address: &str, v6only| {
            let address = address.parse().unwrap();
            Some(SharedAddress { address, v6only })
        };
        assert_eq!(bucket.reuse_port_at, at("127.0.0.1", false));
        bytes[103] = 1;
        bytes[104..106].copy_from_slice(&10_u16.to_ne_bytes());
        bytes[106] = 1;
        assert_eq!(
            PortOwner::decode(&bytes).unwrap().bucket.unwrap().reuse_port_at,
            at("::1", true)
        );
        bytes[81] = PORT_MINI;
        assert_eq!(PortOwner::decode(&bytes).unwrap().bucket, None);
    }

    #[test]
    fn a_file_is_its_owner_and_who_holds_it() {
        let mut bytes = mini();
        bytes.extend_from_slice(&4242_u32.to_ne_bytes());
        bytes.extend_from_slice(&7_u32.to_ne_bytes());
        bytes.extend_from_slice(b"orderd\0\0\0\0\0\0\0\0\0\0");
        let files = all::<PortFile>(&[bytes.clone(), bytes].concat()).unwrap();
        assert_eq!(files.len(), 2);
        assert_eq!(
            (files[1].pid, files[1].fd, files[1].comm.as_str()),
            (4242, 7, "orderd")
        );
    }
}
