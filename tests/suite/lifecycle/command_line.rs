//! The commands as a newcomer tries them.

use std::process::Command;

use cdc_tests::harness::{Output, cdc};

fn run(arguments: &[&str]) -> Output {
    Output::of(Command::new(cdc()).args(arguments))
}

#[test]
fn help_names_every_command_and_option_with_its_default() {
    let help = run(&["--help"]).expect_success().stdout;
    for command in ["serve", "tail", "verify"] {
        assert!(help.contains(command), "{help}");
    }
    let help = run(&["serve", "--help"]).expect_success().stdout;
    for word in [
        "--listen",
        "127.0.0.1:8002",
        "--data",
        "cdc-data",
        "--config",
        "--durability",
        "--retention-events",
        "10000",
        "--retention-age",
        "--retention-bytes",
        "--schema",
        "CDC_LISTEN",
        "CDC_RETENTION_EVENTS",
    ] {
        assert!(help.contains(word), "{word} is not in: {help}");
    }
    assert!(run(&["--version"]).expect_success().stdout.starts_with("cdc "));
}

#[test]
fn without_a_command_it_helps_and_an_unknown_one_is_named() {
    let output = run(&[]);
    assert!(!output.status.success());
    assert!(format!("{}{}", output.stdout, output.stderr).contains("serve"));
    let output = run(&["sevre"]);
    assert!(!output.status.success());
    assert!(output.stderr.contains("sevre") && output.stderr.contains("serve"), "{}", output.stderr);
}
