//! The images that have a stand-in.

use super::reference::repository;

/// A program of a stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Where the original has it. Its file name is the applet's.
    pub path: &'static str,
    /// Whether the machine's program of that name, where it has one, serves as well.
    pub machines: bool,
}

/// What stands in for an image.
#[derive(Debug)]
pub struct Image {
    /// Repositories without registry, as `repository` leaves them.
    names: &'static [&'static str],
    /// What it is, for a person: completes "… stands in for image X".
    pub description: &'static str,
    /// What containers of this image have in place of the machine's programs or beside them.
    pub programs: &'static [Program],
    /// What is run before the arguments that a manifest gives.
    pub entrypoint: &'static [&'static str],
    /// Arguments when a manifest gives none, and no command.
    pub command: &'static [&'static str],
    /// Working directory.
    pub directory: &'static str,
}

const fn own(path: &'static str) -> Program {
    let machines = false;
    Program { path, machines }
}

const BUSYBOX: &[Program] = &[own("/bin/nc"), own("/bin/wget"), own("/bin/sh")];

const IMAGES: &[Image] = &[
    Image {
        names: &["busybox"],
        description: "busybox's nc, wget and sh, with the machine's other programs,",
        programs: BUSYBOX,
        entrypoint: &[],
        command: &["sh"],
        directory: "/",
    },
    Image {
        names: &["alpine"],
        description: "busybox's nc, wget and sh, with the machine's other programs,",
        programs: BUSYBOX,
        entrypoint: &[],
        command: &["/bin/sh"],
        directory: "/",
    },
    Image {
        names: &["ubuntu", "debian"],
        description: "a shell with the machine's programs",
        programs: &[],
        entrypoint: &[],
        command: &["bash"],
        directory: "/",
    },
];

/// What stands in for `image` (`[REGISTRY/]PATH[:TAG][@DIGEST]`), if it is known. Containers of
/// other images run the machine's programs, or the built-in responder where it has none.
pub fn find(image: &str) -> Option<&'static Image> {
    let wanted = repository(image);
    IMAGES.iter().find(|image| image.names.contains(&wanted))
}

impl Image {
    /// The whole command line: a manifest's `command` replaces the entrypoint and the default
    /// arguments, its `args` the arguments only.
    pub fn command_line(&self, command: &[String], arguments: &[String]) -> Vec<String> {
        let owned = |list: &[&str]| {
            list.iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        match (command.is_empty(), arguments.is_empty()) {
            (false, _) => [command, arguments].concat(),
            (true, false) => [owned(self.entrypoint), arguments.to_vec()].concat(),
            (true, true) => [owned(self.entrypoint), owned(self.command)].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::applets;

    #[test]
    fn every_name_is_found_once_and_every_program_is_an_applet() {
        for image in IMAGES {
            for name in image.names {
                assert_eq!(repository(name), *name);
                let same = IMAGES.iter().filter(|other| other.names.contains(name));
                assert_eq!(same.count(), 1, "{name}");
            }
            for program in image.programs {
                let name = program.path.rsplit('/').next().unwrap();
                assert!(applets::knows(name), "{}", program.path);
            }
        }
        assert!(find("docker.io/library/busybox:1.36").is_some());
        assert!(find("no/such").is_none());
    }

    #[test]
    fn commands_and_arguments_replace_what_the_image_says() {
        let list = |texts: &[&str]| -> Vec<String> {
            texts.iter().map(|text| (*text).to_owned()).collect()
        };
        let busybox = find("busybox").unwrap();
        assert_eq!(busybox.command_line(&[], &[]), list(&["sh"]));
        let sleep = list(&["sleep", "9"]);
        assert_eq!(busybox.command_line(&sleep, &[]), sleep);
        assert_eq!(busybox.command_line(&[], &sleep), sleep);
        let both = busybox.command_line(&list(&["sleep"]), &list(&["9"]));
        assert_eq!(both, sleep);
    }
}
