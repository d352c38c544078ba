//! The texts of /proc, as proc(5) describes them.

/// PF_EXITING of include/linux/sched.h.
const PF_EXITING: u32 = 0x4;
/// PF_KTHREAD of include/linux/sched.h.
const PF_KTHREAD: u32 = 0x0020_0000;

/// `/proc/PID/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Not escaped; bytes that are no UTF-8 are replaced.
    pub comm: String,
    /// `R`, `S`, `Z` and so on.
    pub state: char,
    /// Process id of the parent; 0 if it is in an outer PID namespace.
    pub parent: u32,
    /// PF_* of include/linux/sched.h.
    pub flags: u32,
    /// Start time since boot, in USER_HZ ticks (`sysconf(_SC_CLK_TCK)`).
    pub start_ticks: u64,
}

impl Stat {
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        // comm may hold anything, also ") R 1" and newlines; no field behind it has a parenthesis.
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let comm = text.get(open + 1..close)?;
        let rest = str::from_utf8(&text[close + 1..]).ok()?;
        // The first of these is field 3, as proc(5) counts.
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            comm: String::from_utf8_lossy(comm).into_owned(),
            state: field(3)?.chars().next()?,
            parent: field(4)?.parse().ok()?,
            flags: field(9)?.parse().ok()?,
            start_ticks: field(22)?.parse().ok()?,
        })
    }

    /// A thread of the kernel, which has no descriptors and cannot crash.
    #[must_use]
    pub fn is_kernel_thread(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }

    /// Dead, but not reaped by its parent.
    #[must_use]
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// Dead, or on its way through `do_exit` (kernel/exit.c). Of a process it is the first thread that this tells of.
    #[must_use]
    pub fn is_exiting(&self) -> bool {
        self.is_zombie() || self.flags & PF_EXITING != 0
    }

    /// It has no descriptors and no namespaces, or is about to lose them: dead, dying, or a thread of the kernel. What
    /// it has left in /proc is refused to root too (`proc_pid_readlink`, fs/proc/base.c).
    #[must_use]
    pub fn holds_nothing(&self) -> bool {
        self.is_kernel_thread() || self.is_exiting()
    }
}

/// What is needed of `/proc/PID/status`. A line that a kernel does not have gives `None` or `false`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The process that a thread belongs to.
    pub tgid: Option<u32>,
    /// Process id in the innermost PID namespace.
    pub ns_pid: Option<u32>,
    /// Descriptors that its table has room for now.
    pub descriptor_slots: Option<u32>,
    /// Effective capabilities, bit `1 << CAP_*`.
    pub effective_capabilities: Option<u64>,
    /// The capabilities that it and what it starts can ever have, likewise.
    pub bounding_capabilities: Option<u64>,
    /// A seccomp filter judges its system calls.
    pub seccomp_filter: bool,
    /// The process is being dumped at this moment (4.15 and later).
    pub core_dumping: bool,
}

impl Status {
    /// The name in the first line cannot forge a line: the kernel escapes it (`proc_task_name`, fs/proc/array.c).
    pub(super) fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let mut status = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match key {
                "Tgid" => status.tgid = value.parse().ok(),
                "NSpid" => {
                    status.ns_pid = value
                        .split_ascii_whitespace()
                        .last()
                        .and_then(|pid| pid.parse().ok());
                }
                "FDSize" => status.descriptor_slots = value.parse().ok(),
                "CapEff" => status.effective_capabilities = u64::from_str_radix(value, 16).ok(),
                "CapBnd" => status.bounding_capabilities = u64::from_str_radix(value, 16).ok(),
                // SECCOMP_MODE_FILTER of include/uapi/linux/seccomp.h.
                "Seccomp" => status.seccomp_filter = value == "2",
                "CoreDumping" => status.core_dumping = value == "1",
                _ => {}
            }
        }
        status
    }
}

/// The path in the cgroup v2 hierarchy, which is number 0; without one that of the first line.
pub(super) fn cgroup(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let path = |line: &str| line.splitn(3, ':').nth(2).map(str::to_owned);
    text.lines()
        .find(|line| line.starts_with("0::"))
        .or(text.lines().next())
        .and_then(path)
}

/// The inode in what a link of /proc/PID/fd says: `socket:[123]`.
pub(super) fn socket_inode(link: &[u8]) -> Option<u64> {
    let number = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAIL: &str = " S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 999 1 2 3";

    #[test]
    fn comm_may_hold_anything() {
        for comm in ["bash", "a) R 1 (b", "x\n1 (y) Z 2", "", ")", "("] {
            let stat = Stat::parse(format!("42 ({comm}){TAIL}\n").as_bytes()).unwrap();
            assert_eq!(stat.comm, comm);
            assert_eq!((stat.state, stat.parent, stat.start_ticks), ('S', 7, 123_456));
            assert!(!stat.is_kernel_thread() && !stat.is_zombie());
        }
        let kernel = TAIL.replace("4194560", "69238880");
        assert!(
            Stat::parse(format!("2 (kthreadd){kernel}").as_bytes())
                .unwrap()
                .is_kernel_thread()
        );
        assert_eq!(Stat::parse(b"42 (short) S 1"), None);
    }

    #[test]
    fn status_gives_the_innermost_pid() {
        let text = b"Name:\ta\\nNSpid:\t9\nTgid:\t42\nPid:\t43\nNSpid:\t4242\t77\t7\n\
            FDSize:\t256\nCapEff:\t000001fffeffffff\nCapBnd:\t0000000000000004\nSeccomp:\t2\nSeccomp_filters:\t1\n\
            CoreDumping:\t1\n";
        let status = Status::parse(text);
        assert_eq!(status.tgid, Some(42));
        assert_eq!(status.ns_pid, Some(7));
        assert_eq!(status.descriptor_slots, Some(256));
        assert_eq!(status.effective_capabilities, Some(0x1ff_feff_ffff));
        assert_eq!(status.bounding_capabilities, Some(4));
        assert!(status.core_dumping && status.seccomp_filter);
        assert_eq!(Status::parse(b"\xff\xfe"), Status::default());
    }

    #[test]
    fn cgroup_prefers_the_second_version() {
        let hybrid = b"4:memory:/jobs:1\n1:name=systemd:/\n0::/system.slice/x.service\n";
        assert_eq!(cgroup(hybrid).unwrap(), "/system.slice/x.service");
        assert_eq!(cgroup(b"4:memory:/jobs:1\n1:cpu:/\n").unwrap(), "/jobs:1");
        assert_eq!(cgroup(b""), None);
    }

    #[test]
    fn only_sockets_have_a_socket_inode() {
        assert_eq!(socket_inode(b"socket:[123]"), Some(123));
        assert_eq!(socket_inode(b"pipe:[123]"), None);
        assert_eq!(socket_inode(b"socket:[]"), None);
        assert_eq!(socket_inode(b"socket:[123] (deleted)"), None);
    }

    proptest! {
        #[test]
        fn hostile_texts_never_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Stat::parse(&text), Status::parse(&text), cgroup(&text), socket_inode(&text));
        }
    }
}
