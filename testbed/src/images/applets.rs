//! The multi-call binary: which program it is, its own name says.

use std::process::ExitCode;

use super::{busybox, mysql, postgres, redis, servers};

/// A program: its arguments without its name, and its exit status.
type Applet = fn(&[String]) -> u8;

const APPLETS: &[(&str, Applet)] = &[
    ("agnhost", servers::agnhost::main),
    ("carts", servers::retail::carts),
    ("catalog", servers::retail_catalog::catalog),
    ("checkout", servers::retail::checkout),
    ("collect", servers::star::collect),
    ("dynamodb-local", servers::dynamodb::main),
    ("echo-text", servers::plain::text_echo),
    ("flaskback", servers::flaskback::main),
    ("hello-app", servers::plain::hello_app),
    ("http-echo", servers::http_echo::main),
    ("httpd-foreground", servers::plain::httpd),
    ("mariadbd", mysql::server::mariadbd),
    ("mysqld", mysql::server::mysqld),
    ("nc", busybox::nc::main),
    ("nginx", servers::plain::nginx),
    ("nslookup", busybox::nslookup::main),
    ("orders", servers::retail::orders),
    ("pause", servers::plain::pause),
    ("postgres", postgres::server),
    ("probe", servers::star::probe),
    ("redis-server", redis::server),
    ("sh", busybox::sh::main),
    ("ui", servers::retail_ui::ui),
    ("wget", busybox::wget::main),
];

/// Whether there is a program of this name.
pub fn knows(name: &str) -> bool {
    APPLETS.iter().any(|(known, _)| *known == name)
}

/// Runs the program that the first argument names: a path whose last part is a program's name, or
/// this binary's own with the program's name behind it.
pub fn run(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.into_iter().collect();
    let called = |at: usize| {
        let name = arguments.get(at)?.rsplit('/').next()?;
        // A login shell's name begins with a dash.
        let name = name.strip_prefix('-').unwrap_or(name);
        let (_, applet) = APPLETS.iter().find(|(known, _)| *known == name)?;
        Some((*applet, at + 1))
    };
    match called(0).or_else(|| called(1)) {
        Some((applet, rest)) => ExitCode::from(applet(&arguments[rest..])),
        None => {
            let names: Vec<&str> = APPLETS.iter().map(|(name, _)| *name).collect();
            eprintln!(
                "weir-applets: stand-ins for programs of container images; call it by the name of \
                 one of: {}",
                names.join(" ")
            );
            ExitCode::from(127)
        }
    }
}
