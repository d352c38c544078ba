use std::time::Instant;

use aya_obj::btf::BtfKind;
use proptest::prelude::*;

use super::{Btf, BtfError, Ids, Member, MissingMember};

/// Writes BTF, as a compiler would. Type ids count from 1 in the order of the calls.
#[derive(Default)]
struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Writer {
    fn new() -> Self {
        Self {
            strings: vec![0],
            ..Self::default()
        }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let offset = self.strings.len() as u32;
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        offset
    }

    fn words(&mut self, words: &[u32]) {
        for word in words {
            self.types.extend_from_slice(&word.to_ne_bytes());
        }
    }

    fn record(&mut self, name: &str, kind: u32, vlen: usize, flag: bool, size_or_type: u32) -> u32 {
        let name = self.name(name);
        self.words(&[
            name,
            u32::from(flag) << 31 | kind << 24 | vlen as u32,
            size_or_type,
        ]);
        self.count += 1;
        self.count
    }

    fn int(&mut self, name: &str, size: u32, offset: u32, bits: u32) -> u32 {
        let id = self.record(name, 1, 0, false, size);
        self.words(&[offset << 16 | bits]);
        id
    }

    fn array(&mut self, element: u32, index: u32, count: u32) -> u32 {
        let id = self.record("", 3, 0, false, 0);
        self.words(&[element, index, count]);
        id
    }

    /// A struct (kind 4) or union (kind 5) of members (name, type, offset word).
    fn aggregate(
        &mut self,
        kind: u32,
        name: &str,
        size: u32,
        flag: bool,
        members: &[(&str, u32, u32)],
    ) -> u32 {
        let id = self.record(name, kind, members.len(), flag, size);
        for (name, type_id, offset) in members {
            let name = self.name(name);
            self.words(&[name, *type_id, *offset]);
        }
        id
    }

    fn finish(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&0xeb9f_u16.to_ne_bytes());
        out.extend_from_slice(&[1, 0]);
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [24, 0, types, types, strings] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        out.extend_from_slice(&self.types);
        out.extend_from_slice(&self.strings);
        out
    }
}

/// Every kind of type, with the shapes that the kernel's structs have.
fn sample() -> Vec<u8> {
    let mut w = Writer::new();
    let int = w.int("unsigned int", 4, 0, 32);
    let byte = w.int("unsigned char", 1, 0, 8);
    let nibble = w.int("unsigned char", 1, 4, 3);
    let pointer = w.record("", 2, 0, false, 0);
    let volatile = w.record("", 9, 0, false, byte);
    let constant = w.record("", 10, 0, false, volatile);
    let tag = w.record("rcu", 18, 0, false, constant);
    let typedef = w.record("state_t", 8, 0, false, tag);
    let name = w.array(byte, int, 16);
    let inner_union = w.aggregate(5, "", 4, false, &[("daddr", int, 0), ("hash", int, 0)]);
    let inner_const = w.record("", 10, 0, false, inner_union);
    let inner = w.aggregate(4, "", 8, false, &[("num", int, 0), ("", inner_const, 32)]);
    let ns = w.aggregate(4, "ns_common", 8, false, &[("count", int, 0), ("inum", int, 32)]);
    let ns_typedef = w.record("ns_t", 8, 0, false, ns);
    let ns_array = w.array(ns_typedef, int, 4);
    w.aggregate(4, "sock", 64, false, &[("other", int, 0)]);
    w.aggregate(
        4,
        "sock",
        64,
        true,
        &[
            ("", inner, 32),
            ("ns", ns_array, 128),
            ("reuse", byte, 4 << 24 | 384),
            ("reuseport", byte, 1 << 24 | 388),
            ("state", typedef, 392),
            ("comm", name, 400),
            ("file", pointer, 528),
        ],
    );
    w.aggregate(4, "old", 4, false, &[("flag", nibble, 8)]);
    let reason = w.record("reason", 6, 2, true, 4);
    let (none, minus) = (w.name("NONE"), w.name("MINUS"));
    w.words(&[none, 0, minus, -1_i32 as u32]);
    w.record("wide", 19, 1, false, 8);
    let wide = w.name("WIDE");
    w.words(&[wide, 5, 1]);
    let prototype = w.record("", 13, 3, false, 0);
    w.words(&[0, pointer, 0, pointer, 0, reason]);
    let probe = w.record("", 2, 0, false, prototype);
    w.record("btf_trace_sched_process_exit", 8, 0, false, probe);
    w.record("forward", 7, 0, false, 0);
    w.record("", 11, 0, false, pointer);
    let function = w.record("call", 12, 1, false, prototype);
    let variable = w.record("jiffies", 14, 0, false, int);
    w.words(&[1]);
    w.record(".data", 15, 1, false, 8);
    w.words(&[variable, 0, 8]);
    w.record("double", 16, 0, false, 8);
    w.record("bpf_kfunc", 17, 0, false, function);
    w.words(&[u32::MAX]);
    w.record("", 8, 0, false, w.count + 1);
    w.finish()
}

