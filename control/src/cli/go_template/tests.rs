//! Templates that people write, and what Go says of those that are wrong.

use serde_json::{Value, json};

use super::Template;

fn pods() -> Value {
    json!({"kind": "List", "empty": [], "nothing": null, "items": [
        {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x", "b": "2"}},
         "spec": {"replicas": 2, "on": true}, "data": {"password": "czNjcjN0"},
         "status": {"podIP": "10.0.0.1", "ports": [80, 8080, 1_234_567]}},
        {"metadata": {"name": "b"}, "spec": {"replicas": 0.5, "on": false},
         "status": {"podIP": "10.0.0.2"}},
    ]})
}

fn render(text: &str) -> Result<String, String> {
    let template = Template::parse(text).map_err(|error| error.to_string())?;
    template
        .render(&pods(), true)
        .map_err(|error| error.to_string())
}

#[test]
fn what_is_printed() {
    let cases = [
        ("{{.kind}}", "List"),
        ("plain", "plain"),
        (
            "{{ .none }}|{{.none.deeper}}|{{.nothing}}",
            "<no value>|<no value>|<no value>",
        ),
        (
            "{{range .items}}{{.metadata.name}}={{.status.podIP}};{{end}}",
            "a=10.0.0.1;b=10.0.0.2;",
        ),
        ("{{range .empty}}x{{else}}none{{end}}", "none"),
        ("{{range .absent}}x{{end}}", ""),
        (
            "{{range $i, $p := .items}}{{$i}}:{{$p.metadata.name}} {{end}}",
            "0:a 1:b ",
        ),
        (
            "{{range $k, $v := (index .items 0).metadata.labels}}{{$k}}={{$v}} {{end}}",
            "app.kubernetes.io/name=x b=2 ",
        ),
        (
            "{{range .items}}{{if .spec.on}}{{.metadata.name}}{{else}}off{{end}} {{end}}",
            "a off ",
        ),
        (
            "{{range .items}}{{if eq .metadata.name \"z\"}}1{{else if eq .metadata.name \"b\"}}2\
          {{else}}3{{end}}{{end}}",
            "32",
        ),
        (
            "{{with .items}}{{len .}}{{end}}{{with .none}}x{{else}}y{{end}}",
            "2y",
        ),
        ("{{with $x := .kind}}{{$x}}{{end}}", "List"),
        (
            "{{(index .items 0).status.ports}}",
            "[80 8080 1.234567e+06]",
        ),
        ("{{(index .items 1).spec}}", "map[on:false replicas:0.5]"),
        (
            "{{index (index .items 0).metadata.labels \"app.kubernetes.io/name\"}}",
            "x",
        ),
        ("{{index .items 0 \"metadata\" \"name\"}}", "a"),
        (
            "{{(index .items 0).data.password | base64decode}}",
            "s3cr3t",
        ),
        (
            "{{printf \"%s has %v, %-4s|%5s|%q %%\" .kind (len .items) \"ab\" \"c\" \"d\"}}",
            "List has 2, ab  |    c|\"d\" %",
        ),
        ("{{printf \"%d %s\" 7}}", "7 %!s(MISSING)"),
        (
            "{{printf \"%d\" (index .items 0).spec.replicas}}",
            "%!d(float64=2)",
        ),
        ("{{printf \"%.1f\" (index .items 0).spec.replicas}}", "2.0"),
        ("{{\"a\" | printf \"%s%s\" \"b\"}}", "ba"),
        ("{{print 1 2 \"x\" 3}}", "1 2x3"),
        ("{{println \"x\"}}", "x\n"),
        (
            "{{and .kind .none}}{{or .none .kind}}{{not .none}}",
            "<no value>Listtrue",
        ),
        (
            "{{if and (eq .kind \"List\") (not .empty)}}yes{{end}}",
            "yes",
        ),
        (
            "{{eq .kind \"a\" \"List\"}} {{ne .kind \"a\"}} {{lt 1 2}} {{ge \"b\" \"a\"}}",
            "true true true true",
        ),
        (
            "{{$n := 0}}{{range .items}}{{$n = len .metadata.name}}{{end}}{{$n}}",
            "1",
        ),
        ("{{range .items}}{{$.kind}}{{end}}", "ListList"),
        (
            "{{range .items}}{{if eq .metadata.name \"b\"}}{{break}}{{end}}x{{end}}",
            "x",
        ),
        (
            "{{range .items}}{{if eq .metadata.name \"a\"}}{{continue}}{{end}}x{{end}}",
            "x",
        ),
        (
            "a  {{- .kind -}}  b {{/* said */}}c{{- /* trimmed */ -}} d",
            "aListb cd",
        ),
        ("{{\"\\t\"}}{{`\\t`}}{{'a'}}{{0x10}}", "\t\\t9716"),
        (
            "{{define \"x\"}}<{{.}}>{{end}}{{template \"x\" .kind}}",
            "<List>",
        ),
        ("{{block \"x\" .kind}}[{{.}}]{{end}}", "[List]"),
        ("{{slice .kind 1 3}}{{len (slice .items 1)}}", "is1"),
        (
            "{{html \"<a>\"}} {{urlquery \"a b&\"}} {{js \"it's\"}}",
            "&lt;a&gt; a+b%26 it\\'s",
        ),
        (
            "{{if exists . \"items\"}}1{{end}}{{if exists . \"a\" \"b\"}}2{{end}}",
            "1",
        ),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{true}} {{nil | print}}", "true <nil>"),
    ];
    for (text, expected) in cases {
        let expected: Result<String, String> = Ok(expected.to_owned());
        if text.contains("nil |") {
            // Go refuses it too.
            assert!(render(text).is_err(), "{text}");
            continue;
        }
        assert_eq!(render(text), expected, "{text}");
    }
}

