//! What air builds, and what it runs of that: the command, what it leaves, and how that is started.

use super::super::draft::{Row, Service};
use super::super::fields::{Fields, Said};
use super::super::project::tidy;
use super::super::shell::{Form, Line, joined};
use super::sources::Place;
use super::{in_a_row, line};
use crate::fault::Fault;

/// The folder that air builds into where nothing is said.
const TMP: &str = "tmp";

/// What it builds there.
fn usual(tmp: &str) -> String {
    match tmp.starts_with('/') {
        true => format!("{tmp}/main"),
        false => format!("./{tmp}/main"),
    }
}

/// What is run.
struct Run {
    /// The command line, as air has it for a shell.
    text: String,
    line: Line,
    /// Where it came from.
    why: String,
}

/// The command that builds, what it leaves, and what is run.
pub fn rows(
    fields: &mut Fields,
    place: &Place,
    tmp: Option<&Said<String>>,
    service: &mut Service,
) -> Result<(), Fault> {
    let tmp = tidy(tmp.map_or(TMP, |said| said.value.as_str()));
    let pre = fields.list("build.pre_cmd")?;
    let cmd = fields.text("build.cmd")?;
    let (command, text, command_why) = match &cmd {
        Some(said) => (line(said)?.command(), said.value.clone(), said.from()),
        None => {
            let words = ["go", "build", "-o", &usual(&tmp), "."];
            let words = words.map(ToOwned::to_owned).to_vec();
            let text = joined(&words);
            let why = "What air takes where build.cmd is left out.".to_owned();
            (words, text, why)
        }
    };
    let run = run(fields, place, &tmp)?;
    let built = built(&text, &run);
    let pre = pre.filter(|said| !said.value.is_empty());
    let Some(path) = built else {
        in_place_rows(&run, place, service);
        let (mut lines, mut why) = pre.map_or_else(
            || (Vec::new(), String::new()),
            |said| (said.value.clone(), format!("{} ", said.from())),
        );
        lines.push(text);
        why.push_str(&command_why);
        why.push_str(" It leaves nothing that is run, so it runs before each start.");
        let lines = Line::read(&in_a_row(&lines)).map_or(command, |line| line.command());
        service.rows.push(Row::list("before_start", &lines, why));
        root_row(place, service);
        return Ok(());
    };
    built_rows(&path, run, place, &tmp, service);
    service
        .build
        .insert(0, Row::list("command", &command, command_why));
    if let Some(said) = pre {
        let command = line(&said.with(in_a_row(&said.value)))?.command();
        service.build.push(Row::list("pre", &command, said.from()));
    }
    root_row(place, service);
    Ok(())
}

fn root_row(place: &Place, service: &mut Service) {
    let why = "Where air is started.";
    service.build.push(Row::text("root", &place.folder, why));
}

/// `full_bin` goes before `entrypoint`, and that before `bin`.
fn run(fields: &mut Fields, place: &Place, tmp: &str) -> Result<Run, Fault> {
    let full = fields.text("build.full_bin")?;
    let said = match full {
        Some(full) => Some(full),
        None => match fields.list("build.entrypoint")? {
            Some(mut said) if !said.value.is_empty() => {
                // Unlike the others, it is taken from the root.
                if let Some(program) = said.value.first_mut()
                    && program.contains('/')
                {
                    *program = place.own(program);
                }
                Some(said.with(said.value.join(" ")))
            }
            _ => fields.text("build.bin")?,
        },
    };
    let (mut text, why) = match &said {
        Some(said) => (said.value.clone(), said.from()),
        None => (
            usual(tmp),
            "What air takes where build.bin is left out.".into(),
        ),
    };
    let mut why = vec![why];
    if let Some(args) = fields.list("build.args_bin")?
        && !args.value.is_empty()
    {
        text = format!("{text} {}", args.value.join(" "));
        why.push(args.from());
    }
    let line = match &said {
        Some(said) => line(&said.with(text.clone()))?,
        None => Line::read(&text).map_err(|why| Fault::config(why).hint("build.bin"))?,
    };
    Ok(Run {
        text,
        line,
        why: why.join(" "),
    })
}

