//! The API server's one object, and what may be asked of it: also what no program of ours asks.

use ha::election::Content;

/// The Lease as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// `resourceVersion`.
    pub version: u64,
    /// What it says.
    pub content: Content,
    /// `renewTime`: the writer's wall clock.
    pub renewed: u64,
}

/// How a write is guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Only on this version.
    Version(u64),
    /// Not at all: a patch or a forced apply without `resourceVersion`, which makes what is missing.
    None,
    /// Server-side apply without force: refused when another holds it.
    NotAnothers,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// GET.
    Read,
    /// POST.
    Create(Content),
    /// PUT, PATCH or apply.
    Write(Guard, Content),
}

/// What the API server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// This is it.
    Found(Stored),
    /// There is none.
    Missing,
    /// Written, with this version.
    Written(u64),
    /// 409.
    Conflict,
    /// An error, or nothing at all.
    Unknown,
}

/// The API server.
#[derive(Debug, Default)]
pub struct Register {
    /// The Lease.
    pub lease: Option<Stored>,
    /// The last revision: it grows over deletions.
    pub revision: u64,
    /// Writes and reads that landed.
    pub landed: (u64, u64),
}

impl Register {
    /// A request takes effect.
    pub fn land(&mut self, ask: &Ask, wall: u64) -> Reply {
        let (guard, content) = match ask {
            Ask::Read => {
                self.landed.1 += 1;
                return self.lease.clone().map_or(Reply::Missing, Reply::Found);
            }
            Ask::Create(_) if self.lease.is_some() => return Reply::Conflict,
            Ask::Create(content) => (Guard::None, content),
            Ask::Write(guard, content) => (*guard, content),
        };
        match (guard, &self.lease) {
            (Guard::Version(on), Some(lease)) if lease.version != on => return Reply::Conflict,
            (Guard::Version(_), None) => return Reply::Missing,
            (Guard::NotAnothers, Some(lease))
                if lease.content.holder.is_some() && lease.content.holder != content.holder =>
            {
                return Reply::Conflict;
            }
            _ => {}
        }
        self.landed.0 += 1;
        self.revision += 1;
        self.lease = Some(Stored { version: self.revision, content: content.clone(), renewed: wall });
        Reply::Written(self.revision)
    }

    /// Somebody deletes it.
    pub fn delete(&mut self) {
        self.revision += 1;
        self.lease = None;
    }
}
