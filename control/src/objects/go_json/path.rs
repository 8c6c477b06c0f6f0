//! Where a value stands, in the words of Go's decoders.

/// Where a value stands.
pub(super) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
    Key(&'a Path<'a>),
}

impl Path<'_> {
    /// `spec.ingress[0].ports`, as the strict decoder prints it.
    pub(super) fn full(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Field(Path::Root, name) => (*name).to_owned(),
            Path::Field(parent, name) => format!("{}.{name}", parent.full()),
            Path::Index(parent, index) => format!("{}[{index}]", parent.full()),
            Path::Key(parent) => parent.full(),
        }
    }

    /// `spec.ingress.ports`, as Go's type errors print it.
    pub(super) fn fields(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Field(Path::Root, name) => (*name).to_owned(),
            Path::Field(parent, name) => format!("{}.{name}", parent.fields()),
            Path::Index(parent, _) | Path::Key(parent) => parent.fields(),
        }
    }
}

/// A place and the struct that holds it.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) path: &'a Path<'a>,
    pub(super) owner: &'static str,
}
