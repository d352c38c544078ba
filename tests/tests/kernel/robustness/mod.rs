//! Hostile surroundings: rights, limits, losses, wrong input.

mod bounded;
mod command_line;
mod host_limits;
mod losses;
mod obstacles;
mod out_of_memory;
pub mod refusals;
mod rights;
pub mod verifier;

use libtest_mimic::Trial;

pub fn tests() -> Vec<Trial> {
    let tests = [
        bounded::tests(),
        command_line::tests(),
        host_limits::tests(),
        losses::tests(),
        obstacles::tests(),
        out_of_memory::tests(),
        refusals::tests(),
        rights::tests(),
        verifier::tests(),
    ];
    tests.into_iter().flatten().collect()
}
