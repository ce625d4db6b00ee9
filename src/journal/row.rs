//! What rows of both families share: columns, header check, schema versions, reasons of refusal, the reader.

use std::fmt;
use std::hash::Hash;

/// Longest row that is read; a longer line is a bad row (Kea's own rows stay far below).
pub const ROW_BYTES_MAX: usize = 1 << 20;

/// Most columns of any known schema.
pub(super) const COLUMNS_MAX: usize = 18;

/// An address family's rows: DHCPv4 is [`super::V4`].
pub trait Family: Send + Sync + 'static {
    /// The lease's primary key.
    type Key: Copy + Eq + Ord + Hash + Send + Sync + fmt::Debug + fmt::Display;
    /// The lease with borrowed long parts.
    type Lease<'a>: Copy;

    /// Names of the columns that we know and write, in order.
    const COLUMNS: &'static [&'static str];
    /// How many columns the oldest schema has; fewer make a header invalid.
    const COLUMNS_MIN: usize;

    /// The key of a row by its first column alone.
    fn read_key(column: &[u8]) -> Option<Self::Key>;

    /// A lease from its columns; those past the row's own are empty.
    ///
    /// # Errors
    /// The first column that cannot be read, or the rule that the row breaks.
    fn read<'a>(columns: &Columns<'a>, scratch: &'a mut Scratch) -> Result<Self::Lease<'a>, RowReason>;

    /// Appends a lease's row with its line end.
    fn write(lease: &Self::Lease<'_>, out: &mut Vec<u8>);

    /// The lease's key.
    fn key(lease: &Self::Lease<'_>) -> Self::Key;

    /// Whether the row says that the lease is gone (lifetime 0).
    fn is_deletion(lease: &Self::Lease<'_>) -> bool;

    /// Appends the header with its line end.
    fn write_header(out: &mut Vec<u8>) {
        for (index, name) in Self::COLUMNS.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name.as_bytes());
        }
        out.push(b'\n');
    }
}

/// How a file's header relates to the columns that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaClass {
    /// The same columns.
    Current,
    /// Fewer: an older release wrote it.
    NeedsUpgrade,
    /// More: a newer release wrote it.
    NeedsDowngrade,
}

/// What a file's header says of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Columns that the header names.
    pub column_count: usize,
    /// How that relates to ours.
    pub class: SchemaClass,
    column_count_min: usize,
}

impl Schema {
    /// Reads a header line (without its line end).
    ///
    /// # Errors
    /// When the line is not the header of a lease file of this family: the file must not be touched then.
    pub fn from_header<F: Family>(line: &[u8]) -> Result<Self, HeaderError> {
        let mut column_count = 0;
        for name in line.split(|octet| *octet == b',') {
            if let Some(expected) = F::COLUMNS.get(column_count).copied()
                && name != expected.as_bytes()
            {
                return Err(HeaderError::Column {
                    number: column_count + 1,
                    expected,
                    found: excerpt(name, HEADER_EXCERPT_BYTES),
                });
            }
            column_count += 1;
        }
        if column_count < F::COLUMNS_MIN {
            return Err(HeaderError::TooFew { expected: F::COLUMNS_MIN, found: column_count });
        }
        let class = match column_count.cmp(&F::COLUMNS.len()) {
            std::cmp::Ordering::Equal => SchemaClass::Current,
            std::cmp::Ordering::Less => SchemaClass::NeedsUpgrade,
            std::cmp::Ordering::Greater => SchemaClass::NeedsDowngrade,
        };
        Ok(Self { column_count, class, column_count_min: column_count.min(F::COLUMNS.len()) })
    }

    /// The schema that we write.
    #[must_use]
    pub const fn current<F: Family>() -> Self {
        let column_count = F::COLUMNS.len();
        Self { column_count, class: SchemaClass::Current, column_count_min: column_count }
    }
}

const HEADER_EXCERPT_BYTES: usize = 64;

/// At most `limit` octets of a line, printable, for messages.
#[must_use]
pub fn excerpt(line: &[u8], limit: usize) -> String {
    let cut = &line[..line.len().min(limit)];
    let dots = if cut.len() < line.len() { "…" } else { "" };
    format!("{}{dots}", cut.escape_ascii())
}

