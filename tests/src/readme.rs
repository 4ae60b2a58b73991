//! The commands that a README shows, with what they print: every example is run as its page says.

/// A command line and the lines shown under it.
#[derive(Debug, Eq, PartialEq)]
pub struct Shown {
    /// The command, as typed.
    pub command: String,
    /// The lines it is shown to print.
    pub output: Vec<String>,
}

/// All commands in the ```console blocks of a page: lines that start with `$ `, and the output below each of them.
pub fn shown_commands(page: &str) -> Vec<Shown> {
    let mut shown: Vec<Shown> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let (true, Some(command)) = (inside, line.strip_prefix("$ ")) {
            shown.push(Shown { command: command.to_owned(), output: Vec::new() });
        } else if let (true, Some(last)) = (inside, shown.last_mut()) {
            last.output.push(line.to_owned());
        }
    }
    shown
}