fn place(bit_offset: u32, bits: u32) -> Result<Member, MissingMember> {
    Ok(Member { bit_offset, bits })
}

#[test]
fn finds_members_where_the_compiler_put_them() {
    let btf = Btf::parse(&sample()).unwrap();
    assert_eq!(btf.member("sock", &["num"]), place(32, 32));
    assert_eq!(btf.member("sock", &["daddr"]), place(64, 32));
    assert_eq!(btf.member("sock", &["hash"]), place(64, 32));
    assert_eq!(btf.member("sock", &["ns", "inum"]), place(160, 32));
    assert_eq!(btf.member("sock", &["ns"]), place(128, 256));
    assert_eq!(btf.member("sock", &["reuse"]), place(384, 4));
    assert_eq!(btf.member("sock", &["reuseport"]), place(388, 1));
    assert_eq!(btf.member("sock", &["state"]), place(392, 8));
    assert_eq!(btf.member("sock", &["comm"]), place(400, 128));
    assert_eq!(btf.member("sock", &["file"]), place(528, 64));
    assert_eq!(btf.member("sock", &["other"]), place(0, 32));
    assert_eq!(btf.member("old", &["flag"]), place(12, 3));
}

#[test]
fn names_what_is_missing() {
    let btf = Btf::parse(&sample()).unwrap();
    let missing = |structure: &str, path: &[&str]| btf.member(structure, path).unwrap_err().to_string();
    assert_eq!(
        missing("tcp_sock", &["rcv_nxt"]),
        "the kernel's BTF has no struct tcp_sock"
    );
    assert_eq!(
        missing("state_t", &["x"]),
        "the kernel's BTF has no struct state_t"
    );
    assert_eq!(
        missing("sock", &["ns", "stashed", "d_inode"]),
        "the kernel's struct sock has no member ns.stashed"
    );
    assert_eq!(
        missing("sock", &["file", "f_inode"]),
        "the kernel's struct sock has no member file.f_inode"
    );
}

#[test]
fn counts_arguments_and_reads_enums() {
    let btf = Btf::parse(&sample()).unwrap();
    assert_eq!(btf.tracepoint_args("sched_process_exit"), Some(2));
    assert_eq!(btf.tracepoint_args("no_such_tracepoint"), None);
    assert_eq!(
        btf.enum_values("reason"),
        [("NONE".to_owned(), 0), ("MINUS".to_owned(), -1)]
    );
    assert_eq!(btf.enum_values("wide"), [("WIDE".to_owned(), (1 << 32) + 5)]);
    assert_eq!(btf.enum_values("sock"), []);
    assert_eq!(btf.size_of_struct("ns_common"), Some(8));
    assert_eq!(btf.size_of_struct("nothing"), None);
}

#[test]
fn ids_are_those_of_the_first_type_with_that_name() {
    let mut w = Writer::new();
    let int = w.int("call", 4, 0, 32);
    w.record("btf_trace_exit", 12, 0, false, int);
    let typedef = w.record("btf_trace_exit", 8, 0, false, int);
    w.record("btf_trace_exit", 8, 0, false, int);
    let function = w.record("call", 12, 0, false, int);
    w.record("call", 12, 0, false, int);
    let structure = w.record("call", 4, 0, false, 0);
    w.record("call", 4, 0, false, 0);
    let btf = Btf::parse(&w.finish()).unwrap();
    assert_eq!(btf.functions(["nothing", "call"]), [None, Some(function)]);
    assert_eq!(btf.tracepoint("exit"), Some(typedef));
    assert_eq!(btf.tracepoint("call"), None);
    assert_eq!(btf.id_of_struct("call"), Some(structure));
    assert_eq!(btf.id_of_struct("btf_trace_exit"), None);
}

