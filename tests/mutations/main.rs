//! Whether the simulator would notice: each mutation breaks one rule of the election on purpose, and must be caught by the
//! schedules that the unchanged election passes.
//!
//! A mutation replaces a text that is in the source exactly once, so none goes stale unseen. The election is compiled apart,
//! with nothing around it, and so needs no hook for this.

mod list;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use list::{MUTATIONS, Mutation};

const SEEDS: &str = "600";
const LIBRARY: &str = "pub mod election;\npub mod router;\npub use router::{State, VirtualAddress};\n";

#[test]
fn every_mutation_is_caught() {
    let unchanged = simulate(&sources(None), "unchanged");
    assert!(unchanged.status.success(), "the unchanged election breaks a law:\n{}", text(&unchanged));

    let waiting = Mutex::new(MUTATIONS.iter().enumerate());
    let missed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let next = || waiting.lock().unwrap().next();
                while let Some((number, mutation)) = next() {
                    let outcome = simulate(&sources(Some(mutation)), &number.to_string());
                    match caught_by(&outcome) {
                        Some(law) => println!("{}: {law}", mutation.what),
                        None => missed.lock().unwrap().push(format!("{}: {}", mutation.what, text(&outcome))),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n"));
}

/// The election and what it is made of: path and text, with one of them changed.
fn sources(mutation: Option<&Mutation>) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("ha/src");
    let parts = fs::read_dir(root.join("election")).unwrap().map(Result::unwrap);
    // The folder in it holds tests.
    let parts = parts.filter(|part| part.file_type().unwrap().is_file());
    let mut files: Vec<_> = parts.map(|part| Path::new("election").join(part.file_name())).collect();
    files.extend(["election.rs".into(), "router.rs".into()]);
    let mut sources: Vec<_> =
        files.into_iter().map(|file| (file.clone(), fs::read_to_string(root.join(file)).unwrap())).collect();
    for (file, text) in &mut sources {
        if file == Path::new("router.rs") {
            *text = without_serde(text);
        }
        if let Some(Mutation { what, file: changed, from, to }) = mutation
            && file == Path::new(changed)
        {
            assert_eq!(text.matches(from).count(), 1, "{what}: not exactly once in {changed}: {from}");
            *text = text.replace(from, to);
        }
    }
    sources.push(("lib.rs".into(), LIBRARY.into()));
    sources
}

/// The election needs no serialization, and so no crate but the standard library.
fn without_serde(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.contains("serde"));
    lines.map(|line| line.replace(", Serialize, Deserialize", "") + "\n").collect()
}

fn simulate(sources: &[(PathBuf, String)], name: &str) -> Output {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutations").join(name);
    fs::create_dir_all(directory.join("election")).unwrap();
    for (file, text) in sources {
        fs::write(directory.join(file), text).unwrap();
    }
    let library = directory.join("librelevo_ha.rlib");
    let simulator = directory.join("simulator");
    compile(&["--crate-type", "rlib", "--crate-name", "relevo_ha"], &directory.join("lib.rs"), &library);
    let external = format!("relevo_ha={}", library.display());
    let simulation = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simulation/main.rs");
    compile(&["--test", "--crate-name", "simulation", "--extern", &external], &simulation, &simulator);
    let outcome = Command::new(simulator)
        .args(["--exact", "every_schedule_keeps_the_laws"])
        .env_remove("RELEVO_SEED")
        .env("RELEVO_SEEDS", SEEDS)
        .output()
        .unwrap();
    fs::remove_dir_all(directory).unwrap();
    outcome
}

fn compile(arguments: &[&str], source: &Path, output: &Path) {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let compiled = Command::new(rustc)
        .args(["--edition", "2024", "-C", "debuginfo=0", "--cap-lints", "allow"])
        .args(arguments)
        .arg("-o")
        .arg(output)
        .arg(source)
        .output()
        .expect("rustc can be run: it made this test");
    assert!(compiled.status.success(), "{}:\n{}", source.display(), text(&compiled));
}

/// The law that a mutation broke, if it broke one. A simulator that crashed or hung has caught nothing.
fn caught_by(outcome: &Output) -> Option<String> {
    let text = text(outcome);
    let law = text.lines().find(|line| line.starts_with("seed "))?;
    (!outcome.status.success()).then(|| law.to_owned())
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
