//! `weir-lab`: the lab's resident agent and its commands.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use testbed::lab::{self, CommandError, Lab, UpOptions};
use testbed::scenario::{self, Collection, Extent, RunOptions};

/// Labs: Kubernetes manifests run as real pods in network namespaces of this machine, with a Weir
/// of their own.
#[derive(Parser)]
#[command(
    name = "weir lab",
    bin_name = "weir lab",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Bring a lab up and wait until its pods are ready
    Up(Up),
    /// Take a lab down and remove everything of it, whatever was killed before
    Down(Which),
    /// List the labs of this machine, and those that come with Weir
    List(List),
    /// Play a scenario: bring its lab up, apply its policies step by step, hold every connection
    /// against what the tutorial promises, and clean up
    Run(Run),
    /// A shell in which kubectl is Weir and means this lab
    Shell(Which),
    /// Bring a lab back to its tutorial's start: what was made since goes, what it had comes back
    #[command(name = "prepare")]
    Prepare {
        /// As the tutorial calls its start
        module: Option<String>,
    },
    /// What the agent knows of a lab, as JSON
    Status(Which),
    #[command(name = "__agent", hide = true)]
    Agent { name: String },
    #[command(name = "__terminal", hide = true)]
    Terminal {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Read what a tutorial's text tells its reader to type, as tutorial.yaml holds it
    #[command(hide = true)]
    Extract {
        /// The text, in Markdown or AsciiDoc
        text: std::path::PathBuf,
        /// The first and the last line of the part that is meant
        #[arg(long, num_args = 2)]
        lines: Vec<usize>,
    },
    #[command(name = "__pod-init", hide = true)]
    PodInit,
    #[command(name = "__stage", hide = true)]
    Stage { spec: String },
    /// Try connections from where this runs: HOST:PORT…
    #[command(hide = true)]
    Probe {
        targets: Vec<String>,
        #[arg(long, default_value_t = 1500)]
        limit_ms: u64,
    },
    /// Listen on a TCP port
    #[command(hide = true)]
    Listen { port: u16 },
}

#[derive(Args)]
struct Up {
    /// The lab's name; default: the manifests' folder or file, or "lab"
    name: Option<String>,
    /// Manifests: files, folders or URLs, as kubectl apply -f takes them
    #[arg(short, long)]
    filename: Vec<String>,
    /// Also the folders within folders
    #[arg(short = 'R', long)]
    recursive: bool,
    /// A port that the external world serves on every address, as 80 or 53/UDP; default 80 and 443
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    external_port: Vec<String>,
    /// The kubectl whose words and ways commands have, as 1.8; default that of the lab, or 1.34
    #[arg(long, value_name = "VERSION")]
    kubectl: Option<String>,
    /// Only what the lab's tutorial presupposes: the tutorial applies the rest
    #[arg(long, requires = "name", conflicts_with = "filename")]
    tutorial: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// Whether policy is enforced: on or off
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = parse_enforcement)]
    enforcement: config::Enforcement,
}

#[derive(Args)]
struct List {
    /// json for programs
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
}

#[derive(Args)]
struct Run {
    /// A scenario that comes with Weir
    #[arg(required_unless_present = "folder")]
    name: Option<String>,
    /// The folder of a scenario of your own (scenario.yaml and manifests)
    #[arg(short = 'f', long = "filename", conflicts_with = "name")]
    folder: Option<std::path::PathBuf>,
    /// Off proves that the scenario notices: it must fail then
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = parse_enforcement)]
    enforcement: config::Enforcement,
    /// Leave the lab up afterwards
    #[arg(long)]
    keep: bool,
}

