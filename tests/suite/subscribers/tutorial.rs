//! README's chapters that are followed by hand, followed here: its files are written, its commands run, and what it
//! shows as their output is what comes, in a fresh folder and against a fresh service.
//!
//! What is executed stands in README between `<!-- name:begin -->` and `<!-- name:end -->`, in fenced blocks:
//! - `sh`: commands, each of which has to succeed;
//! - `console`: after each `$ ` a command, and then what it prints. Times of day and durations may differ, and the order
//!   of lines; what only comes to be true after a moment is asked for again;
//! - any other: a file, whose path is the last thing between backticks before the block.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;
use std::{env, os::unix};

use cdc_tests::harness::{Data, Launch, PATIENCE, Server, cdc, repository};
use serde_json::Value;

use super::status;

/// A fenced block.
struct Block {
    language: String,
    /// The last thing between backticks before it.
    named: String,
    text: String,
}

fn readme() -> String {
    fs::read_to_string(repository().join("README.md")).unwrap()
}

/// The fenced blocks of a part of README.
fn blocks(part: &str) -> Vec<Block> {
    let readme = readme();
    let (_, rest) = readme.split_once(&format!("<!-- {part}:begin -->\n")).expect("README has the part");
    let (text, _) = rest.split_once(&format!("<!-- {part}:end -->")).expect("the part has an end");
    let mut blocks = Vec::new();
    let mut before = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            before = format!("{before}{line}\n");
            continue;
        };
        let named = before.rsplit('`').nth(1).unwrap_or_default().to_owned();
        let text: String = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        blocks.push(Block { language: language.to_owned(), named, text });
        before.clear();
    }
    assert!(!blocks.is_empty(), "{part} has no blocks");
    blocks
}

/// Commands with the output that README shows below each.
fn commands(text: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut goes_on = false;
    for line in text.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((format!("{command}\n"), String::new())),
            (None, Some((command, _))) if goes_on => command.push_str(&format!("{line}\n")),
            (None, Some((_, output))) => output.push_str(&format!("{line}\n")),
            (None, None) => panic!("output before the first command: {line}"),
        }
        // As in a shell: what ends in a backslash or a pipe is not the end of the command.
        goes_on = (goes_on || line.starts_with("$ ")) && (line.ends_with('\\') || line.ends_with('|'));
    }
    commands
}

/// Output without what differs from run to run: times of day (13 digits), durations, and the order of lines.
fn comparable(output: &str) -> String {
    let is_part = |c: &char| c.is_ascii_digit() || *c == '.';
    let mut masked = String::new();
    let mut rest = output;
    while let Some(next) = rest.chars().next() {
        let number: String = rest.chars().take_while(is_part).collect();
        let after = &rest[number.len()..];
        let is_duration = after.starts_with(" ms") || after.starts_with(" µs");
        if number.is_empty() {
            masked.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            masked.push_str(if number.len() == 13 || is_duration { "…" } else { &number });
            rest = after;
        }
    }
    let mut lines: Vec<&str> = masked.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// A reader of README: a folder, a shell, and a service.
struct Reader {
    folder: Data,
    server: Server,
    path: std::ffi::OsString,
}

impl Reader {
    /// One who has installed these programs.
    fn new(installed: &[PathBuf]) -> Self {
        let folder = Data::new();
        fs::create_dir_all(folder.beside("work")).unwrap();
        // Whoever reads sees that a request is refused; a shell does not, unless it is told so.
        fs::write(folder.beside(".curlrc"), "silent\nshow-error\nfail-with-body\n").unwrap();
        let own = env::var_os("PATH").unwrap_or_default();
        let folders = [cdc().parent().unwrap().to_owned()].into_iter().chain(installed.iter().cloned());
        let path = env::join_paths(folders.chain(env::split_paths(&own))).unwrap();
        Self { server: Launch::new().start(), folder, path }
    }

    fn work(&self) -> PathBuf {
        self.folder.beside("work")
    }

    fn run(&self, commands: &str) -> Result<String, String> {
        let commands = commands.replace("localhost:8002", &self.server.address().to_string());
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &commands]).current_dir(self.work());
        bash.env("PATH", &self.path).env("CURL_HOME", self.folder.beside(".curlrc").parent().unwrap());
        // What the build of these tests was told is not what a reader's build is told.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("CARGO_") && name != "CARGO_HOME" || name == "RUSTFLAGS" {
                bash.env_remove(name);
            }
        }
        let done = bash.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&done.stdout), text(&done.stderr));
        if done.status.success() { Ok(out) } else { Err(format!("{commands}{}\n{out}{err}", done.status)) }
    }

    /// Does what a part of README says.
    fn follow(&self, part: &str) {
        for block in blocks(part) {
            match block.language.as_str() {
                "sh" => drop(self.run(&block.text).unwrap_or_else(|failure| panic!("{part}: {failure}"))),
                "console" => commands(&block.text).iter().for_each(|(command, shown)| self.compare(command, shown)),
                _ => {
                    let file = self.work().join(&block.named);
                    fs::create_dir_all(file.parent().unwrap()).unwrap();
                    fs::write(file, block.text).unwrap();
                }
            }
        }
    }

    fn compare(&self, command: &str, shown: &str) {
        let only_reads = !command.contains("-X");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let came = self.run(command).unwrap_or_else(|failure| panic!("{failure}"));
            if comparable(&came) == comparable(shown) {
                return;
            }
            let may_change = only_reads && Instant::now() < deadline;
            assert!(may_change, "$ {command}came:\n{came}\nREADME shows:\n{shown}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    fn writes_a_filter(&self, language: &str) {
        self.follow("filter-begin");
        self.follow(&format!("filter-{language}"));
        self.follow("filter-run");
        let status = status(&self.server, "paid-orders");
        assert_eq!(status["sinceStart"]["delivered"], 1, "{status}");
        assert_eq!(status["sinceStart"]["filteredByComponent"], 1, "{status}");
    }
}

