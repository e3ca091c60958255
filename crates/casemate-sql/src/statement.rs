//! Statements in both dialects.

/// One statement, as each database is asked. Made by [`sql!`](crate::sql), or of a text that both
/// understand.
#[derive(Debug, Clone, Copy)]
pub struct Sql {
    pub sqlite: &'static str,
    pub postgres: &'static str,
}

impl From<&'static str> for Sql {
    fn from(both: &'static str) -> Self {
        Self {
            sqlite: both,
            postgres: both,
        }
    }
}

/// A [`Sql`] of parts, at compile time. A part is a literal, a macro that gives one, or
///
/// - `is_in("$1")`, `not_in("$1")`: the comparison with a list ([`crate::Value::texts`]),
/// - `items("b.layers", "n")`: as a table, `n.value` for each of the texts in `b.layers`, a JSON
///   text `{"is": […]}`,
/// - `rows("$1", "v")`: as a table, `v.value` for each row of many ([`crate::Value::rows`]), of which
///   `v.value ->> 0` is the first value as SQLite's own or PostgreSQL's text, and `v.key` its place,
/// - `now()`: the database's own clock when the statement began, in microseconds since 1970-01-01
///   UTC (SQLite's has milliseconds),
/// - `either("…", "…")`: SQLite's words and PostgreSQL's.
///
/// So `sql!("SELECT id FROM builds WHERE id", is_in("$1"))` reads `… WHERE id = ANY ($1)` on PostgreSQL.
#[macro_export]
macro_rules! sql {
    (@ [$($lite:tt)*] [$($pg:tt)*]) => {
        $crate::Sql { sqlite: concat!($($lite)*), postgres: concat!($($pg)*) }
    };
    (@ [$($lite:tt)*] [$($pg:tt)*] is_in($list:literal) $(, $($rest:tt)*)?) => {
        $crate::sql!(@ [$($lite)* " IN (SELECT value FROM json_each(", $list, "))",]
            [$($pg)* " = ANY (", $list, ")",] $($($rest)*)?)
    };
    (@ [$($lite:tt)*] [$($pg:tt)*] not_in($list:literal) $(, $($rest:tt)*)?) => {
        $crate::sql!(@ [$($lite)* " NOT IN (SELECT value FROM json_each(", $list, "))",]
            [$($pg)* " <> ALL (", $list, ")",] $($($rest)*)?)
    };
    (@ [$($lite:tt)*] [$($pg:tt)*] items($json:literal, $name:literal) $(, $($rest:tt)*)?) => {
        $crate::sql!(@ [$($lite)* "json_each(", $json, ", '$.is') ", $name,]
            [$($pg)* "jsonb_array_elements_text(CAST(", $json, " AS JSONB) -> 'is') AS ",
                $name, " (value)",] $($($rest)*)?)
    };
    (@ [$($lite:tt)*] [$($pg:tt)*] rows($list:literal, $name:literal) $(, $($rest:tt)*)?) => {
        $crate::sql!(@ [$($lite)* "json_each(", $list, ") ", $name,]
            [$($pg)* "jsonb_array_elements(CAST(", $list, " AS JSONB)) WITH ORDINALITY AS ",
                $name, " (value, key)",] $($($rest)*)?)
    };
    (@ [$($lite:tt)*] [$($pg:tt)*] now() $(, $($rest:tt)*)?) => {
        $crate::sql!(@ [$($lite)* "CAST(unixepoch('subsec') * 1000000 AS INTEGER)",]
            [$($pg)* "CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000000 AS BIGINT)",]
            $($($rest)*)?)
    };
    (@ [$($lite:tt)*] [$($pg:tt)*] either($a:literal, $b:literal) $(, $($rest:tt)*)?) => {
        $crate::sql!(@ [$($lite)* $a,] [$($pg)* $b,] $($($rest)*)?)
    };
    (@ [$($lite:tt)*] [$($pg:tt)*] $same:literal $(, $($rest:tt)*)?) => {
        $crate::sql!(@ [$($lite)* $same,] [$($pg)* $same,] $($($rest)*)?)
    };
    (@ [$($lite:tt)*] [$($pg:tt)*] $same:ident!($($of:tt)*) $(, $($rest:tt)*)?) => {
        $crate::sql!(@ [$($lite)* $same!($($of)*),] [$($pg)* $same!($($of)*),] $($($rest)*)?)
    };
    ($($parts:tt)+) => { $crate::sql!(@ [] [] $($parts)+) };
}
