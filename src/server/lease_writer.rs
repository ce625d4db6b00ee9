//! `lease4-write`: all leases into a file of their own, page by page, whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::journal::{Family as _, V4};
use crate::lease::request::{LeaseFilter, LeaseReply, LeaseRequest};

/// Leases asked for at once.
const PAGE_LEASES: u32 = 2000;

/// A file on its way. Dropped before [`Self::finish`], it leaves nothing behind.
pub struct LeaseWriter {
    path: PathBuf,
    beside: PathBuf,
    file: Option<BufWriter<File>>,
    rows: Vec<u8>,
}

impl LeaseWriter {
    /// Creates the file beside its place and writes the header.
    ///
    /// # Errors
    /// What the disk says.
    pub fn create(path: PathBuf) -> Result<Self, String> {
        let mut beside = path.clone().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let file =
            File::create(&beside).map_err(|error| format!("cannot create {}: {error}", beside.display()))?;
        let mut writer = Self { path, beside, file: Some(BufWriter::new(file)), rows: Vec::new() };
        V4::write_header(&mut writer.rows);
        writer.put_rows()?;
        Ok(writer)
    }

    /// The request for the leases above `from`.
    #[must_use]
    pub const fn page(from: Ipv4Addr) -> LeaseRequest {
        LeaseRequest::List { from, limit: PAGE_LEASES, filter: LeaseFilter::All }
    }

    /// Writes a page; the address to go on from, or nothing when it was the last.
    ///
    /// # Errors
    /// What the disk says, or that the page did not come.
    pub fn take(&mut self, page: LeaseReply) -> Result<Option<Ipv4Addr>, String> {
        let (leases, is_part) = match page {
            LeaseReply::Leases(leases) => (leases, false),
            LeaseReply::Part(leases) => (leases, true),
            _ => return Err("the shards do not list their leases".to_owned()),
        };
        for lease in &leases {
            V4::write(&lease.view(), &mut self.rows);
        }
        self.put_rows()?;
        let full = is_part || u32::try_from(leases.len()).is_ok_and(|count| count >= PAGE_LEASES);
        Ok(leases.last().filter(|_| full).map(|lease| lease.view().address))
    }

    fn put_rows(&mut self) -> Result<(), String> {
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(&self.rows));
        self.rows.clear();
        written.map_err(|error| format!("cannot write {}: {error}", self.beside.display()))
    }

    /// Puts the file in its place, on the disk.
    ///
    /// # Errors
    /// What the disk says; what was in the place before is there still then.
    pub fn finish(mut self) -> Result<(), String> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        let placed = file
            .flush()
            .and_then(|()| file.get_ref().sync_all())
            .and_then(|()| std::fs::rename(&self.beside, &self.path));
        if placed.is_err() {
            let _ = std::fs::remove_file(&self.beside);
        }
        placed.map_err(|error| format!("cannot write {}: {error}", self.path.display()))
    }
}

impl Drop for LeaseWriter {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = std::fs::remove_file(&self.beside);
        }
    }
}
