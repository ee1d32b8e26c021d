//! Arguments to a command to an exit code: 0 it worked, 1 it did not and one sentence says why, 2 it was not understood.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use argh::FromArgs as _;
use relevo::cli::{Arguments, Command, MachineAction, RulesAction};
use relevo::config::{Config, Problems, defaults};
use relevo::daemon;
use relevo::host::{doctor, rules};

/// The command line was not understood.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = match parse(
        std::env::args_os()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect(),
    ) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    if arguments.version {
        return say(concat!("relevo ", env!("CARGO_PKG_VERSION"), "\n"));
    }
    let Some(command) = arguments.command else {
        eprintln!("relevo: no command was given. Run relevo --help for more information.");
        return ExitCode::from(USAGE);
    };
    match carry_out(command) {
        Ok(code) => code,
        Err(error) => {
            match error.downcast_ref::<Problems>() {
                // Each of its lines begins with file:line already.
                Some(problems) => eprintln!("{problems}"),
                None => eprintln!("relevo: {error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

/// The arguments, or what to end with: help was asked for, or they make no sense.
fn parse(words: Vec<String>) -> Result<Arguments, ExitCode> {
    let words: Vec<&str> = words.iter().map(String::as_str).skip(1).collect();
    Arguments::from_args(&["relevo"], &words).map_err(|exit| match exit.status {
        Ok(()) => say(&exit.output),
        Err(()) => {
            eprint!("{}", exit.output);
            if !exit.output.ends_with('\n') {
                eprintln!();
            }
            eprintln!("Run relevo --help for more information.");
            ExitCode::from(USAGE)
        }
    })
}

/// Prints to stdout; a reader that has gone is no reason to panic.
fn say(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn carry_out(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(run) => daemon::run(Config::load(&run.config)?, &run.config)?,
        Command::Check(check) => {
            let config = Config::load(&check.config)?;
            if check.print {
                return Ok(say(&config.to_string()));
            }
        }
        Command::Doctor(arguments) => return examine(arguments.config.as_deref()),
        Command::Rules(arguments) => return handle_rules(arguments.action),
        Command::Status(status) => daemon::client::show_status(&socket(status.socket, status.config)?, status.json)?,
        Command::Failover(failover) => {
            let socket = socket(failover.socket, failover.config)?;
            daemon::client::failover(&socket, &failover.service, failover.to.as_deref(), failover.within.0)?;
        }
        Command::Machine(arguments) => match arguments.action {
            MachineAction::Enable(one) => {
                daemon::client::machine(&socket(one.socket, one.config)?, true, &one.service, &one.machine)?;
            }
            MachineAction::Disable(one) => {
                daemon::client::machine(&socket(one.socket, one.config)?, false, &one.service, &one.machine)?;
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the engine listens: as said, or as its configuration says, or where it does by default.
fn socket(socket: Option<PathBuf>, config: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match (socket, config) {
        (Some(socket), _) => Ok(socket),
        (None, Some(config)) => Ok(Config::load(&config)?.engine.admin_socket),
        (None, None) => Ok(PathBuf::from(defaults::ADMIN_SOCKET)),
    }
}

fn handle_rules(action: RulesAction) -> anyhow::Result<ExitCode> {
    match action {
        RulesAction::Show(show) => Ok(say(&rules::render(&Config::load(&show.config)?))),
        RulesAction::Load(load) => {
            let backend = rules::load(&Config::load(&load.config)?)?;
            Ok(say(&format!(
                "rules: loaded table inet {}, queue target {backend}\n",
                rules::TABLE
            )))
        }
        RulesAction::Unload(_) => {
            let text = if rules::unload()? { "unloaded" } else { "there was no" };
            Ok(say(&format!("rules: {text} table inet {}\n", rules::TABLE)))
        }
    }
}

fn examine(config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let config = config.map(Config::load).transpose()?;
    let findings = doctor::examine(config.as_ref());
    let bad = findings
        .iter()
        .filter(|finding| finding.grade == doctor::Grade::Bad)
        .count();
    let lines: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    let verdict = match bad {
        0 => "doctor: this host can work\n".to_owned(),
        _ => format!("doctor: this host can't work, {bad} to mend\n"),
    };
    let said = say(&(lines + &verdict));
    Ok(if bad == 0 { said } else { ExitCode::FAILURE })
}