#[test]
fn what_is_refused() {
    let cases = [
        ("{{.a", "template: output:1: unclosed action"),
        ("a\n{{end}}", "template: output:2: unexpected {{end}}"),
        ("{{if .a}}x", "template: output:1: unexpected EOF"),
        ("{{if}}x{{end}}", "template: output:1: missing value for if"),
        (
            "{{unicorn .a}}",
            "template: output:1: function \"unicorn\" not defined",
        ),
        ("{{$x}}", "template: output:1: undefined variable \"$x\""),
        (
            "{{.a .b}}",
            "template: output:1: can't give argument to non-function",
        ),
        ("{{(.a}}", "template: output:1: unclosed left paren"),
        ("{{\"a}}", "template: output:1: unterminated quoted string"),
        (
            "{{break}}",
            "template: output:1: {{break}} outside {{range}}",
        ),
        (
            "{{range .items}}{{$x := 1}}{{end}}{{$x}}",
            "template: output:1: undefined variable \"$x\"",
        ),
        ("{{/* a", "template: output:1: unclosed comment"),
        (
            "{{template \"x\"}}",
            "template: output: template \"x\" not defined",
        ),
        (
            "{{.kind.a}}",
            "template: output:1:2: executing \"output\" at <.kind.a>: can't evaluate field a in type string",
        ),
        (
            "{{eq (index .items 0).spec.replicas 2}}",
            "template: output:1:2: executing \"output\" at <eq (index .items 0).spec.replicas 2>: \
          error calling eq: incompatible types for comparison",
        ),
        (
            "{{index .items 7}}",
            "template: output:1:2: executing \"output\" at <index .items 7>: error calling index: \
          index out of range: 7",
        ),
        (
            "{{range .kind}}{{end}}",
            "template: output:1:8: executing \"output\" at <.kind>: range can't iterate over List",
        ),
        (
            "{{nil}}",
            "template: output:1:2: executing \"output\" at <nil>: nil is not a command",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(render(text), Err(expected.to_owned()), "{text}");
    }
}

#[test]
fn missing_keys_can_be_an_error() {
    let template = Template::parse("{{.kind}}{{.none}}").unwrap();
    let error = template.render(&pods(), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "template: output:1:11: executing \"output\" at <.none>: map has no entry for key \"none\""
    );
}

#[test]
fn templates_have_bounds() {
    let deep = format!("{}x{}", "{{if 1}}".repeat(100), "{{end}}".repeat(100));
    assert!(render(&deep).unwrap_err().contains("nested deeper"));
    let parens = format!("{{{{{}1{}}}}}", "(".repeat(5000), ")".repeat(5000));
    assert!(render(&parens).unwrap_err().contains("nested deeper"));
    let endless = "{{define \"x\"}}{{template \"x\"}}{{end}}{{template \"x\"}}";
    assert!(
        render(endless)
            .unwrap_err()
            .contains("call each other deeper")
    );
    let counting = "{{range 10000}}{{range 10000}}{{end}}{{end}}";
    assert!(render(counting).unwrap_err().contains("steps"));
    let wide = "{{range 100000}}{{printf \"%999999s\" \"x\"}}{{end}}";
    assert!(render(wide).unwrap_err().contains("bytes of output"));
}

proptest::proptest! {
    #[test]
    fn any_text_is_rendered_or_refused(text in "[{}|.$()a-c\" \\n:=,0-9-]{0,40}") {
        let _ = render(&text);
    }

    #[test]
    fn actions_of_any_words_are_rendered_or_refused(
        words in proptest::collection::vec("(range|if|with|end|else|define|\\.items|\\$x|:=|\"a\"|index|0|\\(|\\)|\\|)", 0..8)
    ) {
        let text = format!("{{{{{}}}}}{{{{end}}}}", words.join(" "));
        let _ = render(&text);
    }
}