/// What the command leaves, as it stands in what is run: a program with a path, or a word that is what
/// `-o` of the command names, or lies below. None where what is run is nothing that was built.
fn built(command: &str, run: &Run) -> Option<String> {
    let owned: Vec<String>;
    let words: &[String] = match &run.line.form {
        Form::Words(words) => words,
        Form::Simple(text) | Form::Compound(text) => {
            owned = text.split_whitespace().map(ToOwned::to_owned).collect();
            &owned
        }
    };
    let mut of_command = command.split_whitespace();
    let target = of_command
        .find(|word| *word == "-o")
        .and_then(|_| of_command.next())
        .map(|word| tidy(word.trim_matches(['"', '\''])));
    let is_target = |word: &&String| {
        target.as_ref().is_some_and(|target| {
            let word = tidy(word);
            word == *target || word.starts_with(&format!("{target}/"))
        })
    };
    let is_path = |word: &&String| word.contains('/') && !word.contains(['$', '`', '*', '=']);
    let program = words
        .first()
        .filter(|word| is_path(word) || words.len() == 1);
    words.iter().find(is_target).or(program).cloned()
}

/// A release is what was built: the file itself, or, where it is started with anything else, a folder
/// with nothing but it.
fn built_rows(path: &str, run: Run, place: &Place, tmp: &str, service: &mut Service) {
    let tidied = tidy(path);
    let (folder, file) = match tidied.rsplit_once('/') {
        Some(("", file)) => ("/".to_owned(), file.to_owned()),
        Some((folder, file)) => (folder.to_owned(), file.to_owned()),
        None => (".".to_owned(), tidied.clone()),
    };
    let alone = matches!(&run.line.form, Form::Words(words) if words.len() == 1);
    if !run.line.env.is_empty() {
        service
            .rows
            .push(Row::table("env", &run.line.env, run.why.clone()));
    }
    let workdir = "Where air starts it.";
    if alone {
        service
            .rows
            .push(Row::text("workdir", &place.folder, workdir));
        service.build.push(Row::text("output", &tidied, run.why));
        return;
    }
    let release = format!("{{release}}/{file}");
    let command = match &run.line.form {
        Form::Words(words) => {
            let fill = |(at, word): (usize, &String)| match word == path {
                // A program with a path is one of the release in any case.
                true if at == 0 => format!("./{file}"),
                true => release.clone(),
                false => word.clone(),
            };
            words.iter().enumerate().map(fill).collect()
        }
        Form::Simple(_) | Form::Compound(_) => {
            let text = in_text(&run.text, path, &release);
            Line::read(&text).map_or_else(|_| Vec::new(), |line| line.command())
        }
    };
    let why = format!(
        "{} What was built is in the folder of the release.",
        run.why
    );
    service.rows.push(Row::list("run", &command, why));
    service
        .rows
        .push(Row::text("workdir", &place.folder, workdir));
    let only = ["/*".to_owned(), format!("!/{file}")];
    let why = "Nothing else of the folder that it is built into belongs to a release.";
    service.rows.push(Row::list("ignore", &only, why));
    if folder == "." {
        // The folder of the sources would be the release.
        let copy = format!("mkdir -p {tmp} && cp -p {file} {tmp}/{file}");
        let copy = ["sh".to_owned(), "-c".to_owned(), copy];
        let why = "A folder of its own for what was built.";
        service.build.push(Row::list("post", &copy, why));
        service
            .build
            .push(Row::text("output", tmp, "What comes of that."));
        return;
    }
    let why = "The folder that it is built into.";
    service.build.push(Row::text("output", &folder, why));
}

/// A path in a command line for a shell is another. It gets quotes where it has none.
fn in_text(text: &str, path: &str, release: &str) -> String {
    let words: Vec<String> = text
        .split(' ')
        .map(|word| match word == path {
            true => format!("\"{release}\""),
            false => word.replace(path, release),
        })
        .collect();
    words.join(" ")
}

/// What is run is no program that was built: it runs from the files that are edited.
fn in_place_rows(run: &Run, place: &Place, service: &mut Service) {
    let why = run.why.clone();
    service
        .rows
        .push(Row::list("run", &run.line.command(), why));
    if !run.line.env.is_empty() {
        let why = "What stood in front of it.";
        service.rows.push(Row::table("env", &run.line.env, why));
    }
    let why = "It runs from the files that are edited, and not from a copy.";
    service.rows.push(Row::text("workdir", &place.folder, why));
}