#[test]
fn chosen_ids_are_found_by_their_names() {
    let mut ids = Ids::default();
    ids.add_function("call", Some(9));
    ids.add_tracepoint("exit", Some(1));
    ids.add_tracepoint("fork", Some(2));
    ids.add_tracepoint("missing", None);
    let btf = ids.to_btf();
    let found = |name, kind| btf.id_by_type_name_kind(name, kind).ok();
    assert_eq!(found("call", BtfKind::Func), Some(9));
    assert_eq!(found("call", BtfKind::Typedef), None);
    let tracepoints = ["btf_trace_exit", "btf_trace_fork", "btf_trace_missing", "exit"];
    assert_eq!(
        tracepoints.map(|name| found(name, BtfKind::Typedef)),
        [Some(1), Some(2), None, None]
    );
}

#[test]
fn says_why_bytes_are_not_btf() {
    assert!(matches!(Btf::parse(b"\x7fELF").unwrap_err(), BtfError::NoHeader));
    let good = sample();
    let broken = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Btf::parse(&bytes).unwrap_err()
    };
    assert!(matches!(broken(0, 0x7f), BtfError::Magic));
    assert!(matches!(broken(2, 2), BtfError::Version(2)));
    assert!(matches!(broken(15, 0x7f), BtfError::Section("type")));
    assert!(matches!(broken(23, 0x7f), BtfError::Section("string")));
    // The kind of the first type: byte 7 of its record.
    assert!(matches!(broken(24 + 7, 20), BtfError::Kind { id: 1, kind: 20 }));
    let mut swapped = good.clone();
    swapped.swap(0, 1);
    assert!(matches!(Btf::parse(&swapped).unwrap_err(), BtfError::ByteOrder));
}

#[test]
fn loops_and_nesting_end() {
    let mut w = Writer::new();
    // A typedef of itself, a struct that contains itself namelessly many times, an array of itself.
    w.record("loop", 8, 0, false, 1);
    w.aggregate(4, "nest", 4, false, &[("", 2, 1); 300]);
    w.array(3, 3, u32::MAX);
    w.aggregate(4, "holder", 4, false, &[("loop", 1, 0), ("array", 3, 0)]);
    let btf = Btf::parse(&w.finish()).unwrap();
    assert!(btf.member("nest", &["nothing"]).is_err());
    assert!(btf.member("holder", &["loop"]).is_err());
    assert!(btf.member("holder", &["array"]).is_err());
    assert!(btf.member("holder", &["array", "x"]).is_err());
    assert_eq!(btf.tracepoint_args("loop"), None);
}

fn ask_everything(btf: &Btf) {
    for path in [&["daddr"][..], &["ns", "inum"], &["reuse"], &["nothing"], &[]] {
        let _ = btf.member("sock", path);
    }
    let _ = btf.member("old", &["flag"]);
    let _ = btf.tracepoint_args("sched_process_exit");
    let _ = (btf.enum_values("reason"), btf.enum_values("wide"));
    let _ = btf.size_of_struct("sock");
    let _ = btf.functions(["call", "nothing"]);
    let _ = btf.tracepoint("sched_process_exit");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(btf) = Btf::parse(&bytes) {
            ask_everything(&btf);
        }
    }

    #[test]
    fn random_types_never_panic(bytes in proptest::collection::vec(any::<u32>(), 0..200)) {
        let mut w = Writer::new();
        w.words(&bytes);
        w.name("sock");
        if let Ok(btf) = Btf::parse(&w.finish()) {
            ask_everything(&btf);
        }
    }

    #[test]
    fn mutated_btf_never_panics(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sample();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(btf) = Btf::parse(&bytes) {
            ask_everything(&btf);
        }
        bytes.truncate(cut.index(bytes.len()));
        if let Ok(btf) = Btf::parse(&bytes) {
            ask_everything(&btf);
        }
    }
}

/// Its time is printed, not judged: the machine may be busy.
#[test]
#[ignore = "needs a kernel with BTF"]
fn reads_the_running_kernel() {
    let began = Instant::now();
    let btf = Btf::running().unwrap();
    eprintln!("read {} types in {:?}", btf.types.len(), began.elapsed());
    assert_eq!(btf.member("sock_common", &["skc_daddr"]), place(0, 32));
    assert_eq!(btf.member("task_struct", &["comm"]).unwrap().bits, 128);
    assert_eq!(btf.tracepoint_args("inet_sock_set_state"), Some(3));
    assert!(btf.functions(["bpf_iter_tcp"])[0].is_some());
    assert!(
        btf.enum_values("sock_flags")
            .contains(&("SOCK_DEAD".to_owned(), 0))
    );
}