/// Why a first line is not the header of a lease file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Only blank lines.
    Missing,
    /// A column has another name.
    Column {
        /// Its position, from 1.
        number: usize,
        /// The name that belongs there.
        expected: &'static str,
        /// What is there, shortened.
        found: String,
    },
    /// Fewer columns than any schema has.
    TooFew {
        /// Columns of the oldest schema.
        expected: usize,
        /// Columns there.
        found: usize,
    },
}

impl fmt::Display for HeaderError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => out.write_str("invalid header: there is none"),
            Self::Column { number, expected, found } => {
                write!(out, "invalid header: column {number} is '{found}' where '{expected}' belongs")
            }
            Self::TooFew { expected, found } => {
                write!(out, "invalid header: {found} columns where at least {expected} belong")
            }
        }
    }
}

impl std::error::Error for HeaderError {}

/// Why a row is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RowReason {
    /// Fewer columns than the header announces.
    TooFewColumns,
    /// The last line of a file, without its line end: a write was cut off.
    Torn,
    /// The line is longer than [`ROW_BYTES_MAX`].
    TooLong,
    /// `address` is not a canonical address of the file's family.
    Address,
    /// `hwaddr` is not colon-separated hexadecimal of at most 20 octets.
    HwAddr,
    /// `client_id` is not hexadecimal, in groups joined by colons or blanks or in one run, of 2 to 255 octets.
    ClientId,
    /// `duid` is not colon-separated hexadecimal of 1 to 130 octets.
    Duid,
    /// The empty DUID on a lease that is not declined.
    EmptyDuid,
    /// `valid_lifetime` is not a 32-bit decimal.
    ValidLifetime,
    /// `expire` is not a 64-bit decimal.
    Expire,
    /// `subnet_id` is not a 32-bit decimal.
    SubnetId,
    /// `pref_lifetime` is not a 32-bit decimal.
    PreferredLifetime,
    /// `lease_type` is none of 0, 1, 2.
    LeaseType,
    /// `iaid` is not a 32-bit decimal.
    Iaid,
    /// `prefix_len` is not 0 to 128.
    PrefixLen,
    /// `fqdn_fwd` is neither 0 nor 1.
    FqdnFwd,
    /// `fqdn_rev` is neither 0 nor 1.
    FqdnRev,
    /// `state` is not a 32-bit decimal.
    State,
    /// `user_context` is not a JSON map.
    UserContext,
    /// `pool_id` is not a 32-bit decimal.
    PoolId,
    /// Neither hardware address nor client identifier on a lease that is not declined.
    NoIdentity,
}

impl RowReason {
    /// The reason in words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::TooFewColumns => "fewer columns than the header announces",
            Self::Torn => "not written to its end",
            Self::TooLong => "longer than a row can be",
            Self::Address => "address is not a canonical address of this family",
            Self::HwAddr => "hwaddr is not colon-separated hexadecimal of at most 20 octets",
            Self::ClientId => "client_id is not hexadecimal of 2 to 255 octets",
            Self::Duid => "duid is not colon-separated hexadecimal of 1 to 130 octets",
            Self::EmptyDuid => "empty duid on a lease that is not declined",
            Self::ValidLifetime => "valid_lifetime is not a 32-bit decimal",
            Self::Expire => "expire is not a 64-bit decimal",
            Self::SubnetId => "subnet_id is not a 32-bit decimal",
            Self::PreferredLifetime => "pref_lifetime is not a 32-bit decimal",
            Self::LeaseType => "lease_type is none of 0, 1, 2",
            Self::Iaid => "iaid is not a 32-bit decimal",
            Self::PrefixLen => "prefix_len is not 0 to 128",
            Self::FqdnFwd => "fqdn_fwd is neither 0 nor 1",
            Self::FqdnRev => "fqdn_rev is neither 0 nor 1",
            Self::State => "state is not a 32-bit decimal",
            Self::UserContext => "user_context is not a JSON map",
            Self::PoolId => "pool_id is not a 32-bit decimal",
            Self::NoIdentity => "neither hwaddr nor client_id on a lease that is not declined",
        }
    }
}

