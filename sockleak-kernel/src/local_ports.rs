//! The sysctls by which connect() chooses a local port.

use std::io::{self, ErrorKind};
use std::ops::RangeInclusive;
use std::time::Duration;

use sockleak_core::observed::{LocalPorts, TwReuse};

use super::netns::Netns;

/// Reads them in a network namespace.
///
/// # Errors
/// When the namespace cannot be entered, or a sysctl is missing or tells something else.
pub fn read(namespace: &Netns) -> io::Result<LocalPorts> {
    let text = |name: &str| namespace.sysctl(&format!("net/ipv4/{name}"));
    let (bounds, reserved) = (text("ip_local_port_range")?, text("ip_local_reserved_ports")?);
    let range = range(&bounds).ok_or_else(|| unknown("ip_local_port_range", &bounds))?;
    let reserved = list(&reserved).ok_or_else(|| unknown("ip_local_reserved_ports", &reserved))?;
    let tw_reuse = match namespace.sysctl_u32("net/ipv4/tcp_tw_reuse")? {
        0 => TwReuse::Never,
        2 => TwReuse::Loopback,
        _ => TwReuse::Always,
    };
    Ok(LocalPorts {
        range,
        reserved,
        tw_reuse,
        timestamps: namespace.sysctl_u32("net/ipv4/tcp_timestamps")? != 0,
        tw_reuse_delay: match namespace.sysctl_u32("net/ipv4/tcp_tw_reuse_delay") {
            Ok(millis) => Some(Duration::from_millis(millis.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        },
    })
}

fn unknown(name: &str, text: &str) -> io::Error {
    let told = format!("net.ipv4.{name} is {:?}", text.trim());
    io::Error::new(ErrorKind::InvalidData, told)
}

/// Two numbers, the first and the last port: `32768\t60999`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut words = text.split_whitespace().map(str::parse);
    let (first, last) = (words.next()?.ok()?, words.next()?.ok()?);
    words.next().is_none().then_some(first..=last)
}

/// Ports and ranges of ports with commas between them, or nothing: `1-5,8080` (`proc_do_large_bitmap`,
/// kernel/sysctl.c).
fn list(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let items = text.trim().split(',').filter(|item| !item.is_empty());
    items
        .map(|item| {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            Some(first.parse().ok()?..=last.parse().ok()?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::netns::in_new_namespace;

    #[test]
    fn a_range_is_two_numbers() {
        assert_eq!(range("32768\t60999\n"), Some(32768..=60999));
        for text in ["", "1", "1 2 3", "a b", "1 65536"] {
            assert_eq!(range(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_list_has_ports_and_ranges() {
        assert_eq!(list("\n"), Some(Vec::new()));
        assert_eq!(list("8080\n"), Some(vec![8080..=8080]));
        assert_eq!(
            list("1-5,8080,60000-65535\n"),
            Some(vec![1..=5, 8080..=8080, 60000..=65535])
        );
        for text in ["x", "1-", "-5", "1-2-3", "70000"] {
            assert_eq!(list(text), None, "{text:?}");
        }
    }

    #[test]
    fn reserved_ports_are_not_chosen() {
        let ports = LocalPorts {
            range: 40_000..=40_009,
            reserved: vec![1..=5, 40_002..=40_003, 40_009..=50_000],
            tw_reuse: TwReuse::Never,
            timestamps: true,
            tw_reuse_delay: None,
        };
        let chosen: Vec<u16> = (0..=u16::MAX).filter(|port| ports.has(*port)).collect();
        assert_eq!(chosen, [40_000, 40_001, 40_004, 40_005, 40_006, 40_007, 40_008]);
    }

    #[test]
    #[ignore = "needs root"]
    fn they_are_those_of_the_namespace() {
        let other = in_new_namespace(|| {
            fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40099")?;
            fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", "40001,40010-40012")?;
            fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "0")?;
            fs::write("/proc/sys/net/ipv4/tcp_timestamps", "0")?;
            Netns::current()
        });
        let ports = read(&other).unwrap();
        assert_eq!(ports.range, 40_000..=40_099);
        assert_eq!(ports.reserved, [40_001..=40_001, 40_010..=40_012]);
        assert_eq!((ports.tw_reuse, ports.timestamps), (TwReuse::Never, false));
        assert!(
            ports
                .tw_reuse_delay
                .is_none_or(|delay| delay == Duration::from_secs(1))
        );
        let own = read(&Netns::current().unwrap()).unwrap();
        assert_ne!(own, ports);
    }
}
