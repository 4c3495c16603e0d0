//! The registry as a real process: how it ends.

use meshwork_fixture::{Program, expect_refused_flags};

const PROGRAM: &str = env!("CARGO_BIN_EXE_meshwork-registry");

#[test]
fn sigterm_ends_it_in_order() {
    let mut registry = Program::start(PROGRAM, &["--listen", "127.0.0.1:0"]);
    registry.wait_for("registry is ready on 127.0.0.1:");
    registry.terminate();
    assert_eq!(registry.end(), Some(0));
}

#[test]
fn a_flag_that_cannot_be_used_is_one_line_and_exit_code_2() {
    expect_refused_flags(PROGRAM, &["--listen", "0.0.0.0:0"], "--insecure");
    for mode in ["permissive", "strict"] {
        expect_refused_flags(PROGRAM, &["--listen", "127.0.0.1:0", "--tls-mode", mode], "--policy-file FILE");
    }
    expect_refused_flags(PROGRAM, &["--grace", "soon"], "'soon' for '--grace");
    expect_refused_flags(PROGRAM, &["--grace", "4294967295m"], "0s-1h");
}
