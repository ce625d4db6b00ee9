//! `aplomado demo` from outside: what it proves, how it ends, and that nothing of it is left.
//!
//! It takes namespaces where it is allowed them (as root they must be there) and says so where it is not.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_aplomado");
/// The demo itself takes some 20 seconds.
const PATIENCE: Duration = Duration::from_secs(90);
/// One demo at a time: each is a load of its own.
static ALONE: Mutex<()> = Mutex::new(());

#[expect(clippy::disallowed_methods, reason = "a test waits for another process, for so long at most")]
fn now() -> Instant {
    Instant::now()
}

/// A demo at work in a folder for its files.
struct Demo {
    child: Child,
    folder: TempDir,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let child = Command::new(PROGRAM)
            .arg("demo")
            .args(arguments)
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the program starts");
        Self { child, folder }
    }

    /// The processes that have something of the demo's folder in their command line: its servers.
    fn servers(&self) -> Vec<String> {
        let folder = self.folder.path().to_str().expect("UTF-8").to_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&folder) {
                found.push(line);
            }
        }
        found
    }

    /// Waits for the end: exit code and what was printed. Nothing may be left.
    fn ends(mut self) -> (Option<i32>, String) {
        let out = self.child.stdout.take().expect("piped");
        let reader = std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).collect::<Vec<_>>().join("\n")
        });
        let start = now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(now().duration_since(start) < PATIENCE, "the demo does not end by itself");
            std::thread::park_timeout(Duration::from_millis(50));
        };
        assert_eq!(self.servers(), Vec::<String>::new(), "servers are left");
        let left: Vec<_> = fs::read_dir(self.folder.path()).expect("the folder").collect();
        assert!(left.is_empty(), "files are left: {left:?}");
        (status.code(), reader.join().expect("it reads"))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Errors here mean that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn proves(arguments: &[&str], words: &[&str]) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (code, said) = Demo::start(arguments).ends();
    assert_eq!(code, Some(0), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in:\n{said}");
    }
    assert!(!said.contains('\x1b'), "no colours and cursors where there is no terminal:\n{said}");
}

const PROVED: &str =
    "no acknowledged lease was lost, no address was held twice, both databases are equal lease by lease";

#[test]
fn a_load_balancing_pair_keeps_what_it_acknowledged() {
    proves(
        &[],
        &["load-balancing pair", "two is partner-down, serves one two", "one is load-balancing", PROVED],
    );
}

#[test]
fn a_hot_standby_pair_keeps_what_it_acknowledged() {
    proves(
        &["--mode", "hot-standby"],
        &["hot-standby pair", "two is partner-down, serves one", "one is hot-standby, serves one", PROVED],
    );
}

#[test]
fn a_pair_without_namespaces_does_the_same_and_says_so() {
    proves(&["--without-namespaces"], &["NO packet sockets", "two is partner-down, serves one two", PROVED]);
}

#[test]
fn an_interrupted_demo_leaves_nothing_either() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut demo = Demo::start(&[]);
    let start = now();
    while demo.servers().len() < 2 {
        assert!(now().duration_since(start) < PATIENCE, "no servers");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let id = demo.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().is_ok_and(|status| status.success()));
    assert!(demo.child.try_wait().is_ok(), "it may take a moment");
    assert_eq!(demo.ends().0, Some(130));
}
