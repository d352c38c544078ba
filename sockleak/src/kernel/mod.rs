//! The only door to the kernel.

mod batch;
pub mod btf;
pub mod clock;
pub mod decode;
pub mod fields;
mod globals;
mod large_maps;
pub mod load;
pub mod loader;
pub mod local_ports;
pub mod netns;
pub mod page;
pub mod pidfd;
pub mod port_table;
pub mod preemption;
pub mod preflight;
pub mod proc;
pub mod running;
pub mod sock_diag;
pub mod spawn;
pub mod stage;
pub mod tables;
pub mod terminal;
pub mod time_wait;
pub mod tracepoint;
pub mod translate;
pub mod wait;
