//! What export writes and runtime reads: one directory with a manifest, graphs, weights and hashes. Owns its layout,
//! what may be replaced and its integrity; refuses to know how graphs are exported or run.

mod agree;
mod behind;
mod error;
mod folder;
mod hash;
mod layout;
mod manifest;
mod part;
mod read;
mod seal;
mod stored;
mod stream;
mod tensors;
mod weights;
mod write;

pub use behind::{Unsynced, WriteBehind};
pub use error::BundleError;
pub use hash::{Blake3, hash_file};
pub use layout::Layout;
pub use manifest::{
    FORMAT, FileRecord, GraphRecord, Manifest, ModelRecord, PortRecord, QuantizedRecord, SourceRecord,
    WeightRecord, stored,
};
pub use part::PartWriter;
pub use read::Bundle;
pub use seal::{seal, sealed};
pub use stored::{CodePiece, Piece};
pub use stream::FileWriter;
pub use weights::{Converted, StoredTensor};
pub use write::{BundleWriter, is_bundle};
