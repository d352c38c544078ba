//! Integration tests of sockleak: real crashes, judged by the kernel.
//!
//! A test runs in its own network namespace ([`sandbox`]), makes a real process with real sockets
//! ([`victim`]) whose peers live in the test process ([`peer`]), lets sockleak watch it ([`tracer`]),
//! and holds the report ([`report`]) against what the kernel says itself ([`judge`]).

pub mod binding;
pub mod bpf_maps;
pub mod cgroup;
pub mod death;
pub mod descriptors;
pub mod fdinfo;
pub mod file_capabilities;
pub mod file_size;
pub mod inventory;
pub mod io_uring;
pub mod judge;
pub mod limit;
pub mod lines;
pub mod mptcp;
pub mod net;
pub mod netlink;
pub mod netns;
pub mod peer;
pub mod pidfd;
pub mod programs;
pub mod raw_tcp;
pub mod record;
pub mod recordings;
pub mod report;
pub mod reused_pid;
pub mod rights;
pub mod sandbox;
pub mod seccomp;
pub mod service;
pub mod situation;
pub mod sock_destroy;
pub mod stopped;
pub mod time_namespace;
pub mod tracer;
#[path = "../../sockleak-kernel/bpf/verifier.rs"]
pub mod verifier;
pub mod victim;
