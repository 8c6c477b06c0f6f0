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

const fn machines(path: &'static str) -> Program {
    let machines = true;
    Program { path, machines }
}

const BUSYBOX: &[Program] = &[
    own("/bin/nc"),
    own("/bin/wget"),
    own("/bin/sh"),
    own("/usr/bin/nslookup"),
];
const WITH_BUSYBOX: &str =
    "a shell with busybox's nc, nslookup, sh and wget and the machine's other programs";
const MACHINE: &str = "a shell with the machine's programs";

/// Programs of its own and the machine's, and which of them runs where a manifest names none.
const fn shell(
    names: &'static [&'static str],
    description: &'static str,
    programs: &'static [Program],
    command: &'static [&'static str],
) -> Image {
    Image {
        names,
        description,
        programs,
        entrypoint: &[],
        command,
        directory: "/",
    }
}

/// A server that its image starts by itself, with whatever arguments a manifest gives.
const fn server(
    names: &'static [&'static str],
    description: &'static str,
    programs: &'static [Program],
    entrypoint: &'static [&'static str],
) -> Image {
    Image {
        names,
        description,
        programs,
        entrypoint,
        command: &[],
        directory: "/",
    }
}

const IMAGES: &[Image] = &[
    shell(
        &["busybox", "radial/busyboxplus"],
        WITH_BUSYBOX,
        BUSYBOX,
        &["sh"],
    ),
    shell(&["alpine"], WITH_BUSYBOX, BUSYBOX, &["/bin/sh"]),
    shell(&["ubuntu", "debian"], MACHINE, &[], &["bash"]),
    shell(
        &["nicolaka/netshoot"],
        MACHINE,
        // Its nc and wget are not busybox's; ours serve where the machine has none.
        &[
            machines("/usr/bin/nc"),
            machines("/usr/bin/wget"),
            machines("/usr/bin/nslookup"),
        ],
        &["bash"],
    ),
    Image {
        names: &["curlimages/curl", "appropriate/curl"],
        description: "the machine's curl",
        programs: &[],
        entrypoint: &["curl"],
        command: &["--help"],
        directory: "/",
    },
    shell(
        &["mysql", "mysql/mysql-server"],
        "a small database that speaks MySQL's protocol",
        &[own("/usr/sbin/mysqld")],
        &["mysqld"],
    ),
    shell(
        &["mariadb"],
        "a small database that speaks MySQL's protocol",
        &[own("/usr/sbin/mariadbd")],
        &["mariadbd"],
    ),
    shell(
        &["postgres"],
        "a small database that speaks PostgreSQL's protocol",
        &[own("/usr/local/bin/postgres")],
        &["postgres"],
    ),
    Image {
        names: &["redis", "bitnami/redis"],
        description: "a small store that speaks Redis's protocol",
        programs: &[own("/usr/local/bin/redis-server")],
        entrypoint: &[],
        command: &["redis-server"],
        directory: "/data",
    },
    server(
        &[
            "amazon/dynamodb-local",
            "aws-dynamodb-local/aws-dynamodb-local",
        ],
        "a small store that speaks DynamoDB's protocol",
        &[own("/usr/bin/dynamodb-local")],
        &["dynamodb-local"],
    ),
    server(
        &["pnivaggi/flaskback"],
        "a server that asks the database for its blogs",
        &[own("/usr/bin/flaskback")],
        &["flaskback"],
    ),
    server(
        &["solsson/http-echo", "mendhak/http-https-echo"],
        "a server that answers with the request, as Express does,",
        &[own("/usr/bin/http-echo")],
        &["http-echo"],
    ),
    server(
        &["hashicorp/http-echo"],
        "a server that answers with a text",
        &[own("/usr/bin/echo-text")],
        &["echo-text"],
    ),
    Image {
        names: &["calico/star-probe", "mesosphere/star-probe"],
        description: "a probe that polls its targets",
        programs: &[own("/usr/bin/probe")],
        entrypoint: &[],
        command: &["probe"],
        directory: "/star",
    },
    Image {
        names: &["calico/star-collect", "mesosphere/star-collect"],
        description: "a collector that draws what the probes reach",
        programs: &[own("/usr/bin/collect")],
        entrypoint: &[],
        command: &["collect"],
        directory: "/star",
    },
    server(
        &["aws-containers/retail-store-sample-ui"],
        "the shop's pages, made of what its other parts answer,",
        &[own("/usr/bin/ui")],
        &["ui"],
    ),
    server(
        &["aws-containers/retail-store-sample-catalog"],
        "the shop's catalogue, kept in its database,",
        &[own("/usr/bin/catalog")],
        &["catalog"],
    ),
    server(
        &["aws-containers/retail-store-sample-cart"],
        "the shop's carts, kept in their database,",
        &[own("/usr/bin/carts")],
        &["carts"],
    ),
    server(
        &["aws-containers/retail-store-sample-checkout"],
        "the shop's checkout, which orders over the network,",
        &[own("/usr/bin/checkout")],
        &["checkout"],
    ),
    server(
        &["aws-containers/retail-store-sample-orders"],
        "the shop's orders",
        &[own("/usr/bin/orders")],
        &["orders"],
    ),
    server(
        &["agnhost"],
        "agnhost's connect, liveness, netexec, pause, porter and serve-hostname",
        &[own("/agnhost")],
        &["/agnhost"],
    ),
    server(
        &["pause"],
        "a program that waits",
        &[own("/pause")],
        &["/pause"],
    ),
    Image {
        names: &["nginx"],
        description: "a web server with nginx's first page",
        programs: &[own("/usr/sbin/nginx")],
        entrypoint: &[],
        command: &["nginx", "-g", "daemon off;"],
        directory: "/",
    },
    Image {
        names: &["httpd"],
        description: "a web server with Apache's first page",
        programs: &[own("/usr/local/bin/httpd-foreground")],
        entrypoint: &[],
        command: &["httpd-foreground"],
        directory: "/usr/local/apache2",
    },
    server(
        &["hello-app"],
        "a server that says hello",
        &[own("/usr/bin/hello-app")],
        &["hello-app"],
    ),
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
            // The entrypoints of Docker's own images put the program before mere options.
            (true, false) if self.entrypoint.is_empty() && arguments[0].starts_with('-') => {
                [owned(&self.command[..1]), arguments.to_vec()].concat()
            }
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
        let mysql = find("mysql").unwrap();
        let option = list(&["--port=1"]);
        let expected = list(&["mysqld", "--port=1"]);
        assert_eq!(mysql.command_line(&[], &option), expected);
        let client = list(&["mysql", "-h", "db"]);
        assert_eq!(mysql.command_line(&[], &client), client);
        let both = busybox.command_line(&list(&["sleep"]), &list(&["9"]));
        assert_eq!(both, sleep);
    }
}
