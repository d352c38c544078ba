//! Whether a port can be had: in a report, by `port`, and by `wait`.

mod differential;
mod ephemeral;
mod exhausted_ports;
mod port_table;
mod port_waits;
mod ports;
mod restarting;
mod terms;

use libtest_mimic::Trial;

pub fn tests() -> Vec<Trial> {
    let tests = [
        differential::tests(),
        ephemeral::tests(),
        exhausted_ports::tests(),
        port_table::tests(),
        port_waits::tests(),
        ports::tests(),
        restarting::tests(),
        terms::tests(),
    ];
    tests.into_iter().flatten().collect()
}
