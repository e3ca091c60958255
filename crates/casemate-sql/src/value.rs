//! Values of statements.

use sqlx::Arguments;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;

use crate::query::Bound;

/// What stands for a `$1`. Each kind may be `NULL`, which has its kind too: PostgreSQL asks.
#[derive(Debug, Clone)]
pub enum Value {
    Text(Option<String>),
    Integer(Option<i64>),
    Bool(Option<bool>),
    Bytes(Option<Vec<u8>>),
    /// A list of texts: JSON for SQLite, `TEXT[]` for PostgreSQL.
    Texts(Vec<String>),
}

impl Value {
    pub fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::Texts(texts.into_iter().map(Into::into).collect())
    }

    /// Rows of values for a statement that writes many at once, whose text is then the same for any
    /// number of them. Bytes are written in hex. PostgreSQL refuses texts with a NUL.
    pub fn rows(rows: Vec<serde_json::Value>) -> Self {
        Self::Text(Some(serde_json::Value::from(rows).to_string()))
    }
}

pub(crate) fn sqlite(values: Vec<Bound>) -> Result<SqliteArguments, BoxDynError> {
    let mut arguments = SqliteArguments::default();
    for bound in values {
        let value = match bound {
            Bound::Both(value) | Bound::Each { sqlite: value, .. } => value,
            Bound::Postgres(_) => continue,
        };
        match value {
            Value::Text(text) => arguments.add(text)?,
            Value::Integer(number) => arguments.add(number)?,
            Value::Bool(truth) => arguments.add(truth)?,
            Value::Bytes(bytes) => arguments.add(bytes)?,
            Value::Texts(texts) => arguments.add(json(&texts))?,
        }
    }
    Ok(arguments)
}

pub(crate) fn postgres(values: Vec<Bound>) -> Result<PgArguments, BoxDynError> {
    let mut arguments = PgArguments::default();
    for bound in values {
        let value = match bound {
            Bound::Both(value)
            | Bound::Each {
                postgres: value, ..
            }
            | Bound::Postgres(value) => value,
        };
        match value {
            Value::Text(text) => arguments.add(text)?,
            Value::Integer(number) => arguments.add(number)?,
            Value::Bool(truth) => arguments.add(truth)?,
            Value::Bytes(bytes) => arguments.add(bytes)?,
            Value::Texts(texts) => arguments.add(texts)?,
        }
    }
    Ok(arguments)
}

fn json(texts: &[String]) -> String {
    serde_json::Value::from(texts).to_string()
}

impl From<&Value> for Value {
    fn from(value: &Value) -> Self {
        value.clone()
    }
}

macro_rules! values {
    ($($kind:ident: $($of:ty => $read:expr),+;)+) => {
        $($(
            impl From<$of> for Value {
                fn from(value: $of) -> Self {
                    let read: fn($of) -> _ = $read;
                    Self::$kind(Some(read(value)))
                }
            }
            impl From<Option<$of>> for Value {
                fn from(value: Option<$of>) -> Self {
                    let read: fn($of) -> _ = $read;
                    Self::$kind(value.map(read))
                }
            }
        )+)+
    };
}

values! {
    Text: String => |text| text, &str => |text| text.to_owned(), &String => |text| text.clone();
    Integer: i64 => |number| number;
    Bool: bool => |truth| truth;
    Bytes: Vec<u8> => |bytes| bytes, &[u8] => |bytes| bytes.to_vec();
}