impl fmt::Display for RowReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.text())
    }
}

/// A row split at its commas; columns that the row lacks are empty.
#[derive(Debug)]
pub struct Columns<'a> {
    columns: [&'a [u8]; COLUMNS_MAX],
    count: usize,
}

impl<'a> Columns<'a> {
    /// Splits `line`; columns past the last that any schema knows are counted and dropped.
    #[inline]
    pub(super) fn split(line: &'a [u8]) -> Self {
        let mut columns: [&[u8]; COLUMNS_MAX] = [&[]; COLUMNS_MAX];
        let mut count = 0;
        let mut start = 0;
        for comma in memchr::memchr_iter(b',', line) {
            if let Some(column) = columns.get_mut(count) {
                *column = &line[start..comma];
            }
            count += 1;
            start = comma + 1;
        }
        if let Some(column) = columns.get_mut(count) {
            *column = &line[start..];
        }
        Self { columns, count: count + 1 }
    }

    /// Column `index`, empty when the row lacks it.
    #[inline]
    pub(super) fn at(&self, index: usize) -> &'a [u8] {
        self.columns[index]
    }

    /// Column `index`, or nothing when the row lacks it: its default holds then.
    #[inline]
    pub(super) fn present(&self, index: usize) -> Option<&'a [u8]> {
        (index < self.count).then(|| self.columns[index])
    }
}

/// Where the parts of a row go that cannot be borrowed from it. Grows to the longest row seen, then stays.
#[derive(Debug)]
pub struct Scratch {
    pub(super) identifier: [u8; 256],
    pub(super) hostname: Vec<u8>,
    pub(super) user_context: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { identifier: [0; 256], hostname: Vec::new(), user_context: Vec::new() }
    }
}

/// Reads rows of one file.
#[derive(Debug)]
pub struct RowReader<F> {
    schema: Schema,
    scratch: Scratch,
    family: std::marker::PhantomData<fn() -> F>,
}

impl<F: Family> RowReader<F> {
    /// A reader of rows below the header that `schema` was made from.
    #[must_use]
    pub fn new(schema: Schema) -> Self {
        Self { schema, scratch: Scratch::default(), family: std::marker::PhantomData }
    }

    /// The lease of `line` (without its line end).
    ///
    /// # Errors
    /// Why the row is refused.
    #[inline]
    pub fn read<'a>(&'a mut self, line: &'a [u8]) -> Result<F::Lease<'a>, RowReason> {
        if line.len() > ROW_BYTES_MAX {
            return Err(RowReason::TooLong);
        }
        let columns = Columns::split(line);
        if columns.count < self.schema.column_count_min {
            return Err(RowReason::TooFewColumns);
        }
        F::read(&columns, &mut self.scratch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::V4;

    #[test]
    fn headers_of_every_release_are_classified() {
        let at = |count: usize| V4::COLUMNS[..count].join(",");
        for (header, class) in [
            (at(9), SchemaClass::NeedsUpgrade),
            (at(10), SchemaClass::NeedsUpgrade),
            (at(11), SchemaClass::NeedsUpgrade),
            (at(12), SchemaClass::Current),
            (at(12) + ",future", SchemaClass::NeedsDowngrade),
        ] {
            assert_eq!(Schema::from_header::<V4>(header.as_bytes()).expect("valid").class, class, "{header}");
        }
    }

    #[test]
    fn a_header_with_another_column_or_too_few_is_refused() {
        let error =
            Schema::from_header::<V4>(b"address,hwaddr,clientid,valid_lifetime").expect_err("misnamed");
        assert_eq!(error.to_string(), "invalid header: column 3 is 'clientid' where 'client_id' belongs");
        let short = V4::COLUMNS[..8].join(",");
        assert_eq!(
            Schema::from_header::<V4>(short.as_bytes()),
            Err(HeaderError::TooFew { expected: 9, found: 8 })
        );
        let carriage = V4::COLUMNS.join(",") + "\r";
        assert!(Schema::from_header::<V4>(carriage.as_bytes()).is_err(), "a CR belongs to the last column");
    }
}