/// A folder of `target/guests-tools`, where `tests/run` installs what README tells people to install.
fn tools(folder: &str) -> PathBuf {
    let tools = repository().join("target/guests-tools").join(folder);
    assert!(tools.is_dir(), "{} is not there: `tests/run` installs it", tools.display());
    tools
}

fn says(text: &str) {
    assert!(readme().contains(text), "README should say {text}");
}

#[test]
fn the_five_minutes_show_what_comes() {
    Reader::new(&[]).follow("tour");
}

#[test]
fn a_filter_in_rust_from_an_empty_folder() {
    let reader = Reader::new(&[]);
    // The versions that the other guests are pinned to, and what was compiled of them: a test does not depend on what
    // has been published today.
    fs::copy(repository().join("tests/guests/rust/Cargo.lock"), reader.work().join("Cargo.lock")).unwrap();
    let built = repository().join("target/guests/build");
    fs::create_dir_all(&built).unwrap();
    unix::fs::symlink(built, reader.work().join("target")).unwrap();
    // The toolchain that the tests are sure to have, with the target that README tells people to add.
    fs::copy(repository().join("rust-toolchain.toml"), reader.work().join("rust-toolchain.toml")).unwrap();
    reader.writes_a_filter("rust");
}

#[test]
fn a_filter_in_javascript_from_an_empty_folder() {
    let pinned = fs::read_to_string(repository().join("tests/guests/javascript/package.json")).unwrap();
    let pinned: Value = serde_json::from_str(&pinned).unwrap();
    let jco = "@bytecodealliance/jco";
    says(&format!("npm install --global {jco}@{}", pinned["devDependencies"][jco].as_str().unwrap()));
    Reader::new(&[tools("javascript/node_modules/.bin")]).writes_a_filter("javascript");
}

#[test]
fn a_filter_in_python_from_an_empty_folder() {
    let pinned = fs::read_to_string(repository().join("tests/guests/python/requirements.txt")).unwrap();
    says(&format!("pip install {}", pinned.trim()));
    Reader::new(&[tools("python/bin")]).writes_a_filter("python");
}

/// The definition that README shows in full means the same in JSON and in TOML, and every member of it is known.
#[test]
fn the_definition_in_full_is_one_in_json_and_in_toml() {
    let blocks = blocks("subscription");
    let of = |language: &str| &blocks.iter().find(|block| block.language == language).expect("it is shown").text;
    let server = Launch::new().option("--builtin-subscribers", "none").start();
    for (world, name) in [("noop-filter", "paid"), ("noop", "mailer")] {
        super::upload(&server, name, &cdc_tests::guests::rust(world)).expect(200);
    }
    server.put("/subscriptions/mail", of("json")).expect(200);
    let called = status(&server, "mail")["definition"].clone();
    let asked: Value = serde_json::from_str(of("json")).unwrap();
    let all = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(all(&asked), all(&called), "README shows every member, in the service's order");

    let data = Data::new();
    for world in ["noop-filter", "noop"] {
        fs::copy(cdc_tests::guests::rust(world), data.beside(&format!("{world}.wasm"))).unwrap();
    }
    let toml = of("toml").replace("paid.wasm", "noop-filter.wasm").replace("mailer.wasm", "noop.wasm");
    let file = data.beside("cdc.toml");
    fs::write(&file, toml).unwrap();
    let server = Launch::new().on(&data).option("--config", file.display()).start();
    let declared = status(&server, "mail")["definition"].clone();
    assert_eq!(declared, called);
}
