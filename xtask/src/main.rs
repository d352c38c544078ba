//! What a contributor types: `cargo xtask run`, `test`, `bench`, `bpf`, `contract`, `imports`, `mutations`, `recordings`, `verifier`,
//! `setup`.

mod bench;
mod bpf;
mod cargo;
mod contract;
mod imports;
mod matrix;
mod mutations;
#[path = "../../sockleak-kernel/bpf/record.rs"]
mod record;
#[expect(dead_code, reason = "tests compare what is printed")]
#[path = "../../tests/src/recordings.rs"]
mod recorded;
mod recordings;
mod run;
mod setup;
mod shell;
mod test;
mod toolchain;
mod verifier;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "a running kernel is for the integration tests")
)]
#[path = "../../sockleak-kernel/bpf/verifier.rs"]
mod verifier_table;

use std::process::ExitCode;

use clap::Parser;

/// Builds, runs and tests sockleak.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Verb {
    /// Build sockleak in release mode and run it as root, through sudo if needed.
    Run(run::Options),
    /// Run every test: unit and property tests as the caller, then the integration tests as root.
    Test(test::Options),
    /// Measure sockleak beside its peers, as root.
    Bench(bench::Options),
    /// Rebuild the committed BPF object and the record of what it was built from.
    Bpf(bpf::Options),
    /// Write sockleak-kernel/bpf/verifier.txt: what each program costs the verifier of each kernel of the matrix.
    Verifier(verifier::Options),
    /// Write the texts of `contract/` anew: help, JSON schema, ids and exit statuses.
    Contract(contract::Options),
    /// Write tests/recordings: the same deaths on each kernel of the matrix, and what a replay says of them.
    Recordings(recordings::Options),
    /// Break the rule for bind() line by line, in a copy, and see the tests find it.
    Mutations(mutations::Options),
    /// Find circles of imports between the files of a crate.
    Imports,
    /// Install what `cargo xtask bpf` needs: a Rust that can build for BPF, LLVM and bpf-linker.
    Setup,
}

fn main() -> ExitCode {
    let done = match Verb::parse() {
        Verb::Run(options) => run::run(&options),
        Verb::Test(options) => test::run(&options, None),
        Verb::Bench(options) => bench::run(&options),
        Verb::Bpf(options) => bpf::run(&options),
        Verb::Verifier(options) => verifier::run(&options),
        Verb::Contract(options) => contract::run(&options),
        Verb::Recordings(options) => recordings::run(&options),
        Verb::Mutations(options) => mutations::run(&options),
        Verb::Imports => imports::run(),
        Verb::Setup => setup::bpf_toolchain(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Verb::command().debug_assert();
    }

    #[test]
    fn bench_passes_on_everything() {
        let args = ["--smoke", "--json", "FILE", "--help"];
        let Ok(Verb::Bench(options)) = Verb::try_parse_from([&["xtask", "bench"], &args[..]].concat()) else {
            panic!("it did not parse as `bench`");
        };
        assert_eq!(options.args, args);
    }

    #[test]
    fn run_passes_on_everything_after_the_first_dashes() {
        let parse = |args: &[&str]| match Verb::try_parse_from([&["xtask", "run"], args].concat()) {
            Ok(Verb::Run(options)) => options.args,
            _ => panic!("{args:?} did not parse as `run`"),
        };
        assert_eq!(parse(&[]), [""; 0]);
        assert_eq!(parse(&["--", "--pid", "1"]), ["--pid", "1"]);
        assert_eq!(parse(&["--", "--", "ls", "--", "-l"]), ["--", "ls", "--", "-l"]);
        assert_eq!(parse(&["--", "--help"]), ["--help"]);
    }
}
