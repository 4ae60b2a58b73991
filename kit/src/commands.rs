//! Running other programs: with a bound on the time where they may hang.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Runs a command that may take as long as it takes, with its output going where ours goes.
///
/// # Errors
/// It cannot be started, or fails.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", describe(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", describe(command));
    }
    Ok(())
}

/// Runs a command that says itself what is wrong, and returns whether it succeeded.
///
/// # Errors
/// It cannot be started.
pub fn succeeds(command: &mut Command) -> Result<bool> {
    let status = command.status().with_context(|| format!("cannot run {}", describe(command)))?;
    Ok(status.success())
}

/// Runs a command and returns what it printed, trimmed.
///
/// # Errors
/// It cannot be started, fails, or prints what is not UTF-8.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", describe(command)))?;
    if !output.status.success() {
        bail!("{} ended with {}", describe(command), output.status);
    }
    let text = String::from_utf8(output.stdout).context("a command printed something that is not UTF-8")?;
    Ok(text.trim().to_owned())
}

/// Runs a command that may hang; after `limit` it and all it started are killed. `Ok(false)`: it failed or was killed.
///
/// # Errors
/// It cannot be started.
pub fn succeeds_within(limit: Duration, command: &mut Command) -> Result<bool> {
    let mut child = command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {}", describe(command)))?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() >= deadline {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    // The command's own children hold its place in the group: killing only the first would leave them behind.
    let group = format!("-{}", child.id());
    let killed = Command::new("kill").args(["-KILL", "--", &group]).status();
    if !killed.is_ok_and(|status| status.success()) {
        child.kill()?;
    }
    child.wait()?;
    Ok(false)
}

/// Whether a program can be started at all.
pub fn exists(program: &str) -> bool {
    let started = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    started.is_ok()
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    format!("`{}`", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hanging_command_is_killed_with_its_children() {
        let started = Instant::now();
        // The shell waits for a child of its own, and both hold our pipe open: output() returns only when both are gone.
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & wait"]);
        let ended = succeeds_within(Duration::from_millis(100), &mut command).unwrap();
        assert!(!ended);
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn success_and_failure_are_told_apart() {
        let minute = Duration::from_secs(60);
        assert!(succeeds_within(minute, &mut Command::new("true")).unwrap());
        assert!(!succeeds_within(minute, &mut Command::new("false")).unwrap());
        assert!(succeeds_within(minute, &mut Command::new("no-such-program-anywhere")).is_err());
    }
}
