//! What `/proc/PID/fdinfo` tells of BPF objects, as text.

/// The value of `name:` in a file of fdinfo.
pub fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let of_line = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    text.lines().find_map(of_line).map(str::trim)
}

/// The same as a number.
pub fn number(text: &str, name: &str) -> Option<u64> {
    value(text, name)?.parse().ok()
}

/// A loaded program (`bpf_prog_show_fdinfo`, kernel/bpf/syscall.c).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Program {
    pub id: u64,
    /// Time in the program, in nanoseconds, with one reading of the clock.
    pub run_time_ns: u64,
    pub runs: u64,
    /// How often the kernel skipped it, because it interrupted itself (5.12 and later).
    pub misses: u64,
}

impl Program {
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self {
            id: number(text, "prog_id")?,
            run_time_ns: number(text, "run_time_ns")?,
            runs: number(text, "run_cnt")?,
            misses: number(text, "recursion_misses").unwrap_or(0),
        })
    }
}

/// What a program is attached by: the program's id and the tracepoint.
pub fn link(text: &str) -> Option<(u64, &str)> {
    value(text, "link_type")?;
    Some((number(text, "prog_id")?, value(text, "tp_name")?))
}

/// A map (`bpf_map_show_fdinfo`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    pub id: u64,
    /// Bytes that the map takes in the kernel.
    pub memory: u64,
}

impl Map {
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self {
            id: number(text, "map_id")?,
            memory: number(text, "memlock")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_program() {
        let text = "pos:\t0\nprog_type:\t26\nprog_jited:\t1\nprog_tag:\tc89482bf09319392\nmemlock:\t4096\n\
                    prog_id:\t189110\nrun_time_ns:\t1234\nrun_cnt:\t12\nrecursion_misses:\t3\nverified_insns:\t123\n";
        let program = Program {
            id: 189_110,
            run_time_ns: 1234,
            runs: 12,
            misses: 3,
        };
        assert_eq!(Program::parse(text), Some(program));
        assert_eq!(Program::parse("pos:\t0\n"), None);
        assert_eq!(link(text), None);
    }

    #[test]
    fn reads_a_link() {
        let text = "link_type:\traw_tracepoint\nlink_id:\t7\nprog_tag:\tc8\nprog_id:\t9\ntp_name:\tsched_process_exit\n";
        assert_eq!(link(text), Some((9, "sched_process_exit")));
        assert_eq!(link("link_type:\titer\nprog_id:\t9\n"), None);
    }

    #[test]
    fn reads_a_map() {
        let text = "map_type:\t1\nkey_size:\t24\nvalue_size:\t176\nmax_entries:\t10240\nmemlock:\t918544\nmap_id:\t5\n";
        let map = Map {
            id: 5,
            memory: 918_544,
        };
        assert_eq!(Map::parse(text), Some(map));
    }
}
