//! A `package.json`: how the project is run, as npm and nodemon find it there.

use std::path::Path;

use hotctl_config::tree::{Node, Value};
use hotctl_config::{Format, load};

use super::super::draft::{Draft, Row, Service};
use super::super::fields::{Fields, Said};
use super::super::project::{Project, tidy};
use super::asked;
use super::program::{Program, named, read, script_in};
use super::{new_draft, run_rows, source_port};
use crate::answers::Unmapped;
use crate::dev::sources;
use crate::fault::Fault;

/// Scripts that may be what is run at the desk, the likeliest first.
const AT_THE_DESK: [&str; 5] = ["dev", "develop", "start", "watch", "serve"];

/// What of it has not been taken.
#[derive(Debug)]
pub struct Package {
    file: String,
    fields: Fields,
}

impl Package {
    pub fn of(file: &str, node: Node) -> Self {
        Self {
            file: file.into(),
            fields: Fields::of(file, "", node),
        }
    }

    /// That of a project, where there is a good one. nodemon passes over any other, too.
    pub fn beside(project: &Project) -> Option<Self> {
        let path = project.file("package.json");
        let text = load(&path).ok()?;
        let node = Format::Json.tree(&text, &path).ok()?;
        Some(Self::of(&tidy(&path.display().to_string()), node))
    }

    /// What it says for nodemon.
    pub fn nodemon_config(&mut self) -> Fields {
        let mut config = Fields::none(&self.file, "nodemonConfig.");
        for field in self.fields.below("nodemonConfig") {
            config.add(field);
        }
        config
    }

    /// The first of its scripts that runs nodemon, with this file if it names one.
    pub fn nodemon_line(&mut self, config: Option<&Path>) -> Option<Fields> {
        let scripts = self.scripts();
        let at = |name: &str| AT_THE_DESK.iter().position(|known| *known == name);
        let mut found: Vec<_> = scripts
            .iter()
            .filter_map(|(name, line, text)| {
                let mut fields = asked::settings(&self.file, name, *line, text)?;
                let is_named = match fields.look("configFile") {
                    Some(Value::Text(file)) => {
                        let (own, its) = (config?.file_name(), Path::new(file).file_name());
                        (own == its).then_some(())?;
                        fields.take("configFile").is_some()
                    }
                    _ => false,
                };
                let rank = at(name).unwrap_or(AT_THE_DESK.len());
                Some((!is_named, rank, fields, name))
            })
            .collect();
        found.sort_by_key(|(other, rank, ..)| (*other, *rank));
        let (.., fields, name) = found.into_iter().next()?;
        self.fields.take(&format!("scripts.{name}"));
        Some(fields)
    }

    fn scripts(&self) -> Vec<(String, usize, String)> {
        let all = self.fields.all();
        all.filter_map(|field| match &field.value {
            Value::Text(text) => {
                let name = field.name.strip_prefix("scripts.")?;
                Some((name.to_owned(), field.line, text.clone()))
            }
            _ => None,
        })
        .collect()
    }

    /// The file that it begins with.
    ///
    /// # Errors
    /// If that is no text.
    pub fn main(&mut self) -> Result<Option<Said<String>>, Fault> {
        self.fields.text("main")
    }

    /// What npm starts, if it is not nodemon.
    ///
    /// # Errors
    /// If that is no text.
    pub fn start(&mut self) -> Result<Option<Said<String>>, Fault> {
        match self.fields.look("scripts.start") {
            Some(Value::Text(text)) if text.split_whitespace().any(|it| it == "nodemon") => {
                Ok(None)
            }
            _ => self.fields.text("scripts.start"),
        }
    }

    /// What comes of it where nodemon is not used.
    ///
    /// # Errors
    /// If it names no program.
    pub fn plain(&mut self, project: &Project) -> Result<Draft, Fault> {
        let program = self.program(project)?;
        let mut draft = new_draft(&self.file);
        let mut service = Service::new("app");
        let folder = project.path(".");
        run_rows(
            &program.line,
            &program.why,
            Vec::new(),
            &folder,
            &mut service,
            &mut draft,
        );
        if let Some(script) = &program.script {
            source_port(script, project, &draft, &mut service);
        }
        if let Some(before) = self.fields.text("scripts.prestart")? {
            let why = format!("{} npm runs it before scripts.start.", before.from());
            let command = ["npm", "run", "--silent", "prestart"];
            service.rows.push(Row::list("before_start", &command, why));
        }
        let why = "What is usually a source; what an app writes is none.";
        service.build.push(Row::list("watch", &sources(&[]), why));
        let why = "Started at once, and again beside the old one whenever one of these changes.";
        service.build.push(Row::text("root", &folder, why));
        draft.services.push(service);
        Ok(draft)
    }

    fn program(&mut self, project: &Project) -> Result<Program, Fault> {
        let of_line =
            |said: Said<String>| read(&said, &said.value, script_in(&said.value), said.from());
        if let Some(start) = self.start()? {
            return of_line(start);
        }
        if let Some(main) = self.main()? {
            return named(&main.value, main.from());
        }
        if let Some(dev) = self.fields.text("scripts.dev")? {
            return of_line(dev);
        }
        for name in ["server.js", "index.js", "app.js"] {
            if project.file(name).is_file() {
                return named(name, format!("{name}, since nothing is named."));
            }
        }
        Err(Fault::config(format!(
            "{}: names no program: no scripts.start, scripts.dev, main or nodemonConfig",
            self.file
        ))
        .hint("\"scripts\": { \"start\": \"node server.js\" }, say"))
    }

    /// What is left: scripts one by one, and in one line all that is not about running it.
    pub fn rest(&mut self) -> Vec<Unmapped> {
        let mut scripts = Fields::none(&self.file, "scripts.");
        for field in self.fields.below("scripts") {
            scripts.add(field);
        }
        let mut unmapped = scripts.rest(|name| match name {
            _ if name.starts_with("pre") || name.starts_with("post") => {
                "npm runs it beside another script, and hotctl does not run npm"
            }
            _ => "it is not what runs the app; npm run does it as before",
        });
        let mut names: Vec<String> = Vec::new();
        let mut first = None;
        for left in self.fields.rest(|_| "") {
            let name = left.field.split('.').next().unwrap_or_default().to_owned();
            first.get_or_insert(left.line);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if let Some(line) = first {
            unmapped.push(Unmapped {
                file: self.file.clone(),
                line,
                field: names.join(", "),
                value: "…".into(),
                reason: "not about how it is run".into(),
            });
        }
        unmapped
    }
}
