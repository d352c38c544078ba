//! What others rely on, as the committed texts of `contract/`: this test makes them anew and compares.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use clap::{Command, CommandFactory as _};

use crate::commands::cli::Cli;
use crate::exit_status::ExitStatus;
use crate::output::schema;

/// Set by `cargo xtask contract`: the texts are written instead of compared.
const WRITE: &str = "SOCKLEAK_WRITE_CONTRACT";
/// Columns of the help texts.
const WIDTH: usize = 100;

/// The files by their path in `contract/`.
type Texts = BTreeMap<PathBuf, String>;

#[test]
fn the_contract_is_as_committed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contract");
    let committed = read(&folder);
    let made = make();
    if env::var_os(WRITE).is_some() {
        return write(&folder, &committed, &made);
    }
    let paths: BTreeSet<&PathBuf> = committed.keys().chain(made.keys()).collect();
    let differing: Vec<String> = paths
        .into_iter()
        .filter(|path| committed.get(*path) != made.get(*path))
        .map(|path| difference(path, committed.get(path), made.get(path)))
        .collect();
    assert!(
        differing.is_empty(),
        "what others rely on differs from what is committed:\n{}\nIf that is meant, `cargo xtask contract` writes it anew.",
        differing.join("\n")
    );
}

fn make() -> Texts {
    let schema = serde_json::to_string_pretty(&schema::line()).expect("it is JSON");
    let mut texts = Texts::from([
        ("schema.json".into(), schema + "\n"),
        ("ids.txt".into(), ids()),
        ("exit-statuses.txt".into(), exit_statuses()),
    ]);
    texts.extend(helps());
    texts
}

/// Every enumerated value.
fn ids() -> String {
    let mut text = "Every enumerated value of the JSON, below what it is a value of.\n".to_owned();
    for (name, words) in schema::enumerations() {
        let _ = writeln!(text, "\n[{name}]");
        text.extend(words.iter().map(|word| format!("{word}\n")));
    }
    text
}

/// Every exit status, and what it says.
fn exit_statuses() -> String {
    let mut statuses = schema::all::<ExitStatus>();
    statuses.sort_by_key(|status| status.code());
    let known = statuses.into_iter().map(|status| {
        let (verb, when) = meaning(status);
        (status.code().to_string(), verb, when)
    });
    let heading = ("STATUS".to_owned(), "VERB", "WHEN");
    let others = [
        (
            "own",
            "trace -- COMMAND",
            "COMMAND ran: its own, or 128+N if signal N killed it",
        ),
        (
            "128+N",
            "trace",
            "a second signal N ended sockleak before it was done",
        ),
    ];
    let others = others.map(|(status, verb, when)| (status.to_owned(), verb, when));
    let rows = [heading].into_iter().chain(known).chain(others);
    rows.map(|(status, verb, when)| format!("{status:<8}{verb:<20}{when}\n"))
        .collect()
}

/// The verb that ends with a status, and when.
const fn meaning(status: ExitStatus) -> (&'static str, &'static str) {
    match status {
        ExitStatus::Done => ("any", "it is done, or nobody reads stdout any more"),
        ExitStatus::LeftBehind => ("trace --exit-code", "something was left behind or is still held"),
        ExitStatus::WouldFail => ("port", "a restart would fail, or that cannot be told"),
        ExitStatus::TimedOut => (
            "wait",
            "the time was up before a restart would succeed, or waiting cannot help",
        ),
        ExitStatus::NotFreed => ("free --yes", "a leftover is still there"),
        ExitStatus::Refused => ("any", "wrong usage, or refused: stderr says why, and what to do"),
        ExitStatus::Unmet => ("check", "something that is required is missing"),
        ExitStatus::Failed => ("trace -- COMMAND", "sockleak failed before COMMAND ran"),
        ExitStatus::NotExecutable => ("trace -- COMMAND", "COMMAND could not be executed"),
        ExitStatus::NotFound => ("trace -- COMMAND", "COMMAND was not found"),
    }
}

/// The help texts of the program and of each verb.
fn helps() -> Texts {
    let mut program = Cli::command().term_width(WIDTH);
    program.build();
    let mut texts = help_of(&mut program);
    let verbs = program.get_subcommands_mut();
    texts.extend(verbs.filter(|verb| verb.get_name() != "help").flat_map(help_of));
    texts
}

fn help_of(command: &mut Command) -> Texts {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let name = name.replace(' ', "-");
    let texts = [
        ("short", command.render_help()),
        ("long", command.render_long_help()),
    ];
    texts
        .map(|(length, text)| (format!("help/{name}.{length}.txt").into(), text.to_string()))
        .into()
}

/// How a file is not as it was.
fn difference(path: &Path, committed: Option<&String>, made: Option<&String>) -> String {
    let path = path.display();
    let (Some(committed), Some(made)) = (committed, made) else {
        let what = if made.is_some() {
            "missing"
        } else {
            "no part of it any more"
        };
        return format!("contract/{path} is {what}");
    };
    let mut text = format!("contract/{path}");
    let (old, new): (Vec<&str>, Vec<&str>) = (committed.lines().collect(), made.lines().collect());
    for (sign, from, others) in [("-", &old, &new), ("+", &new, &old)] {
        for line in from.iter().filter(|line| !others.contains(line)).take(SHOWN) {
            let _ = write!(text, "\n  {sign} {line}");
        }
    }
    text
}

/// So many lines of a file are shown that are gone, and so many that are new.
const SHOWN: usize = 20;

/// The files that are there.
fn read(folder: &Path) -> Texts {
    let mut texts = Texts::new();
    for part in ["", "help"] {
        for entry in fs::read_dir(folder.join(part)).into_iter().flatten() {
            let path = entry.expect("the folder can be read").path();
            if path.is_file() {
                let text = fs::read_to_string(&path).expect("it is text");
                let inside = path.strip_prefix(folder).expect("it is in the folder");
                texts.insert(inside.to_owned(), text);
            }
        }
    }
    texts
}

fn write(folder: &Path, committed: &Texts, made: &Texts) {
    let change = || -> io::Result<()> {
        fs::create_dir_all(folder.join("help"))?;
        for path in committed.keys().filter(|path| !made.contains_key(*path)) {
            fs::remove_file(folder.join(path))?;
        }
        for (path, text) in made
            .iter()
            .filter(|(path, text)| committed.get(*path) != Some(*text))
        {
            fs::write(folder.join(path), text)?;
        }
        Ok(())
    };
    change().expect("the folder `contract` can be written");
}
