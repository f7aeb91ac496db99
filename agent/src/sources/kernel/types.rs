//! Everything that programs must know of the running kernel, read in one go.

use tailgauge_ebpf::layout::Fields;

use super::description::Description;
use super::drop_types::{self, DropTypes};
use super::sampling_types::{self, fields};

/// For each program, what it must know, or why that is not known; `None` for one that is not wanted.
#[derive(Debug, Default)]
pub(super) struct KernelTypes {
    /// For the program that counts drops.
    pub(super) drops: Option<Result<DropTypes, String>>,
    /// For those that sample.
    pub(super) sampling: Option<Result<Fields, String>>,
}

impl KernelTypes {
    /// Asks the running kernel, for those that are wanted.
    pub(super) fn of_this_kernel(drops: bool, sampling: bool) -> Self {
        if !drops && !sampling {
            return Self::default();
        }
        let members =
            [drop_types::MEMBERS, sampling_types::MEMBERS, sampling_types::PRESSURE_MEMBERS].concat();
        let others = [drop_types::OTHERS, sampling_types::OTHERS].concat();
        let mut description =
            Description::of_this_kernel(&members, &others).map_err(|error| error.to_string());
        let mut types = Self::default();
        match &mut description {
            Ok(description) => {
                types.drops = drops.then(|| DropTypes::read(description).map_err(|error| error.to_string()));
                types.sampling = sampling.then(|| fields(description).map_err(|error| error.to_string()));
            }
            Err(error) => {
                types.drops = drops.then(|| Err(error.clone()));
                types.sampling = sampling.then(|| Err(error.clone()));
            }
        }
        types
    }
}