#[derive(Args)]
struct Which {
    /// The lab's name; default: the only one there is
    name: Option<String>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, CommandError> {
    let system = |what: &str| {
        let what = what.to_owned();
        move |source| CommandError::System { what, source }
    };
    match arguments.verb {
        Verb::Up(up) => bring_up(&up)?,
        Verb::Down(which) => {
            let lab = which.lab()?;
            lab::down(&lab)?;
            println!("lab {} is down", lab.name);
        }
        Verb::List(List { output: None }) => print!("{}{}", lab::list(), lab::list_built_in()),
        Verb::List(_) => println!("{:#}", lab::list_json()),
        Verb::Run(run) => return play(&run),
        Verb::Shell(which) => match lab::shell(&which.lab()?)? {},
        Verb::Status(which) => {
            let status = which.lab()?.status()?;
            let text = serde_json::to_string_pretty(&status).unwrap_or_default();
            println!("{text}");
        }
        Verb::Agent { name } => {
            testbed::agent::run(Lab::named(&name)?).map_err(system("run the agent"))?;
        }
        Verb::Prepare { module } => {
            lab::prepare_environment(&Which { name: None }.lab()?, module.as_deref())?;
        }
        Verb::Terminal { command } => {
            let error = testbed::tutorial::terminal::become_session_leader(&command);
            return Err(system("become a terminal's program")(error));
        }
        Verb::Extract { text, lines } => print!("{}", extract(&text, &lines)?),
        Verb::PodInit => testbed::pod::init::run().map_err(system("run a pod's init"))?,
        Verb::Stage { spec } => {
            let code = testbed::pod::stage::become_program(&spec);
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
        Verb::Probe { targets, limit_ms } => {
            let limit = std::time::Duration::from_millis(limit_ms);
            testbed::probe::run_probe(&targets, limit).map_err(system("probe"))?;
        }
        Verb::Listen { port } => testbed::probe::run_listen(port).map_err(system("listen"))?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Which {
    fn lab(&self) -> Result<Lab, CommandError> {
        let named = self.name.clone().or_else(|| std::env::var("WEIR_LAB").ok());
        if let Some(name) = named {
            return Lab::named(&name);
        }
        // Stale ones count: they are what `down` is for.
        let mut labs = lab::all();
        match labs.len() {
            1 => Ok(labs.remove(0)),
            0 => Err(CommandError::Refused("there is no lab".into())),
            _ => {
                let names: Vec<String> = labs.into_iter().map(|lab| lab.name).collect();
                Err(CommandError::Refused(format!(
                    "which lab? there are {}",
                    names.join(", ")
                )))
            }
        }
    }
}

fn bring_up(up: &Up) -> Result<(), CommandError> {
    let name = up
        .name
        .clone()
        .unwrap_or_else(|| default_name(&up.filename));
    let lab = Lab::named(&name)?;
    let built_in = if up.filename.is_empty() {
        Collection::built_in(&name)
    } else {
        None
    };
    if up.filename.is_empty() && up.name.is_some() && built_in.is_none() {
        return Err(CommandError::Refused(format!(
            "no lab called {name} comes with Weir (weir lab list); name manifests of your own with -f"
        )));
    }
    let external_ports = up.external_port.iter().map(|text| parse_port(text));
    let extent = match up.tutorial {
        true => Extent::TutorialsStart,
        false => Extent::WithApplication,
    };
    let base = match &built_in {
        Some(collection) => collection.up_options(&lab, extent)?,
        None => UpOptions {
            manifests: up.filename.clone(),
            ..UpOptions::default()
        },
    };
    let options = UpOptions {
        recursive: up.recursive,
        external_ports: external_ports.collect::<Result<_, _>>()?,
        progress: !up.quiet,
        enforcement: up.enforcement,
        kubectl: up.kubectl.clone().or(base.kubectl),
        ..base
    };
    let begun = std::time::Instant::now();
    let status = lab::up(&lab, &options)?;
    if !up.quiet {
        let (pods, seconds) = (status.pods.len(), begun.elapsed().as_secs_f64());
        let ready = match pods {
            0 => "no pods yet".to_owned(),
            1 => "1 pod ready".to_owned(),
            pods => format!("{pods} pods ready"),
        };
        println!("lab {name} is up: {ready} in {seconds:.1} s");
        println!("try: weir --lab {name} get pods -A    or    weir lab shell {name}");
    }
    Ok(())
}

fn play(run: &Run) -> Result<ExitCode, CommandError> {
    let collection = match (&run.folder, &run.name) {
        (Some(folder), _) => Collection::read(folder)?,
        (None, name) => {
            let name = name.as_deref().unwrap_or_default();
            Collection::built_in(name).ok_or_else(|| {
                CommandError::Refused(format!(
                    "no scenario called {name} comes with Weir; see weir lab list"
                ))
            })?
        }
    };
    let options = RunOptions {
        enforcement: run.enforcement,
        keep: run.keep,
    };
    let held = scenario::run(&collection, &options, &mut std::io::stdout())?;
    Ok(ExitCode::from(u8::from(!held)))
}

fn extract(path: &std::path::Path, lines: &[usize]) -> Result<String, CommandError> {
    let text = std::fs::read_to_string(path).map_err(|source| CommandError::System {
        what: format!("read {}", path.display()),
        source,
    })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let lines = match lines {
        [first, last] => Some((*first, *last)),
        _ => None,
    };
    let tutorial = testbed::tutorial::extract::extract(&name, &text, lines);
    let refused = |error: serde_yaml_ng::Error| CommandError::Refused(error.to_string());
    tutorial.to_yaml().map_err(refused)
}

fn parse_enforcement(text: &str) -> Result<config::Enforcement, String> {
    match text {
        "on" => Ok(config::Enforcement::On),
        "off" => Ok(config::Enforcement::Off),
        other => Err(format!("{other} is neither on nor off")),
    }
}

fn default_name(manifests: &[String]) -> String {
    let path = manifests
        .first()
        .and_then(|first| std::path::Path::new(first).canonicalize().ok());
    let stem = path.and_then(|path| Some(path.file_stem()?.to_str()?.to_lowercase()));
    stem.filter(|stem| Lab::named(stem).is_ok())
        .unwrap_or_else(|| "lab".into())
}

fn parse_port(text: &str) -> Result<(String, u16), CommandError> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
    let protocol = protocol.to_uppercase();
    match number.parse() {
        Ok(number) if ["TCP", "UDP", "SCTP"].contains(&protocol.as_str()) => Ok((protocol, number)),
        _ => Err(CommandError::Refused(format!(
            "{text} is no port: write 80 or 53/UDP"
        ))),
    }
}
