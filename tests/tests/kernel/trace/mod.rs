//! What a trace says of a crash.

mod advice;
mod attaching;
mod children;
mod closing;
pub mod complete;
pub mod core_dumps;
pub mod countdown;
mod deaths;
mod endings;
mod families;
mod half_closed;
mod holder_search;
pub mod holders;
mod kernel_held;
mod leftovers;
mod many_moments;
pub mod moments;
mod mptcp;
mod namespace_ends;
mod passing;
mod recording_files;
mod recordings;
mod releasing;
mod reset_reasons;
mod reused_memory;
mod segments;
mod shared_tables;
mod signals;
mod tcp_options;
mod text;
mod threads;
mod time_namespaces;
mod trace_ends;
mod waiting;

use libtest_mimic::Trial;

pub fn tests() -> Vec<Trial> {
    let tests = [
        advice::tests(),
        attaching::tests(),
        children::tests(),
        closing::tests(),
        complete::tests(),
        core_dumps::tests(),
        countdown::tests(),
        deaths::tests(),
        endings::tests(),
        families::tests(),
        half_closed::tests(),
        holder_search::tests(),
        holders::tests(),
        kernel_held::tests(),
        leftovers::tests(),
        many_moments::tests(),
        moments::tests(),
        mptcp::tests(),
        namespace_ends::tests(),
        passing::tests(),
        recording_files::tests(),
        recordings::tests(),
        releasing::tests(),
        reset_reasons::tests(),
        reused_memory::tests(),
        segments::tests(),
        shared_tables::tests(),
        signals::tests(),
        tcp_options::tests(),
        text::tests(),
        threads::tests(),
        time_namespaces::tests(),
        trace_ends::tests(),
        waiting::tests(),
    ];
    tests.into_iter().flatten().collect()
}
