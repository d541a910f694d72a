//! What plans read besides their inputs: weights, constants, rotation tables. Owns their sizes before they are loaded, and
//! loading them.

use super::device::{DeviceError, Stream};
use super::loaded_model::{LoadedModel, bytes_of};
use super::plan::view::Element;
use super::plan::{Contents, Plan};
use photonc_graph::ir::bytes::narrow;
use photonc_graph::ir::tensor::Literal;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of one angle: its cosine and its sine, f32.
const ANGLE_BYTES: usize = 8;

/// Weights, constants and rotation tables of some plans, each once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// Packs of weights.
    pub packs: BTreeSet<usize>,
    /// Constants, in the order of the plans.
    pub constants: Vec<(Literal, Element)>,
    /// Positions of each table, by the bits of the angle base and half the width of a head.
    pub rotations: BTreeMap<(u64, usize), usize>,
}

impl Resources {
    /// Those of these plans.
    #[must_use]
    pub fn of<'p>(plans: impl IntoIterator<Item = &'p Plan>) -> Self {
        let mut resources = Resources::default();
        for buffer in plans.into_iter().flat_map(|plan| &plan.buffers) {
            match &buffer.contents {
                Contents::Weights { pack } => {
                    resources.packs.insert(*pack);
                }
                Contents::Constant(value) => {
                    let constant = (value.clone(), buffer.element);
                    if !resources.constants.contains(&constant) {
                        resources.constants.push(constant);
                    }
                }
                Contents::Rotation { theta, half, positions } => {
                    let longest = resources.rotations.entry((*theta, *half)).or_default();
                    *longest = (*longest).max(*positions);
                }
                Contents::Input { .. } | Contents::Output { .. } | Contents::Arena { .. } => {}
            }
        }
        resources
    }
}

impl LoadedModel {
    /// Sizes in bytes of the packs of weights that `resources` names, loaded or not.
    #[must_use]
    pub fn pack_bytes(&self, resources: &Resources) -> Vec<(usize, usize)> {
        let known =
            resources.packs.iter().filter_map(|pack| Some((*pack, self.layout().packs().get(*pack)?)));
        known.map(|(index, pack)| (index, pack.bytes(self.dtype))).collect()
    }

    /// Device memory in bytes that loading `resources` takes, what is loaded left out.
    #[must_use]
    pub fn missing_bytes(&self, resources: &Resources) -> usize {
        let packs = self.pack_bytes(resources).into_iter().filter(|(pack, _)| !self.weights.has(*pack));
        let constants = resources.constants.iter().filter(|key| !self.constants.contains_key(key));
        let tables =
            resources.rotations.iter().filter(|(key, positions)| !self.has_rotation(**key, **positions));
        let sizes = packs
            .map(|(_, bytes)| bytes)
            .chain(constants.map(|(value, element)| {
                value.shape().iter().product::<usize>() * element.size_bytes(self.dtype)
            }))
            .chain(tables.map(|((_, half), positions)| positions * half * ANGLE_BYTES));
        self.device.properties().taken_bytes(sizes)
    }

    /// Loads what is missing of `resources`.
    ///
    /// # Errors
    /// No room, a weight that cannot be read, or a failure of the device.
    pub fn load(&mut self, resources: &Resources) -> Result<(), DeviceError> {
        for pack in &resources.packs {
            self.weights.pack(&*self.device, *pack)?;
        }
        for (value, element) in &resources.constants {
            self.constant(value, *element)?;
        }
        for ((theta, half), positions) in &resources.rotations {
            self.rotation(*theta, *half, *positions)?;
        }
        // Every stream reads them.
        self.device.synchronize()
    }

    pub(super) fn constant(&mut self, value: &Literal, element: Element) -> Result<u64, DeviceError> {
        let key = (value.clone(), element);
        if let Some(known) = self.constants.get(&key) {
            return Ok(known.address);
        }
        let bytes = bytes_of(&value.to_tensor().data, element, self.dtype);
        let memory = self.device.allocate(bytes.len())?;
        self.device.write(Stream(0), memory.address, &bytes)?;
        let address = memory.address;
        self.constants.insert(key, memory);
        Ok(address)
    }

    fn has_rotation(&self, key: (u64, usize), positions: usize) -> bool {
        self.rotations.get(&key).is_some_and(|(known, _)| *known >= positions)
    }

    pub(super) fn rotation(&mut self, theta: u64, half: usize, positions: usize) -> Result<u64, DeviceError> {
        let known = self.rotations.get(&(theta, half)).filter(|(known, _)| *known >= positions);
        if let Some((_, memory)) = known {
            return Ok(memory.address);
        }
        let base = f64::from_bits(theta);
        let mut bytes = Vec::with_capacity(positions * half * ANGLE_BYTES);
        for position in 0..positions {
            for pair in 0..half {
                // Positions and pairs are far below 2^52: the quotient is the nearest f64.
                let exponent = -(pair as f64) / half as f64;
                let (sin, cos) = (position as f64 * base.powf(exponent)).sin_cos();
                bytes.extend_from_slice(&narrow(cos).to_le_bytes());
                bytes.extend_from_slice(&narrow(sin).to_le_bytes());
            }
        }
        let memory = self.device.allocate(bytes.len())?;
        self.device.write(Stream(0), memory.address, &bytes)?;
        let address = memory.address;
        if let Some((_, old)) = self.rotations.insert((theta, half), (positions, memory)) {
            self.outgrown.push(old);
        }
        Ok(address)
    }
}
