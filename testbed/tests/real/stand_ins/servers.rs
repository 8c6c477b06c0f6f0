//! Servers of images: the shop's parts, and those that everybody has.

use crate::Outcome;
use crate::lab::{Lab, needs, wait_for};

/// A part of the shop, with its Service.
fn part(name: &str, image: &str, environment: &[(&str, &str)]) -> String {
    let environment: Vec<String> = environment
        .iter()
        .map(|(name, value)| format!("{{name: {name}, value: '{value}'}}"))
        .collect();
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 0\n  containers: [{{name: c, image: \
         'public.ecr.aws/aws-containers/retail-store-sample-{image}:1.2.1', env: [{}], ports: \
         [{{containerPort: 8080}}]}}]\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{clusterIP: None, selector: {{app: {name}}}, ports: [{{port: 8080}}]}}\n",
        environment.join(", ")
    )
}

const CATALOG_DATABASE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: catalog-mysql, labels: {app: catalog-mysql}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: mysql
    image: public.ecr.aws/docker/library/mysql:8.0
    env:
    - {name: MYSQL_ROOT_PASSWORD, value: my-secret-pw}
    - {name: MYSQL_DATABASE, value: catalog}
    - {name: MYSQL_USER, value: catalog}
    - {name: MYSQL_PASSWORD, value: dYmNfWV4uEvTzoFu}
    ports: [{containerPort: 3306}]
---
apiVersion: v1
kind: Service
metadata: {name: catalog-mysql}
spec: {clusterIP: None, selector: {app: catalog-mysql}, ports: [{port: 3306}]}
";

const NO_CATALOG_DATABASE: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {matchLabels: {app: catalog-mysql}}, ingress: []}
";

pub fn shop() -> Outcome {
    needs(&[])?;
    let endpoints = ["CATALOG", "CARTS", "CHECKOUT", "ORDERS"].map(|part| {
        (
            format!("RETAIL_UI_ENDPOINTS_{part}"),
            format!("http://{}:8080", part.to_lowercase()),
        )
    });
    let endpoints: Vec<(&str, &str)> = endpoints
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let database = [
        ("RETAIL_CATALOG_PERSISTENCE_PROVIDER", "mysql"),
        ("RETAIL_CATALOG_PERSISTENCE_ENDPOINT", "catalog-mysql:3306"),
        ("RETAIL_CATALOG_PERSISTENCE_DB_NAME", "catalog"),
        ("RETAIL_CATALOG_PERSISTENCE_USER", "catalog"),
        ("RETAIL_CATALOG_PERSISTENCE_PASSWORD", "dYmNfWV4uEvTzoFu"),
    ];
    let orders = [("RETAIL_CHECKOUT_ENDPOINTS_ORDERS", "http://orders:8080")];
    let manifest = [
        part("ui", "ui", &endpoints),
        part("catalog", "catalog", &database),
        part("carts", "cart", &[]),
        part("checkout", "checkout", &orders),
        part("orders", "orders", &[]),
        format!("---{CATALOG_DATABASE}"),
    ]
    .concat();
    let lab = Lab::up(&manifest);
    let ask =
        |pod: &str, arguments: &[&str]| lab.exec(pod, &[&["curl", "-s"], arguments].concat()).1;
    let parts = wait_for("the parts", || {
        let said = ask("ui", &["http://localhost:8080/topology"]);
        let healthy = said.matches("\"HEALTHY\"").count() == 4;
        if healthy { Ok(said) } else { Err(said) }
    });
    assert!(parts.contains("http://catalog:8080"), "{parts}");
    assert_eq!(ask("ui", &["http://catalog:8080/health"]), "OK");
    let health = ask("catalog", &["http://checkout:8080/health"]);
    assert!(health.starts_with("{\"status\":\"ok\""), "{health}");
    assert_eq!(ask("ui", &["http://orders:8080/orders"]), "[]");
    let goods = "{\"items\":[{\"id\":\"1\",\"price\":5,\"quantity\":2}]}";
    let updated = ask(
        "ui",
        &["-d", goods, "http://checkout:8080/checkout/1/update"],
    );
    assert!(updated.contains("\"total\":10"), "{updated}");
    let submitted = ask("ui", &["-d", "", "http://checkout:8080/checkout/1/submit"]);
    assert!(
        submitted.contains("\"orderId\":\"order-000001\""),
        "{submitted}"
    );
    let ordered = ask("ui", &["http://orders:8080/orders"]);
    assert!(ordered.contains("order-000001"), "{ordered}");
    let greeted = ask(
        "orders",
        &["-m", "2", "--output", "-", "telnet://catalog-mysql:3306"],
    );
    assert!(greeted.contains("caching_sha2_password"), "{greeted}");
    lab.apply(NO_CATALOG_DATABASE);
    let code = [
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "http://catalog:8080/catalog/products",
    ];
    assert_eq!(ask("ui", &code), "500");
    assert_eq!(ask("ui", &["http://catalog:8080/health"]), "OK");
    Ok(())
}

const SERVERS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: servers}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: web, image: nginx, ports: [{containerPort: 80}]}
  - {name: cache, image: 'redis:7', ports: [{containerPort: 6379}]}
  - {name: db, image: postgres, env: [{name: POSTGRES_PASSWORD, value: x}], ports: [{containerPort: 5432}]}
  - name: agnhost
    image: registry.k8s.io/e2e-test-images/agnhost:2.53
    args: [netexec, --http-port=8080, --udp-port=8081]
    ports: [{containerPort: 8080}, {containerPort: 8081, protocol: UDP}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: agnhost, image: registry.k8s.io/e2e-test-images/agnhost:2.53, args: [pause]}
  - {name: bb, image: busybox, command: [sleep, infinity]}
";

pub fn greetings() -> Outcome {
    needs(&[])?;
    let lab = Lab::up(SERVERS);
    let address = lab.address("default/servers");
    let ask = |command: &str| {
        let command = command.replace("ADDRESS", &address);
        lab.both(&["exec", "client", "-c", "bb", "--", "sh", "-c", &command])
            .1
    };
    let page = ask("wget -qO- http://ADDRESS/");
    assert!(page.contains("<title>Welcome to nginx!</title>"), "{page}");
    assert_eq!(ask("echo PING | nc -w 1 ADDRESS 6379"), "+PONG\r\n");
    assert_eq!(ask("wget -qO- http://ADDRESS:8080/hostName"), "servers");
    let client = lab.address("default/client");
    let seen = ask("wget -qO- http://ADDRESS:8080/clientip");
    assert!(seen.starts_with(&format!("{client}:")), "{seen}");
    let connect = |target: &str, protocol: &str| {
        let protocol = format!("--protocol={protocol}");
        let command = ["/agnhost", "connect", target, "--timeout=2s", &protocol];
        lab.both(&[&["exec", "client", "-c", "agnhost", "--"][..], &command].concat())
    };
    for (port, protocol) in [(80, "tcp"), (5432, "tcp"), (8081, "udp")] {
        let target = format!("{address}:{port}");
        assert_eq!(
            connect(&target, protocol),
            (true, String::new()),
            "{target}"
        );
    }
    let (open, said) = connect(&format!("{address}:9"), "tcp");
    assert!(!open && said.starts_with("REFUSED\n"), "{said}");
    lab.apply(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed}\n\
         spec: {podSelector: {}, policyTypes: [Ingress]}\n",
    );
    let (open, said) = connect(&format!("{address}:80"), "tcp");
    assert!(!open && said.starts_with("TIMEOUT\n"), "{said}");
    Ok(())
}
